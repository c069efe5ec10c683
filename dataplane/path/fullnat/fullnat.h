// SPDX-License-Identifier: Apache-2.0
// Fullnat: both addresses are rewritten, to and from an end of the director's own, perhaps to the
// other family (NAT64), and the real server may be told who the client is. Worker thread.
#pragma once

#include <cstdint>

#include "dataplane/path/fullnat/client_address.h"
#include "dataplane/path/packet.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// A packet of packet.connection from its client; its next hop is known.
template <class Address>
void forward_by_fullnat(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// A reply that may be forwarded.
template <class Address>
void rewrite_to_fullnat_client(WorkerState& worker, const Snapshot& snapshot,
                               Packet& packet) noexcept;

// A reply of Address's family for the connection `index` of the other one (NAT64).
template <class Address>
void forward_translated(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                        std::uint32_t index) noexcept;

// Bytes that a UDP datagram to the real server grows by. A TCP segment that does not fit loses its
// end instead.
template <class Address>
inline int proxy_overhead(const Connection<Address>& connection) noexcept {
  if (!connection.has(kProxied)) return 0;
  return proxy_header_bytes(sizeof(Address) == sizeof(Ipv4Address) ? Family::ipv4 : Family::ipv6);
}

}  // namespace weir
