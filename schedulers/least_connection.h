// SPDX-License-Identifier: Apache-2.0
// lc, least connection.
//
// Rule: the eligible real server with the least overhead, which counts an active connection as 256
// inactive ones. Of equals the first of the list, hence the newest, wins. Weights only count as
// zero or not.
// Cost: O(log n) a pick. State: the index of the loads.
// Good for: long or uneven connections to real servers of equal strength. Not for: real servers of
// uneven strength (wlc).
// Source: net/netfilter/ipvs/ip_vs_lc.c.
#pragma once

#include "schedulers/by_load.h"

namespace weir {

struct LeastConnectionRule : LoadRule {
  static std::weak_ordering compare(const RankedServer& a, const RankedServer& b) noexcept {
    return overhead(a.load) <=> overhead(b.load);
  }
};
using LeastConnection = ByLoad<LeastConnectionRule>;

}  // namespace weir
