// SPDX-License-Identifier: Apache-2.0
// The path MTU of tunnels, kept for each real server and learnt from routers' errors: only of the
// connection that the quoted packet is of, so that nobody who does not know one can make a tunnel
// narrow, and never below what every link takes (1280 bytes of IPv6, 576 of IPv4).
// Source: ip_vs_in_icmp, ip_vs_tunnel_xmit_prepare, ipv4_update_pmtu of Linux. Worker thread.
#pragma once

#include <cstdint>

#include "dataplane/path/packet.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// Bytes of the outer packet that the path to the real server `slot` takes; `packet` has its next
// hop.
std::uint16_t tunnel_mtu(const WorkerState& worker, const Snapshot& snapshot, const Packet& packet,
                         ServerSlot slot) noexcept;

// What a router says about the size of the packets in `server`'s tunnel, if the unwrapped error
// `packet` (tunnel_error.h) is that; it is about a connection to `server`.
void learn_path_mtu(const WorkerState& worker, const Snapshot& snapshot, const Packet& packet,
                    const RealServer& server) noexcept;

// Whether the ICMP error `packet` is about the size of what may be a tunnel's packet, but quotes
// too little of it to tell the connection.
bool lacks_tunnelled_packet(const Packet& packet) noexcept;

}  // namespace weir
