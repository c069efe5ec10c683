// SPDX-License-Identifier: Apache-2.0
#include "control/live/services.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <utility>

namespace weir {
namespace {

absl::Status not_yet(std::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("weir does not do ", absl::string_view(what.data(), what.size()), " yet"));
}

// What only ip_vs_ctl.c and ipvsadm together refuse.
absl::Status check_persistence(const ServiceSpec& spec) {
  constexpr std::uint32_t kLongest = 31U * 24 * 60 * 60;
  if (spec.persistence_engine == "sip") return not_yet("persistence engines (--pe sip)");
  if (!spec.persistence_engine.empty()) {
    return absl::NotFoundError(
        absl::StrCat("there is no persistence engine ", spec.persistence_engine));
  }
  if (spec.persistence_timeout > kLongest) {
    return absl::InvalidArgumentError("a service is persistent for at most 31 days");
  }
  if (spec.persistence_timeout == 0 && spec.key.fwmark == 0 && spec.key.port == 0) {
    return absl::InvalidArgumentError("only a persistent service is for all ports");
  }
  const bool has_length = !spec.key.address.is_ipv4() && spec.persistence_mask != kEachClientAlone;
  if (has_length && (spec.persistence_mask < 1 || spec.persistence_mask > 128)) {
    return absl::InvalidArgumentError("the mask of an IPv6 service is a length from 1 to 128");
  }
  return absl::OkStatus();
}

absl::Status check_service(const ServiceSpec& spec) {
  const auto names = scheduler_names();
  if (std::find(names.begin(), names.end(), spec.scheduler) == names.end()) {
    return absl::NotFoundError(absl::StrCat("there is no scheduler ", spec.scheduler));
  }
  const SchedulerOptions options{.name = spec.scheduler, .flags = spec.scheduler_flags};
  if (const auto problem = check_options(options)) return absl::InvalidArgumentError(*problem);
  if (auto status = check_persistence(spec); !status.ok()) return status;
  if (spec.one_packet && spec.key.fwmark == 0 && spec.key.protocol != Protocol::udp) {
    return absl::InvalidArgumentError("only datagrams of UDP are scheduled one by one");
  }
  return absl::OkStatus();
}

// What only ip_vs_add_dest and ipvsadm together refuse.
absl::Status check_tunnel(const ServerSpec& spec) {
  if (spec.mode != ForwardMode::tun && spec.tunnel != TunnelType::ipip) {
    return absl::InvalidArgumentError("only a real server of mode tun has a tunnel type");
  }
  if (spec.tunnel == TunnelType::gue && spec.tunnel_port == 0) {
    return absl::InvalidArgumentError("a GUE tunnel needs a port");
  }
  if (spec.tunnel == TunnelType::gre && spec.tunnel_checksum == TunnelChecksum::remote) {
    return absl::InvalidArgumentError("only GUE has a remote checksum");
  }
  if (spec.tunnel == TunnelType::ipip && spec.tunnel_checksum != TunnelChecksum::none) {
    return absl::InvalidArgumentError("an IPIP tunnel has no checksum");
  }
  return absl::OkStatus();
}

absl::Status check_server(const ServiceKey& key, const ServerSpec& spec) {
  if (!spec.address.is_unicast()) {
    return absl::InvalidArgumentError("a real server needs a unicast address");
  }
  if (spec.weight < 0) return absl::OutOfRangeError("a weight is not negative");
  if (spec.lower_threshold > spec.upper_threshold) {
    return absl::OutOfRangeError("the lower threshold is above the upper one");
  }
  const bool crosses = spec.mode == ForwardMode::tun || spec.mode == ForwardMode::fullnat;
  if (spec.address.family() != key.address.family() && !crosses) {
    return absl::InvalidArgumentError(
        "only tunnels and fullnat lead to a real server of another address family");
  }
  if (spec.mode == ForwardMode::local) {
    return absl::InvalidArgumentError(
        "a real server is local by its address: give it any other mode");
  }
  return check_tunnel(spec);
}

// dr and tun leave the packet's port as it is.
bool keeps_port(ForwardMode mode) { return mode == ForwardMode::dr || mode == ForwardMode::tun; }

ServerSpec with_port(const ServiceKey& key, ServerSpec spec) {
  if (keeps_port(spec.mode) && key.fwmark == 0) spec.port = key.port;
  return spec;
}

Persistence persistence_of(const ServiceSpec& spec) {
  Persistence persistence{.timeout = spec.persistence_timeout};
  persistence.mask.fill(0xff);
  if (spec.persistence_mask == kEachClientAlone) return persistence;
  if (spec.key.address.is_ipv4()) {
    persistence.mask = IpAddress(Ipv4Address{Be32::from_host(spec.persistence_mask)}).bytes();
    return persistence;
  }
  Ipv6Address ones;
  ones.bytes.fill(0xff);
  persistence.mask = IpAddress(ones).masked(static_cast<int>(spec.persistence_mask)).bytes();
  return persistence;
}

std::string text_of(const ServiceKey& key) {
  const bool v6 = !key.address.is_ipv4();
  if (key.fwmark != 0) return absl::StrCat("FWM ", key.fwmark, v6 ? " IPv6" : "");
  const char* protocol = key.protocol == Protocol::tcp   ? "TCP "
                         : key.protocol == Protocol::udp ? "UDP "
                                                         : "SCTP ";
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
      busy_(workers.size()),
      settings_(std::make_shared<Settings>()),
      shared_(std::make_shared<SharedServers>(
          workers.empty() ? 0 : workers.front()->own().loads.size())) {
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
  const std::vector<Candidate> list = candidates_of(service);
  for (unsigned worker = 0; worker < workers; ++worker) {
    WorkerScheduler& state = (*service.schedulers)[worker];
    state.scheduler = make_scheduler(scheduler_options(service), worker, workers);
    state.scheduler->bind(list);
    state.edits_applied.add(service.first_edit);
  }
}

Candidate Services::candidate_of(const ServiceRecord& service, const Server& server) const {
  return {.slot = server.slot,
          .weight = present_weight(service, server),
          .last_weight = server.last_weight,
          .generation = server_generations_[server.slot]};
}

std::vector<Candidate> Services::candidates_of(const ServiceRecord& service) const {
  std::vector<Candidate> list;
  list.reserve(service.servers.size());
  for (const auto& server : service.servers) list.push_back(candidate_of(service, *server));
  return list;
}

SchedulerOptions Services::scheduler_options(const ServiceRecord& service) {
  return {.name = service.spec.scheduler,
          .flags = service.spec.scheduler_flags,
          .table_size = service.options.table_size};
}

// The table for the list as it is: the one that is there already, where nothing has changed.
std::shared_ptr<const LookupTable> Services::table_of(ServiceRecord& service,
                                                      const std::vector<Candidate>& list) {
  if (service.removed) {
    service.tables = {};
    return nullptr;
  }
  const SchedulerOptions options = scheduler_options(service);
  const Service* before = service.published.get();
  const bool same = before != nullptr && !before->removed && before->scheduler_options == options &&
                    before->candidates == list;
  if (same) {
    return before->table;
  }
  std::vector<ServerName> names;
  names.reserve(service.servers.size());
  for (const auto& server : service.servers) {
    const bool ipv4 = service.spec.key.address.is_ipv4();
    names.push_back({.address = server->spec.address.bytes(),
                     .service_bytes = static_cast<std::uint8_t>(ipv4 ? 4 : 16),
                     .port = server->spec.port});
  }
  if (service.tables.options() != options) service.tables = TableMaker(options);
  return service.tables.make(list, names);
}

void Services::retire(std::shared_ptr<const void> part) {
  if (part != nullptr) retired_.push_back(std::move(part));
}

RealServer Services::describe(const ServiceRecord& service, const Server& server) const {
  RealServer next;
  next.address = server.spec.address;
  next.port = Be16::from_host(server.spec.port);
  next.mode = is_own(server.spec.address) ? ForwardMode::local : server.spec.mode;
  next.translated =
      server.spec.mode == ForwardMode::nat || server.spec.mode == ForwardMode::fullnat;
  next.upper_threshold = server.spec.upper_threshold;
  next.lower_threshold = server.spec.lower_threshold;
  next.available = server.available && !service.removed;
  next.tunnel = {server.spec.tunnel, server.spec.tunnel_checksum,
                 Be16::from_host(server.spec.tunnel_port)};
  next.weight = present_weight(service, server);
  next.slot = server.slot;
  next.generation = server_generations_[server.slot];
  next.service = service.slot;
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

// ip_vs_schedule and ip_vs_sched_persist: a connection keeps the port that the client asked for
// where the real server has none of its own, and where a persistent service is for many ports.
void Services::note_replies(const ServiceRecord& service, Server& server) {
  const ServiceSpec& spec = service.spec;
  if (server.spec.mode == ForwardMode::nat) server.replies_to_clients = true;
  if (server.spec.mode == ForwardMode::fullnat) server.replies_to_local_addresses = true;
  const bool persistent = spec.persistence_timeout != 0;
  const bool many_ports = spec.key.port == 0 || spec.key.port == kFtp;
  if (many_ports && (persistent || server.spec.port == 0)) server.replies_from_all_ports = true;
}

std::uint16_t Services::reply_port(const ServiceRecord& service, const Server& server) {
  if (server.replies_from_all_ports) return 0;
  return server.spec.port != 0 ? server.spec.port : service.spec.key.port;
}

std::span<const Protocol> Services::reply_protocols(const ServiceKey& key) {
  static constexpr std::array kWithPorts = {Protocol::tcp, Protocol::udp, Protocol::sctp};
  if (key.fwmark != 0) return kWithPorts;
  const auto at = std::find(kWithPorts.begin(), kWithPorts.end(), key.protocol);
  return std::span(kWithPorts).subspan(static_cast<std::size_t>(at - kWithPorts.begin()), 1);
}

// The kernel's stack gets packets as they came, so that another port would not be reached.
void Services::warn_of_other_port(const ServiceRecord& service, const Server& server,
                                  const RealServer& next) const {
  const bool was_local = server.published != nullptr && server.published->mode == next.mode;
  const std::uint16_t port = service.spec.key.port;
  const bool other = next.translated && server.spec.port != 0 && server.spec.port != port;
  if (next.mode != ForwardMode::local || was_local || !other || !notice_) return;
  notice_(absl::StrCat("real server ", server.spec.address.to_string(), " port ", server.spec.port,
                       " of ", text_of(service.spec.key), ": the address is this host's own, and ",
                       "the kernel gets packets as they came, so those for another port are ",
                       "dropped (drop_local_other_port): let it listen on the service's port"));
}

void Services::rebuild(const ServiceRecord& service, Server& server) {
  note_replies(service, server);
  auto next = std::make_shared<RealServer>(describe(service, server));
  warn_of_other_port(service, server, *next);
  if (server.published != nullptr && server.published->available && !next->available) {
    last_departure_ = version_ + 1;
  }
  server_table_[server.slot] = next.get();
  retire(std::exchange(server.published, std::move(next)));
}

void Services::rebuild(ServiceRecord& service) {
  const Service* before = service.published.get();
  if (before != nullptr && before->gone_server != service.options.gone_server) {
    last_departure_ = version_ + 1;
  }
  auto next = std::make_shared<Service>();
  next->key = service.spec.key;
  next->slot = service.slot;
  next->generation = service.generation;
  next->removed = service.removed;
  next->candidates = candidates_of(service);
  next->scheduler_options = scheduler_options(service);
  next->table = table_of(service, next->candidates);
  next->one_packet = service.spec.one_packet;
  next->persistence = persistence_of(service.spec);
  next->client_address = service.options.client_address;
  next->gone_server = service.options.gone_server;
  next->idle_timeout = service.options.idle_timeout;
  give_local_addresses(service, *next);
  next->schedulers = service.schedulers;
  next->first_edit = service.first_edit;
  next->edits = service.edits;
  service_table_[service.slot] = next.get();
  retire(std::exchange(service.published, std::move(next)));
}

void Services::note_edit(ServiceRecord& service, Edit::Kind kind, std::size_t position,
                         const Server& server) {
  const std::vector<Candidate> list = candidates_of(service);
  for (WorkerScheduler& state : *service.schedulers) state.scheduler->reserve(list.size());
  service.edits.push_back(
      make_edit(kind, static_cast<std::uint32_t>(position), candidate_of(service, server), list));
  edited_.insert(service.slot);
}

void Services::add_reply_sources(ServiceIndex& index, const ServiceRecord& service,
                                 const Server& server) {
  using ReplyTo = ServiceIndex::ReplyTo;
  const Be16 port = Be16::from_host(reply_port(service, server));
  for (const Protocol protocol : reply_protocols(service.spec.key)) {
    const IpAddress& address = server.spec.address;
    const bool alone = service.spec.one_packet && service.spec.key.fwmark == 0;
    if (server.replies_to_clients && alone) {
      index.add_one_packet_server(address, port, server.slot);
    } else if (server.replies_to_clients) {
      index.add_reply_source(address, port, protocol, ReplyTo::client);
    }
    if (server.replies_to_local_addresses) {
      index.add_reply_source(address, port, protocol, ReplyTo::local_address);
    }
  }
}

void Services::rebuild_index() {
  const std::set<IpAddress> local_addresses = pools_.addresses();
  std::size_t entries = local_addresses.size() + leaving_addresses_.size();
  for (const auto& [key, service] : records_) {
    const std::size_t servers = service->servers.size() + service->trash.size();
    entries += 1 + reply_protocols(key).size() * servers;
  }
  auto index = std::make_shared<ServiceIndex>(entries);
  for (const IpAddress& address : local_addresses) index->add_local_address(address);
  for (const auto& [address, version] : leaving_addresses_) index->add_local_address(address);
  for (const auto& [key, service] : records_) {
    if (!service->local) continue;
    if (key.fwmark != 0) {
      index->add_fwmark_service(key.fwmark, key.address.family(), service->slot);
    } else {
      index->add_service(key.address, Be16::from_host(key.port), key.protocol, service->slot);
    }
    for (const auto* list : {&service->servers, &service->trash}) {
      for (const auto& server : *list) add_reply_sources(*index, *service, *server);
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
  next->last_departure = last_departure_;
  next->edited.assign(edited_.begin(), edited_.end());
  next->routes = surroundings_.routes;
  next->ports = surroundings_.ports;
  next->settings = settings_;
  next->marks = marks_;
  next->shared = shared_;
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
  if (auto status = check_place(spec.key); !status.ok()) return status;
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
  service.options = {};
  service.added = ++additions_;
  service.removed = false;
  service.local = spec.key.fwmark != 0 || surroundings_.owns(spec.key.address);
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
  for (const auto& server : service->servers) note_replies(*service, *server);
  index_stale_ = true;
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
}

void Services::remove_service(ServiceRecord& service) {
  service.removed = true;
  while (!service.servers.empty()) remove_server(service, 0);
  LocalPools pools = pools_;
  pools.forget(service.spec.key);
  adopt_pools(std::move(pools));
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
  // The marks of whoever had the slot before.
  SharedServer& shared = (*shared_)[server->slot];
  shared.overloaded.store(false, std::memory_order_relaxed);
  shared.path_mtu.store(0, std::memory_order_relaxed);
  return server;
}

void Services::place_server(ServiceRecord& service, std::unique_ptr<Server> server) {
  server->available = true;
  rebuild(service, *server);
  service.servers.insert(service.servers.begin(), std::move(server));
  note_edit(service, Edit::Kind::add, 0, *service.servers.front());
  rebuild(service);
  index_stale_ = true;
}

absl::Status Services::add_server(const ServiceKey& key, const ServerSpec& asked) {
  ServiceRecord* service = record(key);
  if (service == nullptr) return no_service();
  if (auto status = check_server(key, asked); !status.ok()) return status;
  if (auto status = check_local_addresses(key, asked); !status.ok()) return status;
  const ServerSpec spec = with_port(key, asked);
  if (position_of(*service, spec.address, spec.port) != service->servers.size()) {
    return absl::AlreadyExistsError("the service has this real server already");
  }
  std::unique_ptr<Server> server = take_back(*service, spec);
  if (server == nullptr) server = new_server(spec);
  if (server == nullptr) {
    return absl::ResourceExhaustedError("there is no room for more real servers");
  }
  const ServerSpec before = std::exchange(server->spec, spec);
  server->last_weight = spec.weight;
  start_slowly(*service, *server);
  change_thresholds(*server, before);
  place_server(*service, std::move(server));
  const RealServer& placed = *service->servers.front()->published;
  if (!placed.reachable && placed.mode != ForwardMode::local && notice_) {
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
  if (auto status = check_local_addresses(key, asked); !status.ok()) return status;
  const ServerSpec spec = with_port(key, asked);
  const std::size_t position = position_of(*service, spec.address, spec.port);
  if (position == service->servers.size()) {
    return absl::NotFoundError("the service has no such real server");
  }
  Server& server = *service->servers[position];
  const ServerSpec before = std::exchange(server.spec, spec);
  if (spec.weight != 0) server.last_weight = spec.weight;
  if (before.weight == 0) start_slowly(*service, server);
  const bool mode_changed = before.mode != spec.mode;
  change_thresholds(server, before);
  rebuild(*service, server);
  note_edit(*service, Edit::Kind::change, position, server);
  rebuild(*service);
  if (mode_changed) index_stale_ = true;
  publish();
  if (mode_changed && listener_) listener_();
  return absl::OkStatus();
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
  auto& overloaded = (*shared_)[server.slot].overloaded;
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
    const bool as_service =
        position != service->servers.size() && keeps_port(service->servers[position]->spec.mode);
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
    const bool local = key.fwmark != 0 || surroundings_.owns(key.address);
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
  bool changed = false;
  for (const auto& [key, service] : records_) changed = advance_slow_starts(*service) || changed;
  if (changed) publish();
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
  freed = collect_local_addresses() || freed;
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
  for (const WorkerState* worker : workers_) {
    const WorkerStatistics& statistics = *worker->own_statistics;
    busy_[worker->index].sample(statistics.busy_cycles.read(), statistics.cycles.read());
  }
}

}  // namespace weir
