// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <functional>
#include <random>
#include <utility>

#include "schedulers/consistent_hash.h"
#include "schedulers/destination_hash.h"
#include "schedulers/failover.h"
#include "schedulers/least_connection.h"
#include "schedulers/locality_least_connection.h"
#include "schedulers/locality_replication.h"
#include "schedulers/maglev_hash.h"
#include "schedulers/never_queue.h"
#include "schedulers/overflow.h"
#include "schedulers/power_of_two_choices.h"
#include "schedulers/round_robin.h"
#include "schedulers/scheduler.h"
#include "schedulers/shortest_expected_delay.h"
#include "schedulers/source_hash.h"
#include "schedulers/weighted_least_connection.h"
#include "schedulers/weighted_round_robin.h"

namespace weir {
namespace {

struct Place {
  unsigned worker;
  unsigned workers;
};

using TableRule =
    std::function<LookupTable(std::span<const Candidate>, std::span<const ServerName>)>;

struct TableSizes {
  std::uint32_t least = 0;  // 0: not an option
  std::uint32_t most = 0;
  std::uint32_t preset = 0;
};

struct Entry {
  std::string_view name;
  std::unique_ptr<Scheduler> (*make)(Place place);
  TableRule (*make_table_rule)(std::uint32_t size) = nullptr;
  TableSizes sizes = {};
};

template <class Rule>
std::unique_ptr<Scheduler> make(Place) {
  return std::make_unique<Rule>();
}

template <class Rule>
std::unique_ptr<Scheduler> make_staggered(Place place) {
  return std::make_unique<Rule>(place.worker, place.workers);
}

LoadWriters load_writers(Place place) {
  return place.workers == 1 ? LoadWriters::this_worker : LoadWriters::several_workers;
}

template <class Rule>
std::unique_ptr<Scheduler> make_by_load(Place place) {
  return std::make_unique<Rule>(load_writers(place));
}

std::uint64_t random_seed() {
  std::random_device device;
  return std::uint64_t{device()} << 32 | device();
}

std::unique_ptr<Scheduler> make_random(Place) {
  return std::make_unique<PowerOfTwoChoices>(random_seed());
}

template <class Rule>
std::unique_ptr<Scheduler> make_by_locality(Place place) {
  return std::make_unique<Rule>(load_writers(place), place.workers, random_seed());
}

template <LookupTable (*make_of_list)(std::span<const Candidate>)>
TableRule table_of(std::uint32_t) {
  return [](std::span<const Candidate> candidates, std::span<const ServerName>) {
    return make_of_list(candidates);
  };
}

TableRule maglev_table(std::uint32_t size) {
  return [size](std::span<const Candidate> candidates, std::span<const ServerName> names) {
    return make_maglev_table(candidates, names, size);
  };
}

TableRule consistent_table(std::uint32_t size) { return ConsistentTables(size); }

constexpr std::array kSchedulers = {
    Entry{"conhash",
          make<ConsistentHash>,
          consistent_table,
          {kLeastConsistentPlaces, kMostConsistentPlaces, kDefaultConsistentPlaces}},
    Entry{"dh", make<DestinationHash>, table_of<make_destination_hash_table>},
    Entry{"fo", make_by_load<Failover>},
    Entry{"lblc", make_by_locality<LocalityLeastConnection>},
    Entry{"lblcr", make_by_locality<LocalityReplication>},
    Entry{"lc", make_by_load<LeastConnection>},
    Entry{"mh",
          make<MaglevHash>,
          maglev_table,
          {kLeastMaglevPlaces, kMostMaglevPlaces, kDefaultMaglevPlaces}},
    Entry{"nq", make_by_load<NeverQueue>},
    Entry{"ovf", make_by_load<Overflow>},
    Entry{"rr", make_staggered<RoundRobin>},
    Entry{"sed", make_by_load<ShortestExpectedDelay>},
    Entry{"sh", make<SourceHash>, table_of<make_source_hash_table>},
    Entry{"twos", make_random, table_of<make_power_of_two_choices_table>},
    Entry{"wlc", make_by_load<WeightedLeastConnection>},
    Entry{"wrr", make_staggered<WeightedRoundRobin>, table_of<make_weighted_round_robin_table>},
};

constexpr auto kNames = [] {
  std::array<std::string_view, kSchedulers.size()> names;
  std::ranges::transform(kSchedulers, names.begin(), &Entry::name);
  return names;
}();
static_assert(std::ranges::is_sorted(kNames));

const Entry* find(std::string_view name) {
  const auto entry = std::ranges::find(kSchedulers, name, &Entry::name);
  return entry == kSchedulers.end() ? nullptr : &*entry;
}

// ---- Flags ----

enum class Meaning : std::uint8_t { nothing, falls_back, hashes_port };

struct Flag {
  std::string_view scheduler;  // empty: any
  std::string_view name;
  Meaning meaning;
};

// IPVS keeps three bits for the scheduler, whichever it is; sh and mh look at the first two.
constexpr std::array kFlags = {
    Flag{"conhash", "flag-2", Meaning::hashes_port},
    Flag{"sh", "sh-fallback", Meaning::falls_back},
    Flag{"sh", "sh-port", Meaning::hashes_port},
    Flag{"sh", "flag-1", Meaning::falls_back},
    Flag{"sh", "flag-2", Meaning::hashes_port},
    Flag{"mh", "mh-fallback", Meaning::falls_back},
    Flag{"mh", "mh-port", Meaning::hashes_port},
    Flag{"mh", "flag-1", Meaning::falls_back},
    Flag{"mh", "flag-2", Meaning::hashes_port},
    Flag{"", "flag-1", Meaning::nothing},
    Flag{"", "flag-2", Meaning::nothing},
    Flag{"", "flag-3", Meaning::nothing},
};

const Flag* find_flag(std::string_view scheduler, std::string_view name) {
  const auto flag = std::ranges::find_if(kFlags, [&](const Flag& each) {
    return each.name == name && (each.scheduler.empty() || each.scheduler == scheduler);
  });
  return flag == kFlags.end() ? nullptr : &*flag;
}

bool has_flag(const SchedulerOptions& options, Meaning meaning) {
  return std::ranges::any_of(options.flags, [&](const std::string& name) {
    const Flag* flag = find_flag(options.name, name);
    return flag != nullptr && flag->meaning == meaning;
  });
}

// ---- Sizes ----

bool is_prime(std::uint32_t number) {
  if (number < 2) return false;
  for (std::uint32_t divisor = 2; divisor * divisor <= number; ++divisor) {
    if (number % divisor == 0) return false;
  }
  return true;
}

std::string names_with_table_size() {
  std::string text;
  for (const Entry& entry : kSchedulers) {
    if (entry.sizes.least == 0) continue;
    if (!text.empty()) text += " and ";
    text += entry.name;
  }
  return text;
}

std::optional<std::string> check_size(const Entry& entry, std::uint32_t size) {
  if (size == 0) return std::nullopt;
  if (entry.sizes.least == 0) {
    return "only " + names_with_table_size() + " have a table of another size";
  }
  if (size >= entry.sizes.least && size <= entry.sizes.most && is_prime(size)) return std::nullopt;
  return "the table of " + std::string(entry.name) + " has a prime number of places from " +
         std::to_string(entry.sizes.least) + " to " + std::to_string(entry.sizes.most) + ", not " +
         std::to_string(size);
}

}  // namespace

std::optional<std::string> check_options(const SchedulerOptions& options) {
  const Entry* entry = find(options.name);
  if (entry == nullptr) return std::nullopt;
  for (const std::string& flag : options.flags) {
    if (find_flag(options.name, flag) != nullptr) continue;
    return "the scheduler " + options.name + " has no flag " + flag;
  }
  return check_size(*entry, options.table_size);
}

std::unique_ptr<Scheduler> make_scheduler(const SchedulerOptions& options, unsigned worker,
                                          unsigned workers) {
  const Entry* entry = find(options.name);
  return entry == nullptr ? nullptr : entry->make({worker, workers});
}

TableMaker::TableMaker(SchedulerOptions options) : options_(std::move(options)) {
  const Entry* entry = find(options_.name);
  if (entry == nullptr || entry->make_table_rule == nullptr) return;
  // A size that was set for another scheduler is not this one's.
  const bool own_size = options_.table_size != 0 && !check_size(*entry, options_.table_size);
  rule_ = entry->make_table_rule(own_size ? options_.table_size : entry->sizes.preset);
}

std::shared_ptr<const LookupTable> TableMaker::make(std::span<const Candidate> candidates,
                                                    std::span<const ServerName> names) {
  if (!rule_) return nullptr;
  auto table = std::make_shared<LookupTable>(rule_(candidates, names));
  table->falls_back = table->falls_back || has_flag(options_, Meaning::falls_back);
  table->hashes_port = has_flag(options_, Meaning::hashes_port);
  return table;
}

std::shared_ptr<const LookupTable> make_table(const SchedulerOptions& options,
                                              std::span<const Candidate> candidates,
                                              std::span<const ServerName> names) {
  return TableMaker(options).make(candidates, names);
}

std::span<const std::string_view> scheduler_names() { return kNames; }

}  // namespace weir
