// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "schedulers/round_robin.h"
#include "schedulers/scheduler.h"
#include "schedulers/weighted_least_connection.h"
#include "schedulers/weighted_round_robin.h"

namespace weir {
namespace {

using Maker = std::unique_ptr<Scheduler> (*)(unsigned worker, unsigned workers);

struct Entry {
  std::string_view name;
  Maker make;
};

constexpr std::array kSchedulers = {
    Entry{"rr",
          [](unsigned worker, unsigned workers) -> std::unique_ptr<Scheduler> {
            return std::make_unique<RoundRobin>(worker, workers);
          }},
    Entry{"wlc",
          [](unsigned, unsigned) -> std::unique_ptr<Scheduler> {
            return std::make_unique<WeightedLeastConnection>();
          }},
    Entry{"wrr",
          [](unsigned worker, unsigned workers) -> std::unique_ptr<Scheduler> {
            return std::make_unique<WeightedRoundRobin>(worker, workers);
          }},
};

constexpr auto kNames = [] {
  std::array<std::string_view, kSchedulers.size()> names;
  std::ranges::transform(kSchedulers, names.begin(), &Entry::name);
  return names;
}();
static_assert(std::ranges::is_sorted(kNames));

}  // namespace

std::unique_ptr<Scheduler> make_scheduler(std::string_view name, unsigned worker,
                                          unsigned workers) {
  const auto entry = std::ranges::find(kSchedulers, name, &Entry::name);
  return entry == kSchedulers.end() ? nullptr : entry->make(worker, workers);
}

std::span<const std::string_view> scheduler_names() { return kNames; }

}  // namespace weir
