// SPDX-License-Identifier: Apache-2.0
// The life of a burst, from received frames to a decision for each. No NIC, no DPDK.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/connection_table.h"
#include "dataplane/icmp_error.h"
#include "dataplane/owner.h"
#include "dataplane/packet.h"
#include "dataplane/snapshot.h"
#include "dataplane/statistics.h"

namespace weir {

// What one worker owns. Made by control before the worker starts, then the worker's alone, but for
// the statistics and the tables' read() side.
struct WorkerState {
  unsigned index = 0;
  unsigned workers = 1;
  const OwnerMap* owners = nullptr;  // of all workers alike
  ConnectionTable<Ipv4Address> ipv4;
  ConnectionTable<Ipv6Address> ipv6;
  // Of every worker, by index: a scheduler weighs the sum.
  std::span<WorkerStatistics* const> statistics;
  std::uint32_t now = 0;  // ticks, set once per burst
  IcmpBudget icmp_budget;
  std::uint16_t next_ip_id = 1;
  // A connection was closed in this burst, so that indices found before may be stale.
  bool closed_in_burst = false;

  WorkerStatistics& own() noexcept { return *statistics[index]; }
};

inline constexpr std::size_t kMaxBurst = 32;

// Decides every packet of the burst (at most kMaxBurst) and rewrites those that are forwarded.
// Afterwards: nat_to_server .. icmp_error_sent are ready for `packet.port`; waiting_for_neighbour
// lacks only its Ethernet header; handed_to_owner goes to `packet.owner`, unchanged; kernel_* go to
// the kernel, unchanged; drop_* are the caller's to free. Counts each outcome. Worker thread.
void process_burst(WorkerState& worker, const Snapshot& snapshot, std::span<Packet> burst) noexcept;

// Closes connections whose time has come, at most `budget` steps. Worker thread.
void expire_connections(WorkerState& worker, unsigned budget) noexcept;

// Replays the edits of services that changed since the worker's last snapshot. Worker thread, when
// it first sees `snapshot`.
void adopt_snapshot(WorkerState& worker, const Snapshot& snapshot) noexcept;

// Completes a packet that waited for its next hop, if that is resolved by now.
[[nodiscard]] bool retry_next_hop(const Snapshot& snapshot, Packet& packet) noexcept;

constexpr bool is_forwarded(Outcome outcome) noexcept {
  return outcome >= Outcome::nat_to_server && outcome <= Outcome::icmp_error_sent;
}
constexpr bool is_for_kernel(Outcome outcome) noexcept {
  return outcome >= Outcome::kernel_not_ip && outcome <= Outcome::kernel_icmp;
}

}  // namespace weir
