// SPDX-License-Identifier: Apache-2.0
#include "control/loop/timers.h"

#include <boost/asio/steady_timer.hpp>

namespace weir {

Task<> sleep_for(EventLoop& loop, LoopClock::duration time) {
  boost::asio::steady_timer timer(loop.io(), time);
  co_await timer.async_wait(in_task);
}

Task<> every(EventLoop& loop, LoopClock::duration interval, std::function<void()> job) {
  boost::asio::steady_timer timer(loop.io());
  LoopClock::time_point due = LoopClock::now();
  for (;;) {
    due = next_due(due, interval, LoopClock::now());
    timer.expires_at(due);
    co_await timer.async_wait(in_task);
    job();
  }
}

LoopClock::time_point next_due(LoopClock::time_point due, LoopClock::duration interval,
                               LoopClock::time_point now) {
  const auto passed = now < due ? 0 : (now - due) / interval;
  return due + (passed + 1) * interval;
}

}  // namespace weir
