// SPDX-License-Identifier: Apache-2.0
// The real servers of a service in the memory of one worker: which place each slot has, and what is
// known of it. Places are stable; a removed real server's is given to the next one added.
//
// Cost: O(1) an addition, a removal, a look-up. Never allocates once made; Growing makes it bigger.
// Written by: one worker (by control before its publication).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "schedulers/scheduler.h"

namespace weir {

struct RankedServer {
  ServerSlot slot = 0;
  std::uint32_t generation = 0;
  std::int32_t weight = 0;
  // Order of addition: of equals IPVS takes the first of its list, hence the newest.
  std::uint32_t age = 0;
  Load load;  // as last read
  bool listed = false;
  bool unread = false;   // `load` and `closed` may be out of date
  bool closed = false;   // overloaded when last looked at
  bool counted = false;  // among those that the rule counts
};
static_assert(sizeof(RankedServer) == 28);

class RankedServers {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;

  explicit RankedServers(std::size_t capacity);  // a power of 2
  void adopt(const RankedServers& smaller) noexcept;

  std::uint32_t capacity() const noexcept { return static_cast<std::uint32_t>(servers_.size()); }
  // Places from 0 on that have been given so far.
  std::uint32_t places() const noexcept { return places_; }
  RankedServer& operator[](std::uint32_t place) noexcept { return servers_[place]; }
  const RankedServer& operator[](std::uint32_t place) const noexcept { return servers_[place]; }

  // kNone: it is not in the list.
  std::uint32_t find(ServerSlot slot) const noexcept;
  // kNone: there is no room.
  std::uint32_t add(const Candidate& candidate) noexcept;
  void remove(std::uint32_t place) noexcept;

 private:
  // Open addressing with linear probing over twice the capacity; entries are places.
  std::size_t home(ServerSlot slot) const noexcept;
  void index(std::uint32_t place) noexcept;

  std::vector<RankedServer> servers_;
  std::vector<std::uint32_t> buckets_;
  std::vector<std::uint32_t> free_;  // the first `freed_` are places to be given again
  std::uint32_t freed_ = 0;
  std::uint32_t places_ = 0;
  std::uint32_t next_age_ = 0;
};

}  // namespace weir
