// SPDX-License-Identifier: Apache-2.0
// The connections of real servers that have gone, looked through after each departure, so that they
// need not wait for a packet of their own:
//
// | service's policy | setting               | what becomes of them                               |
// |------------------|-----------------------|----------------------------------------------------|
// | drop             | expire_nodest_conn    | closed (ip_vs_expire_nodest_conn_flush)            |
// | drop             |                       | dropped in silence until their time is over (IPVS) |
// | keep             |                       | served                                             |
// | reset            |                       | TCP: probed, and reset when the end answers; SCTP: |
// |                  |                       | reset at its next packet; UDP: closed              |
//
// A probe is an ACK that no window holds; the end says what it expects (RFC 9293 section 3.10.7.4),
// and so which reset it believes. Nothing of that has to be kept in connections.
// Source: __ip_vs_del_dest (ip_vs_ctl.c), ip_vs_expire_nodest_conn_flush (ip_vs_conn.c).
// Errors: none. Thread: worker.
#pragma once

#include <cstdint>
#include <span>

#include "dataplane/packet.h"

namespace weir {

struct Snapshot;
struct WorkerState;

// Over the tables of one worker.
struct GoneServerWalk {
  std::uint64_t departure = 0;  // Snapshot::last_departure that it is about
  std::uint32_t next_ipv4 = 0;  // index of the connection to look at
  std::uint32_t end_ipv4 = 0;
  std::uint32_t next_ipv6 = 0;
  std::uint32_t end_ipv6 = 0;
  std::uint32_t tick = 0;
  std::uint32_t looked_at = 0;  // in this tick

  bool is_under_way() const noexcept { return next_ipv4 != end_ipv4 || next_ipv6 != end_ipv6; }
};

// Bytes that a probe needs behind Packet::frame.
inline constexpr std::size_t kProbeBytes = 14 + 40 + 20;

// Whether a connection is to end because its real server has gone.
template <class Address>
bool ends_with_server(const Snapshot& snapshot, const Connection<Address>& connection) noexcept;

// Begins anew, if a real server has gone since the last walk.
void begin_gone_server_walk(WorkerState& worker, const Snapshot& snapshot) noexcept;

// Walks on, a bounded piece. Makes probes of the first packets of `blank`, whose `frame` has room
// for kProbeBytes; how many: they are decided as process_burst decides.
std::size_t walk_gone_servers(WorkerState& worker, const Snapshot& snapshot,
                              std::span<Packet> blank) noexcept;

}  // namespace weir
