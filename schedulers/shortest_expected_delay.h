// SPDX-License-Identifier: Apache-2.0
// sed, shortest expected delay.
//
// Rule: the eligible real server with the least (active + 1) / weight: what the new connection
// would wait for there. Of equals the first of the list, hence the newest, wins. Inactive
// connections do not count.
// Cost: O(log n) a pick. State: the index of the loads.
// Good for: few, long TCP connections on real servers of very uneven strength: the slow ones stay
// idle until the fast ones are busy. Not for: UDP, whose connections are never active, so that the
// heaviest real server gets all of them.
// Source: net/netfilter/ipvs/ip_vs_sed.c.
#pragma once

#include "schedulers/by_load.h"

namespace weir {

struct ShortestExpectedDelayRule : LoadRule {
  static std::weak_ordering compare(const RankedServer& a, const RankedServer& b) noexcept {
    return compare_shares(std::uint64_t{a.load.active} + 1, a, std::uint64_t{b.load.active} + 1, b);
  }
};
using ShortestExpectedDelay = ByLoad<ShortestExpectedDelayRule>;

}  // namespace weir
