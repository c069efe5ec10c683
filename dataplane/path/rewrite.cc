// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/rewrite.h"

#include <array>
#include <cstddef>
#include <type_traits>

#include "dataplane/net/checksum.h"
#include "dataplane/net/crc32c.h"
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

using Ports = std::array<Be16, 2>;

// The CRC covers no addresses: only the ports change, in the first four bytes.
void update_sctp_checksum(Packet& packet, const Ports& before) noexcept {
  auto& sctp = *reinterpret_cast<SctpHeader*>(packet.transport);
  const auto change = load<std::uint32_t>(&before) ^ load<std::uint32_t>(&sctp);
  if (change == 0) return;
  const auto length = static_cast<std::size_t>(packet.ip + packet.ip_length - packet.transport);
  const std::uint32_t crc =
      crc32c_add_zeros(crc32c_add(0, &change, sizeof change), length - sizeof change);
  sctp.checksum = Be32::from_raw(sctp.checksum.raw() ^ crc);
}

void rewrite_port(Packet& packet, End end, Be16 port, ChecksumDelta& delta) noexcept {
  // TCP, UDP and SCTP begin alike: source port, destination port.
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
  const auto ports = load<Ports>(packet.transport);
  rewrite_port(packet, end, port, delta);
  switch (packet.key<Address>().protocol) {
    case Protocol::tcp:
      delta.apply(reinterpret_cast<TcpHeader*>(packet.transport)->checksum);
      break;
    case Protocol::sctp:
      update_sctp_checksum(packet, ports);
      break;
    default:
      update_udp_checksum(packet, delta);
      break;
  }
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

}  // namespace weir
