// SPDX-License-Identifier: Apache-2.0
// An ICMP error about a packet that weir has put into a tunnel is, to the client, an error about
// its own packet: it is told so by the VIP, as far as the router has quoted the tunnelled packet.
//
//   router -> director [ director -> server | tunnel | client -> VIP ]   as it came
//   VIP -> client [ client -> VIP ]                                      what the client gets
//
// Two steps, because the tunnelled packet's connection, which vouches for the error, is looked up
// in between. The client is told of IPv4 in IPv4 and IPv6 in IPv6: errors of one family mean little
// in the other. Sizes are learnt from any (path_mtu.h).
// Source: ip_vs_in_icmp (ip_vs_core.c), which does IPv4 in IPv4. Worker thread.
#pragma once

#include <cstdint>

#include "dataplane/path/packet.h"

namespace weir {

// `packet` has `icmp_error`. True: it stands for the tunnelled packet now. Its family, ip,
// ip_length, transport, hops_left, dont_fragment and key (client to VIP, not turned round) are that
// packet's, the outcome is undecided, and `quote` still is the tunnel's IP header. The frame is
// unchanged.
// False, and nothing changed: not a tunnel's, or not quoted up to the ports.
bool unwrap_tunnel_error(Packet& packet) noexcept;

// Whether unwrap_tunnel_error() has been at work.
inline bool is_unwrapped(const Packet& packet) noexcept {
  return packet.icmp_error && packet.quote < packet.ip;
}

// An unwrapped error becomes the one from the VIP (key's destination) to the client. `overhead` is
// what the tunnel adds to a packet: a reported MTU is lowered by it. False, and the packet
// unchanged: no headroom, a tunnel of another family, or nothing to tell (a packet that may be
// fragmented is too big; a parameter problem, which would be the tunnel header's).
[[nodiscard]] bool become_error_of_tunnelled(Packet& packet, std::uint16_t overhead,
                                             std::uint16_t id) noexcept;

}  // namespace weir
