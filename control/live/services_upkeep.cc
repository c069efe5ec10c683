// SPDX-License-Identifier: Apache-2.0
// The part of Services that recurs: what nobody refers to any more is freed, weights grow, rates
// are estimated. Each call is a piece of it.
#include <algorithm>
#include <utility>

#include "control/live/services.h"

namespace weir {
namespace {

constexpr std::size_t kDepartedAtOnce = 32;
constexpr std::size_t kGrowingAtOnce = 32;

}  // namespace

// A worker that has left a version need not have looked at the next one yet: what it has replayed
// only it can say.
void Services::forget_replayed_edits() {
  absl::erase_if(edited_, [this](ServiceSlot slot) {
    ServiceRecord* const service = record_by_slot_[slot];
    if (service == nullptr || service->schedulers == nullptr) return service == nullptr;
    std::uint64_t replayed = service->first_edit + service->edits.size();
    for (const WorkerScheduler& state : *service->schedulers) {
      replayed = std::min(replayed, state.edits_applied.read());
    }
    const auto count = static_cast<std::ptrdiff_t>(replayed - service->first_edit);
    service->edits.erase(service->edits.begin(), service->edits.begin() + count);
    service->first_edit = replayed;
    return service->edits.empty();
  });
}

// Each step is an edit to the schedulers. True: there are more.
bool Services::advance_slow_starts() {
  std::vector<ServerSlot> grown;
  std::size_t left = kGrowingAtOnce;
  for (const ServerSlot slot : growing_) {
    Server& server = *server_by_slot_[slot];
    ServiceRecord& service = *server.service;
    const bool advanced = health_.advance(server.weight, service.options.slow_start);
    if (!server.weight.is_growing()) grown.push_back(slot);
    if (!advanced) continue;
    const std::size_t position = position_of(service, server.spec.address, server.spec.port);
    note_edit(service, Edit::Kind::change, position, server);
    mark_dirty(server);
    mark_dirty(service);
    if (--left == 0) break;
  }
  for (const ServerSlot slot : grown) growing_.erase(slot);
  return left == 0;
}

// Frees the slots of removed real servers that no connection refers to. True: some were.
bool Services::collect_trash(ServiceRecord& service, std::size_t& budget) {
  bool any = false;
  auto& trash = service.trash;
  for (std::size_t i = 0; i < trash.size() && budget != 0; --budget) {
    Server& server = *trash[i];
    if (server.removed_in > oldest_in_use_ || server.is_dirty || has_connections(server.slot)) {
      ++i;
      continue;
    }
    service.departed += totals(server);
    change_claim(service, server, {});
    by_server_address_.erase({server.spec.address, server.slot});
    host_->release_way(server.spec.address);
    servers_.edit(server.slot) = nullptr;
    server_by_slot_[server.slot] = nullptr;
    leaving_servers_.push_back(server.slot);
    retire(std::move(server.published));
    std::swap(trash[i], trash.back());
    trash.pop_back();
    any = true;
  }
  return any;
}

bool Services::collect_service(ServiceRecord& service) {
  if (!service.removed || !service.trash.empty() || service.is_dirty) return false;
  service.local = false;
  follow_claims(service);
  const ServiceKey key = service.spec.key;
  by_virtual_address_.erase({key.address, service.slot});
  services_.edit(service.slot) = nullptr;
  record_by_slot_[service.slot] = nullptr;
  edited_.erase(service.slot);
  leaving_services_.push_back(service.slot);
  retire(std::move(service.published));
  records_.erase(key);
  return true;
}

// Goes round the services with something that has departed. True: it has not come round yet.
bool Services::collect_some() {
  // What a commit has under way stays as the model has it.
  if (!commits_.empty() || with_departed_.empty()) return false;
  std::size_t budget = kDepartedAtOnce;
  auto at = with_departed_.lower_bound(next_departed_);
  while (at != with_departed_.end() && budget != 0) {
    ServiceRecord& service = *record_by_slot_[*at];
    const std::size_t before = budget--;
    if (collect_trash(service, budget)) is_stale_ = true;
    const bool settled = service.trash.empty();
    const bool gone = settled && service.removed && collect_service(service);
    if (gone) is_stale_ = true;
    at = settled && (gone || !service.removed) ? with_departed_.erase(at) : std::next(at);
    if (before == 0) break;
  }
  const bool more = at != with_departed_.end();
  next_departed_ = more ? *at : 0;
  return more;
}

// Once no connection is left that could be older. True: there are more to look at.
bool Services::forget_former_replies() {
  if (!commits_.empty()) return false;
  std::size_t budget = kDepartedAtOnce;
  auto at = former_replies_.lower_bound(next_former_);
  for (; at != former_replies_.end() && budget != 0; --budget) {
    const auto [slot, version] = *at;
    Server* const server = server_by_slot_[slot];
    const bool settled = version <= oldest_in_use_;
    if (server != nullptr && (!settled || has_connections(slot))) {
      ++at;
      continue;
    }
    at = former_replies_.erase(at);
    if (server == nullptr) continue;
    server->replies = present_replies(*server->service, *server);
    change_claim(*server->service, *server, wanted_claim(*server->service, *server));
  }
  const bool more = at != former_replies_.end();
  next_former_ = more ? at->first : 0;
  return more;
}

bool Services::housekeeping() {
  publisher_.reclaim();
  if (next_departed_ == 0) forget_replayed_edits();
  const bool growing = advance_slow_starts();
  const bool departing = collect_some();
  const bool former = forget_former_replies();
  if (!departing && collect_local_addresses()) is_stale_ = true;
  if (is_stale_) wake();
  return growing || departing || former;
}

void Services::estimate_some_rates() {
  for (std::size_t slot = rate_slice_; slot < server_by_slot_.size(); slot += kRateSlices) {
    if (Server* const each = server_by_slot_[slot]) each->estimator.sample(totals(*each));
  }
  for (std::size_t slot = rate_slice_; slot < record_by_slot_.size(); slot += kRateSlices) {
    if (ServiceRecord* const each = record_by_slot_[slot]) {
      each->estimator.sample(gross_totals(*each));
    }
  }
  if (rate_slice_ == 0) {
    for (const WorkerState* worker : workers_) {
      const WorkerStatistics& statistics = *worker->own_statistics;
      busy_[worker->index].sample(statistics.busy_cycles.read(), statistics.cycles.read());
    }
  }
  rate_slice_ = (rate_slice_ + 1) % kRateSlices;
}

}  // namespace weir
