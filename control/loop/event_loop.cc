// SPDX-License-Identifier: Apache-2.0
#include "control/loop/event_loop.h"

#include "control/loop/handler_clock.h"

namespace weir {

void EventLoop::run() {
  HandlerClock::arm();
  while (io_.run_one() != 0) measure();
}

void EventLoop::poll() {
  HandlerClock::arm();
  while (io_.poll_one() != 0) measure();
}

void EventLoop::measure() {
  if (HandlerClock::has_begun()) jobs_.add(HandlerClock::Clock::now() - HandlerClock::began());
  HandlerClock::arm();
}

}  // namespace weir
