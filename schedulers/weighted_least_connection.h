// SPDX-License-Identifier: Apache-2.0
// wlc, weighted least connection: the default of ipvsadm.
//
// Rule: the eligible real server with the least overhead / weight, where overhead counts an active
// connection as 256 inactive ones. Of equals the first of the list, hence the newest, wins.
// Cost: O(log n) a pick. State: the index of the loads.
// Good for: long or uneven connections; it also balances UDP, whose connections are all inactive.
// Not for: a cold real server that cannot take the burst which its empty tables attract.
// Source: net/netfilter/ipvs/ip_vs_wlc.c.
#pragma once

#include "schedulers/by_load.h"

namespace weir {

struct WeightedLeastConnectionRule : LoadRule {
  static std::weak_ordering compare(const RankedServer& a, const RankedServer& b) noexcept {
    return compare_shares(overhead(a.load), a, overhead(b.load), b);
  }
};
using WeightedLeastConnection = ByLoad<WeightedLeastConnectionRule>;

}  // namespace weir
