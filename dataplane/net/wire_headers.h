// SPDX-License-Identifier: Apache-2.0
// Layouts of the headers on the wire. Alignment 1 throughout, byte order in the types.
#pragma once

#include <cstdint>
#include <type_traits>

#include "dataplane/net/addresses.h"
#include "dataplane/net/byte_order.h"

namespace weir {

inline constexpr std::uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr std::uint16_t kEtherTypeVlan = 0x8100;
inline constexpr std::uint16_t kEtherTypeIpv6 = 0x86dd;

struct EthernetHeader {
  MacAddress destination;
  MacAddress source;
  Be16 ether_type;
};
static_assert(sizeof(EthernetHeader) == 14);

// IEEE 802.1Q tag, which follows the two addresses.
struct VlanTag {
  Be16 control;  // priority 3, drop eligible 1, VLAN id 12
  Be16 ether_type;
};
static_assert(sizeof(VlanTag) == 4);

// RFC 791.
struct Ipv4Header {
  std::uint8_t version_and_length;  // version 4, header length in 32-bit words
  std::uint8_t tos;
  Be16 total_length;
  Be16 id;
  Be16 fragment;  // flags 3, offset in 8-byte units 13
  std::uint8_t ttl;
  Protocol protocol;
  Be16 checksum;
  Ipv4Address source;
  Ipv4Address destination;

  static constexpr std::uint16_t kDontFragment = 0x4000;
  static constexpr std::uint16_t kMoreFragments = 0x2000;
  static constexpr std::uint16_t kOffsetMask = 0x1fff;
  constexpr unsigned header_bytes() const noexcept { return (version_and_length & 0xfU) * 4; }
};
static_assert(sizeof(Ipv4Header) == 20 && alignof(Ipv4Header) == 1);

// RFC 8200.
struct Ipv6Header {
  Be32 version_class_flow;  // version 4, traffic class 8, flow label 20
  Be16 payload_length;
  Protocol next_header;
  std::uint8_t hop_limit;
  Ipv6Address source;
  Ipv6Address destination;

  constexpr std::uint8_t traffic_class() const noexcept {
    return static_cast<std::uint8_t>(version_class_flow.host() >> 20);
  }
};
static_assert(sizeof(Ipv6Header) == 40 && alignof(Ipv6Header) == 1);

// Bytes of the longest packet. The length field of IPv4 counts the header, that of IPv6 does not.
constexpr std::uint32_t max_ip_length(Family family) noexcept {
  return family == Family::ipv4 ? 0xffffU : sizeof(Ipv6Header) + 0xffffU;
}

// Extension headers of RFC 8200 section 4 that may precede the transport header.
inline constexpr std::uint8_t kIpv6HopByHop = 0;
inline constexpr std::uint8_t kIpv6Routing = 43;
inline constexpr std::uint8_t kIpv6Fragment = 44;
inline constexpr std::uint8_t kIpv6DestinationOptions = 60;

struct Ipv6FragmentHeader {
  std::uint8_t next_header;
  std::uint8_t reserved;
  Be16 offset_and_more;  // offset in 8-byte units 13, reserved 2, more fragments 1
  Be32 id;

  // In bytes, as the lower bits of the field are others.
  constexpr std::uint16_t offset() const noexcept {
    return static_cast<std::uint16_t>(offset_and_more.host() & ~7U);
  }
  constexpr bool more() const noexcept { return (offset_and_more.host() & 1U) != 0; }
};
static_assert(sizeof(Ipv6FragmentHeader) == 8);

// RFC 9293.
struct TcpHeader {
  Be16 source_port;
  Be16 destination_port;
  Be32 sequence;
  Be32 acknowledgement;
  std::uint8_t data_offset;  // header length in 32-bit words 4, reserved 4
  std::uint8_t flags;
  Be16 window;
  Be16 checksum;
  Be16 urgent;

  static constexpr std::uint8_t kFin = 0x01;
  static constexpr std::uint8_t kSyn = 0x02;
  static constexpr std::uint8_t kRst = 0x04;
  static constexpr std::uint8_t kAck = 0x10;
  constexpr unsigned header_bytes() const noexcept { return (data_offset & 0xf0U) >> 2U; }
};
static_assert(sizeof(TcpHeader) == 20 && alignof(TcpHeader) == 1);

// RFC 768.
struct UdpHeader {
  Be16 source_port;
  Be16 destination_port;
  Be16 length;
  Be16 checksum;
};
static_assert(sizeof(UdpHeader) == 8);

// RFC 9260 section 3.1.
struct SctpHeader {
  Be16 source_port;
  Be16 destination_port;
  Be32 verification_tag;
  Be32 checksum;  // CRC32c, least significant byte first
};
static_assert(sizeof(SctpHeader) == 12);

// RFC 9260 section 3.2; chunks begin at multiples of 4 bytes.
struct SctpChunkHeader {
  std::uint8_t type;
  std::uint8_t flags;
  Be16 length;  // with this header, without the padding
};
static_assert(sizeof(SctpChunkHeader) == 4);

// RFC 2784.
struct GreHeader {
  Be16 flags_and_version;
  Be16 protocol;  // an EtherType

  static constexpr std::uint16_t kChecksumPresent = 0x8000;
};
static_assert(sizeof(GreHeader) == 4);

// Follows the GRE header where kChecksumPresent says so.
struct GreChecksum {
  Be16 checksum;
  Be16 reserved;
};
static_assert(sizeof(GreChecksum) == 4);

// Generic UDP Encapsulation, version 0 (draft-ietf-intarea-gue), after a UDP header.
struct GueHeader {
  std::uint8_t version_and_length;  // version 2, control 1, length of the options in words 5
  Protocol protocol;
  Be16 flags;
};
static_assert(sizeof(GueHeader) == 4);

// RFC 792 and RFC 4443: type, code, checksum, four bytes that depend on the type.
struct IcmpHeader {
  std::uint8_t type;
  std::uint8_t code;
  Be16 checksum;
  Be16 unused;
  Be16 mtu;  // fragmentation needed; packet too big uses all four bytes
};
static_assert(sizeof(IcmpHeader) == 8);

inline constexpr std::uint8_t kIcmpDestinationUnreachable = 3;
inline constexpr std::uint8_t kIcmpSourceQuench = 4;
inline constexpr std::uint8_t kIcmpTimeExceeded = 11;
inline constexpr std::uint8_t kIcmpParameterProblem = 12;
// Of time exceeded, in both families.
inline constexpr std::uint8_t kIcmpCodeReassemblyTimeExceeded = 1;
inline constexpr std::uint8_t kIcmpCodeHostUnreachable = 1;
inline constexpr std::uint8_t kIcmpCodePortUnreachable = 3;
inline constexpr std::uint8_t kIcmpCodeFragmentationNeeded = 4;

inline constexpr std::uint8_t kIcmpv6DestinationUnreachable = 1;
inline constexpr std::uint8_t kIcmpv6PacketTooBig = 2;
inline constexpr std::uint8_t kIcmpv6TimeExceeded = 3;
inline constexpr std::uint8_t kIcmpv6ParameterProblem = 4;
inline constexpr std::uint8_t kIcmpv6CodeNoRoute = 0;
inline constexpr std::uint8_t kIcmpv6CodePortUnreachable = 4;

}  // namespace weir
