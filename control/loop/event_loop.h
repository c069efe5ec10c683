// SPDX-License-Identifier: Apache-2.0
// The control thread's loop: an io_context that measures how long each of its handlers takes.
// Whoever waits on it ends before it. Thread: the one that runs it.
#pragma once

#include <boost/asio/io_context.hpp>

#include "control/loop/job_histogram.h"

namespace weir {

class EventLoop {
 public:
  boost::asio::io_context& io() noexcept { return io_; }
  // Until stop(), or until nothing is left to wait for.
  void run();
  void stop() { io_.stop(); }
  // Runs what is ready now.
  void poll();
  const JobHistogram& jobs() const noexcept { return jobs_; }

 private:
  void measure();

  boost::asio::io_context io_{1};
  JobHistogram jobs_;
};

}  // namespace weir
