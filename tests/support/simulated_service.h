// SPDX-License-Identifier: Apache-2.0
// The life of one service for tests of schedulers: its list, the counts of its real servers by slot
// and worker, its schedulers. Slots are the numbers of the recordings: 1 for the first one added.
// Real server N is 10.2.0.N:8080 or [2001:db8:2::N]:8080.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "schedulers/scheduler.h"

namespace weir::test {

using AddressBytes = std::vector<std::uint8_t>;

class SimulatedService final : public LoadView {
 public:
  explicit SimulatedService(SchedulerOptions options, unsigned workers = 1, bool ipv6 = false)
      : options_(std::move(options)), ipv6_(ipv6), loads_(workers) {
    for (unsigned worker = 0; worker < workers; ++worker) {
      schedulers_.push_back(make_scheduler(options_, worker, workers));
      schedulers_.back()->bind({});
    }
    rebuild_table();
  }
  explicit SimulatedService(std::string_view name, unsigned workers = 1)
      : SimulatedService(SchedulerOptions{.name = std::string(name)}, workers) {}

  // ---- What schedulers see ----

  Load load(ServerSlot slot) const noexcept override {
    Load sum;
    for (const auto& worker : loads_) {
      if (slot >= worker.size()) continue;
      sum.active += worker[slot].active;
      sum.inactive += worker[slot].inactive;
    }
    return sum;
  }
  bool overloaded(ServerSlot slot) const noexcept override {
    return slot < overloaded_.size() && overloaded_[slot];
  }
  PickInput input() const {
    return {.candidates = candidates_,
            .loads = *this,
            .table = table_.get(),
            .client_address = client,
            .destination_address = destination,
            .client_port = client_port,
            .now_ms = now_ms,
            .lblc_expiration = expiration,
            .lblcr_expiration = expiration};
  }

  // ---- Edits: told to every worker at once, unless they are held back ----

  void add(ServerSlot slot, std::int32_t weight) {
    if (slot >= overloaded_.size()) resize(slot + 1);
    const Candidate candidate{slot, weight, weight, generations_[slot]};
    candidates_.insert(candidates_.begin(), candidate);
    tell(make_edit(Edit::Kind::add, 0, candidate, candidates_));
  }
  void change(ServerSlot slot, std::int32_t weight) {
    Candidate& candidate = candidates_[position_of(slot)];
    candidate.weight = weight;
    if (weight != 0) candidate.last_weight = weight;
    tell(make_edit(Edit::Kind::change, position_of(slot), candidate, candidates_));
  }
  void remove(ServerSlot slot) {
    const auto position = position_of(slot);
    const Candidate candidate = candidates_[position];
    candidates_.erase(candidates_.begin() + position);
    tell(make_edit(Edit::Kind::remove, position, candidate, candidates_));
  }
  // The slot goes to another real server: its counts are zero.
  void give_away(ServerSlot slot) {
    ++generations_[slot];
    for (auto& worker : loads_) worker[slot] = {};
    overloaded_[slot] = false;
  }
  void hold_back_edits() { held_back_ = true; }
  void tell_held_back_edits() {
    for (const Edit& edit : untold_) {
      for (const auto& scheduler : schedulers_) scheduler->apply(edit);
    }
    untold_.clear();
  }
  // New schedulers for the list as it is (ipvsadm -E -s).
  void replace_schedulers(const SchedulerOptions& options) {
    options_ = options;
    untold_.clear();
    for (unsigned worker = 0; worker < schedulers_.size(); ++worker) {
      schedulers_[worker] =
          make_scheduler(options_, worker, static_cast<unsigned>(schedulers_.size()));
      schedulers_[worker]->bind(candidates_);
    }
    rebuild_table();
  }

  // ---- Connections ----

