// SPDX-License-Identifier: Apache-2.0
// Frames for tests that care for flows and states rather than for bytes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "dataplane/net/wire_headers.h"
#include "tests/support/recordings.h"

namespace weir::test {

// Addresses as text, of one family.
struct Flow {
  std::string source;
  std::uint16_t source_port = 0;
  std::string destination;
  std::uint16_t destination_port = 0;
};

// From the client side of BurstLab, or from the real server 10.2.0.N or 2001:db8:2::N.
Bytes client_tcp(const Flow& flow, std::uint8_t flags, std::string_view payload = "");
Bytes client_udp(const Flow& flow, std::string_view payload = "x");
Bytes server_tcp(const Flow& flow, std::uint8_t flags, std::string_view payload = "");
Bytes server_udp(const Flow& flow, std::string_view payload = "x");

// A chunk of 7 bytes, and its padding, for each type.
Bytes client_sctp(const Flow& flow, std::initializer_list<std::uint8_t> chunk_types);
Bytes server_sctp(const Flow& flow, std::initializer_list<std::uint8_t> chunk_types);

// What an untagged frame says, below an IPIP header if there is one.
struct Decoded {
  Flow flow;
  std::uint8_t tcp_flags = 0;
  unsigned server = 0;  // the last byte of the destination MAC
};
Decoded decode(std::span<const std::uint8_t> frame);

}  // namespace weir::test
