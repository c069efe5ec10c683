// SPDX-License-Identifier: Apache-2.0
// The SCTP state machine against IPVS's, cell by cell (data/ipvs/state_transitions.txt).
#include "dataplane/table/sctp_states.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/state_transitions.h"

namespace weir {
namespace {

const std::map<std::string, SctpDirection> kDirections = {{"IN", SctpDirection::input},
                                                          {"OUT", SctpDirection::output},
                                                          {"INONLY", SctpDirection::input_only}};
const std::map<std::string, SctpEvent> kEvents = {
    {"data", SctpEvent::data},
    {"init", SctpEvent::init},
    {"init_ack", SctpEvent::init_ack},
    {"cookie_echo", SctpEvent::cookie_echo},
    {"cookie_ack", SctpEvent::cookie_ack},
    {"shutdown", SctpEvent::shutdown},
    {"shutdown_ack", SctpEvent::shutdown_ack},
    {"shutdown_complete", SctpEvent::shutdown_complete},
    {"error", SctpEvent::error},
    {"abort", SctpEvent::abort},
};

TEST(SctpStates, FollowIpvsInEveryCell) {
  ASSERT_EQ(kEvents.size(), kSctpEvents);
  test::expect_transitions("sctp", kDirections, kEvents, kSctpStateNames, next_sctp_state);
}

// RFC 9260 section 3.2; all others count as DATA.
TEST(SctpStates, TakeTheEventFromTheChunkType) {
  const std::map<unsigned, SctpEvent> events = {
      {1, SctpEvent::init},
      {2, SctpEvent::init_ack},
      {6, SctpEvent::abort},
      {7, SctpEvent::shutdown},
      {8, SctpEvent::shutdown_ack},
      {9, SctpEvent::error},
      {10, SctpEvent::cookie_echo},
      {11, SctpEvent::cookie_ack},
      {14, SctpEvent::shutdown_complete},
  };
  for (unsigned type = 0; type < 256; ++type) {
    const auto found = events.find(type);
    EXPECT_EQ(sctp_event(static_cast<std::uint8_t>(type)),
              found == events.end() ? SctpEvent::data : found->second)
        << type;
  }
}

TEST(SctpStates, HaveTheTimeoutsOfIpvs) {
  const std::map<std::string, std::uint32_t> expected = {
      {"NONE", 2},          {"INIT1", 4},   {"INIT", 61},       {"C-SENT", 61},
      {"C-REPLIED", 61},    {"C-WAIT", 61}, {"COOKIE", 61},     {"C-ECHOED", 61},
      {"ESTABLISHED", 900}, {"S-SENT", 61}, {"S-RECEIVED", 61}, {"S-ACK-SENT", 61},
      {"REJECTED", 4},      {"CLOSED", 61}};
  ASSERT_EQ(expected.size(), kSctpStates);
  for (std::size_t i = 0; i < kSctpStates; ++i) {
    const std::string name(kSctpStateNames[i]);
    EXPECT_EQ(kDefaultSctpTimeouts[i], expected.at(name)) << name;
  }
}

}  // namespace
}  // namespace weir
