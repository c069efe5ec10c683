// SPDX-License-Identifier: Apache-2.0
// Keeps a log readable: of the lines with the same reason only the first ones of each minute pass,
// and one line says how many did not. Thread: one at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

// The sentence without what varies in it: words with a digit, and IPv6 addresses without one.
std::string reason_of(std::string_view text);

class LogLimiter {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::minutes kPeriod{1};
  static constexpr unsigned kLines = 10;  // of one reason in a period

  enum class Verdict : std::uint8_t { pass, left_out };
  Verdict judge(std::string_view text, Clock::time_point now);
  // The lines that say what was left out in periods that are over.
  std::vector<std::string> summaries(Clock::time_point now);
  // kEndOfTime: all are.
  static constexpr Clock::time_point kEndOfTime = Clock::time_point::max();
  // When summaries() has the next one; nothing: it has none.
  std::optional<Clock::time_point> next_summary() const { return next_summary_; }

 private:
  struct Period {
    Clock::time_point end;
    unsigned lines = 0;
    std::uint64_t left_out = 0;
    std::string last;  // of those left out
  };
  std::map<std::string, Period> periods_;
  std::optional<Clock::time_point> next_summary_;
};

}  // namespace weir
