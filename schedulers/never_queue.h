// SPDX-License-Identifier: Apache-2.0
// nq, never queue.
//
// Rule: the first eligible real server of the list without an active connection, however slow;
// where there is none, the rule of sed.
// Cost: O(log n) a pick. State: the index of the loads.
// Good for: fewer connections than real servers, each of which should start at once. Not for: UDP,
// whose connections are never active, so that the first of the list gets all of them.
// Source: net/netfilter/ipvs/ip_vs_nq.c.
#pragma once

#include "schedulers/shortest_expected_delay.h"

namespace weir {

struct NeverQueueRule : LoadRule {
  static std::weak_ordering compare(const RankedServer& a, const RankedServer& b) noexcept {
    const bool a_idle = a.load.active == 0;
    const bool b_idle = b.load.active == 0;
    if (!a_idle && !b_idle) return ShortestExpectedDelayRule::compare(a, b);
    return b_idle <=> a_idle;
  }
};
using NeverQueue = ByLoad<NeverQueueRule>;

}  // namespace weir
