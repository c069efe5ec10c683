// SPDX-License-Identifier: Apache-2.0
#include "control/services.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

namespace weir {
namespace {

absl::Status not_yet(std::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("weir does not do ", absl::string_view(what.data(), what.size()), " yet"));
}

absl::Status check_service(const ServiceSpec& spec) {
  if (spec.key.fwmark != 0) return not_yet("fwmark services");
  if (spec.key.protocol == Protocol::sctp) return not_yet("SCTP");
  if (spec.persistence_timeout != 0) return not_yet("persistence");
  if (!spec.persistence_engine.empty()) return not_yet("persistence engines");
  if (spec.one_packet) return not_yet("one-packet scheduling");
  if (spec.key.port == 0) return not_yet("services for all ports");
  if (make_scheduler(spec.scheduler, 0, 1) == nullptr) {
    return absl::NotFoundError(absl::StrCat("there is no scheduler ", spec.scheduler));
  }
  if (!spec.scheduler_flags.empty()) return not_yet("scheduler flags");
  return absl::OkStatus();
}

bool is_unicast(const IpAddress& address) {
  const bool broadcast = address.is_ipv4() && address.ipv4().value.host() == 0xffffffffU;
  return !address.is_unspecified() && !address.is_multicast() && !broadcast;
}

absl::Status check_server(const ServiceKey& key, const ServerSpec& spec) {
  if (!is_unicast(spec.address)) {
    return absl::InvalidArgumentError("a real server needs a unicast address");
  }
  if (spec.weight < 0) return absl::OutOfRangeError("a weight is not negative");
  if (spec.lower_threshold > spec.upper_threshold) {
    return absl::OutOfRangeError("the lower threshold is above the upper one");
  }
  if (spec.address.family() != key.address.family() && spec.mode != ForwardMode::tun) {
    return absl::InvalidArgumentError(
        "only a tunnel carries packets to a real server of another address family");
  }
  if (spec.upper_threshold != 0) return not_yet("connection thresholds");
  if (spec.mode == ForwardMode::fullnat) return not_yet("FullNAT");
  if (spec.mode == ForwardMode::local) return not_yet("real servers on the director itself");
  if (spec.tunnel != TunnelType::ipip) return not_yet("GUE and GRE tunnels");
  return absl::OkStatus();
}

// dr and tun leave the packet's port as it is.
ServerSpec with_port(const ServiceKey& key, ServerSpec spec) {
  if (spec.mode == ForwardMode::dr || spec.mode == ForwardMode::tun) spec.port = key.port;
  return spec;
}

std::string text_of(const ServiceKey& key) {
  const char* protocol = key.protocol == Protocol::tcp ? "TCP " : "UDP ";
  const bool v6 = !key.address.is_ipv4();
  return absl::StrCat(protocol, v6 ? "[" : "", key.address.to_string(), v6 ? "]:" : ":", key.port);
}

}  // namespace

// ---- Rates ----

void RateEstimator::sample(const Totals& totals) {
  constexpr int kCountShift = 9;  // 10 fractional bits, over two seconds
  constexpr int kByteShift = 4;
  const Totals delta = totals - last_;
  last_ = totals;
  const std::uint64_t rates[] = {delta.connections << kCountShift, delta.packets_in << kCountShift,
                                 delta.packets_out << kCountShift, delta.bytes_in << kByteShift,
                                 delta.bytes_out << kByteShift};
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const auto gap = static_cast<std::int64_t>(rates[i] - averages_[i]);
    averages_[i] += static_cast<std::uint64_t>(gap >> 2);
  }
}

Rates RateEstimator::rates() const {
  const auto count = [this](std::size_t i) { return (averages_[i] + 0x1ff) >> 10; };
  const auto bytes = [this](std::size_t i) { return (averages_[i] + 0xf) >> 5; };
  return {count(0), count(1), count(2), bytes(3), bytes(4)};
}

absl::Status Services::no_service() {
  return absl::FailedPreconditionError("no such service: add it first with ipvsadm -A");
}

// ---- Life ----

