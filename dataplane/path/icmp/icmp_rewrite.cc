// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/icmp/icmp_rewrite.h"

#include <cstddef>

#include "dataplane/net/checksum.h"
#include "dataplane/net/crc32c.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/path/fullnat/client_address.h"
#include "dataplane/path/icmp/icmp_quote.h"

namespace weir {
namespace {

constexpr std::size_t kTcpChecksumEnd = 18;
constexpr std::size_t kSctpChecksumEnd = 12;

void rewrite_quoted_tcp(const Quote& quote, ChecksumDelta& delta,
                        std::uint32_t sequence_change) noexcept {
  auto& tcp = *reinterpret_cast<TcpHeader*>(quote.transport);
  const Be32 sequence = Be32::from_host(tcp.sequence.host() + sequence_change);
  delta.replace(tcp.sequence, sequence);
  tcp.sequence = sequence;
  if (quote.transport_bytes >= kTcpChecksumEnd) delta.apply(tcp.checksum);
}

void rewrite_quoted_udp(const Quote& quote, const ChecksumDelta& delta) noexcept {
  auto& udp = *reinterpret_cast<UdpHeader*>(quote.transport);
  if (udp.checksum == Be16{}) return;
  delta.apply(udp.checksum);
  // Zero would say that there is none.
  if (udp.checksum == Be16{}) udp.checksum = Be16::from_raw(0xffff);
}

// The CRC covers no addresses: only the ports change, in the first four bytes.
void rewrite_quoted_sctp(const Quote& quote, std::uint32_t ports_before) noexcept {
  if (quote.transport_bytes < kSctpChecksumEnd || quote.whole_bytes < quote.transport_bytes ||
      quote.fragment) {
    return;
  }
  const std::uint32_t change = ports_before ^ load<std::uint32_t>(quote.transport);
  const std::uint32_t crc =
      crc32c_add_zeros(crc32c_add(0, &change, sizeof change), quote.whole_bytes - sizeof change);
  auto& sctp = *reinterpret_cast<SctpHeader*>(quote.transport);
  sctp.checksum = Be32::from_raw(sctp.checksum.raw() ^ crc);
}

void shorten(Ipv4Header& ip, std::size_t bytes) noexcept {
  const std::size_t length = ip.total_length.host() - bytes;
  const Be16 shorter = Be16::from_host(static_cast<std::uint16_t>(length));
  ChecksumDelta delta;
  delta.replace(ip.total_length, shorter);
  delta.apply(ip.checksum);
  ip.total_length = shorter;
}

void shorten(Ipv6Header& ip, std::size_t bytes) noexcept {
  const std::size_t length = ip.payload_length.host() - bytes;
  ip.payload_length = Be16::from_host(static_cast<std::uint16_t>(length));
}

// The client's datagram had none. The error ends with the quote then, without extensions.
template <class Address>
void take_out_proxy_header(Packet& packet, const QuoteRewrite<Address>& to) noexcept {
  Quote quote = quote_of<Address>(packet);
  quote.transport_bytes = bytes_before_extensions<Address>(packet, quote);
  const std::uint16_t removed = remove_quoted_proxy_header(quote, to);
  if (removed == 0) return;
  shorten(*reinterpret_cast<IpHeaderOf<Address>*>(quote.ip), removed);
  const std::uint8_t* const end = quote.transport + quote.transport_bytes;
  const std::uint32_t beyond = packet.ip_length - static_cast<std::uint32_t>(end - packet.ip);
  shorten(*reinterpret_cast<IpHeaderOf<Address>*>(packet.ip), beyond);
  packet.ip_length -= beyond;
  packet.length -= beyond;
  forget_extensions<Address>(*reinterpret_cast<IcmpHeader*>(packet.transport));
}

template <class Address>
void lower_mtu(IcmpHeader& icmp, std::uint16_t growth) noexcept {
  const bool too_big =
      sizeof(Address) == sizeof(Ipv4Address)
          ? icmp.type == kIcmpDestinationUnreachable && icmp.code == kIcmpCodeFragmentationNeeded
          : icmp.type == kIcmpv6PacketTooBig;
  const std::uint16_t mtu = icmp.mtu.host();
  if (too_big && mtu > growth) icmp.mtu = Be16::from_host(static_cast<std::uint16_t>(mtu - growth));
}

}  // namespace

template <class Address>
void compute_icmp_checksum(Packet& packet) noexcept {
  auto& icmp = *reinterpret_cast<IcmpHeader*>(packet.transport);
  const auto length = static_cast<std::size_t>(packet.ip + packet.ip_length - packet.transport);
  std::uint64_t sum = 0;
  if constexpr (sizeof(Address) == sizeof(Ipv6Address)) {
    const auto& ip = *reinterpret_cast<const Ipv6Header*>(packet.ip);
    sum = pseudo_header_sum(ip.source, ip.destination, Protocol::icmpv6,
                            static_cast<std::uint32_t>(length));
  }
  icmp.checksum = Be16{};
  icmp.checksum = checksum_finish(checksum_add(&icmp, length, sum));
}

void rewrite_transport(const Quote& quote, ChecksumDelta delta,
                       const TransportRewrite& ends) noexcept {
  // TCP, UDP and SCTP begin alike: source port, destination port.
  auto& ports = *reinterpret_cast<UdpHeader*>(quote.transport);
  const auto before = load<std::uint32_t>(&ports);
  delta.replace(ports.source_port, ends.source_port);
  delta.replace(ports.destination_port, ends.destination_port);
  ports.source_port = ends.source_port;
  ports.destination_port = ends.destination_port;
  switch (quote.protocol) {
    case Protocol::tcp:
      return rewrite_quoted_tcp(quote, delta, ends.sequence_change);
    case Protocol::sctp:
      return rewrite_quoted_sctp(quote, before);
    default:
      return rewrite_quoted_udp(quote, delta);
  }
}

template <class Address>
Address error_sender(const Packet& packet) noexcept {
  return reinterpret_cast<const IpHeaderOf<Address>*>(packet.ip)->source;
}

template <class Address>
std::uint32_t quoted_sequence(const Packet& packet) noexcept {
  const Quote quote = quote_of<Address>(packet);
  if (quote.protocol != Protocol::tcp) return 0;
  return reinterpret_cast<const TcpHeader*>(quote.transport)->sequence.host();
}

template <class Address>
std::uint16_t remove_quoted_proxy_header(Quote& quote, const QuoteRewrite<Address>& to) noexcept {
  if (!to.proxied) return 0;
  return remove_proxy_header(quote, {to.receiver, to.peer, to.receiver_port, to.peer_port});
}

template <class Address>
void rewrite_quote(Packet& packet, const QuoteRewrite<Address>& to) noexcept {
  take_out_proxy_header(packet, to);
  auto& ip = *reinterpret_cast<IpHeaderOf<Address>*>(packet.ip);
  ChecksumDelta outer;
  outer.replace(ip.source, to.sender);
  outer.replace(ip.destination, to.receiver);
  ip.source = to.sender;
  ip.destination = to.receiver;

  const Quote quote = quote_of<Address>(packet);
  auto& quoted = *reinterpret_cast<IpHeaderOf<Address>*>(quote.ip);
  ChecksumDelta inner;
  inner.replace(quoted.source, to.receiver);
  inner.replace(quoted.destination, to.peer);
  quoted.source = to.receiver;
  quoted.destination = to.peer;
  if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
    outer.apply(ip.checksum);
    inner.apply(quoted.checksum);
  }
  rewrite_transport(quote, inner, {to.receiver_port, to.peer_port, to.sequence_change});
  lower_mtu<Address>(*reinterpret_cast<IcmpHeader*>(packet.transport), to.growth);
  compute_icmp_checksum<Address>(packet);
}

template std::uint16_t remove_quoted_proxy_header(Quote&,
                                                  const QuoteRewrite<Ipv4Address>&) noexcept;
template std::uint16_t remove_quoted_proxy_header(Quote&,
                                                  const QuoteRewrite<Ipv6Address>&) noexcept;
template Ipv4Address error_sender<Ipv4Address>(const Packet&) noexcept;
template Ipv6Address error_sender<Ipv6Address>(const Packet&) noexcept;
template std::uint32_t quoted_sequence<Ipv4Address>(const Packet&) noexcept;
template std::uint32_t quoted_sequence<Ipv6Address>(const Packet&) noexcept;
template void compute_icmp_checksum<Ipv4Address>(Packet&) noexcept;
template void compute_icmp_checksum<Ipv6Address>(Packet&) noexcept;
template void rewrite_quote(Packet&, const QuoteRewrite<Ipv4Address>&) noexcept;
template void rewrite_quote(Packet&, const QuoteRewrite<Ipv6Address>&) noexcept;

}  // namespace weir
