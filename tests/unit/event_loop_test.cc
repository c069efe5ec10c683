// SPDX-License-Identifier: Apache-2.0
#include "control/loop/event_loop.h"

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <boost/asio/buffer.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include "control/loop/slices.h"
#include "control/loop/task.h"
#include "control/loop/timers.h"

namespace weir {
namespace {

namespace asio = boost::asio;
using std::chrono_literals::operator""ns;
using std::chrono_literals::operator""us;
using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""h;
using Clock = std::chrono::steady_clock;

// So long that it has to be seen, without a sleep, during which the machine may do anything.
void be_busy_for(Clock::duration time) {
  const Clock::time_point end = Clock::now() + time;
  while (Clock::now() < end) continue;
}

std::uint64_t in_buckets(const JobHistogram& jobs, std::size_t first) {
  return std::accumulate(jobs.buckets().begin() + static_cast<std::ptrdiff_t>(first),
                         jobs.buckets().end(), std::uint64_t{0});
}

// Says when it is gone.
class Witness {
 public:
  explicit Witness(bool& gone) : gone_(&gone) {}
  Witness(Witness&& other) noexcept : gone_(std::exchange(other.gone_, nullptr)) {}
  Witness& operator=(Witness&&) = delete;
  ~Witness() {
    if (gone_ != nullptr) *gone_ = true;
  }

