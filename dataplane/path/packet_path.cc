// SPDX-License-Identifier: Apache-2.0
// Three loops over the burst: what a packet is, the connection that it asks for, what becomes of
// it. Each asks for the cache lines that the next one reads, for the whole burst, because a miss
// takes longer than a dozen packets.
#include "dataplane/path/packet_path.h"

#include <algorithm>
#include <array>

#include "dataplane/path/admission.h"
#include "dataplane/path/drop_entry.h"
#include "dataplane/path/fullnat/client_address.h"
#include "dataplane/path/fullnat/fullnat.h"
#include "dataplane/path/gone_servers.h"
#include "dataplane/path/icmp/forward_error.h"
#include "dataplane/path/icmp/path_mtu.h"
#include "dataplane/path/parse.h"
#include "dataplane/path/persistence.h"
#include "dataplane/path/rewrite.h"
#include "dataplane/path/router.h"
#include "dataplane/path/scheduling.h"
#include "dataplane/path/time_limits.h"
#include "dataplane/path/tunnel/tunnel.h"
#include "dataplane/path/tunnel/tunnel_error.h"
#include "dataplane/path/unfinished_checksum.h"

namespace weir {
namespace {

// A function of its own: otherwise both families share out the registers of a loop.
template <class Step, class... Context>
[[gnu::noinline]] void with_ipv6(Step step, Context&... context) noexcept {
  step.template operator()<Ipv6Address>(context...);
}

// Calls step.operator()<Address>(context..., packet) for a packet that no step has decided yet.
template <class Step, class... Context>
[[gnu::always_inline]] inline void with_family(Packet& packet, Step step,
                                               Context&... context) noexcept {
  if (packet.decided()) return;
  if (packet.family == Family::ipv4) {
    step.template operator()<Ipv4Address>(context..., packet);
  } else {
    with_ipv6(step, context..., packet);
  }
}

void count_outcome(WorkerState& worker, Outcome outcome, std::uint64_t times) noexcept {
  worker.own().outcomes[static_cast<std::size_t>(outcome)].add(times);
}

// ---- Parse, and collect fragments ----

// Whether a fragment, which has no ports, may be of a connection; else it is the kernel's.
template <class Address>
bool may_be_served(const Snapshot& snapshot, const Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  // An IPv6 fragment may have destination options in front of the transport header.
  const bool options = static_cast<std::uint8_t>(key.protocol) == kIpv6DestinationOptions &&
                       sizeof(Address) == sizeof(Ipv6Address);
  return (key.protocol == Protocol::tcp || key.protocol == Protocol::udp ||
          key.protocol == Protocol::sctp || options) &&
         (snapshot.index->concerns(key) || snapshot.marks->may_have_mark(key, packet.port));
}

// What only a mark concerns goes to a service.
template <class Address>
bool is_inbound(const ServiceIndex& index, const FlowKey<Address>& key) noexcept {
  return index.is_service_address(key.destination) || !index.concerns(key);
}

// A fragment goes to the worker that collects for its client. Undecided: `packet` is the whole
// datagram now.
template <class Address>
void collect_fragment(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  if (!may_be_served<Address>(snapshot, packet)) {
    packet.outcome = Outcome::kernel_not_a_service;
    return;
  }
  const Address& client = is_inbound(*snapshot.index, key) ? key.source : key.destination;
  const unsigned owner = worker.owners->owner_of_address(client);
  if (owner != worker.index) {
    packet.owner = static_cast<std::uint16_t>(owner);
    packet.outcome = Outcome::handed_to_owner;
    return;
  }
  const Reassembly::Result result = worker.reassembly.add(packet, worker.now);
  if (result.gave_up_oldest) count_outcome(worker, Outcome::drop_fragment_table_full, 1);
  packet.outcome = result.outcome;
  if (packet.decided()) return;
  parse_frame(packet, snapshot.ports->macs[packet.port]);
  // A fragment of a fragment.
  if (packet.outcome == Outcome::fragment) packet.outcome = Outcome::drop_fragment_malformed;
}

// An error that is nobody's.
Outcome unmatched_error(const Packet& packet) noexcept {
  return lacks_tunnelled_packet(packet) ? Outcome::kernel_icmp_short_quote : Outcome::kernel_icmp;
}

// An error about a packet of a tunnel is one about what is inside.
void look_into_tunnel(const Snapshot& snapshot, Packet& packet) noexcept {
  // A datagram of nat or fullnat may look like GUE.
  const bool reply = packet.family == Family::ipv4 ? snapshot.index->is_reply(packet.ipv4)
                                                   : snapshot.index->is_reply(packet.ipv6);
  if (reply || unwrap_tunnel_error(packet)) return;
  if (packet.decided()) packet.outcome = unmatched_error(packet);
}

// A fragment, or an ICMP error.
void parse_further(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  if (packet.outcome == Outcome::fragment) {
    if (packet.family == Family::ipv4) {
      collect_fragment<Ipv4Address>(worker, snapshot, packet);
    } else {
      collect_fragment<Ipv6Address>(worker, snapshot, packet);
    }
  }
  if (packet.icmp_error) look_into_tunnel(snapshot, packet);
}

// ---- Classify: to a service, from a real server, or the kernel's ----

template <class Address>
[[gnu::noinline]] void classify_error(const Snapshot& snapshot, Packet& packet,
                                      FlowKey<Address>& key) noexcept {
  const ServiceIndex& index = *snapshot.index;
  if (index.is_reply(key)) {
    key.direction = Direction::reply;
  } else if (index.is_service_address(key.destination) ||
             snapshot.marks->mark_of(key, packet.port) != 0) {
    key.direction = Direction::inbound;
  } else {
    packet.outcome = is_unwrapped(packet) ? Outcome::kernel_icmp : unmatched_error(packet);
  }
}

template <class Address>
[[gnu::always_inline]] inline void classify(const Snapshot& snapshot, Packet& packet) noexcept {
  const ServiceIndex& index = *snapshot.index;
  auto& key = packet.key<Address>();
  // An error has a connection or none; nothing is scheduled for it.
  if (packet.icmp_error) [[unlikely]] {
    classify_error(snapshot, packet, key);
    return;
  }
  const std::uint32_t mark = snapshot.marks->mark_of(key, packet.port);
  // A rule may fit the replies of its own service, too.
  const bool marked_reply = mark != 0 && index.is_reply(key);
  packet.service = marked_reply ? ServiceIndex::kNoService : index.find_service(key, mark);
  if (packet.service != ServiceIndex::kNoService) {
    key.direction = Direction::inbound;
  } else if (marked_reply || index.is_reply(key)) {
    key.direction = Direction::reply;
  } else {
    packet.outcome = Outcome::kernel_not_a_service;
  }
}

// ---- Owner: the client's address and port decide which worker has the connection ----

template <class Address>
void find_owner(const WorkerState& worker, Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  const bool inbound = key.direction == Direction::inbound;
  if (packet.errand.kind == Errand::Kind::question) {
    if (inbound) return;
    packet.errand.kind = Errand::Kind::none;  // what it asked for has become something else
  }
  const unsigned owner = inbound ? worker.owners->owner(key.source, key.source_port)
                                 : worker.owners->owner(key.destination, key.destination_port);
  if (owner == worker.index) return;
  packet.owner = static_cast<std::uint16_t>(owner);
  packet.outcome = Outcome::handed_to_owner;
}

// ---- Existing connections: may the packet use it (ip_vs_in) ----

// is_new_conn_expected of ip_vs_core.c.
template <class Address>
bool is_over(const Settings& settings, const Connection<Address>& connection) noexcept {
  // Never one that a persistence template controls.
  if (connection.controller != kNoController) return false;
  if (connection.protocol == Protocol::sctp) return connection.sctp_state() == SctpState::closed;
  const TcpState state = connection.tcp_state();
  return state == TcpState::time_wait || state == TcpState::close ||
         ((settings.conn_reuse_mode & 2U) != 0 && state == TcpState::fin_wait &&
          !connection.has(kOutputSeen));
}

// A SYN or INIT on a connection that is over starts a new one (conn_reuse_mode), with
// expire_nodest_conn also one on a connection to a real server that takes no new ones, and a SYN
// that a proxied connection cannot take over (client_address.h), on one that is being reset, or
// that comes from the connection's real server, itself a director.
template <class Address>
bool starts_anew(const Snapshot& snapshot, ConnectionTable<Address>& table,
                 const RealServer* server, const Packet& packet) noexcept {
  if (!packet.begins) [[likely]]
    return false;
  const Settings& settings = *snapshot.settings;
  const Connection<Address>& connection = table[packet.connection];
  if (server != nullptr && leads_back<Address>(snapshot, *server, packet)) return true;
  if (settings.expire_nodest_conn && server != nullptr && server->weight == 0) return true;
  if (settings.conn_reuse_mode != 0 && is_over(settings, connection)) return true;
  if (connection.has(kReset)) return true;
  const bool shifted = connection.protocol == Protocol::tcp &&
                       connection.mode() == ForwardMode::fullnat &&
                       is_active(table.shift(packet.connection));
  return shifted && starts_anew(packet, table.shift(packet.connection));
}

// Tells the sender that there is nothing more at the other end.
template <class Address>
void reset_end(const Snapshot& snapshot, Packet& packet) noexcept {
  packet.outcome = Outcome::drop_server_removed;
  reset_sender<Address>(snapshot, packet);
}

// What the service wants for the connections of a real server that is gone, where it wants anything
// but what the settings say for all.
template <class Address>
void apply_gone_server_policy(const Snapshot& snapshot, Connection<Address>& connection,
                              Packet& packet) noexcept {
  const GoneServer policy = snapshot.services[connection.service_slot]->gone_server;
  if (policy == GoneServer::keep) return;
  if (policy == GoneServer::drop) {
    packet.outcome = Outcome::drop_server_removed;
    return;
  }
  set_field(connection.flags, static_cast<std::uint16_t>(connection.flags | kReset));
  reset_end<Address>(snapshot, packet);
}

template <class Address>
void check_connection(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  auto& table = worker.table<Address>();
  Connection<Address>& connection = table[packet.connection];
  const RealServer* server = snapshot.servers[connection.server_slot];
  const bool gone = server == nullptr || !server->available;
  if (starts_anew(snapshot, table, server, packet) ||
      (gone && ends_with_server(snapshot, connection))) {
    if (close_connection<Address>(worker, snapshot, packet.connection)) {
      packet.connection = kNoConnection;
    } else {
      packet.outcome = Outcome::drop_server_removed;
    }
  } else if (connection.has(kReset)) {
    reset_end<Address>(snapshot, packet);
  } else if (gone) [[unlikely]] {
    apply_gone_server_policy(snapshot, connection, packet);
  }
}

// Sets packet.server where the packet can only answer a datagram that was scheduled alone.
template <class Address>
bool answers_one_packet(const Snapshot& snapshot, Packet& packet) noexcept {
  if (packet.icmp_error) return false;
  packet.server = snapshot.index->one_packet_server(packet.key<Address>());
  return packet.server < snapshot.servers.size() && snapshot.servers[packet.server] != nullptr;
}

// is_tcp_reset and is_sctp_abort of ip_vs_core.c.
template <class Address>
bool says_over(const Packet& packet) noexcept {
  if (packet.key<Address>().protocol == Protocol::sctp) {
    return packet.sctp_event == SctpEvent::abort;
  }
  return (packet.tcp_flags & TcpHeader::kRst) != 0;
}

// As a router that finds out when it forwards, its hop counted.
template <class Address>
void answer_unmatched(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const bool hops = packet.hops_left > 1;
  if (hops) decrement_hops<Address>(packet);
  answer<Address>(worker, snapshot, packet,
                  hops ? IcmpError::port_unreachable : IcmpError::time_exceeded, 0,
                  Outcome::drop_no_connection_unanswered);
}

template <class Address>
void check_reply(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  if (packet.connection == kNoConnection) {
    if (answers_one_packet<Address>(snapshot, packet)) return;
    packet.outcome = Outcome::kernel_reply_unmatched;
    if (snapshot.settings->nat_icmp_send && !says_over<Address>(packet)) {
      answer_unmatched<Address>(worker, snapshot, packet);
    }
    return;
  }
  // Those of a removed real server pass (IPVS), unless the connection is to be reset.
  if (worker.table<Address>()[packet.connection].has(kReset)) reset_end<Address>(snapshot, packet);
}

template <class Address>
[[gnu::always_inline]] inline void find_or_open(WorkerState& worker, const Snapshot& snapshot,
                                                Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  packet.connection = worker.table<Address>().find(packet.lookup, key);
  if (key.direction == Direction::reply) {
    check_reply<Address>(worker, snapshot, packet);
    return;
  }
  if (packet.connection != kNoConnection) check_connection<Address>(worker, snapshot, packet);
  if (packet.connection == kNoConnection) open_connection<Address>(worker, snapshot, packet);
}

// ---- Counting and state ----

// The table of the protocol's state machine for packets of this direction; notes that the server
// has been seen.
template <class StateDirection, class Address>
StateDirection state_direction(Connection<Address>& connection, Direction direction) noexcept {
  if (direction == Direction::inbound) {
    return connection.has(kOutputSeen) ? StateDirection::input : StateDirection::input_only;
  }
  if (!connection.has(kOutputSeen)) {
    set_field(connection.flags, static_cast<std::uint16_t>(connection.flags | kOutputSeen));
  }
  return StateDirection::output;
}

// Rare, and apart so that the packets that change nothing pay nothing for it.
template <class Address>
[[gnu::noinline]] void enter_state(WorkerState& worker, const Snapshot& snapshot,
                                   Connection<Address>& connection, std::uint8_t state,
                                   bool established, bool active) noexcept {
  set_field(connection.state, state);
  if (established) assure_template(worker, connection);
  if (active != connection.has(kInactive)) return;
  set_field(connection.flags, static_cast<std::uint16_t>(connection.flags ^ kInactive));
  count_activity(worker, snapshot, connection);
}

// set_tcp_state of ip_vs_proto_tcp.c.
template <class Address>
void advance_tcp(WorkerState& worker, const Snapshot& snapshot, Connection<Address>& connection,
                 Direction from, const Packet& packet) noexcept {
  const auto direction = state_direction<TcpDirection>(connection, from);
  const TcpState before = connection.tcp_state();
  const TcpState after = next_tcp_state(before, direction, tcp_event(packet.tcp_flags));
  if (after == before) [[likely]]
    return;
  enter_state(worker, snapshot, connection, static_cast<std::uint8_t>(after),
              after == TcpState::established, kTcpStateActive[static_cast<std::size_t>(after)]);
}

// set_sctp_state of ip_vs_proto_sctp.c.
template <class Address>
void advance_sctp(WorkerState& worker, const Snapshot& snapshot, Connection<Address>& connection,
                  Direction from, const Packet& packet) noexcept {
  const auto direction = state_direction<SctpDirection>(connection, from);
  const SctpState before = connection.sctp_state();
  const SctpState after = next_sctp_state(before, direction, packet.sctp_event);
  if (after == before) return;
  const bool established = after == SctpState::established;
  enter_state(worker, snapshot, connection, static_cast<std::uint8_t>(after), established,
              established);
}

// `index` is the connection's, which a translated packet has in the other family's table.
template <class Address>
[[gnu::always_inline]] inline void track(WorkerState& worker, const Snapshot& snapshot,
                                         Connection<Address>& connection, std::uint32_t index,
                                         Direction from, const Packet& packet) noexcept {
  count_packet(worker, connection.server_slot, from, packet);
  if (connection.protocol == Protocol::tcp) [[likely]] {
    advance_tcp(worker, snapshot, connection, from, packet);
  } else if (connection.protocol == Protocol::sctp) {
    advance_sctp(worker, snapshot, connection, from, packet);
  } else if (from == Direction::reply) {
    if (connection.state != kUdpAnswered) set_field(connection.state, kUdpAnswered);
    assure_template(worker, connection);
  }
  const std::uint32_t seconds = timeout_of(*snapshot.settings, connection);
  if (from == Direction::inbound) {
    set_field(connection.packets_in, connection.packets_in + 1);
  }
  worker.table<Address>().set_deadline(index, worker.now + seconds * kTicksPerSecond);
}

// ---- Forward ----

template <class Address>
void forward_by_tunnel(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                       const RealServer& server) noexcept {
  const IpAddress source = tunnel_source(snapshot, server);
  if (source.is_unspecified()) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  // Without path MTU discovery a packet too big for its tunnel is cut like any other.
  if (!snapshot.settings->pmtu_disc && packet.family == Family::ipv4) packet.dont_fragment = false;
  const std::uint16_t mtu = tunnel_mtu(worker, snapshot, packet, server.slot);
  const int overhead = tunnel_overhead(server.tunnel, server.address.family());
  if (!may_forward<Address>(worker, snapshot, packet, mtu, overhead)) return;
  packet.outcome = encapsulate(packet, server.tunnel, source, server.address, worker.next_ip_id++);
  if (!packet.decided()) packet.outcome = Outcome::tun_to_server;
}

template <class Address>
void forward_by_nat(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                    const RealServer& server, Be16 port) noexcept {
  if (!may_forward<Address>(worker, snapshot, packet)) return;
  rewrite_destination(packet, address_of<Address>(server.address), port);
  packet.outcome = Outcome::nat_to_server;
}

// `mode` and `port` are the connection's: an edit of its real server does not change how it goes.
template <class Address>
[[gnu::always_inline]] inline void forward_to_server(WorkerState& worker, const Snapshot& snapshot,
                                                     Packet& packet, const RealServer& server,
                                                     ForwardMode mode, Be16 port) noexcept {
  if (mode == ForwardMode::local) {
    packet.outcome = Outcome::kernel_local;
    return;
  }
  if (!go_to_server(snapshot, packet, server)) {
    answer<Address>(worker, snapshot, packet, IcmpError::no_route, 0, Outcome::drop_no_route);
    return;
  }
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
      if (!may_forward<Address>(worker, snapshot, packet)) return;
      packet.outcome = Outcome::dr_to_server;
      break;
  }
}

template <class Address>
void forward_to_client(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  Connection<Address>& connection = worker.table<Address>()[packet.connection];
  if (!route_reply(snapshot, connection, packet)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  if (!may_forward<Address>(worker, snapshot, packet)) return;
  if (connection.mode() == ForwardMode::fullnat) {
    rewrite_to_fullnat_client<Address>(worker, snapshot, packet);
    return;
  }
  rewrite_source(packet, connection.virtual_address, connection.virtual_port);
  packet.outcome = Outcome::nat_to_client;
}

template <class Address>
[[gnu::always_inline]] inline void forward(WorkerState& worker, const Snapshot& snapshot,
                                           const Connection<Address>& connection,
                                           Packet& packet) noexcept {
  if (packet.key<Address>().direction == Direction::reply) {
    forward_to_client<Address>(worker, snapshot, packet);
    return;
  }
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
  if (!may_forward<Address>(worker, snapshot, packet)) return;
  // A service for all ports is reached at the port that the server has been asked at.
  const Be16 port = service.key.port != 0 ? Be16::from_host(service.key.port) : key.source_port;
  rewrite_source(packet, address_of<Address>(service.key.address), port);
  packet.outcome = Outcome::nat_to_client;
}

// ---- Nobody to serve it ----

template <class Address>
void refuse(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
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

// The first fragment of a datagram that the others have not followed in time (RFC 792, RFC 4443
// section 3.3). Not where an ICMP error may lie behind further headers.
template <class Address>
void answer_incomplete(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  auto& key = packet.key<Address>();
  packet.outcome = Outcome::drop_fragment_timeout;
  const bool transport = static_cast<std::uint8_t>(key.protocol) != kIpv6DestinationOptions;
  if (!transport || !may_be_served<Address>(snapshot, packet)) return;
  key.direction = is_inbound(*snapshot.index, key) ? Direction::inbound : Direction::reply;
  answer<Address>(worker, snapshot, packet, IcmpError::reassembly_time_exceeded, 0, packet.outcome);
}

constexpr auto kAnswerIncomplete = []<class Address>(WorkerState& worker, const Snapshot& snapshot,
                                                     Packet& packet) noexcept {
  answer_incomplete<Address>(worker, snapshot, packet);
};

// ---- Serve ----

// dr and tun send a client's error on as they do its packets.
template <class Address>
bool goes_as_it_is(const Connection<Address>& connection, const Packet& packet) noexcept {
  const ForwardMode mode = connection.mode();
  return packet.key<Address>().direction == Direction::inbound && !is_unwrapped(packet) &&
         mode != ForwardMode::nat && mode != ForwardMode::fullnat;
}

// An ICMP error follows the packet that it quotes; it changes nothing of the connection.
template <class Address>
void serve_error(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  packet.connection = worker.table<Address>().find(packet.lookup, packet.key<Address>());
  if (packet.connection == kNoConnection) {
    packet.outcome = Outcome::kernel_icmp;
    return;
  }
  const Connection<Address>& connection = worker.table<Address>()[packet.connection];
  if (!goes_as_it_is(connection, packet)) {
    forward_error<Address>(worker, snapshot, packet);
    return;
  }
  count_packet(worker, connection.server_slot, Direction::inbound, packet);
  if (snapshot.servers[connection.server_slot]->available) {
    forward(worker, snapshot, connection, packet);
  } else {
    packet.outcome = Outcome::drop_server_removed;
  }
}

// The reply of a real server of another family than its service (NAT64). It was found by a record
// that names the connection in the other table.
template <class Address>
void serve_translated(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const std::uint32_t index = worker.table<Address>()[packet.connection].controller;
  auto& connection = worker.table<OtherFamily<Address>>()[index];
  track(worker, snapshot, connection, index, Direction::reply, packet);
  forward_translated<Address>(worker, snapshot, packet, index);
}

template <class Address>
[[gnu::always_inline]] inline void serve(WorkerState& worker, const Snapshot& snapshot,
                                         Packet& packet) noexcept {
  if (packet.icmp_error) [[unlikely]] {
    serve_error<Address>(worker, snapshot, packet);
    return;
  }
  if (packet.errand.kind == Errand::Kind::question) [[unlikely]] {
    answer_question<Address>(worker, snapshot, packet);
  } else {
    find_or_open<Address>(worker, snapshot, packet);
  }
  if (packet.decided()) {
    if (packet.outcome == Outcome::drop_no_server_unanswered) {
      refuse<Address>(worker, snapshot, packet);
    }
    return;
  }
  if (packet.connection == kNoConnection) {
    forward_alone<Address>(worker, snapshot, packet);
    return;
  }
  auto& connection = worker.table<Address>()[packet.connection];
  if (connection.has(kCompanion)) {
    serve_translated<Address>(worker, snapshot, packet);
    return;
  }
  const Direction from = packet.key<Address>().direction;
  track(worker, snapshot, connection, packet.connection, from, packet);
  forward(worker, snapshot, connection, packet);
}

// What was chosen for packets that have come to nothing, or have found a connection by now.
void forget_answers(WorkerState& worker, std::span<const Packet> burst) noexcept {
  for (const Packet& packet : burst) {
    if (packet.outcome != Outcome::handed_to_owner) forget_answer(worker, packet);
  }
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

// ---- The three stages, each a loop of its own ----

constexpr auto kLookUp = []<class Address>(WorkerState& worker, const Snapshot& snapshot,
                                           Packet& packet) noexcept {
  classify<Address>(snapshot, packet);
  if (worker.workers != 1 && !packet.decided()) find_owner<Address>(worker, packet);
  if (packet.decided()) return;
  packet.lookup = worker.table<Address>().start(packet.key<Address>());
};
constexpr auto kFetch = []<class Address>(WorkerState& worker, Packet& packet) noexcept {
  worker.table<Address>().fetch(packet.lookup);
};
constexpr auto kServe = []<class Address>(WorkerState& worker, const Snapshot& snapshot,
                                          Packet& packet) noexcept {
  serve<Address>(worker, snapshot, packet);
  if (is_forwarded(packet.outcome)) address_frame(snapshot, packet);
};

[[gnu::noinline]] void identify_unusual(WorkerState& worker, const Snapshot& snapshot,
                                        Packet& packet) noexcept {
  parse_further(worker, snapshot, packet);
  with_family(packet, kLookUp, worker, snapshot);
}

// `ports` has a bit for each port whose frames may have unfinished checksums.
bool may_be_unfinished(std::uint32_t ports, const Packet& packet) noexcept {
  return (ports >> packet.port & 1U) != 0 && !packet.decided() && !packet.icmp_error;
}

// What the packets are; asks for the buckets of their connections.
[[gnu::noinline]] void identify(WorkerState& worker, const Snapshot& snapshot,
                                std::span<Packet> burst) noexcept {
  const std::uint32_t unfinished = worker.unfinished_checksum_ports;
  for (Packet& packet : burst) {
    parse_frame(packet, snapshot.ports->macs[packet.port]);
    if (may_be_unfinished(unfinished, packet)) [[unlikely]]
      finish_checksum(packet);
    if (packet.decided() || packet.icmp_error) [[unlikely]] {
      identify_unusual(worker, snapshot, packet);
    } else {
      with_family(packet, kLookUp, worker, snapshot);
    }
  }
}

// Asks for the connections.
[[gnu::noinline]] void fetch_connections(WorkerState& worker, std::span<Packet> burst) noexcept {
  for (Packet& packet : burst) {
    with_family(packet, kFetch, worker);
  }
}

// Packet by packet, so that each sees what the one before it changed.
[[gnu::noinline]] void finish(WorkerState& worker, const Snapshot& snapshot,
                              std::span<Packet> burst) noexcept {
  for (Packet& packet : burst) {
    with_family(packet, kServe, worker, snapshot);
  }
}

}  // namespace

void process_burst(WorkerState& worker, const Snapshot& snapshot,
                   std::span<Packet> burst) noexcept {
  for (const Packet& packet : burst) __builtin_prefetch(packet.frame);
  identify(worker, snapshot, burst);
  fetch_connections(worker, burst);
  finish(worker, snapshot, burst);
  if (worker.workers != 1) forget_answers(worker, burst);
  count_outcomes(worker, burst);
}

void expire_connections(WorkerState& worker, const Snapshot& snapshot, unsigned budget) noexcept {
  worker.ipv4.advance(worker.now, budget, [&](std::uint32_t index) {
    close_connection<Ipv4Address>(worker, snapshot, index);
  });
  worker.ipv6.advance(worker.now, budget, [&](std::uint32_t index) {
    close_connection<Ipv6Address>(worker, snapshot, index);
  });
  drop_entries(worker, snapshot);
}

std::size_t expire_fragments(WorkerState& worker, const Snapshot& snapshot,
                             std::span<Packet> expired) noexcept {
  const std::size_t count = worker.reassembly.expire(worker.now, expired);
  for (Packet& packet : expired.first(count)) {
    parse_frame(packet, snapshot.ports->macs[packet.port]);
    const bool first_came = packet.outcome == Outcome::fragment;
    packet.outcome = first_came ? Outcome::undecided : Outcome::drop_fragment_timeout;
    with_family(packet, kAnswerIncomplete, worker, snapshot);
    if (is_forwarded(packet.outcome)) address_frame(snapshot, packet);
  }
  count_outcomes(worker, expired.first(count));
  return count;
}

void adopt_snapshot(WorkerState& worker, const Snapshot& snapshot) noexcept {
  worker.edits.left = snapshot.edited.size();
  begin_gone_server_walk(worker, snapshot);
}

void replay_some_edits(WorkerState& worker, const Snapshot& snapshot) noexcept {
  EditReplay& replay = worker.edits;
  for (unsigned budget = kReplayBudget; budget != 0 && replay.left != 0; --budget) {
    replay.next %= snapshot.edited.size();
    const Service* service = snapshot.services[snapshot.edited[replay.next]];
    if (service != nullptr) {
      WorkerScheduler& state = (*service->schedulers)[worker.index];
      budget -= std::min(budget - 1, replay_edits(state, *service, budget));
      if (state.edits_applied.read() < service->end_of_edits()) return;
    }
    ++replay.next;
    --replay.left;
  }
}

}  // namespace weir
