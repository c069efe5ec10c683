// SPDX-License-Identifier: Apache-2.0
// wrr, weighted round robin: turns in proportion to the weights, interleaved.
//
// Rule: a level sinks from the greatest weight to 1 in steps of the weights' greatest common
// divisor; at each level the list is walked once, and every real server whose weight is not below
// the level gets a turn. Below the lowest level comes the highest again. Weights 4, 3, 2 in list
// order give 1 1 2 1 2 3 1 2 3 for as long as nobody edits. Every edit takes the cursor back to the
// head of the list but keeps the level, so the order starts where the additions left it.
// Cost: O(1) a pick while neighbours have turns, else O(log n): the next real server that is heavy
// enough is found in a tree over the list; plus one step for each overloaded one passed.
// Good for: real servers of uneven strength and requests of equal length. Not for: requests of
// uneven length (wlc), or one very heavy real server beside many light ones, whose turns come in a
// row. Source: net/netfilter/ipvs/ip_vs_wrr.c.
//
// With several workers each one goes through the cycle by itself, and worker k of n starts k/n of
// the cycle further on. In the middle of its cycle a worker is off a real server's share by as much
// as IPVS is there: about one connection for weights like 4, 3, 2, more where one weight dwarfs
// many.
#pragma once

#include "schedulers/scheduler.h"

namespace weir {

class WeightedRoundRobin final : public Scheduler {
 public:
  WeightedRoundRobin(unsigned worker, unsigned workers) noexcept
      : worker_(worker), workers_(workers) {}

  void bind(std::span<const Candidate> candidates) override;
  void apply(const Edit& edit) noexcept override;
  ServerSlot pick(const PickInput& input) noexcept override;

 private:
  void adopt(std::int32_t weight_gcd, std::int32_t max_weight) noexcept;
  ServerSlot take_first_at_level(const PickInput& input) noexcept;
  void rest_after_refusal() noexcept;
  void sink_to(std::int32_t weight) noexcept;
  void start_staggered(std::span<const Candidate> candidates) noexcept;
  std::uint64_t turns_above(std::int32_t level,
                            std::span<const Candidate> candidates) const noexcept;

  const unsigned worker_;
  const unsigned workers_;
  bool started_ = false;
  std::uint32_t next_ = 0;  // the position after the last pick; 0: before the head of the list
  std::int32_t level_ = 0;  // the weight that takes a turn (IPVS: cw)
  std::int32_t top_ = 0;    // the highest level, 0 where all weights are 0 (IPVS: mw)
  std::int32_t step_ = 1;   // from level to level (IPVS: di)
};

// The tree over the list and its heaviest real servers.
LookupTable make_weighted_round_robin_table(std::span<const Candidate> candidates);

}  // namespace weir
