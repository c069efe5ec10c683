// SPDX-License-Identifier: Apache-2.0
#include "control/live/estimators.h"

namespace weir {

void RateEstimator::sample(const Totals& totals) {
  constexpr int kCountShift = 9;  // 10 fractional bits, over two seconds
  constexpr int kByteShift = 4;
  const Totals delta = totals - last_;
  last_ = totals;
  const std::uint64_t rates[] = {delta.connections << kCountShift, delta.packets_in << kCountShift,
                                 delta.packets_out << kCountShift, delta.bytes_in << kByteShift,
                                 delta.bytes_out << kByteShift};
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const auto gap = static_cast<std::int64_t>(rates[i] - averages_[i]);
    averages_[i] += static_cast<std::uint64_t>(gap >> 2);
  }
}

Rates RateEstimator::rates() const {
  const auto count = [this](std::size_t i) { return (averages_[i] + 0x1ff) >> 10; };
  const auto bytes = [this](std::size_t i) { return (averages_[i] + 0xf) >> 5; };
  return {count(0), count(1), count(2), bytes(3), bytes(4)};
}

}  // namespace weir
