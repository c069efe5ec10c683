// SPDX-License-Identifier: Apache-2.0
// How urgent it is that a packet reaches the host's kernel: a flood of one class must not keep
// those before it away.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/path/packet.h"
#include "dataplane/table/service_index.h"

namespace weir {

enum class Urgency : std::uint8_t {
  link,   // what keeps links and routes alive: ARP, ND, link-local multicast, VRRP, OSPF, BFD, BGP
  host,   // the host's own traffic
  stray,  // to a service, or from a real server, but of no connection
};
inline constexpr std::size_t kUrgencies = 3;

// Of a packet with a kernel_* outcome. Worker thread.
Urgency urgency_of(const Packet& packet, const ServiceIndex& index) noexcept;

// What a packet of the class is, once there is no room for it.
constexpr Outcome lost(Urgency urgency) noexcept {
  constexpr Outcome kReasons[kUrgencies] = {
      Outcome::drop_link_ring_full, Outcome::drop_exception_ring_full, Outcome::drop_stray_budget};
  return kReasons[static_cast<std::size_t>(urgency)];
}

}  // namespace weir
