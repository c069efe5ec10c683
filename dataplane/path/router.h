// SPDX-License-Identifier: Apache-2.0
// What weir does as a router: the way out, hops, sizes, and errors to those who sent what cannot go
// on. Worker thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dataplane/path/icmp/icmp_error.h"
#include "dataplane/path/packet.h"
#include "dataplane/path/rewrite.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// ---- The way out ----

// The way to `destination`. False: there is none through weir's ports.
bool route(const Snapshot& snapshot, Packet& packet, const IpAddress& destination) noexcept;

inline constexpr std::uint32_t kNextHopBits = 20;

template <class Address>
bool route_reply_anew(const Snapshot& snapshot, Connection<Address>& connection,
                      Packet& packet) noexcept;

// Towards the client, by the connection's cached next hop while the routes are the same.
template <class Address>
inline bool route_reply(const Snapshot& snapshot, Connection<Address>& connection,
                        Packet& packet) noexcept {
  const std::uint32_t generation = snapshot.routes->generation();
  if (connection.has(kReplyHopCached) && connection.reply_next_hop >> kNextHopBits == generation) {
    packet.next_hop = connection.reply_next_hop & ((1U << kNextHopBits) - 1);
    packet.neighbour_known = true;
    return true;
  }
  return route_reply_anew(snapshot, connection, packet);
}

// False: there is no way through weir's ports.
inline bool go_to_server(const Snapshot& snapshot, Packet& packet,
                         const RealServer& server) noexcept {
  const Way& way = snapshot.routes->way(server.way);
  packet.neighbour_known = way.state == Way::State::known;
  packet.next_hop = way.next_hop;
  if (packet.neighbour_known) [[likely]]
    return true;
  packet.out_interface = way.interface;
  packet.neighbour = server.address;
  return way.state == Way::State::to_be_met;
}

// Of the outer header of a tunnel to `server`; unspecified: there is none.
inline IpAddress tunnel_source(const Snapshot& snapshot, const RealServer& server) noexcept {
  const Routes& routes = *snapshot.routes;
  const Way& way = routes.way(server.way);
  if (way.state == Way::State::none) return {};
  const Interface& interface = routes.interfaces()[way.interface];
  const IpAddress source = server.address.is_ipv4() ? interface.ipv4_source : interface.ipv6_source;
  return source.family() == server.address.family() ? source : IpAddress{};
}

inline std::uint16_t mtu_of(const Snapshot& snapshot, const Packet& packet) noexcept {
  return packet.neighbour_known ? snapshot.routes->next_hop(packet.next_hop).mtu
                                : snapshot.routes->interfaces()[packet.out_interface].mtu;
}

// The Ethernet header of a forwarded packet, if its next hop is known; else another outcome.
inline void address_frame(const Snapshot& snapshot, Packet& packet) noexcept {
  if (!packet.neighbour_known) [[unlikely]] {
    packet.outcome = Outcome::waiting_for_neighbour;
    return;
  }
  const NextHop& next_hop = snapshot.routes->next_hop(packet.next_hop);
  if (!next_hop.resolved) [[unlikely]] {
    packet.outcome = Outcome::waiting_for_neighbour;
    packet.neighbour = next_hop.address;
    packet.out_interface = next_hop.interface;
  } else if (!write_ethernet(packet, next_hop)) {
    packet.outcome = Outcome::drop_no_headroom;
  }
}

// ---- Back to the sender ----

// An ICMP error of weir's own back to the packet's sender; `unanswered` is the outcome where none
// can be sent. `mtu` counts for too_big.
template <class Address>
void answer(WorkerState& worker, const Snapshot& snapshot, Packet& packet, IcmpError error,
            std::uint16_t mtu, Outcome unanswered) noexcept;

// A TCP reset or an SCTP ABORT back to the packet's sender; the outcome stays where none can be
// sent.
template <class Address>
void reset_sender(const Snapshot& snapshot, Packet& packet) noexcept;

// ---- Hops and sizes ----

template <class Address>
void answer_expired(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;
template <class Address>
void answer_too_big(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                    std::uint16_t mtu) noexcept;

// What a link must take in one piece, where nobody but the sender may cut.
inline int uncut_size(const Packet& packet) noexcept {
  return packet.largest_fragment != 0 ? packet.largest_fragment
                                      : static_cast<int>(packet.ip_length);
}

// As the link asks, and never larger than the packet came (IPCB(skb)->frag_max_size). 0: it leaves
// whole.
inline std::uint16_t fragment_size_of(const Packet& packet, int overhead,
                                      std::uint16_t link_mtu) noexcept {
  std::uint16_t most = link_mtu;
  if (packet.largest_fragment != 0) most = std::min(most, packet.largest_fragment);
  return static_cast<int>(packet.ip_length) + overhead > most ? most : std::uint16_t{0};
}

// What a router does before it forwards: hops, then the size of the way out, to which the packet
// grows by `overhead`. False: decided.
template <class Address>
[[gnu::always_inline]] inline bool may_forward(WorkerState& worker, const Snapshot& snapshot,
                                               Packet& packet, std::uint16_t link_mtu,
                                               int overhead) noexcept {
  if (packet.hops_left <= 1) [[unlikely]] {
    answer_expired<Address>(worker, snapshot, packet);
    return false;
  }
  if (packet.dont_fragment && uncut_size(packet) + overhead > link_mtu) [[unlikely]] {
    answer_too_big<Address>(worker, snapshot, packet,
                            static_cast<std::uint16_t>(link_mtu - overhead));
    return false;
  }
  packet.fragment_size = fragment_size_of(packet, overhead, link_mtu);
  decrement_hops<Address>(packet);
  return true;
}

// By the way that the packet has been given.
template <class Address>
[[gnu::always_inline]] inline bool may_forward(WorkerState& worker, const Snapshot& snapshot,
                                               Packet& packet) noexcept {
  return may_forward<Address>(worker, snapshot, packet, mtu_of(snapshot, packet), 0);
}

}  // namespace weir
