// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/admission.h"

#include <algorithm>
#include <array>

#include "dataplane/path/fullnat/fullnat_ends.h"
#include "dataplane/path/persistence.h"
#include "dataplane/path/scheduling.h"
#include "dataplane/path/time_limits.h"

namespace weir {
namespace {

// ---- Who chooses ----

template <class Address>
unsigned chooser_of(const WorkerState& worker, const Service& service,
                    const FlowKey<Address>& flow) noexcept {
  if (worker.workers == 1) return worker.index;
  if (service.persistence.timeout != 0) return template_owner(worker, service, flow);
  if ((*service.schedulers)[worker.index].scheduler->asks_one_owner()) {
    return worker.owners->owner(flow.destination, Be16{});
  }
  return worker.index;
}

// By the client's template, which is this worker's.
template <class Address>
Choice choose_persistently(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                           const FlowKey<Address>& flow) noexcept {
  if (const auto choice = choose_by_template(worker, snapshot, service, flow)) return *choice;
  const OpenServers loads(worker.statistics, *snapshot.shared);
  const RealServer* server = pick_server(worker, snapshot, service, flow, loads);
  if (server == nullptr) return {};
  return choose_for_template(worker, service, flow, *server);
}

// ---- Closing ----

// False: a template that controls connections, or a controlled connection whose template cannot be
// told now.
template <class Address>
bool end_connection(WorkerState& worker, const Snapshot& snapshot, std::uint32_t index,
                    TemplateNotice::Kind told) noexcept {
  auto& table = worker.table<Address>();
  const auto& connection = table[index];
  if (connection.has(kCompanion)) return false;
  if (connection.has(kTemplate)) return close_template<Address>(worker, index);
  if (!release_template<Address>(worker, connection.controller, told)) return false;
  count_closed(worker, snapshot, connection);
  close_companion(worker, connection);
  table.close(index);
  return true;
}

// ---- Opening ----

// Nothing from port 20, where active FTP sends from, opens a connection. Only a SYN opens one of
// TCP, unless sloppy_tcp; a RST never does. Only an INIT opens an SCTP connection, unless
// sloppy_sctp; an ABORT never does.
bool may_open(const Settings& settings, const Packet& packet, Protocol protocol,
              Be16 source_port) noexcept {
  if (packet.icmp_error || source_port == Be16::from_host(kFtpData)) return false;
  if (protocol == Protocol::sctp) {
    return packet.sctp_event == SctpEvent::init ||
           (settings.sloppy_sctp && packet.sctp_event != SctpEvent::abort);
  }
  if (protocol != Protocol::tcp) return true;
  if ((packet.tcp_flags & TcpHeader::kRst) != 0) return false;
  return settings.sloppy_tcp || (packet.tcp_flags & TcpHeader::kSyn) != 0;
}

bool is_of_no_host(const Ipv4Address& address) noexcept {
  const std::uint32_t value = address.value.host();
  return value >> 24U == 0 || value == 0xffffffffU;
}

// ::, and IPv4 addresses written as IPv6 ones.
bool is_of_no_host(const Ipv6Address& address) noexcept {
  constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return address == Ipv6Address{} ||
         std::equal(kMapped.begin(), kMapped.end(), address.bytes.begin());
}

bool is_broadcast(const Snapshot& snapshot, const Ipv4Address& address) noexcept {
  const auto& broadcasts = snapshot.ports->broadcasts;
  return std::binary_search(
      broadcasts.begin(), broadcasts.end(), address,
      [](const Ipv4Address& a, const Ipv4Address& b) { return a.value.host() < b.value.host(); });
}

bool is_broadcast(const Snapshot& /*snapshot*/, const Ipv6Address& /*address*/) noexcept {
  return false;
}

// What Linux's routing keeps from IPVS (ip_route_input_slow, fib_validate_source, ipv6_rcv):
// addresses that no client has, and the service's own.
template <class Address>
bool is_martian(const Snapshot& snapshot, const FlowKey<Address>& key) noexcept {
  const IpAddress source = key.source;
  return key.source == key.destination || is_of_no_host(key.source) || source.is_loopback() ||
         source.is_multicast() || is_broadcast(snapshot, key.source);
}

// A service for one port takes what belongs to another, FTP's data, only where it is persistent.
bool serves_port(const Service& service, Be16 port) noexcept {
  return service.persistence.timeout != 0 || service.key.fwmark != 0 ||
         port.host() == service.key.port;
}

bool is_proxied(const Service& service, Protocol protocol, ForwardMode mode) noexcept {
  return mode == ForwardMode::fullnat && protocol == Protocol::udp &&
         service.client_address == ClientAddress::proxy;
}

template <class Address>
Connection<Address> new_connection(const WorkerState& worker, const Service& service,
                                   const FlowKey<Address>& key, const Choice& choice) noexcept {
  const RealServer& server = *choice.server;
  Connection<Address> connection{};
  connection.client = key.source;
  connection.virtual_address = key.destination;
  connection.client_port = key.source_port;
  connection.virtual_port = key.destination_port;
  connection.server_port = server_port(service, server, key.destination_port);
  // Of the other family only in a tunnel or by translation, which go by the real server's slot.
  if (server.address.is_ipv4() == (sizeof(Address) == sizeof(Ipv4Address))) {
    connection.server = address_of<Address>(server.address);
  }
  connection.protocol = key.protocol;
  connection.flags = static_cast<std::uint16_t>(static_cast<unsigned>(server.mode) | kInactive);
  if (server.mode == ForwardMode::nat) connection.flags |= kOutputSeen | kReplyIndexed;
  if (server.mode == ForwardMode::fullnat) connection.flags |= kOutputSeen;
  if (is_proxied(service, key.protocol, server.mode)) connection.flags |= kProxied;
  connection.deadline = worker.now + kTicksPerSecond;
  connection.server_slot = server.slot;
  // Not always `service`: those for FTP and for all ports share their templates.
  connection.service_slot = server.service;
  connection.controller = choice.controller;
  connection.idle_timeout = static_cast<std::uint16_t>(std::min(service.idle_timeout, 0xffffU));
  return connection;
}

// Whether a connection, whose replies would look like those of a new one, ends for it: one of a
// service or a real server that is gone, unless the service keeps such.
template <class Address>
bool gives_way(WorkerState& worker, const Snapshot& snapshot, std::uint32_t rival) noexcept {
  const Connection<Address>& connection = worker.table<Address>()[rival];
  const Service& service = *snapshot.services[connection.service_slot];
  const RealServer* server = snapshot.servers[connection.server_slot];
  const bool server_gone = server == nullptr || !server->available;
  const bool gone = service.removed || (server_gone && service.gone_server != GoneServer::keep);
  return gone && end_connection<Address>(worker, snapshot, rival, TemplateNotice::Kind::released);
}

// Sets packet.connection. Otherwise the outcome says why not.
template <class Address>
Outcome add_connection(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                       Packet& packet, const Choice& choice) noexcept {
  auto& table = worker.table<Address>();
  auto connection = new_connection(worker, service, packet.key<Address>(), choice);
  const bool fullnat = connection.mode() == ForwardMode::fullnat;
  if (fullnat) {
    const Outcome outcome = give_local_end(worker, service, *choice.server, connection);
    if (outcome != Outcome::undecided) return outcome;
  } else if (connection.has(kReplyIndexed)) {
    const std::uint32_t rival = table.find_rival(connection);
    if (rival != kNoConnection && !gives_way<Address>(worker, snapshot, rival)) {
      return Outcome::drop_reply_ambiguous;
    }
  }
  const auto index = table.open(connection);
  if (!index) {
    close_companion(worker, connection);
    return Outcome::drop_table_full;
  }
  packet.connection = *index;
  if (fullnat) settle_fullnat<Address>(worker, service, packet, *index);
  count_opened(worker, snapshot, *choice.server);
  return Outcome::undecided;
}

bool is_one_packet(const Service& service, Protocol protocol) noexcept {
  return service.one_packet && protocol == Protocol::udp;
}

// The kernel gets a packet for the director itself as it came: at another port it would reach
// something else.
bool needs_other_port(const Service& service, const RealServer& server, Be16 asked) noexcept {
  return server.mode == ForwardMode::local && server.translated &&
         server_port(service, server, asked) != asked;
}

// With what has been chosen: the connection, or the way of this packet alone.
template <class Address>
Outcome admit(WorkerState& worker, const Snapshot& snapshot, const Service& service, Packet& packet,
              const Choice& choice) noexcept {
  const auto& key = packet.key<Address>();
  if (needs_other_port(service, *choice.server, key.destination_port)) {
    return Outcome::drop_local_other_port;
  }
  // The director that it comes from has chosen this host.
  if (leads_back<Address>(snapshot, *choice.server, packet)) return Outcome::kernel_local;
  const bool alone = is_one_packet(service, key.protocol);
  // Fullnat's own end is the connection's.
  if (!alone || choice.server->mode == ForwardMode::fullnat) {
    return add_connection<Address>(worker, snapshot, service, packet, choice);
  }
  packet.server = choice.server->slot;
  worker.own().servers[packet.server].connections.add(1);
  give_back<Address>(worker, choice.controller);
  return Outcome::undecided;
}

// The UDP connection that keeps a packet from a real server, and for how long it has been idle.
struct Rival {
  const RealServer* server = nullptr;
  std::uint32_t connection = kNoConnection;
  std::int32_t idle = 0;  // ticks
};

template <class Address>
Rival rival_at(WorkerState& worker, const Snapshot& snapshot, const Service& service,
               const FlowKey<Address>& key, const RealServer& server) noexcept {
  if (key.protocol != Protocol::udp) return {};
  const auto& table = worker.table<Address>();
  const auto wanted = new_connection(worker, service, key, Choice{.server = &server});
  const std::uint32_t rival = table.find_rival(wanted);
  if (rival == kNoConnection) return {};
  return {&server, rival, idle_ticks(*snapshot.settings, table[rival], worker.now)};
}

// The rival ends for the new connection, as in IPVS the newer of two has the replies.
template <class Address>
Outcome admit_for_rival(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                        Packet& packet, const Rival& rival, Choice choice) noexcept {
  constexpr auto kReleased = TemplateNotice::Kind::released;
  if (!end_connection<Address>(worker, snapshot, rival.connection, kReleased)) {
    return Outcome::drop_reply_ambiguous;
  }
  choice.server = rival.server;
  return admit<Address>(worker, snapshot, service, packet, choice);
}

// The scheduler's choice, or the next one after it where replies would be ambiguous or the packet
// has come from. Where there is no other, the idlest UDP connection in the way ends.
template <class Address>
Outcome admit_by_scheduler(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                           Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  OpenServers loads(worker.statistics, *snapshot.shared);
  Outcome refusal = Outcome::drop_no_server_unanswered;
  Rival idlest;
  for (;;) {
    const RealServer* server = pick_server(worker, snapshot, service, key, loads);
    if (server == nullptr) break;
    refusal = admit<Address>(worker, snapshot, service, packet, Choice{.server = server});
    if (refusal == Outcome::drop_reply_ambiguous) {
      const Rival rival = rival_at(worker, snapshot, service, key, *server);
      if (rival.server != nullptr && (idlest.server == nullptr || rival.idle > idlest.idle)) {
        idlest = rival;
      }
    } else if (refusal != Outcome::kernel_local || snapshot.settings->backup_only) {
      return refusal;
    }
    if (!loads.refuse(server->slot)) break;
  }
  if (idlest.server == nullptr) return refusal;
  return admit_for_rival<Address>(worker, snapshot, service, packet, idlest, Choice{});
}

// What a template, or another worker, has chosen: there is no other real server.
template <class Address>
Outcome admit_choice(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                     Packet& packet, const Choice& choice) noexcept {
  Outcome outcome = choice.refusal;
  if (choice.server != nullptr) {
    outcome = admit<Address>(worker, snapshot, service, packet, choice);
    if (outcome == Outcome::drop_reply_ambiguous) {
      const Rival rival =
          rival_at(worker, snapshot, service, packet.key<Address>(), *choice.server);
      if (rival.server != nullptr) {
        outcome = admit_for_rival<Address>(worker, snapshot, service, packet, rival, choice);
      }
    }
  }
  if (outcome != Outcome::undecided) give_back<Address>(worker, choice.controller);
  packet.errand.kind = Errand::Kind::none;
  return outcome;
}

// What the packet has brought from the worker that chose, perhaps by a later snapshot.
Choice brought_choice(const Snapshot& snapshot, const Errand& errand) noexcept {
  const RealServer* server =
      errand.server < snapshot.servers.size() ? snapshot.servers[errand.server] : nullptr;
  const bool same =
      server != nullptr && server->generation == errand.generation && server->available;
  return {.server = same ? server : nullptr,
          .controller = errand.controller,
          .refusal = Outcome::drop_server_removed};
}

}  // namespace

Be16 server_port(const Service& service, const RealServer& server, Be16 asked) noexcept {
  const bool fixed = service.persistence.timeout == 0 || asked.host() == service.key.port;
  return fixed && server.port != Be16{} ? server.port : asked;
}

template <class Address>
bool leads_back(const Snapshot& snapshot, const RealServer& server, const Packet& packet) noexcept {
  const Way& way = snapshot.routes->way(server.way);
  if (server.mode != ForwardMode::dr || way.state != Way::State::known) return false;
  const NextHop& next_hop = snapshot.routes->next_hop(way.next_hop);
  const auto& ethernet = *reinterpret_cast<const EthernetHeader*>(packet.frame);
  return next_hop.resolved && next_hop.destination == ethernet.source &&
         server.address != IpAddress(packet.key<Address>().source);
}

template <class Address>
void open_connection(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const Service& service = *snapshot.services[packet.service];
  const auto& key = packet.key<Address>();
  if (service.removed || !may_open(*snapshot.settings, packet, key.protocol, key.source_port)) {
    packet.outcome = Outcome::kernel_no_connection;
    return;
  }
  if (!serves_port(service, key.destination_port)) {
    packet.outcome = Outcome::kernel_not_a_service;
    return;
  }
  if (is_martian(snapshot, key)) {
    packet.outcome = Outcome::drop_martian_source;
    return;
  }
  const auto& table = worker.table<Address>();
  if (table.size() == table.capacity() && !is_one_packet(service, key.protocol)) {
    packet.outcome = Outcome::drop_table_full;
    return;
  }
  if (packet.errand.kind == Errand::Kind::answer) {
    packet.outcome = admit_choice<Address>(worker, snapshot, service, packet,
                                           brought_choice(snapshot, packet.errand));
    return;
  }
  const unsigned chooser = chooser_of(worker, service, key);
  if (chooser != worker.index) {
    packet.errand.kind = Errand::Kind::question;
    packet.owner = static_cast<std::uint16_t>(chooser);
    packet.outcome = Outcome::handed_to_chooser;
  } else if (service.persistence.timeout != 0) {
    const Choice choice = choose_persistently(worker, snapshot, service, key);
    packet.outcome = admit_choice<Address>(worker, snapshot, service, packet, choice);
  } else {
    packet.outcome = admit_by_scheduler<Address>(worker, snapshot, service, packet);
  }
}

template <class Address>
void answer_question(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const Service& service = *snapshot.services[packet.service];
  const auto& key = packet.key<Address>();
  packet.errand.kind = Errand::Kind::none;
  packet.owner = static_cast<std::uint16_t>(worker.owners->owner(key.source, key.source_port));
  packet.outcome = Outcome::handed_to_owner;
  if (service.removed || chooser_of(worker, service, key) != worker.index) return;
  Choice choice;
  if (service.persistence.timeout != 0) {
    choice = choose_persistently(worker, snapshot, service, key);
  } else {
    const OpenServers loads(worker.statistics, *snapshot.shared);
    choice.server = pick_server(worker, snapshot, service, key, loads);
  }
  if (choice.server == nullptr) {
    packet.outcome = choice.refusal;
    return;
  }
  constexpr Family kFamily = sizeof(Address) == sizeof(Ipv4Address) ? Family::ipv4 : Family::ipv6;
  packet.errand = {Errand::Kind::answer, kFamily, choice.server->slot, choice.server->generation,
                   choice.controller};
}

void forget_answer(WorkerState& worker, const Packet& packet) noexcept {
  if (packet.errand.kind != Errand::Kind::answer) return;
  // Of the packet itself nothing may be known: here it may not have been parsed.
  if (packet.errand.family == Family::ipv4) {
    give_back<Ipv4Address>(worker, packet.errand.controller);
  } else {
    give_back<Ipv6Address>(worker, packet.errand.controller);
  }
}

template <class Address>
bool close_connection(WorkerState& worker, const Snapshot& snapshot, std::uint32_t index) noexcept {
  auto& table = worker.table<Address>();
  std::uint32_t more = table[index].has(kTemplate) ? kControllingTicks : kTicksPerSecond;
  if (table[index].has(kCompanion)) more = kCompanionTicks;
  if (end_connection<Address>(worker, snapshot, index, TemplateNotice::Kind::released)) return true;
  table.set_deadline(index, worker.now + more);
  return false;
}

template <class Address>
bool give_up_connection(WorkerState& worker, const Snapshot& snapshot,
                        std::uint32_t index) noexcept {
  return end_connection<Address>(worker, snapshot, index, TemplateNotice::Kind::given_up);
}

template bool leads_back<Ipv4Address>(const Snapshot&, const RealServer&, const Packet&) noexcept;
template bool leads_back<Ipv6Address>(const Snapshot&, const RealServer&, const Packet&) noexcept;
template void open_connection<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void open_connection<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void answer_question<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void answer_question<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template bool close_connection<Ipv4Address>(WorkerState&, const Snapshot&, std::uint32_t) noexcept;
template bool close_connection<Ipv6Address>(WorkerState&, const Snapshot&, std::uint32_t) noexcept;
template bool give_up_connection<Ipv4Address>(WorkerState&, const Snapshot&,
                                              std::uint32_t) noexcept;
template bool give_up_connection<Ipv6Address>(WorkerState&, const Snapshot&,
                                              std::uint32_t) noexcept;

}  // namespace weir
