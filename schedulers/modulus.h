// SPDX-License-Identifier: Apache-2.0
// Arithmetic modulo a prime of at most 20 bits, without divisions (Barrett, "Implementing the
// Rivest Shamir and Adleman Public Key Encryption Algorithm"). Pure.
#pragma once

#include <bit>
#include <cstdint>

namespace weir {

class Modulus {
 public:
  explicit Modulus(std::uint32_t prime)
      : prime_(prime),
        shift_(2 * static_cast<unsigned>(std::bit_width(prime))),
        reciprocal_((std::uint64_t{1} << shift_) / prime) {}

  std::uint32_t product(std::uint32_t a, std::uint32_t b) const {
    const std::uint64_t whole = std::uint64_t{a} * b;
    const std::uint64_t rest = whole - (whole * reciprocal_ >> shift_) * prime_;
    return static_cast<std::uint32_t>(rest >= prime_ ? rest - prime_ : rest);
  }
  // By Fermat.
  std::uint32_t inverse(std::uint32_t number) const {
    std::uint32_t power = number;
    std::uint32_t result = 1;
    for (std::uint32_t exponent = static_cast<std::uint32_t>(prime_) - 2; exponent != 0;
         exponent /= 2) {
      if ((exponent & 1) != 0) result = product(result, power);
      power = product(power, power);
    }
    return result;
  }

 private:
  const std::uint64_t prime_;
  const unsigned shift_;
  const std::uint64_t reciprocal_;
};

}  // namespace weir
