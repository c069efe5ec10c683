// SPDX-License-Identifier: Apache-2.0
// The process that starts other programs for weir: forked while weir has one thread and all its
// privileges, so that what weir is later does not matter to a script, nor a fork to weir.
//
// It gives each program a process group of its own, standard output and error that it collects up
// to a limit, /dev/null to read, and a time: then SIGTERM to the group, and kGrace later SIGKILL.
// It waits for whatever they leave behind, so that there are no zombies. When weir is gone, so is
// it, and with it everything that it has started.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <utility>

namespace weir {

class ProcessHelper {
 public:
  static constexpr std::chrono::seconds kGrace{2};

  // Forks it. Before the process has other threads. On an error is_running() is false.
  ProcessHelper();
  ~ProcessHelper();
  ProcessHelper(ProcessHelper&& other) noexcept
      : socket_(std::exchange(other.socket_, -1)), process_(std::exchange(other.process_, -1)) {}
  ProcessHelper& operator=(ProcessHelper&&) = delete;

  // For HelperRequests and HelperReports (process_messages.h); does not block.
  int socket() const noexcept { return socket_; }
  pid_t process() const noexcept { return process_; }
  bool is_running() const noexcept { return process_ > 0; }

 private:
  int socket_ = -1;
  pid_t process_ = -1;
};

}  // namespace weir
