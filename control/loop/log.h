// SPDX-License-Identifier: Apache-2.0
// Lines for the operator, on standard error. Any thread but the workers'.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace weir {

// syslog's levels. Where journald reads standard error, each line says its own.
enum class Severity : std::uint8_t {
  emergency,
  alert,
  critical,
  error,
  warning,
  notice,
  info,
  debug
};

// Through the process's LogWriter, if there is one, and then without ever waiting.
void log_line(std::string_view text, Severity severity = Severity::notice);

}  // namespace weir
