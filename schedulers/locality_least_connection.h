// SPDX-License-Identifier: Apache-2.0
// lblc, locality-based least connection: one destination, one real server.
//
// Rule: a destination goes to the real server that it went to before, as long as that one is in the
// list, has a weight, and has no more active connections than its weight or else no other real
// server has less than half of its own weight. A new destination, and one whose real server does
// not do any more, goes where wlc says, and there from then on. A real server that is closed by its
// thresholds still gets the destinations that it has.
// Cost: O(1) a destination that is remembered, O(log n) another one. State: a cache of at most
// 24,576 destinations (destination_cache.h), the index of the loads.
// Good for: transparent caches, where a service (by fwmark) has many destinations. Not for: a
// service of one address, which has one destination. UDP never moves, because its connections are
// never active.
// Source: net/netfilter/ipvs/ip_vs_lblc.c.
//
// With several workers each one owns the destinations that hash to it and is asked for them.
#pragma once

#include "schedulers/destination_cache.h"
#include "schedulers/locality_rule.h"

namespace weir {

class LocalityLeastConnection final : public Scheduler {
 public:
  LocalityLeastConnection(LoadWriters writers, unsigned workers, std::uint64_t seed)
      : index_(writers), cache_(workers, seed) {}

  void bind(std::span<const Candidate> candidates) override { index_.bind(candidates); }
  void reserve(std::size_t servers) override { index_.reserve(servers); }
  void apply(const Edit& edit) noexcept override { index_.apply(edit); }
  void load_changed(ServerSlot slot) noexcept override { index_.load_changed(slot); }
  bool asks_one_owner() const noexcept override { return true; }
  ServerSlot pick(const PickInput& input) noexcept override;

 private:
  bool does(const RankedServer& server, const PickInput& input) noexcept;

  LocalityIndex index_;
  DestinationCache<RememberedServer> cache_;
};

}  // namespace weir
