// SPDX-License-Identifier: Apache-2.0
// The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/net/addresses.h"
#include "dataplane/net/byte_order.h"

namespace weir {

// Sums are kept in memory byte order: the one's complement sum does not care, as long as the
// result is stored the same way.
constexpr std::uint16_t fold_checksum(std::uint64_t sum) noexcept {
  sum = (sum & 0xffffffffU) + (sum >> 32);
  sum = (sum & 0xffffffffU) + (sum >> 32);
  sum = (sum & 0xffffU) + (sum >> 16);
  sum = (sum & 0xffffU) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

// One's complement sum of `length` bytes; an odd last byte counts as if followed by zero.
inline std::uint64_t checksum_add(const void* bytes, std::size_t length,
                                  std::uint64_t sum = 0) noexcept {
  const auto* at = static_cast<const std::uint8_t*>(bytes);
  for (; length >= 4; at += 4, length -= 4) sum += load<std::uint32_t>(at);
  if (length >= 2) {
    sum += load<std::uint16_t>(at);
    at += 2;
    length -= 2;
  }
  if (length != 0) sum += *at;
  return sum;
}

// Whether a sum that includes its own checksum says that the bytes are intact: a multiple of 0xffff
// is one's complement zero. Cheaper than folding. Not for a sum of nothing but zeros.
constexpr bool is_checksum_good(std::uint64_t sum) noexcept { return sum % 0xffffU == 0; }

inline Be16 checksum_finish(std::uint64_t sum) noexcept {
  return Be16::from_raw(static_cast<std::uint16_t>(~fold_checksum(sum)));
}

// What a rewrite changes in a checksum: add(new) and subtract(old) for every 16-bit-aligned field
// that is replaced, then apply (RFC 1624 equation 3).
class ChecksumDelta {
 public:
  void replace(Be16 from, Be16 to) noexcept {
    sum_ += static_cast<std::uint16_t>(~from.raw());
    sum_ += to.raw();
  }
  void replace(Be32 from, Be32 to) noexcept {
    sum_ += static_cast<std::uint32_t>(~from.raw());
    sum_ += to.raw();
  }
  void replace(const Ipv4Address& from, const Ipv4Address& to) noexcept {
    replace(from.value, to.value);
  }
  void replace(const Ipv6Address& from, const Ipv6Address& to) noexcept {
    for (std::size_t i = 0; i < 16; i += 4) {
      sum_ += static_cast<std::uint32_t>(~load<std::uint32_t>(&from.bytes[i]));
      sum_ += load<std::uint32_t>(&to.bytes[i]);
    }
  }

  // A wrong checksum stays wrong.
  void apply(Be16& checksum) const noexcept {
    const std::uint64_t sum = std::uint64_t{static_cast<std::uint16_t>(~checksum.raw())} + sum_;
    checksum = checksum_finish(sum);
  }

 private:
  std::uint64_t sum_ = 0;
};

// Sum of the pseudo header of RFC 9293 section 3.1 and RFC 8200 section 8.1.
template <class Address>
inline std::uint64_t pseudo_header_sum(const Address& source, const Address& destination,
                                       Protocol protocol, std::uint32_t l4_length) noexcept {
  std::uint64_t sum = checksum_add(&source, sizeof source);
  sum = checksum_add(&destination, sizeof destination, sum);
  sum += Be32::from_host(l4_length).raw();
  sum += Be16::from_host(static_cast<std::uint16_t>(protocol)).raw();
  return sum;
}

}  // namespace weir
