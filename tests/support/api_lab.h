// SPDX-License-Identifier: Apache-2.0
// An API server over a LiveModel, on a thread and a socket of its own, and ipvsadm run on it.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>

#include "control/api/api_server.h"
#include "control/live/live_model.h"
#include "control/loop/event_loop.h"

namespace weir {

struct CommandResult {
  int exit_code = 0;
  std::string out;
  std::string err;
};

// `arguments` is split at blanks; host and port names are those of FakeNameLookup.
CommandResult run_ipvsadm_on(const std::string& socket_path, const std::string& arguments,
                             const std::string& in = "");

class ApiLab {
 public:
  // `table` is used by the lab's thread only, until the lab is gone.
  explicit ApiLab(LiveModel& table);
  ~ApiLab();

  const std::string& socket_path() const { return socket_path_; }
  boost::asio::io_context& io() { return loop_.io(); }
  CommandResult run(const std::string& arguments, const std::string& in = "") const {
    return run_ipvsadm_on(socket_path_, arguments, in);
  }

 private:
  std::string directory_;
  std::string socket_path_;
  EventLoop loop_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::unique_ptr<ApiServer> server_;
  std::thread thread_;
};

}  // namespace weir
