// SPDX-License-Identifier: Apache-2.0
#include "tests/support/frames.h"

#include <algorithm>
#include <stdexcept>

#include "dataplane/net/addresses.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frame_checks.h"

namespace weir::test {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv4 = 20;
constexpr std::size_t kIpv6 = 40;
constexpr std::uint8_t kHops = 64;

IpAddress ip(const std::string& text) {
  const auto address = IpAddress::parse(text);
  if (!address) throw std::runtime_error(text + " is no address");
  return *address;
}

void append(Bytes& to, const IpAddress& address) {
  const auto& bytes = address.bytes();
  to.insert(to.end(), bytes.begin(), bytes.begin() + address.bit_width() / 8);
}

void append(Bytes& to, const MacAddress& address) {
  to.insert(to.end(), address.bytes.begin(), address.bytes.end());
}

void append16(Bytes& to, std::size_t value) {
  to.push_back(static_cast<std::uint8_t>(value >> 8));
  to.push_back(static_cast<std::uint8_t>(value));
}

Bytes tcp_segment(const Flow& flow, std::uint8_t flags, std::string_view payload) {
  Bytes bytes;
  append16(bytes, flow.source_port);
  append16(bytes, flow.destination_port);
  // Both ends begin at 1, and a SYN takes one number.
  const std::uint8_t sequence = (flags & TcpHeader::kSyn) != 0 ? 1 : 2;
  bytes.insert(bytes.end(), {0, 0, 0, sequence, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0});
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

Bytes udp_datagram(const Flow& flow, std::string_view payload) {
  Bytes bytes;
  append16(bytes, flow.source_port);
  append16(bytes, flow.destination_port);
  append16(bytes, 8 + payload.size());
  append16(bytes, 0);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

Bytes sctp_packet(const Flow& flow, std::initializer_list<std::uint8_t> chunk_types) {
  Bytes bytes;
  append16(bytes, flow.source_port);
  append16(bytes, flow.destination_port);
  bytes.insert(bytes.end(), {1, 2, 3, 4, 0, 0, 0, 0});
  for (const std::uint8_t type : chunk_types) {
    bytes.insert(bytes.end(), {type, 0, 0, 7, 'a', 'b', 'c', 0});
  }
  return bytes;
}

Bytes packet(const Flow& flow, Protocol protocol, const Bytes& transport) {
  const IpAddress source = ip(flow.source);
  Bytes bytes;
  if (source.is_ipv4()) {
    bytes = {0x45, 0};
    append16(bytes, kIpv4 + transport.size());
    bytes.insert(bytes.end(), {0x12, 0x34, 0, 0, kHops, static_cast<std::uint8_t>(protocol), 0, 0});
  } else {
    bytes = {0x60, 0, 0, 0};
    append16(bytes, transport.size());
    bytes.insert(bytes.end(), {static_cast<std::uint8_t>(protocol), kHops});
  }
  append(bytes, source);
  append(bytes, ip(flow.destination));
  bytes.insert(bytes.end(), transport.begin(), transport.end());
  return bytes;
}

Bytes frame(const MacAddress& destination, const MacAddress& source, const Bytes& packet) {
  Bytes bytes;
  append(bytes, destination);
  append(bytes, source);
  append16(bytes, packet[0] >> 4 == 4 ? kEtherTypeIpv4 : kEtherTypeIpv6);
  bytes.insert(bytes.end(), packet.begin(), packet.end());
  write_checksums(bytes);
  return bytes;
}

Bytes from_client(const Bytes& packet) {
  return frame(BurstLab::kClientSideMac, {{2, 0, 0, 0, 0x0c, 1}}, packet);
}

Bytes from_server(const Flow& flow, const Bytes& packet) {
  const IpAddress server = ip(flow.source);
  const std::uint8_t number = server.bytes()[server.is_ipv4() ? 3 : 15];
  return frame(BurstLab::kServerSideMac, {{2, 0, 0, 0, 0x0d, number}}, packet);
}

template <class Address>
std::string text_at(std::span<const std::uint8_t> bytes) {
  return IpAddress(load<Address>(bytes.data())).to_string();
}

std::uint16_t port_at(std::span<const std::uint8_t> bytes) {
  return static_cast<std::uint16_t>(bytes[0] << 8 | bytes[1]);
}

}  // namespace

Bytes client_tcp(const Flow& flow, std::uint8_t flags, std::string_view payload) {
  return from_client(packet(flow, Protocol::tcp, tcp_segment(flow, flags, payload)));
}

Bytes client_udp(const Flow& flow, std::string_view payload) {
  return from_client(packet(flow, Protocol::udp, udp_datagram(flow, payload)));
}

Bytes server_tcp(const Flow& flow, std::uint8_t flags, std::string_view payload) {
  return from_server(flow, packet(flow, Protocol::tcp, tcp_segment(flow, flags, payload)));
}

Bytes server_udp(const Flow& flow, std::string_view payload) {
  return from_server(flow, packet(flow, Protocol::udp, udp_datagram(flow, payload)));
}

Bytes client_sctp(const Flow& flow, std::initializer_list<std::uint8_t> chunk_types) {
  return from_client(packet(flow, Protocol::sctp, sctp_packet(flow, chunk_types)));
}

Bytes server_sctp(const Flow& flow, std::initializer_list<std::uint8_t> chunk_types) {
  return from_server(flow, packet(flow, Protocol::sctp, sctp_packet(flow, chunk_types)));
}

Decoded decode(std::span<const std::uint8_t> frame) {
  if (frame.size() < kEthernet + kIpv4) throw std::runtime_error("a frame too short to decode");
  Decoded decoded;
  decoded.server = frame[5];
  auto at = frame.subspan(kEthernet);
  const auto is = [&](std::size_t offset, Protocol protocol) {
    return at[offset] == static_cast<std::uint8_t>(protocol);
  };
  if (at[0] >> 4 == 4 && (is(9, Protocol::ipip) || is(9, Protocol::ipv6))) at = at.subspan(kIpv4);
  const bool v4 = at[0] >> 4 == 4;
  const bool tcp = is(v4 ? 9 : 6, Protocol::tcp);
  decoded.flow.source =
      v4 ? text_at<Ipv4Address>(at.subspan(12)) : text_at<Ipv6Address>(at.subspan(8));
  decoded.flow.destination =
      v4 ? text_at<Ipv4Address>(at.subspan(16)) : text_at<Ipv6Address>(at.subspan(24));
  at = at.subspan(v4 ? (at[0] & 0xfU) * 4 : kIpv6);
  decoded.flow.source_port = port_at(at);
  decoded.flow.destination_port = port_at(at.subspan(2));
  if (tcp) decoded.tcp_flags = at[13];
  return decoded;
}

}  // namespace weir::test