 private:
  bool* gone_;
};

// ---- The histogram ----

TEST(JobHistogramTest, JobIsInTheBucketOfItsLength) {
  JobHistogram jobs;
  jobs.add(999ns);
  jobs.add(1us);
  jobs.add(1999ns);
  jobs.add(2us);
  jobs.add(1000us);
  jobs.add(1h);
  EXPECT_EQ(jobs.buckets()[0], 1U);
  EXPECT_EQ(jobs.buckets()[1], 2U);
  EXPECT_EQ(jobs.buckets()[2], 1U);
  EXPECT_EQ(jobs.buckets()[10], 1U);
  EXPECT_EQ(jobs.buckets().back(), 1U);
  EXPECT_EQ(jobs.jobs(), 6U);
  EXPECT_EQ(jobs.longest(), 1h);
}

TEST(EventLoopTest, MeasuresEveryKindOfHandlerAndNoSleep) {
  EventLoop loop;
  asio::post(loop.io(), [] { be_busy_for(2ms); });
  asio::steady_timer timer(loop.io(), 200ms);
  timer.async_wait([](auto) { be_busy_for(2ms); });
  asio::local::stream_protocol::socket one(loop.io());
  asio::local::stream_protocol::socket other(loop.io());
  asio::local::connect_pair(one, other);
  std::array<char, 4> letters{};
  asio::async_read(one, asio::buffer(letters), [](auto, auto) { be_busy_for(2ms); });
  asio::steady_timer later(loop.io(), 30ms);
  later.async_wait([&](auto) { asio::write(other, asio::buffer("text", 4)); });
  loop.run();
  constexpr std::size_t kFrom1024us = 11;
  EXPECT_EQ(loop.jobs().jobs(), 4U);
  EXPECT_GE(in_buckets(loop.jobs(), kFrom1024us), 3U);
  EXPECT_GE(loop.jobs().longest(), 2ms);
  EXPECT_LT(loop.jobs().total(), 150ms) << "the time asleep is counted";
}

TEST(EventLoopTest, HandlerThatRunsAnotherOneIsOneJob) {
  EventLoop loop;
  asio::post(loop.io(), [&] {
    asio::dispatch(loop.io(), [] { be_busy_for(1ms); });
    be_busy_for(1ms);
  });
  loop.run();
  EXPECT_EQ(loop.jobs().jobs(), 1U);
  EXPECT_GE(loop.jobs().longest(), 2ms);
}

TEST(EventLoopTest, OtherThreadsHandlersAreNotItsOwn) {
  EventLoop loop;
  asio::io_context elsewhere;
  asio::post(elsewhere, [] {});
  std::thread([&] { elsewhere.run(); }).join();
  asio::post(loop.io(), [] {});
  loop.poll();
  EXPECT_EQ(loop.jobs().jobs(), 1U);
}

// ---- Tasks ----

Task<int> twice(EventLoop& loop, int number) {
  co_await sleep_for(loop, 1ms);
  co_return 2 * number;
}

Task<> add_twice(EventLoop& loop, int number, int& sum) { sum += co_await twice(loop, number); }

TEST(TaskTest, TaskAwaitsATaskAndItsValue) {
  EventLoop loop;
  Tasks tasks;
  int sum = 0;
  for (int i = 1; i <= 3; ++i) tasks.start(add_twice(loop, i, sum));
  EXPECT_FALSE(tasks.empty());
  loop.run();
  EXPECT_EQ(sum, 12);
  EXPECT_TRUE(tasks.empty());
}

Task<> count_down(int& left) {
  if (--left > 0) co_await count_down(left);
}

TEST(TaskTest, TaskThatNeverWaitsEndsAtOnce) {
  Tasks tasks;
  int left = 1000;
  tasks.start(count_down(left));
  EXPECT_EQ(left, 0);
  EXPECT_TRUE(tasks.empty());
}

TEST(TaskTest, TaskThatNobodyStartsDoesNothing) {
  int left = 3;
  { const Task<> task = count_down(left); }
  EXPECT_EQ(left, 3);
}

Task<> wait_long(EventLoop& loop, Witness, bool& went_on) {
  co_await sleep_for(loop, 1h);
  went_on = true;
}

TEST(TaskTest, OwnersEndIsTheTasksAtOnceAndCancelsWhatItWaitsFor) {
  EventLoop loop;
  auto tasks = std::make_unique<Tasks>();
  bool gone = false;
  bool went_on = false;
  tasks->start(wait_long(loop, Witness(gone), went_on));
  loop.poll();
  EXPECT_FALSE(gone);
  tasks.reset();
  EXPECT_TRUE(gone);
  loop.run();  // an hour, if the timer still ran
  EXPECT_FALSE(went_on);
}

Task<> read_into(asio::local::stream_protocol::socket& socket, std::string& text, bool& went_on) {
  std::array<char, 4> letters{};
  const auto [error, size] = co_await asio::async_read(socket, asio::buffer(letters), in_task);
  went_on = true;
  if (!error) text.assign(letters.data(), size);
}

TEST(TaskTest, ReadsFromASocket) {
  EventLoop loop;
  asio::local::stream_protocol::socket one(loop.io());
  asio::local::stream_protocol::socket other(loop.io());
  asio::local::connect_pair(one, other);
  Tasks tasks;
  std::string text;
  bool went_on = false;
  tasks.start(read_into(one, text, went_on));
  asio::write(other, asio::buffer("te", 2));
  loop.poll();
  EXPECT_FALSE(went_on);
  asio::write(other, asio::buffer("xt", 2));
  loop.run();
  EXPECT_EQ(text, "text");
}

// The socket is another's and lives on: nothing may be written into the frame that is gone.
TEST(TaskTest, EndedInTheMiddleOfAReadItLeavesTheSocketAlone) {
  EventLoop loop;
  asio::local::stream_protocol::socket one(loop.io());
  asio::local::stream_protocol::socket other(loop.io());
  asio::local::connect_pair(one, other);
  std::string text;
  bool went_on = false;
  {
    Tasks tasks;
    tasks.start(read_into(one, text, went_on));
    asio::write(other, asio::buffer("te", 2));
    loop.poll();
  }
  asio::write(other, asio::buffer("xt", 2));
  loop.run();
  EXPECT_FALSE(went_on);
  EXPECT_EQ(one.available(), 2U);
}

Task<> start_another(EventLoop& loop, Tasks& tasks, int& sum) {
  tasks.start(add_twice(loop, 1, sum));
  co_await sleep_for(loop, 1ms);
  tasks.start(add_twice(loop, 2, sum));
}

TEST(TaskTest, TaskStartsOthersOfItsOwner) {
  EventLoop loop;
  Tasks tasks;
  int sum = 0;
  tasks.start(start_another(loop, tasks, sum));
  loop.run();
  EXPECT_EQ(sum, 6);
}

// ---- Timers ----

TEST(TimersTest, MissedRunsAreSkippedAndTheRhythmStays) {
  const Clock::time_point due{1000ms};
  EXPECT_EQ(next_due(due, 10ms, due), due + 10ms);
  EXPECT_EQ(next_due(due, 10ms, due + 3ms), due + 10ms);
  EXPECT_EQ(next_due(due, 10ms, due + 10ms), due + 20ms);
  EXPECT_EQ(next_due(due, 10ms, due + 1007ms), due + 1010ms);
}

TEST(TimersTest, LateLoopRunsAJobOnceNotOnceForEachIntervalMissed) {
  EventLoop loop;
  Tasks tasks;
  constexpr auto kInterval = 5ms;
  constexpr std::size_t kRuns = 6;
  std::vector<Clock::time_point> runs;
  tasks.start(every(loop, kInterval, [&] {
    runs.push_back(Clock::now());
    if (runs.size() == 1) be_busy_for(20 * kInterval);
    if (runs.size() == kRuns) loop.stop();
  }));
  loop.run();
  // The second one may come late; those after it are at whole intervals, however slow all this is.
  EXPECT_GE(runs[kRuns - 1] - runs[1], (kRuns - 3) * kInterval) << "what was missed is made up for";
}

// ---- Slices ----

Task<> work(EventLoop& loop, int pieces, int& done) {
  Slices slices(loop);
  for (; done < pieces; ++done) {
    be_busy_for(20us);
    if (slices.is_over()) co_await slices.next();
  }
}

TEST(SlicesTest, OthersRunBetweenTheSlicesOfALongJob) {
  EventLoop loop;
  Tasks tasks;
  constexpr int kPieces = 500;  // 10 ms
  int done = 0;
  tasks.start(work(loop, kPieces, done));
  std::vector<int> seen;
  std::function<void()> look = [&] {
    seen.push_back(done);
    if (done < kPieces) asio::post(loop.io(), look);
  };
  asio::post(loop.io(), look);
  loop.run();
  EXPECT_EQ(done, kPieces);
  EXPECT_GE(seen.size(), 50U);
  // Two pieces, or a few more where the machine does other things: not a millisecond's.
  constexpr std::size_t kFrom1024us = 11;
  EXPECT_LE(in_buckets(loop.jobs(), kFrom1024us), loop.jobs().jobs() / 20);
}

}  // namespace
}  // namespace weir
