// SPDX-License-Identifier: Apache-2.0
// The walk over the extension headers of an IPv6 packet (RFC 8200 section 4) that all share who
// look for what is behind them. No more than kMost, so that a packet of nothing else costs little.
//
//   Ipv6Extensions walk(&ip->next_header, what is behind the IPv6 header);
//   while (walk.at_extension()) {
//     if (!walk.pass()) ...           // cut off, or too many
//   }
//   walk.next(), walk.reader()        // the transport header
#pragma once

#include <cstddef>
#include <cstdint>

#include "dataplane/net/reader.h"
#include "dataplane/net/wire_headers.h"

namespace weir {

class Ipv6Extensions {
 public:
  static constexpr int kMost = 8;

  // `next` says what `bytes` begin with.
  Ipv6Extensions(const void* next, const Reader& bytes) noexcept
      : next_(static_cast<const std::uint8_t*>(next)), reader_(bytes) {}

  // What the walk has come to, and the field that says so, in the header before.
  std::uint8_t next() const noexcept { return *next_; }
  const std::uint8_t* next_field() const noexcept { return next_; }
  const Reader& reader() const noexcept { return reader_; }
  bool at_extension() const noexcept {
    return *next_ == kIpv6HopByHop || *next_ == kIpv6Routing || *next_ == kIpv6Fragment ||
           *next_ == kIpv6DestinationOptions;
  }
  bool has_passed_most() const noexcept { return passed_ == kMost; }

  // Passes the extension header that the walk is at. False: it is cut off, or one too many.
  bool pass() noexcept {
    if (has_passed_most() || reader_.left() < kUnit) return false;
    const std::size_t units = *next_ == kIpv6Fragment ? 1 : std::size_t{reader_.at()[1]} + 1;
    if (units * kUnit > reader_.left()) return false;
    next_ = reader_.at();
    reader_.skip(units * kUnit);
    ++passed_;
    return true;
  }

 private:
  static constexpr std::size_t kUnit = 8;
  static_assert(sizeof(Ipv6FragmentHeader) == kUnit);

  const std::uint8_t* next_;
  Reader reader_;
  int passed_ = 0;
};

}  // namespace weir
