// SPDX-License-Identifier: Apache-2.0
// Unchecked bytes behind a length check: hands out what is left, never more. Lengths in bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weir {

class Reader {
 public:
  Reader(std::uint8_t* at, std::size_t left) noexcept : at_(at), left_(left) {
    if (at == nullptr) __builtin_unreachable();
  }

  // Null where fewer bytes are left.
  template <class Header>
  const Header* peek() const noexcept {
    return left_ < sizeof(Header) ? nullptr : reinterpret_cast<const Header*>(at_);
  }
  // The caller has checked that so many are left.
  void skip(std::size_t bytes) noexcept {
    at_ += bytes;
    left_ -= bytes;
  }
  void limit(std::size_t bytes) noexcept { left_ = bytes; }
  std::uint8_t* at() const noexcept { return at_; }
  std::size_t left() const noexcept { return left_; }

 private:
  std::uint8_t* at_;
  std::size_t left_;
};

}  // namespace weir
