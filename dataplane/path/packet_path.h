// SPDX-License-Identifier: Apache-2.0
// The life of a burst, from received frames to a decision for each. No NIC, no DPDK.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/path/packet.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// Decides every packet of the burst (at most kMaxBurst) and rewrites those that are forwarded.
// Afterwards: nat_to_server .. icmp_error_sent are ready for `packet.port`; waiting_for_neighbour
// lacks only its Ethernet header; handed_to_owner goes to `packet.owner`, unchanged; kernel_* go to
// the kernel, unchanged; drop_* and fragment_kept are the caller's to free. A fragment that was the
// last missing one is the whole datagram now, in another buffer. Counts each outcome. Worker
// thread. Packets that other workers handed over are for when worker.notices.has_room_for_burst().
void process_burst(WorkerState& worker, const Snapshot& snapshot, std::span<Packet> burst) noexcept;

// Closes connections whose time has come, at most `budget` steps. Worker thread.
void expire_connections(WorkerState& worker, const Snapshot& snapshot, unsigned budget) noexcept;

// Gives up datagrams whose fragments do not come, at most as many as `expired` has new packets; how
// many. Each is decided as process_burst() does: icmp_error_sent, waiting_for_neighbour, or
// drop_fragment_timeout, the caller's to free. Counts them. Worker thread.
std::size_t expire_fragments(WorkerState& worker, const Snapshot& snapshot,
                             std::span<Packet> expired) noexcept;

// Begins what a new version asks for: the edits of services (replay_some_edits), and to look
// through the connections of real servers that have gone. Worker thread, when it first sees
// `snapshot`.
void adopt_snapshot(WorkerState& worker, const Snapshot& snapshot) noexcept;

// Replays at most so many edits, or looks at so many services: while `worker.edits.left` is not 0.
// A service that is asked for a real server before that has its own replayed then. Worker thread.
inline constexpr unsigned kReplayBudget = 16;
void replay_some_edits(WorkerState& worker, const Snapshot& snapshot) noexcept;

constexpr bool is_forwarded(Outcome outcome) noexcept {
  return outcome >= Outcome::nat_to_server && outcome <= Outcome::icmp_error_sent;
}
constexpr bool is_for_kernel(Outcome outcome) noexcept {
  return outcome >= Outcome::kernel_not_ip && outcome <= Outcome::kernel_icmp_short_quote;
}
constexpr bool is_dropped(Outcome outcome) noexcept {
  return outcome >= Outcome::drop_truncated && outcome < Outcome::count_;
}

}  // namespace weir
