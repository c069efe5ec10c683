// SPDX-License-Identifier: Apache-2.0
// The daemon.
#include <cstdlib>

#include "control/director.h"
#include "control/loop/log.h"
#include "control/options.h"

int main(int argc, char** argv) {
  auto options = weir::parse_options(argc, argv);
  if (!options.ok()) {
    weir::log_line(std::string(options.status().message()));
    return EXIT_FAILURE;
  }
  if (!options->has_value()) return EXIT_SUCCESS;
  weir::Director director(std::move(**options));
  if (const absl::Status status = director.start(); !status.ok()) {
    weir::log_line(std::string(status.message()));
    return EXIT_FAILURE;
  }
  director.run();
  return EXIT_SUCCESS;
}
