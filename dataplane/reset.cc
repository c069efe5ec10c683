// SPDX-License-Identifier: Apache-2.0
#include "dataplane/tcp_reset.h"

#include "dataplane/net/checksum.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

constexpr std::uint8_t kHops = 64;

// Sequence numbers that the segment takes up.
std::uint32_t extent(const Packet& packet, const TcpHeader& tcp) noexcept {
  const auto headers = static_cast<std::uint32_t>(packet.transport - packet.ip);
  const std::uint32_t data = packet.ip_length - headers - tcp.header_bytes();
  return data + ((tcp.flags & TcpHeader::kSyn) != 0 ? 1U : 0U) +
         ((tcp.flags & TcpHeader::kFin) != 0 ? 1U : 0U);
}

TcpHeader reset_for(const Packet& packet, const TcpHeader& tcp) noexcept {
  TcpHeader reset{};
  reset.source_port = tcp.destination_port;
  reset.destination_port = tcp.source_port;
  reset.data_offset = sizeof(TcpHeader) / 4 << 4;
  reset.flags = TcpHeader::kRst;
  if ((tcp.flags & TcpHeader::kAck) != 0) {
    reset.sequence = tcp.acknowledgement;
  } else {
    reset.flags |= TcpHeader::kAck;
    reset.acknowledgement = Be32::from_host(tcp.sequence.host() + extent(packet, tcp));
  }
  return reset;
}

template <class Address>
std::uint64_t segment_sum(const FlowKey<Address>& key, const TcpHeader& reset) noexcept {
  return checksum_add(&reset, sizeof reset,
                      pseudo_header_sum(key.destination, key.source, Protocol::tcp, sizeof reset));
}

void write_ipv4(Packet& packet, TcpHeader reset) noexcept {
  const auto& key = packet.ipv4;
  reset.checksum = checksum_finish(segment_sum(key, reset));
  packet.ip_length = sizeof(Ipv4Header) + sizeof(TcpHeader);
  auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
  ip = {0x45,
        0,
        Be16::from_host(packet.ip_length),
        Be16{},
        Be16::from_host(Ipv4Header::kDontFragment),
        kHops,
        Protocol::tcp,
        Be16{},
        key.destination,
        key.source};
  ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
  packet.transport = packet.ip + sizeof ip;
  *reinterpret_cast<TcpHeader*>(packet.transport) = reset;
}

void write_ipv6(Packet& packet, TcpHeader reset) noexcept {
  const auto& key = packet.ipv6;
  reset.checksum = checksum_finish(segment_sum(key, reset));
  packet.ip_length = sizeof(Ipv6Header) + sizeof(TcpHeader);
  *reinterpret_cast<Ipv6Header*>(packet.ip) = {Be32::from_host(6U << 28),
                                               Be16::from_host(sizeof(TcpHeader)),
                                               Protocol::tcp,
                                               kHops,
                                               key.destination,
                                               key.source};
  packet.transport = packet.ip + sizeof(Ipv6Header);
  *reinterpret_cast<TcpHeader*>(packet.transport) = reset;
}

}  // namespace

bool become_tcp_reset(Packet& packet) noexcept {
  const auto& tcp = *reinterpret_cast<const TcpHeader*>(packet.transport);
  if ((tcp.flags & TcpHeader::kRst) != 0) return false;
  const TcpHeader reset = reset_for(packet, tcp);
  if (packet.family == Family::ipv4) {
    write_ipv4(packet, reset);
  } else {
    write_ipv6(packet, reset);
  }
  return true;
}

}  // namespace weir
