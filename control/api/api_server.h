// SPDX-License-Identifier: Apache-2.0
// The API's transport: HTTP/1.1 over a UNIX socket, on the control thread's io_context.
//
// Nothing blocks: requests are bounded in size, and a long listing goes out in slices with the
// io_context's other work in between, at the pace of its reader.
// Thread: the one that runs the io_context.
#pragma once

#include <memory>
#include <string>

#include <absl/status/statusor.h>

#include "control/live/live_model.h"
#include "control/loop/event_loop.h"

namespace weir {

class ApiServer {
 public:
  // Listens on `socket_path`, for root only; makes its directory and takes over a socket that a
  // dead process left. FailedPrecondition: another process listens there. `model` and `loop` must
  // outlive the server.
  static absl::StatusOr<std::unique_ptr<ApiServer>> open(EventLoop& loop,
                                                         const std::string& socket_path,
                                                         LiveModel& model);
  // Stops answering and removes the socket.
  ~ApiServer();

 private:
  class Listener;
  class Session;
  explicit ApiServer(std::shared_ptr<Listener> listener);

  std::shared_ptr<Listener> listener_;
};

}  // namespace weir
