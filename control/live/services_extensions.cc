// SPDX-License-Identifier: Apache-2.0
// The part of Services that IPVS does not have: options of services, local addresses, rules for
// marks; and what is steered to the workers.
#include <algorithm>
#include <iterator>
#include <random>
#include <utility>

#include <absl/strings/str_cat.h>

#include "control/live/services.h"

namespace weir {
namespace {

bool has_addresses(const LocalAddresses& pool, const IpAddress& for_address) {
  return for_address.is_ipv4() ? !pool.ipv4.empty() : !pool.ipv6.empty();
}

// Whether packets to the service could be taken for replies to a local address of its.
bool takes_local_ports(const ServiceKey& key) {
  const bool among_them = key.port >= kFirstLocalPort && key.port <= kLastLocalPort;
  return key.fwmark == 0 && (key.port == 0 || key.port == kFtp || among_them);
}

}  // namespace

bool Services::is_own(const IpAddress& address) const {
  return address.is_loopback() || surroundings_.owns(address);
}

// ---- Options ----

absl::Status Services::set_service_option(const ServiceKey& key, const ServiceOption& option) {
  ServiceRecord* service = record(key);
  if (service == nullptr) return no_service();
  ServiceOptions next = service->options;
  if (auto status = set_option(next, option); !status.ok()) return status;
  if (auto status = check_options_of(key, next); !status.ok()) return status;
  if (next.table_size != service->options.table_size) {
    SchedulerOptions scheduler = scheduler_options(*service);
    scheduler.table_size = next.table_size;
    if (const auto problem = check_options(scheduler)) return absl::InvalidArgumentError(*problem);
  }
  service->options = next;
  rebuild(*service);
  publish();
  return absl::OkStatus();
}

// ---- Slow start: a real server that comes, or comes back, takes up its weight bit by bit ----

void Services::start_slowly(const ServiceRecord& service, Server& server) {
  server.starting = service.options.slow_start != 0 && server.spec.weight > 1;
  server.start_tick = clock_();
}

std::int32_t Services::present_weight(const ServiceRecord& service, const Server& server) const {
  const std::int32_t weight = server.spec.weight;
  if (!server.starting || weight <= 1) return weight;
  const std::uint64_t whole = std::uint64_t{service.options.slow_start} * kTicksPerSecond;
  const std::uint64_t passed = clock_() - server.start_tick;
  if (passed >= whole) return weight;
  const auto share = static_cast<std::int32_t>(static_cast<std::uint64_t>(weight) * passed / whole);
  return std::max(share, 1);
}

// In at most kSteps steps, each of them an edit to the schedulers. True: a weight has changed.
bool Services::advance_slow_starts(ServiceRecord& service) {
  constexpr std::int32_t kSteps = 32;
  bool changed = false;
  for (std::size_t position = 0; position < service.servers.size(); ++position) {
    Server& server = *service.servers[position];
    if (!server.starting) continue;
    const std::int32_t weight = present_weight(service, server);
    const bool done = weight == server.spec.weight;
    if (!done && (weight - server.published->weight) * kSteps < server.spec.weight) continue;
    if (done) server.starting = false;
    rebuild(service, server);
    note_edit(service, Edit::Kind::change, position, server);
    changed = true;
  }
  if (changed) rebuild(service);
  return changed;
}

// ---- Local addresses ----

namespace {

std::uint64_t random_seed() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

}  // namespace

absl::Status Services::check_place(const ServiceKey& key) const {
  if (!takes_local_ports(key) || !pools_.addresses().contains(key.address)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      key.address.to_string(), " is a local address, whose ports from ", kFirstLocalPort, " to ",
      kLastLocalPort, " fullnat uses: `weirctl delete local-address` frees it"));
}

absl::Status Services::check_local_addresses(const ServiceKey& key, const ServerSpec& spec) const {
  if (spec.mode != ForwardMode::fullnat || has_addresses(*pools_.of(key), spec.address)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("FullNAT needs ", spec.address.is_ipv4() ? "an IPv4" : "an IPv6",
                   " address of the director to send from: `weirctl add local-address ADDRESS` "
                   "first"));
}

void Services::set_local_ports(std::shared_ptr<const PortGroups> groups, std::uint64_t seed) {
  port_groups_ = std::move(groups);
  port_seed_ = seed;
}

