// SPDX-License-Identifier: Apache-2.0
// ovf, overflow connection.
//
// Rule: the eligible real server with the greatest weight among those that have at most as many
// active connections as their weight. Of equals the first of the list, hence the newest, wins.
// Where all have more, nobody is picked and the connection is refused.
// Cost: O(log n) a pick. State: the index of the loads.
// Good for: filling one real server after the other; the weight is its capacity. Not for: UDP,
// whose connections are never active, so that nothing overflows.
// Source: net/netfilter/ipvs/ip_vs_ovf.c.
#pragma once

#include "schedulers/by_load.h"

namespace weir {

struct OverflowRule : LoadRule {
  static bool takes(const RankedServer& server) noexcept {
    return server.weight > 0 && server.load.active <= static_cast<std::uint32_t>(server.weight);
  }
  static std::weak_ordering compare(const RankedServer& a, const RankedServer& b) noexcept {
    return b.weight <=> a.weight;
  }
};
using Overflow = ByLoad<OverflowRule>;

}  // namespace weir
