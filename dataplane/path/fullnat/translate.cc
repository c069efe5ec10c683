// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/fullnat/translate.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

#include "dataplane/net/checksum.h"
#include "dataplane/net/ipv6_extensions.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/path/icmp/icmp_quote.h"

namespace weir {
namespace {

template <class Address>
constexpr bool kIsIpv4 = sizeof(Address) == sizeof(Ipv4Address);

template <class To>
using OtherFamily = std::conditional_t<kIsIpv4<To>, Ipv6Address, Ipv4Address>;

constexpr std::uint16_t kLeastIpv6Mtu = 1280;
// What RFC 7915 adds to an IPv4 MTU, and takes from an IPv6 one.
constexpr std::uint16_t kHeaderDifference = sizeof(Ipv6Header) - sizeof(Ipv4Header);

// ---- IP headers ----

// What the headers of either family tell.
struct IpFields {
  std::uint8_t tos;
  std::uint8_t hops;
  Protocol protocol;
  bool may_fragment;
  std::size_t payload_bytes;  // transport header and all behind it
};

constexpr std::uint8_t kOptionEnd = 0;
constexpr std::uint8_t kOptionNothing = 1;
constexpr std::uint8_t kOptionLooseRoute = 131;
constexpr std::uint8_t kOptionStrictRoute = 137;
constexpr std::size_t kOptionMinimum = 3;  // kind, length, pointer

// RFC 791 section 3.1: a source route is used up when its pointer is beyond its length.
bool has_source_route_to_go(std::span<const std::uint8_t> options) noexcept {
  while (options.size() >= kOptionMinimum && options[0] != kOptionEnd) {
    if (options[0] == kOptionNothing) {
      options = options.subspan(1);
      continue;
    }
    const std::size_t length = options[1];
    if (length < 2 || length > options.size()) return false;
    const bool route = options[0] == kOptionLooseRoute || options[0] == kOptionStrictRoute;
    if (route && length >= kOptionMinimum && options[2] <= length) return true;
    options = options.subspan(length);
  }
  return false;
}

// Nothing: must not be translated.
std::optional<IpFields> fields_of_ipv4(const Packet& packet) noexcept {
  const auto& ip = *reinterpret_cast<const Ipv4Header*>(packet.ip);
  if (has_source_route_to_go({packet.ip + sizeof ip, ip.header_bytes() - sizeof ip})) {
    return std::nullopt;
  }
  const auto payload = static_cast<std::size_t>(packet.ip + packet.ip_length - packet.transport);
  return IpFields{ip.tos, ip.ttl, ip.protocol, !packet.dont_fragment, payload};
}

constexpr std::size_t kSegmentsLeft = 3;

std::optional<IpFields> fields_of_ipv6(const Packet& packet) noexcept {
  const auto& ip = *reinterpret_cast<const Ipv6Header*>(packet.ip);
  // Reassembly has made one packet of several, or the sender asked for it (RFC 6946).
  bool may_fragment = packet.largest_fragment != 0 || packet.fragment_size != 0;
  // parse_frame has checked the chain.
  Ipv6Extensions walk(&ip.next_header, {packet.ip + sizeof ip, packet.ip_length - sizeof ip});
  while (walk.at_extension()) {
    if (walk.next() == kIpv6Routing && walk.reader().at()[kSegmentsLeft] != 0) return std::nullopt;
    may_fragment = may_fragment || walk.next() == kIpv6Fragment;
    if (!walk.pass()) return std::nullopt;
  }
  return IpFields{ip.traffic_class(), ip.hop_limit, static_cast<Protocol>(walk.next()),
                  may_fragment, walk.reader().left()};
}

template <class From>
std::optional<IpFields> fields_of(const Packet& packet) noexcept {
  if constexpr (kIsIpv4<From>) {
    return fields_of_ipv4(packet);
  } else {
    return fields_of_ipv6(packet);
  }
}

// Of a quoted packet: as long as it was.
template <class From>
IpFields fields_of(const Quote& quote) noexcept {
  const auto& ip = *reinterpret_cast<const IpHeaderOf<From>*>(quote.ip);
  if constexpr (kIsIpv4<From>) {
    return {ip.tos, ip.ttl, quote.protocol, quote.fragment, quote.whole_bytes};
  } else {
    return {ip.traffic_class(), ip.hop_limit, quote.protocol, quote.fragment, quote.whole_bytes};
  }
}

void write_header(std::uint8_t* at, const IpFields& fields, const Ipv4Address& source,
                  const Ipv4Address& destination, std::uint16_t id) noexcept {
  constexpr std::size_t kMayFragment = kLeastIpv6Mtu - kHeaderDifference;
  auto& ip = *reinterpret_cast<Ipv4Header*>(at);
  const std::size_t total = sizeof ip + fields.payload_bytes;
  const bool keep_whole = total > kMayFragment && !fields.may_fragment;
  ip = {.version_and_length = 0x45,
        .tos = fields.tos,
        .total_length = Be16::from_host(static_cast<std::uint16_t>(total)),
        .id = Be16::from_host(id),
        .fragment = Be16::from_host(keep_whole ? Ipv4Header::kDontFragment : std::uint16_t{0}),
        .ttl = fields.hops,
        .protocol = fields.protocol,
        .checksum = Be16{},
        .source = source,
        .destination = destination};
  ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
}

void write_header(std::uint8_t* at, const IpFields& fields, const Ipv6Address& source,
                  const Ipv6Address& destination, std::uint16_t /*id*/) noexcept {
  constexpr int kClassShift = 20;
  *reinterpret_cast<Ipv6Header*>(at) = {
      .version_class_flow = Be32::from_host(6U << 28U | std::uint32_t{fields.tos} << kClassShift),
      .payload_length = Be16::from_host(static_cast<std::uint16_t>(fields.payload_bytes)),
      .next_header = fields.protocol,
      .hop_limit = fields.hops,
      .source = source,
      .destination = destination};
}

// The new IP packet begins at `ip`, which is in the headroom or later, and has `length` bytes.
void move_start(Packet& packet, std::uint8_t* ip, std::size_t length, Family family) noexcept {
  if (ip < packet.frame) {
    packet.headroom = static_cast<std::uint16_t>(packet.headroom - (packet.frame - ip));
    packet.frame = ip;
  }
  packet.ip = ip;
  packet.ip_length = static_cast<std::uint32_t>(length);
  packet.length = static_cast<std::uint32_t>(ip - packet.frame + packet.ip_length);
  packet.family = family;
  packet.dont_fragment =
      family == Family::ipv6 ||
      (reinterpret_cast<const Ipv4Header*>(ip)->fragment.host() & Ipv4Header::kDontFragment) != 0;
}

// Whether `needed` bytes fit before `at`.
bool has_room(const Packet& packet, const std::uint8_t* at, std::size_t needed) noexcept {
  return static_cast<std::size_t>(at - packet.frame) + packet.headroom >= needed;
}

// ---- Checksums ----

template <class Address>
void subtract(ChecksumDelta& delta, const Address& address) noexcept {
  for (const Be32 word : load<std::array<Be32, sizeof(Address) / sizeof(Be32)>>(&address)) {
    delta.replace(word, Be32{});
  }
}

template <class Address>
void add(ChecksumDelta& delta, const Address& address) noexcept {
  for (const Be32 word : load<std::array<Be32, sizeof(Address) / sizeof(Be32)>>(&address)) {
    delta.replace(Be32{}, word);
  }
}

// What the pseudo header gains. Length and protocol count the same in both families.
template <class From, class To>
ChecksumDelta address_delta(const std::uint8_t* ip, const To& source,
                            const To& destination) noexcept {
  const auto& before = *reinterpret_cast<const IpHeaderOf<From>*>(ip);
  ChecksumDelta delta;
  subtract(delta, before.source);
  subtract(delta, before.destination);
  add(delta, source);
  add(delta, destination);
  return delta;
}

template <class To>
void compute_udp_checksum(std::uint8_t* transport, const Ends<To>& ends) noexcept {
  auto& udp = *reinterpret_cast<UdpHeader*>(transport);
  const std::uint32_t length = udp.length.host();
  const std::uint64_t sum = pseudo_header_sum(ends.source, ends.destination, Protocol::udp, length);
  udp.checksum = checksum_finish(checksum_add(&udp, length, sum));
  if (udp.checksum == Be16{}) udp.checksum = Be16::from_raw(0xffff);
}

template <class To>
Outcome translate(Packet& packet, const Ends<To>& ends, std::uint16_t id) noexcept {
  using From = OtherFamily<To>;
  const std::optional<IpFields> fields = fields_of<From>(packet);
  if (!fields) return Outcome::drop_untranslatable;
  constexpr std::size_t kHeader = sizeof(IpHeaderOf<To>);
  constexpr Family kFamily = kIsIpv4<To> ? Family::ipv4 : Family::ipv6;
  const std::size_t length = kHeader + fields->payload_bytes;
  if (length > max_ip_length(kFamily)) return Outcome::drop_too_big;
  if (!has_room(packet, packet.transport, kHeader)) return Outcome::drop_no_headroom;

  const Quote whole{.ip = packet.ip,
                    .transport = packet.transport,
                    .transport_bytes = fields->payload_bytes,
                    .whole_bytes = fields->payload_bytes,
                    .protocol = fields->protocol,
                    .fragment = false};
  const bool udp = fields->protocol == Protocol::udp;
  const bool without_checksum =
      udp && reinterpret_cast<const UdpHeader*>(packet.transport)->checksum == Be16{};
  rewrite_transport(whole, address_delta<From>(packet.ip, ends.source, ends.destination),
                    {ends.source_port, ends.destination_port});
  if (without_checksum) compute_udp_checksum(packet.transport, ends);
  std::uint8_t* const ip = packet.transport - kHeader;
  write_header(ip, *fields, ends.source, ends.destination, id);
  move_start(packet, ip, length, kFamily);
  return Outcome::undecided;
}

// ---- ICMP errors ----

// What the last four bytes of the ICMP header are.
enum class Detail : std::uint8_t { none, mtu, pointer, pointer_to_next_header };

struct ErrorRow {
  std::uint8_t type;
  std::uint8_t code;
  std::uint8_t new_type;
  std::uint8_t new_code;
  Detail detail;
};

// RFC 7915 section 4.2: ICMP to ICMPv6. What is not listed is dropped.
constexpr ErrorRow kToIpv6[] = {
    {kIcmpDestinationUnreachable, 0, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 1, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 2, kIcmpv6ParameterProblem, 1, Detail::pointer_to_next_header},
    {kIcmpDestinationUnreachable, 3, kIcmpv6DestinationUnreachable, 4, Detail::none},
    {kIcmpDestinationUnreachable, 4, kIcmpv6PacketTooBig, 0, Detail::mtu},
    {kIcmpDestinationUnreachable, 5, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 6, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 7, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 8, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 9, kIcmpv6DestinationUnreachable, 1, Detail::none},
    {kIcmpDestinationUnreachable, 10, kIcmpv6DestinationUnreachable, 1, Detail::none},
    {kIcmpDestinationUnreachable, 11, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 12, kIcmpv6DestinationUnreachable, 0, Detail::none},
    {kIcmpDestinationUnreachable, 13, kIcmpv6DestinationUnreachable, 1, Detail::none},
    {kIcmpDestinationUnreachable, 15, kIcmpv6DestinationUnreachable, 1, Detail::none},
    {kIcmpTimeExceeded, 0, kIcmpv6TimeExceeded, 0, Detail::none},
    {kIcmpTimeExceeded, 1, kIcmpv6TimeExceeded, 1, Detail::none},
    {kIcmpParameterProblem, 0, kIcmpv6ParameterProblem, 0, Detail::pointer},
    {kIcmpParameterProblem, 2, kIcmpv6ParameterProblem, 0, Detail::pointer},
};

// RFC 7915 section 5.2: ICMPv6 to ICMP.
constexpr ErrorRow kToIpv4[] = {
    {kIcmpv6DestinationUnreachable, 0, kIcmpDestinationUnreachable, 1, Detail::none},
    {kIcmpv6DestinationUnreachable, 1, kIcmpDestinationUnreachable, 10, Detail::none},
    {kIcmpv6DestinationUnreachable, 2, kIcmpDestinationUnreachable, 1, Detail::none},
    {kIcmpv6DestinationUnreachable, 3, kIcmpDestinationUnreachable, 1, Detail::none},
    {kIcmpv6DestinationUnreachable, 4, kIcmpDestinationUnreachable, 3, Detail::none},
    {kIcmpv6PacketTooBig, 0, kIcmpDestinationUnreachable, 4, Detail::mtu},
    {kIcmpv6TimeExceeded, 0, kIcmpTimeExceeded, 0, Detail::none},
    {kIcmpv6TimeExceeded, 1, kIcmpTimeExceeded, 1, Detail::none},
    {kIcmpv6ParameterProblem, 0, kIcmpParameterProblem, 0, Detail::pointer},
    {kIcmpv6ParameterProblem, 1, kIcmpDestinationUnreachable, 2, Detail::none},
};

template <class To>
const ErrorRow* row_of(const IcmpHeader& icmp) noexcept {
  const auto rows = [] {
    if constexpr (kIsIpv4<To>) {
      return std::span(kToIpv4);
    } else {
      return std::span(kToIpv6);
    }
  }();
  const auto* row = std::find_if(rows.data(), rows.data() + rows.size(), [&](const ErrorRow& each) {
    return each.type == icmp.type && each.code == icmp.code;
  });
  return row == rows.data() + rows.size() ? nullptr : row;
}

constexpr std::uint8_t kNoField = 0xff;

// Field of the IPv4 header -> of the IPv6 header (RFC 7915 figure 3).
constexpr std::array<std::uint8_t, sizeof(Ipv4Header)> kPointerToIpv6 = {
    0,        1,        4, 4, kNoField, kNoField, kNoField, kNoField, 7,  6,
    kNoField, kNoField, 8, 8, 8,        8,        24,       24,       24, 24};

// Field of the IPv6 header -> of the IPv4 header (RFC 7915 figure 6).
constexpr std::array<std::uint8_t, sizeof(Ipv6Header)> kPointerToIpv4 = {
    0,  1,  kNoField, kNoField, 2,  2,  9,  8,  12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12, 12,
    12, 12, 12,       12,       16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16};

constexpr std::uint8_t kNextHeaderField = 6;  // of the IPv6 header

template <std::size_t kFields>
std::uint8_t look_up(const std::array<std::uint8_t, kFields>& fields, std::size_t at) noexcept {
  return at < kFields ? fields[at] : kNoField;
}

// The last four bytes of the ICMP header.
constexpr std::size_t kDetailOffset = 4;

Be32 detail_of(const IcmpHeader& icmp) noexcept {
  return load<Be32>(reinterpret_cast<const std::uint8_t*>(&icmp) + kDetailOffset);
}

// RFC 1191 section 7.1: MTUs of common links, where a router does not tell; those above 1280.
constexpr std::uint16_t kPlateaus[] = {65535, 32000, 17914, 8166, 4352, 2002, 1492};

std::uint16_t likely_mtu(std::size_t packet) noexcept {
  for (const std::uint16_t plateau : kPlateaus) {
    if (plateau < packet) return plateau;
  }
  return kLeastIpv6Mtu;
}

// An IPv6 node never sends less than 1280 bytes, whatever a router reports.
std::uint32_t mtu_for_ipv6(const IcmpHeader& icmp, const Quote& quote,
                           std::uint16_t growth) noexcept {
  const auto& quoted = *reinterpret_cast<const Ipv4Header*>(quote.ip);
  const std::uint32_t mtu = icmp.mtu == Be16{} ? likely_mtu(quoted.total_length.host())
                                               : std::uint32_t{icmp.mtu.host()} + kHeaderDifference;
  return std::max<std::uint32_t>(kLeastIpv6Mtu, mtu - std::min<std::uint32_t>(mtu, growth));
}

std::uint32_t mtu_for_ipv4(const IcmpHeader& icmp, std::uint16_t growth) noexcept {
  const std::uint32_t told = detail_of(icmp).host();
  constexpr std::uint32_t kLargestMtu = 0xffff;
  const std::uint32_t mtu = std::clamp<std::uint32_t>(told, kLeastIpv6Mtu, kLargestMtu);
  return mtu - kHeaderDifference - growth;
}

// Those of the new error. Nothing: the other family has no word for it.
template <class To>
std::optional<Be32> translate_detail(const IcmpHeader& icmp, Detail detail, const Quote& quote,
                                     std::uint16_t growth) noexcept {
  const std::uint32_t value = detail_of(icmp).host();
  switch (detail) {
    case Detail::none:
      break;
    case Detail::pointer_to_next_header:
      return Be32::from_host(kNextHeaderField);
    case Detail::mtu:
      if constexpr (kIsIpv4<To>) {
        return Be32::from_host(mtu_for_ipv4(icmp, growth));
      } else {
        return Be32::from_host(mtu_for_ipv6(icmp, quote, growth));
      }
    case Detail::pointer: {
      // ICMP has it in the first byte, ICMPv6 in all four.
      constexpr int kFirstByte = 24;
      const std::uint8_t field = kIsIpv4<To> ? look_up(kPointerToIpv4, value)
                                             : look_up(kPointerToIpv6, value >> kFirstByte);
      if (field == kNoField) return std::nullopt;
      return Be32::from_host(kIsIpv4<To> ? std::uint32_t{field} << kFirstByte : field);
    }
  }
  return Be32{};
}

// Bytes of the quoted transport header and payload that the new error has: no extensions, and no
// more than a router may send (RFC 1812 section 4.3.2.3, RFC 4443 section 2.4).
template <class To>
std::size_t kept_bytes(const Packet& packet, const Quote& quote) noexcept {
  constexpr std::size_t kLongest = kIsIpv4<To> ? 576 : kLeastIpv6Mtu;
  constexpr std::size_t kHeaders = 2 * sizeof(IpHeaderOf<To>) + sizeof(IcmpHeader);
  return std::min(bytes_before_extensions<OtherFamily<To>>(packet, quote), kLongest - kHeaders);
}

template <class To>
Outcome translate_error(Packet& packet, const QuoteRewrite<To>& to, std::uint16_t id) noexcept {
  using From = OtherFamily<To>;
  constexpr std::size_t kHeader = sizeof(IpHeaderOf<To>);
  std::optional<IpFields> outer = fields_of<From>(packet);
  const IcmpHeader icmp = *reinterpret_cast<const IcmpHeader*>(packet.transport);
  const ErrorRow* const row = row_of<To>(icmp);
  if (!outer || row == nullptr) return Outcome::drop_untranslatable;
  Quote quote = quote_of<From>(packet);
  const auto detail = translate_detail<To>(icmp, row->detail, quote, to.growth);
  if (!detail) return Outcome::drop_untranslatable;
  constexpr std::size_t kHeaders = 2 * kHeader + sizeof(IcmpHeader);
  if (!has_room(packet, quote.transport, kHeaders)) return Outcome::drop_no_headroom;

  quote.transport_bytes = kept_bytes<To>(packet, quote);
  remove_quoted_proxy_header(quote, to);
  const IpFields inner = fields_of<From>(quote);
  rewrite_transport(quote, address_delta<From>(quote.ip, to.receiver, to.peer),
                    {to.receiver_port, to.peer_port, to.sequence_change});
  outer->protocol = kIsIpv4<To> ? Protocol::icmp : Protocol::icmpv6;
  outer->payload_bytes = sizeof icmp + kHeader + quote.transport_bytes;
  // From here on the new headers cover the old ones.
  packet.quote = quote.transport - kHeader;
  write_header(packet.quote, inner, to.receiver, to.peer, 0);
  packet.transport = packet.quote - sizeof icmp;
  *reinterpret_cast<IcmpHeader*>(packet.transport) = {row->new_type, row->new_code, Be16{}, Be16{},
                                                      Be16{}};
  std::memcpy(packet.transport + kDetailOffset, &*detail, sizeof *detail);
  std::uint8_t* const ip = packet.transport - kHeader;
  write_header(ip, *outer, to.sender, to.receiver, id);
  move_start(packet, ip, kHeader + outer->payload_bytes, kIsIpv4<To> ? Family::ipv4 : Family::ipv6);
  compute_icmp_checksum<To>(packet);
  return Outcome::undecided;
}

}  // namespace

int translation_growth(const Packet& packet) noexcept {
  const std::size_t header =
      packet.family == Family::ipv4 ? sizeof(Ipv6Header) : sizeof(Ipv4Header);
  return static_cast<int>(header) - static_cast<int>(packet.transport - packet.ip);
}

Outcome translate_to_ipv4(Packet& packet, const Ends<Ipv4Address>& ends,
                          std::uint16_t id) noexcept {
  return translate(packet, ends, id);
}

Outcome translate_to_ipv6(Packet& packet, const Ends<Ipv6Address>& ends) noexcept {
  return translate(packet, ends, 0);
}

Outcome translate_error_to_ipv4(Packet& packet, const QuoteRewrite<Ipv4Address>& to,
                                std::uint16_t id) noexcept {
  return translate_error(packet, to, id);
}

Outcome translate_error_to_ipv6(Packet& packet, const QuoteRewrite<Ipv6Address>& to) noexcept {
  return translate_error(packet, to, 0);
}

}  // namespace weir
