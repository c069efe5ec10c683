// SPDX-License-Identifier: Apache-2.0
// The weight at which a real server serves at present, as against the one that is configured. All
// that makes the two differ comes together here, and nobody else writes a PresentWeight.
//
// Slow start: a real server that comes, or comes back, takes up its weight bit by bit, in at most
// kSteps steps. Thread: the control thread.
#pragma once

#include <cstdint>

namespace weir {

class PresentWeight {
 public:
  std::int32_t value() const { return value_; }
  bool is_growing() const { return growing_; }

 private:
  friend class Health;
  std::int32_t configured_ = 0;
  std::int32_t value_ = 0;
  bool growing_ = false;
  std::uint32_t start_tick_ = 0;
};

class Health {
 public:
  // The workers' clock, in ticks.
  using Clock = std::uint32_t (*)();
  explicit Health(Clock clock) : clock_(clock) {}

  static constexpr std::int32_t kSteps = 32;

  // A real server that takes traffic from now on, in `slow_start` seconds.
  void begin(PresentWeight& weight, std::int32_t configured, std::uint32_t slow_start) const;
  // Another weight is configured.
  void configure(PresentWeight& weight, std::int32_t configured, std::uint32_t slow_start) const;
  // Time has passed. True: the weight has changed by a step.
  bool advance(PresentWeight& weight, std::uint32_t slow_start) const;

 private:
  std::int32_t grown(const PresentWeight& weight, std::uint32_t slow_start) const;

  Clock clock_;
};

}  // namespace weir
