// SPDX-License-Identifier: Apache-2.0
// What one thread counts and all may read, without stopping it.
#pragma once

#include <atomic>

namespace weir {

// A counter with one writer: plain additions for its owner, a relaxed read for everybody else.
// Relaxed is enough, since nothing else is published through it.
template <class T>
class Counter {
 public:
  void add(T amount) noexcept {
    value_.store(static_cast<T>(value_.load(std::memory_order_relaxed) + amount),
                 std::memory_order_relaxed);
  }
  void subtract(T amount) noexcept { add(static_cast<T>(T{0} - amount)); }
  T read() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<T> value_{0};
};

}  // namespace weir
