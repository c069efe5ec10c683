// SPDX-License-Identifier: Apache-2.0
// weir's command line and settings file (Boost.Program_options).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>

#include "dataplane/io/port_side.h"

namespace weir {

// What clients see once weir has stopped: nothing, or their packets are the kernel's.
enum class OnExit { silent, release };

struct Options {
  std::vector<std::string> ports;
  // Of these, those that only clients, or only real servers, are behind.
  std::vector<std::string> client_side;
  std::vector<std::string> server_side;
  PortSide side_of(const std::string& port) const;
  unsigned workers = 1;
  std::string lcores;
  std::uint32_t connections_per_worker = 1'000'000;
  std::uint32_t ipv6_connections_per_worker = 0;  // parse_options() chooses where nobody has
  std::uint16_t mtu = 1500;                       // of ports that are DPDK's own
  bool busy_poll = false;
  OnExit on_exit = OnExit::silent;
  bool normal_pages = false;  // packet buffers use no huge pages
  std::string socket = "/run/weir/weir.sock";
  std::vector<std::string> eal;
  // Of the settings file's section [settings], in its order; weir checks them at its start.
  std::vector<std::pair<std::string, std::string>> changed_settings;
};

// What a port of the command line names.
enum class PortKind { kernel_interface, pci_address, vdev };
PortKind port_kind(const std::string& port);

// The options, or nothing when --help or --version was asked for and printed. An error is one
// sentence that says what to do.
absl::StatusOr<std::optional<Options>> parse_options(int argc, const char* const* argv);

}  // namespace weir
