// SPDX-License-Identifier: Apache-2.0
#include "control/model/director_config.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <absl/strings/str_cat.h>

#include "control/model/rules.h"
#include "control/model/settings_table.h"
#include "control/model/text_forms.h"
#include "schedulers/scheduler.h"

namespace weir {
namespace {

absl::Status no_service() {
  return absl::FailedPreconditionError("no such service: add it first with ipvsadm -A");
}

absl::Status no_server() { return absl::NotFoundError("the service has no such real server"); }

bool has_addresses(const LocalAddresses& pool, const IpAddress& for_address) {
  return for_address.is_ipv4() ? !pool.ipv4.empty() : !pool.ipv6.empty();
}

std::size_t position_of(const ServiceConfig& service, const IpAddress& address,
                        std::uint16_t port) {
  const auto found = std::find_if(
      service.servers.begin(), service.servers.end(),
      [&](const ServerSpec& server) { return server.address == address && server.port == port; });
  return static_cast<std::size_t>(found - service.servers.begin());
}

std::ptrdiff_t offset(std::size_t position) { return static_cast<std::ptrdiff_t>(position); }

}  // namespace

bool takes_local_ports(const ServiceKey& key) {
  const bool among_them = key.port >= kFirstLocalPort && key.port <= kLastLocalPort;
  return key.fwmark == 0 && (key.port == 0 || key.port == kFtp || among_them);
}

DirectorConfig::DirectorConfig(const DirectorConfig& other)
    : services_(other.services_),
      additions_(other.additions_),
      pools_(other.pools_),
      mark_rules_(other.mark_rules_),
      settings_(other.settings_),
      port_names_(other.port_names_),
      most_mark_rules_(other.most_mark_rules_) {}

absl::StatusOr<Change> DirectorConfig::apply(Change change) {
  return std::visit([this](auto&& each) { return carry_out(std::move(each)); }, std::move(change));
}

void DirectorConfig::begin_undoable(std::size_t changes) {
  undo_.reserve(changes);
  undoable_ = true;
}

bool DirectorConfig::undo(std::size_t at_most) {
  undoable_ = false;
  for (; at_most != 0 && !undo_.empty(); --at_most) {
    undo_.back()(*this);
    undo_.pop_back();
  }
  return !undo_.empty();
}

bool DirectorConfig::keep(std::size_t at_most) {
  undoable_ = false;
  for (; at_most != 0 && !undo_.empty(); --at_most) undo_.pop_back();
  return !undo_.empty();
}

void DirectorConfig::set_ports(std::vector<std::string> names, std::size_t most_mark_rules) {
  port_names_ = std::move(names);
  most_mark_rules_ = std::min(most_mark_rules, MarkRules::kMax);
}

ServiceConfig* DirectorConfig::find(const ServiceKey& key) {
  const auto found = services_.find(key);
  return found == services_.end() ? nullptr : &found->second;
}

// ---- Services ----

absl::StatusOr<Change> DirectorConfig::carry_out(AddService change) {
  const ServiceKey& key = change.spec.key;
  if (services_.contains(key)) return absl::AlreadyExistsError("the service exists already");
  if (auto status = check_service(change.spec); !status.ok()) return status;
  if (auto status = check_place(key); !status.ok()) return status;
  ServiceConfig& service = services_[key];
  service.spec = change.spec;
  service.added = ++additions_;
  note_undo([key](DirectorConfig& config) { config.services_.erase(key); });
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(EditService change) {
  ServiceConfig* const service = find(change.spec.key);
  if (service == nullptr) return no_service();
  if (auto status = check_service(change.spec); !status.ok()) return status;
  note_undo([before = std::exchange(service->spec, change.spec)](DirectorConfig& config) {
    config.find(before.key)->spec = before;
  });
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(DeleteService change) {
  auto node = services_.extract(change.key);
  if (node.empty()) return no_service();
  note_undo([node = std::move(node)](DirectorConfig& config) mutable {
    config.services_.insert(std::move(node));
  });
  if (pools_.ranges().contains(change.key)) {
    LocalPools pools = pools_;
    pools.forget(change.key);
    replace_pools(std::move(pools));
  }
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(DeleteAllServices change) {
  LocalPools pools = pools_;
  for (const auto& [key, service] : services_) pools.forget(key);
  replace_pools(std::move(pools));
  note_undo([services = std::exchange(services_, {})](DirectorConfig& config) mutable {
    config.services_ = std::move(services);
  });
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(SetServiceOption change) {
  ServiceConfig* const service = find(change.service);
  if (service == nullptr) return no_service();
  ServiceOptions next = service->options;
  if (auto status = set_option(next, change.option); !status.ok()) return status;
  if (auto status = check_options_of(change.service, next); !status.ok()) return status;
  if (next.table_size != service->options.table_size) {
    const SchedulerOptions scheduler{.name = service->spec.scheduler,
                                     .flags = service->spec.scheduler_flags,
                                     .table_size = next.table_size};
    if (const auto problem = check_options(scheduler)) return absl::InvalidArgumentError(*problem);
  }
  note_undo([key = change.service, before = std::exchange(service->options, next)](
                DirectorConfig& config) { config.find(key)->options = before; });
  return change;
}

// ---- Real servers ----

absl::StatusOr<Change> DirectorConfig::carry_out(AddServer change) {
  ServiceConfig* const service = find(change.service);
  if (service == nullptr) return no_service();
  const ServiceKey& key = change.service;
  if (auto status = check_server(key, change.spec); !status.ok()) return status;
  if (auto status = check_local_addresses(key, change.spec); !status.ok()) return status;
  change.spec = with_port(key, change.spec);
  if (position_of(*service, change.spec.address, change.spec.port) != service->servers.size()) {
    return absl::AlreadyExistsError("the service has this real server already");
  }
  service->servers.push_back(change.spec);
  note_undo([key](DirectorConfig& config) { config.find(key)->servers.pop_back(); });
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(EditServer change) {
  ServiceConfig* const service = find(change.service);
  if (service == nullptr) return no_service();
  if (auto status = check_server(change.service, change.spec); !status.ok()) return status;
  if (auto status = check_local_addresses(change.service, change.spec); !status.ok()) return status;
  change.spec = with_port(change.service, change.spec);
  const std::size_t position = position_of(*service, change.spec.address, change.spec.port);
  if (position == service->servers.size()) return no_server();
  note_undo([key = change.service, position,
             before = std::exchange(service->servers[position], change.spec)](
                DirectorConfig& config) { config.find(key)->servers[position] = before; });
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(DeleteServer change) {
  ServiceConfig* const service = find(change.service);
  if (service == nullptr) return no_service();
  std::vector<ServerSpec>& servers = service->servers;
  std::size_t position = position_of(*service, change.address, change.port);
  if (position == servers.size()) {
    // Real servers that have the service's port may be named by another one.
    position = position_of(*service, change.address, change.service.port);
    if (position == servers.size() || !keeps_port(servers[position].mode)) return no_server();
    change.port = change.service.port;
  }
  note_undo([key = change.service, position, before = servers[position]](DirectorConfig& config) {
    std::vector<ServerSpec>& list = config.find(key)->servers;
    list.insert(list.begin() + offset(position), before);
  });
  servers.erase(servers.begin() + offset(position));
  return change;
}

// ---- Local addresses ----

absl::Status DirectorConfig::check_place(const ServiceKey& key) const {
  if (!takes_local_ports(key) || !pools_.contains(key.address)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      key.address.to_string(), " is a local address, whose ports from ", kFirstLocalPort, " to ",
      kLastLocalPort, " fullnat uses: `weirctl delete local-address` frees it"));
}

absl::Status DirectorConfig::check_local_addresses(const ServiceKey& key,
                                                   const ServerSpec& spec) const {
  if (spec.mode != ForwardMode::fullnat || has_addresses(*pools_.of(key), spec.address)) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("FullNAT needs ", spec.address.is_ipv4() ? "an IPv4" : "an IPv6",
                   " address of the director to send from: `weirctl add local-address ADDRESS` "
                   "first"));
}

void DirectorConfig::replace_pools(LocalPools next) {
  ++pool_changes_;
  note_undo([before = std::exchange(pools_, std::move(next))](DirectorConfig& config) {
    config.pools_ = before;
    ++config.pool_changes_;
  });
}

absl::StatusOr<Change> DirectorConfig::carry_out(AddLocalAddresses change) {
  if (change.service && find(*change.service) == nullptr) return no_service();
  const AddressRange& range = change.range;
  LocalPools next = pools_;
  if (auto status = next.add(range, change.service); !status.ok()) return status;
  for (const auto& [key, other] : services_) {
    const bool inside = key.address.family() == range.first.family() &&
                        key.address >= range.first && key.address <= range.last;
    if (!inside || !takes_local_ports(key)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat(key.address.to_string(), " has a service at port ", key.port,
                     ", which is among the ports that fullnat would use: take another address"));
  }
  replace_pools(std::move(next));
  return change;
}

// Whether each fullnat real server would still have an address to be reached from.
absl::Status DirectorConfig::check_pools(const LocalPools& next) const {
  for (const auto& [key, service] : services_) {
    const std::shared_ptr<const LocalAddresses> pool = next.of(key);
    if (pool == pools_.of(key)) continue;
    for (const ServerSpec& server : service.servers) {
      const bool fullnat = server.mode == ForwardMode::fullnat;
      if (!fullnat || has_addresses(*pool, server.address)) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("the real server ", server.address.to_string(),
                       " would have no local address left: add another one first"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Change> DirectorConfig::carry_out(DeleteLocalAddresses change) {
  LocalPools next = pools_;
  if (auto status = next.remove(change.range, change.service); !status.ok()) return status;
  if (auto status = check_pools(next); !status.ok()) return status;
  replace_pools(std::move(next));
  return change;
}

// ---- Rules for marks ----

absl::StatusOr<MarkRuleSpec> DirectorConfig::checked(MarkRuleSpec spec) const {
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

void DirectorConfig::replace_mark_rules(std::vector<MarkRuleSpec> next) {
  note_undo([before = std::exchange(mark_rules_, std::move(next))](DirectorConfig& config) {
    config.mark_rules_ = before;
  });
}

absl::StatusOr<Change> DirectorConfig::carry_out(AddMarkRule change) {
  absl::StatusOr<MarkRuleSpec> right = checked(change.rule);
  if (!right.ok()) return right.status();
  if (mark_rules_.size() >= most_mark_rules_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "there is room for ", most_mark_rules_, " rules",
        most_mark_rules_ < MarkRules::kMax ? " while a port is a kernel interface" : "",
        ": delete one first"));
  }
  const std::size_t number = change.at.value_or(static_cast<std::uint32_t>(mark_rules_.size() + 1));
  if (number < 1 || number > mark_rules_.size() + 1) {
    return absl::InvalidArgumentError(absl::StrCat("a rule goes to a place from 1 to ",
                                                   mark_rules_.size() + 1, ", not ", number));
  }
  change.rule = *right;
  std::vector<MarkRuleSpec> rules = mark_rules_;
  rules.insert(rules.begin() + offset(number - 1), *std::move(right));
  replace_mark_rules(std::move(rules));
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(DeleteMarkRule change) {
  if (change.number < 1 || change.number > mark_rules_.size()) {
    return absl::NotFoundError(absl::StrCat("there is no rule ", change.number));
  }
  std::vector<MarkRuleSpec> rules = mark_rules_;
  rules.erase(rules.begin() + offset(change.number - 1));
  replace_mark_rules(std::move(rules));
  return change;
}

// ---- Time-outs and settings ----

void DirectorConfig::replace_settings(const Settings& next) {
  note_undo([before = std::exchange(settings_, next)](DirectorConfig& config) {
    config.settings_ = before;
  });
}

absl::StatusOr<Change> DirectorConfig::carry_out(SetTimeouts change) {
  if (auto status = check_timeouts(change.timeouts); !status.ok()) return status;
  Settings next = settings_;
  set_timeouts(next, change.timeouts);
  replace_settings(next);
  return change;
}

absl::StatusOr<Change> DirectorConfig::carry_out(SetSetting change) {
  Settings next = settings_;
  if (auto status = set_setting(next, change.name, change.value); !status.ok()) return status;
  replace_settings(next);
  return change;
}

}  // namespace weir
