// SPDX-License-Identifier: Apache-2.0
#include "control/loop/processes.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "control/loop/log.h"

namespace weir {
namespace {

// The descriptor in it closes the copy.
int copy_of(int descriptor) { return descriptor < 0 ? -1 : ::dup(descriptor); }

}  // namespace

// What run() waits for.
class Processes::Running {
 public:
  Running(Processes& processes, HelperRequest request)
      : processes_(processes), request_(std::move(request)) {}
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    if (processes_.running_.erase(request_.id) == 0) return;
    processes_.send({.verb = HelperVerb::end, .id = request_.id});
  }

  bool await_ready() {
    if (processes_.send(request_)) return false;
    report_ = {.end = ProcessEnd::not_started, .code = errno};
    return true;
  }
  void await_suspend(std::coroutine_handle<> waiting) {
    waiting_ = waiting;
    processes_.running_.emplace(request_.id, this);
  }
  ProcessResult await_resume() {
    return {.end = report_.end,
            .code = report_.code,
            .output = std::move(report_.output),
            .is_whole = report_.is_whole != 0};
  }
  void finish(HelperReport report) {
    report_ = std::move(report);
    waiting_.resume();
  }

 private:
  Processes& processes_;
  HelperRequest request_;
  HelperReport report_;
  std::coroutine_handle<> waiting_;
};

Processes::Processes(EventLoop& loop, ProcessHelper helper)
    : helper_(std::move(helper)), reports_(loop.io()), has_helper_(helper_.is_running()) {
  if (!has_helper_) return;
  reports_.assign(copy_of(helper_.socket()));
  tasks_.start(take_reports());
}

Task<ProcessResult> Processes::run(ProcessRequest request) {
  HelperRequest asked{.id = next_id_++,
                      .timeout_ms = static_cast<std::uint32_t>(request.timeout.count()),
                      .output_limit = std::min(request.output_limit, kMostOutput),
                      .arguments = std::move(request.arguments),
                      .environment = std::move(request.environment)};
  Running running(*this, std::move(asked));
  co_return co_await running;
}

Task<> Processes::take_reports() {
  std::vector<char> buffer(kLongestMessage);
  for (;;) {
    co_await reports_.async_wait(boost::asio::posix::descriptor_base::wait_read, in_task);
    const ssize_t size = ::recv(helper_.socket(), buffer.data(), buffer.size(), 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (size <= 0) co_return fail_all();
    auto report = decode_report({buffer.data(), static_cast<std::size_t>(size)});
    if (report) deliver(*std::move(report));
  }
}

void Processes::deliver(HelperReport report) {
  const auto found = running_.find(report.id);
  if (found == running_.end()) return;
  Running* const running = found->second;
  running_.erase(found);
  running->finish(std::move(report));
}

void Processes::fail_all() {
  has_helper_ = false;
  log_line(
      "the process that starts programs for weir is gone: no script runs until weir is "
      "restarted",
      Severity::error);
  while (!running_.empty()) {
    deliver({.id = running_.begin()->first, .end = ProcessEnd::not_started, .code = ESRCH});
  }
}

// False, and errno: the helper does not get it.
bool Processes::send(const HelperRequest& request) {
  errno = ESRCH;
  if (!has_helper_) return false;
  const std::string message = encode(request);
  errno = E2BIG;
  if (message.size() > kLongestMessage) return false;
  return ::send(helper_.socket(), message.data(), message.size(), MSG_NOSIGNAL) >= 0;
}

}  // namespace weir