  // IPVS counts a new connection as inactive; a TCP handshake makes it active, its end inactive.
  void open(ServerSlot slot, std::string_view protocol, unsigned worker = 0) {
    Load& load = loads_[worker][slot];
    ++(protocol == "tcp" ? load.active : load.inactive);
    schedulers_[worker]->load_changed(slot);
  }
  void close(ServerSlot slot, unsigned worker = 0) {
    Load& load = loads_[worker][slot];
    --load.active;
    ++load.inactive;
    schedulers_[worker]->load_changed(slot);
  }
  void expire(ServerSlot slot, unsigned worker = 0) {
    --loads_[worker][slot].inactive;
    schedulers_[worker]->load_changed(slot);
  }
  void set_load(ServerSlot slot, Load load) {
    loads_[0][slot] = load;
    schedulers_[0]->load_changed(slot);
  }
  // As when a threshold is crossed by a connection of the worker...
  void set_overloaded(ServerSlot slot, bool overloaded, unsigned worker = 0) {
    overloaded_[slot] = overloaded;
    schedulers_[worker]->load_changed(slot);
  }
  // ... and as when another worker or control says so.
  void set_overloaded_silently(ServerSlot slot, bool overloaded) { overloaded_[slot] = overloaded; }

  // 0 where nobody may take the connection.
  ServerSlot pick(unsigned worker = 0) const {
    const ServerSlot slot = schedulers_[worker]->pick(input());
    return slot == kNoServer ? 0 : slot;
  }

  // ---- Looks ----

  std::uint32_t position_of(ServerSlot slot) const {
    const auto found = std::ranges::find(candidates_, slot, &Candidate::slot);
    EXPECT_NE(found, candidates_.end());
    return static_cast<std::uint32_t>(found - candidates_.begin());
  }
  bool has(ServerSlot slot) const {
    return std::ranges::count(candidates_, slot, &Candidate::slot) != 0;
  }
  const std::vector<Candidate>& candidates() const { return candidates_; }
  const LookupTable& table() const { return *table_; }
  Scheduler& scheduler(unsigned worker = 0) { return *schedulers_[worker]; }
  unsigned workers() const { return static_cast<unsigned>(schedulers_.size()); }

  ServerName name_of(ServerSlot slot) const {
    ServerName name{.service_bytes = static_cast<std::uint8_t>(ipv6_ ? 16 : 4),
                    .port = server_port};
    if (ipv6_) {
      name.address = {0x20, 0x01, 0x0d, 0xb8, 0, 2};
    } else {
      name.address = {10, 2, 0, 0};
    }
    name.address[name.service_bytes - 2U] = static_cast<std::uint8_t>(slot >> 8);
    name.address[name.service_bytes - 1U] = static_cast<std::uint8_t>(slot);
    return name;
  }

  AddressBytes client = {10, 1, 0, 1};
  AddressBytes destination = {10, 9, 0, 1};
  std::uint16_t client_port = 40000;
  std::uint16_t server_port = 8080;
  std::uint32_t now_ms = 0;
  std::uint32_t expiration = 24 * 60 * 60;

 private:
  void resize(ServerSlot slots) {
    for (auto& worker : loads_) worker.resize(slots);
    overloaded_.resize(slots);
    generations_.resize(slots);
  }
  void tell(const Edit& edit) {
    rebuild_table();
    for (const auto& scheduler : schedulers_) scheduler->reserve(candidates_.size());
    untold_.push_back(edit);
    if (!held_back_) tell_held_back_edits();
  }
  void rebuild_table() {
    std::vector<ServerName> names;
    for (const Candidate& candidate : candidates_) names.push_back(name_of(candidate.slot));
    if (tables_.options() != options_) tables_ = TableMaker(options_);
    table_ = tables_.make(candidates_, names);
  }

  SchedulerOptions options_;
  const bool ipv6_;
  bool held_back_ = false;
  std::vector<std::unique_ptr<Scheduler>> schedulers_;
  std::vector<Candidate> candidates_;
  TableMaker tables_;
  std::shared_ptr<const LookupTable> table_;
  std::vector<std::vector<Load>> loads_;  // by worker and slot
  std::vector<bool> overloaded_;
  std::vector<std::uint32_t> generations_;
  std::vector<Edit> untold_;
};

}  // namespace weir::test
