// SPDX-License-Identifier: Apache-2.0
// Whether a frame may be on the wire: lengths, IP and transport checksums, nothing beyond the
// packet. Recomputed from the definitions (RFC 1071, RFC 9260), not by weir's own code.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace weir::test {

// What is wrong with an Ethernet frame (with or without a VLAN tag), empty if nothing. Follows
// IPIP tunnels; of a fragment only the IP header is judged.
std::string fault_of(std::span<const std::uint8_t> frame);

}  // namespace weir::test
