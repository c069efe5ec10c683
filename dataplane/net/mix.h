// SPDX-License-Identifier: Apache-2.0
// One multiplication as a hash step: 64 x 64 -> 128 bits, both halves folded together.
#pragma once

#include <cstdint>

namespace weir {

constexpr std::uint64_t multiply_mix(std::uint64_t a, std::uint64_t b) noexcept {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Maps a uniform 64-bit hash to [0, bound) without a division.
constexpr std::uint64_t reduce_range(std::uint64_t hash, std::uint64_t bound) noexcept {
  __extension__ using Wide = unsigned __int128;
  return static_cast<std::uint64_t>((static_cast<Wide>(hash) * bound) >> 64);
}

}  // namespace weir