Services::Services(Publisher& publisher, std::span<WorkerState* const> workers, Clock clock)
    : publisher_(publisher),
      workers_(workers),
      clock_(clock),
      surroundings_{RoutesBuilder().build(), std::make_shared<PortAddresses>(),
                    [](const IpAddress&) { return false; }},
      settings_(std::make_shared<Settings>()) {
  publish();
}

Services::~Services() = default;

Services::ServiceRecord* Services::record(const ServiceKey& key) const {
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

// ---- Building what the workers see ----

// New schedulers for the list as it is. The workers take them up together with a version that has
// no edits to replay.
void Services::replace_schedulers(ServiceRecord& service) {
  const auto workers = static_cast<unsigned>(workers_.size());
  service.first_edit += service.edits.size();
  service.edits.clear();
  service.schedulers = std::make_shared<SchedulerSet>(workers);
  const Edit bind = make_edit(Edit::Kind::bind, 0, candidates_of(service));
  for (unsigned worker = 0; worker < workers; ++worker) {
    WorkerScheduler& state = (*service.schedulers)[worker];
    state.scheduler = make_scheduler(service.spec.scheduler, worker, workers);
    state.scheduler->apply(bind);
    state.edits_applied.add(service.first_edit);
  }
}

std::vector<Candidate> Services::candidates_of(const ServiceRecord& service) {
  std::vector<Candidate> list;
  for (const auto& server : service.servers) list.push_back({server->slot, server->spec.weight});
  return list;
}

void Services::retire(std::shared_ptr<const void> part) {
  if (part != nullptr) retired_.push_back(std::move(part));
}

RealServer Services::describe(const ServiceRecord& service, const Server& server) const {
  RealServer next;
  next.address = server.spec.address;
  next.port = Be16::from_host(server.spec.port);
  next.mode = server.spec.mode;
  next.available = server.available && !service.removed;
  next.weight = server.spec.weight;
  next.slot = server.slot;
  next.generation = server_generations_[server.slot];
  const auto hash = static_cast<std::uint32_t>(std::hash<IpAddress>{}(server.spec.address));
  const Routes::Decision way = surroundings_.routes->find(server.spec.address, hash);
  next.next_hop_known = way.answer == Routes::Answer::found;
  next.reachable = next.next_hop_known || way.answer == Routes::Answer::missing;
  if (next.reachable) {
    const Interface& interface = surroundings_.routes->interfaces()[way.interface];
    next.next_hop = way.next_hop;
    next.interface = way.interface;
    next.tunnel_source =
        server.spec.address.is_ipv4() ? interface.ipv4_source : interface.ipv6_source;
  }
  // A tunnel needs an address of its own to send from.
  if (next.mode == ForwardMode::tun && (next.tunnel_source.family() != next.address.family() ||
                                        next.tunnel_source.is_unspecified())) {
    next.reachable = false;
  }
  return next;
}

void Services::rebuild(const ServiceRecord& service, Server& server) {
  server.has_replies = server.has_replies || server.spec.mode == ForwardMode::nat;
  auto next = std::make_shared<RealServer>(describe(service, server));
  server_table_[server.slot] = next.get();
  retire(std::exchange(server.published, std::move(next)));
}

void Services::rebuild(ServiceRecord& service) {
  auto next = std::make_shared<Service>();
  next->key = service.spec.key;
  next->slot = service.slot;
  next->generation = service.generation;
  next->removed = service.removed;
  next->candidates = candidates_of(service);
  next->schedulers = service.schedulers;
  next->first_edit = service.first_edit;
  next->edits = service.edits;
  service_table_[service.slot] = next.get();
  retire(std::exchange(service.published, std::move(next)));
}

void Services::note_edit(ServiceRecord& service, Edit::Kind kind, std::size_t position) {
  service.edits.push_back(
      make_edit(kind, static_cast<std::uint32_t>(position), candidates_of(service)));
  edited_.insert(service.slot);
}

void Services::rebuild_index() {
  std::size_t entries = 0;
  for (const auto& [key, service] : records_) {
    entries += 1 + service->servers.size() + service->trash.size();
  }
  auto index = std::make_shared<ServiceIndex>(entries);
  for (const auto& [key, service] : records_) {
    if (!service->local) continue;
    index->add_service(key.address, Be16::from_host(key.port), key.protocol, service->slot);
    for (const auto* list : {&service->servers, &service->trash}) {
      for (const auto& server : *list) {
        if (!server->has_replies) continue;
        index->add_reply_source(server->spec.address, Be16::from_host(server->spec.port),
                                key.protocol);
      }
    }
  }
  index_ = std::move(index);
  index_stale_ = false;
}

void Services::publish() {
  if (index_stale_) rebuild_index();
  auto next = std::make_unique<Snapshot>();
  next->version = ++version_;
  next->index = index_;
  next->services = service_table_;
  next->servers = server_table_;
  next->edited.assign(edited_.begin(), edited_.end());
  next->routes = surroundings_.routes;
  next->ports = surroundings_.ports;
  next->settings = settings_;
  publisher_.publish(std::move(next), std::exchange(retired_, {}),
                     [this, version = version_, services = std::exchange(leaving_services_, {}),
                      servers = std::exchange(leaving_servers_, {})] {
                       oldest_in_use_ = version;
                       for (const ServiceSlot slot : services) free_services_.push_back(slot);
                       for (const ServerSlot slot : servers) free_servers_.push_back(slot);
                     });
}

// A worker that has left a version need not have looked at the next one yet: what it has replayed
// only it can say.
void Services::forget_replayed_edits() {
  absl::erase_if(edited_, [this](ServiceSlot slot) {
    ServiceRecord& service = *record_by_slot_[slot];
    std::uint64_t replayed = service.first_edit + service.edits.size();
    for (const WorkerScheduler& state : *service.schedulers) {
      replayed = std::min(replayed, state.edits_applied.read());
    }
    const auto count = static_cast<std::ptrdiff_t>(replayed - service.first_edit);
    service.edits.erase(service.edits.begin(), service.edits.begin() + count);
    service.first_edit = replayed;
    return service.edits.empty();
  });
}

// ---- Services ----

absl::Status Services::add_service(const ServiceSpec& spec) {
  if (record(spec.key) != nullptr) return absl::AlreadyExistsError("the service exists already");
  if (auto status = check_service(spec); !status.ok()) return status;
  auto& place = records_[spec.key];
  if (place == nullptr) {
    if (free_services_.empty() && service_table_.size() == kMaxServices) {
      records_.erase(spec.key);
      return absl::ResourceExhaustedError("there is no room for more services");
    }
    place = std::make_unique<ServiceRecord>();
    if (free_services_.empty()) {
      place->slot = static_cast<ServiceSlot>(service_table_.size());
      service_table_.push_back(nullptr);
      record_by_slot_.push_back(nullptr);
      service_generations_.push_back(0);
    } else {
      place->slot = free_services_.back();
      free_services_.pop_back();
    }
    place->generation = ++service_generations_[place->slot];
    record_by_slot_[place->slot] = place.get();
  }
  ServiceRecord& service = *place;
  service.spec = spec;
  service.added = ++additions_;
  service.removed = false;
  service.local = surroundings_.owns(spec.key.address);
  replace_schedulers(service);
  // What counted for the service that was removed does not count for this one, nor for the servers
  // that it may take back (__ip_vs_update_dest).
  for (const auto& server : service.trash) restart_counting(*server);
  service.baseline = gross_totals(service);
  service.estimator.restart(service.baseline);
  if (!service.local && notice_) {
    notice_(absl::StrCat(text_of(spec.key),
                         ": no interface of this host owns the address, so the "
                         "service takes no traffic until one does"));
  }
  index_stale_ = true;
  rebuild(service);
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
}

absl::Status Services::edit_service(const ServiceSpec& spec) {
  ServiceRecord* service = record(spec.key);
  if (service == nullptr) return no_service();
  if (auto status = check_service(spec); !status.ok()) return status;
  const bool other_scheduler = service->spec.scheduler != spec.scheduler;
  service->spec = spec;
  if (other_scheduler) replace_schedulers(*service);
  rebuild(*service);
  publish();
  return absl::OkStatus();
}

void Services::remove_service(ServiceRecord& service) {
  while (!service.servers.empty()) remove_server(service, 0);
  service.removed = true;
  rebuild(service);
}

absl::Status Services::delete_service(const ServiceKey& key) {
  ServiceRecord* service = record(key);
  if (service == nullptr) return no_service();
  remove_service(*service);
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
}

absl::Status Services::flush() {
  for (const auto& [key, service] : records_) {
    if (!service->removed) remove_service(*service);
  }
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
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

std::unique_ptr<Services::Server> Services::new_server(const ServerSpec& spec) {
  if (free_servers_.empty() && server_table_.size() == kMaxServers) return nullptr;
  auto server = std::make_unique<Server>();
  if (free_servers_.empty()) {
    server->slot = static_cast<ServerSlot>(server_table_.size());
    server_table_.push_back(nullptr);
    server_generations_.push_back(0);
  } else {
    server->slot = free_servers_.back();
    free_servers_.pop_back();
  }
  ++server_generations_[server->slot];
  server->spec = spec;
  server->origin = slot_totals(server->slot);
  return server;
}

void Services::place_server(ServiceRecord& service, std::unique_ptr<Server> server) {
  server->available = true;
  rebuild(service, *server);
  service.servers.insert(service.servers.begin(), std::move(server));
  note_edit(service, Edit::Kind::add, 0);
  rebuild(service);
  index_stale_ = true;
}

absl::Status Services::add_server(const ServiceKey& key, const ServerSpec& asked) {
  ServiceRecord* service = record(key);
  if (service == nullptr) return no_service();
  if (auto status = check_server(key, asked); !status.ok()) return status;
  if (surroundings_.owns(asked.address)) return not_yet("real servers on the director itself");
  const ServerSpec spec = with_port(key, asked);
  if (position_of(*service, spec.address, spec.port) != service->servers.size()) {
    return absl::AlreadyExistsError("the service has this real server already");
  }
  std::unique_ptr<Server> server = take_back(*service, spec);
  if (server == nullptr) server = new_server(spec);
  if (server == nullptr) {
    return absl::ResourceExhaustedError("there is no room for more real servers");
  }
  server->spec = spec;
  place_server(*service, std::move(server));
  if (!service->servers.front()->published->reachable && notice_) {
    notice_(absl::StrCat("real server ", spec.address.to_string(), " of ", text_of(key),
                         ": no route leads to it through a port of weir, so its packets are "
                         "dropped until one does"));
  }
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
}

absl::Status Services::edit_server(const ServiceKey& key, const ServerSpec& asked) {
  ServiceRecord* service = record(key);
  if (service == nullptr) return no_service();
  if (auto status = check_server(key, asked); !status.ok()) return status;
  const ServerSpec spec = with_port(key, asked);
  const std::size_t position = position_of(*service, spec.address, spec.port);
  if (position == service->servers.size()) {
    return absl::NotFoundError("the service has no such real server");
  }
  Server& server = *service->servers[position];
  const bool mode_changed = server.spec.mode != spec.mode;
  server.spec = spec;
  rebuild(*service, server);
  note_edit(*service, Edit::Kind::change, position);
  rebuild(*service);
  if (mode_changed) index_stale_ = true;
  publish();
  if (mode_changed && listener_) listener_();
  return absl::OkStatus();
}

void Services::remove_server(ServiceRecord& service, std::size_t position) {
  const auto at = service.servers.begin() + static_cast<std::ptrdiff_t>(position);
  std::unique_ptr<Server> server = std::move(*at);
  service.servers.erase(at);
  note_edit(service, Edit::Kind::remove, position);
  server->available = false;
  rebuild(service, *server);
  server->removed_in = version_ + 1;
  service.trash.push_back(std::move(server));
  rebuild(service);
}

absl::Status Services::delete_server(const ServiceKey& key, const IpAddress& address,
                                     std::uint16_t port) {
  ServiceRecord* service = record(key);
  if (service == nullptr) return no_service();
  std::size_t position = position_of(*service, address, port);
  if (position == service->servers.size()) {
    position = position_of(*service, address, key.port);
    const bool as_service = position != service->servers.size() &&
                            service->servers[position]->spec.mode != ForwardMode::nat;
    if (!as_service) return absl::NotFoundError("the service has no such real server");
  }
  remove_server(*service, position);
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
}

// ---- The host's network ----

void Services::refresh_ways(ServiceRecord& service) {
  for (const auto* list : {&service.servers, &service.trash}) {
    for (const auto& server : *list) {
      if (describe(service, *server) != *server->published) rebuild(service, *server);
    }
  }
}

void Services::refresh_ownership() {
  for (const auto& [key, service] : records_) {
    const bool local = surroundings_.owns(key.address);
    if (local == service->local) continue;
    service->local = local;
    index_stale_ = true;
    if (notice_ && !service->removed) {
      notice_(absl::StrCat(text_of(key), local ? ": the address is this host's now, the service "
                                                 "takes traffic"
                                               : ": no interface of this host owns the address any "
                                                 "more, the service takes no traffic"));
    }
  }
}

void Services::set_surroundings(Surroundings surroundings) {
  surroundings_ = std::move(surroundings);
  refresh_ownership();
  for (const auto& [key, service] : records_) refresh_ways(*service);
  publish();
  if (listener_) listener_();
}

std::vector<SteeringKey> Services::steered_services() const {
  std::vector<SteeringKey> keys;
  for (const auto& [key, service] : records_) {
    if (service->local) keys.push_back({key.protocol, key.address, key.port});
  }
  return keys;
}

std::vector<SteeringKey> Services::steered_servers() const {
  std::vector<SteeringKey> keys;
  for (const auto& [key, service] : records_) {
    if (!service->local) continue;
    for (const auto* list : {&service->servers, &service->trash}) {
      for (const auto& server : *list) {
        if (!server->has_replies) continue;
        keys.push_back({key.protocol, server->spec.address, server->spec.port});
      }
    }
  }
  return keys;
}

std::vector<IpAddress> Services::server_addresses() const {
  std::vector<IpAddress> addresses;
  for (const auto& [key, service] : records_) {
    for (const auto& server : service->servers) addresses.push_back(server->spec.address);
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  return addresses;
}

// ---- Housekeeping ----

// Frees the slots of removed real servers that no connection refers to. True: some were.
bool Services::collect_trash(ServiceRecord& service) {
  return std::erase_if(service.trash, [&](const std::unique_ptr<Server>& server) {
           const bool settled = server->removed_in <= oldest_in_use_;
           if (!settled || has_connections(server->slot)) return false;
           service.departed += totals(*server);
           server_table_[server->slot] = nullptr;
           leaving_servers_.push_back(server->slot);
           retire(server->published);
           return true;
         }) != 0;
}

bool Services::collect_service(ServiceRecord& service) {
  if (!service.removed || !service.trash.empty()) return false;
  service_table_[service.slot] = nullptr;
  record_by_slot_[service.slot] = nullptr;
  edited_.erase(service.slot);
  leaving_services_.push_back(service.slot);
  retire(service.published);
  return true;
}

void Services::housekeeping() {
  publisher_.reclaim();
  forget_replayed_edits();
  bool freed = false;
  for (auto at = records_.begin(); at != records_.end();) {
    ServiceRecord& service = *at->second;
    if (!service.trash.empty()) freed = collect_trash(service) || freed;
    if (collect_service(service)) {
      freed = true;
      at = records_.erase(at);
    } else {
      ++at;
    }
  }
  if (!freed) return;
  index_stale_ = true;
  publish();
  if (listener_) listener_();
}

void Services::estimate_rates() {
  for (const auto& [key, service] : records_) {
    service->estimator.sample(gross_totals(*service));
    for (const auto& server : service->servers) {
      server->estimator.sample(totals(*server));
    }
  }
}

}  // namespace weir
