// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/router.h"

#include "dataplane/path/reset.h"

namespace weir {

bool route(const Snapshot& snapshot, Packet& packet, const IpAddress& destination) noexcept {
  const Routes::Decision decision = snapshot.routes->find(destination, path_hash(destination));
  packet.neighbour_known = decision.answer == Routes::Answer::found;
  packet.next_hop = decision.next_hop;
  packet.out_interface = decision.interface;
  packet.neighbour = destination;
  return packet.neighbour_known || decision.answer == Routes::Answer::missing;
}

template <class Address>
bool route_reply_anew(const Snapshot& snapshot, Connection<Address>& connection,
                      Packet& packet) noexcept {
  if (!route(snapshot, packet, connection.client)) return false;
  if (packet.neighbour_known && packet.next_hop < 1U << kNextHopBits) {
    const std::uint32_t generation = snapshot.routes->generation();
    set_field(connection.reply_next_hop, generation << kNextHopBits | packet.next_hop);
    set_field(connection.flags, static_cast<std::uint16_t>(connection.flags | kReplyHopCached));
  }
  return true;
}

namespace {

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
  if (packet.icmp_error || !route(snapshot, packet, packet.key<Address>().source)) return;
  if (!become_reset(packet)) return;
  packet.outcome = Outcome::reset_sent;
}

template <class Address>
void answer_expired(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  answer<Address>(worker, snapshot, packet, IcmpError::time_exceeded, 0,
                  Outcome::drop_ttl_expired_unanswered);
}

template <class Address>
void answer_too_big(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                    std::uint16_t mtu) noexcept {
  // The error quotes the packet as Linux had it: IPVS has counted the hop of one to a server
  // before it measures, the host's routing of a reply has not.
  if (packet.key<Address>().direction == Direction::inbound) decrement_hops<Address>(packet);
  answer<Address>(worker, snapshot, packet, IcmpError::too_big, mtu, Outcome::drop_too_big);
}

template bool route_reply_anew(const Snapshot&, Connection<Ipv4Address>&, Packet&) noexcept;
template bool route_reply_anew(const Snapshot&, Connection<Ipv6Address>&, Packet&) noexcept;
template void answer<Ipv4Address>(WorkerState&, const Snapshot&, Packet&, IcmpError, std::uint16_t,
                                  Outcome) noexcept;
template void answer<Ipv6Address>(WorkerState&, const Snapshot&, Packet&, IcmpError, std::uint16_t,
                                  Outcome) noexcept;
template void reset_sender<Ipv4Address>(const Snapshot&, Packet&) noexcept;
template void reset_sender<Ipv6Address>(const Snapshot&, Packet&) noexcept;
template void answer_expired<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void answer_expired<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void answer_too_big<Ipv4Address>(WorkerState&, const Snapshot&, Packet&,
                                          std::uint16_t) noexcept;
template void answer_too_big<Ipv6Address>(WorkerState&, const Snapshot&, Packet&,
                                          std::uint16_t) noexcept;

}  // namespace weir
