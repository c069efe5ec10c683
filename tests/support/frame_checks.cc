// SPDX-License-Identifier: Apache-2.0
#include "tests/support/frame_checks.h"

#include <array>

#include "tests/support/recordings.h"

namespace weir::test {
namespace {

using View = std::span<const std::uint8_t>;

constexpr unsigned kTcp = 6;
constexpr unsigned kUdp = 17;
constexpr unsigned kIcmp = 1;
constexpr unsigned kIcmpv6 = 58;
constexpr unsigned kSctp = 132;
constexpr unsigned kIpip = 4;
constexpr unsigned kIpv6InIp = 41;

std::size_t word(View bytes, std::size_t at) {
  return std::size_t{bytes[at]} * 256 + bytes[at + 1];
}

std::string fault_of_ip(View packet);

// Over the pseudo header and the message; the right one sums to nothing.
bool is_sum_good(View addresses, unsigned protocol, View message) {
  Bytes all(addresses.begin(), addresses.end());
  const auto length = static_cast<std::uint32_t>(message.size());
  for (const std::uint32_t part : {length >> 24, length >> 16, length >> 8, length, 0U, 0U, 0U,
                                   static_cast<std::uint32_t>(protocol)}) {
    all.push_back(static_cast<std::uint8_t>(part));
  }
  all.insert(all.end(), message.begin(), message.end());
  return internet_checksum(all) == 0;
}

// CRC32c bit by bit.
std::uint32_t crc32c_of(View bytes) {
  std::uint32_t crc = 0xffffffffU;
  for (const std::uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  return ~crc;
}

bool is_sctp_good(View message) {
  Bytes blank(message.begin(), message.end());
  std::uint32_t held = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    held |= std::uint32_t{blank[8 + i]} << (8 * i);
    blank[8 + i] = 0;
  }
  return crc32c_of(blank) == held;
}

std::string fault_of_transport(View addresses, unsigned protocol, View message) {
  const bool v4 = addresses.size() == 8;
  switch (protocol) {
    case kTcp:
      if (message.size() < 20 || message[12] / 16 * 4U > message.size()) return "TCP header";
      return is_sum_good(addresses, protocol, message) ? "" : "TCP checksum";
    case kUdp:
      if (message.size() < 8 || word(message, 4) != message.size()) return "UDP length";
      if (v4 && word(message, 6) == 0) return "";
      return is_sum_good(addresses, protocol, message) ? "" : "UDP checksum";
    case kSctp:
      if (message.size() < 12) return "SCTP header";
      return is_sctp_good(message) ? "" : "SCTP checksum";
    case kIcmp:
      return internet_checksum(message) == 0 ? "" : "ICMP checksum";
    case kIcmpv6:
      return is_sum_good(addresses, protocol, message) ? "" : "ICMPv6 checksum";
    case kIpip:
    case kIpv6InIp:
      return fault_of_ip(message);
    default:
      return "";
  }
}

std::string fault_of_ipv4(View packet) {
  if (packet.size() < 20) return "IPv4 header is cut off";
  const std::size_t header = packet[0] % 16 * 4U;
  if (header < 20 || header > packet.size()) return "IPv4 header length";
  if (word(packet, 2) != packet.size()) return "IPv4 total length";
  if (internet_checksum(packet.first(header)) != 0) return "IPv4 header checksum";
  if (packet[8] == 0) return "TTL 0";
  if ((word(packet, 6) & 0x3fff) != 0) return "";
  return fault_of_transport(packet.subspan(12, 8), packet[9], packet.subspan(header));
}

std::string fault_of_ipv6(View packet) {
  if (packet.size() < 40) return "IPv6 header is cut off";
  if (word(packet, 4) + 40 != packet.size()) return "IPv6 payload length";
  if (packet[7] == 0) return "hop limit 0";
  return fault_of_transport(packet.subspan(8, 32), packet[6], packet.subspan(40));
}

std::string fault_of_ip(View packet) {
  if (packet.empty()) return "no IP packet";
  if (packet[0] / 16 == 4) return fault_of_ipv4(packet);
  return packet[0] / 16 == 6 ? fault_of_ipv6(packet) : "no IP version";
}

}  // namespace

std::string fault_of(std::span<const std::uint8_t> frame) {
  constexpr std::size_t kVlan = 0x8100;
  if (frame.size() < 18) return "frame is cut off";
  const bool tagged = word(frame, 12) == kVlan;
  const std::size_t type = word(frame, tagged ? 16 : 12);
  const View packet = frame.subspan(tagged ? 18 : 14);
  const unsigned version = packet.empty() ? 0 : packet[0] / 16U;
  if (type != (version == 4 ? 0x0800U : 0x86ddU)) return "EtherType";
  return fault_of_ip(packet);
}

}  // namespace weir::test
