// SPDX-License-Identifier: Apache-2.0
// Big-endian integers as types: the only place in weir that swaps bytes.
#pragma once

#include <bit>
#include <compare>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace weir {

static_assert(std::endian::native == std::endian::little,
              "weir is written for little-endian hosts");

// An integer in network byte order. Alignment 1, so that wire structures need no packing.
// Deliberately without implicit conversion, arithmetic or ordering.
template <class Host>
class BigEndian {
 public:
  constexpr BigEndian() noexcept = default;

  static constexpr BigEndian from_host(Host value) noexcept {
    return std::bit_cast<BigEndian>(swap(value));
  }
  // `raw` holds the bytes as they lie in memory.
  static constexpr BigEndian from_raw(Host raw) noexcept { return std::bit_cast<BigEndian>(raw); }

  constexpr Host host() const noexcept { return swap(raw()); }
  constexpr Host raw() const noexcept { return std::bit_cast<Host>(*this); }

  friend constexpr bool operator==(const BigEndian& a, const BigEndian& b) noexcept {
    return a.raw() == b.raw();
  }

 private:
  static constexpr Host swap(Host value) noexcept {
    if constexpr (sizeof(Host) == 2) return __builtin_bswap16(value);
    if constexpr (sizeof(Host) == 4) return __builtin_bswap32(value);
    if constexpr (sizeof(Host) == 8) return __builtin_bswap64(value);
  }

  std::uint8_t bytes_[sizeof(Host)] = {};
};

using Be16 = BigEndian<std::uint16_t>;
using Be32 = BigEndian<std::uint32_t>;
using Be64 = BigEndian<std::uint64_t>;

static_assert(sizeof(Be32) == 4 && alignof(Be32) == 1 && std::is_trivially_copyable_v<Be32>);

// Reads a value from possibly unaligned memory.
template <class T>
inline T load(const void* from) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace weir
