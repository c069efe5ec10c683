// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/tunnel/tunnel.h"

#include "dataplane/net/checksum.h"
#include "dataplane/net/mix.h"

namespace weir {
namespace {

// ---- The outer IP header ----

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
  std::uint16_t ether_type;
};

InnerFields inner_fields(const Packet& packet) noexcept {
  if (packet.family == Family::ipv4) {
    const auto& ip = *reinterpret_cast<const Ipv4Header*>(packet.ip);
    return {ip.tos, ip.ttl, packet.dont_fragment, Protocol::ipip, kEtherTypeIpv4};
  }
  const auto& ip = *reinterpret_cast<const Ipv6Header*>(packet.ip);
  return {ip.traffic_class(), ip.hop_limit, false, Protocol::ipv6, kEtherTypeIpv6};
}

// Field by field: whoever reads in larger pieces than have just been written waits for them.
Be16 checksum_of(const Ipv4Header& ip) noexcept {
  const auto pair = [](unsigned first, unsigned second) { return first | second << 8U; };
  std::uint64_t sum = pair(ip.version_and_length, ip.tos);
  sum += pair(ip.ttl, static_cast<unsigned>(ip.protocol));
  sum += std::uint64_t{ip.total_length.raw()} + ip.id.raw() + ip.fragment.raw();
  sum += std::uint64_t{ip.source.value.raw()} + ip.destination.value.raw();
  return checksum_finish(sum);
}

void write_outer_ipv4(Packet& packet, const InnerFields& inner, Protocol protocol,
                      const Ipv4Address& from, const Ipv4Address& to, std::uint16_t id) noexcept {
  auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
  ip.version_and_length = 0x45;
  ip.tos = outer_tos(inner.tos);
  ip.total_length = Be16::from_host(static_cast<std::uint16_t>(packet.ip_length));
  ip.id = Be16::from_host(inner.dont_fragment ? std::uint16_t{0} : id);
  ip.fragment = Be16::from_host(inner.dont_fragment ? Ipv4Header::kDontFragment : std::uint16_t{0});
  ip.ttl = inner.hops;
  ip.protocol = protocol;
  ip.source = from;
  ip.destination = to;
  ip.checksum = checksum_of(ip);
}

void write_outer_ipv6(Packet& packet, const InnerFields& inner, Protocol protocol,
                      const Ipv6Address& from, const Ipv6Address& to) noexcept {
  auto& ip = *reinterpret_cast<Ipv6Header*>(packet.ip);
  ip.version_class_flow = Be32::from_host(6U << 28 | std::uint32_t{outer_tos(inner.tos)} << 20);
  ip.payload_length = Be16::from_host(static_cast<std::uint16_t>(packet.ip_length - sizeof ip));
  ip.next_header = protocol;
  ip.hop_limit = inner.hops;
  ip.source = from;
  ip.destination = to;
}

// ---- GUE ----

// net.ipv4.ip_local_port_range as Linux has it unless told otherwise: udp_flow_src_port.
constexpr std::uint32_t kFirstSourcePort = 32768;
constexpr std::uint32_t kLastSourcePort = 60999;

template <class Address>
std::uint64_t flow_hash(const FlowKey<Address>& key) noexcept {
  constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15ULL;
  std::uint64_t hash = std::uint64_t{load<std::uint32_t>(&key.source_port)} << 8U |
                       static_cast<std::uint64_t>(key.protocol);
  const auto* addresses = reinterpret_cast<const std::uint8_t*>(&key);
  for (std::size_t at = 0; at < 2 * sizeof(Address); at += sizeof(std::uint64_t)) {
    hash = multiply_mix(hash ^ load<std::uint64_t>(addresses + at), kOdd);
  }
  return multiply_mix(hash, kOdd);
}

// One for each flow, so that routers on the way spread flows and keep each in order.
Be16 source_port(const Packet& packet) noexcept {
  const std::uint64_t hash =
      packet.family == Family::ipv4 ? flow_hash(packet.ipv4) : flow_hash(packet.ipv6);
  const std::uint64_t offset = reduce_range(hash, kLastSourcePort - kFirstSourcePort);
  return Be16::from_host(static_cast<std::uint16_t>(kFirstSourcePort + offset));
}

std::uint64_t udp_pseudo_sum(const IpAddress& from, const IpAddress& to,
                             std::uint32_t length) noexcept {
  return to.is_ipv4() ? pseudo_header_sum(from.ipv4(), to.ipv4(), Protocol::udp, length)
                      : pseudo_header_sum(from.ipv6(), to.ipv6(), Protocol::udp, length);
}

// `at` is where the UDP header begins, `length` what it and all after it have.
void write_gue(std::uint8_t* at, std::uint16_t length, const Tunnel& tunnel,
               const InnerFields& inner, Be16 source) noexcept {
  *reinterpret_cast<UdpHeader*>(at) = {source, tunnel.port, Be16::from_host(length), Be16{}};
  *reinterpret_cast<GueHeader*>(at + sizeof(UdpHeader)) = {0, inner.protocol, Be16{}};
}

void write_udp_checksum(std::uint8_t* at, std::uint16_t length, const IpAddress& from,
                        const IpAddress& to) noexcept {
  Be16& checksum = reinterpret_cast<UdpHeader*>(at)->checksum;
  checksum = checksum_finish(checksum_add(at, length, udp_pseudo_sum(from, to, length)));
  // Zero would say that there is none.
  if (checksum == Be16{}) checksum = Be16::from_raw(0xffff);
}

// ---- GRE ----

void write_gre(std::uint8_t* at, std::uint16_t length, const Tunnel& tunnel,
               const InnerFields& inner) noexcept {
  auto& gre = *reinterpret_cast<GreHeader*>(at);
  gre = {Be16{}, Be16::from_host(inner.ether_type)};
  if (tunnel.checksum != TunnelChecksum::checksum) return;
  gre.flags_and_version = Be16::from_host(GreHeader::kChecksumPresent);
  auto& field = *reinterpret_cast<GreChecksum*>(at + sizeof gre);
  field = {};
  field.checksum = checksum_finish(checksum_add(at, length));
}

// Moves the start of the IP packet, which becomes one of `outer`, forward in the buffer.
Outcome prepend(Packet& packet, std::uint16_t bytes, Family outer) noexcept {
  const auto room = static_cast<std::size_t>(packet.ip - packet.frame) + packet.headroom;
  if (packet.ip_length + bytes > max_ip_length(outer)) return Outcome::drop_too_big;
  if (room < bytes) return Outcome::drop_no_headroom;
  packet.ip -= bytes;
  packet.ip_length += bytes;
  return Outcome::undecided;
}

// ---- Quotes ----

struct Outer {
  IpAddress to;
  Protocol protocol;
  std::size_t header;  // bytes
};

// The header at `offset`, if it is quoted whole.
template <class Header>
const Header* header_at(std::span<const std::uint8_t> quote, std::size_t offset) noexcept {
  if (offset > quote.size() || quote.size() - offset < sizeof(Header)) return nullptr;
  return reinterpret_cast<const Header*>(quote.data() + offset);
}

std::optional<Outer> outer_header(std::span<const std::uint8_t> quote) noexcept {
  if (quote.empty()) return std::nullopt;
  const unsigned version = quote[0] >> 4U;
  if (const auto* ip = header_at<Ipv6Header>(quote, 0); version == 6 && ip != nullptr) {
    return Outer{ip->destination, ip->next_header, sizeof *ip};
  }
  const auto* ip = header_at<Ipv4Header>(quote, 0);
  if (version != 4 || ip == nullptr || ip->header_bytes() < sizeof *ip) return std::nullopt;
  if ((ip->fragment.host() & Ipv4Header::kOffsetMask) != 0) return std::nullopt;
  return Outer{ip->destination, ip->protocol, ip->header_bytes()};
}

std::optional<TunnelQuote> quote_of_gue(std::span<const std::uint8_t> quote,
                                        const Outer& outer) noexcept {
  const auto* udp = header_at<UdpHeader>(quote, outer.header);
  if (udp == nullptr) return std::nullopt;
  const auto checksum = udp->checksum == Be16{} ? TunnelChecksum::none : TunnelChecksum::checksum;
  TunnelQuote result{outer.to, {TunnelType::gue, checksum, udp->destination_port}};
  const auto* gue = header_at<GueHeader>(quote, outer.header + sizeof *udp);
  if (gue == nullptr) return result;
  constexpr unsigned kOptionWords = 0x1f;
  const bool data = gue->version_and_length <= kOptionWords;  // version 0, no control message
  if (!data || (gue->protocol != Protocol::ipip && gue->protocol != Protocol::ipv6)) {
    return std::nullopt;
  }
  result.inner =
      outer.header + sizeof *udp + sizeof *gue + (gue->version_and_length & kOptionWords) * 4U;
  return result;
}

std::optional<TunnelQuote> quote_of_gre(std::span<const std::uint8_t> quote,
                                        const Outer& outer) noexcept {
  const auto* gre = header_at<GreHeader>(quote, outer.header);
  if (gre == nullptr) return std::nullopt;
  const std::uint16_t flags = gre->flags_and_version.host();
  const std::uint16_t type = gre->protocol.host();
  if ((flags & ~GreHeader::kChecksumPresent) != 0) return std::nullopt;
  if (type != kEtherTypeIpv4 && type != kEtherTypeIpv6) return std::nullopt;
  const bool has_checksum = flags != 0;
  return TunnelQuote{
      outer.to,
      {TunnelType::gre, has_checksum ? TunnelChecksum::checksum : TunnelChecksum::none, {}},
      outer.header + sizeof *gre + (has_checksum ? sizeof(GreChecksum) : 0U)};
}

}  // namespace

