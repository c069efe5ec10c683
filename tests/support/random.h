// SPDX-License-Identifier: Apache-2.0
// Numbers for property tests: the same on every machine, quick under sanitizers (splitmix64).
#pragma once

#include <cstdint>

namespace weir::test {

class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}

  std::uint32_t operator()() noexcept {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return static_cast<std::uint32_t>((z ^ (z >> 31)) >> 16);
  }

 private:
  std::uint64_t state_;
};

}  // namespace weir::test
