// SPDX-License-Identifier: Apache-2.0
// A pool of addresses that fullnat sends from, as configured; immutable, shared by all workers.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/net/addresses.h"

namespace weir {

// The ports above are left to the kernel's own sockets on such an address.
inline constexpr std::uint16_t kFirstLocalPort = 1024;
inline constexpr std::uint16_t kLastLocalPort = 63487;

struct LocalAddresses {
  std::vector<Ipv4Address> ipv4;
  std::vector<Ipv6Address> ipv6;
  // Ports of these addresses that connections may use, host order, both included.
  std::uint16_t first_port = kFirstLocalPort;
  std::uint16_t last_port = kLastLocalPort;
};

}  // namespace weir
