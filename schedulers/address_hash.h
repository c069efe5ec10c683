// SPDX-License-Identifier: Apache-2.0
// The hashes that IPVS's rules take of addresses; they decide which client goes where, so they are
// the kernel's bit for bit. All pure. Addresses: 4 or 16 bytes as on the wire.
// Source: include/linux/hash.h (hash_32), lib/siphash.c (hsiphash on 64-bit hosts, SipHash-1-3:
// Aumasson and Bernstein, "SipHash: a fast short-input PRF").
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace weir {

// An IPv4 address as a number; an IPv6 address as the exclusive or of its four words.
inline std::uint32_t fold_address(std::span<const std::uint8_t> address) noexcept {
  const auto word = [&](std::size_t at) noexcept {
    return std::uint32_t{address[at]} << 24 | std::uint32_t{address[at + 1]} << 16 |
           std::uint32_t{address[at + 2]} << 8 | address[at + 3];
  };
  if (address.size() == 4) return word(0);
  return address.size() == 16 ? word(0) ^ word(4) ^ word(8) ^ word(12) : 0;
}

// The upper `bits` of a multiplicative hash.
inline std::uint32_t hash_32(std::uint32_t value, unsigned bits) noexcept {
  return (value * 0x61C88647U) >> (32 - bits);
}

// Of SipHash.
struct SipState {
  std::uint64_t v0, v1, v2, v3;

  constexpr SipState next() const noexcept {
    const std::uint64_t sum_01 = v0 + v1;
    const std::uint64_t sum_23 = v2 + v3;
    const std::uint64_t mixed_1 = std::rotl(v1, 13) ^ sum_01;
    const std::uint64_t mixed_3 = std::rotl(v3, 16) ^ sum_23;
    const std::uint64_t sum_03 = std::rotl(sum_01, 32) + mixed_3;
    const std::uint64_t sum_21 = sum_23 + mixed_1;
    return {sum_03, std::rotl(mixed_1, 17) ^ sum_21, std::rotl(sum_21, 32),
            std::rotl(mixed_3, 21) ^ sum_03};
  }
};

// SipHash with one round a word and three at the end, of one 32-bit little-endian word, cut to
// 32 bits; both halves of the key are `key`.
constexpr std::uint32_t siphash_1_3(std::uint32_t word, std::uint64_t key) noexcept {
  const std::uint64_t block = std::uint64_t{4} << 56 | word;  // the length in bytes, the word
  SipState state{0x736f6d6570736575ULL ^ key, 0x646f72616e646f6dULL ^ key,
                 0x6c7967656e657261ULL ^ key, 0x7465646279746573ULL ^ key ^ block};
  state = state.next();
  state.v0 ^= block;
  state.v2 ^= 0xff;
  state = state.next().next().next();
  return static_cast<std::uint32_t>(state.v0 ^ state.v1 ^ state.v2 ^ state.v3);
}

}  // namespace weir
