// SPDX-License-Identifier: Apache-2.0
// What weir and its process helper say to each other, a datagram each. Both ends are one program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

inline constexpr std::size_t kLongestMessage = 128 * 1024;

enum class HelperVerb : std::uint32_t { start, end };

struct HelperRequest {
  HelperVerb verb = HelperVerb::start;
  std::uint64_t id = 0;
  std::uint32_t timeout_ms = 0;
  std::uint32_t output_limit = 0;
  std::vector<std::string> arguments;    // the program first
  std::vector<std::string> environment;  // NAME=VALUE, beside weir's own
};

enum class ProcessEnd : std::uint32_t { exited, killed, timed_out, not_started };

struct HelperReport {
  std::uint64_t id = 0;
  ProcessEnd end = ProcessEnd::exited;
  std::int32_t code = 0;       // exit code, number of the signal, or errno
  std::uint32_t is_whole = 1;  // 0: there was more output
  std::string output;
};

std::string encode(const HelperRequest& request);
std::string encode(const HelperReport& report);
// Nothing: the message is not one.
std::optional<HelperRequest> decode_request(std::string_view message);
std::optional<HelperReport> decode_report(std::string_view message);

}  // namespace weir
