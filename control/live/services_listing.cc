// SPDX-License-Identifier: Apache-2.0
// The part of Services that counts and tells.
#include <algorithm>
#include <utility>

#include "control/live/services.h"
#include "control/model/settings_table.h"

namespace weir {
namespace {

std::string state_name(Protocol protocol, std::uint8_t state) {
  if (protocol == Protocol::tcp) return std::string(kTcpStateNames[state]);
  return protocol == Protocol::sctp ? std::string(kSctpStateNames[state]) : "UDP";
}

Totals totals_of(const ServerCounters& counters) {
  return {counters.connections.read(), counters.packets_in.read(), counters.packets_out.read(),
          counters.bytes_in.read(), counters.bytes_out.read()};
}

absl::Status no_service() {
  return absl::FailedPreconditionError("no such service: add it first with ipvsadm -A");
}

}  // namespace

// ---- Counting ----

Totals Services::slot_totals(ServerSlot slot) const {
  Totals sum;
  for (const WorkerState* worker : workers_) {
    sum += totals_of(worker->own_statistics->servers[slot]);
  }
  return sum;
}

Totals Services::totals(const Server& server) const {
  return slot_totals(server.slot) - server.origin;
}

Load Services::slot_load(ServerSlot slot) const {
  Load sum;
  for (const WorkerState* worker : workers_) {
    const Load load = worker->statistics[worker->index]->loads[slot].read();
    sum.active += load.active;
    sum.inactive += load.inactive;
  }
  return sum;
}

bool Services::has_connections(ServerSlot slot) const {
  return std::any_of(workers_.begin(), workers_.end(), [slot](const WorkerState* worker) {
    const ServerLoad& load = worker->statistics[worker->index]->loads[slot];
    return load.connections.read() != 0 || load.templates.read() != 0;
  });
}

void Services::restart_counting(Server& server) const {
  server.baseline = totals(server);
  server.estimator.restart(server.baseline);
}

// Since the service's slot was taken, whatever -Z has hidden since.
Totals Services::gross_totals(const ServiceRecord& service) const {
  Totals sum = service.departed;
  for (const auto* list : {&service.servers, &service.trash}) {
    for (const auto& server : *list) sum += totals(*server);
  }
  return sum;
}

ServerListing Services::listing_of(const Server& server) const {
  const Load load = slot_load(server.slot);
  ServerListing listing;
  listing.spec = server.spec;
  listing.is_local = server.published != nullptr && server.published->mode == ForwardMode::local;
  for (const WorkerState* worker : workers_) {
    const auto& loads = worker->statistics[worker->index]->loads;
    listing.persistent += loads[server.slot].templates.read();
  }
  listing.active = load.active;
  listing.inactive = load.inactive;
  listing.totals = totals(server) - server.baseline;
  listing.rates = server.estimator.rates();
  return listing;
}

// Without its real servers.
ServiceListing Services::listing_of(const ServiceRecord& service) const {
  ServiceListing listing;
  listing.spec = service.spec;
  listing.address_is_local = service.local;
  listing.options = list_options(service.options);
  listing.totals = gross_totals(service) - service.baseline;
  listing.rates = service.estimator.rates();
  return listing;
}

absl::Status Services::zero(const std::optional<ServiceKey>& key) {
  if (key && find_record(*key) == nullptr) return no_service();
  for (const auto& [other, service] : records_) {
    if (service->removed || (key && other != *key)) continue;
    service->baseline = gross_totals(*service);
    service->estimator.restart(service->baseline);
    for (const auto& server : service->servers) restart_counting(*server);
  }
  return absl::OkStatus();
}

// ---- Services and real servers ----

std::vector<ServiceListing> list_all(const LiveModel& model) {
  std::vector<ServiceListing> listings;
  ServiceCursor cursor;
  while (auto listing = model.list_services(cursor, ~std::size_t{0})) {
    listings.push_back(*std::move(listing));
  }
  return listings;
}

// Real servers are listed newest first, so that their order of addition tells which come next.
std::optional<ServiceListing> Services::list_services(ServiceCursor& cursor,
                                                      std::size_t at_most) const {
  constexpr std::uint64_t kNewest = ~std::uint64_t{0};
  auto at = order_.lower_bound(cursor.service);
  if (at == order_.end()) return std::nullopt;
  if (at->first != cursor.service) cursor.server = kNewest;
  const ServiceRecord& service = *at->second;
  ServiceListing listing = listing_of(service);
  auto server =
      std::partition_point(service.servers.begin(), service.servers.end(),
                           [&](const auto& each) { return each->added >= cursor.server; });
  for (; server != service.servers.end() && listing.servers.size() < at_most; ++server) {
    listing.servers.push_back(listing_of(**server));
  }
  const bool complete = server == service.servers.end();
  cursor = complete ? ServiceCursor{at->first + 1, kNewest}
                    : ServiceCursor{at->first, (*std::prev(server))->added};
  return listing;
}

absl::StatusOr<ServiceListing> Services::find(const ServiceKey& key) const {
  const ServiceRecord* service = find_record(key);
  if (service == nullptr) return no_service();
  ServiceListing listing = listing_of(*service);
  for (const auto& server : service->servers) listing.servers.push_back(listing_of(*server));
  return listing;
}

template <class Address>
std::optional<ConnectionListing> Services::connection_at(const ConnectionTable<Address>& table,
                                                         std::uint32_t index) const {
  const auto connection = table.read(index);
  if (!connection || connection->server_slot >= server_by_slot_.size()) return std::nullopt;
  if (connection->has(kCompanion)) return std::nullopt;
  const Server* server = server_by_slot_[connection->server_slot];
  if (server == nullptr) return std::nullopt;
  ConnectionListing row;
  if (connection->has(kTemplate)) {
    row.protocol = static_cast<Protocol>(connection->client_port.host());
    row.state = connection->state != 0 ? "ASSURED" : "NONE";
  } else {
    row.protocol = connection->protocol;
    row.client_port = connection->client_port.host();
    row.state = state_name(connection->protocol, connection->state);
  }
  const auto left = static_cast<std::int32_t>(connection->deadline - clock_());
  row.expires = static_cast<std::uint32_t>(std::max(left, 0)) / kTicksPerSecond;
  row.client = connection->client;
  row.virtual_address = connection->virtual_address;
  row.virtual_port = connection->virtual_port.host();
  row.server = server->spec.address;
  row.server_port = connection->server_port.host();
  return row;
}

// Positions of one worker: its IPv4 table, followed by its IPv6 table.
template <class Look>
bool Services::walk(ConnectionCursor& cursor, std::uint32_t at_most, Look&& look) const {
  for (std::uint32_t looked = 0; looked < at_most; ++looked) {
    if (cursor.worker == workers_.size()) return false;
    const WorkerState& worker = *workers_[cursor.worker];
    const std::uint32_t ipv4_end = worker.ipv4.capacity();
    const bool v4 = cursor.position < ipv4_end;
    const std::uint32_t index = v4 ? cursor.position : cursor.position - ipv4_end;
    if (v4 && index >= worker.ipv4.high_water()) {
      cursor.position = ipv4_end;
    } else if (!v4 && index >= worker.ipv6.high_water()) {
      ++cursor.worker;
      cursor.position = 0;
    } else {
      if (v4) {
        look(worker.ipv4, index);
      } else {
        look(worker.ipv6, index);
      }
      ++cursor.position;
    }
  }
  return true;
}

bool Services::visit_connections(ConnectionCursor& cursor, std::uint32_t at_most,
                                 const std::function<void(const ConnectionListing&)>& visit) const {
  return walk(cursor, at_most, [&](const auto& table, std::uint32_t index) {
    if (const auto row = connection_at(table, index)) visit(*row);
  });
}

// One slice of the walk over all connections that ends with the addresses that none of them has.
bool Services::collect_local_addresses() {
  constexpr std::uint32_t kPlaces = 2048;
  if (leaving_addresses_.empty()) return false;
  if (sweep_.worker == 0 && sweep_.position == 0) {
    unseen_addresses_.clear();
    for (const auto& [address, version] : leaving_addresses_) {
      if (version <= oldest_in_use_) unseen_addresses_.insert(address);
    }
  }
  if (unseen_addresses_.empty()) return false;
  const bool more = walk(sweep_, kPlaces, [this](const auto& table, std::uint32_t index) {
    const auto connection = table.read(index);
    if (!connection || connection->mode() != ForwardMode::fullnat) return;
    // What is translated has its local end in the companion.
    if (!connection->has(kTranslated)) unseen_addresses_.erase(connection->local);
  });
  if (more) return false;
  sweep_ = {};
  for (const IpAddress& address : unseen_addresses_) {
    if (leaving_addresses_.erase(address) != 0) claims_.release_local_address(address);
  }
  const bool any = !std::exchange(unseen_addresses_, {}).empty();
  if (any) tell_pool_addresses();
  return any;
}

// ---- Workers, counters, settings ----

namespace {

std::uint64_t sum_of(const WorkerStatistics& statistics, bool (*counts)(Outcome)) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    if (counts(static_cast<Outcome>(i))) sum += statistics.outcomes[i].read();
  }
  return sum;
}

