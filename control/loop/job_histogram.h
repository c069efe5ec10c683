// SPDX-License-Identifier: Apache-2.0
// How long the jobs of the control thread took, by powers of two of microseconds.
// Written and read by: the control thread.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace weir {

class JobHistogram {
 public:
  using Duration = std::chrono::nanoseconds;
  // Bucket 0: below 1 us; bucket i: from 2^(i-1) us to below 2^i us; the last one: the rest.
  static constexpr std::size_t kBuckets = 24;

  void add(Duration length) noexcept {
    const auto nanoseconds = static_cast<std::uint64_t>(std::max(length, Duration::zero()).count());
    const auto bucket = static_cast<std::size_t>(std::bit_width(nanoseconds / 1000));
    ++buckets_[std::min(bucket, kBuckets - 1)];
    ++jobs_;
    total_ += length;
    longest_ = std::max(longest_, length);
  }

  std::uint64_t jobs() const noexcept { return jobs_; }
  Duration total() const noexcept { return total_; }
  Duration longest() const noexcept { return longest_; }
  const std::array<std::uint64_t, kBuckets>& buckets() const noexcept { return buckets_; }

 private:
  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t jobs_ = 0;
  Duration total_{0};
  Duration longest_{0};
};

}  // namespace weir
