// SPDX-License-Identifier: Apache-2.0
#include "dataplane/forward.h"

#include <algorithm>

#include "dataplane/admission.h"
#include "dataplane/client_address.h"
#include "dataplane/icmp_rewrite.h"
#include "dataplane/rewrite.h"
#include "dataplane/tcp_reset.h"
#include "dataplane/translate.h"
#include "dataplane/tunnel.h"
#include "dataplane/tunnel_error.h"

namespace weir {

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

namespace {

// ---- Next hops ----

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
  if (!route(snapshot, packet, connection.client)) return false;
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

}  // namespace

template <class Address>
void answer(WorkerState& worker, const Snapshot& snapshot, Packet& packet, IcmpError error,
            std::uint16_t mtu, Outcome unanswered) noexcept {
  packet.outcome = unanswered;
  if (packet.icmp_error) return;
  const IpAddress sender = packet.key<Address>().source;
  if (!route(snapshot, packet, sender)) return;
  const IpAddress source = error_source<Address>(snapshot, packet);
  if (source.family() != sender.family() || source.is_unspecified()) return;
  if (!worker.icmp_budget.take(worker.now)) return;
  if (!become_icmp_error(packet, error, source, mtu, worker.next_ip_id++)) return;
  packet.outcome = Outcome::icmp_error_sent;
}

template <class Address>
void reset_sender(const Snapshot& snapshot, Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  if (key.protocol != Protocol::tcp || packet.icmp_error) return;
  if (!route(snapshot, packet, key.source) || !become_tcp_reset(packet)) return;
  packet.outcome = Outcome::tcp_reset_sent;
}

namespace {

// ---- Rewrite and transmit ----

// What a link must take in one piece, where nobody but the sender may cut.
std::uint16_t uncut_size(const Packet& packet) noexcept {
  return packet.largest_fragment != 0 ? packet.largest_fragment : packet.ip_length;
}

// As the link asks, and never larger than the packet came (IPCB(skb)->frag_max_size). 0: it leaves
// whole.
std::uint16_t fragment_size_of(const Packet& packet, int overhead,
                               std::uint16_t link_mtu) noexcept {
  std::uint16_t most = link_mtu;
  if (packet.largest_fragment != 0) most = std::min(most, packet.largest_fragment);
  return packet.ip_length + overhead > most ? most : std::uint16_t{0};
}

// What a router does before it forwards: hops, then the size of the way out. False: decided.
template <class Address>
bool may_forward(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                 std::uint16_t link_mtu, int overhead) noexcept {
  if (packet.hops_left <= 1) {
    answer<Address>(worker, snapshot, packet, IcmpError::time_exceeded, 0,
                    Outcome::drop_ttl_expired_unanswered);
    return false;
  }
  const auto mtu = static_cast<std::uint16_t>(link_mtu - overhead);
  if (packet.dont_fragment && uncut_size(packet) > mtu) {
    // The error quotes the packet as Linux had it: IPVS has counted the hop of one to a server
    // before it measures, the host's routing of a reply has not.
    if (packet.key<Address>().direction == Direction::inbound) decrement_hops<Address>(packet);
    answer<Address>(worker, snapshot, packet, IcmpError::too_big, mtu, Outcome::drop_too_big);
    return false;
  }
  packet.fragment_size = fragment_size_of(packet, overhead, link_mtu);
  decrement_hops<Address>(packet);
  return true;
}

void go_to_server(Packet& packet, const RealServer& server) noexcept {
  packet.neighbour_known = server.next_hop_known;
  packet.next_hop = server.next_hop;
  if (server.next_hop_known) return;
  packet.out_interface = server.interface;
  packet.neighbour = server.address;
}

// ---- Tunnels ----

// As long as Linux believes what a router has said of a path (net.ipv4.route.mtu_expires).
constexpr std::uint32_t kPathMtuTicks = 600 * kTicksPerSecond;

std::uint16_t tunnel_mtu(const WorkerState& worker, const Snapshot& snapshot, const Packet& packet,
                         ServerSlot slot) noexcept {
  const std::uint16_t link = mtu_of(snapshot, packet);
  const SharedServer& shared = (*snapshot.shared)[slot];
  const std::uint16_t path = shared.path_mtu.load(std::memory_order_relaxed);
  if (path == 0) return link;
  const std::uint32_t age = worker.now - shared.path_mtu_since.load(std::memory_order_relaxed);
  return age < kPathMtuTicks ? std::min(link, path) : link;
}

template <class Address>
void forward_by_tunnel(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                       const RealServer& server) noexcept {
  // Without path MTU discovery a packet too big for its tunnel is cut like any other.
  if (!snapshot.settings->pmtu_disc && packet.family == Family::ipv4) packet.dont_fragment = false;
  const std::uint16_t mtu = tunnel_mtu(worker, snapshot, packet, server.slot);
  const int overhead = tunnel_overhead(server.tunnel, server.address.family());
  if (!may_forward<Address>(worker, snapshot, packet, mtu, overhead)) return;
  const bool done =
      encapsulate(packet, server.tunnel, server.tunnel_source, server.address, worker.next_ip_id++);
  packet.outcome = done ? Outcome::tun_to_server : Outcome::drop_no_headroom;
}

// ---- Fullnat ----

template <class Address>
ClientEnds client_ends(const Connection<Address>& connection) noexcept {
  return {connection.client, connection.virtual_address, connection.client_port,
          connection.virtual_port};
}

// Packets of many clients have one source now, so that their ids would meet.
void renew_ip_id(WorkerState& worker, Packet& packet) noexcept {
  if (packet.family != Family::ipv4 || packet.dont_fragment) return;
  auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
  const Be16 id = Be16::from_host(worker.next_ip_id++);
  ChecksumDelta delta;
  delta.replace(ip.id, id);
  delta.apply(ip.checksum);
  ip.id = id;
}

// Tells the real server who the client is. Undecided: go on.
template <class Address>
Outcome tell_client_address(const Connection<Address>& connection, SequenceShift& shift,
                            Packet& packet, std::uint16_t mtu) noexcept {
  if (is_active(shift)) return pass_to_server(packet, shift, client_ends(connection), mtu);
  if (!connection.has(kProxied)) return Outcome::undecided;
  return prepend_proxy_header(packet, client_ends(connection));
}

// Bytes that a UDP datagram grows by. A TCP segment that does not fit loses its end instead.
template <class Address>
int proxy_overhead(const Connection<Address>& connection) noexcept {
  if (!connection.has(kProxied)) return 0;
  return proxy_header_bytes(sizeof(Address) == sizeof(Ipv4Address) ? Family::ipv4 : Family::ipv6);
}

// The addresses become the other family's: the record there has them.
template <class Address>
Outcome translate_to_server(WorkerState& worker, const Connection<Address>& connection,
                            Packet& packet) noexcept {
  using Other = OtherFamily<Address>;
  const auto& ends = worker.table<Other>()[connection.companion()];
  const Ends<Other> other = {ends.local, ends.server, ends.local_port, ends.server_port};
  if constexpr (std::is_same_v<Other, Ipv4Address>) {
    return translate_to_ipv4(packet, other, worker.next_ip_id++);
  } else {
    return translate_to_ipv6(packet, other);
  }
}

template <class Address>
Outcome rewrite_to_server(WorkerState& worker, const Connection<Address>& connection,
                          Packet& packet) noexcept {
  if (connection.has(kTranslated)) return translate_to_server(worker, connection, packet);
  rewrite_source(packet, connection.local, connection.local_port);
  rewrite_destination(packet, connection.server, connection.server_port);
  renew_ip_id(worker, packet);
  return Outcome::undecided;
}

template <class Address>
void forward_by_fullnat(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  auto& table = worker.table<Address>();
  const Connection<Address>& connection = table[packet.connection];
  const std::uint16_t mtu = mtu_of(snapshot, packet);
  int overhead = proxy_overhead(connection);
  if (connection.has(kTranslated)) overhead += translated_length(packet) - packet.ip_length;
  if (!may_forward<Address>(worker, snapshot, packet, mtu, overhead)) return;
  packet.outcome = rewrite_to_server(worker, connection, packet);
  if (packet.decided()) return;
  packet.outcome = tell_client_address(connection, table.shift(packet.connection), packet, mtu);
  if (!packet.decided()) packet.outcome = Outcome::fullnat_to_server;
}

// Towards the client: what the real server was told besides is taken back.
template <class Address>
bool take_back(const Snapshot& snapshot, const Connection<Address>& connection,
               SequenceShift& shift, Packet& packet) noexcept {
  const bool active = is_active(shift);
  if (active && !pass_to_client(packet, shift)) return false;
  if ((packet.tcp_flags & TcpHeader::kSyn) == 0) return true;
  const RealServer* server = snapshot.servers[connection.server_slot];
  if (server->next_hop_known && (active || connection.has(kTranslated))) {
    const std::uint16_t mtu = snapshot.routes->next_hop(server->next_hop).mtu;
    clamp_mss(packet, largest_mss(shift, server->address.family(), mtu));
  }
  return true;
}

// ---- To the server, to the client ----

template <class Address>
void forward_by_nat(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                    const RealServer& server, Be16 port) noexcept {
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0)) return;
  rewrite_destination(packet, address_of<Address>(server.address), port);
  packet.outcome = Outcome::nat_to_server;
}

