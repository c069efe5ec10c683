// SPDX-License-Identifier: Apache-2.0
// What lblc and lblcr share: the rule of wlc over all real servers, and the question whether one of
// them has too much to do while another has too little.
#pragma once

#include <cstdint>

#include "schedulers/load_index.h"
#include "schedulers/weighted_least_connection.h"

namespace weir {

// wlc's choice; counts those that have less than half of the connections that their weight is for.
struct LocalityRule : WeightedLeastConnectionRule {
  static bool counts(const RankedServer& server) noexcept {
    return server.weight > 0 &&
           std::uint64_t{server.load.active} * 2 < static_cast<std::uint32_t>(server.weight);
  }
};

// A real server as a cache remembers it. It may be gone since; if it comes back with the same
// generation, it is the same one.
struct RememberedServer {
  ServerSlot slot = 0;
  std::uint32_t generation = 0;
  std::uint32_t place = 0;  // where it was last seen
};

class LocalityIndex {
 public:
  explicit LocalityIndex(LoadWriters writers) : index_(writers) {}

  void bind(std::span<const Candidate> candidates) { index_.bind(candidates); }
  void reserve(std::size_t servers) { index_.reserve(servers); }
  void apply(const Edit& edit) noexcept { index_.apply(edit); }
  void load_changed(ServerSlot slot) noexcept { index_.load_changed(slot); }

  // wlc's choice, or null.
  const RankedServer* best(const PickInput& input) noexcept {
    const std::uint32_t place = index_.best(input.loads, input.now_ms);
    return place == kNone ? nullptr : &index_[place];
  }
  // Null: it is not in the list now. What is known of its load may be old.
  const RankedServer* find(RememberedServer& server) const noexcept {
    const RankedServer* found = &index_[server.place];
    if (is_same(*found, server)) return found;
    const std::uint32_t place = index_.find(server.slot);
    if (place == kNone) return nullptr;
    server.place = place;
    found = &index_[place];
    return is_same(*found, server) ? found : nullptr;
  }
  RememberedServer remember(const RankedServer& server) const noexcept {
    return {server.slot, server.generation, index_.find(server.slot)};
  }
  // is_overloaded() of ip_vs_lblc.c: more connections than its weight, and one that is half idle.
  // `active`: its connections now.
  bool should_give_way(const RankedServer& server, std::uint32_t active,
                       const PickInput& input) noexcept {
    if (active <= static_cast<std::uint32_t>(server.weight)) return false;
    index_.refresh(input.loads, input.now_ms);
    return index_.counted() != 0;
  }

 private:
  static constexpr std::uint32_t kNone = LoadIndex<LocalityRule>::kNone;
  static bool is_same(const RankedServer& found, const RememberedServer& server) noexcept {
    return found.listed && found.slot == server.slot && found.generation == server.generation;
  }

  LoadIndex<LocalityRule> index_;
};

}  // namespace weir
