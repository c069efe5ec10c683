// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_live_model.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <variant>

namespace weir {
namespace {

constexpr std::array<std::string_view, 13> kSchedulers = {
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh"};

absl::Status no_such_service() { return absl::FailedPreconditionError("No such service."); }

absl::Status check(const ServiceSpec& spec) {
  const bool known_engine = spec.persistence_engine.empty() || spec.persistence_engine == "sip";
  if (std::ranges::find(kSchedulers, spec.scheduler) == kSchedulers.end() || !known_engine)
    return absl::NotFoundError("No such scheduler or persistence engine.");
  return absl::OkStatus();
}

absl::Status check(const ServerSpec& spec) {
  if (spec.weight < 0 || spec.lower_threshold > spec.upper_threshold)
    return absl::OutOfRangeError("Weight or thresholds are out of range.");
  return absl::OkStatus();
}

bool is_unicast(const IpAddress& address) {
  return !address.is_unspecified() && !address.is_multicast() &&
         address != IpAddress::parse("255.255.255.255");
}

auto server_at(ServiceListing& service, const IpAddress& address, std::uint16_t port) {
  return std::ranges::find_if(service.servers, [&](const ServerListing& server) {
    return server.spec.address == address && server.spec.port == port;
  });
}

}  // namespace

ServiceListing* FakeLiveModel::service(const ServiceKey& key) {
  const auto at =
      std::ranges::find_if(services, [&](const auto& entry) { return entry.spec.key == key; });
  return at == services.end() ? nullptr : &*at;
}

namespace {

struct Perform {
  FakeLiveModel& model;
  absl::Status operator()(const AddService& c) { return model.add_service(c.spec); }
  absl::Status operator()(const EditService& c) { return model.edit_service(c.spec); }
  absl::Status operator()(const DeleteService& c) { return model.delete_service(c.key); }
  absl::Status operator()(const DeleteAllServices&) { return model.flush(); }
  absl::Status operator()(const AddServer& c) { return model.add_server(c.service, c.spec); }
  absl::Status operator()(const EditServer& c) { return model.edit_server(c.service, c.spec); }
  absl::Status operator()(const DeleteServer& c) {
    return model.delete_server(c.service, c.address, c.port);
  }
  absl::Status operator()(const SetServiceOption& c) {
    return model.set_service_option(c.service, c.option);
  }
  absl::Status operator()(const AddLocalAddresses& c) {
    return model.add_local_addresses(c.range, c.service);
  }
  absl::Status operator()(const DeleteLocalAddresses& c) {
    return model.delete_local_addresses(c.range, c.service);
  }
  absl::Status operator()(const AddMarkRule& c) { return model.add_mark_rule(c.rule, c.at); }
  absl::Status operator()(const DeleteMarkRule& c) { return model.delete_mark_rule(c.number); }
  absl::Status operator()(const SetTimeouts& c) { return model.set_timeouts(c.timeouts); }
  absl::Status operator()(const SetSetting& c) { return model.set_setting(c.name, c.value); }
};

}  // namespace

void FakeLiveModel::commit(Plan plan, Done done) {
  const std::vector<ServiceListing> before = services;
  CommitResult result;
  for (const Change& change : plan) {
    result.status = std::visit(Perform{*this}, change);
    if (!result.status.ok()) break;
    ++result.change;
  }
  if (!result.status.ok()) services = before;
  done(result);
}

absl::Status FakeLiveModel::add_service(const ServiceSpec& spec) {
  if (service(spec.key) != nullptr) return absl::AlreadyExistsError("The service exists.");
  if (absl::Status problem = check(spec); !problem.ok()) return problem;
  services.push_back({.spec = spec});
  return absl::OkStatus();
}

absl::Status FakeLiveModel::edit_service(const ServiceSpec& spec) {
  ServiceListing* entry = service(spec.key);
  if (entry == nullptr) return no_such_service();
  if (absl::Status problem = check(spec); !problem.ok()) return problem;
  entry->spec = spec;
  return absl::OkStatus();
}

absl::Status FakeLiveModel::delete_service(const ServiceKey& key) {
  if (service(key) == nullptr) return no_such_service();
  std::erase_if(services, [&](const auto& entry) { return entry.spec.key == key; });
  return absl::OkStatus();
}

absl::Status FakeLiveModel::flush() {
  services.clear();
  return absl::OkStatus();
}

absl::Status FakeLiveModel::add_server(const ServiceKey& key, const ServerSpec& spec) {
  ServiceListing* entry = service(key);
  if (entry == nullptr) return no_such_service();
  if (absl::Status problem = check(spec); !problem.ok()) return problem;
  if (server_at(*entry, spec.address, spec.port) != entry->servers.end())
    return absl::AlreadyExistsError("The real server exists.");
  if (!is_unicast(spec.address)) return absl::InvalidArgumentError("The address is not unicast.");
  entry->servers.insert(entry->servers.begin(), {.spec = spec});
  return absl::OkStatus();
}

absl::Status FakeLiveModel::edit_server(const ServiceKey& key, const ServerSpec& spec) {
  ServiceListing* entry = service(key);
  if (entry == nullptr) return no_such_service();
  if (absl::Status problem = check(spec); !problem.ok()) return problem;
  const auto at = server_at(*entry, spec.address, spec.port);
  if (at == entry->servers.end()) return absl::NotFoundError("No such real server.");
  at->spec = spec;
  return absl::OkStatus();
}

absl::Status FakeLiveModel::delete_server(const ServiceKey& key, const IpAddress& address,
                                          std::uint16_t port) {
  ServiceListing* entry = service(key);
  if (entry == nullptr) return no_such_service();
  const auto at = server_at(*entry, address, port);
  if (at == entry->servers.end()) return absl::NotFoundError("No such real server.");
  entry->servers.erase(at);
  return absl::OkStatus();
}

absl::Status FakeLiveModel::set_service_option(const ServiceKey& key, const ServiceOption& option) {
  ServiceListing* entry = service(key);
  if (entry == nullptr) return no_such_service();
  entry->options.push_back(option);
  return absl::OkStatus();
}

absl::Status FakeLiveModel::add_local_addresses(const AddressRange& range,
                                                const std::optional<ServiceKey>& key) {
  if (key && service(*key) == nullptr) return no_such_service();
  addresses_.push_back({.service = key, .range = range, .count = 2, .not_owned = 1});
  return absl::OkStatus();
}

absl::Status FakeLiveModel::delete_local_addresses(const AddressRange& range,
                                                   const std::optional<ServiceKey>& key) {
  const auto same = [&](const LocalAddressListing& entry) {
    return entry.range == range && entry.service == key;
  };
  if (std::erase_if(addresses_, same) == 0) return absl::NotFoundError("No such addresses.");
  return absl::OkStatus();
}

absl::Status FakeLiveModel::add_mark_rule(const MarkRuleSpec& rule,
                                          std::optional<std::uint32_t> at) {
  const std::size_t place = at ? *at - 1 : rules_.size();
  if (place > rules_.size()) return absl::InvalidArgumentError("No such place.");
  rules_.insert(rules_.begin() + static_cast<std::ptrdiff_t>(place), rule);
  return absl::OkStatus();
}

absl::Status FakeLiveModel::delete_mark_rule(std::uint32_t number) {
  if (number < 1 || number > rules_.size()) return absl::NotFoundError("No such rule.");
  rules_.erase(rules_.begin() + static_cast<std::ptrdiff_t>(number) - 1);
  return absl::OkStatus();
}

absl::StatusOr<ServiceListing> FakeLiveModel::find(const ServiceKey& key) const {
  for (const ServiceListing& entry : services)
    if (entry.spec.key == key) return entry;
  return no_such_service();
}

std::optional<ServiceListing> FakeLiveModel::list_services(ServiceCursor& cursor,
                                                           std::size_t at_most) const {
  if (cursor.service >= services.size()) return std::nullopt;
  ServiceListing part = services[cursor.service];
  const std::size_t first = cursor.server == ~std::uint64_t{0} ? 0 : cursor.server;
  part.servers.erase(part.servers.begin(),
                     part.servers.begin() + static_cast<std::ptrdiff_t>(first));
  if (part.servers.size() > at_most) {
    part.servers.resize(at_most);
    cursor.server = first + at_most;
  } else {
    cursor = {.service = cursor.service + 1};
  }
  return part;
}

bool FakeLiveModel::visit_connections(
    ConnectionCursor& cursor, std::uint32_t at_most,
    const std::function<void(const ConnectionListing&)>& visit) const {
  for (std::uint32_t i = 0; i < at_most && cursor.position < connections.size(); ++i)
    visit(connections[cursor.position++]);
  return cursor.position < connections.size();
}

absl::Status FakeLiveModel::zero(const std::optional<ServiceKey>& key) {
  if (key && service(*key) == nullptr) return no_such_service();
  for (ServiceListing& entry : services) {
    if (key && entry.spec.key != *key) continue;
    entry.totals = {};
    for (ServerListing& server : entry.servers) server.totals = {};
  }
  return absl::OkStatus();
}

absl::Status FakeLiveModel::set_timeouts(const IpvsTimeouts& timeouts) {
  if (timeouts.tcp != 0) timeouts_.tcp = timeouts.tcp;
  if (timeouts.tcp_fin != 0) timeouts_.tcp_fin = timeouts.tcp_fin;
  if (timeouts.udp != 0) timeouts_.udp = timeouts.udp;
  return absl::OkStatus();
}

absl::Status FakeLiveModel::start_sync_daemon(const SyncDaemonSpec& daemon) {
  for (const SyncDaemonSpec& running : daemons_)
    if (running.role == daemon.role) return absl::AlreadyExistsError("That daemon runs.");
  daemons_.push_back(daemon);
  return absl::OkStatus();
}

absl::Status FakeLiveModel::stop_sync_daemon(SyncDaemonSpec::Role role) {
  if (std::erase_if(daemons_, [role](const auto& daemon) { return daemon.role == role; }) == 0)
    return absl::FailedPreconditionError("That daemon does not run.");
  return absl::OkStatus();
}

bool FakeLiveModel::visit_workers(WorkerCursor&, std::uint32_t,
                                  const std::function<void(const WorkerListing&)>& visit) const {
  WorkerListing worker;
  worker.worker = 1;
  worker.busy = 7;
  worker.open = 3;
  worker.capacity = 1000;
  worker.totals = {.connections = 5, .packets_in = 18446744073709551615ULL};
  worker.dropped = 9;
  visit(worker);
  return false;
}

std::vector<NamedCounter> FakeLiveModel::counters() const {
  return {{"nat_to_server", 18446744073709551615ULL}, {"drop_no_route", 0}};
}

std::vector<SettingListing> FakeLiveModel::settings() const {
  return {{"sloppy_tcp", sloppy_tcp_, "any TCP segment opens a connection"}};
}

absl::Status FakeLiveModel::set_setting(const std::string& name, const std::string& value) {
  if (name != "sloppy_tcp") return absl::NotFoundError("There is only sloppy_tcp.");
  sloppy_tcp_ = value;
  return absl::OkStatus();
}

}  // namespace weir
