// SPDX-License-Identifier: Apache-2.0
// Every step works on the whole burst and looks only at packets that no earlier step has decided.
#include "dataplane/packet_path.h"

#include <array>

#include "dataplane/parse.h"
#include "dataplane/rewrite.h"

namespace weir {
namespace {

// ---- The two address families, told apart once per packet and step ----

template <class Address>
ConnectionTable<Address>& table_of(WorkerState& worker) noexcept {
  if constexpr (sizeof(Address) == 4) {
    return worker.ipv4;
  } else {
    return worker.ipv6;
  }
}

template <class Address>
Address address_of(const IpAddress& address) noexcept {
  if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
    return address.ipv4();
  } else {
    return address.ipv6();
  }
}

// The packets of one family that no step has decided yet.
template <class Address>
class Batch {
 public:
  void add(Packet& packet) noexcept { packets_[count_++] = &packet; }
  Packet** begin() noexcept { return packets_.data(); }
  Packet** end() noexcept { return packets_.data() + count_; }
  std::size_t size() const noexcept { return count_; }
  bool empty() const noexcept { return count_ == 0; }

  // Calls visit(packet) for each and forgets those that it decides.
  template <class Visit>
  void narrow(Visit&& visit) noexcept {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      visit(*packets_[i]);
      packets_[kept] = packets_[i];
      kept += packets_[i]->decided() ? 0U : 1U;
    }
    count_ = kept;
  }

 private:
  std::array<Packet*, kMaxBurst> packets_;
  std::size_t count_ = 0;
};

// ---- Parse ----

// Whether a fragment, which has no ports, may be of a connection; else it is the kernel's.
template <class Address>
bool may_be_served(const ServiceIndex& index, const FlowKey<Address>& key) noexcept {
  return (key.protocol == Protocol::tcp || key.protocol == Protocol::udp) && index.concerns(key);
}

void parse(const Snapshot& snapshot, std::span<Packet> burst, Batch<Ipv4Address>& ipv4,
           Batch<Ipv6Address>& ipv6) noexcept {
  for (const Packet& packet : burst) __builtin_prefetch(packet.frame);
  for (Packet& packet : burst) {
    parse_frame(packet, snapshot.ports->macs[packet.port]);
    if (packet.outcome == Outcome::drop_fragment) {
      const ServiceIndex& index = *snapshot.index;
      const bool ours = packet.family == Family::ipv4 ? may_be_served(index, packet.ipv4)
                                                      : may_be_served(index, packet.ipv6);
      if (!ours) packet.outcome = Outcome::kernel_not_a_service;
    } else if (packet.decided()) {
      continue;
    } else if (packet.family == Family::ipv4) {
      ipv4.add(packet);
    } else {
      ipv6.add(packet);
    }
  }
}

// ---- Classify: to a service, from a real server, or the kernel's ----

template <class Address>
void classify(const Snapshot& snapshot, Batch<Address>& batch) noexcept {
  const ServiceIndex& index = *snapshot.index;
  batch.narrow([&](Packet& packet) {
    auto& key = packet.key<Address>();
    packet.service = index.find_service(key);
    if (packet.service != ServiceIndex::kNoService) {
      key.direction = Direction::inbound;
    } else if (index.is_reply(key)) {
      key.direction = Direction::reply;
    } else {
      packet.outcome = Outcome::kernel_not_a_service;
    }
  });
}

// ---- Owner: the client's address and port decide which worker has the connection ----

template <class Address>
void find_owner(const WorkerState& worker, Batch<Address>& batch) noexcept {
  if (worker.workers == 1) return;
  batch.narrow([&](Packet& packet) {
    const auto& key = packet.key<Address>();
    const bool inbound = key.direction == Direction::inbound;
    const unsigned owner = inbound ? worker.owners->owner(key.source, key.source_port)
                                   : worker.owners->owner(key.destination, key.destination_port);
    if (owner == worker.index) return;
    packet.owner = static_cast<std::uint16_t>(owner);
    packet.outcome = Outcome::handed_to_owner;
  });
}

