// SPDX-License-Identifier: Apache-2.0
#include "control/loop/log_limiter.h"

#include <algorithm>

namespace weir {
namespace {

bool varies(std::string_view word) {
  const bool digit = std::any_of(word.begin(), word.end(),
                                 [](char letter) { return letter >= '0' && letter <= '9'; });
  return digit || word.find("::") != std::string_view::npos;
}

std::string summary(std::uint64_t left_out, const std::string& last) {
  if (left_out == 1) return last;
  return "left out " + std::to_string(left_out - 1) + " more lines like this one: " + last;
}

}  // namespace

std::string reason_of(std::string_view text) {
  std::string reason;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    reason += varies(word) ? "#" : word;
    reason += ' ';
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return reason;
}

LogLimiter::Verdict LogLimiter::judge(std::string_view text, Clock::time_point now) {
  Period& period = periods_[reason_of(text)];
  // What the last period left out is told before a new one begins.
  if (now >= period.end && period.left_out == 0) period = {.end = now + kPeriod};
  if (now < period.end && period.lines < kLines) {
    ++period.lines;
    return Verdict::pass;
  }
  ++period.left_out;
  period.last = text;
  next_summary_ = std::min(next_summary_.value_or(period.end), period.end);
  return Verdict::left_out;
}

std::vector<std::string> LogLimiter::summaries(Clock::time_point now) {
  std::vector<std::string> lines;
  next_summary_.reset();
  for (auto at = periods_.begin(); at != periods_.end();) {
    const Period& period = at->second;
    if (period.end > now) {
      if (period.left_out != 0) {
        next_summary_ = std::min(next_summary_.value_or(period.end), period.end);
      }
      ++at;
      continue;
    }
    if (period.left_out != 0) lines.push_back(summary(period.left_out, period.last));
    at = periods_.erase(at);
  }
  return lines;
}

}  // namespace weir