Outcome encapsulate(Packet& packet, const Tunnel& tunnel, const IpAddress& from,
                    const IpAddress& to, std::uint16_t id) noexcept {
  const InnerFields inner = inner_fields(packet);
  const Outcome fits = prepend(packet, tunnel_overhead(tunnel, to.family()), to.family());
  if (fits != Outcome::undecided) return fits;
  const std::uint16_t ip_header = tunnel_overhead(Tunnel{}, to.family());
  std::uint8_t* const at = packet.ip + ip_header;
  const auto length = static_cast<std::uint16_t>(packet.ip_length - ip_header);
  Protocol protocol = inner.protocol;
  switch (tunnel.type) {
    case TunnelType::ipip:
      break;
    case TunnelType::gue:
      protocol = Protocol::udp;
      write_gue(at, length, tunnel, inner, source_port(packet));
      if (tunnel.checksum != TunnelChecksum::none) write_udp_checksum(at, length, from, to);
      break;
    case TunnelType::gre:
      protocol = Protocol::gre;
      write_gre(at, length, tunnel, inner);
      break;
  }
  packet.family = to.family();
  if (to.is_ipv4()) {
    write_outer_ipv4(packet, inner, protocol, from.ipv4(), to.ipv4(), id);
  } else {
    write_outer_ipv6(packet, inner, protocol, from.ipv6(), to.ipv6());
  }
  return Outcome::undecided;
}

std::optional<TunnelQuote> parse_tunnel_quote(std::span<const std::uint8_t> quote) noexcept {
  const auto outer = outer_header(quote);
  if (!outer) return std::nullopt;
  std::optional<TunnelQuote> result;
  switch (outer->protocol) {
    case Protocol::ipip:
    case Protocol::ipv6:
      result = TunnelQuote{outer->to, {}, outer->header};
      break;
    case Protocol::udp:
      result = quote_of_gue(quote, *outer);
      break;
    case Protocol::gre:
      result = quote_of_gre(quote, *outer);
      break;
    default:
      break;
  }
  if (result && result->inner >= quote.size()) result->inner = 0;
  return result;
}

}  // namespace weir
