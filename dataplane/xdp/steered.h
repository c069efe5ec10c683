// SPDX-License-Identifier: Apache-2.0
// What the steering program is told of: plain values, any thread.
#pragma once

#include <cstdint>

#include "dataplane/net/addresses.h"
#include "dataplane/table/mark_rules.h"

namespace weir {

struct SteeringKey {
  Protocol protocol = Protocol::tcp;
  IpAddress address;
  std::uint16_t port = 0;  // host order
  friend bool operator==(const SteeringKey&, const SteeringKey&) = default;
};

// A rule for marks: of which families it takes packets to the workers. The first rule that matches
// decides, also that there is none (neither family).
struct SteeringRule {
  MarkRule rule;
  bool ipv4 = false;
  bool ipv6 = false;
};

}  // namespace weir
