// SPDX-License-Identifier: Apache-2.0
#include "dataplane/parse.h"

#include <algorithm>

#include "dataplane/icmp_quote.h"
#include "dataplane/net/checksum.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/reader.h"

namespace weir {
namespace {

constexpr int kMaxExtensionHeaders = 8;
constexpr unsigned kMinIpv4Header = 20;
constexpr unsigned kFragmentUnit = 8;

template <class Address>
void set_ports(Packet& packet, Be16 source, Be16 destination) noexcept {
  packet.key<Address>().source_port = source;
  packet.key<Address>().destination_port = destination;
}

template <class Address>
Outcome parse_tcp(Packet& packet, const Reader& reader) noexcept {
  const auto* tcp = reader.peek<TcpHeader>();
  if (tcp == nullptr) return Outcome::drop_truncated;
  if (tcp->header_bytes() < sizeof(TcpHeader) || tcp->header_bytes() > reader.left()) {
    return Outcome::drop_bad_length;
  }
  set_ports<Address>(packet, tcp->source_port, tcp->destination_port);
  packet.tcp_flags = tcp->flags;
  return Outcome::undecided;
}

template <class Address>
Outcome parse_udp(Packet& packet, const Reader& reader) noexcept {
  const auto* udp = reader.peek<UdpHeader>();
  if (udp == nullptr) return Outcome::drop_truncated;
  if (udp->length.host() < sizeof(UdpHeader) || udp->length.host() > reader.left()) {
    return Outcome::drop_bad_length;
  }
  set_ports<Address>(packet, udp->source_port, udp->destination_port);
  packet.tcp_flags = 0;
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
  set_ports<Address>(packet, sctp->source_port, sctp->destination_port);
  packet.tcp_flags = 0;
  packet.sctp_event = event_of_chunks(reader, *chunk);
  return Outcome::undecided;
}

template <class Address>
Outcome parse_transport(Packet& packet, const Reader& reader, Protocol protocol) noexcept {
  packet.transport = reader.at();
  packet.key<Address>().protocol = protocol;
  switch (protocol) {
    case Protocol::tcp:
      return parse_tcp<Address>(packet, reader);
    case Protocol::udp:
      return parse_udp<Address>(packet, reader);
    case Protocol::sctp:
      return parse_sctp<Address>(packet, reader);
    case Protocol::icmp:
    case Protocol::icmpv6:
      return parse_icmp<Address>(packet, reader);
    default:
      return Outcome::kernel_not_a_service;
  }
}

bool has_good_checksum(const Ipv4Header& ip, unsigned header) noexcept {
  // Nearly all: a length known here becomes five additions.
  const std::uint64_t sum =
      header == sizeof ip ? checksum_add(&ip, sizeof ip) : checksum_add(&ip, header);
  return is_checksum_good(sum);
}

Outcome parse_ipv4(Packet& packet, Reader reader) noexcept {
  const auto* ip = reader.peek<Ipv4Header>();
  if (ip == nullptr) return Outcome::drop_truncated;
  const unsigned header = ip->header_bytes();
  const unsigned total = ip->total_length.host();
  if (ip->version_and_length >> 4 != 4 || header < kMinIpv4Header) {
    return Outcome::drop_bad_ipv4_header;
  }
  if (header > reader.left()) return Outcome::drop_truncated;
  if (total < header || total > reader.left()) return Outcome::drop_bad_length;
  if (!has_good_checksum(*ip, header)) return Outcome::drop_bad_ipv4_checksum;

  packet.family = Family::ipv4;
  packet.ip = reader.at();
  packet.ip_length = static_cast<std::uint16_t>(total);
  packet.hops_left = ip->ttl;
  packet.ipv4.source = ip->source;
  packet.ipv4.destination = ip->destination;
  const std::uint16_t fragment = ip->fragment.host();
  packet.dont_fragment = (fragment & Ipv4Header::kDontFragment) != 0;
  if ((fragment & (Ipv4Header::kMoreFragments | Ipv4Header::kOffsetMask)) != 0) {
    packet.ipv4.protocol = ip->protocol;
    packet.transport = reader.at() + header;
    packet.more_fragments = (fragment & Ipv4Header::kMoreFragments) != 0;
    packet.fragment_offset =
        static_cast<std::uint16_t>((fragment & Ipv4Header::kOffsetMask) * kFragmentUnit);
    packet.fragment_id = ip->id.host();
    return Outcome::fragment;
  }
  reader.limit(total);
  reader.skip(header);
  return parse_transport<Ipv4Address>(packet, reader, ip->protocol);
}

// Undecided: an atomic fragment (RFC 6946), which is a whole packet.
Outcome parse_ipv6_fragment(Packet& packet, const Reader& reader) noexcept {
  const auto* fragment = reader.peek<Ipv6FragmentHeader>();
  if (fragment == nullptr) return Outcome::drop_truncated;
  // The offset in bytes, when the lower bits are cleared.
  const unsigned offset_and_more = fragment->offset_and_more.host();
  packet.ipv6.protocol = static_cast<Protocol>(fragment->next_header);
  packet.transport = reader.at() + sizeof *fragment;
  packet.more_fragments = (offset_and_more & 1U) != 0;
  packet.fragment_offset = static_cast<std::uint16_t>(offset_and_more & ~7U);
  packet.fragment_id = fragment->id.host();
  const bool whole = packet.fragment_offset == 0 && !packet.more_fragments;
  return whole ? Outcome::undecided : Outcome::fragment;
}

// Walks the extension headers of RFC 8200 section 4 up to the transport header.
Outcome parse_ipv6_extensions(Packet& packet, Reader reader, std::uint8_t next) noexcept {
  for (int walked = 0; walked <= kMaxExtensionHeaders; ++walked) {
    if (next == kIpv6Fragment) {
      const Outcome outcome = parse_ipv6_fragment(packet, reader);
      if (outcome != Outcome::undecided) return outcome;
      next = reader.at()[0];
      reader.skip(sizeof(Ipv6FragmentHeader));
      continue;
    }
    if (next != kIpv6HopByHop && next != kIpv6Routing && next != kIpv6DestinationOptions) {
      return parse_transport<Ipv6Address>(packet, reader, static_cast<Protocol>(next));
    }
    constexpr std::size_t kUnit = 8;
    if (reader.left() < kUnit) return Outcome::drop_truncated;
    const std::size_t length = (std::size_t{reader.at()[1]} + 1) * kUnit;
    if (length > reader.left()) return Outcome::drop_truncated;
    next = reader.at()[0];
    reader.skip(length);
  }
  return Outcome::drop_too_many_extension_headers;
}

Outcome parse_ipv6(Packet& packet, Reader reader) noexcept {
  const auto* ip = reader.peek<Ipv6Header>();
  if (ip == nullptr) return Outcome::drop_truncated;
  if (ip->version_class_flow.host() >> 28 != 6) return Outcome::drop_bad_ipv6_header;
  const std::size_t total = sizeof(Ipv6Header) + ip->payload_length.host();
  if (total > reader.left()) return Outcome::drop_bad_length;

  packet.family = Family::ipv6;
  packet.ip = reader.at();
  packet.ip_length = static_cast<std::uint16_t>(total);
  packet.hops_left = ip->hop_limit;
  packet.dont_fragment = true;
  packet.ipv6.source = ip->source;
  packet.ipv6.destination = ip->destination;
  reader.limit(total);
  reader.skip(sizeof(Ipv6Header));
  return parse_ipv6_extensions(packet, reader, static_cast<std::uint8_t>(ip->next_header));
}

}  // namespace

void parse_frame(Packet& packet, std::span<const MacAddress> own_macs) noexcept {
  if (packet.chained) {
    packet.outcome = Outcome::drop_chained_buffer;
    return;
  }
  Reader reader(packet.frame, packet.length);
  const auto* ethernet = reader.peek<EthernetHeader>();
  if (ethernet == nullptr) {
    packet.outcome = Outcome::drop_truncated;
    return;
  }
  const bool group = (ethernet->destination.bytes[0] & 1) != 0;
  if (!group &&
      std::find(own_macs.begin(), own_macs.end(), ethernet->destination) == own_macs.end()) {
    packet.outcome = Outcome::drop_foreign_mac;
    return;
  }
  std::uint16_t type = ethernet->ether_type.host();
  reader.skip(sizeof(EthernetHeader));
  if (type == kEtherTypeVlan) {
    const auto* tag = reader.peek<VlanTag>();
    if (tag == nullptr) {
      packet.outcome = Outcome::drop_truncated;
      return;
    }
    type = tag->ether_type.host();
    reader.skip(sizeof(VlanTag));
  }
  // Broadcast and multicast are for the kernel: ARP, ND, VRRP, routing protocols.
  if (group || (type != kEtherTypeIpv4 && type != kEtherTypeIpv6)) {
    packet.outcome = group ? Outcome::kernel_multicast : Outcome::kernel_not_ip;
    return;
  }
  packet.outcome = type == kEtherTypeIpv4 ? parse_ipv4(packet, reader) : parse_ipv6(packet, reader);
  if (packet.ip != nullptr) {
    packet.length = static_cast<std::uint16_t>(packet.ip - packet.frame + packet.ip_length);
  }
}

}  // namespace weir
