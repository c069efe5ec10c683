// SPDX-License-Identifier: Apache-2.0
#include "schedulers/destination_hash.h"

#include "schedulers/address_hash.h"

namespace weir {
namespace {

constexpr unsigned kPlaceBits = 8;

}  // namespace

LookupTable make_destination_hash_table(std::span<const Candidate> candidates) {
  LookupTable table;
  table.positions.assign(std::size_t{1} << kPlaceBits, LookupTable::kNobody);
  if (candidates.empty()) return table;
  std::uint32_t at = 0;
  for (std::uint32_t& position : table.positions) {
    position = at;
    at = at + 1 == candidates.size() ? 0 : at + 1;
  }
  return table;
}

ServerSlot DestinationHash::pick(const PickInput& input) noexcept {
  const std::uint32_t place = hash_32(fold_address(input.destination_address), kPlaceBits);
  const std::uint32_t position = input.table->positions[place];
  if (position == LookupTable::kNobody) return kNoServer;
  const Candidate& candidate = input.candidates[position];
  if (!eligible(candidate, input.loads)) return kNoServer;
  return candidate.slot;
}

}  // namespace weir
