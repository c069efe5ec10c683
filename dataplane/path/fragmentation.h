// SPDX-License-Identifier: Apache-2.0
// Cuts a finished IP packet into fragments (RFC 791 section 3.2, RFC 8200 section 4.5), in the
// sizes that Linux makes (ip_do_fragment, ip6_fragment): each as large as may be, all but the last
// a multiple of 8 bytes of payload. The packet itself is not changed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "dataplane/path/packet.h"

namespace weir {

// Bytes that a piece may have: those of IPv6 are no smaller than every link takes (ip6_fragment).
inline std::uint16_t piece_size(const Packet& packet) noexcept {
  constexpr std::uint16_t kMinIpv6Mtu = 1280;
  return packet.family == Family::ipv6 ? std::max(packet.fragment_size, kMinIpv6Mtu)
                                       : packet.fragment_size;
}

// Whether the packet leaves in pieces.
inline bool is_to_be_cut(const Packet& packet) noexcept {
  return packet.fragment_size != 0 && packet.ip_length > piece_size(packet);
}

// Worker thread. Use: while (const auto length = cut.next_length()) cut.write_next(buffer);
class FragmentCutter {
 public:
  // `packet` is whole, with its Ethernet header in place, and outlives the cutter. A packet that is
  // not to be cut is one piece, unchanged. `fresh_id` names the pieces of an IPv6 packet, and of an
  // IPv4 packet with DF and id 0 (RFC 6864: an id that means nothing).
  FragmentCutter(const Packet& packet, std::uint32_t fresh_id) noexcept;

  // Bytes of the next piece's frame; 0: no more. From the start 0: fragment_size leaves no room
  // for payload.
  std::size_t next_length() const noexcept;
  // Writes next_length() bytes.
  void write_next(std::uint8_t* frame) noexcept;

 private:
  std::size_t payload_of_next() const noexcept;
  void finish_ipv4(std::uint8_t* at, std::size_t payload) const noexcept;
  void finish_ipv6(std::uint8_t* at, std::size_t payload) const noexcept;

  const Packet& packet_;
  std::uint32_t fresh_id_;
  std::size_t link_;             // bytes of the Ethernet header
  std::size_t repeated_;         // bytes of IP header that each piece carries
  std::size_t inserted_ = 0;     // bytes of fragment header
  std::size_t next_header_ = 0;  // where, in the repeated headers, IPv6 says what follows them
  std::size_t most_ = 0;         // payload of a piece
  std::size_t offset_ = 0;       // of the next piece, in the payload
  std::size_t payload_;
};

}  // namespace weir
