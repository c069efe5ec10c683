// SPDX-License-Identifier: Apache-2.0
#include "control/loop/process_helper.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "control/loop/process_messages.h"

namespace weir {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::array kIgnored = {SIGINT,  SIGTERM, SIGQUIT, SIGHUP,
                                 SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM};

int open_pidfd(pid_t process) { return static_cast<int>(::syscall(SYS_pidfd_open, process, 0)); }

void close_if_open(int& descriptor) {
  if (descriptor >= 0) ::close(descriptor);
  descriptor = -1;
}

// One program that the helper has started. Its id stays its own until finish() waits for it, and
// with it the group's: signals go to nobody else.
struct Job {
  enum class Stage { running, told_to_end, killed };
  std::uint64_t id = 0;
  pid_t process = -1;
  int ended = -1;   // pidfd
  int output = -1;  // closed once there is no more
  Stage stage = Stage::running;
  Clock::time_point deadline;
  std::uint32_t output_limit = 0;
  HelperReport report;

  Job() = default;
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  ~Job() {
    close_if_open(ended);
    close_if_open(output);
  }
  void signal_group(int number) const { ::kill(-process, number); }
};

// In the child, between fork and exec: only what is safe there.
[[noreturn]] void become(const HelperRequest& request, int output) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // without the helper nobody would end it
  for (const int number : kIgnored) std::signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  ::close_range(STDERR_FILENO + 1, ~0U, 0);
  std::vector<char*> arguments;
  for (const std::string& argument : request.arguments) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  for (const std::string& variable : request.environment) {
    ::putenv(const_cast<char*>(variable.c_str()));
  }
  ::execvp(arguments[0], arguments.data());
  const int error = errno;
  ::dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], std::strerror(error));
  constexpr int kNotFound = 127;  // as a shell's
  constexpr int kNotExecutable = 126;
  ::_exit(error == ENOENT ? kNotFound : kNotExecutable);
}

class Helper {
 public:
  explicit Helper(int socket) : socket_(socket) {
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, nullptr);
    children_ = ::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
  }

  // Until weir is gone.
  void serve() {
    while (serving_) turn();
    for (const Job& job : jobs_) job.signal_group(SIGKILL);
  }

 private:
  void turn();
  void take_request();
  void start(const HelperRequest& request);
  bool launch(const HelperRequest& request, Job& job);
  void end(std::uint64_t id);
  void read_output(Job& job);
  void press(Job& job, Clock::time_point now);
  void finish(std::list<Job>::iterator job);
  void reap_orphans();
  int time_to_wait() const;
  void send(const HelperReport& report) {
    const std::string message = encode(report);
    serving_ = ::send(socket_, message.data(), message.size(), MSG_NOSIGNAL) >= 0 && serving_;
  }

  int socket_;
  int children_ = -1;
  bool serving_ = true;
  std::list<Job> jobs_;
};

void Helper::turn() {
  std::vector<pollfd> places = {{socket_, POLLIN, 0}, {children_, POLLIN, 0}};
  for (const Job& job : jobs_) {
    places.push_back({job.ended, POLLIN, 0});
    places.push_back({job.output, POLLIN, 0});
  }
  if (::poll(places.data(), places.size(), time_to_wait()) < 0) return;
  const Clock::time_point now = Clock::now();
  std::size_t place = 2;
  for (auto next = jobs_.begin(); next != jobs_.end(); place += 2) {
    const auto job = next++;
    if (places[place + 1].revents != 0) read_output(*job);
    if (places[place].revents != 0) {
      finish(job);
    } else {
      press(*job, now);
    }
  }
  if (places[1].revents != 0) {
    signalfd_siginfo ignored;
    while (::read(children_, &ignored, sizeof ignored) > 0) continue;
  }
  reap_orphans();
  if (places[0].revents != 0) take_request();
}

int Helper::time_to_wait() const {
  if (jobs_.empty()) return -1;
  const auto first = std::min_element(
      jobs_.begin(), jobs_.end(),
      [](const Job& one, const Job& other) { return one.deadline < other.deadline; });
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(first->deadline - Clock::now()).count();
  constexpr decltype(left) kMost = 60'000;
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, kMost));
}

void Helper::take_request() {
  static std::array<char, kLongestMessage> buffer;
  const ssize_t size = ::recv(socket_, buffer.data(), buffer.size(), 0);
  if (size <= 0) {
    serving_ = size < 0 && errno == EINTR;
    return;
  }
  const auto request = decode_request({buffer.data(), static_cast<std::size_t>(size)});
  if (!request) return;
  if (request->verb == HelperVerb::start) {
    start(*request);
  } else {
    end(request->id);
  }
}