// `mode` and `port` are the connection's: an edit of its real server does not change how it goes.
template <class Address>
void forward_to_server(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                       const RealServer& server, ForwardMode mode, Be16 port) noexcept {
  if (mode == ForwardMode::local) {
    packet.outcome = Outcome::kernel_local;
    return;
  }
  if (!server.reachable) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  go_to_server(packet, server);
  switch (mode) {
    case ForwardMode::nat:
      forward_by_nat<Address>(worker, snapshot, packet, server, port);
      break;
    case ForwardMode::tun:
      forward_by_tunnel<Address>(worker, snapshot, packet, server);
      break;
    case ForwardMode::fullnat:
      forward_by_fullnat<Address>(worker, snapshot, packet);
      break;
    case ForwardMode::dr:
    case ForwardMode::local:
      if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0)) return;
      packet.outcome = Outcome::dr_to_server;
      break;
  }
}

template <class Address>
void rewrite_to_client(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  auto& table = worker.table<Address>();
  const Connection<Address>& connection = table[packet.connection];
  rewrite_source(packet, connection.virtual_address, connection.virtual_port);
  packet.outcome = Outcome::nat_to_client;
  if (connection.mode() != ForwardMode::fullnat) return;
  rewrite_destination(packet, connection.client, connection.client_port);
  const bool stray = connection.protocol == Protocol::tcp &&
                     !take_back(snapshot, connection, table.shift(packet.connection), packet);
  packet.outcome = stray ? Outcome::drop_stray_syn_ack : Outcome::fullnat_to_client;
}

