// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/parse.h"

#include <cstring>

#include "dataplane/net/checksum.h"
#include "dataplane/net/ipv6_extensions.h"
#include "dataplane/net/reader.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/path/icmp/icmp_quote.h"

namespace weir {
namespace {

constexpr unsigned kMinIpv4Header = 20;
constexpr unsigned kFragmentUnit = 8;

// TCP, UDP and SCTP begin alike. Both ports at once, as look-ups read them.
template <class Address>
void set_ports(Packet& packet, const void* transport) noexcept {
  std::memcpy(&packet.key<Address>().source_port, transport, 2 * sizeof(Be16));
}

template <class Address>
Outcome parse_tcp(Packet& packet, const Reader& reader) noexcept {
  const auto* tcp = reader.peek<TcpHeader>();
  if (tcp == nullptr) return Outcome::drop_truncated;
  if (tcp->header_bytes() < sizeof(TcpHeader) || tcp->header_bytes() > reader.left()) {
    return Outcome::drop_bad_length;
  }
  set_ports<Address>(packet, tcp);
  packet.tcp_flags = tcp->flags;
  packet.begins = (tcp->flags & TcpHeader::kSyn) != 0;
  return Outcome::undecided;
}

template <class Address>
Outcome parse_udp(Packet& packet, const Reader& reader) noexcept {
  const auto* udp = reader.peek<UdpHeader>();
  if (udp == nullptr) return Outcome::drop_truncated;
  if (udp->length.host() < sizeof(UdpHeader) || udp->length.host() > reader.left()) {
    return Outcome::drop_bad_length;
  }
  set_ports<Address>(packet, udp);
  return Outcome::undecided;
}

// The first chunk's, but for an ABORT behind a COOKIE ECHO or a COOKIE ACK (RFC 9260 section 3.3.7;
// set_sctp_state of ip_vs_proto_sctp.c).
SctpEvent event_of_chunks(Reader reader, const SctpChunkHeader& first) noexcept {
  const SctpEvent event = sctp_event(first.type);
  if (event != SctpEvent::cookie_echo && event != SctpEvent::cookie_ack) return event;
  const std::size_t padded = (first.length.host() + std::size_t{3}) & ~std::size_t{3};
  if (padded < sizeof first || padded > reader.left()) return event;
  reader.skip(padded);
  const auto* second = reader.peek<SctpChunkHeader>();
  const bool aborts = second != nullptr && sctp_event(second->type) == SctpEvent::abort;
  return aborts ? SctpEvent::abort : event;
}

template <class Address>
Outcome parse_sctp(Packet& packet, Reader reader) noexcept {
  const auto* sctp = reader.peek<SctpHeader>();
  if (sctp == nullptr) return Outcome::drop_truncated;
  reader.skip(sizeof *sctp);
  const auto* chunk = reader.peek<SctpChunkHeader>();
  if (chunk == nullptr) return Outcome::drop_truncated;
  set_ports<Address>(packet, sctp);
  packet.sctp_event = event_of_chunks(reader, *chunk);
  packet.begins = packet.sctp_event == SctpEvent::init;
  return Outcome::undecided;
}

template <class Address>
[[gnu::noinline]] Outcome parse_other_transport(Packet& packet, Reader reader,
                                                Protocol protocol) noexcept {
  switch (protocol) {
    case Protocol::sctp:
      return parse_sctp<Address>(packet, reader);
    case Protocol::icmp:
    case Protocol::icmpv6:
      return parse_icmp<Address>(packet, reader);
    default:
      return Outcome::kernel_not_a_service;
  }
}

template <class Address>
[[gnu::always_inline]] inline Outcome parse_transport(Packet& packet, const Reader& reader,
                                                      Protocol protocol) noexcept {
  packet.transport = reader.at();
  packet.key<Address>().protocol = protocol;
  if (protocol == Protocol::tcp) [[likely]]
    return parse_tcp<Address>(packet, reader);
  if (protocol == Protocol::udp) return parse_udp<Address>(packet, reader);
  return parse_other_transport<Address>(packet, reader, protocol);
}

// The IP packet is all there; what lies behind it is padding.
void begin_ip(Packet& packet, const Reader& reader, Family family, std::size_t total) noexcept {
  packet.family = family;
  packet.ip = reader.at();
  packet.ip_length = static_cast<std::uint32_t>(total);
  packet.length = static_cast<std::uint32_t>(packet.ip - packet.frame + packet.ip_length);
}

constexpr std::uint16_t kFragmented =
    Be16::from_host(Ipv4Header::kMoreFragments | Ipv4Header::kOffsetMask).raw();

// `header` bytes, 20 or more. Undecided: `reader` is at the transport header.
[[gnu::always_inline]] inline Outcome read_ipv4_header(Packet& packet, Reader& reader,
                                                       const Ipv4Header& ip,
                                                       unsigned header) noexcept {
  const unsigned total = ip.total_length.host();
  if (header > reader.left()) return Outcome::drop_truncated;
  if (total < header || total > reader.left()) return Outcome::drop_bad_length;
  if (!is_checksum_good(checksum_add(&ip, header))) return Outcome::drop_bad_ipv4_checksum;

  begin_ip(packet, reader, Family::ipv4, total);
  packet.hops_left = ip.ttl;
  std::memcpy(&packet.ipv4.source, &ip.source, 2 * sizeof(Ipv4Address));
  constexpr std::uint16_t kDontFragment = Be16::from_host(Ipv4Header::kDontFragment).raw();
  packet.dont_fragment = (ip.fragment.raw() & kDontFragment) != 0;
  reader.limit(total);
  reader.skip(header);
  return Outcome::undecided;
}

// With options, a fragment, or no IPv4 at all.
[[gnu::noinline]] Outcome parse_unusual_ipv4(Packet& packet, Reader reader,
                                             const Ipv4Header& ip) noexcept {
  const unsigned header = ip.header_bytes();
  if (ip.version_and_length >> 4 != 4 || header < kMinIpv4Header) {
    return Outcome::drop_bad_ipv4_header;
  }
  const Outcome outcome = read_ipv4_header(packet, reader, ip, header);
  if (outcome != Outcome::undecided) return outcome;
  if ((ip.fragment.raw() & kFragmented) == 0) {
    return parse_transport<Ipv4Address>(packet, reader, ip.protocol);
  }
  const std::uint16_t fragment = ip.fragment.host();
  packet.ipv4.protocol = ip.protocol;
  packet.transport = reader.at();
  packet.more_fragments = (fragment & Ipv4Header::kMoreFragments) != 0;
  packet.fragment_offset =
      static_cast<std::uint16_t>((fragment & Ipv4Header::kOffsetMask) * kFragmentUnit);
  packet.fragment_id = ip.id.host();
  return Outcome::fragment;
}

Outcome parse_ipv4(Packet& packet, Reader reader) noexcept {
  constexpr std::uint8_t kPlain = 0x45;  // no options
  const auto* ip = reader.peek<Ipv4Header>();
  if (ip == nullptr) return Outcome::drop_truncated;
  if (ip->version_and_length != kPlain || (ip->fragment.raw() & kFragmented) != 0) [[unlikely]] {
    return parse_unusual_ipv4(packet, reader, *ip);
  }
  // A length known here becomes five additions.
  const Outcome outcome = read_ipv4_header(packet, reader, *ip, sizeof *ip);
  if (outcome != Outcome::undecided) return outcome;
  return parse_transport<Ipv4Address>(packet, reader, ip->protocol);
}

// Undecided: an atomic fragment (RFC 6946), which is a whole packet.
Outcome parse_ipv6_fragment(Packet& packet, const Reader& reader) noexcept {
  const auto* fragment = reader.peek<Ipv6FragmentHeader>();
  if (fragment == nullptr) return Outcome::drop_truncated;
  packet.ipv6.protocol = static_cast<Protocol>(fragment->next_header);
  packet.transport = reader.at() + sizeof *fragment;
  packet.more_fragments = fragment->more();
  packet.fragment_offset = fragment->offset();
  packet.fragment_id = fragment->id.host();
  const bool whole = packet.fragment_offset == 0 && !packet.more_fragments;
  return whole ? Outcome::undecided : Outcome::fragment;
}

Outcome parse_ipv6_extensions(Packet& packet, Ipv6Extensions walk) noexcept {
  while (walk.at_extension()) {
    if (walk.has_passed_most()) return Outcome::drop_too_many_extension_headers;
    if (walk.next() == kIpv6Fragment) {
      const Outcome outcome = parse_ipv6_fragment(packet, walk.reader());
      if (outcome != Outcome::undecided) return outcome;
    }
    if (!walk.pass()) return Outcome::drop_truncated;
  }
  return parse_transport<Ipv6Address>(packet, walk.reader(), static_cast<Protocol>(walk.next()));
}

[[gnu::noinline]] Outcome parse_ipv6(Packet& packet, Reader reader) noexcept {
  const auto* ip = reader.peek<Ipv6Header>();
  if (ip == nullptr) return Outcome::drop_truncated;
  if (ip->version_class_flow.host() >> 28 != 6) return Outcome::drop_bad_ipv6_header;
  const std::size_t total = sizeof(Ipv6Header) + ip->payload_length.host();
  if (total > reader.left()) return Outcome::drop_bad_length;

  begin_ip(packet, reader, Family::ipv6, total);
  packet.hops_left = ip->hop_limit;
  packet.dont_fragment = true;
  packet.ipv6.source = ip->source;
  packet.ipv6.destination = ip->destination;
  reader.limit(total);
  reader.skip(sizeof(Ipv6Header));
  return parse_ipv6_extensions(packet, {&ip->next_header, reader});
}

// Broadcast and multicast are for the kernel: ARP, ND, VRRP, routing protocols.
Outcome judge_destination(const MacAddress& destination, const OwnMacs& own_macs) noexcept {
  if ((destination.bytes[0] & 1) != 0) return Outcome::kernel_multicast;
  return own_macs.contains(destination) ? Outcome::undecided : Outcome::drop_foreign_mac;
}

Outcome parse_ethernet(Packet& packet, const OwnMacs& own_macs) noexcept {
  constexpr Be16 kVlan = Be16::from_host(kEtherTypeVlan);
  if (packet.chained) return Outcome::drop_chained_buffer;
  Reader reader(packet.frame, packet.length);
  const auto* ethernet = reader.peek<EthernetHeader>();
  if (ethernet == nullptr) return Outcome::drop_truncated;
  if (!own_macs.is_first_of(*ethernet)) [[unlikely]] {
    const Outcome outcome = judge_destination(ethernet->destination, own_macs);
    if (outcome != Outcome::undecided) return outcome;
  }
  Be16 type = ethernet->ether_type;
  reader.skip(sizeof(EthernetHeader));
  if (type == kVlan) {
    const auto* tag = reader.peek<VlanTag>();
    if (tag == nullptr) return Outcome::drop_truncated;
    constexpr unsigned kId = 0xfff;
    const auto vlan = static_cast<std::uint16_t>(tag->control.host() & kId);
    if (!own_macs.serves_vlan(vlan)) return Outcome::kernel_foreign_vlan;
    type = tag->ether_type;
    reader.skip(sizeof(VlanTag));
  }
  if (type == Be16::from_host(kEtherTypeIpv4)) return parse_ipv4(packet, reader);
  if (type == Be16::from_host(kEtherTypeIpv6)) return parse_ipv6(packet, reader);
  return Outcome::kernel_not_ip;
}

}  // namespace

void parse_frame(Packet& packet, const OwnMacs& own_macs) noexcept {
  packet.forget();
  packet.outcome = parse_ethernet(packet, own_macs);
}

}  // namespace weir
