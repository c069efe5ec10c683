// SPDX-License-Identifier: Apache-2.0
// The TCP state machine against IPVS's, cell by cell (data/ipvs/state_transitions.txt).
#include "dataplane/table/tcp_states.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/state_transitions.h"

namespace weir {
namespace {

const std::map<std::string, TcpDirection> kDirections = {{"IN", TcpDirection::input},
                                                         {"OUT", TcpDirection::output},
                                                         {"INONLY", TcpDirection::input_only}};
const std::map<std::string, TcpEvent> kEvents = {
    {"syn", TcpEvent::syn}, {"fin", TcpEvent::fin}, {"ack", TcpEvent::ack}, {"rst", TcpEvent::rst}};

TEST(TcpStates, FollowIpvsInEveryCell) {
  test::expect_transitions("tcp", kDirections, kEvents, kTcpStateNames, next_tcp_state);
}

TEST(TcpStates, CloseOnASegmentWithoutAnyOfTheFourFlags) {
  for (const auto& [name, direction] : kDirections) {
    for (std::size_t i = 0; i < kTcpStates; ++i) {
      EXPECT_EQ(next_tcp_state(static_cast<TcpState>(i), direction, TcpEvent::none),
                TcpState::close)
          << name << " " << kTcpStateNames[i];
    }
  }
}

TEST(TcpStates, TakeResetBeforeSynBeforeFinBeforeAck) {
  for (unsigned flags = 0; flags < 256; ++flags) {
    const bool fin = (flags & 0x01U) != 0, syn = (flags & 0x02U) != 0;
    const bool rst = (flags & 0x04U) != 0, ack = (flags & 0x10U) != 0;
    const TcpEvent expected = rst   ? TcpEvent::rst
                              : syn ? TcpEvent::syn
                              : fin ? TcpEvent::fin
                              : ack ? TcpEvent::ack
                                    : TcpEvent::none;
    EXPECT_EQ(tcp_event(static_cast<std::uint8_t>(flags)), expected) << flags;
  }
}

TEST(TcpStates, HaveTheTimeoutsAndTheActiveSetOfIpvs) {
  const std::map<std::string, std::pair<std::uint32_t, bool>> expected = {
      {"NONE", {2, false}},     {"ESTABLISHED", {900, true}}, {"SYN_SENT", {120, true}},
      {"SYN_RECV", {60, true}}, {"FIN_WAIT", {120, false}},   {"TIME_WAIT", {120, false}},
      {"CLOSE", {10, false}},   {"CLOSE_WAIT", {60, false}},  {"LAST_ACK", {30, false}},
      {"LISTEN", {120, false}}, {"SYNACK", {120, true}}};
  ASSERT_EQ(expected.size(), kTcpStates);
  for (std::size_t i = 0; i < kTcpStates; ++i) {
    const std::string name(kTcpStateNames[i]);
    EXPECT_EQ(kDefaultTcpTimeouts[i], expected.at(name).first) << name;
    EXPECT_EQ(kTcpStateActive[i], expected.at(name).second) << name;
  }
}

}  // namespace
}  // namespace weir
