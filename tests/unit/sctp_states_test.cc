// SPDX-License-Identifier: Apache-2.0
// The SCTP state machine against IPVS's, cell by cell (data/ipvs/state_transitions.txt).
#include "dataplane/sctp_states.h"

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

using Cell = std::tuple<SctpDirection, SctpEvent, SctpState>;

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

std::string data_folder() {
  const char* folder = std::getenv("WEIR_TEST_DATA");
#ifdef WEIR_TEST_DATA
  if (folder == nullptr) folder = WEIR_TEST_DATA;
#endif
  return folder == nullptr ? "tests/data" : folder;
}

SctpState state_named(const std::string& name) {
  const auto found = std::ranges::find(kSctpStateNames, name);
  EXPECT_NE(found, kSctpStateNames.end()) << name;
  return static_cast<SctpState>(found - kSctpStateNames.begin());
}

// The transitions that leave their state; all others stay.
std::map<Cell, SctpState> read_transitions() {
  std::map<Cell, SctpState> transitions;
  const std::string path = data_folder() + "/ipvs/state_transitions.txt";
  std::ifstream file(path);
  EXPECT_TRUE(file) << path << " cannot be read; set WEIR_TEST_DATA to tests/data";
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string table, direction, event, from, arrow, to;
    words >> table >> direction >> event >> from >> arrow >> to;
    if (table != "sctp") continue;
    transitions[{kDirections.at(direction), kEvents.at(event), state_named(from)}] =
        state_named(to);
  }
  return transitions;
}

TEST(SctpStates, FollowIpvsInEveryCell) {
  const auto transitions = read_transitions();
  ASSERT_EQ(transitions.size(), 159U);
  ASSERT_EQ(kEvents.size(), kSctpEvents);
  for (const auto& [direction_name, direction] : kDirections) {
    for (const auto& [event_name, event] : kEvents) {
      for (std::size_t i = 0; i < kSctpStates; ++i) {
        const auto from = static_cast<SctpState>(i);
        const auto found = transitions.find({direction, event, from});
        EXPECT_EQ(next_sctp_state(from, direction, event),
                  found == transitions.end() ? from : found->second)
            << direction_name << " " << event_name << " " << kSctpStateNames[i];
      }
    }
  }
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
  for (const auto& [name, timeout] : expected) {
    EXPECT_EQ(kDefaultSctpTimeouts[static_cast<std::size_t>(state_named(name))], timeout) << name;
  }
}

}  // namespace
}  // namespace weir
