// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "schedulers/scheduler.h"

namespace weir {

Edit make_edit(Edit::Kind kind, std::uint32_t position, const Candidate& server,
               std::span<const Candidate> after) noexcept {
  Edit edit{.kind = kind, .position = position, .server = server, .weight_gcd = 0, .max_weight = 0};
  for (const Candidate& candidate : after) {
    if (candidate.weight <= 0) continue;
    edit.weight_gcd = std::gcd(edit.weight_gcd, candidate.weight);
    edit.max_weight = std::max(edit.max_weight, candidate.weight);
  }
  edit.weight_gcd = std::max(edit.weight_gcd, 1);
  return edit;
}

}  // namespace weir
