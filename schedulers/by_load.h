// SPDX-License-Identifier: Apache-2.0
// A scheduler that picks the best real server by a rule over loads and weights; the rule is a type
// as load_index.h wants it, one per file. It keeps no state but the index, so with several workers
// it acts on the sum of the loads over them.
#pragma once

#include <cstdint>

#include "schedulers/load_index.h"
#include "schedulers/scheduler.h"

namespace weir {

// What most rules share: who has a weight may have connections, and nobody is counted.
struct LoadRule {
  static bool takes(const RankedServer& server) noexcept { return server.weight > 0; }
  static bool counts(const RankedServer&) noexcept { return false; }

  // Orders by cost / weight, the quotients compared by cross-multiplication; weights above 0.
  static std::weak_ordering compare_shares(std::uint64_t cost_a, const RankedServer& a,
                                           std::uint64_t cost_b, const RankedServer& b) noexcept {
    return cost_a * static_cast<std::uint32_t>(b.weight) <=>
           cost_b * static_cast<std::uint32_t>(a.weight);
  }
};

// ip_vs_dest_conn_overhead() of include/net/ip_vs.h: an active connection costs as much as 256
// inactive ones.
inline std::uint64_t overhead(const Load& load) noexcept {
  return std::uint64_t{load.active} * 256 + load.inactive;
}

template <class Rule>
class ByLoad final : public Scheduler {
 public:
  explicit ByLoad(LoadWriters writers) : index_(writers) {}

  void bind(std::span<const Candidate> candidates) override { index_.bind(candidates); }
  void reserve(std::size_t servers) override { index_.reserve(servers); }
  void apply(const Edit& edit) noexcept override { index_.apply(edit); }
  void load_changed(ServerSlot slot) noexcept override { index_.load_changed(slot); }
  ServerSlot pick(const PickInput& input) noexcept override {
    const std::uint32_t place = index_.best(input.loads, input.now_ms);
    if (place == LoadIndex<Rule>::kNone) return kNoServer;
    return index_[place].slot;
  }

 private:
  LoadIndex<Rule> index_;
};

}  // namespace weir