// ---- Look up connections ----

template <class Address>
void look_up(WorkerState& worker, Batch<Address>& batch) noexcept {
  std::array<const FlowKey<Address>*, kMaxBurst> keys;
  std::array<std::uint32_t, kMaxBurst> found;
  std::size_t count = 0;
  for (Packet* packet : batch) keys[count++] = &packet->key<Address>();
  table_of<Address>(worker).find({keys.data(), count}, {found.data(), count});
  count = 0;
  for (Packet* packet : batch) packet->connection = found[count++];
}

// ---- Closing, also used by expiry ----

constexpr std::uint32_t kMinusOne = 0xffffffffU;

template <class Address>
void close_connection(WorkerState& worker, std::uint32_t index) noexcept {
  auto& table = table_of<Address>(worker);
  ServerLoad& load = worker.own().loads[table[index].server_slot];
  if (!table[index].has(kInactive)) load.active.add(kMinusOne);
  load.connections.add(kMinusOne);
  table.close(index);
  worker.closed_in_burst = true;
}

// ---- Existing connections: may the packet use it (ip_vs_in) ----

// A SYN on a connection that is over starts a new one (conn_reuse_mode); with expire_nodest_conn
// also one on a connection to a real server that takes no new ones.
template <class Address>
bool starts_anew(const Settings& settings, const Connection<Address>& connection,
                 const RealServer* server, const Packet& packet) noexcept {
  // parse_frame leaves no flags in anything but TCP.
  const bool syn = (packet.tcp_flags & TcpHeader::kSyn) != 0;
  if (!syn) return false;
  if (settings.expire_nodest_conn && server != nullptr && server->weight == 0) return true;
  if (settings.conn_reuse_mode == 0) return false;
  const TcpState state = connection.tcp_state();
  return state == TcpState::time_wait || state == TcpState::close ||
         ((settings.conn_reuse_mode & 2U) != 0 && state == TcpState::fin_wait &&
          !connection.has(kOutputSeen));
}

template <class Address>
void check_connection(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const Connection<Address>& connection = table_of<Address>(worker)[packet.connection];
  const RealServer* server = snapshot.servers[connection.server_slot];
  const bool gone = server == nullptr || !server->available;
  const Settings& settings = *snapshot.settings;
  if (starts_anew(settings, connection, server, packet) || (gone && settings.expire_nodest_conn)) {
    close_connection<Address>(worker, packet.connection);
    packet.connection = kNoConnection;
  } else if (gone) {
    packet.outcome = Outcome::drop_server_removed;
  }
}

// ---- Opening connections ----

class LoadOfAllWorkers final : public LoadView {
 public:
  explicit LoadOfAllWorkers(std::span<WorkerStatistics* const> statistics) noexcept
      : statistics_(statistics) {}
  Load load(ServerSlot slot) const noexcept override {
    Load sum;
    for (const WorkerStatistics* worker : statistics_) {
      const Load load = worker->loads[slot].read();
      sum.active += load.active;
      sum.inactive += load.inactive;
    }
    return sum;
  }
  bool overloaded(ServerSlot) const noexcept override { return false; }

 private:
  std::span<WorkerStatistics* const> statistics_;
};

void replay_edits(WorkerScheduler& state, const Service& service) noexcept {
  for (std::uint64_t next = state.edits_applied.read(); next < service.end_of_edits(); ++next) {
    state.scheduler->apply(service.edits[next - service.first_edit]);
    state.edits_applied.add(1);
  }
}

// The scheduler's choice, or null.
template <class Address>
const RealServer* pick_server(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                              const FlowKey<Address>& key) noexcept {
  WorkerScheduler& state = (*service.schedulers)[worker.index];
  replay_edits(state, service);
  const LoadOfAllWorkers loads(worker.statistics);
  const auto bytes = [](const Address& address) {
    return std::span(reinterpret_cast<const std::uint8_t*>(&address), sizeof address);
  };
  const auto position = state.scheduler->pick({service.candidates, loads, bytes(key.source),
                                               bytes(key.destination), key.source_port.host()});
  if (!position) return nullptr;
  return snapshot.servers[service.candidates[*position].slot];
}

