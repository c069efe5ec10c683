// SPDX-License-Identifier: Apache-2.0
// Real scripts, through a real helper.
#include "control/loop/processes.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "control/loop/timers.h"

namespace weir {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;
using Clock = std::chrono::steady_clock;

Task<> run_into(Processes& processes, ProcessRequest request,
                std::optional<ProcessResult>& result) {
  result = co_await processes.run(std::move(request));
}

ProcessRequest shell(const std::string& script, std::chrono::milliseconds timeout = 20s) {
  return {.arguments = {"sh", "-c", script}, .timeout = timeout};
}

class ProcessesTest : public testing::Test {
 protected:
  // Runs the loop until `condition`, for at most 10 s.
  template <class Condition>
  bool until(Condition condition) {
    const Clock::time_point end = Clock::now() + 10s;
    while (!condition()) {
      if (Clock::now() > end) return false;
      loop_.io().run_one_for(10ms);
    }
    return true;
  }
  ProcessResult run(ProcessRequest request) {
    std::optional<ProcessResult> result;
    Tasks tasks;
    tasks.start(run_into(processes_, std::move(request), result));
    EXPECT_TRUE(until([&] { return result.has_value(); }));
    return result.value_or(ProcessResult{});
  }
  static bool is_alive(pid_t process) { return ::kill(process, 0) == 0; }
  // The helper's children, zombies included.
  std::vector<pid_t> children() const {
    std::ifstream file("/proc/" + std::to_string(helper_) + "/task/" + std::to_string(helper_) +
                       "/children");
    std::vector<pid_t> found;
    for (pid_t process = 0; file >> process;) found.push_back(process);
    return found;
  }

