// SPDX-License-Identifier: Apache-2.0
// Other programs, run by the process helper, their results awaited in tasks.
// Thread: the one that runs the loop.
#pragma once

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include <boost/asio/posix/stream_descriptor.hpp>

#include "control/loop/event_loop.h"
#include "control/loop/process_helper.h"
#include "control/loop/process_messages.h"
#include "control/loop/task.h"

namespace weir {

struct ProcessRequest {
  std::vector<std::string> arguments;         // the program first, looked for in PATH
  std::vector<std::string> environment = {};  // NAME=VALUE, beside weir's own
  std::chrono::milliseconds timeout{10'000};
  std::uint32_t output_limit = 4096;  // bytes of output and errors together, at most kMostOutput
};
inline constexpr std::uint32_t kMostOutput = 64 * 1024;

struct ProcessResult {
  ProcessEnd end = ProcessEnd::not_started;
  int code = 0;  // exit code, signal, or errno
  std::string output;
  bool is_whole = true;  // false: there was more output than the limit
};

class Processes {
 public:
  Processes(EventLoop& loop, ProcessHelper helper);
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  // A task that is ended while it waits ends the program, too. Without a helper, which a person
  // may have killed, it is `not_started`.
  Task<ProcessResult> run(ProcessRequest request);

 private:
  class Running;
  Task<> take_reports();
  void deliver(HelperReport report);
  void fail_all();
  bool send(const HelperRequest& request);

  ProcessHelper helper_;
  boost::asio::posix::stream_descriptor reports_;
  std::unordered_map<std::uint64_t, Running*> running_;
  std::uint64_t next_id_ = 1;
  bool has_helper_;
  Tasks tasks_;
};

}  // namespace weir
