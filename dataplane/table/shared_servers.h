// SPDX-License-Identifier: Apache-2.0
// The little that all workers share about a real server, beside what control publishes: written
// seldom, when a threshold is crossed or a router speaks, by whichever worker notices.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace weir {

struct SharedServer {
  // The upper threshold was reached and the lower one has not been yet (IP_VS_DEST_F_OVERLOAD).
  std::atomic<bool> overloaded{false};
  // Of the path of its tunnel, as routers reported it; 0: that of the first link. Valid from
  // `path_mtu_since` (ticks) for the time that Linux keeps such things.
  std::atomic<std::uint16_t> path_mtu{0};
  std::atomic<std::uint32_t> path_mtu_since{0};
};

// By ServerSlot.
using SharedServers = std::vector<SharedServer>;

}  // namespace weir
