// SPDX-License-Identifier: Apache-2.0
#include "control/live/health.h"

#include <algorithm>

#include "dataplane/table/connection.h"

namespace weir {

void Health::begin(PresentWeight& weight, std::int32_t configured, std::uint32_t slow_start) const {
  weight.growing_ = slow_start != 0 && configured > 1;
  weight.start_tick_ = clock_();
  configure(weight, configured, slow_start);
}

void Health::configure(PresentWeight& weight, std::int32_t configured,
                       std::uint32_t slow_start) const {
  const bool returns = weight.configured_ == 0 && weight.value_ == 0 && configured > 1;
  if (returns && slow_start != 0 && !weight.growing_) {
    weight.growing_ = true;
    weight.start_tick_ = clock_();
  }
  weight.configured_ = configured;
  weight.value_ = grown(weight, slow_start);
}

bool Health::advance(PresentWeight& weight, std::uint32_t slow_start) const {
  if (!weight.growing_) return false;
  const std::int32_t now = grown(weight, slow_start);
  const bool done = now == weight.configured_;
  if (!done && (now - weight.value_) * kSteps < weight.configured_) return false;
  weight.value_ = now;
  weight.growing_ = !done;
  return true;
}

std::int32_t Health::grown(const PresentWeight& weight, std::uint32_t slow_start) const {
  const std::int32_t whole_weight = weight.configured_;
  if (!weight.growing_ || whole_weight <= 1) return whole_weight;
  const std::uint64_t whole = std::uint64_t{slow_start} * kTicksPerSecond;
  const std::uint64_t passed = clock_() - weight.start_tick_;
  if (passed >= whole) return whole_weight;
  const auto share =
      static_cast<std::int32_t>(static_cast<std::uint64_t>(whole_weight) * passed / whole);
  return std::max(share, 1);
}

}  // namespace weir
