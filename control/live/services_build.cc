// SPDX-License-Identifier: Apache-2.0
// The part of Services that makes what workers see of the records, and hands it out.
#include <algorithm>
#include <array>
#include <limits>
#include <random>
#include <utility>

#include <absl/strings/str_cat.h>

#include "control/live/services.h"
#include "control/model/text_forms.h"

namespace weir {
namespace {

// Of one piece of work.
constexpr std::size_t kPartsAtOnce = 8;
constexpr std::size_t kSegmentsAtOnce = 4;
constexpr std::size_t kSteeringChangesAtOnce = 64;

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

std::uint64_t random_seed() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

}  // namespace

bool Services::is_own(const IpAddress& address) const {
  return address.is_loopback() || host_->owns(address);
}

void Services::mark_dirty(Server& server) {
  is_stale_ = true;
  if (!std::exchange(server.is_dirty, true)) dirty_servers_.push_back(&server);
}

void Services::mark_dirty(ServiceRecord& service) {
  is_stale_ = true;
  if (!std::exchange(service.is_dirty, true)) dirty_services_.push_back(&service);
}

void Services::retire(std::shared_ptr<const void> part) {
  if (part != nullptr) retired_.push_back(std::move(part));
}

// ---- Schedulers ----

Candidate Services::candidate_of(const Server& server) const {
  return {.slot = server.slot,
          .weight = server.weight.value(),
          .last_weight = server.last_weight,
          .generation = server_generations_[server.slot]};
}

std::vector<Candidate> Services::candidates_of(const ServiceRecord& service) const {
  std::vector<Candidate> list;
  list.reserve(service.servers.size());
  for (const auto& server : service.servers) list.push_back(candidate_of(*server));
  return list;
}

SchedulerOptions Services::scheduler_options(const ServiceRecord& service) {
  return {.name = service.spec.scheduler,
          .flags = service.spec.scheduler_flags,
          .table_size = service.options.table_size};
}

// New schedulers for the list as it is. The workers take them up together with a version that has
// no edits to replay.
void Services::make_schedulers(ServiceRecord& service) {
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

void Services::note_edit(ServiceRecord& service, Edit::Kind kind, std::size_t position,
                         const Server& server) {
  if (service.schedulers == nullptr) return;
  const std::vector<Candidate> list = candidates_of(service);
  for (WorkerScheduler& state : *service.schedulers) state.scheduler->reserve(list.size());
  service.edits.push_back(
      make_edit(kind, static_cast<std::uint32_t>(position), candidate_of(server), list));
  edited_.insert(service.slot);
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
  if (same) return before->table;
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

// ---- Claims ----

// ip_vs_schedule and ip_vs_sched_persist: a connection keeps the port that the client asked for
// where the real server has none of its own, and where a persistent service is for many ports.
Services::ReplyKinds Services::present_replies(const ServiceRecord& service, const Server& server) {
  const ServiceSpec& spec = service.spec;
  const bool persistent = spec.persistence_timeout != 0;
  const bool many_ports = spec.key.port == 0 || spec.key.port == kFtp;
  return {.to_clients = server.spec.mode == ForwardMode::nat,
          .to_local_addresses = server.spec.mode == ForwardMode::fullnat,
          .from_all_ports = many_ports && (persistent || server.spec.port == 0)};
}

// Connections that are older than an edit reply as before.
void Services::note_replies(const ServiceRecord& service, Server& server) {
  const ReplyKinds present = present_replies(service, server);
  server.replies.to_clients |= present.to_clients;
  server.replies.to_local_addresses |= present.to_local_addresses;
  server.replies.from_all_ports |= present.from_all_ports;
  if (server.replies == present) return;
  former_replies_[server.slot] = kNextVersion;
  fewer_replies_.push_back(server.slot);
}

std::span<const Protocol> Services::reply_protocols(const ServiceKey& key) {
  static constexpr std::array kWithPorts = {Protocol::tcp, Protocol::udp, Protocol::sctp};
  if (key.fwmark != 0) return kWithPorts;
  const auto at = std::find(kWithPorts.begin(), kWithPorts.end(), key.protocol);
  return std::span(kWithPorts).subspan(static_cast<std::size_t>(at - kWithPorts.begin()), 1);
}

Services::ReplyClaim Services::wanted_claim(const ServiceRecord& service,
                                            const Server& server) const {
  ReplyClaim claim;
  claim.tunnel = server.available && server.spec.mode == ForwardMode::tun;
  if (!service.local) return claim;
  claim.to_clients = server.replies.to_clients;
  claim.to_local_addresses = server.replies.to_local_addresses;
  claim.one_packet =
      server.replies.to_clients && service.spec.one_packet && service.spec.key.fwmark == 0;
  const std::uint16_t own = server.spec.port != 0 ? server.spec.port : service.spec.key.port;
  if (claim.to_clients || claim.to_local_addresses) {
    claim.port = server.replies.from_all_ports ? std::uint16_t{0} : own;
  }
  return claim;
}

// What is new comes before what goes, so that nothing that both say is missing in between.
void Services::change_claim(const ServiceRecord& service, Server& server,
                            const ReplyClaim& wanted) {
  using ReplyTo = ServiceIndex::ReplyTo;
  if (server.claim == wanted) return;
  is_stale_ = true;
  const IpAddress& address = server.spec.address;
  const ReplyClaim before = std::exchange(server.claim, wanted);
  const auto protocols = reply_protocols(service.spec.key);
  for (const Protocol protocol : protocols) {
    if (wanted.to_clients) {
      claims_.claim_replies(address, wanted.port, protocol, ReplyTo::client);
    }
    if (wanted.to_local_addresses) {
      claims_.claim_replies(address, wanted.port, protocol, ReplyTo::local_address);
    }
  }
  if (wanted.one_packet) claims_.claim_one_packet(address, wanted.port, server.slot);
  if (wanted.tunnel) claims_.claim_tunnel_server(address);
  for (const Protocol protocol : protocols) {
    if (before.to_clients) {
      claims_.release_replies(address, before.port, protocol, ReplyTo::client);
    }
    if (before.to_local_addresses) {
      claims_.release_replies(address, before.port, protocol, ReplyTo::local_address);
    }
  }
  if (before.one_packet) claims_.release_one_packet(address, before.port, server.slot);
  if (before.tunnel) claims_.release_tunnel_server(address);
  if (before.to_local_addresses == wanted.to_local_addresses) return;
  if (wanted.to_local_addresses) {
    if (++fullnat_servers_[address] == 1 && fullnat_watch_.server_comes) {
      fullnat_watch_.server_comes(address);
    }
  } else if (--fullnat_servers_[address] == 0) {
    fullnat_servers_.erase(address);
    if (fullnat_watch_.server_goes) fullnat_watch_.server_goes(address);
  }
}

void Services::follow_claims(ServiceRecord& service) {
  const ServiceKey& key = service.spec.key;
  is_stale_ = true;
  if (service.local != service.is_claimed) {
    service.is_claimed = service.local;
    const bool claims = service.local;
    const Family family = key.address.family();
    if (key.fwmark != 0 && claims) claims_.claim_mark(key.fwmark, family, service.slot);
    if (key.fwmark != 0 && !claims) claims_.release_mark(key.fwmark, family);
    if (key.fwmark == 0 && claims) {
      claims_.claim_service(key.address, key.port, key.protocol, service.slot);
    }
    if (key.fwmark == 0 && !claims) claims_.release_service(key.address, key.port, key.protocol);
  }
  const bool ftp = service.local && key.fwmark == 0 && key.protocol == Protocol::tcp &&
                   key.port == kFtp && service.spec.persistence_timeout != 0;
  if (ftp != service.claims_ftp_data) {
    service.claims_ftp_data = ftp;
    ftp ? claims_.claim_ftp_data(key.address) : claims_.release_ftp_data(key.address);
  }
  for (const auto* list : {&service.servers, &service.trash}) {
    for (const auto& server : *list) change_claim(service, *server, wanted_claim(service, *server));
  }
}

void Services::follow_ownership(ServiceRecord& service) {
  const ServiceKey& key = service.spec.key;
  const bool local = host_->owns(key.address);
  if (local == service.local) return;
  service.local = local;
  follow_claims(service);
  if (!notice_ || service.removed) return;
  notice_(absl::StrCat(text_of(key), local ? ": the address is this host's now, the service "
                                             "takes traffic"
                                           : ": no interface of this host owns the address any "
                                             "more, the service takes no traffic"));
}

// ---- The host's network ----

void Services::set_host(HostNetwork& host) {
  host_ = &host;
  draft_.routes = host_->routes();
  is_stale_ = true;
  wake();
}

// Of what is being changed at the moment, nothing is shown.
void Services::routes_changed() {
  draft_.routes = host_->routes();
  publish_root({}, [] {});
}

void Services::ports_changed(std::shared_ptr<const PortAddresses> ports) {
  draft_.ports = std::move(ports);
  publish_root({}, [] {});
}

void Services::addresses_changed(std::span<const IpPrefix> addresses) {
  for (const IpPrefix& prefix : addresses) {
    const auto each_in = [&prefix](const auto& set, auto&& use) {
      for (auto at = set.lower_bound({prefix.address, 0});
           at != set.end() && at->first <= prefix.last(); ++at) {
        use(at->second);
      }
    };
    each_in(by_virtual_address_,
            [this](ServiceSlot slot) { follow_ownership(*record_by_slot_[slot]); });
    each_in(by_server_address_, [this](ServerSlot slot) { mark_dirty(*server_by_slot_[slot]); });
  }
  wake();
}

void Services::host_address_comes(const IpAddress& address) {
  claims_.claim_host_address(address);
  is_stale_ = true;
}

void Services::host_address_goes(const IpAddress& address) {
  claims_.release_host_address(address);
  is_stale_ = true;
}

void Services::set_local_ports(std::shared_ptr<const PortGroups> groups, std::uint64_t seed) {
  port_groups_ = std::move(groups);
  port_seed_ = seed;
}

// ---- Building ----

RealServer Services::describe(const Server& server) const {
  RealServer next;
  next.address = server.spec.address;
  next.port = Be16::from_host(server.spec.port);
  next.mode = is_own(server.spec.address) ? ForwardMode::local : server.spec.mode;
  next.translated =
      server.spec.mode == ForwardMode::nat || server.spec.mode == ForwardMode::fullnat;
  next.upper_threshold = server.spec.upper_threshold;
  next.lower_threshold = server.spec.lower_threshold;
  next.available = server.available && !server.service->removed;
  next.tunnel = {server.spec.tunnel, server.spec.tunnel_checksum,
                 Be16::from_host(server.spec.tunnel_port)};
  next.weight = server.weight.value();
  next.slot = server.slot;
  next.generation = server_generations_[server.slot];
  next.service = server.service->slot;
  next.way = server.way;
  return next;
}

// The kernel's stack gets packets as they came, so that another port would not be reached.
void Services::warn_of_other_port(const Server& server, const RealServer& next) const {
  const bool was_local = server.published != nullptr && server.published->mode == next.mode;
  const ServiceKey& key = server.service->spec.key;
  const bool other = next.translated && server.spec.port != 0 && server.spec.port != key.port;
  if (next.mode != ForwardMode::local || was_local || !other || !notice_) return;
  notice_(absl::StrCat("real server ", server.spec.address.to_string(), " port ", server.spec.port,
                       " of ", text_of(key), ": the address is this host's own, and ",
                       "the kernel gets packets as they came, so those for another port are ",
                       "dropped (drop_local_other_port): let it listen on the service's port"));
}

void Services::warn_of_no_way(const Server& server) {
  if (!notice_ || is_own(server.spec.address)) return;
  if (host_->reaches(server.spec.address)) return;
  notice_(absl::StrCat("real server ", server.spec.address.to_string(), " of ",
                       text_of(server.service->spec.key),
                       ": no route leads to it through a port of weir, so its packets are "
                       "dropped until one does"));
}

void Services::build(Server& server) {
  server.is_dirty = false;
  auto next = std::make_shared<RealServer>(describe(server));
  if (server.published != nullptr && *server.published == *next) return;
  warn_of_other_port(server, *next);
  servers_.edit(server.slot) = next.get();
  retire(std::exchange(server.published, std::move(next)));
}

void Services::build(ServiceRecord& service) {
  service.is_dirty = false;
  if (service.schedulers == nullptr) make_schedulers(service);
  const Service* before = service.published.get();
  if (before != nullptr && before->gone_server != service.options.gone_server) departure_ = true;
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
  services_.edit(service.slot) = next.get();
  retire(std::exchange(service.published, std::move(next)));
}

// Services with one pool share their ports: the tables say which are in use, so that nothing is
// lost with former LocalPorts.
void Services::give_local_addresses(const ServiceRecord& service, Service& to) {
  to.local_addresses = config_.pools().of(service.spec.key);
  const LocalAddresses& pool = *to.local_addresses;
  if (pool.ipv4.empty() && pool.ipv6.empty()) return;
  std::erase_if(local_ports_, [](const auto& entry) { return entry.first.use_count() == 1; });
  const OwnerMap& owners = *workers_.front()->owners;
  if (port_groups_ == nullptr) {
    set_local_ports(
        std::make_shared<const PortGroups>(owners, kFirstLocalPort, kLastLocalPort, random_seed()),
        random_seed());
  }
  auto& ports = local_ports_[to.local_addresses];
  if (ports == nullptr) {
    ports = std::make_shared<LocalPortsSet>(make_local_ports(owners, port_groups_, pool,
                                                             static_cast<unsigned>(workers_.size()),
                                                             next_random(port_seed_)));
  }
  to.local_ports = ports;
}

// False: all that is dirty has been built.
bool Services::build_some() {
  for (std::size_t i = 0; i < kPartsAtOnce && !dirty_servers_.empty(); ++i) {
    build(*dirty_servers_.back());
    dirty_servers_.pop_back();
  }
  if (!dirty_servers_.empty()) return true;
  for (std::size_t i = 0; i < kPartsAtOnce && !dirty_services_.empty(); ++i) {
    build(*dirty_services_.back());
    dirty_services_.pop_back();
  }
  return !dirty_services_.empty() || claims_.make_segments(kSegmentsAtOnce);
}

// ---- Publishing ----

void Services::publish() {
  is_stale_ = false;
  const std::uint64_t version = version_ + 1;
  draft_.index = claims_.publish();
  draft_.services = services_.publish(retired_);
  draft_.servers = servers_.publish(retired_);
  draft_.routes = host_->routes();
  draft_.edited.assign(edited_.begin(), edited_.end());
  if (std::exchange(departure_, false)) draft_.last_departure = version;
  for (Server* server : std::exchange(departing_, {})) {
    if (!server->available) server->removed_in = version;
  }
  for (const ServerSlot slot : std::exchange(fewer_replies_, {})) former_replies_[slot] = version;
  for (auto& [address, first] : leaving_addresses_) {
    if (first == kNextVersion) first = version;
  }
  publish_root(std::exchange(retired_, {}), [this, services = std::exchange(leaving_services_, {}),
                                             servers = std::exchange(leaving_servers_, {})] {
    for (const ServiceSlot slot : services) free_services_.push_back(slot);
    for (const ServerSlot slot : servers) free_servers_.push_back(slot);
  });
  publications_.push_back({version, std::exchange(finished_, {})});
  if (!wake_) settle();
}

// The draft as it is. `retired` and `then` are of the parts that the version before had.
void Services::publish_root(RetiredParts retired, Completion then) {
  auto next = std::make_unique<Snapshot>(draft_);
  next->version = ++version_;
  publisher_.publish(std::move(next), std::move(retired),
                     [this, version = version_, then = std::move(then)] {
                       oldest_in_use_ = version;
                       then();
                     });
  if (wake_) wake_();
}

// The steering program learns of a service when every worker has adopted it, so that no packet
// meets one that has not. True: there is more to tell.
bool Services::tell_steering() {
  if (!steering_.apply) {
    claims_.drop_steering_changes();
    return false;
  }
  SteeringConfig config{.extras = claims_.steering_extras(), .rules = {}};
  for (const MarkRuleSpec& spec : config_.mark_rules()) {
    const auto served = [this, mark = spec.rule.mark](const IpAddress& family) {
      const ServiceKey key{.protocol = Protocol::ip, .address = family, .port = 0, .fwmark = mark};
      return mark != 0 && records_.contains(key);
    };
    config.rules.push_back({.rule = spec.rule,
                            .ipv4 = served(IpAddress(Ipv4Address{})),
                            .ipv6 = served(IpAddress(Ipv6Address{}))});
  }
  steering_.apply(claims_.take_steering_changes(kSteeringChangesAtOnce), config);
  return claims_.has_steering_changes();
}

// What has waited for a version that all workers have now.
void Services::hand_out() {
  if (tell_steering()) return;
  const std::vector<Completion> done = std::move(publications_.front().done);
  publications_.pop_front();
  for (const Completion& each : done) each();
}

bool Services::settle() {
  publisher_.reclaim();
  if (!wake_) {
    while (!publications_.empty()) hand_out();
  }
  return !publications_.empty() && publications_.front().version <= oldest_in_use_;
}

bool Services::work() {
  if (!publications_.empty() && publications_.front().version <= oldest_in_use_) {
    hand_out();
  } else if (!commits_.empty()) {
    advance_commit();
  } else if (is_stale_) {
    if (!build_some()) publish();
  } else {
    return false;
  }
  return true;
}

}  // namespace weir
