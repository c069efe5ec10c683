// SPDX-License-Identifier: Apache-2.0
#include "schedulers/weighted_round_robin.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace weir {
namespace {

// The greatest weight of an eligible real server, 0 where there is none.
std::int32_t heaviest(const PickInput& input) noexcept {
  for (const std::uint32_t at : input.table->heaviest_first) {
    const Candidate& candidate = input.candidates[at];
    if (!input.loads.overloaded(candidate.slot)) return candidate.weight;
  }
  return 0;
}

// The first position from `from` on whose weight is not below `level` > 0, or the list's size.
std::uint32_t next_of_weight(const PickInput& input, std::uint32_t from,
                             std::int32_t level) noexcept {
  const auto size = static_cast<std::uint32_t>(input.candidates.size());
  if (from >= size || input.candidates[from].weight >= level) return from;
  const std::vector<std::int32_t>& tree = input.table->greatest_weights;
  const auto leaves = static_cast<std::uint32_t>(tree.size() / 2);
  // Up and to the right until a subtree has one, then down to its first.
  std::uint32_t node = leaves + from;
  while (tree[node] < level) {
    while ((node & 1) != 0) node /= 2;
    if (node == 0) return size;
    ++node;
  }
  while (node < leaves) {
    node *= 2;
    if (tree[node] < level) ++node;
  }
  return node - leaves;
}

}  // namespace

LookupTable make_weighted_round_robin_table(std::span<const Candidate> candidates) {
  LookupTable table;
  const std::size_t leaves = std::bit_ceil(std::max(candidates.size(), std::size_t{1}));
  table.greatest_weights.assign(2 * leaves, 0);
  for (std::size_t at = 0; at < candidates.size(); ++at) {
    table.greatest_weights[leaves + at] = candidates[at].weight;
    if (candidates[at].weight > 0) table.heaviest_first.push_back(static_cast<std::uint32_t>(at));
  }
  for (std::size_t node = leaves - 1; node > 0; --node) {
    table.greatest_weights[node] =
        std::max(table.greatest_weights[2 * node], table.greatest_weights[2 * node + 1]);
  }
  std::ranges::stable_sort(table.heaviest_first, std::greater{},
                           [&](std::uint32_t at) { return candidates[at].weight; });
  return table;
}

void WeightedRoundRobin::bind(std::span<const Candidate> candidates) {
  const Edit whole = make_edit(Edit::Kind::change, 0, {}, candidates);
  level_ = 0;
  started_ = false;
  adopt(whole.weight_gcd, whole.max_weight);
}

void WeightedRoundRobin::apply(const Edit& edit) noexcept {
  adopt(edit.weight_gcd, edit.max_weight);
}

void WeightedRoundRobin::adopt(std::int32_t weight_gcd, std::int32_t max_weight) noexcept {
  next_ = 0;
  step_ = weight_gcd;
  // Levels are 1 more than a multiple of the step, which serves the same weights as the multiple
  // above and lets the lowest level be 1.
  top_ = max_weight == 0 ? 0 : max_weight - (step_ - 1);
  if (level_ > top_ || level_ == 0) {
    level_ = top_;
  } else if (step_ > 1) {
    level_ = level_ / step_ * step_ + 1;
  }
}

ServerSlot WeightedRoundRobin::pick(const PickInput& input) noexcept {
  if (top_ == 0) return kNoServer;
  if (!started_) {
    started_ = true;
    start_staggered(input.candidates);
  }
  const ServerSlot picked = take_first_at_level(input);
  if (picked != kNoServer) return picked;
  // IPVS walks the list once for each level; what it finds depends only on the heaviest.
  const std::int32_t weight = heaviest(input);
  if (weight == 0) {
    rest_after_refusal();
    return kNoServer;
  }
  sink_to(weight);
  next_ = 0;
  return take_first_at_level(input);
}

ServerSlot WeightedRoundRobin::take_first_at_level(const PickInput& input) noexcept {
  const auto size = static_cast<std::uint32_t>(input.candidates.size());
  for (std::uint32_t at = next_of_weight(input, next_, level_); at < size;
       at = next_of_weight(input, at + 1, level_)) {
    const ServerSlot slot = input.candidates[at].slot;
    if (input.loads.overloaded(slot)) continue;
    next_ = at + 1;
    return slot;
  }
  return kNoServer;
}

// Where IPVS's search ends that found nobody: at the head of the highest level, except from the
// lowest level, from which it comes round to where it began.
void WeightedRoundRobin::rest_after_refusal() noexcept {
  if (next_ != 0 && level_ <= step_) return;
  next_ = 0;
  level_ = top_;
}

// To the next level below the present one, or from the top again, at which `weight` has a turn.
void WeightedRoundRobin::sink_to(std::int32_t weight) noexcept {
  level_ = level_ > step_ ? level_ - step_ : top_;
  if (weight < level_) level_ -= (level_ - weight + step_ - 1) / step_ * step_;
}

// Puts the cursor worker_ / workers_ of a cycle further on than the edits left it.
void WeightedRoundRobin::start_staggered(std::span<const Candidate> candidates) noexcept {
  const std::uint64_t cycle = turns_above(1 - step_, candidates);
  if (worker_ == 0 || cycle == 0) return;
  const std::uint64_t begin = turns_above(level_, candidates);
  const std::uint64_t turn = (begin + cycle * worker_ / workers_) % cycle;
  // The lowest level with at most `turn` turns above it.
  std::int32_t below = 0;
  std::int32_t above = (top_ - 1) / step_;
  while (below < above) {
    const std::int32_t middle = below + (above - below) / 2;
    if (turns_above(1 + middle * step_, candidates) <= turn) {
      above = middle;
    } else {
      below = middle + 1;
    }
  }
  level_ = 1 + below * step_;
  std::uint64_t rest = turn - turns_above(level_, candidates);
  for (next_ = 0; rest > 0 && next_ < candidates.size(); ++next_) {
    if (candidates[next_].weight >= level_) --rest;
  }
}

// How many turns of a cycle come before those of `level`.
std::uint64_t WeightedRoundRobin::turns_above(
    std::int32_t level, std::span<const Candidate> candidates) const noexcept {
  std::uint64_t turns = 0;
  for (const Candidate& candidate : candidates) {
    if (candidate.weight <= 0 || candidate.weight < level) continue;
    turns += static_cast<std::uint64_t>((candidate.weight - level) / step_);
  }
  return turns;
}

}  // namespace weir
