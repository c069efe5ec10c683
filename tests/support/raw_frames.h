// SPDX-License-Identifier: Apache-2.0
// Frames of any protocol, layer by layer, from a neighbour of BurstLab's client side.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>

#include "dataplane/net/checksum.h"
#include "dataplane/net/wire_headers.h"
#include "tests/support/recordings.h"

namespace weir::test {

inline const MacAddress kNeighbourMac = *MacAddress::parse("02:00:00:00:0c:02");
inline const std::string kNeighbour4 = "10.8.0.2";
inline const std::string kNeighbour6 = "2001:db8:8::2";

template <class Header>
Bytes in_front_of(const Header& header, const Bytes& payload) {
  Bytes packet;
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&header);
  std::copy_n(bytes, sizeof header, std::back_inserter(packet));
  std::copy(payload.begin(), payload.end(), std::back_inserter(packet));
  return packet;
}

inline Bytes ethernet_frame(const MacAddress& to, std::uint16_t type, const Bytes& payload) {
  return in_front_of(EthernetHeader{to, kNeighbourMac, Be16::from_host(type)}, payload);
}

inline Bytes tagged_frame(const MacAddress& to, std::uint16_t vlan, std::uint16_t type,
                          const Bytes& payload) {
  const VlanTag tag{Be16::from_host(vlan), Be16::from_host(type)};
  return ethernet_frame(to, kEtherTypeVlan, in_front_of(tag, payload));
}

inline Bytes ipv4_packet(std::uint8_t protocol, const std::string& from, const std::string& to,
                         const Bytes& payload, std::uint16_t fragment = 0) {
  Ipv4Header ip{0x45,
                0,
                Be16::from_host(static_cast<std::uint16_t>(sizeof ip + payload.size())),
                Be16{},
                Be16::from_host(fragment),
                255,
                static_cast<Protocol>(protocol),
                Be16{},
                IpAddress::parse(from)->ipv4(),
                IpAddress::parse(to)->ipv4()};
  ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
  return in_front_of(ip, payload);
}

inline Bytes ipv6_packet(std::uint8_t next, const std::string& from, const std::string& to,
                         const Bytes& payload) {
  const Ipv6Header ip{
      Be32::from_host(6U << 28),      Be16::from_host(static_cast<std::uint16_t>(payload.size())),
      static_cast<Protocol>(next),    255,
      IpAddress::parse(from)->ipv6(), IpAddress::parse(to)->ipv6()};
  return in_front_of(ip, payload);
}

// With a right checksum, of IPv4.
inline Bytes icmp_message(IcmpHeader header, const Bytes& quoted = {}) {
  header.checksum = Be16{};
  const Bytes blank = in_front_of(header, quoted);
  header.checksum = checksum_finish(checksum_add(blank.data(), blank.size()));
  return in_front_of(header, quoted);
}

}  // namespace weir::test
