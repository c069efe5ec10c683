// SPDX-License-Identifier: Apache-2.0
// Commits: from the plan to the records.
#include "control/live/services.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include <absl/strings/str_cat.h>

#include "control/model/rules.h"
#include "control/model/settings_table.h"
#include "control/model/text_forms.h"

namespace weir {
namespace {

// Changes of one piece of work.
constexpr std::size_t kChangesAtOnce = 16;
}  // namespace

Services::Services(Publisher& publisher, std::span<WorkerState* const> workers, Clock clock)
    : publisher_(publisher),
      workers_(workers),
      clock_(clock),
      health_(clock),
      busy_(workers.size()) {
  // Growing them would copy all of them.
  record_by_slot_.reserve(kMaxServices);
  service_generations_.reserve(kMaxServices);
  server_by_slot_.reserve(kMaxServers);
  server_generations_.reserve(kMaxServers);
  dirty_services_.reserve(kMaxServices);
  dirty_servers_.reserve(kMaxServers);
  draft_.routes = host_->routes();
  draft_.ports = std::make_shared<PortAddresses>();
  draft_.settings = std::make_shared<const Settings>();
  draft_.marks = std::make_shared<const MarkRules>();
  draft_.shared =
      std::make_shared<SharedServers>(workers.empty() ? 0 : workers.front()->own().loads.size());
  publish();
}

Services::~Services() = default;

Services::ServiceRecord* Services::find_record(const ServiceKey& key) const {
  const auto found = records_.find(key);
  if (found == records_.end() || found->second->removed) return nullptr;
  return found->second.get();
}

std::size_t Services::position_of(const ServiceRecord& service, const IpAddress& address,
                                  std::uint16_t port) {
  const auto found =
      std::find_if(service.servers.begin(), service.servers.end(), [&](const auto& server) {
        return server->spec.address == address && server->spec.port == port;
      });
  return static_cast<std::size_t>(found - service.servers.begin());
}

// ---- The commit ----

void Services::wake() {
  if (wake_) {
    wake_();
  } else {
    while (work()) continue;
  }
}

void Services::commit(Plan plan, Done done) {
  commits_.push_back(
      {.plan = std::move(plan), .done = std::move(done), .changes = {}, .result = {}});
  wake();
}

void Services::advance_commit() {
  Commit& commit = commits_.front();
  switch (commit.step) {
    case Commit::Step::check:
      check_some(commit);
      break;
    case Commit::Step::take_back:
      take_back_some(commit);
      break;
    case Commit::Step::carry_out:
      carry_out_some(commit);
      break;
  }
}

// Against the model alone: nothing has become of it yet.
void Services::check_some(Commit& commit) {
  if (commit.next == 0) {
    commit.plan = in_small_steps(config_, std::move(commit.plan));
    config_.begin_undoable(commit.plan.size());
  }
  absl::Status problem;
  for (std::size_t i = 0; i < kChangesAtOnce && !commit.plan.empty(); ++i) {
    absl::StatusOr<Change> change = config_.apply(std::move(commit.plan.front()));
    problem = change.ok() ? check_host(*change) : change.status();
    if (!problem.ok()) break;
    commit.needs.add(*change);
    commit.changes.push_back(*std::move(change));
    commit.plan.pop_front();
    ++commit.next;
  }
  if (problem.ok() && !commit.plan.empty()) return;
  if (problem.ok()) problem = check_room(commit.needs);
  if (problem.ok()) {
    commit.step = Commit::Step::carry_out;
  } else {
    commit.result = {std::move(problem), commit.next};
    commit.step = Commit::Step::take_back;
  }
}

void Services::take_back_some(Commit& commit) {
  commit.plan.resize(commit.plan.size() - std::min(commit.plan.size(), kChangesAtOnce));
  commit.changes.resize(commit.changes.size() - std::min(commit.changes.size(), kChangesAtOnce));
  if (config_.undo(kChangesAtOnce) || !commit.plan.empty()) return;
  const Commit refused = std::move(commit);
  commits_.pop_front();
  refused.done(refused.result);
}

void Services::carry_out_some(Commit& commit) {
  for (std::size_t i = 0; i < kChangesAtOnce && !commit.changes.empty(); ++i) {
    std::visit([this](const auto& change) { carry_out(change); }, commit.changes.front());
    commit.changes.pop_front();
  }
  if (config_.keep(kChangesAtOnce * 4) || !commit.changes.empty()) return;
  finished_.push_back([done = std::move(commit.done)] { done({}); });
  is_stale_ = true;
  commits_.pop_front();
}

namespace {

absl::Status no_room(const char* what) {
  return absl::ResourceExhaustedError(absl::StrCat("there is no room for more ", what));
}

}  // namespace

void Services::Needs::add(const Change& change) {
  if (const auto* service = std::get_if<AddService>(&change)) {
    ++services;
    if (service->spec.key.fwmark != 0) return;
    ++steering.services;
    ++steering.addresses;
  } else if (const auto* server = std::get_if<AddServer>(&change)) {
    ++servers;
    if (server->spec.mode == ForwardMode::dr) return;
    ++steering.addresses;
    if (server->spec.mode == ForwardMode::tun) return;
    steering.servers += reply_protocols(server->service).size();
  }
}

absl::Status Services::check_room(const Needs& needs) const {
  const std::size_t services = kMaxServices - record_by_slot_.size() + free_services_.size();
  const std::size_t servers = kMaxServers - server_by_slot_.size() + free_servers_.size();
  if (needs.services > services) return no_room("services");
  if (needs.servers > servers) return no_room("real servers");
  const bool any = needs.services + needs.servers != 0;
  if (!any || !steering_.check_room) return absl::OkStatus();
  const SteeringSizes now = claims_.steering_sizes();
  return steering_.check_room({.services = now.services + needs.steering.services,
                               .servers = now.servers + needs.steering.servers,
                               .addresses = now.addresses + needs.steering.addresses});
}

absl::Status Services::check_host(const Change& change) const {
  const auto* added = std::get_if<AddServer>(&change);
  if (added == nullptr) return absl::OkStatus();
  const auto problem = host_->problem_with(added->spec.address);
  return problem ? absl::InvalidArgumentError(*problem) : absl::OkStatus();
}

// ---- Services ----

Services::ServiceRecord& Services::new_record(const ServiceKey& key) {
  auto& place = records_[key];
  place = std::make_unique<ServiceRecord>();
  if (free_services_.empty()) {
    place->slot = static_cast<ServiceSlot>(record_by_slot_.size());
    record_by_slot_.push_back(nullptr);
    service_generations_.push_back(0);
  } else {
    place->slot = free_services_.back();
    free_services_.pop_back();
  }
  place->generation = ++service_generations_[place->slot];
  record_by_slot_[place->slot] = place.get();
  if (key.fwmark == 0) by_virtual_address_.emplace(key.address, place->slot);
  return *place;
}

void Services::carry_out(const AddService& change) {
  const ServiceKey& key = change.spec.key;
  const auto known = records_.find(key);
  ServiceRecord& service = known == records_.end() ? new_record(key) : *known->second;
  service.spec = change.spec;
  service.options = {};
  service.added = ++additions_;
  order_.emplace(service.added, &service);
  service.removed = false;
  service.schedulers = nullptr;
  // What counted for the service that was removed does not count for this one, nor for the servers
  // that it may take back (__ip_vs_update_dest).
  for (const auto& server : service.trash) restart_counting(*server);
  service.baseline = gross_totals(service);
  service.estimator.restart(service.baseline);
  service.local = key.fwmark != 0 || host_->owns(key.address);
  follow_claims(service);
  if (!service.local && notice_) {
    notice_(absl::StrCat(text_of(key),
                         ": no interface of this host owns the address, so the "
                         "service takes no traffic until one does"));
  }
  mark_dirty(service);
}

void Services::carry_out(const EditService& change) {
  ServiceRecord& service = record_of(change.spec.key);
  const bool other_scheduler = service.spec.scheduler != change.spec.scheduler;
  service.spec = change.spec;
  if (other_scheduler) service.schedulers = nullptr;
  for (const auto& server : service.servers) note_replies(service, *server);
  follow_claims(service);
  mark_dirty(service);
}

void Services::remove_service(ServiceRecord& service) {
  service.removed = true;
  order_.erase(service.added);
  while (!service.servers.empty()) remove_server(service, service.servers.size() - 1);
  for (const auto& server : service.trash) mark_dirty(*server);
  with_departed_.insert(service.slot);
  follow_claims(service);
  mark_dirty(service);
}

void Services::carry_out(const DeleteService& change) {
  remove_service(record_of(change.key));
  follow_pools();
}

void Services::carry_out(const DeleteAllServices&) {
  while (!order_.empty()) remove_service(*order_.begin()->second);
  follow_pools();
}

void Services::carry_out(const SetServiceOption& change) {
  ServiceRecord& service = record_of(change.service);
  service.options = config_.services().at(change.service).options;
  mark_dirty(service);
}

// ---- Real servers ----

std::unique_ptr<Services::Server> Services::take_back(ServiceRecord& service,
                                                      const ServerSpec& spec) {
  const auto found = std::find_if(service.trash.begin(), service.trash.end(), [&](const auto& old) {
    return old->spec.address == spec.address && old->spec.port == spec.port;
  });
  if (found == service.trash.end()) return nullptr;
  auto server = std::move(*found);
  service.trash.erase(found);
  return server;
}

std::unique_ptr<Services::Server> Services::new_server(ServiceRecord& service,
                                                       const ServerSpec& spec) {
  auto server = std::make_unique<Server>();
  if (free_servers_.empty()) {
    server->slot = static_cast<ServerSlot>(server_by_slot_.size());
    server_by_slot_.push_back(nullptr);
    server_generations_.push_back(0);
  } else {
    server->slot = free_servers_.back();
    free_servers_.pop_back();
  }
  server_by_slot_[server->slot] = server.get();
  ++server_generations_[server->slot];
  server->service = &service;
  server->spec = spec;
  server->way = host_->acquire_way(spec.address);
  server->origin = slot_totals(server->slot);
  by_server_address_.emplace(spec.address, server->slot);
  // The marks of whoever had the slot before.
  SharedServer& shared = (*draft_.shared)[server->slot];
  shared.overloaded.store(false, std::memory_order_relaxed);
  shared.path_mtu.store(0, std::memory_order_relaxed);
  return server;
}

void Services::carry_out(const AddServer& change) {
  ServiceRecord& service = record_of(change.service);
  const ServerSpec& spec = change.spec;
  std::unique_ptr<Server> server = take_back(service, spec);
  if (server == nullptr) server = new_server(service, spec);
  const ServerSpec before = std::exchange(server->spec, spec);
  server->added = ++additions_;
  server->last_weight = spec.weight;
  server->available = true;
  health_.begin(server->weight, spec.weight, service.options.slow_start);
  if (server->weight.is_growing()) growing_.insert(server->slot);
  change_thresholds(*server, before);
  note_replies(service, *server);
  service.servers.insert(service.servers.begin(), std::move(server));
  Server& placed = *service.servers.front();
  change_claim(service, placed, wanted_claim(service, placed));
  note_edit(service, Edit::Kind::add, 0, placed);
  mark_dirty(placed);
  mark_dirty(service);
  warn_of_no_way(placed);
}

void Services::carry_out(const EditServer& change) {
  ServiceRecord& service = record_of(change.service);
  const ServerSpec& spec = change.spec;
  const std::size_t position = position_of(service, spec.address, spec.port);
  Server& server = *service.servers[position];
  const ServerSpec before = std::exchange(server.spec, spec);
  if (spec.weight != 0) server.last_weight = spec.weight;
  health_.configure(server.weight, spec.weight, service.options.slow_start);
  if (server.weight.is_growing()) growing_.insert(server.slot);
  change_thresholds(server, before);
  note_replies(service, server);
  change_claim(service, server, wanted_claim(service, server));
  note_edit(service, Edit::Kind::change, position, server);
  mark_dirty(server);
  mark_dirty(service);
}

// __ip_vs_update_dest: what the thresholds say of the connections that are there.
void Services::change_thresholds(const Server& server, const ServerSpec& before) {
  const std::uint32_t upper = server.spec.upper_threshold;
  if (upper == before.upper_threshold && server.spec.lower_threshold == before.lower_threshold) {
    return;
  }
  const std::uint32_t lower =
      server.spec.lower_threshold != 0 ? server.spec.lower_threshold : upper - upper / 4;
  const Load load = slot_load(server.slot);
  const std::uint64_t connections = std::uint64_t{load.active} + load.inactive;
  auto& overloaded = (*draft_.shared)[server.slot].overloaded;
  if (upper == 0 || connections < lower) {
    overloaded.store(false, std::memory_order_relaxed);
  } else if (connections >= upper) {
    overloaded.store(true, std::memory_order_relaxed);
  }
}

void Services::remove_server(ServiceRecord& service, std::size_t position) {
  const auto at = service.servers.begin() + static_cast<std::ptrdiff_t>(position);
  std::unique_ptr<Server> server = std::move(*at);
  service.servers.erase(at);
  note_edit(service, Edit::Kind::remove, position, *server);
  server->available = false;
  server->removed_in = kNextVersion;
  departing_.push_back(server.get());
  departure_ = true;
  growing_.erase(server->slot);
  change_claim(service, *server, wanted_claim(service, *server));
  mark_dirty(*server);
  service.trash.push_back(std::move(server));
  with_departed_.insert(service.slot);
  mark_dirty(service);
}

void Services::carry_out(const DeleteServer& change) {
  ServiceRecord& service = record_of(change.service);
  remove_server(service, position_of(service, change.address, change.port));
}

// ---- Local addresses ----

void Services::carry_out(const AddLocalAddresses&) { follow_pools(); }
void Services::carry_out(const DeleteLocalAddresses&) { follow_pools(); }

// Connections keep the address that they have: it stays ours until none is left.
void Services::follow_pools() {
  if (std::exchange(pool_changes_, config_.pool_changes()) == config_.pool_changes()) return;
  const LocalPools& pools = config_.pools();
  std::set<IpAddress> after = pools.addresses();
  if (after != pool_addresses_) {
    for (const IpAddress& address : after) {
      if (pool_addresses_.contains(address)) continue;
      if (leaving_addresses_.erase(address) == 0) claims_.claim_local_address(address);
    }
    for (const IpAddress& address : pool_addresses_) {
      if (after.contains(address)) continue;
      leaving_addresses_[address] = kNextVersion;
      unseen_addresses_.erase(address);
    }
    pool_addresses_ = std::move(after);
    tell_pool_addresses();
  }
  for (const auto& [key, service] : records_) {
    const bool same =
        service->published != nullptr && service->published->local_addresses == pools.of(key);
    if (!same) mark_dirty(*service);
  }
}

void Services::tell_pool_addresses() const {
  if (!fullnat_watch_.addresses_change) return;
  std::vector<IpAddress> addresses(pool_addresses_.begin(), pool_addresses_.end());
  for (const auto& [address, version] : leaving_addresses_) addresses.push_back(address);
  fullnat_watch_.addresses_change(std::move(addresses));
}

// ---- Rules for marks, settings ----

void Services::carry_out(const AddMarkRule&) { follow_mark_rules(); }
void Services::carry_out(const DeleteMarkRule&) { follow_mark_rules(); }

void Services::follow_mark_rules() {
  std::vector<MarkRule> rules;
  for (const MarkRuleSpec& spec : config_.mark_rules()) rules.push_back(spec.rule);
  draft_.marks = std::make_shared<const MarkRules>(rules);
  is_stale_ = true;
}

void Services::carry_out(const SetTimeouts&) { follow_settings(); }
void Services::carry_out(const SetSetting&) { follow_settings(); }

void Services::follow_settings() {
  draft_.settings = std::make_shared<const Settings>(config_.settings());
  is_stale_ = true;
}

}  // namespace weir
