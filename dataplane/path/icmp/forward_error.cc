// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/icmp/forward_error.h"

#include "dataplane/path/fullnat/fullnat.h"
#include "dataplane/path/fullnat/translate.h"
#include "dataplane/path/icmp/icmp_rewrite.h"
#include "dataplane/path/icmp/path_mtu.h"
#include "dataplane/path/router.h"
#include "dataplane/path/tunnel/tunnel.h"
#include "dataplane/path/tunnel/tunnel_error.h"

namespace weir {
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
    to.proxied = connection.has(kProxied);
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
  if (!go_to_server(snapshot, packet, server)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  if (!may_forward<Address>(worker, snapshot, packet)) return;
  packet.outcome =
      connection.mode() == ForwardMode::nat ? Outcome::nat_to_server : Outcome::fullnat_to_server;
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
  if (!may_forward<Address>(worker, snapshot, packet)) return;
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
  learn_path_mtu(worker, snapshot, packet, *server);
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
  if (!may_forward<Address>(worker, snapshot, packet)) return;
  error_through_nat<Address>(worker, packet);
  packet.outcome = connection.mode() == ForwardMode::fullnat ? Outcome::fullnat_to_client
                                                             : Outcome::nat_to_client;
}

template void forward_error<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void forward_error<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;

}  // namespace weir
