// SPDX-License-Identifier: Apache-2.0
// The thread that writes the log, so that whoever logs never waits for a slow reader. A line that
// finds the queue full is lost, and the log says how many were.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "control/loop/log.h"
#include "control/loop/log_limiter.h"

namespace weir {

class LogWriter {
 public:
  static constexpr std::size_t kQueued = 4096;  // lines

  // From here on log_line() goes to `descriptor`, through this one. One at a time in a process.
  // SIGPIPE is ignored for good: a reader that goes away costs lines, and nothing else.
  explicit LogWriter(int descriptor);
  // Writes what waits, for at most kFlush.
  ~LogWriter();
  static constexpr std::chrono::seconds kFlush{2};
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  void put(std::string_view text, Severity severity);

 private:
  void run();
  // Both under the mutex.
  void queue(std::string line);
  void queue_summaries(LogLimiter::Clock::time_point now);
  void write(std::string_view line);
  bool wait_for_room();

  const int descriptor_;
  const bool tells_severity_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::string> lines_;
  LogLimiter limiter_;
  std::uint64_t lost_ = 0;
  bool ending_ = false;
  LogLimiter::Clock::time_point give_up_ = LogLimiter::kEndOfTime;
  std::thread thread_;
};

}  // namespace weir
