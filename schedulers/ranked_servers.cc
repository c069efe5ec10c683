// SPDX-License-Identifier: Apache-2.0
#include "schedulers/ranked_servers.h"

#include <algorithm>

#include "schedulers/address_hash.h"

namespace weir {

RankedServers::RankedServers(std::size_t capacity)
    : servers_(capacity), buckets_(2 * capacity, kNone), free_(capacity) {}

void RankedServers::adopt(const RankedServers& smaller) noexcept {
  std::ranges::copy(smaller.servers_, servers_.begin());
  std::ranges::copy(smaller.free_, free_.begin());
  freed_ = smaller.freed_;
  places_ = smaller.places_;
  next_age_ = smaller.next_age_;
  for (std::uint32_t place = 0; place < places_; ++place) {
    if (servers_[place].listed) index(place);
  }
}

std::size_t RankedServers::home(ServerSlot slot) const noexcept {
  return hash_32(slot, 31) & (buckets_.size() - 1);
}

void RankedServers::index(std::uint32_t place) noexcept {
  const std::size_t mask = buckets_.size() - 1;
  std::size_t at = home(servers_[place].slot);
  while (buckets_[at] != kNone) at = (at + 1) & mask;
  buckets_[at] = place;
}

std::uint32_t RankedServers::find(ServerSlot slot) const noexcept {
  const std::size_t mask = buckets_.size() - 1;
  for (std::size_t at = home(slot); buckets_[at] != kNone; at = (at + 1) & mask) {
    if (servers_[buckets_[at]].slot == slot) return buckets_[at];
  }
  return kNone;
}

std::uint32_t RankedServers::add(const Candidate& candidate) noexcept {
  if (freed_ == 0 && places_ == capacity()) return kNone;
  const std::uint32_t place = freed_ != 0 ? free_[--freed_] : places_++;
  servers_[place] = {.slot = candidate.slot,
                     .generation = candidate.generation,
                     .weight = candidate.weight,
                     .age = next_age_++,
                     .listed = true};
  index(place);
  return place;
}

void RankedServers::remove(std::uint32_t place) noexcept {
  const std::size_t mask = buckets_.size() - 1;
  std::size_t hole = home(servers_[place].slot);
  while (buckets_[hole] != place) hole = (hole + 1) & mask;
  // Moves up every entry behind that would not be found across the hole.
  for (std::size_t at = (hole + 1) & mask; buckets_[at] != kNone; at = (at + 1) & mask) {
    const std::size_t its_home = home(servers_[buckets_[at]].slot);
    if (((at - its_home) & mask) < ((at - hole) & mask)) continue;
    buckets_[hole] = buckets_[at];
    hole = at;
  }
  buckets_[hole] = kNone;
  servers_[place].listed = false;
  free_[freed_++] = place;
}

}  // namespace weir