// The tables say which ports are in use, so that nothing is lost with the former LocalPorts.
void Services::give_local_addresses(ServiceRecord& service, Service& to) {
  const auto pool = pools_.of(service.spec.key);
  const bool changed = pool != service.local_addresses;
  service.local_addresses = pool;
  if (changed && !(pool->ipv4.empty() && pool->ipv6.empty())) {
    const OwnerMap& owners = *workers_.front()->owners;
    if (port_groups_ == nullptr) {
      set_local_ports(std::make_shared<const PortGroups>(owners, kFirstLocalPort, kLastLocalPort,
                                                         random_seed()),
                      random_seed());
    }
    service.local_ports = std::make_shared<LocalPortsSet>(
        make_local_ports(owners, port_groups_, *pool, static_cast<unsigned>(workers_.size()),
                         next_random(port_seed_)));
  }
  to.local_addresses = service.local_addresses;
  to.local_ports = service.local_ports;
}

absl::Status Services::add_local_addresses(const AddressRange& range,
                                           const std::optional<ServiceKey>& service) {
  if (service && record(*service) == nullptr) return no_service();
  LocalPools next = pools_;
  if (auto status = next.add(range, service); !status.ok()) return status;
  for (const auto& [key, other] : records_) {
    const bool inside = key.address.family() == range.first.family() &&
                        key.address >= range.first && key.address <= range.last;
    if (!inside || other->removed || !takes_local_ports(key)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(key.address.to_string(), " has a service at port ", key.port,
                     ", which is among the ports that fullnat would use: take another address"));
  }
  adopt_pools(std::move(next));
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
}

absl::Status Services::delete_local_addresses(const AddressRange& range,
                                              const std::optional<ServiceKey>& service) {
  LocalPools next = pools_;
  if (auto status = next.remove(range, service); !status.ok()) return status;
  for (const auto& [key, other] : records_) {
    const std::shared_ptr<const LocalAddresses> pool = next.of(key);
    for (const auto& server : other->servers) {
      if (server->spec.mode != ForwardMode::fullnat) continue;
      if (has_addresses(*pool, server->spec.address)) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("the real server ", server->spec.address.to_string(),
                       " would have no local address left: add another one first"));
    }
  }
  adopt_pools(std::move(next));
  publish();
  if (listener_) listener_();
  return absl::OkStatus();
}

// Connections keep the address that they have: it stays ours until none is left.
void Services::adopt_pools(LocalPools next) {
  const std::set<IpAddress> before = pools_.addresses();
  const std::set<IpAddress> after = next.addresses();
  std::vector<IpAddress> gone;
  std::set_difference(before.begin(), before.end(), after.begin(), after.end(),
                      std::back_inserter(gone));
  for (const IpAddress& address : gone) {
    leaving_addresses_[address] = version_ + 1;
    unseen_addresses_.erase(address);
  }
  for (const IpAddress& address : after) leaving_addresses_.erase(address);
  pools_ = std::move(next);
  index_stale_ = index_stale_ || before != after;
  for (const auto& [key, service] : records_) {
    if (service->published->local_addresses != pools_.of(key)) rebuild(*service);
  }
}

std::vector<LocalAddressListing> Services::local_addresses() const {
  std::vector<LocalAddressListing> listings;
  for (const auto& [owner, ranges] : pools_.ranges()) {
    for (const AddressRange& range : ranges) {
      LocalAddressListing listing{.service = owner, .range = range};
      for (const IpAddress& address : addresses_of(range)) {
        ++listing.count;
        if (!surroundings_.owns(address)) ++listing.not_owned;
      }
      listings.push_back(std::move(listing));
    }
  }
  return listings;
}

// ---- Rules for marks ----

void Services::set_ports(std::vector<std::string> names, std::size_t mark_rules) {
  port_names_ = std::move(names);
  most_mark_rules_ = std::min(mark_rules, MarkRules::kMax);
}

absl::StatusOr<MarkRuleSpec> Services::checked(MarkRuleSpec spec) const {
  MarkRule& rule = spec.rule;
  for (auto* prefix : {&rule.from, &rule.to}) {
    if (*prefix) (*prefix)->address = (*prefix)->address.masked((*prefix)->length);
  }
  if (rule.from && rule.to && rule.from->address.family() != rule.to->address.family()) {
    return absl::InvalidArgumentError("`from` and `to` of a rule are of one address family");
  }
  const bool with_ports = !rule.protocol || rule.protocol == Protocol::tcp ||
                          rule.protocol == Protocol::udp || rule.protocol == Protocol::sctp;
  if (!with_ports) {
    return absl::InvalidArgumentError("services carry tcp, udp and sctp: mark one of these");
  }
  if (rule.ports.first > rule.ports.last || rule.source_ports.first > rule.source_ports.last) {
    return absl::InvalidArgumentError("a range of ports begins with the lower one");
  }
  rule.on_port.reset();
  if (spec.on.empty()) return spec;
  const auto named = std::find(port_names_.begin(), port_names_.end(), spec.on);
  if (named == port_names_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("weir has no port '", spec.on,
                                                   "': name it as the option --port of weir does"));
  }
  rule.on_port = static_cast<std::uint16_t>(named - port_names_.begin());
  return spec;
}

