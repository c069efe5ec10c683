// SPDX-License-Identifier: Apache-2.0
#include "dataplane/rewrite.h"

#include <cstddef>
#include <type_traits>

#include "dataplane/net/checksum.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

enum class End : std::uint8_t { source, destination };

template <class Address>
using IpHeaderOf =
    std::conditional_t<sizeof(Address) == sizeof(Ipv4Address), Ipv4Header, Ipv6Header>;

void compute_udp_checksum(Packet& packet) noexcept {
  auto& udp = *reinterpret_cast<UdpHeader*>(packet.transport);
  const std::uint32_t length = udp.length.host();
  std::uint64_t sum = 0;
  if (packet.family == Family::ipv4) {
    const auto& ip = *reinterpret_cast<const Ipv4Header*>(packet.ip);
    sum = pseudo_header_sum(ip.source, ip.destination, Protocol::udp, length);
  } else {
    const auto& ip = *reinterpret_cast<const Ipv6Header*>(packet.ip);
    sum = pseudo_header_sum(ip.source, ip.destination, Protocol::udp, length);
  }
  udp.checksum = checksum_finish(checksum_add(&udp, length, sum));
}

void update_udp_checksum(Packet& packet, const ChecksumDelta& delta) noexcept {
  auto& udp = *reinterpret_cast<UdpHeader*>(packet.transport);
  if (udp.checksum == Be16{}) {
    compute_udp_checksum(packet);
  } else {
    delta.apply(udp.checksum);
  }
  // Zero would say that there is none.
  if (udp.checksum == Be16{}) udp.checksum = Be16::from_raw(0xffff);
}

void rewrite_port(Packet& packet, End end, Be16 port, ChecksumDelta& delta) noexcept {
  // TCP and UDP begin alike: source port, destination port.
  auto& ports = *reinterpret_cast<UdpHeader*>(packet.transport);
  Be16& field = end == End::source ? ports.source_port : ports.destination_port;
  delta.replace(field, port);
  field = port;
}

template <class Address>
void rewrite_end(Packet& packet, End end, const Address& address, Be16 port) noexcept {
  auto& ip = *reinterpret_cast<IpHeaderOf<Address>*>(packet.ip);
  Address& field = end == End::source ? ip.source : ip.destination;
  ChecksumDelta delta;
  delta.replace(field, address);
  if constexpr (sizeof(Address) == 4) delta.apply(ip.checksum);
  field = address;
  rewrite_port(packet, end, port, delta);
  if (packet.key<Address>().protocol == Protocol::tcp) {
    delta.apply(reinterpret_cast<TcpHeader*>(packet.transport)->checksum);
  } else {
    update_udp_checksum(packet, delta);
  }
}

// Moves the start of the IP packet forward in the buffer. False: no room.
bool prepend(Packet& packet, std::size_t bytes) noexcept {
  const auto room = static_cast<std::size_t>(packet.ip - packet.frame) + packet.headroom;
  if (room < bytes) return false;
  packet.ip -= bytes;
  packet.ip_length = static_cast<std::uint16_t>(packet.ip_length + bytes);
  return true;
}

constexpr std::uint8_t kEcnMask = 0x03;
constexpr std::uint8_t kEct0 = 0x02;

constexpr std::uint8_t outer_tos(std::uint8_t inner) noexcept {
  if ((inner & kEcnMask) != kEcnMask) return inner;
  return static_cast<std::uint8_t>((inner & ~kEcnMask) | kEct0);
}

struct InnerFields {
  std::uint8_t tos;
  std::uint8_t hops;
  bool dont_fragment;  // of IPv6 it is false: the outer header may be fragmented
  Protocol protocol;
};

InnerFields inner_fields(const Packet& packet) noexcept {
  if (packet.family == Family::ipv4) {
    const auto& ip = *reinterpret_cast<const Ipv4Header*>(packet.ip);
    return {ip.tos, ip.ttl, packet.dont_fragment, Protocol::ipip};
  }
  const auto& ip = *reinterpret_cast<const Ipv6Header*>(packet.ip);
  return {ip.traffic_class(), ip.hop_limit, false, Protocol::ipv6};
}

void write_outer_ipv4(Packet& packet, const InnerFields& inner, const Ipv4Address& from,
                      const Ipv4Address& to, std::uint16_t id) noexcept {
  auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
  ip.version_and_length = 0x45;
  ip.tos = outer_tos(inner.tos);
  ip.total_length = Be16::from_host(packet.ip_length);
  ip.id = Be16::from_host(inner.dont_fragment ? std::uint16_t{0} : id);
  ip.fragment = Be16::from_host(inner.dont_fragment ? Ipv4Header::kDontFragment : std::uint16_t{0});
  ip.ttl = inner.hops;
  ip.protocol = inner.protocol;
  ip.checksum = Be16{};
  ip.source = from;
  ip.destination = to;
  ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
}

void write_outer_ipv6(Packet& packet, const InnerFields& inner, const Ipv6Address& from,
                      const Ipv6Address& to) noexcept {
  auto& ip = *reinterpret_cast<Ipv6Header*>(packet.ip);
  ip.version_class_flow = Be32::from_host(6U << 28 | std::uint32_t{outer_tos(inner.tos)} << 20);
  ip.payload_length = Be16::from_host(static_cast<std::uint16_t>(packet.ip_length - sizeof ip));
  ip.next_header = inner.protocol;
  ip.hop_limit = inner.hops;
  ip.source = from;
  ip.destination = to;
}

}  // namespace

template <class Address>
void rewrite_destination(Packet& packet, const Address& address, Be16 port) noexcept {
  rewrite_end(packet, End::destination, address, port);
}

template <class Address>
void rewrite_source(Packet& packet, const Address& address, Be16 port) noexcept {
  rewrite_end(packet, End::source, address, port);
}

template void rewrite_destination(Packet&, const Ipv4Address&, Be16) noexcept;
template void rewrite_destination(Packet&, const Ipv6Address&, Be16) noexcept;
template void rewrite_source(Packet&, const Ipv4Address&, Be16) noexcept;
template void rewrite_source(Packet&, const Ipv6Address&, Be16) noexcept;

bool encapsulate(Packet& packet, const IpAddress& from, const IpAddress& to,
                 std::uint16_t id) noexcept {
  const InnerFields inner = inner_fields(packet);
  if (!prepend(packet, tunnel_overhead(to.family()))) return false;
  packet.family = to.family();
  if (to.is_ipv4()) {
    write_outer_ipv4(packet, inner, from.ipv4(), to.ipv4(), id);
  } else {
    write_outer_ipv6(packet, inner, from.ipv6(), to.ipv6());
  }
  return true;
}

}  // namespace weir
