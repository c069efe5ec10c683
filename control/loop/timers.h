// SPDX-License-Identifier: Apache-2.0
// Time in tasks. Thread: the one that runs the loop.
#pragma once

#include <chrono>
#include <functional>

#include "control/loop/event_loop.h"
#include "control/loop/task.h"

namespace weir {

using LoopClock = std::chrono::steady_clock;

Task<> sleep_for(EventLoop& loop, LoopClock::duration time);

// Runs `job` once in every interval, the first time when one has passed. What was missed because
// the loop was late is skipped, not caught up on; the rhythm stays.
Task<> every(EventLoop& loop, LoopClock::duration interval, std::function<void()> job);

// The first time after `now` that is a whole number of intervals after `due`.
LoopClock::time_point next_due(LoopClock::time_point due, LoopClock::duration interval,
                               LoopClock::time_point now);

}  // namespace weir
