// SPDX-License-Identifier: Apache-2.0
#include "schedulers/destination_cache.h"

namespace weir {

CacheChecks::Kind CacheChecks::go_on(std::uint32_t now_ms, bool crowded) noexcept {
  if (!started_) {
    started_ = true;
    now_ms_ = now_ms;
  }
  const std::uint64_t passed_ms = std::uint64_t{now_ms - now_ms_} + rest_ms_;
  now_ms_ = now_ms;
  now_ += static_cast<std::uint32_t>(passed_ms / 1000);
  rest_ms_ = static_cast<std::uint32_t>(passed_ms % 1000);
  Kind due = Kind::none;
  // While nobody calls, nothing changes but the number of checks: whole rounds can be left out.
  std::uint32_t checks = (now_ - last_check_) / kInterval;
  if (checks > 2 * kChecksToFull) {
    const std::uint32_t left_out = (checks / kChecksToFull - 1) * kChecksToFull;
    last_check_ += left_out * kInterval;
    checks -= left_out;
  }
  for (; checks > 0; --checks) {
    last_check_ += kInterval;
    if (checks_ % kChecksToFull == 0) {
      last_full_ = last_check_;
      checks_ = 1;
      due = Kind::full;
    } else if (crowded) {
      if (due == Kind::none) due = Kind::idle;
    } else {
      ++checks_;
    }
  }
  return due;
}

}  // namespace weir
