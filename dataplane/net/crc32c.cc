// SPDX-License-Identifier: Apache-2.0
#include "dataplane/net/crc32c.h"

#include <nmmintrin.h>

#include "dataplane/net/byte_order.h"

namespace weir {

std::uint32_t crc32c_add(std::uint32_t state, const void* bytes, std::size_t length) noexcept {
  const auto* at = static_cast<const std::uint8_t*>(bytes);
  std::uint64_t wide = state;
  for (; length >= 8; at += 8, length -= 8) wide = _mm_crc32_u64(wide, load<std::uint64_t>(at));
  state = static_cast<std::uint32_t>(wide);
  for (; length != 0; ++at, --length) state = _mm_crc32_u8(state, *at);
  return state;
}

std::uint32_t crc32c_add_zeros(std::uint32_t state, std::size_t length) noexcept {
  std::uint64_t wide = state;
  for (; length >= 8; length -= 8) wide = _mm_crc32_u64(wide, 0);
  state = static_cast<std::uint32_t>(wide);
  for (; length != 0; --length) state = _mm_crc32_u8(state, 0);
  return state;
}

}  // namespace weir