// Only a SYN opens a TCP connection, unless sloppy_tcp; a RST never does, nor does anything from
// port 20, where active FTP sends from.
bool may_open(const Settings& settings, const Packet& packet, Protocol protocol,
              Be16 source_port) noexcept {
  if (protocol != Protocol::tcp) return true;
  if ((packet.tcp_flags & TcpHeader::kRst) != 0 || source_port == Be16::from_host(20)) return false;
  return settings.sloppy_tcp || (packet.tcp_flags & TcpHeader::kSyn) != 0;
}

template <class Address>
Connection<Address> new_connection(const WorkerState& worker, const Packet& packet,
                                   const RealServer& server) noexcept {
  Connection<Address> connection{};
  const auto& key = packet.key<Address>();
  connection.client = key.source;
  connection.virtual_address = key.destination;
  connection.client_port = key.source_port;
  connection.virtual_port = key.destination_port;
  connection.server_port = server.port;
  // Of the other family only in a tunnel, which goes by the real server's slot.
  if (server.address.is_ipv4() == (sizeof(Address) == sizeof(Ipv4Address))) {
    connection.server = address_of<Address>(server.address);
  }
  connection.protocol = key.protocol;
  connection.flags = static_cast<std::uint16_t>(server.mode) | kInactive;
  if (server.mode == ForwardMode::nat) connection.flags |= kOutputSeen | kReplyIndexed;
  connection.deadline = worker.now + kTicksPerSecond;
  connection.server_slot = server.slot;
  connection.service_slot = packet.service;
  return connection;
}

// Sets packet.connection, or an outcome that says why not.
template <class Address>
void open_connection(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const Service& service = *snapshot.services[packet.service];
  const auto& key = packet.key<Address>();
  if (service.removed || !may_open(*snapshot.settings, packet, key.protocol, key.source_port)) {
    packet.outcome = Outcome::kernel_no_connection;
    return;
  }
  auto& table = table_of<Address>(worker);
  if (table.size() == table.capacity()) {
    packet.outcome = Outcome::drop_table_full;
    return;
  }
  const RealServer* server = pick_server(worker, snapshot, service, key);
  if (server == nullptr) {
    packet.outcome = Outcome::drop_no_server_unanswered;
    return;
  }
  const auto connection = new_connection<Address>(worker, packet, *server);
  if (connection.has(kReplyIndexed) &&
      table.find_one(table.reply_key(connection)) != kNoConnection) {
    packet.outcome = Outcome::drop_reply_ambiguous;
    return;
  }
  const auto index = table.open(connection);
  if (!index) {
    packet.outcome = Outcome::drop_table_full;
    return;
  }
  packet.connection = *index;
  worker.own().loads[server->slot].connections.add(1);
  worker.own().servers[server->slot].connections.add(1);
}

template <class Address>
void find_or_open(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  if (packet.connection == kNoConnection || worker.closed_in_burst) {
    // An earlier packet of this burst may have opened or closed it.
    packet.connection = table_of<Address>(worker).find_one(packet.key<Address>());
  }
  if (packet.key<Address>().direction == Direction::reply) {
    if (packet.connection == kNoConnection) packet.outcome = Outcome::kernel_reply_unmatched;
    return;
  }
  if (packet.connection != kNoConnection) check_connection<Address>(worker, snapshot, packet);
  if (packet.connection == kNoConnection) open_connection<Address>(worker, snapshot, packet);
}

// ---- Counting and state ----

void count_packet(WorkerState& worker, ServerSlot slot, Direction direction,
                  const Packet& packet) noexcept {
  ServerCounters& counters = worker.own().servers[slot];
  if (direction == Direction::inbound) {
    counters.packets_in.add(1);
    counters.bytes_in.add(packet.ip_length);
  } else {
    counters.packets_out.add(1);
    counters.bytes_out.add(packet.ip_length);
  }
}

