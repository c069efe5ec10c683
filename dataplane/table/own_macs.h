// SPDX-License-Identifier: Apache-2.0
// The hardware addresses that make a received frame weir's: the port's own, and virtual ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/net/wire_headers.h"

namespace weir {

// Immutable. Any thread.
class OwnMacs {
 public:
  OwnMacs() = default;
  explicit OwnMacs(std::vector<MacAddress> macs) : macs_(std::move(macs)) {
    if (macs_.empty()) return;
    EthernetHeader header{};
    header.destination = macs_.front();
    first_ = destination_word(header);
  }

  // Nearly all frames are for the first.
  bool is_first_of(const EthernetHeader& frame) const noexcept {
    return destination_word(frame) == first_;
  }
  bool contains(const MacAddress& mac) const noexcept {
    return std::find(macs_.begin(), macs_.end(), mac) != macs_.end();
  }

 private:
  // Its six bytes in one load, without the two behind them.
  static std::uint64_t destination_word(const EthernetHeader& frame) noexcept {
    return load<std::uint64_t>(&frame) << 16U;
  }

  std::vector<MacAddress> macs_;
  std::uint64_t first_ = 1;  // of no frame
};

}  // namespace weir
