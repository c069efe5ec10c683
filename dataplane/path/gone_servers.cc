// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/gone_servers.h"

#include "dataplane/net/wire_headers.h"
#include "dataplane/path/admission.h"
#include "dataplane/path/persistence.h"
#include "dataplane/path/reset.h"
#include "dataplane/path/router.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {
namespace {

constexpr std::uint32_t kPlacesPerCall = 64;
// A million connections a second: what they answer has to be served, too.
constexpr std::uint32_t kPlacesPerTick = 16384;
constexpr std::size_t kMostProbes = 2;  // of one connection

template <class Address>
FlowKey<Address> inbound_key(const Connection<Address>& connection) noexcept {
  return {connection.client,       connection.virtual_address, connection.client_port,
          connection.virtual_port, connection.protocol,        Direction::inbound};
}

// The packet becomes what asks the sender of packets with this key.
template <class Address>
void probe(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
           const FlowKey<Address>& key) noexcept {
  packet.forget();
  packet.family = sizeof(Address) == sizeof(Ipv4Address) ? Family::ipv4 : Family::ipv6;
  packet.ip = packet.frame + sizeof(EthernetHeader);
  packet.key<Address>() = key;
  packet.outcome = Outcome::drop_no_route;
  if (route(snapshot, packet, key.source)) {
    become_probe(packet);
    packet.outcome = Outcome::probe_sent;
    address_frame(snapshot, packet);
  }
  worker.own().outcomes[static_cast<std::size_t>(packet.outcome)].add(1);
}

// dr and tun do not see what the server says, and a server of the other family answers elsewhere.
template <class Address>
bool hears_server(const Connection<Address>& connection) noexcept {
  const ForwardMode mode = connection.mode();
  return (mode == ForwardMode::nat || mode == ForwardMode::fullnat) && !connection.has(kTranslated);
}

// A template is of no use without its real server, which may come back for a moment yet.
template <class Address>
void hasten(WorkerState& worker, std::uint32_t index) noexcept {
  auto& table = worker.table<Address>();
  const std::uint32_t left = table[index].deadline - worker.now;
  if (static_cast<std::int32_t>(left) <= static_cast<std::int32_t>(kControllingTicks)) return;
  table.set_deadline(index, worker.now + kControllingTicks);
}

// How many of `blank` it takes.
template <class Address>
std::size_t look_at(WorkerState& worker, const Snapshot& snapshot, std::uint32_t index,
                    std::span<Packet> blank) noexcept {
  auto& table = worker.table<Address>();
  Connection<Address>& connection = table[index];
  if (!connection.has(kInUse) || connection.has(kCompanion)) return 0;
  const RealServer* server = snapshot.servers[connection.server_slot];
  if (server != nullptr && server->available) return 0;
  if (connection.has(kTemplate)) {
    hasten<Address>(worker, index);
    return 0;
  }
  if (ends_with_server(snapshot, connection)) {
    close_connection<Address>(worker, snapshot, index);
    return 0;
  }
  const bool resets = snapshot.services[connection.service_slot]->gone_server == GoneServer::reset;
  if (!resets) return 0;
  set_field(connection.flags, static_cast<std::uint16_t>(connection.flags | kReset));
  if (connection.protocol != Protocol::tcp) return 0;
  probe(worker, snapshot, blank[0], inbound_key(connection));
  if (!hears_server(connection)) return 1;
  probe(worker, snapshot, blank[1], ConnectionTable<Address>::reply_key(connection));
  return kMostProbes;
}

// Until the piece is done or `blank` used up; how many of them are.
template <class Address>
std::size_t walk(WorkerState& worker, const Snapshot& snapshot, GoneServerWalk::Round& round,
                 std::span<Packet> blank) noexcept {
  std::size_t used = 0;
  GoneServerWalk& all = worker.gone_servers;
  for (std::uint32_t i = 0; i < kPlacesPerCall && round.left != 0; ++i) {
    if (blank.size() - used < kMostProbes || all.looked_at == kPlacesPerTick) break;
    if (round.next >= worker.table<Address>().high_water()) round.next = 0;
    used += look_at<Address>(worker, snapshot, round.next++, blank.subspan(used));
    --round.left;
    ++all.looked_at;
  }
  return used;
}

}  // namespace

template <class Address>
bool ends_with_server(const Snapshot& snapshot, const Connection<Address>& connection) noexcept {
  switch (snapshot.services[connection.service_slot]->gone_server) {
    case GoneServer::drop:
      return snapshot.settings->expire_nodest_conn;
    case GoneServer::reset:
      return connection.protocol == Protocol::udp;
    case GoneServer::keep:
      return false;
  }
  return false;
}

void begin_gone_server_walk(WorkerState& worker, const Snapshot& snapshot) noexcept {
  GoneServerWalk& walk = worker.gone_servers;
  if (walk.departure == snapshot.last_departure) return;
  walk.departure = snapshot.last_departure;
  walk.ipv4.left = worker.ipv4.high_water();
  walk.ipv6.left = worker.ipv6.high_water();
}

std::size_t walk_gone_servers(WorkerState& worker, const Snapshot& snapshot,
                              std::span<Packet> blank) noexcept {
  GoneServerWalk& all = worker.gone_servers;
  if (all.tick != worker.now) {
    all.tick = worker.now;
    all.looked_at = 0;
  }
  std::size_t used = walk<Ipv4Address>(worker, snapshot, all.ipv4, blank);
  used += walk<Ipv6Address>(worker, snapshot, all.ipv6, blank.subspan(used));
  return used;
}

template bool ends_with_server<Ipv4Address>(const Snapshot&,
                                            const Connection<Ipv4Address>&) noexcept;
template bool ends_with_server<Ipv6Address>(const Snapshot&,
                                            const Connection<Ipv6Address>&) noexcept;

}  // namespace weir
