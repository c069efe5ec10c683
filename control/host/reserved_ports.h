// SPDX-License-Identifier: Apache-2.0
// Keeps the ports of fullnat's local addresses from the kernel's own sockets.
//
// A conflict needs a connection of the host itself (a health check) from a local address of a pool,
// by a port of the pool, to a real server of a fullnat service: its replies would be taken for a
// service's. Connections from any other address, or to anywhere else, are never touched. So, the
// rule:
//   1. Nothing is reserved unless the kernel would choose an address of a pool as its source
//      towards a real server of a fullnat service (kernel_sends_from). As a rule it does not where
//      the address is secondary, deprecated, or on lo or a dummy interface.
//   2. Where it would: the pools' ports are added to net.ipv4.ip_local_reserved_ports (which both
//      families heed, when the kernel chooses a port and not when a program asks for one).
//   3. Where that leaves the kernel fewer than kKernelPorts of its ip_local_port_range, the range
//      is widened upwards or downwards to where the pools leave ports free. The kernel's
//      connections that exist keep theirs.
//   4. Where there are not so many free ports, it is refused with a sentence. Pools of ports
//      1024-63487 leave the kernel 2,048 and have 62,464 themselves.
//
// Both settings belong to the network namespace of the calling thread. What the user has reserved
// stays; restore() takes away only what was added. A file remembers it, so that a weir that was
// killed does not leave its ports reserved for good.
// Thread: the control thread; a call of reserve() or restore() reads and writes a few files.
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "dataplane/net/addresses.h"

namespace weir {

using PortSet = std::bitset<65536>;

// "1024-2047,8080" as the kernel writes it; an empty set is an empty text.
absl::StatusOr<PortSet> parse_port_set(std::string_view text);
std::string to_string(const PortSet& ports);

// The ports that the kernel chooses from (ip_local_port_range), both included.
struct PortRange {
  std::uint16_t first = 32768;
  std::uint16_t last = 60999;
  friend bool operator==(const PortRange&, const PortRange&) noexcept = default;
};

inline constexpr std::size_t kKernelPorts = 2048;

// The kernel's range once `reserved` are reserved: `range` itself if that leaves it kKernelPorts,
// else the narrowest one that holds it and does.
absl::StatusOr<PortRange> widen_for_kernel(const PortRange& range, const PortSet& reserved);

// Whether the kernel, left to itself, would send from one of the addresses to one of the servers.
// Sends nothing; some microseconds for each server.
bool kernel_sends_from(std::span<const IpAddress> addresses, std::span<const IpAddress> servers);

// The same, kept up to date for many servers: each is asked about once, and again when the host's
// routes or the addresses change. Thread: the control thread.
class KernelSources {
 public:
  void add(const IpAddress& server);
  void remove(const IpAddress& server);
  void set_addresses(std::vector<IpAddress> addresses);
  void ask_again();

  // Asks about a few. False: all have been asked.
  bool step();
  // Of those asked so far, whether the kernel would send to any from one of the addresses.
  bool any() const { return conflicts_ != 0; }

 private:
  std::vector<IpAddress> addresses_;
  std::map<IpAddress, bool> servers_;
  std::vector<IpAddress> unasked_;
  std::size_t conflicts_ = 0;
};

class ReservedPorts {
 public:
  // `memory` is a file that outlives the process but not the host (/run/...). What a weir that was
  // killed in this namespace left is taken over.
  explicit ReservedPorts(std::string memory);

  // Exactly `ports` are added to what the user has reserved, in place of what was added before.
  // On an error the settings are as they were.
  absl::Status reserve(const PortSet& ports);
  // As if reserve() had never been called. For a clean stop.
  absl::Status restore();

  const PortSet& reserved() const noexcept { return added_; }

 private:
  absl::Status change(const PortSet& user, const PortSet& ports, const PortRange& range);
  void read_memory();
  absl::Status write_memory(const PortSet& added) const;

  std::string memory_;
  PortSet added_;
  // The range as the user had it and as it was set; equal while it has not been touched.
  PortRange former_range_;
  PortRange widened_range_;
};

}  // namespace weir
