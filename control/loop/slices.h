// SPDX-License-Identifier: Apache-2.0
// A long job in a Task, a slice of it at a time, so that whatever else is due waits for no more
// than a slice:
//
//   Slices slices(loop);
//   for (const Item& item : items) {
//     handle(item);
//     if (slices.is_over()) co_await slices.next();
//   }
// Thread: the one that runs the loop.
#pragma once

#include <chrono>

#include <boost/asio/post.hpp>

#include "control/loop/event_loop.h"
#include "control/loop/task.h"

namespace weir {

class Slices {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::microseconds kBudget{100};

  explicit Slices(EventLoop& loop) : loop_(loop), end_(Clock::now() + kBudget) {}

  bool is_over() const noexcept { return Clock::now() >= end_; }
  // Once the loop has run everything that was ready.
  Task<> next() {
    co_await boost::asio::post(loop_.io(), in_task);
    end_ = Clock::now() + kBudget;
  }

 private:
  EventLoop& loop_;
  Clock::time_point end_;
};

}  // namespace weir
