// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/urgency.h"

#include <algorithm>

#include "dataplane/net/reader.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

// ---- Frames that have not been read any further than their Ethernet header ----

bool is_of_link(const Ipv4Address& group) noexcept { return group.value.host() >> 8 == 0xe00000; }

bool is_of_link(const Ipv6Address& group) noexcept {
  constexpr std::uint8_t kLinkLocal = 2;
  return group.bytes[0] == 0xff && (group.bytes[1] & 0x0fU) <= kLinkLocal;
}

template <class Header>
Urgency urgency_of_group(const Reader& reader) noexcept {
  const auto* ip = reader.peek<Header>();
  return ip != nullptr && is_of_link(ip->destination) ? Urgency::link : Urgency::host;
}

// Broadcast and multicast: of IP only what stays on its link is about the link.
Urgency urgency_of_group_frame(const Packet& packet) noexcept {
  Reader reader(packet.frame, packet.length);
  const auto* ethernet = reader.peek<EthernetHeader>();
  if (ethernet == nullptr) return Urgency::host;
  std::uint16_t type = ethernet->ether_type.host();
  reader.skip(sizeof *ethernet);
  if (type == kEtherTypeVlan) {
    const auto* tag = reader.peek<VlanTag>();
    if (tag == nullptr) return Urgency::host;
    type = tag->ether_type.host();
    reader.skip(sizeof *tag);
  }
  if (type == kEtherTypeIpv4) return urgency_of_group<Ipv4Header>(reader);
  if (type == kEtherTypeIpv6) return urgency_of_group<Ipv6Header>(reader);
  return Urgency::link;
}

// ---- IP packets to one host ----

// RSVP, EIGRP, OSPF, PIM, VRRP.
constexpr std::uint8_t kRoutingProtocols[] = {46, 88, 89, 103, 112};
constexpr std::uint16_t kBgp = 179;
// RIP, RIPng, LDP, BFD (RFC 5881, 5883, 7130).
constexpr std::uint16_t kRoutingPorts[] = {520, 521, 646, 3784, 3785, 4784, 6784};
// Router and neighbour solicitations and advertisements, redirect (RFC 4861).
constexpr std::uint8_t kFirstOfDiscovery = 133;
constexpr std::uint8_t kLastOfDiscovery = 137;

template <class Range, class Value>
bool contains(const Range& range, Value value) noexcept {
  return std::find(std::begin(range), std::end(range), value) != std::end(range);
}

// Whether `transport` is what the IP header is followed by, so that ports have been read.
bool is_plain(const Packet& packet, Protocol protocol) noexcept {
  if (packet.family == Family::ipv6) {
    return reinterpret_cast<const Ipv6Header*>(packet.ip)->next_header == protocol;
  }
  const auto& ip = *reinterpret_cast<const Ipv4Header*>(packet.ip);
  return (ip.fragment.host() & (Ipv4Header::kMoreFragments | Ipv4Header::kOffsetMask)) == 0;
}

template <class Address>
bool is_routing(const Packet& packet) noexcept {
  const auto& key = packet.key<Address>();
  if (contains(kRoutingProtocols, static_cast<std::uint8_t>(key.protocol))) return true;
  if (!is_plain(packet, key.protocol)) return false;
  if (key.protocol == Protocol::tcp) {
    return key.source_port.host() == kBgp || key.destination_port.host() == kBgp;
  }
  return key.protocol == Protocol::udp && contains(kRoutingPorts, key.destination_port.host());
}

// An error is a stray if it is about a service; the host's own connections need theirs.
template <class Address>
Urgency urgency_of_icmp(const Packet& packet, const ServiceIndex& index) noexcept {
  const auto& key = packet.key<Address>();
  if (packet.icmp_error) {
    const bool served = index.is_service_address(key.destination) || index.is_reply(key);
    return served ? Urgency::stray : Urgency::host;
  }
  const bool discovery =
      key.protocol == Protocol::icmpv6 && packet.transport < packet.ip + packet.ip_length &&
      *packet.transport >= kFirstOfDiscovery && *packet.transport <= kLastOfDiscovery;
  return discovery ? Urgency::link : Urgency::host;
}

template <class Address>
Urgency urgency_of_unicast(const Packet& packet, const ServiceIndex& index) noexcept {
  if (packet.outcome == Outcome::kernel_icmp) return urgency_of_icmp<Address>(packet, index);
  const bool own = packet.outcome == Outcome::kernel_not_a_service;
  return own && is_routing<Address>(packet) ? Urgency::link : Urgency::host;
}

}  // namespace

Urgency urgency_of(const Packet& packet, const ServiceIndex& index) noexcept {
  switch (packet.outcome) {
    case Outcome::kernel_no_connection:
    case Outcome::kernel_reply_unmatched:
      return Urgency::stray;
    case Outcome::kernel_not_ip:
      return Urgency::link;
    case Outcome::kernel_foreign_vlan:
      return Urgency::host;
    case Outcome::kernel_multicast:
      return urgency_of_group_frame(packet);
    default:
      return packet.family == Family::ipv4 ? urgency_of_unicast<Ipv4Address>(packet, index)
                                           : urgency_of_unicast<Ipv6Address>(packet, index);
  }
}

}  // namespace weir