// set_tcp_state of ip_vs_proto_tcp.c.
template <class Address>
void advance_tcp(WorkerState& worker, Connection<Address>& connection,
                 const Packet& packet) noexcept {
  TcpDirection direction = TcpDirection::input;
  if (packet.key<Address>().direction == Direction::reply) {
    direction = TcpDirection::output;
    if (!connection.has(kOutputSeen)) {
      set_field(connection.flags, static_cast<std::uint16_t>(connection.flags | kOutputSeen));
    }
  } else if (!connection.has(kOutputSeen)) {
    direction = TcpDirection::input_only;
  }
  const TcpState before = connection.tcp_state();
  const TcpState after = next_tcp_state(before, direction, tcp_event(packet.tcp_flags));
  if (after == before) return;
  set_field(connection.state, static_cast<std::uint8_t>(after));
  const bool inactive = !kTcpStateActive[static_cast<std::size_t>(after)];
  if (inactive == connection.has(kInactive)) return;
  set_field(connection.flags, static_cast<std::uint16_t>(connection.flags ^ kInactive));
  worker.own().loads[connection.server_slot].active.add(inactive ? kMinusOne : 1);
}

template <class Address>
void track(WorkerState& worker, const Settings& settings, const Packet& packet) noexcept {
  auto& table = table_of<Address>(worker);
  Connection<Address>& connection = table[packet.connection];
  const auto& key = packet.key<Address>();
  count_packet(worker, connection.server_slot, key.direction, packet);
  std::uint32_t seconds = settings.udp_timeout;
  if (key.protocol == Protocol::tcp) {
    advance_tcp(worker, connection, packet);
    seconds = settings.tcp_timeouts[connection.state];
  }
  if (key.direction == Direction::inbound) {
    set_field(connection.packets_in, connection.packets_in + 1);
  }
  table.set_deadline(packet.connection, worker.now + seconds * kTicksPerSecond);
}

// ---- Next hops ----

// False: there is no way to `destination` through weir's ports.
bool route(const Snapshot& snapshot, Packet& packet, const IpAddress& destination) noexcept {
  const auto hash = static_cast<std::uint32_t>(std::hash<IpAddress>{}(destination));
  const Routes::Decision decision = snapshot.routes->find(destination, hash);
  packet.neighbour_known = decision.answer == Routes::Answer::found;
  packet.next_hop = decision.next_hop;
  packet.out_interface = decision.interface;
  packet.neighbour = destination;
  return packet.neighbour_known || decision.answer == Routes::Answer::missing;
}

constexpr std::uint32_t kNextHopBits = 20;

// Towards the client, by the connection's cached next hop while the routes are the same.
template <class Address>
bool route_reply(const Snapshot& snapshot, Connection<Address>& connection,
                 Packet& packet) noexcept {
  const std::uint32_t generation = snapshot.routes->generation();
  if (connection.has(kReplyHopCached) && connection.reply_next_hop >> kNextHopBits == generation) {
    packet.next_hop = connection.reply_next_hop & ((1U << kNextHopBits) - 1);
    packet.neighbour_known = true;
    return true;
  }
  if (!route(snapshot, packet, packet.key<Address>().destination)) return false;
  if (packet.neighbour_known && packet.next_hop < 1U << kNextHopBits) {
    set_field(connection.reply_next_hop, generation << kNextHopBits | packet.next_hop);
    set_field(connection.flags, static_cast<std::uint16_t>(connection.flags | kReplyHopCached));
  }
  return true;
}

std::uint16_t mtu_of(const Snapshot& snapshot, const Packet& packet) noexcept {
  return packet.neighbour_known ? snapshot.routes->next_hop(packet.next_hop).mtu
                                : snapshot.routes->interfaces()[packet.out_interface].mtu;
}

// ---- ICMP errors to the sender ----

