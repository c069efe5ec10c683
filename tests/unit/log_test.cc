// SPDX-License-Identifier: Apache-2.0
#include "control/loop/log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "control/loop/log_limiter.h"
#include "control/loop/log_writer.h"

namespace weir {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using Verdict = LogLimiter::Verdict;

// ---- Which lines pass ----

TEST(LogLimiterTest, ReasonIsTheSentenceWithoutWhatVaries) {
  EXPECT_EQ(reason_of("real server 10.0.0.1 of TCP 10.9.0.1:80: no route"),
            reason_of("real server fd00::7 of TCP [fd00::1]:80: no route"));
  EXPECT_EQ(reason_of("port eth0 is down"), reason_of("port eth17 is down"));
  EXPECT_NE(reason_of("port eth0 is down"), reason_of("port eth0 is up"));
  EXPECT_EQ(reason_of(""), "");
}

TEST(LogLimiterTest, ThousandLinesOfOneReasonAreAFewAndTheirNumber) {
  LogLimiter limiter;
  const LogLimiter::Clock::time_point start{1000s};
  unsigned passed = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string text = "server " + std::to_string(i) + " is unreachable";
    passed += limiter.judge(text, start + i * 1ms) == Verdict::pass ? 1 : 0;
  }
  EXPECT_EQ(passed, LogLimiter::kLines);
  EXPECT_EQ(limiter.judge("port eth0 is down", start + 1s), Verdict::pass);
  EXPECT_TRUE(limiter.summaries(start + 59s).empty());
  ASSERT_EQ(limiter.next_summary(), start + 60s);
  const std::vector<std::string> summaries = limiter.summaries(start + 60s);
  ASSERT_EQ(summaries.size(), 1U);
  EXPECT_EQ(summaries[0], "left out 989 more lines like this one: server 999 is unreachable");
  EXPECT_FALSE(limiter.next_summary());
  EXPECT_EQ(limiter.judge("server 5 is unreachable", start + 61s), Verdict::pass);
}

TEST(LogLimiterTest, SingleLineLeftOutIsWrittenLate) {
  LogLimiter limiter;
  const LogLimiter::Clock::time_point start{1000s};
  for (unsigned i = 0; i <= LogLimiter::kLines; ++i) limiter.judge("again", start);
  EXPECT_EQ(limiter.summaries(start + 60s), std::vector<std::string>{"again"});
}

// ---- Where they go ----

class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe2(ends_.data(), O_CLOEXEC), 0); }
  ~Pipe() {
    close_reader();
    ::close(ends_[1]);
  }
  int writer() const { return ends_[1]; }
  void close_reader() {
    if (ends_[0] >= 0) ::close(std::exchange(ends_[0], -1));
  }
  // What is in it now or comes within 2 s, until `enough` is in it.
  std::string read_until(const std::string& enough) {
    std::string text;
    pollfd place{ends_[0], POLLIN, 0};
    while (text.find(enough) == std::string::npos && ::poll(&place, 1, 2000) > 0) {
      std::array<char, 4096> piece;
      const ssize_t size = ::read(ends_[0], piece.data(), piece.size());
      if (size <= 0) break;
      text.append(piece.data(), static_cast<std::size_t>(size));
    }
    return text;
  }

 private:
  std::array<int, 2> ends_{};
};

TEST(LogWriterTest, WritesLinesInOrderAndTheLastOnesAtItsEnd) {
  Pipe pipe;
  {
    LogWriter writer(pipe.writer());
    log_line("one");
    EXPECT_EQ(pipe.read_until("\n"), "weir: one\n");
    log_line("two");
    log_line("three");
  }
  EXPECT_EQ(pipe.read_until("three\n"), "weir: two\nweir: three\n");
}

TEST(LogWriterTest, CountsWhatItLeftOutAtItsEnd) {
  Pipe pipe;
  {
    LogWriter writer(pipe.writer());
    for (int i = 0; i < 5000; ++i) log_line("server " + std::to_string(i) + " is unreachable");
  }
  const std::string text = pipe.read_until("like this one: server 4999");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), LogLimiter::kLines + 1);
  EXPECT_NE(text.find("left out 4989 more"), std::string::npos) << text;
}

TEST(LogWriterTest, ReaderThatDoesNotReadHoldsNobodyUpAndLossIsSaid) {
  Pipe pipe;
  auto writer = std::make_unique<LogWriter>(pipe.writer());
  const auto start = std::chrono::steady_clock::now();
  const std::string filling(300, 'x');
  // Each a reason of its own.
  std::string reason;
  for (int i = 0; i < 20'000; ++i) {
    reason.clear();
    for (int rest = i + 1; rest != 0; rest /= 26) reason += static_cast<char>('a' + rest % 26);
    log_line(reason + " " + filling);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - start, 5s);
  const std::string text = pipe.read_until("lines are lost\n");
  EXPECT_NE(text.find("weir: the log's reader is too slow: "), std::string::npos);
  writer.reset();
}

TEST(LogWriterTest, ReaderThatNeverReadsHoldsTheEndUpForAMomentOnly) {
  Pipe pipe;
  auto writer = std::make_unique<LogWriter>(pipe.writer());
  const std::string long_line(200'000, 'x');  // more than a pipe holds
  log_line(long_line);
  const auto start = std::chrono::steady_clock::now();
  writer.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, LogWriter::kFlush + 2s);
}

TEST(LogWriterTest, ReaderThatGoesAwayIsNoEnd) {
  std::signal(SIGPIPE, SIG_DFL);
  Pipe pipe;
  LogWriter writer(pipe.writer());
  log_line("one");
  EXPECT_EQ(pipe.read_until("\n"), "weir: one\n");
  pipe.close_reader();
  for (int i = 0; i < 100; ++i) log_line("nobody hears this");
}

TEST(LogWriterTest, SaysTheLevelWhereJournaldReads) {
  Pipe pipe;
  struct stat status {};
  ASSERT_EQ(::fstat(pipe.writer(), &status), 0);
  ::setenv("JOURNAL_STREAM",
           (std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino)).c_str(), 1);
  {
    LogWriter writer(pipe.writer());
    log_line("fire", Severity::emergency);
    log_line("so so");
  }
  ::unsetenv("JOURNAL_STREAM");
  EXPECT_EQ(pipe.read_until("so so\n"), "<0>weir: fire\n<5>weir: so so\n");
}

}  // namespace
}  // namespace weir
