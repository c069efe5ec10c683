// SPDX-License-Identifier: Apache-2.0
// The daemon.
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "control/director.h"
#include "control/loop/log.h"
#include "control/loop/log_writer.h"
#include "control/loop/process_helper.h"
#include "control/options.h"

namespace {

int fail(const absl::Status& status) {
  weir::log_line(std::string(status.message()), weir::Severity::error);
  return EXIT_FAILURE;
}

int run(weir::Options options, weir::ProcessHelper helper) {
  weir::Director director(std::move(options), std::move(helper));
  if (const absl::Status status = director.start(); !status.ok()) return fail(status);
  director.run();
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  auto options = weir::parse_options(argc, argv);
  if (!options.ok()) return fail(options.status());
  if (!options->has_value()) return EXIT_SUCCESS;
  // Before there are other threads.
  weir::ProcessHelper helper;
  const weir::LogWriter log(STDERR_FILENO);
  return run(std::move(**options), std::move(helper));
}
