// SPDX-License-Identifier: Apache-2.0
// Addresses, protocols and ports as types. Text forms are for control, commands and tests only.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "dataplane/net/byte_order.h"
#include "dataplane/net/mix.h"

namespace weir {

enum class Family : std::uint8_t { ipv4, ipv6 };

// IANA protocol numbers. `ip` stands for a fwmark service, as IPPROTO_IP does in IPVS.
enum class Protocol : std::uint8_t {
  ip = 0,
  icmp = 1,
  ipip = 4,
  tcp = 6,
  udp = 17,
  ipv6 = 41,
  gre = 47,
  icmpv6 = 58,
  sctp = 132,
};

struct MacAddress {
  std::array<std::uint8_t, 6> bytes{};

  static std::optional<MacAddress> parse(std::string_view text);  // "02:00:00:00:00:01"
  std::string to_string() const;
  friend bool operator==(const MacAddress& a, const MacAddress& b) noexcept {
    return ((load<std::uint32_t>(&a.bytes[0]) ^ load<std::uint32_t>(&b.bytes[0])) |
            (load<std::uint16_t>(&a.bytes[4]) ^ unsigned{load<std::uint16_t>(&b.bytes[4])})) == 0;
  }
  friend constexpr auto operator<=>(const MacAddress&, const MacAddress&) noexcept = default;
};

struct Ipv4Address {
  Be32 value;
  friend constexpr bool operator==(const Ipv4Address&, const Ipv4Address&) noexcept = default;
};

struct Ipv6Address {
  std::array<std::uint8_t, 16> bytes{};
  // By words: a comparison of bytes becomes a call.
  friend bool operator==(const Ipv6Address& a, const Ipv6Address& b) noexcept {
    return ((load<std::uint64_t>(&a.bytes[0]) ^ load<std::uint64_t>(&b.bytes[0])) |
            (load<std::uint64_t>(&a.bytes[8]) ^ load<std::uint64_t>(&b.bytes[8]))) == 0;
  }
};

// Either family. An IPv4 address lies in the first four bytes, the rest is zero, so that equality
// and hashing work on whole bytes.
class IpAddress {
 public:
  constexpr IpAddress() noexcept = default;
  constexpr IpAddress(Ipv4Address address) noexcept : family_(Family::ipv4) {
    const auto raw = std::bit_cast<std::array<std::uint8_t, 4>>(address.value.raw());
    for (std::size_t i = 0; i < raw.size(); ++i) bytes_[i] = raw[i];
  }
  constexpr IpAddress(Ipv6Address address) noexcept
      : bytes_(address.bytes), family_(Family::ipv6) {}

  static std::optional<IpAddress> parse(std::string_view text);  // no brackets, no port
  std::string to_string() const;  // as inet_ntop writes it, without brackets

  constexpr Family family() const noexcept { return family_; }
  constexpr bool is_ipv4() const noexcept { return family_ == Family::ipv4; }
  // Network byte order; 4 bytes count for IPv4, 16 for IPv6.
  constexpr const std::array<std::uint8_t, 16>& bytes() const noexcept { return bytes_; }
  constexpr int bit_width() const noexcept { return is_ipv4() ? 32 : 128; }

  Ipv4Address ipv4() const noexcept { return load<Ipv4Address>(bytes_.data()); }
  Ipv6Address ipv6() const noexcept { return Ipv6Address{bytes_}; }

  bool is_unspecified() const noexcept { return *this == IpAddress(family_); }
  bool is_multicast() const noexcept {
    return is_ipv4() ? (bytes_[0] & 0xf0) == 0xe0 : bytes_[0] == 0xff;
  }
  bool is_loopback() const noexcept;
  // Of one host.
  bool is_unicast() const noexcept {
    const bool broadcast = is_ipv4() && ipv4().value.host() == 0xffffffffU;
    return !is_unspecified() && !is_multicast() && !broadcast;
  }
  // The first `length` bits kept, the rest cleared.
  IpAddress masked(int length) const noexcept;

  friend constexpr auto operator<=>(const IpAddress&, const IpAddress&) noexcept = default;

 private:
  explicit constexpr IpAddress(Family family) noexcept : family_(family) {}

  std::array<std::uint8_t, 16> bytes_{};
  Family family_ = Family::ipv4;
};

template <class Address>
using OtherFamily =
    std::conditional_t<std::is_same_v<Address, Ipv4Address>, Ipv6Address, Ipv4Address>;

// The address as one of its own family, which it must be of.
template <class Address>
Address address_of(const IpAddress& address) noexcept {
  if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
    return address.ipv4();
  } else {
    return address.ipv6();
  }
}

// An address block, "10.0.0.0/8". Host bits of `address` are zero.
struct IpPrefix {
  IpAddress address;
  std::uint8_t length = 0;

  bool contains(const IpAddress& other) const noexcept {
    return other.family() == address.family() && other.masked(length) == address;
  }
  // The highest address of the block.
  IpAddress last() const noexcept;
  friend constexpr auto operator<=>(const IpPrefix&, const IpPrefix&) noexcept = default;
};

}  // namespace weir

template <>
struct std::hash<weir::IpAddress> {
  std::size_t operator()(const weir::IpAddress& address) const noexcept {
    const auto low = weir::load<std::uint64_t>(address.bytes().data());
    const auto high = weir::load<std::uint64_t>(address.bytes().data() + 8);
    return weir::multiply_mix(low ^ 0x9e3779b97f4a7c15ULL, high ^ 0xd1b54a32d192ed03ULL);
  }
};
