// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/icmp/icmp_error.h"

#include <algorithm>

#include "dataplane/net/checksum.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/table/connection.h"

namespace weir {
namespace {

constexpr std::uint32_t kMaxQuoteIpv4 = 548;
constexpr std::uint32_t kMaxQuoteIpv6 = 1280 - sizeof(Ipv6Header) - sizeof(IcmpHeader);
constexpr std::uint8_t kHops = 64;
constexpr std::uint8_t kTosInternetworkControl = 0xc0;

struct TypeAndCode {
  std::uint8_t type;
  std::uint8_t code;
};

constexpr TypeAndCode type_and_code(IcmpError error, Family family) noexcept {
  const bool v4 = family == Family::ipv4;
  switch (error) {
    case IcmpError::time_exceeded:
      return {v4 ? kIcmpTimeExceeded : kIcmpv6TimeExceeded, 0};
    case IcmpError::reassembly_time_exceeded:
      return {v4 ? kIcmpTimeExceeded : kIcmpv6TimeExceeded, kIcmpCodeReassemblyTimeExceeded};
    case IcmpError::port_unreachable:
      return v4 ? TypeAndCode{kIcmpDestinationUnreachable, kIcmpCodePortUnreachable}
                : TypeAndCode{kIcmpv6DestinationUnreachable, kIcmpv6CodePortUnreachable};
    case IcmpError::no_route:
      return v4 ? TypeAndCode{kIcmpDestinationUnreachable, kIcmpCodeHostUnreachable}
                : TypeAndCode{kIcmpv6DestinationUnreachable, kIcmpv6CodeNoRoute};
    case IcmpError::too_big:
      return v4 ? TypeAndCode{kIcmpDestinationUnreachable, kIcmpCodeFragmentationNeeded}
                : TypeAndCode{kIcmpv6PacketTooBig, 0};
  }
  return {0, 0};
}

bool may_be_answered(const IpAddress& source) noexcept {
  return !source.is_unspecified() && !source.is_multicast() && !source.is_loopback();
}

void write_ipv4(Packet& packet, const Ipv4Address& source, const Ipv4Address& destination,
                std::uint16_t id) noexcept {
  auto& icmp = *reinterpret_cast<IcmpHeader*>(packet.ip + sizeof(Ipv4Header));
  const std::size_t icmp_length = packet.ip_length - sizeof(Ipv4Header);
  icmp.checksum = checksum_finish(checksum_add(&icmp, icmp_length));
  auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
  ip = {0x45,
        kTosInternetworkControl,
        Be16::from_host(static_cast<std::uint16_t>(packet.ip_length)),
        Be16::from_host(id),
        Be16{},
        kHops,
        Protocol::icmp,
        Be16{},
        source,
        destination};
  ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
}

void write_ipv6(Packet& packet, const Ipv6Address& source,
                const Ipv6Address& destination) noexcept {
  auto& icmp = *reinterpret_cast<IcmpHeader*>(packet.ip + sizeof(Ipv6Header));
  const auto icmp_length = static_cast<std::uint16_t>(packet.ip_length - sizeof(Ipv6Header));
  const std::uint64_t sum = pseudo_header_sum(source, destination, Protocol::icmpv6, icmp_length);
  icmp.checksum = checksum_finish(checksum_add(&icmp, icmp_length, sum));
  *reinterpret_cast<Ipv6Header*>(packet.ip) = {Be32::from_host(6U << 28),
                                               Be16::from_host(icmp_length),
                                               Protocol::icmpv6,
                                               kHops,
                                               source,
                                               destination};
}

}  // namespace

bool become_icmp_error(Packet& packet, IcmpError error, const IpAddress& source, std::uint16_t mtu,
                       std::uint16_t id) noexcept {
  const TypeAndCode kind = type_and_code(error, packet.family);
  return become_icmp_error(packet, {kind.type, kind.code, Be16{}, Be16{}, Be16::from_host(mtu)},
                           source, id);
}

bool become_icmp_error(Packet& packet, const IcmpHeader& icmp, const IpAddress& source,
                       std::uint16_t id) noexcept {
  const bool v4 = packet.family == Family::ipv4;
  const std::size_t header = (v4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header)) + sizeof icmp;
  const auto room = static_cast<std::size_t>(packet.ip - packet.frame) + packet.headroom;
  const IpAddress sender = v4 ? IpAddress(packet.ipv4.source) : IpAddress(packet.ipv6.source);
  if (room < header || !may_be_answered(sender)) return false;

  const std::uint32_t quote = std::min(packet.ip_length, v4 ? kMaxQuoteIpv4 : kMaxQuoteIpv6);
  packet.ip -= header;
  packet.ip_length = static_cast<std::uint32_t>(header + quote);
  *reinterpret_cast<IcmpHeader*>(packet.ip + header - sizeof icmp) = icmp;
  if (v4) {
    write_ipv4(packet, source.ipv4(), sender.ipv4(), id);
  } else {
    write_ipv6(packet, source.ipv6(), sender.ipv6());
  }
  return true;
}

bool IcmpBudget::take(std::uint32_t now) noexcept {
  const std::uint32_t ticks = std::min(now - refilled_, kTicksPerSecond);
  const std::uint32_t earned = ticks * kPerSecond / kTicksPerSecond;
  if (earned != 0) {
    tokens_ = std::min(kBurst, tokens_ + earned);
    refilled_ = now;
  }
  if (tokens_ == 0) return false;
  --tokens_;
  return true;
}

}  // namespace weir
