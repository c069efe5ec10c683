// SPDX-License-Identifier: Apache-2.0
// fo, weighted failover.
//
// Rule: the eligible real server with the greatest weight, whatever its load. Of equals the first
// of the list, hence the newest, wins.
// Cost: O(1) a pick, O(log n) when the winner is overloaded. State: the index.
// Good for: a master and its spares, which get nothing while the master is there. Not for:
// balancing; an upper threshold is the only thing that lets connections overflow.
// Source: net/netfilter/ipvs/ip_vs_fo.c.
#pragma once

#include "schedulers/by_load.h"

namespace weir {

struct FailoverRule : LoadRule {
  static std::weak_ordering compare(const RankedServer& a, const RankedServer& b) noexcept {
    return b.weight <=> a.weight;
  }
};
using Failover = ByLoad<FailoverRule>;

}  // namespace weir
