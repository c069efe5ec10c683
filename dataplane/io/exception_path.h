// SPDX-License-Identifier: Apache-2.0
// The thread between workers and the exception interfaces: only it makes the system calls.
//
// To the kernel, in strict order: all of class link, then some of host, then strays, as long as
// their budget lasts. The kernel answers a stray by a RST, which must find room on the way back:
// the TAP device's queue has no classes.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "dataplane/io/exception_interface.h"
#include "dataplane/io/worker.h"
#include "dataplane/path/statistics.h"

struct rte_mempool;

namespace weir {

// Tokens for strays, by time: a bucket of kBurst, refilled kPerSecond times.
class StrayBudget {
 public:
  static constexpr unsigned kPerSecond = 10'000;
  static constexpr unsigned kBurst = 500;

  // How many may go at `now`, in milliseconds.
  unsigned available(std::uint32_t now) noexcept;
  void spend(unsigned strays) noexcept { tokens_ -= strays; }

 private:
  unsigned tokens_ = kBurst;
  std::uint32_t refilled_ = 0;
};

class ExceptionPath {
 public:
  struct Counters {
    Counter<std::uint64_t> to_kernel;
    Counter<std::uint64_t> from_kernel;
    Counter<std::uint64_t> lost_to_kernel;    // the kernel did not take it
    Counter<std::uint64_t> lost_from_kernel;  // no buffer, or the worker's ring was full
  };
  // One interface per port, by port number. Starts the thread. Control thread.
  ExceptionPath(std::vector<std::unique_ptr<ExceptionInterface>> interfaces,
                std::vector<ExceptionInterface::Use> uses, Rings& rings, rte_mempool* pool);
  // Stops the thread; the workers have stopped before.
  ~ExceptionPath();
  ExceptionPath(const ExceptionPath&) = delete;
  ExceptionPath& operator=(const ExceptionPath&) = delete;

  const Counters& counters() const noexcept { return counters_; }

 private:
  void run() noexcept;
  unsigned pass_to_kernel() noexcept;
  unsigned pass_to_kernel(Urgency urgency, unsigned most) noexcept;
  unsigned pass_to_kernel(unsigned worker, Urgency urgency, unsigned most) noexcept;
  unsigned pass_to_wire() noexcept;
  bool read_one(std::uint16_t port) noexcept;

  std::vector<std::unique_ptr<ExceptionInterface>> interfaces_;
  std::vector<ExceptionInterface::Use> uses_;
  Rings& rings_;
  rte_mempool* pool_;
  StrayBudget strays_;
  unsigned first_worker_ = 0;  // whose frames go first; all in turn
  Counters counters_;
  std::atomic<bool> running_{true};
  std::thread thread_;
};

}  // namespace weir
