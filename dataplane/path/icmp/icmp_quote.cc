// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/icmp/icmp_quote.h"

#include <algorithm>

#include "dataplane/net/checksum.h"
#include "dataplane/net/ipv6_extensions.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

template <class Address>
constexpr Protocol kIcmpProtocol = sizeof(Address) == sizeof(Ipv4Address) ? Protocol::icmp
                                                                          : Protocol::icmpv6;

template <class Address>
bool is_followed(std::uint8_t type) noexcept {
  if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
    return type == kIcmpDestinationUnreachable || type == kIcmpSourceQuench ||
           type == kIcmpTimeExceeded || type == kIcmpParameterProblem;
  } else {
    return type >= kIcmpv6DestinationUnreachable && type <= kIcmpv6ParameterProblem;
  }
}

// What is quoted ends with the quoted packet, unless its header says nonsense.
std::size_t transport_bytes(std::size_t quoted, std::size_t whole) noexcept {
  return whole < kLeastQuoted ? quoted : std::min(quoted, whole);
}

constexpr std::uint16_t kIpv4FragmentMask = Ipv4Header::kMoreFragments | Ipv4Header::kOffsetMask;

std::optional<Quote> read_ipv4(Reader bytes) noexcept {
  const auto* ip = bytes.peek<Ipv4Header>();
  if (ip == nullptr || ip->version_and_length >> 4 != 4) return std::nullopt;
  const std::size_t header = ip->header_bytes();
  if (header < sizeof(Ipv4Header) || header > bytes.left()) return std::nullopt;
  const std::size_t total = ip->total_length.host();
  Quote quote{.ip = bytes.at(),
              .transport = bytes.at() + header,
              .transport_bytes = 0,
              .whole_bytes = total - std::min(total, header),
              .protocol = ip->protocol,
              .fragment = (ip->fragment.host() & kIpv4FragmentMask) != 0};
  if ((ip->fragment.host() & Ipv4Header::kOffsetMask) == 0) {
    quote.transport_bytes = transport_bytes(bytes.left() - header, quote.whole_bytes);
  }
  return quote;
}

// Where the chain is cut off or longer than any real one, there is no transport header.
std::optional<Quote> read_ipv6(Reader bytes) noexcept {
  const auto* ip = bytes.peek<Ipv6Header>();
  if (ip == nullptr || ip->version_class_flow.host() >> 28 != 6) return std::nullopt;
  Quote quote{.ip = bytes.at(),
              .transport = nullptr,
              .transport_bytes = 0,
              .whole_bytes = ip->payload_length.host(),
              .protocol = ip->next_header,
              .fragment = false};
  bytes.skip(sizeof *ip);
  Ipv6Extensions walk(&ip->next_header, bytes);
  bool later_fragment = false;
  while (walk.at_extension() && !later_fragment) {
    const std::size_t before = walk.reader().left();
    const auto* fragment = walk.reader().peek<Ipv6FragmentHeader>();
    const bool is_fragment = walk.next() == kIpv6Fragment;
    if (!walk.pass()) return std::nullopt;
    if (is_fragment) {
      quote.fragment = fragment->offset() != 0 || fragment->more();
      later_fragment = fragment->offset() != 0;
    }
    quote.whole_bytes -= std::min(quote.whole_bytes, before - walk.reader().left());
  }
  quote.protocol = static_cast<Protocol>(walk.next());
  quote.transport = walk.reader().at();
  if (!later_fragment)
    quote.transport_bytes = transport_bytes(walk.reader().left(), quote.whole_bytes);
  return quote;
}

template <class Address>
bool has_good_checksum(const Packet& packet, const Reader& message) noexcept {
  std::uint64_t sum = 0;
  if constexpr (sizeof(Address) == sizeof(Ipv6Address)) {
    const auto& key = packet.key<Address>();
    sum = pseudo_header_sum(key.source, key.destination, Protocol::icmpv6,
                            static_cast<std::uint32_t>(message.left()));
  }
  // Never a sum of zeros: no error has type 0.
  return is_checksum_good(checksum_add(message.at(), message.left(), sum));
}

// Of ICMPv6; the others have another field in its place.
constexpr bool has_length_field(const IcmpHeader& icmp) noexcept {
  return icmp.type == kIcmpv6DestinationUnreachable || icmp.type == kIcmpv6TimeExceeded;
}

