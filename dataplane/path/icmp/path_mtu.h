// SPDX-License-Identifier: Apache-2.0
// The path MTU of tunnels, kept for each real server, because a router's error may quote no more
// than eight bytes of the tunnel's header. Source: ip_vs_tunnel_xmit_prepare, ipv4_update_pmtu of
// Linux. Worker thread.
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

// What a router says about the size of a tunnel's packets, if the ICMP error `packet` is that.
void learn_path_mtu(WorkerState& worker, const Snapshot& snapshot, const Packet& packet) noexcept;

}  // namespace weir
