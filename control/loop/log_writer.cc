// SPDX-License-Identifier: Apache-2.0
#include "control/loop/log_writer.h"

#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace weir {
namespace {

using Clock = LogLimiter::Clock;

// Read by any thread that logs; the writer outlives them.
std::atomic<LogWriter*>& writer_of_process() {
  static constinit std::atomic<LogWriter*> writer{nullptr};
  return writer;
}

// systemd names the device and inode of the journal's stream.
bool is_journal(int descriptor) {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (stream == nullptr || fstat(descriptor, &status) != 0) return false;
  return std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino) == stream;
}

std::string as_line(std::string_view text) { return "weir: " + std::string(text) + "\n"; }

}  // namespace

void log_line(std::string_view text, Severity severity) {
  if (LogWriter* writer = writer_of_process().load(std::memory_order_acquire)) {
    return writer->put(text, severity);
  }
  std::fputs(as_line(text).c_str(), stderr);
}

LogWriter::LogWriter(int descriptor)
    : descriptor_(descriptor), tells_severity_(is_journal(descriptor)), thread_([this] { run(); }) {
  std::signal(SIGPIPE, SIG_IGN);
  // Pairs with the acquire in log_line().
  writer_of_process().store(this, std::memory_order_release);
}

LogWriter::~LogWriter() {
  writer_of_process().store(nullptr, std::memory_order_release);
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
    give_up_ = Clock::now() + kFlush;
    queue_summaries(LogLimiter::kEndOfTime);
  }
  work_.notify_one();
  thread_.join();
}

void LogWriter::put(std::string_view text, Severity severity) {
  {
    const std::lock_guard lock(mutex_);
    const auto woken_at = limiter_.next_summary();
    if (limiter_.judge(text, Clock::now()) == LogLimiter::Verdict::pass) {
      const std::string level = std::to_string(static_cast<int>(severity));
      queue((tells_severity_ ? "<" + level + ">" : "") + as_line(text));
    } else if (limiter_.next_summary() == woken_at) {
      return;
    }
  }
  work_.notify_one();
}

void LogWriter::queue(std::string line) {
  if (lines_.size() >= kQueued) {
    ++lost_;
  } else {
    lines_.push_back(std::move(line));
  }
}

void LogWriter::queue_summaries(Clock::time_point now) {
  for (const std::string& summary : limiter_.summaries(now)) queue(as_line(summary));
}

void LogWriter::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto wake = limiter_.next_summary();
    const auto has_work = [this] { return ending_ || !lines_.empty() || lost_ != 0; };
    if (!has_work() && wake) work_.wait_until(lock, *wake);
    if (!has_work() && !wake) work_.wait(lock);
    if (!ending_) queue_summaries(Clock::now());
    if (lines_.empty() && lost_ == 0 && ending_) return;
    std::deque<std::string> lines = std::exchange(lines_, {});
    if (const std::uint64_t lost = std::exchange(lost_, 0); lost != 0) {
      lines.push_back(
          as_line("the log's reader is too slow: " + std::to_string(lost) + " lines are lost"));
    }
    lock.unlock();
    for (const std::string& line : lines) write(line);
    lock.lock();
  }
}

// Pieces that a pipe with room for any takes whole, so that write() does not wait.
void LogWriter::write(std::string_view line) {
  while (!line.empty() && wait_for_room()) {
    const ssize_t written =
        ::write(descriptor_, line.data(), std::min<std::size_t>(line.size(), PIPE_BUF));
    if (written > 0) line.remove_prefix(static_cast<std::size_t>(written));
    if (written < 0 && errno != EAGAIN && errno != EINTR) return;  // no reader, no space: lost
  }
}

// False: weir is ending and nobody has read for too long.
bool LogWriter::wait_for_room() {
  constexpr int kLookAgainMs = 100;
  for (;;) {
    pollfd place{descriptor_, POLLOUT, 0};
    if (poll(&place, 1, kLookAgainMs) > 0) return true;
    const std::lock_guard lock(mutex_);
    if (Clock::now() >= give_up_) return false;
  }
}

}  // namespace weir
