// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/fullnat/fullnat.h"

#include "dataplane/path/fullnat/translate.h"
#include "dataplane/path/rewrite.h"
#include "dataplane/path/router.h"

namespace weir {
namespace {

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

// Towards the client: what the real server was told besides is taken back.
template <class Address>
bool take_back(const Snapshot& snapshot, const Connection<Address>& connection,
               SequenceShift& shift, Packet& packet) noexcept {
  const bool active = is_active(shift);
  if (active && !pass_to_client(packet, shift)) return false;
  if ((packet.tcp_flags & TcpHeader::kSyn) == 0) return true;
  const RealServer* server = snapshot.servers[connection.server_slot];
  const Way& way = snapshot.routes->way(server->way);
  if (way.state == Way::State::known && (active || connection.has(kTranslated))) {
    const std::uint16_t mtu = snapshot.routes->next_hop(way.next_hop).mtu;
    clamp_mss(packet, largest_mss(shift, server->address.family(), mtu));
  }
  return true;
}

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
void forward_by_fullnat(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  auto& table = worker.table<Address>();
  const Connection<Address>& connection = table[packet.connection];
  const std::uint16_t mtu = mtu_of(snapshot, packet);
  int overhead = proxy_overhead(connection);
  if (connection.has(kTranslated)) overhead += translation_growth(packet);
  if (!may_forward<Address>(worker, snapshot, packet, mtu, overhead)) return;
  packet.outcome = rewrite_to_server(worker, connection, packet);
  if (packet.decided()) return;
  packet.outcome = tell_client_address(connection, table.shift(packet.connection), packet, mtu);
  if (!packet.decided()) packet.outcome = Outcome::fullnat_to_server;
}

template <class Address>
void rewrite_to_fullnat_client(WorkerState& worker, const Snapshot& snapshot,
                               Packet& packet) noexcept {
  auto& table = worker.table<Address>();
  const Connection<Address>& connection = table[packet.connection];
  rewrite_source(packet, connection.virtual_address, connection.virtual_port);
  rewrite_destination(packet, connection.client, connection.client_port);
  const bool stray = connection.protocol == Protocol::tcp &&
                     !take_back(snapshot, connection, table.shift(packet.connection), packet);
  packet.outcome = stray ? Outcome::drop_stray_syn_ack : Outcome::fullnat_to_client;
}

template <class Address>
void forward_translated(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                        std::uint32_t index) noexcept {
  auto& table = worker.table<OtherFamily<Address>>();
  auto& connection = table[index];
  if (!route_reply(snapshot, connection, packet)) {
    packet.outcome = Outcome::drop_no_route;
    return;
  }
  const int growth = translation_growth(packet);
  if (!may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), growth)) return;
  packet.outcome = translate_to_client(worker, connection, packet);
  if (packet.decided()) return;
  const bool stray = connection.protocol == Protocol::tcp &&
                     !take_back(snapshot, connection, table.shift(index), packet);
  packet.outcome = stray ? Outcome::drop_stray_syn_ack : Outcome::fullnat_to_client;
}

template void forward_by_fullnat<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void forward_by_fullnat<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void rewrite_to_fullnat_client<Ipv4Address>(WorkerState&, const Snapshot&,
                                                     Packet&) noexcept;
template void rewrite_to_fullnat_client<Ipv6Address>(WorkerState&, const Snapshot&,
                                                     Packet&) noexcept;
template void forward_translated<Ipv4Address>(WorkerState&, const Snapshot&, Packet&,
                                              std::uint32_t) noexcept;
template void forward_translated<Ipv6Address>(WorkerState&, const Snapshot&, Packet&,
                                              std::uint32_t) noexcept;

}  // namespace weir