template <class Address>
void forward_to_client(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  Connection<Address>& connection = worker.table<Address>()[packet.connection];
  if (!route_reply(snapshot, connection, packet)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0)) return;
  rewrite_to_client<Address>(worker, snapshot, packet);
}

}  // namespace

template <class Address>
void forward(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  if (packet.key<Address>().direction == Direction::reply) {
    forward_to_client<Address>(worker, snapshot, packet);
    return;
  }
  const Connection<Address>& connection = worker.table<Address>()[packet.connection];
  forward_to_server<Address>(worker, snapshot, packet, *snapshot.servers[connection.server_slot],
                             connection.mode(), connection.server_port);
}

// One-packet scheduling: this datagram has a real server, but no connection.
template <class Address>
void forward_alone(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const RealServer& server = *snapshot.servers[packet.server];
  const Service& service = *snapshot.services[server.service];
  const auto& key = packet.key<Address>();
  count_packet(worker, packet.server, key.direction, packet);
  if (key.direction == Direction::inbound) {
    const Be16 port = server_port(service, server, key.destination_port);
    forward_to_server<Address>(worker, snapshot, packet, server, server.mode, port);
    return;
  }
  if (!route(snapshot, packet, key.destination)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0)) return;
  // A service for all ports is reached at the port that the server has been asked at.
  const Be16 port = service.key.port != 0 ? Be16::from_host(service.key.port) : key.source_port;
  rewrite_source(packet, address_of<Address>(service.key.address), port);
  packet.outcome = Outcome::nat_to_client;
}

