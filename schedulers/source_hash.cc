// SPDX-License-Identifier: Apache-2.0
#include "schedulers/source_hash.h"

namespace weir {

LookupTable make_source_hash_table(std::span<const Candidate> candidates) {
  constexpr std::size_t kPlaces = 256;
  LookupTable table;
  table.positions.assign(kPlaces, LookupTable::kNobody);
  if (candidates.empty()) return table;
  std::uint32_t at = 0;
  std::int32_t taken = 0;
  for (std::uint32_t& position : table.positions) {
    position = at;
    if (++taken < candidates[at].weight) continue;
    taken = 0;
    at = at + 1 == candidates.size() ? 0 : at + 1;
  }
  return table;
}

}  // namespace weir
