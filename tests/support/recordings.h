// SPDX-License-Identifier: Apache-2.0
// Reading test data: JSON files, hexadecimal frames, and what of a frame may differ.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>

namespace weir::test {

using Bytes = std::vector<std::uint8_t>;

// Of tests/data, or of the directory that the environment variable WEIR_TEST_DATA names. All throw
// on a missing or malformed file, which fails the test.
boost::json::value read_json(const std::string& name);
std::vector<boost::json::object> read_json_lines(const std::string& name);

Bytes from_hex(std::string_view text);
std::string to_hex(std::span<const std::uint8_t> bytes);

// A recorded frame. Of a long one only the first 160 bytes are recorded; the rest is its payload,
// one byte repeated or bytes that count up, as the recorder sent it.
Bytes whole_frame(const boost::json::object& frame);

// The Internet checksum over `bytes` by the definition of RFC 1071, as it stands in a header.
std::uint16_t internet_checksum(std::span<const std::uint8_t> bytes);

// Whether the checksum of the IPv4 header at `at` is right.
bool ipv4_checksum_ok(std::span<const std::uint8_t> frame, std::size_t at);
// Clears the id and with it the checksum of the IPv4 header at `at`: a sender's own choice.
void blank_ipv4_id(Bytes& frame, std::size_t at);
// Whether the UDP checksum after the IP header at `at`, which has no options, is right or absent.
bool udp_checksum_ok(std::span<const std::uint8_t> frame, std::size_t at);
// Clears the UDP source port, and with it the checksum if there is one: a tunnel's own choice.
void blank_udp_source_port(Bytes& frame, std::size_t at);
// Clears the flow label of the IPv6 header at `at`, which is a sender's own choice, too.
void blank_flow_label(Bytes& frame, std::size_t at);

}  // namespace weir::test
