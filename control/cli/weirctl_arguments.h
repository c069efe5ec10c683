// SPDX-License-Identifier: Apache-2.0
// What weirctl's own commands take, as values. InvalidArgument: a sentence that says what is wrong
// with the command line. Pure functions: any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <absl/status/statusor.h>

#include "control/model/listings.h"

namespace weir {

using Words = std::span<const std::string>;

// "tcp 10.9.0.1:80", "udp [2001:db8::1]:53", "fwmark 7 ipv6". An address without a port: port 0.
std::string service_text(const ServiceKey& key);

// ADDRESS | FIRST-LAST | PREFIX, then maybe a service.
struct LocalAddressCommand {
  AddressRange range;
  std::optional<ServiceKey> service;
};
absl::StatusOr<LocalAddressCommand> parse_local_address(Words words);

// A service, the name of an option, its value.
struct ServiceOptionCommand {
  ServiceKey service;
  ServiceOption option;
};
absl::StatusOr<ServiceOptionCommand> parse_service_option(Words words);

// [at N] [from PREFIX] [to PREFIX] [protocol P] [source-port A-B] [port A-B] [on PORT] mark N
struct MarkRuleCommand {
  MarkRuleSpec rule;
  std::optional<std::uint32_t> at;
};
absl::StatusOr<MarkRuleCommand> parse_mark_rule(Words words);
// The words after `at N`.
std::string mark_rule_text(const MarkRuleSpec& rule);

}  // namespace weir
