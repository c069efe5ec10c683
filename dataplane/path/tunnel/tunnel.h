// SPDX-License-Identifier: Apache-2.0
// Tunnels to real servers: IPIP (RFC 2003, 2473, 4213), GUE (draft-ietf-intarea-gue) and GRE
// (RFC 2784), byte for byte as IPVS writes them (ip_vs_xmit.c: ip_vs_tunnel_xmit).
// Worker thread; lengths in bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/net/addresses.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/path/packet.h"
#include "dataplane/table/service.h"

namespace weir {

// Bytes that encapsulate() puts in front of the IP packet: the outer IP header and the tunnel's.
constexpr std::uint16_t tunnel_overhead(const Tunnel& tunnel, Family outer) noexcept {
  const std::uint16_t ip = outer == Family::ipv4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
  constexpr std::uint16_t kGue = sizeof(UdpHeader) + sizeof(GueHeader);
  constexpr std::uint16_t kGre = sizeof(GreHeader);
  switch (tunnel.type) {
    case TunnelType::ipip:
      return ip;
    case TunnelType::gue:
      return static_cast<std::uint16_t>(ip + kGue);
    case TunnelType::gre:
      const bool checksum = tunnel.checksum == TunnelChecksum::checksum;
      return static_cast<std::uint16_t>(ip + kGre + (checksum ? sizeof(GreChecksum) : 0U));
  }
  return ip;
}

// An outer header of the family of `to`: TTL, TOS (RFC 3168, CE becomes ECT(0)) and DF as the inner
// packet has them. `id` is used where DF is clear.
// Outcome::undecided: done; else drop_no_headroom or drop_too_big (too long for IP), and the packet
// is unchanged.
// GUE's remote checksum stands in for an inner one that is yet to be computed. None is here: the
// packet leaves with the ordinary one, as IPVS sends what its offloads have not touched.
[[nodiscard]] Outcome encapsulate(Packet& packet, const Tunnel& tunnel, const IpAddress& from,
                                  const IpAddress& to, std::uint16_t id) noexcept;

// What an ICMP error quotes of a packet that encapsulate() has made.
struct TunnelQuote {
  IpAddress to;           // the real server
  Tunnel tunnel;          // GUE: the port; the checksum's presence where the quote shows it
  std::size_t inner = 0;  // where the tunnelled packet begins in the quote; 0: it is not quoted
};

// `quote` begins with the outer IP header. Nothing: not a tunnel, a fragment but the first, or too
// short to tell (8 bytes after the outer IP header always suffice). An UDP packet is taken for GUE:
// whether `to` has a tunnel on that port is for the caller to know.
std::optional<TunnelQuote> parse_tunnel_quote(std::span<const std::uint8_t> quote) noexcept;

}  // namespace weir
