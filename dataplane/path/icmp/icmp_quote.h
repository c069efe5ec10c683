// SPDX-License-Identifier: Apache-2.0
// ICMP errors belong to the connection of the packet that they quote.
//
// An error about a packet of ours: IPv4 destination unreachable, source quench, time exceeded and
// parameter problem; ICMPv6 types 1 to 4. Not redirects, which are for the host's own routing.
// Source: RFC 792, RFC 4443, ip_vs_in_icmp and ip_vs_out_icmp (ip_vs_core.c). Worker thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

#include "dataplane/net/reader.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/path/packet.h"

namespace weir {

template <class Address>
using IpHeaderOf =
    std::conditional_t<sizeof(Address) == sizeof(Ipv4Address), Ipv4Header, Ipv6Header>;

// What a router must quote of the transport header (RFC 792): ports, and TCP's sequence number or
// UDP's length and checksum.
inline constexpr std::size_t kLeastQuoted = 8;

// A quoted packet, which may be cut off anywhere behind its IP header.
struct Quote {
  std::uint8_t* ip;
  std::uint8_t* transport;      // behind IPv4 options or IPv6 extension headers
  std::size_t transport_bytes;  // quoted of it and its payload; 0 for a fragment but the first
  std::size_t whole_bytes;      // so many there were, as the quoted IP header says; maybe wrong
  Protocol protocol;            // of `transport`
  bool fragment;                // of several
};

// Whether it tells which connection the packet was of.
constexpr bool has_ports(const Quote& quote) noexcept {
  return quote.transport_bytes >= kLeastQuoted &&
         (quote.protocol == Protocol::tcp || quote.protocol == Protocol::udp ||
          quote.protocol == Protocol::sctp);
}

// `bytes` begin with the quoted IP header. Nothing where that is incomplete or malformed. The
// quoted lengths and checksums are not believed: routers spoil them.
template <class Address>
std::optional<Quote> read_quote(Reader bytes) noexcept;

// That of an error of this address family for which parse_frame has set `icmp_error`.
template <class Address>
Quote quote_of(const Packet& packet) noexcept;

// Of quote.transport_bytes those in front of extensions (RFC 4884).
template <class Address>
std::size_t bytes_before_extensions(const Packet& packet, const Quote& quote) noexcept;

// The error says no more that extensions follow.
template <class Address>
void forget_extensions(IcmpHeader& icmp) noexcept;

// For parse_frame: any ICMP or ICMPv6 message. `message` begins with the ICMP header and ends with
// the IP packet; `packet` has its IP header's fields. For an error with a readable quote it sets
// `icmp_error`, `quote` and the key as packet.h tells.
// undecided: an error about TCP, UDP or SCTP. kernel_icmp: all else; also an error about another
// protocol (a tunnel of ours, say) or a later fragment: that one has `icmp_error` and the key
// without ports. drop_bad_icmp_checksum: an error that is not to be believed.
template <class Address>
Outcome parse_icmp(Packet& packet, const Reader& message) noexcept;

}  // namespace weir
