// SPDX-License-Identifier: Apache-2.0
// ipvsadm 1.31's command line: the same options, in the same order of checks, with the same error
// texts and exit codes, down to the ways of popt, which reads its options.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>

#include "control/cli/name_lookup.h"
#include "control/model/listings.h"

namespace weir {

enum class IpvsadmCommand : std::uint8_t {
  add_service,
  edit_service,
  delete_service,
  clear,
  add_server,
  edit_server,
  delete_server,
  list,
  zero,
  save,
  restore,
  set_timeouts,
  start_daemon,
  stop_daemon,
  help,
  version,
};

// What `-L` lists.
enum class IpvsadmList : std::uint8_t { services, connections, timeouts, daemons };
// The columns of a listing of services.
enum class IpvsadmColumns : std::uint8_t {
  connection_counts,
  statistics,
  rates,
  thresholds,
  persistent_connections,
  tunnels,
};
enum class NumberStyle : std::uint8_t { short_units, exact };
enum class NameStyle : std::uint8_t { names, numeric };
enum class ListOrder : std::uint8_t { sorted, as_kept };

struct IpvsadmRequest {
  IpvsadmCommand command = IpvsadmCommand::list;
  // The service that the command is about; without one, `list` and `zero` mean all.
  std::optional<ServiceSpec> service;
  ServerSpec server;
  IpvsTimeouts timeouts;
  SyncDaemonSpec daemon;
  IpvsadmList list = IpvsadmList::services;
  IpvsadmColumns columns = IpvsadmColumns::connection_counts;
  NumberStyle numbers = NumberStyle::short_units;
  NameStyle names = NameStyle::names;
  ListOrder order = ListOrder::sorted;
};

struct IpvsadmUsageError {
  std::string message;  // without the last newline
  int exit_code = 2;
  // Whether `ipvsadm -R` ends at a line with this error; it goes on after those that popt finds.
  enum class Severity : std::uint8_t { ends_restore, skips_line } severity = Severity::ends_restore;
};

// Where the command line does not begin with a command.
IpvsadmUsageError ipvsadm_try_help();

// `arguments` does not hold the program's name. Host and port names are looked up in `names`.
std::variant<IpvsadmRequest, IpvsadmUsageError> parse_ipvsadm_arguments(
    std::span<const std::string> arguments, NameLookup& names);

}  // namespace weir
