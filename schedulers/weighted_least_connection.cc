// SPDX-License-Identifier: Apache-2.0
#include "schedulers/weighted_least_connection.h"

namespace weir {
namespace {

std::uint64_t overhead(const Load& load) noexcept {
  return std::uint64_t{load.active} * 256 + load.inactive;
}

}  // namespace

void WeightedLeastConnection::apply(const Edit&) noexcept {}

std::optional<std::uint32_t> WeightedLeastConnection::pick(const PickInput& input) noexcept {
  std::optional<std::uint32_t> least;
  std::uint64_t least_overhead = 0;
  std::uint64_t least_weight = 0;
  for (std::uint32_t at = 0; at < input.candidates.size(); ++at) {
    const Candidate& candidate = input.candidates[at];
    if (!eligible(candidate, input.loads)) continue;
    const auto weight = static_cast<std::uint64_t>(candidate.weight);
    const std::uint64_t its_overhead = overhead(input.loads.load(candidate.slot));
    // Quotients compared by cross-multiplication.
    if (least && least_overhead * weight <= its_overhead * least_weight) continue;
    least = at;
    least_overhead = its_overhead;
    least_weight = weight;
  }
  return least;
}

}  // namespace weir
