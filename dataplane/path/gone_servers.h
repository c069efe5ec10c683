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
// Their persistence templates last a minute more at most, or until their connections have ended.
// A probe is an ACK that no window holds; the end says what it expects (RFC 9293 section 3.10.7.4),
// and so which reset it believes. Nothing of that has to be kept in connections.
// Source: __ip_vs_del_dest (ip_vs_ctl.c), ip_vs_expire_nodest_conn_flush (ip_vs_conn.c).
// Errors: none. Thread: worker.
#pragma once

#include <cstdint>
#include <span>

#include "dataplane/path/packet.h"

namespace weir {

struct Snapshot;
struct WorkerState;

// Round the tables of one worker, once after each departure, from where it is: departures that
// follow each other keep it from no place.
struct GoneServerWalk {
  struct Round {
    std::uint32_t next = 0;  // index of the connection to look at
    std::uint32_t left = 0;  // places
  };
  std::uint64_t departure = 0;  // Snapshot::last_departure that it is about
  Round ipv4;
  Round ipv6;
  std::uint32_t tick = 0;
  std::uint32_t looked_at = 0;  // in this tick

  bool is_under_way() const noexcept { return ipv4.left != 0 || ipv6.left != 0; }
};

// Bytes that a probe needs behind Packet::frame.
inline constexpr std::size_t kProbeBytes = 14 + 40 + 20;

// Whether a connection is to end because its real server has gone.
template <class Address>
bool ends_with_server(const Snapshot& snapshot, const Connection<Address>& connection) noexcept;

// Another round, if a real server has gone since the last one began.
void begin_gone_server_walk(WorkerState& worker, const Snapshot& snapshot) noexcept;

// Walks on, a bounded piece. Makes probes of the first packets of `blank`, whose `frame` has room
// for kProbeBytes; how many: they are decided as process_burst decides.
std::size_t walk_gone_servers(WorkerState& worker, const Snapshot& snapshot,
                              std::span<Packet> blank) noexcept;

}  // namespace weir