// ---- NAT64: replies ----

namespace {

template <class Address>
Outcome translate_to_client(WorkerState& worker, const Connection<Address>& connection,
                            Packet& packet) noexcept {
  const Ends<Address> ends = {connection.virtual_address, connection.client,
                              connection.virtual_port, connection.client_port};
  if constexpr (std::is_same_v<Address, Ipv4Address>) {
    return translate_to_ipv4(packet, ends, worker.next_ip_id++);
  } else {
    return translate_to_ipv6(packet, ends);
  }
}

}  // namespace

template <class Address>
void forward_translated(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                        std::uint32_t index) noexcept {
  auto& table = worker.table<OtherFamily<Address>>();
  auto& connection = table[index];
  if (!route_reply(snapshot, connection, packet)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  const int growth = translated_length(packet) - packet.ip_length;
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), growth)) return;
  packet.outcome = translate_to_client(worker, connection, packet);
  if (packet.decided()) return;
  const bool stray = connection.protocol == Protocol::tcp &&
                     !take_back(snapshot, connection, table.shift(index), packet);
  packet.outcome = stray ? Outcome::drop_stray_syn_ack : Outcome::fullnat_to_client;
}

// ---- ICMP errors about connections ----

namespace {

// What weir has added to the packet that an error towards the client quotes.
// Quoted: of the error's family, which translation changes.
template <class Quoted, class Address>
void take_back_quoted(const Connection<Address>& connection, const SequenceShift& shift,
                      const Packet& packet, QuoteRewrite<Address>& to) noexcept {
  if (is_active(shift)) {
    const std::uint32_t sequence = quoted_sequence<Quoted>(packet);
    to.sequence_change = client_sequence(shift, sequence) - sequence;
    to.growth = growth(shift);
  } else {
    to.growth = static_cast<std::uint16_t>(proxy_overhead(connection));
  }
}

template <class Address>
void error_through_nat(WorkerState& worker, Packet& packet) noexcept {
  auto& table = worker.table<Address>();
  const Connection<Address>& connection = table[packet.connection];
  if (packet.key<Address>().direction == Direction::inbound) {
    rewrite_quote(packet, error_to_server(connection, error_sender<Address>(packet)));
    return;
  }
  auto to = error_to_client(connection);
  if (connection.mode() == ForwardMode::fullnat) {
    take_back_quoted<Address>(connection, table.shift(packet.connection), packet, to);
  }
  rewrite_quote(packet, to);
}

template <class Address>
Outcome translate_error(WorkerState& worker, Packet& packet,
                        const QuoteRewrite<Address>& to) noexcept {
  if constexpr (std::is_same_v<Address, Ipv4Address>) {
    return translate_error_to_ipv4(packet, to, worker.next_ip_id++);
  } else {
    return translate_error_to_ipv6(packet, to);
  }
}

// From the client's side to a real server of the other family.
template <class Address>
Outcome error_through_translation(WorkerState& worker, const Connection<Address>& connection,
                                  Packet& packet) noexcept {
  using Other = OtherFamily<Address>;
  const auto& ends = worker.table<Other>()[connection.companion()];
  return translate_error<Other>(worker, packet,
                                {.sender = ends.local,
                                 .receiver = ends.server,
                                 .peer = ends.local,
                                 .receiver_port = ends.server_port,
                                 .peer_port = ends.local_port});
}

template <class Address>
void forward_error_to_server(WorkerState& worker, const Snapshot& snapshot,
                             Packet& packet) noexcept {
  const Connection<Address>& connection = worker.table<Address>()[packet.connection];
  const RealServer& server = *snapshot.servers[connection.server_slot];
  if (!server.available) {
    packet.outcome = Outcome::drop_server_removed;
    return;
  }
  const bool by_nat = connection.mode() == ForwardMode::nat;
  if (!by_nat && connection.mode() != ForwardMode::fullnat) {
    forward<Address>(worker, snapshot, packet);
    return;
  }
  go_to_server(packet, server);
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0)) return;
  packet.outcome = by_nat ? Outcome::nat_to_server : Outcome::fullnat_to_server;
  if (!connection.has(kTranslated)) {
    error_through_nat<Address>(worker, packet);
    return;
  }
  const Outcome outcome = error_through_translation(worker, connection, packet);
  if (outcome != Outcome::undecided) packet.outcome = outcome;
}