void Helper::start(const HelperRequest& request) {
  Job& job = jobs_.emplace_back();
  job.id = job.report.id = request.id;
  job.output_limit = request.output_limit;
  job.deadline = Clock::now() + std::chrono::milliseconds(request.timeout_ms);
  if (request.arguments.empty()) {
    errno = EINVAL;
  } else if (launch(request, job)) {
    return;
  }
  job.report.end = ProcessEnd::not_started;
  job.report.code = errno;
  send(job.report);
  jobs_.pop_back();
}

// False, and errno: nothing was started.
bool Helper::launch(const HelperRequest& request, Job& job) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) return false;
  job.output = pipe[0];
  // What the program writes to is an ordinary pipe.
  ::fcntl(pipe[1], F_SETFL, 0);
  job.process = ::fork();
  if (job.process == 0) become(request, pipe[1]);
  const int error = errno;
  ::close(pipe[1]);
  errno = error;
  if (job.process < 0) return false;
  ::setpgid(job.process, job.process);  // whoever of the two comes first
  job.ended = open_pidfd(job.process);
  if (job.ended >= 0) return true;
  const int no_pidfd = errno;
  job.signal_group(SIGKILL);
  ::waitpid(job.process, nullptr, 0);
  errno = no_pidfd;
  return false;
}

// Nobody wants the result any more.
void Helper::end(std::uint64_t id) {
  const auto job = std::find_if(jobs_.begin(), jobs_.end(),
                                [id](const Job& candidate) { return candidate.id == id; });
  if (job != jobs_.end() && job->stage == Job::Stage::running) job->deadline = Clock::now();
}

// What is beyond the limit is read and forgotten, so that the program does not wait.
void Helper::read_output(Job& job) {
  constexpr int kPiecesPerTurn = 16;
  std::array<char, 4096> piece;
  for (int i = 0; i < kPiecesPerTurn && job.output >= 0; ++i) {
    const ssize_t size = ::read(job.output, piece.data(), piece.size());
    if (size < 0) return;
    if (size == 0) return close_if_open(job.output);
    const std::size_t room = job.output_limit - job.report.output.size();
    const auto got = static_cast<std::size_t>(size);
    if (got > room) job.report.is_whole = 0;
    job.report.output.append(piece.data(), std::min(got, room));
  }
}

void Helper::press(Job& job, Clock::time_point now) {
  if (now < job.deadline) return;
  const bool first = job.stage == Job::Stage::running;
  job.signal_group(first ? SIGTERM : SIGKILL);
  job.stage = first ? Job::Stage::told_to_end : Job::Stage::killed;
  job.deadline = now + ProcessHelper::kGrace;
}

void Helper::finish(std::list<Job>::iterator job) {
  // The rest of a group whose first process has obeyed.
  if (job->stage != Job::Stage::running) job->signal_group(SIGKILL);
  siginfo_t ended{};
  if (::waitid(P_PIDFD, static_cast<id_t>(job->ended), &ended, WEXITED) != 0) return;
  read_output(*job);
  if (job->stage != Job::Stage::running) {
    job->report.end = ProcessEnd::timed_out;
  } else {
    job->report.end = ended.si_code == CLD_EXITED ? ProcessEnd::exited : ProcessEnd::killed;
  }
  job->report.code = ended.si_status;
  send(job->report);
  jobs_.erase(job);
}

// What programs have left behind is the helper's child now. Those of jobs are finish()'s.
void Helper::reap_orphans() {
  for (;;) {
    siginfo_t ended{};
    if (::waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) != 0 || ended.si_pid == 0) return;
    const bool of_a_job = std::any_of(jobs_.begin(), jobs_.end(),
                                      [&](const Job& job) { return job.process == ended.si_pid; });
    if (of_a_job) return;
    ::waitpid(ended.si_pid, nullptr, WNOHANG);
  }
}

[[noreturn]] void run_helper(int socket) {
  ::setsid();  // a terminal's Ctrl-C and its end are for weir alone
  ::prctl(PR_SET_NAME, "weir-helper");
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  for (const int number : kIgnored) std::signal(number, SIG_IGN);
  Helper(socket).serve();
  ::_exit(0);
}

}  // namespace

ProcessHelper::ProcessHelper() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return;
  process_ = ::fork();
  if (process_ == 0) {
    ::close(ends[0]);
    run_helper(ends[1]);
  }
  ::close(ends[1]);
  socket_ = ends[0];
  ::fcntl(socket_, F_SETFL, O_NONBLOCK);
}

ProcessHelper::~ProcessHelper() {
  close_if_open(socket_);
  if (process_ > 0) ::waitpid(process_, nullptr, 0);
}

}  // namespace weir
