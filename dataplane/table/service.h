// SPDX-License-Identifier: Apache-2.0
// Services and real servers as the workers see them: immutable, replaced whole by control.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/table/counter.h"
#include "dataplane/table/local_addresses.h"
#include "dataplane/table/routes.h"
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

// The tables of services have a fwmark in place of an address.
template <class Address>
Address address_of_mark(std::uint32_t fwmark) noexcept {
  std::array<Be32, sizeof(Address) / sizeof(Be32)> words{};
  words[0] = Be32::from_host(fwmark);
  return load<Address>(words.data());
}

// FTP's data connections belong to the service for its control port.
inline constexpr std::uint16_t kFtp = 21;
inline constexpr std::uint16_t kFtpData = 20;

// What a tunnel to a real server looks like (ipvsadm --tun-type, --tun-port, --tun-*csum).
enum class TunnelType : std::uint8_t { ipip, gue, gre };
enum class TunnelChecksum : std::uint8_t { none, checksum, remote };
struct Tunnel {
  TunnelType type = TunnelType::ipip;
  TunnelChecksum checksum = TunnelChecksum::none;
  Be16 port;  // GUE
  friend bool operator==(const Tunnel&, const Tunnel&) noexcept = default;
};

struct RealServer {
  IpAddress address;
  Be16 port;
  ForwardMode mode = ForwardMode::nat;
  bool translated = true;  // to be reached by nat or fullnat, also if `mode` is local
  Tunnel tunnel;
  // Connections, active and inactive, that close it to new ones, and that open it again; 0: none.
  std::uint32_t upper_threshold = 0;
  std::uint32_t lower_threshold = 0;
  bool available = true;  // false: removed, but connections still refer to its slot
  std::int32_t weight = 1;
  ServerSlot slot = 0;
  std::uint32_t generation = 0;  // of the slot
  std::uint32_t service = 0;     // ServiceSlot
  WayIndex way = 0;              // to it, in the Routes of the same Snapshot

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

class LocalPorts;

// How a fullnat real server learns who the client is.
enum class ClientAddress : std::uint8_t { hidden, toa, proxy };

// What happens to the connections of a real server that is gone, beside what IPVS's settings say:
// kept as if it were there, dropped silently (IPVS), or reset towards both ends.
enum class GoneServer : std::uint8_t { drop, keep, reset };

// Clients that count as one (ipvsadm -p, -M): bits of their address that matter.
struct Persistence {
  std::uint32_t timeout = 0;  // seconds, 0: not persistent
  std::array<std::uint8_t, 16> mask{};
};

struct Service {
  ServiceKey key;
  ServiceSlot slot = 0;
  std::uint32_t generation = 0;       // of the slot
  bool removed = false;               // kept only for the connections that refer to it
  std::vector<Candidate> candidates;  // newest first, as IPVS lists them
  bool one_packet = false;            // ipvsadm -o: UDP datagrams are scheduled one by one
  Persistence persistence;
  ClientAddress client_address = ClientAddress::hidden;
  GoneServer gone_server = GoneServer::drop;
  // Seconds without a packet that end an established connection; 0: the global one.
  std::uint32_t idle_timeout = 0;
  SchedulerOptions scheduler_options;
  std::shared_ptr<const LookupTable> table;  // of `candidates`; null where they need none
  // Fullnat: the director's own ends towards real servers. Of each family the service's own or,
  // where it has none, those for all services. Never null.
  std::shared_ptr<const LocalAddresses> local_addresses;
  // Their ports; each worker writes its own.
  std::shared_ptr<std::vector<LocalPorts>> local_ports;

  std::shared_ptr<SchedulerSet> schedulers;
  // The edits from number `first_edit` on; a worker replays those that it has not seen.
  std::uint64_t first_edit = 0;
  std::vector<Edit> edits;

  std::uint64_t end_of_edits() const noexcept { return first_edit + edits.size(); }
};

}  // namespace weir
