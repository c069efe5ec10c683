// SPDX-License-Identifier: Apache-2.0
// wlc, weighted least connection: the default of ipvsadm.
//
// Rule: the eligible real server with the least overhead / weight, where overhead counts an active
// connection as 256 inactive ones. Of equals the first of the list, hence the newest, wins.
// Cost: O(n) a pick.
// Good for: long or uneven connections; it also balances UDP, whose connections are all inactive.
// Not for: a cold real server that cannot take the burst which its empty tables attract.
// Source: net/netfilter/ipvs/ip_vs_wlc.c, ip_vs_dest_conn_overhead() of include/net/ip_vs.h.
//
// It keeps no state; with several workers it acts on the sum over them.
#pragma once

#include "schedulers/scheduler.h"

namespace weir {

class WeightedLeastConnection final : public Scheduler {
 public:
  void apply(const Edit& edit) noexcept override;
  std::optional<std::uint32_t> pick(const PickInput& input) noexcept override;
};

}  // namespace weir