// The VIP answers clients; a real server is answered by the interface that faces it.
template <class Address>
IpAddress error_source(const Snapshot& snapshot, const Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  if (key.direction == Direction::inbound) return key.destination;
  const Routes& routes = *snapshot.routes;
  std::uint16_t index = packet.out_interface;
  if (packet.neighbour_known) index = routes.next_hop(packet.next_hop).interface;
  const Interface& interface = routes.interfaces()[index];
  return sizeof(Address) == sizeof(Ipv4Address) ? interface.ipv4_source : interface.ipv6_source;
}

// `unanswered` is the outcome where no error can be sent.
template <class Address>
void answer(WorkerState& worker, const Snapshot& snapshot, Packet& packet, IcmpError error,
            std::uint16_t mtu, Outcome unanswered) noexcept {
  packet.outcome = unanswered;
  const IpAddress sender = packet.key<Address>().source;
  if (!route(snapshot, packet, sender)) return;
  const IpAddress source = error_source<Address>(snapshot, packet);
  if (source.family() != sender.family() || source.is_unspecified()) return;
  if (!worker.icmp_budget.take(worker.now)) return;
  if (!become_icmp_error(packet, error, source, mtu, worker.next_ip_id++)) return;
  packet.outcome = Outcome::icmp_error_sent;
}

// ---- Rewrite and transmit ----

// What a router does before it forwards: hops, then the size of the way out. False: decided.
template <class Address>
bool may_forward(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                 std::uint16_t overhead) noexcept {
  if (packet.hops_left <= 1) {
    answer<Address>(worker, snapshot, packet, IcmpError::time_exceeded, 0,
                    Outcome::drop_ttl_expired_unanswered);
    return false;
  }
  const auto mtu = static_cast<std::uint16_t>(mtu_of(snapshot, packet) - overhead);
  if (packet.ip_length <= mtu) {
    decrement_hops<Address>(packet);
    return true;
  }
  packet.outcome = Outcome::drop_too_big;
  if (packet.dont_fragment) {
    // The error quotes the packet as Linux had it: IPVS has counted the hop of one to a server
    // before it measures, the host's routing of a reply has not.
    if (packet.key<Address>().direction == Direction::inbound) decrement_hops<Address>(packet);
    answer<Address>(worker, snapshot, packet, IcmpError::too_big, mtu, Outcome::drop_too_big);
  }
  return false;
}

// `mode` is the connection's: an edit of the real server does not change how its connections go.
template <class Address>
void forward_to_server(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                       const RealServer& server, ForwardMode mode) noexcept {
  if (!server.reachable) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  packet.neighbour_known = server.next_hop_known;
  packet.next_hop = server.next_hop;
  if (!server.next_hop_known) {
    packet.out_interface = server.interface;
    packet.neighbour = server.address;
  }
  const std::uint16_t overhead =
      mode == ForwardMode::tun ? tunnel_overhead(server.address.family()) : std::uint16_t{0};
  if (!may_forward<Address>(worker, snapshot, packet, overhead)) return;
  switch (mode) {
    case ForwardMode::nat:
      rewrite_destination(packet, address_of<Address>(server.address), server.port);
      packet.outcome = Outcome::nat_to_server;
      break;
    case ForwardMode::dr:
      packet.outcome = Outcome::dr_to_server;
      break;
    case ForwardMode::tun:
      packet.outcome =
          encapsulate(packet, server.tunnel_source, server.address, worker.next_ip_id++)
              ? Outcome::tun_to_server
              : Outcome::drop_no_headroom;
      break;
    case ForwardMode::fullnat:
    case ForwardMode::local:
      // Control refuses such real servers.
      packet.outcome = Outcome::drop_no_route;
      break;
  }
}

