// SPDX-License-Identifier: Apache-2.0
// What the rules share that hash clients into a table of the list: sh, mh, conhash. They keep no
// state, so every worker, and every director with the same list, chooses alike.
#pragma once

#include "schedulers/address_hash.h"
#include "schedulers/scheduler.h"

namespace weir {

// Hash (static, noexcept, pure): std::uint32_t place(value, offset, table), from what is hashed and
// the offset of a fallback, 0 at first, to a place of the table.
template <class Hash>
class ByTable final : public Scheduler {
 public:
  void bind(std::span<const Candidate>) override {}
  void apply(const Edit&) noexcept override {}
  ServerSlot pick(const PickInput& input) noexcept override {
    std::uint32_t value = fold_address(input.client_address);
    if (input.table->hashes_port) value += input.client_port;
    const std::vector<std::uint32_t>& positions = input.table->positions;
    const std::uint32_t first = Hash::place(value, 0, *input.table);
    if (positions[first] == LookupTable::kNobody) return kNoServer;
    const ServerSlot slot = take(input, first);
    if (slot != kNoServer) return slot;
    if (!input.table->falls_back) return kNoServer;
    return fall_back(input, value, first);
  }

 private:
  // A fallback that cannot end well is given up after so many tries.
  static constexpr std::uint32_t kTriesInHope = 32;

  // IPVS tries every offset, beginning with the number of the place that was found first.
  static ServerSlot fall_back(const PickInput& input, std::uint32_t value,
                              std::uint32_t offset) noexcept {
    const auto places = static_cast<std::uint32_t>(input.table->positions.size());
    for (std::uint32_t tries = 0; tries < places; ++tries) {
      if (tries == kTriesInHope && !anybody(input)) return kNoServer;
      const ServerSlot slot = take(input, Hash::place(value, offset, *input.table));
      if (slot != kNoServer) return slot;
      if (++offset == places) offset = 0;
    }
    return kNoServer;
  }
  static ServerSlot take(const PickInput& input, std::uint32_t place) noexcept {
    const Candidate& candidate = input.candidates[input.table->positions[place]];
    if (!eligible(candidate, input.loads)) return kNoServer;
    return candidate.slot;
  }
  static bool anybody(const PickInput& input) noexcept {
    for (const Candidate& candidate : input.candidates) {
      if (eligible(candidate, input.loads)) return true;
    }
    return false;
  }
};

}  // namespace weir
