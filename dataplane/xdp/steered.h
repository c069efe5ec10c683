// SPDX-License-Identifier: Apache-2.0
// What the steering program is told of, as changes of its maps (steer_maps.h): plain values, any
// thread.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/table/mark_rules.h"

namespace weir {

struct SteeringChange {
  enum class Map : std::uint8_t { services, servers, addresses };
  Map map = Map::services;
  IpAddress address;
  std::uint16_t port = 0;            // host order, 0: all ports; not of `addresses`
  Protocol protocol = Protocol::ip;  // not of `addresses`
  std::uint32_t value = 0;           // bits of steer_maps.h; 0: the key goes
  friend bool operator==(const SteeringChange&, const SteeringChange&) = default;
};

// A rule for marks: of which families it takes packets to the workers. The first rule that matches
// decides, also that there is none (neither family).
struct SteeringRule {
  MarkRule rule;
  bool ipv4 = false;
  bool ipv6 = false;
  friend bool operator==(const SteeringRule&, const SteeringRule&) = default;
};

// What is replaced whole.
struct SteeringConfig {
  std::uint32_t extras = 0;         // weir_extra
  std::vector<SteeringRule> rules;  // for all ports; at most Steering::kMaxMarkRules
  friend bool operator==(const SteeringConfig&, const SteeringConfig&) = default;
};

// Entries of the program's maps.
struct SteeringSizes {
  std::size_t services = 0;
  std::size_t servers = 0;
  std::size_t addresses = 0;
};

}  // namespace weir
