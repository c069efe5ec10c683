// SPDX-License-Identifier: Apache-2.0
#include "schedulers/weighted_round_robin.h"

#include <algorithm>

namespace weir {
namespace {

// The greatest weight of an eligible real server, 0 where there is none.
std::int32_t heaviest(const PickInput& input) noexcept {
  std::int32_t weight = 0;
  for (const Candidate& candidate : input.candidates) {
    if (candidate.weight > weight && eligible(candidate, input.loads)) weight = candidate.weight;
  }
  return weight;
}

}  // namespace

void WeightedRoundRobin::apply(const Edit& edit) noexcept {
  next_ = 0;
  step_ = edit.weight_gcd;
  // Levels are 1 more than a multiple of the step, which serves the same weights as the multiple
  // above and lets the lowest level be 1.
  top_ = edit.max_weight == 0 ? 0 : edit.max_weight - (step_ - 1);
  if (edit.kind == Edit::Kind::bind) {
    level_ = 0;
    started_ = false;
  }
  if (level_ > top_ || level_ == 0) {
    level_ = top_;
  } else if (step_ > 1) {
    level_ = level_ / step_ * step_ + 1;
  }
}

std::optional<std::uint32_t> WeightedRoundRobin::pick(const PickInput& input) noexcept {
  if (top_ == 0) return std::nullopt;
  if (!started_) {
    started_ = true;
    start_staggered(input.candidates);
  }
  if (const auto picked = take_first_at_level(input)) return picked;
  // IPVS walks the list once for each level; what it finds depends only on the heaviest.
  const std::int32_t weight = heaviest(input);
  if (weight == 0) {
    rest_after_refusal();
    return std::nullopt;
  }
  sink_to(weight);
  next_ = 0;
  return take_first_at_level(input);
}

std::optional<std::uint32_t> WeightedRoundRobin::take_first_at_level(
    const PickInput& input) noexcept {
  for (std::uint32_t at = next_; at < input.candidates.size(); ++at) {
    const Candidate& candidate = input.candidates[at];
    if (candidate.weight < level_ || input.loads.overloaded(candidate.slot)) continue;
    next_ = at + 1;
    return at;
  }
  return std::nullopt;
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
