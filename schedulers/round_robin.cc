// SPDX-License-Identifier: Apache-2.0
#include "schedulers/round_robin.h"

#include <algorithm>

namespace weir {

void RoundRobin::bind(std::span<const Candidate>) {
  next_ = 0;
  started_ = false;
}

void RoundRobin::apply(const Edit& edit) noexcept {
  switch (edit.kind) {
    case Edit::Kind::add:
      if (edit.position < next_) ++next_;
      break;
    case Edit::Kind::remove:
      if (edit.position < next_) --next_;
      break;
    case Edit::Kind::change:
      break;
  }
}

ServerSlot RoundRobin::pick(const PickInput& input) noexcept {
  const auto size = static_cast<std::uint32_t>(input.candidates.size());
  if (!started_) {
    started_ = true;
    next_ = first_position(input);
  }
  const std::uint32_t next = std::min(next_, size);
  const ServerSlot picked = take_first_eligible(input, next, size);
  return picked != kNoServer ? picked : take_first_eligible(input, 0, next);
}

std::uint32_t RoundRobin::first_position(const PickInput& input) const noexcept {
  return static_cast<std::uint32_t>(input.candidates.size() * worker_ / workers_);
}

ServerSlot RoundRobin::take_first_eligible(const PickInput& input, std::uint32_t from,
                                           std::uint32_t to) noexcept {
  for (std::uint32_t at = from; at < to; ++at) {
    if (!eligible(input.candidates[at], input.loads)) continue;
    next_ = at + 1;
    return input.candidates[at].slot;
  }
  return kNoServer;
}

}  // namespace weir
