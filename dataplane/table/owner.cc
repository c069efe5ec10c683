// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/owner.h"

#include "dataplane/net/byte_order.h"

namespace weir {

namespace {

// With fewer groups for each worker, the shares of some would be far above those of others.
constexpr std::size_t kGroupsOfEach = 4;
constexpr std::size_t kSmallTable = 128;

}  // namespace

OwnerMap::OwnerMap(const Key& key, unsigned workers)
    : key_(key), period_(workers * kGroupsOfEach <= kSmallTable ? kSmallTable : kGroups) {
  // The contribution of every value of every input byte: XOR of the 32-bit key windows at its bits.
  for (std::size_t byte = 0; byte < kInputBytes; ++byte) {
    const std::uint64_t window = load<Be64>(&key_[byte]).host();
    for (unsigned value = 0; value < 256; ++value) {
      std::uint32_t sum = 0;
      for (unsigned bit = 0; bit < 8; ++bit) {
        if ((value & (0x80U >> bit)) != 0) sum ^= static_cast<std::uint32_t>(window >> (32 - bit));
      }
      tables_[byte][value] = sum;
    }
  }
  for (std::size_t group = 0; group < kGroups; ++group) {
    workers_[group] = static_cast<std::uint8_t>(group % period_ % workers);
  }
}

}  // namespace weir