absl::Status Services::add_mark_rule(const MarkRuleSpec& rule, std::optional<std::uint32_t> at) {
  const absl::StatusOr<MarkRuleSpec> right = checked(rule);
  if (!right.ok()) return right.status();
  if (mark_rules_.size() >= most_mark_rules_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "there is room for ", most_mark_rules_, " rules",
        most_mark_rules_ < MarkRules::kMax ? " while a port is a kernel interface" : "",
        ": delete one first"));
  }
  const std::size_t number = at.value_or(static_cast<std::uint32_t>(mark_rules_.size() + 1));
  if (number < 1 || number > mark_rules_.size() + 1) {
    return absl::InvalidArgumentError(absl::StrCat("a rule goes to a place from 1 to ",
                                                   mark_rules_.size() + 1, ", not ", number));
  }
  std::vector<MarkRuleSpec> rules = mark_rules_;
  rules.insert(rules.begin() + (static_cast<std::ptrdiff_t>(number) - 1), *right);
  change_mark_rules(std::move(rules));
  return absl::OkStatus();
}

absl::Status Services::delete_mark_rule(std::uint32_t number) {
  if (number < 1 || number > mark_rules_.size()) {
    return absl::NotFoundError(absl::StrCat("there is no rule ", number));
  }
  std::vector<MarkRuleSpec> rules = mark_rules_;
  rules.erase(rules.begin() + static_cast<std::ptrdiff_t>(number) - 1);
  change_mark_rules(std::move(rules));
  return absl::OkStatus();
}

void Services::change_mark_rules(std::vector<MarkRuleSpec> specs) {
  mark_rules_ = std::move(specs);
  std::vector<MarkRule> rules;
  for (const MarkRuleSpec& spec : mark_rules_) rules.push_back(spec.rule);
  marks_ = std::make_shared<const MarkRules>(rules);
  publish();
  if (listener_) listener_();
}

// ---- What XDP steers ----

std::vector<SteeringKey> Services::steered_services() const {
  std::vector<SteeringKey> keys;
  for (const auto& [key, service] : records_) {
    if (service->local && key.fwmark == 0) keys.push_back({key.protocol, key.address, key.port});
  }
  return keys;
}

std::vector<SteeringKey> Services::reply_sources(bool Server::*kind) const {
  std::vector<SteeringKey> keys;
  for (const auto& [key, service] : records_) {
    if (!service->local) continue;
    for (const auto* list : {&service->servers, &service->trash}) {
      for (const auto& server : *list) {
        if (!((*server).*kind)) continue;
        for (const Protocol protocol : reply_protocols(key)) {
          keys.push_back({protocol, server->spec.address, reply_port(*service, *server)});
        }
      }
    }
  }
  return keys;
}

std::vector<SteeringKey> Services::steered_servers() const {
  return reply_sources(&Server::replies_to_clients);
}

std::vector<SteeringKey> Services::steered_fullnat_servers() const {
  return reply_sources(&Server::replies_to_local_addresses);
}

std::vector<IpAddress> Services::steered_tunnel_servers() const {
  std::vector<IpAddress> addresses;
  for (const auto& [key, service] : records_) {
    for (const auto& server : service->servers) {
      if (server->spec.mode == ForwardMode::tun) addresses.push_back(server->spec.address);
    }
  }
  return addresses;
}

std::vector<IpAddress> Services::steered_local_addresses() const {
  const std::set<IpAddress> pools = pools_.addresses();
  std::vector<IpAddress> addresses(pools.begin(), pools.end());
  for (const auto& [address, version] : leaving_addresses_) addresses.push_back(address);
  return addresses;
}

std::vector<IpAddress> Services::steered_ftp_addresses() const {
  std::vector<IpAddress> addresses;
  for (const auto& [key, service] : records_) {
    const bool ftp = key.protocol == Protocol::tcp && key.port == kFtp;
    const bool persistent = service->spec.persistence_timeout != 0;
    if (ftp && persistent && service->local) addresses.push_back(key.address);
  }
  return addresses;
}

std::vector<SteeringRule> Services::steered_mark_rules() const {
  const auto served = [this](std::uint32_t mark, const IpAddress& family) {
    const ServiceKey key{.protocol = Protocol::ip, .address = family, .port = 0, .fwmark = mark};
    return mark != 0 && records_.contains(key);
  };
  std::vector<SteeringRule> rules;
  for (const MarkRuleSpec& spec : mark_rules_) {
    rules.push_back({.rule = spec.rule,
                     .ipv4 = served(spec.rule.mark, IpAddress(Ipv4Address{})),
                     .ipv6 = served(spec.rule.mark, IpAddress(Ipv6Address{}))});
  }
  return rules;
}

}  // namespace weir