template <class Address>
void forward_to_client(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  Connection<Address>& connection = table_of<Address>(worker)[packet.connection];
  if (!route_reply(snapshot, connection, packet)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  if (!may_forward<Address>(worker, snapshot, packet, 0)) return;
  rewrite_source(packet, connection.virtual_address, connection.virtual_port);
  packet.outcome = Outcome::nat_to_client;
}

template <class Address>
void forward(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  if (packet.key<Address>().direction == Direction::reply) {
    forward_to_client<Address>(worker, snapshot, packet);
    return;
  }
  const Connection<Address>& connection = table_of<Address>(worker)[packet.connection];
  forward_to_server<Address>(worker, snapshot, packet, *snapshot.servers[connection.server_slot],
                             connection.mode());
}

// From the connection on, packet by packet, so that each sees what the one before it changed.
template <class Address>
void serve(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  find_or_open<Address>(worker, snapshot, packet);
  if (packet.outcome == Outcome::drop_no_server_unanswered) {
    answer<Address>(worker, snapshot, packet, IcmpError::port_unreachable, 0, packet.outcome);
  }
  if (packet.decided()) return;
  track<Address>(worker, *snapshot.settings, packet);
  forward<Address>(worker, snapshot, packet);
}

template <class Address>
void process_batch(WorkerState& worker, const Snapshot& snapshot, Batch<Address>& batch) noexcept {
  if (batch.empty()) return;
  classify(snapshot, batch);
  find_owner(worker, batch);
  look_up(worker, batch);
  for (Packet* packet : batch) serve<Address>(worker, snapshot, *packet);
}

// Most bursts have one outcome: one addition for each run of equal ones.
void count_outcomes(WorkerState& worker, std::span<const Packet> burst) noexcept {
  auto& counters = worker.own().outcomes;
  for (std::size_t i = 0; i < burst.size();) {
    const Outcome outcome = burst[i].outcome;
    const std::size_t first = i;
    while (i < burst.size() && burst[i].outcome == outcome) ++i;
    counters[static_cast<std::size_t>(outcome)].add(i - first);
  }
}

void address_frame(const Snapshot& snapshot, Packet& packet) noexcept {
  if (!packet.neighbour_known) {
    packet.outcome = Outcome::waiting_for_neighbour;
    return;
  }
  const NextHop& next_hop = snapshot.routes->next_hop(packet.next_hop);
  if (!next_hop.resolved) {
    packet.outcome = Outcome::waiting_for_neighbour;
    packet.neighbour = next_hop.address;
    packet.out_interface = next_hop.interface;
  } else if (!write_ethernet(packet, next_hop)) {
    packet.outcome = Outcome::drop_no_headroom;
  }
}

}  // namespace

void process_burst(WorkerState& worker, const Snapshot& snapshot,
                   std::span<Packet> burst) noexcept {
  Batch<Ipv4Address> ipv4;
  Batch<Ipv6Address> ipv6;
  worker.closed_in_burst = false;
  parse(snapshot, burst, ipv4, ipv6);
  process_batch(worker, snapshot, ipv4);
  process_batch(worker, snapshot, ipv6);
  for (Packet& packet : burst) {
    if (is_forwarded(packet.outcome)) address_frame(snapshot, packet);
  }
  count_outcomes(worker, burst);
}

bool retry_next_hop(const Snapshot& snapshot, Packet& packet) noexcept {
  // On link, the neighbour is the destination itself; a gateway has had a next hop all along.
  if (!packet.neighbour_known && !route(snapshot, packet, packet.neighbour)) return false;
  if (!packet.neighbour_known || packet.next_hop >= snapshot.routes->next_hops().size()) {
    return false;
  }
  const NextHop& next_hop = snapshot.routes->next_hop(packet.next_hop);
  const bool same = next_hop.used && next_hop.address == packet.neighbour;
  return same && next_hop.resolved && write_ethernet(packet, next_hop);
}

void expire_connections(WorkerState& worker, unsigned budget) noexcept {
  worker.ipv4.advance(worker.now, budget,
                      [&](std::uint32_t index) { close_connection<Ipv4Address>(worker, index); });
  worker.ipv6.advance(worker.now, budget,
                      [&](std::uint32_t index) { close_connection<Ipv6Address>(worker, index); });
}

void adopt_snapshot(WorkerState& worker, const Snapshot& snapshot) noexcept {
  for (const ServiceSlot slot : snapshot.edited) {
    const Service* service = snapshot.services[slot];
    if (service != nullptr) replay_edits((*service->schedulers)[worker.index], *service);
  }
}

}  // namespace weir
