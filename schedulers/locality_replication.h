// SPDX-License-Identifier: Apache-2.0
// lblcr, locality-based least connection with replication: one destination, a set of real servers.
//
// Rule: a destination goes to the member of its set with the least overhead / weight, the newest
// member of equals; members that are gone, overloaded or of weight 0 are passed over. Where there
// is none, or it has more active connections than its weight while another real server has less
// than half of its own weight, wlc's choice joins the set and gets the connection. A set of
// several that has not changed for lblcr_expiration seconds loses its most loaded member.
// Cost: O(members) a destination that is remembered, O(log n) another one. State: a cache of at
// most 24,576 destinations (destination_cache.h) with twice as many members in all, beyond which
// sets do not grow; the index of the loads.
// Good for: transparent caches with destinations too busy for one of them. Not for: a service of
// one address. UDP never moves, because its connections are never active.
// Source: net/netfilter/ipvs/ip_vs_lblcr.c.
//
// With several workers each one owns the destinations that hash to it and is asked for them.
#pragma once

#include <vector>

#include "schedulers/destination_cache.h"
#include "schedulers/locality_rule.h"

namespace weir {

class LocalityReplication final : public Scheduler {
 public:
  LocalityReplication(LoadWriters writers, unsigned workers, std::uint64_t seed);

  void bind(std::span<const Candidate> candidates) override { index_.bind(candidates); }
  void reserve(std::size_t servers) override { index_.reserve(servers); }
  void apply(const Edit& edit) noexcept override { index_.apply(edit); }
  void load_changed(ServerSlot slot) noexcept override { index_.load_changed(slot); }
  bool asks_one_owner() const noexcept override { return true; }
  ServerSlot pick(const PickInput& input) noexcept override;

 private:
  static constexpr std::uint32_t kNone = 0xffffffff;

  // Newest first, from `first` on.
  struct Set {
    std::uint32_t first = kNone;
    std::uint32_t size = 0;
    std::uint32_t last_change = 0;  // seconds
  };
  struct Member {
    RememberedServer server;
    std::int32_t weight = 0;  // the last that was seen; a real server that is gone keeps it
    std::uint32_t next = kNone;
  };

  struct Least {
    const RankedServer* server = nullptr;  // null: none may have a connection
    Load load;
  };

  void join(Set& set, const RankedServer& server) noexcept;
  void release(Set& set) noexcept;
  Least least_loaded(Set& set, const PickInput& input) noexcept;
  void drop_most_loaded(Set& set, const PickInput& input) noexcept;

  LocalityIndex index_;
  DestinationCache<Set> cache_;
  std::vector<Member> members_;
  std::uint32_t free_member_ = 0;
};

}  // namespace weir