bool is_handed_over(Outcome outcome) {
  return outcome == Outcome::handed_to_owner || outcome == Outcome::handed_to_chooser;
}

}  // namespace

bool Services::visit_workers(WorkerCursor& cursor, std::uint32_t at_most,
                             const std::function<void(const WorkerListing&)>& visit) const {
  if (cursor.worker >= workers_.size()) return false;
  const WorkerState& worker = *workers_[cursor.worker];
  const WorkerStatistics& statistics = *worker.own_statistics;
  const auto slots = static_cast<std::uint32_t>(server_by_slot_.size());
  const std::uint32_t end = cursor.slot + std::min(at_most, slots - std::min(slots, cursor.slot));
  for (; cursor.slot < end; ++cursor.slot) {
    cursor.totals += totals_of(statistics.servers[cursor.slot]);
  }
  if (cursor.slot < slots) return true;
  WorkerListing row;
  row.worker = worker.index;
  row.busy = busy_[worker.index].per_cent();
  row.open = worker.ipv4.size() + worker.ipv6.size();
  row.capacity = worker.ipv4.capacity() + worker.ipv6.capacity();
  row.totals = cursor.totals;
  row.handed_over = sum_of(statistics, is_handed_over);
  row.to_kernel = sum_of(statistics, is_for_kernel);
  row.dropped = sum_of(statistics, is_dropped);
  visit(row);
  cursor = {.worker = cursor.worker + 1, .slot = 0, .totals = {}};
  return cursor.worker < workers_.size();
}

