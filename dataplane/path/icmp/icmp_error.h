// SPDX-License-Identifier: Apache-2.0
// ICMP errors that weir originates itself (RFC 792, RFC 1812 section 4.3.2, RFC 4443).
#pragma once

#include <cstdint>

#include "dataplane/path/packet.h"

namespace weir {

enum class IcmpError : std::uint8_t {
  time_exceeded,             // its hops are used up
  reassembly_time_exceeded,  // fragments are missing
  port_unreachable,
  no_route,
  too_big,
};

// Turns a packet into the error about itself, from `source` back to the packet's source, quoting up
// to 548 bytes (IPv4) or what fits 1280 bytes (IPv6), as Linux does. `mtu` counts for too_big only.
// False, and the packet unchanged: no headroom, or its source must not be answered. Worker thread.
[[nodiscard]] bool become_icmp_error(Packet& packet, IcmpError error, const IpAddress& source,
                                     std::uint16_t mtu, std::uint16_t id) noexcept;

// The same with an ICMP header of the packet's family, without its checksum.
[[nodiscard]] bool become_icmp_error(Packet& packet, const IcmpHeader& icmp,
                                     const IpAddress& source, std::uint16_t id) noexcept;

// Limits the errors that one worker sends: a bucket of `kBurst`, refilled `kPerSecond` times.
class IcmpBudget {
 public:
  // `now` in ticks of the workers' clock.
  bool take(std::uint32_t now) noexcept;

 private:
  static constexpr std::uint32_t kPerSecond = 1000;
  static constexpr std::uint32_t kBurst = 200;

  std::uint32_t tokens_ = kBurst;
  std::uint32_t refilled_ = 0;
};

}  // namespace weir
