// SPDX-License-Identifier: Apache-2.0
// The daemon.
#include <linux/close_range.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "control/director.h"
#include "control/loop/log.h"
#include "control/loop/log_writer.h"
#include "control/loop/process_helper.h"
#include "control/options.h"

namespace weir {
namespace {

// DPDK cannot start a second time in one process. Returns only if that fails.
void start_anew_with_normal_pages(int argc, char** argv) {
  std::vector<char*> arguments(argv, argv + argc);
  std::string option = "--normal-pages";
  arguments.push_back(option.data());
  arguments.push_back(nullptr);
  // DPDK's threads use theirs to the end.
  syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
  execv("/proc/self/exe", arguments.data());
  log_line(std::string("cannot start anew: ") + std::strerror(errno) + "; start it with " + option,
           Severity::error);
}

absl::Status serve(Options options) {
  // Before there are other threads.
  ProcessHelper helper;
  const LogWriter log(STDERR_FILENO);
  Director director(std::move(options), std::move(helper));
  absl::Status status = director.start();
  if (status.ok()) director.run();
  return status;
}

int fail(const absl::Status& status) {
  log_line(std::string(status.message()), Severity::error);
  return EXIT_FAILURE;
}

int run(int argc, char** argv) {
  auto options = parse_options(argc, argv);
  if (!options.ok()) return fail(options.status());
  if (!options->has_value()) return EXIT_SUCCESS;
  const absl::Status status = serve(std::move(**options));
  if (status.ok()) return EXIT_SUCCESS;
  const int code = fail(status);
  if (absl::IsAborted(status)) start_anew_with_normal_pages(argc, argv);
  return code;
}

}  // namespace
}  // namespace weir

int main(int argc, char** argv) { return weir::run(argc, argv); }