// RFC 4884: how much of the message the quoted packet is, where extensions follow; at least 128
// bytes. ICMP counts words of 4 bytes in byte 5, ICMPv6 words of 8 bytes in byte 4.
template <class Address>
std::size_t quoted_bytes(const IcmpHeader& icmp, std::size_t left) noexcept {
  constexpr std::size_t kLeast = 128;
  const unsigned unused = icmp.unused.host();
  std::size_t said = 0;
  if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
    said = (unused & 0xffU) * std::size_t{4};
  } else if (has_length_field(icmp)) {
    said = (unused >> 8U) * std::size_t{8};
  }
  return said < kLeast ? left : std::min(said, left);
}

// The error goes where the quoted packet came from.
template <class Address>
void set_key(Packet& packet, const Quote& quote) noexcept {
  const auto& ip = *reinterpret_cast<const IpHeaderOf<Address>*>(quote.ip);
  auto& key = packet.key<Address>();
  key.source = ip.destination;
  key.destination = ip.source;
  key.protocol = quote.protocol;
  key.source_port = key.destination_port = Be16{};
  if (!has_ports(quote)) return;
  // TCP, UDP and SCTP begin alike: source port, destination port.
  const auto& ports = *reinterpret_cast<const UdpHeader*>(quote.transport);
  key.source_port = ports.destination_port;
  key.destination_port = ports.source_port;
}

}  // namespace

template <class Address>
std::optional<Quote> read_quote(Reader bytes) noexcept {
  if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
    return read_ipv4(bytes);
  } else {
    return read_ipv6(bytes);
  }
}

template <class Address>
Quote quote_of(const Packet& packet) noexcept {
  const std::uint8_t* const end = packet.ip + packet.ip_length;
  return *read_quote<Address>({packet.quote, static_cast<std::size_t>(end - packet.quote)});
}

template <class Address>
std::size_t bytes_before_extensions(const Packet& packet, const Quote& quote) noexcept {
  const auto left = static_cast<std::size_t>(packet.ip + packet.ip_length - quote.ip);
  const auto& icmp = *reinterpret_cast<const IcmpHeader*>(packet.transport);
  const std::size_t quoted = quoted_bytes<Address>(icmp, left);
  const auto header = static_cast<std::size_t>(quote.transport - quote.ip);
  // A quote that ends before its transport header has been cut wrongly.
  const std::size_t kept = quoted < header + kLeastQuoted ? left - header : quoted - header;
  return std::min(kept, quote.transport_bytes);
}

template <class Address>
void forget_extensions(IcmpHeader& icmp) noexcept {
  constexpr bool kIpv4 = sizeof(Address) == sizeof(Ipv4Address);
  if (!kIpv4 && !has_length_field(icmp)) return;
  const unsigned other = kIpv4 ? 0xff00 : 0x00ff;
  icmp.unused = Be16::from_host(static_cast<std::uint16_t>(icmp.unused.host() & other));
}

template <class Address>
Outcome parse_icmp(Packet& packet, const Reader& message) noexcept {
  const auto* icmp = message.peek<IcmpHeader>();
  if (icmp == nullptr || packet.key<Address>().protocol != kIcmpProtocol<Address> ||
      !is_followed<Address>(icmp->type)) {
    return Outcome::kernel_icmp;
  }
  if (!has_good_checksum<Address>(packet, message)) return Outcome::drop_bad_icmp_checksum;
  Reader quoted = message;
  quoted.skip(sizeof *icmp);
  const std::optional<Quote> quote = read_quote<Address>(quoted);
  if (!quote) return Outcome::kernel_icmp;
  packet.icmp_error = true;
  packet.quote = quote->ip;
  set_key<Address>(packet, *quote);
  return has_ports(*quote) ? Outcome::undecided : Outcome::kernel_icmp;
}

template std::optional<Quote> read_quote<Ipv4Address>(Reader) noexcept;
template std::optional<Quote> read_quote<Ipv6Address>(Reader) noexcept;
template Quote quote_of<Ipv4Address>(const Packet&) noexcept;
template Quote quote_of<Ipv6Address>(const Packet&) noexcept;
template std::size_t bytes_before_extensions<Ipv4Address>(const Packet&, const Quote&) noexcept;
template std::size_t bytes_before_extensions<Ipv6Address>(const Packet&, const Quote&) noexcept;
template void forget_extensions<Ipv4Address>(IcmpHeader&) noexcept;
template void forget_extensions<Ipv6Address>(IcmpHeader&) noexcept;
template Outcome parse_icmp<Ipv4Address>(Packet&, const Reader&) noexcept;
template Outcome parse_icmp<Ipv6Address>(Packet&, const Reader&) noexcept;

}  // namespace weir
