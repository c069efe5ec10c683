// SPDX-License-Identifier: Apache-2.0
// The TCP state machine against IPVS's, cell by cell (data/ipvs/state_transitions.txt).
#include "dataplane/tcp_states.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <tuple>

namespace weir {
namespace {

using Cell = std::tuple<TcpDirection, TcpEvent, TcpState>;

const std::map<std::string, TcpDirection> kDirections = {{"IN", TcpDirection::input},
                                                         {"OUT", TcpDirection::output},
                                                         {"INONLY", TcpDirection::input_only}};
const std::map<std::string, TcpEvent> kEvents = {
    {"syn", TcpEvent::syn}, {"fin", TcpEvent::fin}, {"ack", TcpEvent::ack}, {"rst", TcpEvent::rst}};

std::string data_folder() {
  const char* folder = std::getenv("WEIR_TEST_DATA");
#ifdef WEIR_TEST_DATA
  if (folder == nullptr) folder = WEIR_TEST_DATA;
#endif
  return folder == nullptr ? "tests/data" : folder;
}

TcpState state_named(const std::string& name) {
  const auto found = std::ranges::find(kTcpStateNames, name);
  EXPECT_NE(found, kTcpStateNames.end()) << name;
  return static_cast<TcpState>(found - kTcpStateNames.begin());
}

// The transitions that leave their state; all others stay.
std::map<Cell, TcpState> read_transitions() {
  std::map<Cell, TcpState> transitions;
  const std::string path = data_folder() + "/ipvs/state_transitions.txt";
  std::ifstream file(path);
  EXPECT_TRUE(file) << path << " cannot be read; set WEIR_TEST_DATA to tests/data";
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string table, direction, event, from, arrow, to;
    words >> table >> direction >> event >> from >> arrow >> to;
    if (table != "tcp") continue;
    transitions[{kDirections.at(direction), kEvents.at(event), state_named(from)}] =
        state_named(to);
  }
  return transitions;
}

TEST(TcpStates, FollowIpvsInEveryCell) {
  const auto transitions = read_transitions();
  ASSERT_EQ(transitions.size(), 73U);
  for (const auto& [direction_name, direction] : kDirections) {
    for (const auto& [event_name, event] : kEvents) {
      for (std::size_t i = 0; i < kTcpStates; ++i) {
        const auto from = static_cast<TcpState>(i);
        const auto found = transitions.find({direction, event, from});
        EXPECT_EQ(next_tcp_state(from, direction, event),
                  found == transitions.end() ? from : found->second)
            << direction_name << " " << event_name << " " << kTcpStateNames[i];
      }
    }
  }
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
  for (const auto& [name, timeout_and_active] : expected) {
    const auto state = static_cast<std::size_t>(state_named(name));
    EXPECT_EQ(kDefaultTcpTimeouts[state], timeout_and_active.first) << name;
    EXPECT_EQ(kTcpStateActive[state], timeout_and_active.second) << name;
  }
}

}  // namespace
}  // namespace weir
