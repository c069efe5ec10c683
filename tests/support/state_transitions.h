// SPDX-License-Identifier: Apache-2.0
// A state machine against IPVS's, cell by cell (data/ipvs/state_transitions.txt).
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <sstream>
#include <string>
#include <tuple>

#include "tests/support/test_data.h"

namespace weir::test {

// Direction, event, state.
using Cell = std::tuple<std::string, std::string, std::string>;

// The transitions of `protocol` that leave their state; all others stay.
inline std::map<Cell, std::string> read_transitions(const std::string& protocol) {
  std::map<Cell, std::string> transitions;
  std::ifstream file = open_data("ipvs/state_transitions.txt");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string table, direction, event, from, arrow, to;
    words >> table >> direction >> event >> from >> arrow >> to;
    if (table == protocol) transitions[{direction, event, from}] = to;
  }
  return transitions;
}

// `directions` and `events` by their names in the file, `states` the names of all states in order.
template <class Direction, class Event, class States, class State>
void expect_transitions(const std::string& protocol,
                        const std::map<std::string, Direction>& directions,
                        const std::map<std::string, Event>& events, const States& states,
                        State (*next)(State, Direction, Event)) {
  std::map<Cell, std::string> transitions = read_transitions(protocol);
  EXPECT_FALSE(transitions.empty());
  for (const auto& [direction_name, direction] : directions) {
    for (const auto& [event_name, event] : events) {
      for (std::size_t i = 0; i < states.size(); ++i) {
        const std::string from(states[i]);
        const auto left = transitions.extract({direction_name, event_name, from});
        const State to = next(static_cast<State>(i), direction, event);
        EXPECT_EQ(states[static_cast<std::size_t>(to)], left.empty() ? from : left.mapped())
            << direction_name << " " << event_name << " " << from;
      }
    }
  }
  for (const auto& [cell, to] : transitions) {
    ADD_FAILURE() << "unknown: " << std::get<0>(cell) << " " << std::get<1>(cell) << " "
                  << std::get<2>(cell);
  }
}

}  // namespace weir::test