  EventLoop loop_;
  ProcessHelper forked_;
  pid_t helper_ = forked_.process();
  Processes processes_{loop_, std::move(forked_)};
};

TEST_F(ProcessesTest, ExitCodeAndOutputOfBothKinds) {
  const ProcessResult result = run(shell("echo out; echo err >&2; exit 3"));
  EXPECT_EQ(result.end, ProcessEnd::exited);
  EXPECT_EQ(result.code, 3);
  EXPECT_EQ(result.output, "out\nerr\n");
  EXPECT_TRUE(result.is_whole);
}

TEST_F(ProcessesTest, EnvironmentArgumentsAndNothingToRead) {
  ProcessRequest request{.arguments = {"sh", "-c", "cat; echo \"$1 $WEIR_VIP\"", "sh", "a b"},
                         .environment = {"WEIR_VIP=10.0.0.1"}};
  EXPECT_EQ(run(request).output, "a b 10.0.0.1\n");
}

TEST_F(ProcessesTest, ProgramThatIsNotThere) {
  const ProcessResult result = run({.arguments = {"/no/such/program"}});
  EXPECT_EQ(result.end, ProcessEnd::exited);
  EXPECT_EQ(result.code, 127);
  EXPECT_EQ(result.output, "cannot run /no/such/program: No such file or directory\n");
  EXPECT_EQ(run({}).end, ProcessEnd::not_started);
}

TEST_F(ProcessesTest, KilledByASignal) {
  const ProcessResult result = run(shell("kill -SEGV $$"));
  EXPECT_EQ(result.end, ProcessEnd::killed);
  EXPECT_EQ(result.code, SIGSEGV);
}

TEST_F(ProcessesTest, FloodOfOutputIsCutAndHoldsNobodyUp) {
  ProcessRequest request = shell("yes | head -c 50000000; echo done >&2; exit 7");
  request.output_limit = 1000;
  const ProcessResult result = run(request);
  EXPECT_EQ(result.code, 7);
  EXPECT_EQ(result.output.size(), 1000U);
  EXPECT_FALSE(result.is_whole);
}

TEST_F(ProcessesTest, HangEndsAtItsTimeByTerm) {
  const Clock::time_point start = Clock::now();
  const ProcessResult result =
      run(shell("trap 'echo told; exit 5' TERM; echo $$; sleep 100 & wait", 100ms));
  EXPECT_EQ(result.end, ProcessEnd::timed_out);
  EXPECT_NE(result.output.find("told"), std::string::npos) << result.output;
  EXPECT_LT(Clock::now() - start, ProcessHelper::kGrace);
}

TEST_F(ProcessesTest, WhatIgnoresTermIsKilledWithItsChildren) {
  const Clock::time_point start = Clock::now();
  const ProcessResult result = run(shell(
      "trap '' TERM; (trap '' TERM; sleep 100; sleep 100) & echo $!; sleep 100; sleep 100", 100ms));
  EXPECT_EQ(result.end, ProcessEnd::timed_out);
  EXPECT_GE(Clock::now() - start, ProcessHelper::kGrace);
  const pid_t child = std::stoi(result.output);
  EXPECT_TRUE(until([&] { return !is_alive(child); }));
  EXPECT_TRUE(until([&] { return children().empty(); })) << "zombies";
}

TEST_F(ProcessesTest, ChildLeftBehindDelaysNoResultAndIsWaitedFor) {
  const ProcessResult result = run(shell("sleep 0.2 & echo $!"));
  EXPECT_EQ(result.end, ProcessEnd::exited);
  const pid_t child = std::stoi(result.output);
  EXPECT_TRUE(until([&] { return !is_alive(child); })) << "a zombie is left";
  EXPECT_TRUE(children().empty());
}

TEST_F(ProcessesTest, ManyAtOnceEachGetsItsOwnResult) {
  constexpr std::size_t kPrograms = 50;
  std::vector<std::optional<ProcessResult>> results(kPrograms);
  Tasks tasks;
  for (std::size_t i = 0; i < kPrograms; ++i) {
    tasks.start(run_into(processes_, shell("exit " + std::to_string(i)), results[i]));
  }
  for (std::size_t i = 0; i < kPrograms; ++i) {
    ASSERT_TRUE(until([&] { return results[i].has_value(); }));
    EXPECT_EQ(results[i]->code, static_cast<int>(i));
  }
}

TEST_F(ProcessesTest, OwnersEndIsTheProgramsEnd) {
  const std::string mark =
      std::filesystem::temp_directory_path() / ("weir-processes-" + std::to_string(::getpid()));
  std::optional<ProcessResult> result;
  {
    Tasks tasks;
    tasks.start(run_into(processes_, shell("echo $$ > " + mark + "; exec sleep 100"), result));
    ASSERT_TRUE(
        until([&] { return std::filesystem::exists(mark) && !std::filesystem::is_empty(mark); }));
  }
  pid_t process = 0;
  std::ifstream(mark) >> process;
  std::filesystem::remove(mark);
  EXPECT_TRUE(until([&] { return !is_alive(process); }));
  EXPECT_FALSE(result);
}

TEST_F(ProcessesTest, HelpersDeathIsSaidToWhoeverWaitsAndAsksLater) {
  std::optional<ProcessResult> result;
  Tasks tasks;
  tasks.start(run_into(processes_, shell("sleep 100"), result));
  ASSERT_TRUE(until([&] { return !children().empty(); }));
  const pid_t program = children().front();
  ::kill(helper_, SIGKILL);
  ASSERT_TRUE(until([&] { return result.has_value(); }));
  EXPECT_EQ(result->end, ProcessEnd::not_started);
  EXPECT_EQ(run(shell("true")).end, ProcessEnd::not_started);
  EXPECT_TRUE(until([&] { return !is_alive(program); })) << "the program runs on, unwatched";
}

TEST_F(ProcessesTest, IsInAGroupOfItsOwnAndSignalsAreAsUsual) {
  const ProcessResult result = run(shell("cut -d ' ' -f 5 /proc/$$/stat; echo $$; kill -INT $$"));
  EXPECT_EQ(result.end, ProcessEnd::killed);
  EXPECT_EQ(result.code, SIGINT);
  const std::size_t line = result.output.find('\n');
  EXPECT_EQ(result.output.substr(0, line) + "\n", result.output.substr(line + 1));
}

TEST(ProcessHelperTest, WeirsEndIsItsOwnAndThatOfItsPrograms) {
  EventLoop loop;
  pid_t helper = 0;
  {
    ProcessHelper forked;
    helper = forked.process();
    Processes processes(loop, std::move(forked));
    std::optional<ProcessResult> result;
    Tasks tasks;
    tasks.start(run_into(processes, shell("trap '' TERM; sleep 100"), result));
  }
  EXPECT_NE(::kill(helper, 0), 0);
}

TEST(ProcessMessagesTest, WhatIsCutShortIsNoMessage) {
  const std::string message =
      encode(HelperRequest{.id = 7, .arguments = {"a", ""}, .environment = {"B=c"}});
  const auto whole = decode_request(message);
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->arguments, (std::vector<std::string>{"a", ""}));
  EXPECT_EQ(whole->environment, std::vector<std::string>{"B=c"});
  for (std::size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(decode_request(std::string_view(message).substr(0, size))) << size;
  }
}

}  // namespace
}  // namespace weir
