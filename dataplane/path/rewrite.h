// SPDX-License-Identifier: Apache-2.0
// What forwarding changes in a packet. Checksums are updated incrementally (RFC 1624), so that a
// wrong one stays wrong; a UDP checksum of zero is computed where nat touches it, as IPVS does.
// SCTP's CRC32c likewise, by the change alone.
// All take a parsed packet; worker thread.
#pragma once

#include <cstddef>
#include <cstring>

#include "dataplane/net/wire_headers.h"
#include "dataplane/path/packet.h"
#include "dataplane/table/routes.h"

namespace weir {

// TTL or hop limit minus one (RFC 1812 section 5.3.1). The caller has checked that it is above one.
template <class Address>
inline void decrement_hops(Packet& packet) noexcept {
  if constexpr (sizeof(Address) == sizeof(Ipv6Address)) {
    --reinterpret_cast<Ipv6Header*>(packet.ip)->hop_limit;
  } else {
    auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
    --ip.ttl;
    // The TTL is the upper byte of its 16-bit word, so the checksum gains 0x0100 (RFC 1141). Added
    // in memory order, where that is 1, with the carry wrapped round.
    const unsigned sum = ip.checksum.raw() + 1U;
    ip.checksum = Be16::from_raw(static_cast<std::uint16_t>(sum + (sum >= 0xffffU ? 1U : 0U)));
  }
}

// nat: the service's address and port become the real server's, and back.
template <class Address>
void rewrite_destination(Packet& packet, const Address& address, Be16 port) noexcept;
template <class Address>
void rewrite_source(Packet& packet, const Address& address, Be16 port) noexcept;

// Makes `bytes` of room in front of the IP packet. False: there is no headroom for them.
[[nodiscard]] inline bool make_room(Packet& packet, std::size_t bytes) noexcept {
  const std::ptrdiff_t room = packet.ip - packet.frame + packet.headroom;
  if (room < static_cast<std::ptrdiff_t>(bytes)) return false;
  packet.frame = packet.ip - bytes;
  packet.headroom = static_cast<std::uint16_t>(room - static_cast<std::ptrdiff_t>(bytes));
  return true;
}

// Puts the Ethernet header, tagged where the next hop's interface is a VLAN, in front of the IP
// packet and sets the port. False: no headroom.
[[nodiscard]] inline bool write_ethernet(Packet& packet, const NextHop& next_hop) noexcept {
  const bool tagged = next_hop.vlan != 0;
  const std::size_t header = sizeof(EthernetHeader) + std::size_t{tagged} * sizeof(VlanTag);
  const bool in_place = packet.ip == packet.frame + header;
  if (!in_place && !make_room(packet, header)) return false;
  packet.length = static_cast<std::uint32_t>(header + packet.ip_length);
  packet.port = next_hop.port;
  const Be16 type =
      Be16::from_host(packet.family == Family::ipv4 ? kEtherTypeIpv4 : kEtherTypeIpv6);
  auto& ethernet = *reinterpret_cast<EthernetHeader*>(packet.frame);
  // Both addresses at once: they lie side by side in either.
  static_assert(offsetof(NextHop, source) == sizeof(MacAddress));
  std::memcpy(packet.frame, &next_hop.destination, 2 * sizeof(MacAddress));
  ethernet.ether_type = type;
  if (tagged) [[unlikely]] {
    ethernet.ether_type = Be16::from_host(kEtherTypeVlan);
    auto* tag = reinterpret_cast<VlanTag*>(packet.frame + sizeof ethernet);
    *tag = {Be16::from_host(next_hop.vlan), type};
  }
  return true;
}

}  // namespace weir
