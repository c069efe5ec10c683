// SPDX-License-Identifier: Apache-2.0
// Services and real servers as the workers see them: immutable, replaced whole by control.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/routes.h"
#include "dataplane/statistics.h"
#include "schedulers/scheduler.h"

namespace weir {

// IPVS: masquerading, direct routing, tunnelling; local is a real server on the director itself.
enum class ForwardMode : std::uint8_t { nat, dr, tun, fullnat, local };

// What names a service. A fwmark service has protocol ip, port 0 and the unspecified address of
// its family.
struct ServiceKey {
  Protocol protocol = Protocol::tcp;
  IpAddress address;
  std::uint16_t port = 0;  // host order
  std::uint32_t fwmark = 0;
  friend auto operator<=>(const ServiceKey&, const ServiceKey&) noexcept = default;
};

struct RealServer {
  IpAddress address;
  Be16 port;
  ForwardMode mode = ForwardMode::nat;
  bool available = true;  // false: removed, but connections still refer to its slot
  std::int32_t weight = 1;
  ServerSlot slot = 0;
  std::uint32_t generation = 0;  // of the slot
  // The way to it through weir's interfaces, if there is one; its next hop, if that has a place in
  // the Routes of the same Snapshot yet.
  bool reachable = false;
  bool next_hop_known = false;
  std::uint16_t interface = 0;
  NextHopIndex next_hop = 0;
  // Source address of a tunnel's outer header.
  IpAddress tunnel_source;

  friend bool operator==(const RealServer&, const RealServer&) noexcept = default;
};

using ServiceSlot = std::uint32_t;

// The scheduler of one service on one worker. Written by: that worker, once published. Control
// reads `edits_applied`, to keep the edits that some worker has yet to replay.
struct alignas(64) WorkerScheduler {
  std::unique_ptr<Scheduler> scheduler;
  Counter<std::uint64_t> edits_applied;
};

// By worker; survives the service's versions.
using SchedulerSet = std::vector<WorkerScheduler>;

struct Service {
  ServiceKey key;
  ServiceSlot slot = 0;
  std::uint32_t generation = 0;       // of the slot
  bool removed = false;               // kept only for the connections that refer to it
  std::vector<Candidate> candidates;  // newest first, as IPVS lists them

  std::shared_ptr<SchedulerSet> schedulers;
  // The edits from number `first_edit` on; a worker replays those that it has not seen.
  std::uint64_t first_edit = 0;
  std::vector<Edit> edits;

  std::uint64_t end_of_edits() const noexcept { return first_edit + edits.size(); }
};

}  // namespace weir
