// SPDX-License-Identifier: Apache-2.0
// twos, weighted random twos choice.
//
// Rule: two eligible real servers are drawn at random in proportion to their weights; the one with
// the lower overhead / weight is picked, the first drawn of equals. Overhead counts an active
// connection as 256 inactive ones.
// Cost: O(log n) a pick; O(n) where an overloaded real server was drawn. State: a random number.
// Good for: many directors or workers before the same real servers, which do not know of each
// other's connections: they do not all run to the same least loaded one. Not for: few connections,
// which come unevenly, or anything that is to be repeatable.
// Source: net/netfilter/ipvs/ip_vs_twos.c; Mitzenmacher, "The Power of Two Choices in Randomized
// Load Balancing".
#pragma once

#include <cstdint>

#include "schedulers/scheduler.h"

namespace weir {

class PowerOfTwoChoices final : public Scheduler {
 public:
  explicit PowerOfTwoChoices(std::uint64_t seed) noexcept : state_(seed) {}

  void bind(std::span<const Candidate>) override {}
  void apply(const Edit&) noexcept override {}
  ServerSlot pick(const PickInput& input) noexcept override;

 private:
  std::uint64_t draw(std::uint64_t last) noexcept;
  const Candidate* draw_one(const PickInput& input) noexcept;
  const Candidate* draw_eligible(const PickInput& input) noexcept;

  std::uint64_t state_;
};

LookupTable make_power_of_two_choices_table(std::span<const Candidate> candidates);

}  // namespace weir