// An error from the side of a real server of the other family.
template <class Address>
void forward_translated_error(WorkerState& worker, const Snapshot& snapshot,
                              Packet& packet) noexcept {
  using Other = OtherFamily<Address>;
  const std::uint32_t index = worker.table<Address>()[packet.connection].controller;
  auto& connection = worker.table<Other>()[index];
  count_packet(worker, connection.server_slot, Direction::reply, packet);
  if (!route_reply(snapshot, connection, packet)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0)) return;
  auto to = error_to_client(connection);
  take_back_quoted<Address>(connection, worker.table<Other>().shift(index), packet, to);
  packet.outcome = translate_error<Other>(worker, packet, to);
  if (!packet.decided()) packet.outcome = Outcome::fullnat_to_client;
}

// An error about a packet in the tunnel to a real server: its client is told (ip_vs_in_icmp).
template <class Address>
void pass_on_tunnel_error(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const Connection<Address>& connection = worker.table<Address>()[packet.connection];
  const RealServer* server = snapshot.servers[connection.server_slot];
  packet.outcome = Outcome::kernel_icmp;
  if (connection.mode() != ForwardMode::tun || server == nullptr) return;
  if (!route(snapshot, packet, connection.client) || !worker.icmp_budget.take(worker.now)) return;
  const std::uint16_t overhead = tunnel_overhead(server->tunnel, server->address.family());
  if (!become_error_of_tunnelled(packet, overhead, worker.next_ip_id++)) return;
  packet.outcome = Outcome::icmp_error_sent;
}

}  // namespace

template <class Address>
void forward_error(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  auto& connection = worker.table<Address>()[packet.connection];
  if (is_unwrapped(packet)) {
    pass_on_tunnel_error<Address>(worker, snapshot, packet);
    return;
  }
  if (connection.has(kCompanion)) {
    forward_translated_error<Address>(worker, snapshot, packet);
    return;
  }
  const Direction direction = packet.key<Address>().direction;
  count_packet(worker, connection.server_slot, direction, packet);
  if (direction == Direction::inbound) {
    forward_error_to_server<Address>(worker, snapshot, packet);
    return;
  }
  if (!route_reply(snapshot, connection, packet)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0)) return;
  error_through_nat<Address>(worker, packet);
  packet.outcome = connection.mode() == ForwardMode::fullnat ? Outcome::fullnat_to_client
                                                             : Outcome::nat_to_client;
}

// ---- Path MTU of tunnels ----

