// SPDX-License-Identifier: Apache-2.0
// Whether a frame may be on the wire: lengths, IP and transport checksums, nothing beyond the
// packet. Recomputed from the definitions (RFC 1071, RFC 9260), not by weir's own code.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "dataplane/path/verdict.h"

namespace weir::test {

// What is wrong with an Ethernet frame (with or without a VLAN tag), empty if nothing. Follows IPv6
// extension headers, IPIP and GRE tunnels, and what ICMP errors quote; of a fragment only the IP
// header is judged.
std::string fault_of(std::span<const std::uint8_t> frame);

// The same of a frame that the packet path sends because of `received`, which may have padding.
// What is wrong in a received TCP, UDP or SCTP packet, or in what an ICMP error quotes, stays
// wrong; everything else, GUE too, is the director's own work.
std::string fault_of_sent(std::span<const std::uint8_t> frame, Outcome outcome,
                          std::span<const std::uint8_t> received);

// Writes the checksums of the IPv4 header and of TCP, UDP, SCTP, ICMP or ICMPv6 behind it, as far
// as the frame's lengths and headers are sound.
void write_checksums(std::span<std::uint8_t> frame);

}  // namespace weir::test
