// SPDX-License-Identifier: Apache-2.0
#include "tests/support/frame_checks.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "tests/support/recordings.h"

namespace weir::test {
namespace {

using View = std::span<const std::uint8_t>;

constexpr unsigned kHopByHop = 0;
constexpr unsigned kIcmp = 1;
constexpr unsigned kIpip = 4;
constexpr unsigned kTcp = 6;
constexpr unsigned kUdp = 17;
constexpr unsigned kIpv6InIp = 41;
constexpr unsigned kRouting = 43;
constexpr unsigned kFragment = 44;
constexpr unsigned kGre = 47;
constexpr unsigned kIcmpv6 = 58;
constexpr unsigned kDestinationOptions = 60;
constexpr unsigned kSctp = 132;

constexpr std::size_t kTypeIpv4 = 0x0800;
constexpr std::size_t kTypeVlan = 0x8100;
constexpr std::size_t kTypeIpv6 = 0x86dd;

constexpr std::size_t kIcmpHeader = 8;

// What of TCP, UDP, SCTP and of quotes is judged; `gue`: the UDP datagram is a tunnel's.
struct Scope {
  bool lengths = true;
  bool checksums = true;
  bool gue = false;
};

std::size_t word(View bytes, std::size_t at) {
  return std::size_t{bytes[at]} * 256 + bytes[at + 1];
}

std::size_t version_of(View packet) { return packet.empty() ? 0 : packet[0] / 16U; }

View packet_of(View frame) {
  const std::size_t ethernet = frame.size() >= 18 && word(frame, 12) == kTypeVlan ? 18 : 14;
  return frame.subspan(std::min(ethernet, frame.size()));
}

// The length that an IP packet says it has; 0: its header is not whole.
std::size_t length_of(View packet) {
  if (version_of(packet) == 4 && packet.size() >= 20) return word(packet, 2);
  return version_of(packet) == 6 && packet.size() >= 40 ? word(packet, 4) + 40 : 0;
}

// ---- What is in an IP packet ----

struct Inside {
  View addresses;  // as in the pseudo header
  unsigned protocol = 0;
  View message;
};

// Nothing: a fragment, or headers that go on beyond the packet.
std::optional<Inside> inside_of_ipv4(View packet) {
  const std::size_t header = packet[0] % 16 * 4U;
  if (header < 20 || header > packet.size() || (word(packet, 6) & 0x3fff) != 0) return {};
  return Inside{packet.subspan(12, 8), packet[9], packet.subspan(header)};
}

std::optional<Inside> inside_of_ipv6(View packet) {
  Inside inside{packet.subspan(8, 32), packet[6], packet.subspan(40)};
  while (inside.protocol == kHopByHop || inside.protocol == kRouting ||
         inside.protocol == kFragment || inside.protocol == kDestinationOptions) {
    if (inside.message.size() < 8) return {};
    const bool fragment = inside.protocol == kFragment;
    // Offset and more fragments; without either it is a whole packet.
    if (fragment && (word(inside.message, 2) & 0xfff9) != 0) return {};
    const std::size_t length = fragment ? 8 : inside.message[1] * 8U + 8;
    if (length > inside.message.size()) return {};
    inside.protocol = inside.message[0];
    inside.message = inside.message.subspan(length);
  }
  return inside;
}

std::optional<Inside> inside_of(View packet) {
  return version_of(packet) == 4 ? inside_of_ipv4(packet) : inside_of_ipv6(packet);
}

// ---- Checksums ----

// Over the pseudo header and the message; of a good one with its checksum it is 0.
std::uint16_t sum_of(const Inside& inside) {
  if (inside.protocol == kIcmp) return internet_checksum(inside.message);
  Bytes all(inside.addresses.begin(), inside.addresses.end());
  const auto length = static_cast<std::uint32_t>(inside.message.size());
  for (const std::uint32_t part : {length >> 24, length >> 16, length >> 8, length, 0U, 0U, 0U,
                                   static_cast<std::uint32_t>(inside.protocol)}) {
    all.push_back(static_cast<std::uint8_t>(part));
  }
  all.insert(all.end(), inside.message.begin(), inside.message.end());
  return internet_checksum(all);
}

// CRC32c bit by bit, with the four bytes of its own field as zeros, as it lies in the field.
std::array<std::uint8_t, 4> sctp_checksum(View message) {
  std::uint32_t crc = 0xffffffffU;
  for (std::size_t i = 0; i < message.size(); ++i) {
    if (i < 8 || i >= 12) crc ^= message[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0x82f63b78U : 0U);
  }
  std::array<std::uint8_t, 4> field;
  for (std::size_t i = 0; i < 4; ++i) field[i] = static_cast<std::uint8_t>(~crc >> (8 * i));
  return field;
}

// ---- Faults ----

std::string fault_of_ip(View packet, Scope scope);

std::string fault_of_tcp(const Inside& inside, Scope scope) {
  const View message = inside.message;
  const std::size_t header = message.size() < 20 ? 0 : message[12] / 16 * 4U;
  if (header < 20 || header > message.size()) return scope.lengths ? "TCP header" : "";
  return !scope.checksums || sum_of(inside) == 0 ? "" : "TCP checksum";
}

std::string fault_of_udp(const Inside& inside, Scope scope) {
  const View message = inside.message;
  if (message.size() < 8 || word(message, 4) != message.size()) {
    return scope.lengths ? "UDP length" : "";
  }
  const bool v4 = inside.addresses.size() == 8;
  if (!scope.checksums || (v4 && word(message, 6) == 0)) return "";
  return sum_of(inside) == 0 && word(message, 6) != 0 ? "" : "UDP checksum";
}

std::string fault_of_sctp(const Inside& inside, Scope scope) {
  if (inside.message.size() < 12) return scope.lengths ? "SCTP header" : "";
  const auto right = sctp_checksum(inside.message);
  const bool good = std::equal(right.begin(), right.end(), inside.message.begin() + 8);
  return !scope.checksums || good ? "" : "SCTP checksum";
}

// The draft allows UDP without checksum over IPv6, too (RFC 6935).
std::string fault_of_gue(const Inside& inside, Scope scope) {
  const View message = inside.message;
  if (message.size() < 12 || word(message, 4) != message.size()) return "GUE: UDP length";
  if (word(message, 6) != 0 && sum_of(inside) != 0) return "GUE: UDP checksum";
  const std::size_t options = message[8] % 32 * 4U;
  if (message[8] >= 32 || 12 + options > message.size()) return "GUE header";
  const View packet = message.subspan(12 + options);
  if (message[9] != (version_of(packet) == 4 ? kIpip : kIpv6InIp)) return "GUE protocol";
  return fault_of_ip(packet, scope);
}

// RFC 2784.
std::string fault_of_gre(View message, Scope scope) {
  constexpr std::size_t kChecksumPresent = 0x8000;
  if (message.size() < 8) return "GRE header is cut off";
  const std::size_t flags = word(message, 0);
  if ((flags & ~kChecksumPresent) != 0) return "GRE flags";
  if (flags != 0 && internet_checksum(message) != 0) return "GRE checksum";
  const View packet = message.subspan(flags != 0 ? 8 : 4);
  if (word(message, 2) != (version_of(packet) == 4 ? kTypeIpv4 : kTypeIpv6)) return "GRE protocol";
  return fault_of_ip(packet, scope);
}

bool is_icmp_error(const Inside& inside) {
  const unsigned type = inside.message[0];
  if (inside.protocol == kIcmpv6) return type < 128;
  return type == 3 || type == 11 || type == 12;
}

// What an error quotes: of a packet that is not there as a whole, the IPv4 header.
std::string fault_of_quote(View quote, Scope scope) {
  if (!scope.checksums || version_of(quote) < 4) return "";
  const std::size_t header = version_of(quote) == 4 ? quote[0] % 16 * 4U : 40U;
  if (header < 20 || header > quote.size()) return "quoted header";
  if (version_of(quote) == 4 && internet_checksum(quote.first(header)) != 0) {
    return "quoted IPv4 header checksum";
  }
  if (length_of(quote) != quote.size()) return "";
  const std::string fault = fault_of_ip(quote, scope);
  return fault.empty() ? "" : "quoted " + fault;
}

std::string fault_of_icmp(const Inside& inside, Scope scope) {
  if (inside.message.size() < kIcmpHeader) return "ICMP header is cut off";
  if (sum_of(inside) != 0) return "ICMP checksum";
  return is_icmp_error(inside) ? fault_of_quote(inside.message.subspan(kIcmpHeader), scope) : "";
}

std::string fault_of_inside(const Inside& inside, Scope scope) {
  if (std::exchange(scope.gue, false) && inside.protocol == kUdp)
    return fault_of_gue(inside, scope);
  switch (inside.protocol) {
    case kTcp:
      return fault_of_tcp(inside, scope);
    case kUdp:
      return fault_of_udp(inside, scope);
    case kSctp:
      return fault_of_sctp(inside, scope);
    case kIcmp:
    case kIcmpv6:
      return fault_of_icmp(inside, scope);
    case kIpip:
    case kIpv6InIp:
      return fault_of_ip(inside.message, scope);
    case kGre:
      return fault_of_gre(inside.message, scope);
    default:
      return "";
  }
}

std::string fault_of_ip(View packet, Scope scope) {
  const bool v4 = version_of(packet) == 4;
  if (!v4 && version_of(packet) != 6) return "no IP version";
  if (packet.size() < (v4 ? 20 : 40)) return "IP header is cut off";
  if (length_of(packet) != packet.size()) return v4 ? "IPv4 total length" : "IPv6 payload length";
  const std::size_t header = v4 ? packet[0] % 16 * 4U : 40U;
  if (header < 20 || header > packet.size()) return "IPv4 header length";
  if (v4 && internet_checksum(packet.first(header)) != 0) return "IPv4 header checksum";
  const auto inside = inside_of(packet);
  return inside ? fault_of_inside(*inside, scope) : "";
}

std::string fault_of_frame(View frame, Scope scope) {
  const View packet = packet_of(frame);
  if (frame.size() < 14 || packet.empty()) return "frame is cut off";
  const std::size_t type = word(frame, frame.size() - packet.size() - 2);
  if (type != (version_of(packet) == 4 ? kTypeIpv4 : kTypeIpv6)) return "EtherType";
  const std::string fault = fault_of_ip(packet, scope);
  if (!fault.empty()) return fault;
  return packet[version_of(packet) == 4 ? 8 : 7] == 0 ? "no hops left" : "";
}

View without_padding(View frame) {
  const View packet = packet_of(frame);
  const std::size_t beyond = packet.size() - std::min(length_of(packet), packet.size());
  return frame.first(frame.size() - beyond);
}

// Where in `frame`, which `part` is of, the part begins.
std::size_t place_of(View frame, View part) {
  return static_cast<std::size_t>(part.data() - frame.data());
}

void write_word(std::span<std::uint8_t> frame, std::size_t at, std::size_t value) {
  frame[at] = static_cast<std::uint8_t>(value / 256);
  frame[at + 1] = static_cast<std::uint8_t>(value);
}

void write_ipv4_checksum(std::span<std::uint8_t> frame, View packet) {
  const std::size_t header = packet[0] % 16 * 4U;
  if (header < 20 || header > packet.size()) return;
  const std::size_t at = place_of(frame, packet) + 10;
  write_word(frame, at, 0);
  write_word(frame, at, internet_checksum(packet.first(header)));
}

void write_sctp_checksum(std::span<std::uint8_t> frame, View message) {
  if (message.size() < 12) return;
  const auto checksum = sctp_checksum(message);
  std::copy(checksum.begin(), checksum.end(), &frame[place_of(frame, message) + 8]);
}

// `field` is where in the message its checksum is.
void write_sum(std::span<std::uint8_t> frame, const Inside& inside, std::size_t field) {
  if (inside.message.size() < field + 2) return;
  const std::size_t at = place_of(frame, inside.message) + field;
  write_word(frame, at, 0);
  const std::size_t sum = sum_of(inside);
  // Zero would say that there is none.
  write_word(frame, at, inside.protocol == kUdp && sum == 0 ? 0xffff : sum);
}

}  // namespace

std::string fault_of(std::span<const std::uint8_t> frame) { return fault_of_frame(frame, {}); }

std::string fault_of_sent(std::span<const std::uint8_t> frame, Outcome outcome,
                          std::span<const std::uint8_t> received) {
  const View before = without_padding(received);
  const bool made = outcome == Outcome::reset_sent || outcome == Outcome::probe_sent;
  return fault_of_frame(frame,
                        {.lengths = made || fault_of_frame(before, {.checksums = false}).empty(),
                         .checksums = made || fault_of(before).empty(),
                         .gue = outcome == Outcome::tun_to_server});
}

void write_checksums(std::span<std::uint8_t> frame) {
  const View packet = packet_of(without_padding(frame));
  if (packet.empty() || length_of(packet) != packet.size()) return;
  if (version_of(packet) == 4) write_ipv4_checksum(frame, packet);
  const auto inside = inside_of(packet);
  if (!inside) return;
  switch (inside->protocol) {
    case kTcp:
      return write_sum(frame, *inside, 16);
    case kUdp:
      return write_sum(frame, *inside, 6);
    case kIcmp:
    case kIcmpv6:
      return write_sum(frame, *inside, 2);
    case kSctp:
      return write_sctp_checksum(frame, inside->message);
    default:
      return;
  }
}

}  // namespace weir::test
