// SPDX-License-Identifier: Apache-2.0
#include "dataplane/net/addresses.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstdio>

namespace weir {

std::optional<MacAddress> MacAddress::parse(std::string_view text) {
  constexpr std::size_t kLength = 17;
  if (text.size() != kLength) return std::nullopt;
  MacAddress mac;
  for (std::size_t i = 0; i < mac.bytes.size(); ++i) {
    unsigned value = 0;
    for (std::size_t k = 0; k < 2; ++k) {
      const char digit = text[i * 3 + k];
      value *= 16;
      if (digit >= '0' && digit <= '9') {
        value += static_cast<unsigned>(digit - '0');
      } else if ((digit | 0x20) >= 'a' && (digit | 0x20) <= 'f') {
        value += static_cast<unsigned>((digit | 0x20) - 'a' + 10);
      } else {
        return std::nullopt;
      }
    }
    if (i + 1 < mac.bytes.size() && text[i * 3 + 2] != ':') return std::nullopt;
    mac.bytes[i] = static_cast<std::uint8_t>(value);
  }
  return mac;
}

std::string MacAddress::to_string() const {
  char text[18];
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2],
                bytes[3], bytes[4], bytes[5]);
  return text;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) return std::nullopt;
  const std::string terminated(text);
  Ipv4Address v4;
  if (inet_pton(AF_INET, terminated.c_str(), &v4) == 1) return IpAddress(v4);
  Ipv6Address v6;
  if (inet_pton(AF_INET6, terminated.c_str(), &v6) == 1) return IpAddress(v6);
  return std::nullopt;
}

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(is_ipv4() ? AF_INET : AF_INET6, bytes_.data(), text, sizeof text);
  return text;
}

bool IpAddress::is_loopback() const noexcept {
  if (is_ipv4()) return bytes_[0] == 127;
  return std::all_of(bytes_.begin(), bytes_.end() - 1, [](auto b) { return b == 0; }) &&
         bytes_[15] == 1;
}

IpAddress IpAddress::masked(int length) const noexcept {
  IpAddress result = *this;
  for (int i = 0; i < bit_width() / 8; ++i) {
    const int kept = std::clamp(length - 8 * i, 0, 8);
    result.bytes_[static_cast<std::size_t>(i)] &= static_cast<std::uint8_t>(0xff00 >> kept);
  }
  return result;
}

IpAddress IpPrefix::last() const noexcept {
  std::array<std::uint8_t, 16> bytes = address.bytes();
  for (int i = 0; i < address.bit_width() / 8; ++i) {
    const int kept = std::clamp(int{length} - 8 * i, 0, 8);
    auto& byte = bytes[static_cast<std::size_t>(i)];
    byte = static_cast<std::uint8_t>(byte | 0xff >> kept);
  }
  if (address.is_ipv4()) return load<Ipv4Address>(bytes.data());
  return Ipv6Address{bytes};
}

}  // namespace weir