std::vector<NamedCounter> Services::counters() const {
  std::vector<NamedCounter> rows;
  for (std::size_t i = 1; i < kOutcomes; ++i) {
    std::uint64_t sum = 0;
    for (const WorkerState* worker : workers_) {
      sum += worker->own_statistics->outcomes[i].read();
    }
    rows.push_back({std::string(kOutcomeNames[i]), sum});
  }
  std::uint64_t given_up = 0;
  for (const WorkerState* worker : workers_) {
    given_up += worker->own_statistics->given_up.read();
  }
  rows.push_back({"connections_given_up", given_up});
  if (other_counters_) {
    for (NamedCounter& row : other_counters_()) rows.push_back(std::move(row));
  }
  return rows;
}

IpvsTimeouts Services::timeouts() const { return timeouts_of(config_.settings()); }

std::vector<SettingListing> Services::settings() const { return list_settings(config_.settings()); }

std::vector<LocalAddressListing> Services::local_addresses() const {
  std::vector<LocalAddressListing> listings;
  for (const auto& [owner, ranges] : config_.pools().ranges()) {
    for (const AddressRange& range : ranges) {
      LocalAddressListing listing{.service = owner, .range = range};
      for (const IpAddress& address : addresses_of(range)) {
        ++listing.count;
        if (!host_->owns(address)) ++listing.not_owned;
      }
      listings.push_back(std::move(listing));
    }
  }
  return listings;
}

}  // namespace weir
