// SPDX-License-Identifier: Apache-2.0
// Averages of counters, as IPVS keeps them. Thread: the control thread.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "control/model/listings.h"

namespace weir {

// IPVS's rate estimator for one set of counters (ip_vs_est.c), fed every two seconds.
class RateEstimator {
 public:
  static constexpr int kIntervalSeconds = 2;
  // From `totals` on, at rates of zero.
  void restart(const Totals& totals) {
    last_ = totals;
    averages_ = {};
  }
  void sample(const Totals& totals);
  Rates rates() const;

 private:
  Totals last_;
  // Connections and packets with 10, bytes with 5 fractional bits.
  std::array<std::uint64_t, 5> averages_{};
};

// The share of its time that a worker was busy with packets, fed every kIntervalSeconds.
class BusyEstimator {
 public:
  void sample(std::uint64_t busy_cycles, std::uint64_t cycles) {
    const std::uint64_t passed = cycles - std::exchange(cycles_, cycles);
    const std::uint64_t busy = busy_cycles - std::exchange(busy_cycles_, busy_cycles);
    per_cent_ = passed == 0 ? 0 : static_cast<std::uint32_t>(100 * busy / passed);
  }
  std::uint32_t per_cent() const { return per_cent_; }

 private:
  std::uint64_t busy_cycles_ = 0;
  std::uint64_t cycles_ = 0;
  std::uint32_t per_cent_ = 0;
};

}  // namespace weir
