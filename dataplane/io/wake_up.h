// SPDX-License-Identifier: Apache-2.0
// Calls a thread that sleeps in poll(), without a system call where it has been called already.
#pragma once

#include <atomic>

namespace weir {

class WakeUp {
 public:
  // Control thread.
  WakeUp();
  ~WakeUp();
  WakeUp(const WakeUp&) = delete;
  WakeUp& operator=(const WakeUp&) = delete;

  // Makes fd() readable. One system call for the first since listen(), none for others. Any thread.
  void call() noexcept {
    if (called_.load(std::memory_order_relaxed)) return;
    // Pairs with the exchange in listen(): the message has been put before the call.
    if (!called_.exchange(true, std::memory_order_release)) signal();
  }
  // ---- The called thread ----

  int fd() const noexcept { return fd_; }
  // fd() is not readable any more; further calls are silent until listen().
  void answer() noexcept;
  // From here on a call is heard. The caller looks for messages afterwards.
  void listen() noexcept { called_.exchange(false, std::memory_order_acquire); }

 private:
  void signal() noexcept;

  int fd_;
  std::atomic<bool> called_{false};
};

}  // namespace weir
