// SPDX-License-Identifier: Apache-2.0
// Packets of one address family become the other's (RFC 7915), for a fullnat connection whose real
// server is of another family than its service. Addresses and ports are given.
//
// TOS and traffic class, TTL and hop limit are copied; flow label 0. IPv4 options and IPv6
// extension headers are dropped; a packet with a source route still to go is not translated.
// Checksums are updated incrementally (a wrong one stays wrong); a UDP checksum of zero is
// computed. DF of an IPv4 packet from IPv6 is clear up to 1260 bytes, whose path need not carry
// more than IPv6's least MTU, and where it came or leaves as fragments.
//
// Afterwards ip, transport, frame, headroom, length, ip_length, family, dont_fragment and quote are
// those of the new packet; the bytes before the IP header are not an Ethernet header any more, and
// the key stays that of the packet as received. Lengths in bytes. Worker thread.
#pragma once

#include <cstdint>

#include "dataplane/path/icmp/icmp_rewrite.h"
#include "dataplane/path/packet.h"
#include "dataplane/path/verdict.h"

namespace weir {

template <class Address>
struct Ends {
  Address source;
  Address destination;
  Be16 source_port;
  Be16 destination_port;
};

// By how much the IP packet will be longer; negative: shorter.
int translation_growth(const Packet& packet) noexcept;

// A TCP, UDP or SCTP packet of the other family. `id` is for the IPv4 header.
// undecided: done. Else the packet is unchanged: drop_no_headroom, drop_too_big (too long for
// IP) or drop_untranslatable.
[[nodiscard]] Outcome translate_to_ipv4(Packet& packet, const Ends<Ipv4Address>& ends,
                                        std::uint16_t id) noexcept;
[[nodiscard]] Outcome translate_to_ipv6(Packet& packet, const Ends<Ipv6Address>& ends) noexcept;

// An ICMP error of the other family that parse_frame has left undecided, the quoted packet with it:
// type, code, pointer, MTU (plus or less 20; at least 1280 towards IPv6) as RFC 7915 sections 4.2
// and 5.2 have them. What the other family has no word for is drop_untranslatable. RFC 4884
// extensions are cut off; at most 576 (IPv4) or 1280 bytes (IPv6) remain.
[[nodiscard]] Outcome translate_error_to_ipv4(Packet& packet, const QuoteRewrite<Ipv4Address>& to,
                                              std::uint16_t id) noexcept;
[[nodiscard]] Outcome translate_error_to_ipv6(Packet& packet,
                                              const QuoteRewrite<Ipv6Address>& to) noexcept;

}  // namespace weir
