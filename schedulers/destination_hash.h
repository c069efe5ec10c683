// SPDX-License-Identifier: Apache-2.0
// dh, destination hashing: one destination, one real server.
//
// Rule: a table of 256 places is filled from the list in turn, whatever the weights; the
// destination's address is hashed to a place. A real server that is overloaded or has weight 0
// refuses: there is no fallback.
// Cost: O(1) a pick. State: none; the table is 1 KiB.
// Good for: transparent caches, where a service (by fwmark) has many destinations and each should
// be in one cache. Not for: a service of one address, all of which goes to one real server.
// Source: net/netfilter/ipvs/ip_vs_dh.c.
#pragma once

#include "schedulers/scheduler.h"

namespace weir {

class DestinationHash final : public Scheduler {
 public:
  void bind(std::span<const Candidate>) override {}
  void apply(const Edit&) noexcept override {}
  ServerSlot pick(const PickInput& input) noexcept override;
};

LookupTable make_destination_hash_table(std::span<const Candidate> candidates);

}  // namespace weir
