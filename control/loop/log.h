// SPDX-License-Identifier: Apache-2.0
// Lines for the operator, on standard error. Control thread.
#pragma once

#include <cstdio>
#include <string>

namespace weir {

inline void log_line(const std::string& text) { std::fprintf(stderr, "weir: %s\n", text.c_str()); }

}  // namespace weir