namespace {

// The size that the ICMP error asks for, 0 for any other error. Routers of before RFC 1191 say 0:
// then what every IPv4 path must carry.
std::uint16_t asked_mtu(const Packet& packet) noexcept {
  constexpr std::uint16_t kLeastIpv4 = 576;
  constexpr std::uint16_t kLeastIpv6 = 1280;
  const auto& icmp = *reinterpret_cast<const IcmpHeader*>(packet.transport);
  if (packet.family == Family::ipv6) {
    if (icmp.type != kIcmpv6PacketTooBig || icmp.unused != Be16{}) return 0;
    return std::max(icmp.mtu.host(), kLeastIpv6);
  }
  const bool too_big =
      icmp.type == kIcmpDestinationUnreachable && icmp.code == kIcmpCodeFragmentationNeeded;
  return too_big ? std::max(icmp.mtu.host(), kLeastIpv4) : std::uint16_t{0};
}

bool is_quoted_tunnel(const RealServer& server, const TunnelQuote& quote,
                      const IpAddress& source) noexcept {
  if (server.mode != ForwardMode::tun || server.address != quote.to) return false;
  if (server.tunnel.type != quote.tunnel.type || server.tunnel_source != source) return false;
  return server.tunnel.type != TunnelType::gue || server.tunnel.port == quote.tunnel.port;
}

IpAddress quoted_source(const Packet& packet) noexcept {
  if (packet.family == Family::ipv4) {
    return reinterpret_cast<const Ipv4Header*>(packet.quote)->source;
  }
  return reinterpret_cast<const Ipv6Header*>(packet.quote)->source;
}

}  // namespace

// Looks at all real servers, within the budget of errors: such packets are few, or an attack.
void learn_path_mtu(WorkerState& worker, const Snapshot& snapshot, const Packet& packet) noexcept {
  if (!snapshot.settings->pmtu_disc) return;
  const std::uint16_t mtu = asked_mtu(packet);
  if (mtu == 0) return;
  const std::uint8_t* const end = packet.ip + packet.ip_length;
  const auto quote =
      parse_tunnel_quote({packet.quote, static_cast<std::size_t>(end - packet.quote)});
  if (!quote || !worker.icmp_budget.take(worker.now)) return;
  const IpAddress source = quoted_source(packet);
  for (const RealServer* server : snapshot.servers) {
    if (server == nullptr || !is_quoted_tunnel(*server, *quote, source)) continue;
    SharedServer& shared = (*snapshot.shared)[server->slot];
    shared.path_mtu_since.store(worker.now, std::memory_order_relaxed);
    shared.path_mtu.store(mtu, std::memory_order_relaxed);
  }
}

// ---- Nobody to serve it ----

template <class Address>
void refuse(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  constexpr std::uint16_t kFtp = 21;
  const ServiceKey& service = snapshot.services[packet.service]->key;
  if (snapshot.settings->cache_bypass && service.fwmark != 0) {
    packet.outcome = Outcome::kernel_cache_bypass;
    return;
  }
  // Perhaps not for FTP at all.
  if (service.port == kFtp && packet.key<Address>().destination_port.host() != kFtp) {
    packet.outcome = Outcome::kernel_not_a_service;
    return;
  }
  answer<Address>(worker, snapshot, packet, IcmpError::port_unreachable, 0, packet.outcome);
}

template void forward<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void forward<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void forward_alone<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void forward_alone<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void forward_translated<Ipv4Address>(WorkerState&, const Snapshot&, Packet&,
                                              std::uint32_t) noexcept;
template void forward_translated<Ipv6Address>(WorkerState&, const Snapshot&, Packet&,
                                              std::uint32_t) noexcept;
template void forward_error<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void forward_error<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void refuse<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void refuse<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void answer<Ipv4Address>(WorkerState&, const Snapshot&, Packet&, IcmpError, std::uint16_t,
                                  Outcome) noexcept;
template void answer<Ipv6Address>(WorkerState&, const Snapshot&, Packet&, IcmpError, std::uint16_t,
                                  Outcome) noexcept;
template void reset_sender<Ipv4Address>(const Snapshot&, Packet&) noexcept;
template void reset_sender<Ipv6Address>(const Snapshot&, Packet&) noexcept;

}  // namespace weir
