// SPDX-License-Identifier: Apache-2.0
// What makes a received frame weir's: the port's hardware address or a virtual one, and where it is
// tagged, a VLAN that the host has an interface in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/net/wire_headers.h"

namespace weir {

// Immutable. Any thread.
class OwnMacs {
 public:
  OwnMacs() = default;
  explicit OwnMacs(std::vector<MacAddress> macs, std::vector<std::uint16_t> vlans = {})
      : macs_(std::move(macs)), vlans_(std::move(vlans)) {
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

  // Id 0 is no VLAN, a priority only.
  bool serves_vlan(std::uint16_t id) const noexcept {
    return id == 0 || std::find(vlans_.begin(), vlans_.end(), id) != vlans_.end();
  }

 private:
  // Its six bytes in one load, without the two behind them.
  static std::uint64_t destination_word(const EthernetHeader& frame) noexcept {
    return load<std::uint64_t>(&frame) << 16U;
  }

  std::vector<MacAddress> macs_;
  std::vector<std::uint16_t> vlans_;
  std::uint64_t first_ = 1;  // of no frame
};

}  // namespace weir
