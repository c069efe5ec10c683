// SPDX-License-Identifier: Apache-2.0
// rr, round robin: each real server in its turn.
//
// Rule: from the entry after the last pick on, the first eligible real server; at the end of the
// list once more from its head. Weights only count as zero or not. The list is newest first, so the
// first connection goes to the real server added last. Removing the real server of the last pick
// moves the cursor to the entry before it; additions and edits leave the cursor where it is.
// Cost: O(1) a pick, plus one step for each ineligible real server passed.
// Good for: equal real servers and short requests of equal weight. Not for: requests of uneven
// length (wlc), real servers of uneven strength (wrr), clients that must stay on one (sh, mh).
// Source: net/netfilter/ipvs/ip_vs_rr.c.
//
// With several workers each one goes round by itself, and worker k of n starts k/n of the list
// further on. No worker is ever more than one connection off a real server's share.
#pragma once

#include "schedulers/scheduler.h"

namespace weir {

class RoundRobin final : public Scheduler {
 public:
  RoundRobin(unsigned worker, unsigned workers) noexcept : worker_(worker), workers_(workers) {}

  void bind(std::span<const Candidate> candidates) override;
  void apply(const Edit& edit) noexcept override;
  ServerSlot pick(const PickInput& input) noexcept override;

 private:
  std::uint32_t first_position(const PickInput& input) const noexcept;
  ServerSlot take_first_eligible(const PickInput& input, std::uint32_t from,
                                 std::uint32_t to) noexcept;

  const unsigned worker_;
  const unsigned workers_;
  bool started_ = false;
  std::uint32_t next_ = 0;  // the position after the last pick; 0: before the head of the list
};

}  // namespace weir
