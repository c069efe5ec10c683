// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/fragmentation.h"

#include <cstring>

#include "dataplane/net/checksum.h"
#include "dataplane/net/ipv6_extensions.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

constexpr std::size_t kUnit = 8;

// Bytes of an IPv6 packet's headers that each fragment repeats, and where the last of them says
// what follows. As Linux has it (ip6_find_1stfragopt): destination options behind a routing header
// are for the destination, so they may be cut.
struct Unfragmentable {
  std::size_t length;
  std::size_t next_header;
};

Unfragmentable unfragmentable_part(const Packet& packet) noexcept {
  constexpr std::size_t kHeader = sizeof(Ipv6Header);
  Ipv6Extensions walk(packet.ip + offsetof(Ipv6Header, next_header),
                      {packet.ip + kHeader, packet.ip_length - kHeader});
  bool routed = false;
  while (walk.at_extension() && walk.next() != kIpv6Fragment) {
    if (walk.next() == kIpv6DestinationOptions && routed) break;
    routed = routed || walk.next() == kIpv6Routing;
    if (!walk.pass()) break;
  }
  return {static_cast<std::size_t>(walk.reader().at() - packet.ip),
          static_cast<std::size_t>(walk.next_field() - packet.ip)};
}

// Options that only the first fragment carries become no-operations (RFC 791 section 3.1).
void blank_uncopied_options(std::uint8_t* ip, std::size_t header) noexcept {
  constexpr std::uint8_t kEnd = 0;
  constexpr std::uint8_t kNoOperation = 1;
  constexpr std::uint8_t kCopied = 0x80;
  std::size_t at = sizeof(Ipv4Header);
  while (at < header && ip[at] != kEnd) {
    if (ip[at] == kNoOperation) {
      ++at;
      continue;
    }
    const std::size_t length = at + 1 < header ? ip[at + 1] : 0;
    if (length < 2 || at + length > header) return;
    if ((ip[at] & kCopied) == 0) std::memset(ip + at, kNoOperation, length);
    at += length;
  }
}

}  // namespace

FragmentCutter::FragmentCutter(const Packet& packet, std::uint32_t fresh_id) noexcept
    : packet_(packet),
      fresh_id_(fresh_id),
      link_(static_cast<std::size_t>(packet.ip - packet.frame)),
      repeated_(0),
      payload_(packet.ip_length) {
  most_ = payload_;
  if (!is_to_be_cut(packet)) return;
  if (packet.family == Family::ipv4) {
    repeated_ = reinterpret_cast<const Ipv4Header*>(packet.ip)->header_bytes();
  } else {
    const Unfragmentable part = unfragmentable_part(packet);
    repeated_ = part.length;
    next_header_ = part.next_header;
    inserted_ = sizeof(Ipv6FragmentHeader);
  }
  payload_ = packet.ip_length - repeated_;
  const std::size_t headers = repeated_ + inserted_;
  const std::size_t size = piece_size(packet);
  most_ = size > headers ? size - headers : 0;
}

std::size_t FragmentCutter::payload_of_next() const noexcept {
  const std::size_t left = payload_ - offset_;
  return left <= most_ ? left : most_ / kUnit * kUnit;
}

std::size_t FragmentCutter::next_length() const noexcept {
  const std::size_t payload = payload_of_next();
  return payload == 0 ? 0 : link_ + repeated_ + inserted_ + payload;
}

void FragmentCutter::write_next(std::uint8_t* frame) noexcept {
  const std::size_t payload = payload_of_next();
  std::memcpy(frame, packet_.frame, link_ + repeated_);
  std::memcpy(frame + link_ + repeated_ + inserted_, packet_.ip + repeated_ + offset_, payload);
  if (is_to_be_cut(packet_)) {
    if (packet_.family == Family::ipv4) {
      finish_ipv4(frame + link_, payload);
    } else {
      finish_ipv6(frame + link_, payload);
    }
  }
  offset_ += payload;
}

void FragmentCutter::finish_ipv4(std::uint8_t* at, std::size_t payload) const noexcept {
  auto& ip = *reinterpret_cast<Ipv4Header*>(at);
  if (offset_ != 0) blank_uncopied_options(at, repeated_);
  const unsigned dont = ip.fragment.host() & Ipv4Header::kDontFragment;
  const unsigned more = offset_ + payload < payload_ ? Ipv4Header::kMoreFragments : 0U;
  if (dont != 0 && ip.id == Be16{}) ip.id = Be16::from_host(static_cast<std::uint16_t>(fresh_id_));
  ip.fragment = Be16::from_host(static_cast<std::uint16_t>(dont | more | offset_ / kUnit));
  ip.total_length = Be16::from_host(static_cast<std::uint16_t>(repeated_ + payload));
  ip.checksum = Be16{};
  ip.checksum = checksum_finish(checksum_add(at, repeated_));
}

void FragmentCutter::finish_ipv6(std::uint8_t* at, std::size_t payload) const noexcept {
  auto& ip = *reinterpret_cast<Ipv6Header*>(at);
  const std::size_t length = repeated_ + inserted_ + payload - sizeof ip;
  ip.payload_length = Be16::from_host(static_cast<std::uint16_t>(length));
  // Offsets count in units of 8, the lower three bits are flags: the sum in bytes is both.
  const unsigned more = offset_ + payload < payload_ ? 1U : 0U;
  *reinterpret_cast<Ipv6FragmentHeader*>(at + repeated_) = {
      at[next_header_], 0, Be16::from_host(static_cast<std::uint16_t>(offset_ | more)),
      Be32::from_host(fresh_id_)};
  at[next_header_] = kIpv6Fragment;
}

}  // namespace weir
