// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/tunnel/tunnel_error.h"

#include <algorithm>
#include <cstddef>
#include <optional>

#include "dataplane/net/wire_headers.h"
#include "dataplane/path/icmp/icmp_error.h"
#include "dataplane/path/icmp/icmp_quote.h"
#include "dataplane/path/tunnel/tunnel.h"

namespace weir {
namespace {

constexpr std::uint16_t kLeastIpv4Mtu = 68;
constexpr std::uint16_t kLeastIpv6Mtu = 1280;

constexpr Family family_of(std::uint8_t first_byte) noexcept {
  return first_byte >> 4U == 4 ? Family::ipv4 : Family::ipv6;
}

template <class Address>
void set_key(Packet& packet, const Quote& inner) noexcept {
  const auto& ip = *reinterpret_cast<const IpHeaderOf<Address>*>(inner.ip);
  // TCP, UDP and SCTP begin alike: source port, destination port.
  const auto& ports = *reinterpret_cast<const UdpHeader*>(inner.transport);
  auto& key = packet.key<Address>();
  key.source = ip.source;
  key.destination = ip.destination;
  key.source_port = ports.source_port;
  key.destination_port = ports.destination_port;
  key.protocol = inner.protocol;
  if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
    packet.hops_left = ip.ttl;
    packet.dont_fragment = (ip.fragment.host() & Ipv4Header::kDontFragment) != 0;
  } else {
    packet.hops_left = ip.hop_limit;
    packet.dont_fragment = true;
  }
}

template <class Address>
bool unwrap(Packet& packet, Reader bytes) noexcept {
  constexpr Family kFamily = sizeof(Address) == sizeof(Ipv4Address) ? Family::ipv4 : Family::ipv6;
  const std::optional<Quote> inner = read_quote<Address>(bytes);
  if (!inner || !has_ports(*inner)) return false;
  set_key<Address>(packet, *inner);
  packet.family = kFamily;
  packet.ip = inner->ip;
  packet.transport = inner->transport;
  const std::uint8_t* const end = inner->transport + inner->transport_bytes;
  packet.ip_length = static_cast<std::uint32_t>(end - inner->ip);
  packet.outcome = Outcome::undecided;
  return true;
}

// What the client is told: type and code as they came. Nothing: it is told nothing.
std::optional<IcmpHeader> header_for_ipv4(const IcmpHeader& came, const Packet& packet,
                                          std::uint16_t overhead) noexcept {
  if (came.type == kIcmpParameterProblem) return std::nullopt;
  IcmpHeader header{came.type, came.code, Be16{}, Be16{}, Be16{}};
  if (came.type != kIcmpDestinationUnreachable || came.code != kIcmpCodeFragmentationNeeded) {
    return header;
  }
  const std::uint16_t mtu = came.mtu.host();
  if (!packet.dont_fragment || mtu < kLeastIpv4Mtu + overhead) return std::nullopt;
  header.mtu = Be16::from_host(static_cast<std::uint16_t>(mtu - overhead));
  return header;
}

std::optional<IcmpHeader> header_for_ipv6(const IcmpHeader& came, std::uint16_t overhead) noexcept {
  if (came.type == kIcmpv6ParameterProblem) return std::nullopt;
  IcmpHeader header{came.type, came.code, Be16{}, Be16{}, Be16{}};
  if (came.type != kIcmpv6PacketTooBig) return header;
  // No path MTU has more than 16 bits.
  const unsigned mtu = came.unused == Be16{} ? came.mtu.host() : 0xffffU;
  header.mtu = Be16::from_host(static_cast<std::uint16_t>(
      std::max<unsigned>(kLeastIpv6Mtu, mtu - std::min<unsigned>(mtu, overhead))));
  return header;
}

}  // namespace

bool unwrap_tunnel_error(Packet& packet) noexcept {
  const std::uint8_t* const end = packet.ip + packet.ip_length;
  const auto quoted = static_cast<std::size_t>(end - packet.quote);
  const auto tunnel = parse_tunnel_quote({packet.quote, quoted});
  if (!tunnel || tunnel->inner == 0) return false;
  std::uint8_t* const inner = packet.quote + tunnel->inner;
  const Reader bytes(inner, quoted - tunnel->inner);
  return family_of(*inner) == Family::ipv4 ? unwrap<Ipv4Address>(packet, bytes)
                                           : unwrap<Ipv6Address>(packet, bytes);
}

bool become_error_of_tunnelled(Packet& packet, std::uint16_t overhead, std::uint16_t id) noexcept {
  const bool v4 = packet.family == Family::ipv4;
  if (family_of(*packet.quote) != packet.family) return false;
  const auto came = load<IcmpHeader>(packet.quote - sizeof(IcmpHeader));
  const std::optional<IcmpHeader> header =
      v4 ? header_for_ipv4(came, packet, overhead) : header_for_ipv6(came, overhead);
  if (!header) return false;
  const IpAddress source =
      v4 ? IpAddress(packet.ipv4.destination) : IpAddress(packet.ipv6.destination);
  return become_icmp_error(packet, *header, source, id);
}

}  // namespace weir
