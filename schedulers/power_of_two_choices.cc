// SPDX-License-Identifier: Apache-2.0
#include "schedulers/power_of_two_choices.h"

#include <algorithm>

#include "schedulers/by_load.h"

namespace weir {

LookupTable make_power_of_two_choices_table(std::span<const Candidate> candidates) {
  LookupTable table;
  std::uint64_t sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += static_cast<std::uint32_t>(std::max(candidate.weight, 0));
    table.running_weights.push_back(sum);
  }
  return table;
}

// Uniform from 0 to `last`, both included; SplitMix64 (Steele, Lea, Flood: "Fast Splittable
// Pseudorandom Number Generators"). Weights are far below 2^48, so that the remainder is fair.
std::uint64_t PowerOfTwoChoices::draw(std::uint64_t last) noexcept {
  state_ += 0x9e3779b97f4a7c15ULL;
  std::uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
  return (mixed ^ (mixed >> 31)) % (last + 1);
}

// As the kernel: of 0 to the sum of the weights, where 0 counts for the first as well.
const Candidate* PowerOfTwoChoices::draw_one(const PickInput& input) noexcept {
  const std::vector<std::uint64_t>& sums = input.table->running_weights;
  const std::uint64_t drawn = std::max<std::uint64_t>(draw(sums.back()), 1);
  const auto at = std::ranges::lower_bound(sums, drawn) - sums.begin();
  const Candidate& candidate = input.candidates[static_cast<std::size_t>(at)];
  return input.loads.overloaded(candidate.slot) ? nullptr : &candidate;
}

// The same among those that are not overloaded; null: there are none.
const Candidate* PowerOfTwoChoices::draw_eligible(const PickInput& input) noexcept {
  std::uint64_t sum = 0;
  for (const Candidate& candidate : input.candidates) {
    if (eligible(candidate, input.loads)) sum += static_cast<std::uint32_t>(candidate.weight);
  }
  std::uint64_t drawn = draw(sum);
  const Candidate* last = nullptr;
  for (const Candidate& candidate : input.candidates) {
    if (!eligible(candidate, input.loads)) continue;
    last = &candidate;
    const auto weight = static_cast<std::uint32_t>(candidate.weight);
    if (drawn <= weight) return last;
    drawn -= weight;
  }
  return last;
}

ServerSlot PowerOfTwoChoices::pick(const PickInput& input) noexcept {
  const std::vector<std::uint64_t>& sums = input.table->running_weights;
  if (sums.empty() || sums.back() == 0) return kNoServer;
  const Candidate* first = draw_one(input);
  const Candidate* second = draw_one(input);
  // Drawing again until both are eligible is to draw among the eligible.
  if (first == nullptr) first = draw_eligible(input);
  if (second == nullptr) second = draw_eligible(input);
  if (first == nullptr || second == nullptr) return kNoServer;
  const std::uint64_t first_cost =
      overhead(input.loads.load(first->slot)) * static_cast<std::uint32_t>(second->weight);
  const std::uint64_t second_cost =
      overhead(input.loads.load(second->slot)) * static_cast<std::uint32_t>(first->weight);
  return first_cost > second_cost ? second->slot : first->slot;
}

}  // namespace weir
