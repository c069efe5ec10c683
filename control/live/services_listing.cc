// SPDX-License-Identifier: Apache-2.0
// The part of Services that tells: counters, listings, timeouts and settings.
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "control/live/services.h"

namespace weir {
namespace {

// A setting: how it is read from, and written to, Settings.
struct SettingRow {
  const char* name;
  const char* help;
  std::uint32_t most;
  std::uint32_t (*get)(const Settings&);
  void (*set)(Settings&, std::uint32_t);
};

constexpr std::uint32_t kLongestExpiration = 365U * 24 * 60 * 60;

constexpr SettingRow kSettingRows[] = {
    {"conn_reuse_mode",
     "a SYN on a connection in TIME_WAIT or CLOSE starts a new one (1; 2: FIN_WAIT too, 0: never)",
     3, [](const Settings& s) { return s.conn_reuse_mode; },
     [](Settings& s, std::uint32_t v) { s.conn_reuse_mode = v; }},
    {"expire_nodest_conn",
     "packets of a removed real server's connections: 0 dropped, 1 scheduled anew", 1,
     [](const Settings& s) { return std::uint32_t{s.expire_nodest_conn}; },
     [](Settings& s, std::uint32_t v) { s.expire_nodest_conn = v != 0; }},
    {"expire_quiescent_template",
     "1: a persistent client of a real server of weight 0 is scheduled anew", 1,
     [](const Settings& s) { return std::uint32_t{s.expire_quiescent_template}; },
     [](Settings& s, std::uint32_t v) { s.expire_quiescent_template = v != 0; }},
    {"drop_entry",
     "half-open and idle connections are given up for room: 0 never, 1 or 2 while a table is "
     "nearly full, 3 always",
     3, [](const Settings& s) { return s.drop_entry; },
     [](Settings& s, std::uint32_t v) { s.drop_entry = v; }},
    {"lblc_expiration", "seconds that lblc remembers a destination that nobody asks for",
     kLongestExpiration, [](const Settings& s) { return s.lblc_expiration; },
     [](Settings& s, std::uint32_t v) { s.lblc_expiration = v; }},
    {"lblcr_expiration", "seconds after which lblcr takes the most loaded server out of a set",
     kLongestExpiration, [](const Settings& s) { return s.lblcr_expiration; },
     [](Settings& s, std::uint32_t v) { s.lblcr_expiration = v; }},
    {"cache_bypass",
     "1: packets of a fwmark service without a real server go on to where they are addressed", 1,
     [](const Settings& s) { return std::uint32_t{s.cache_bypass}; },
     [](Settings& s, std::uint32_t v) { s.cache_bypass = v != 0; }},
    {"pmtu_disc",
     "1: a packet too big that must not be fragmented is answered; 0: it is fragmented", 1,
     [](const Settings& s) { return std::uint32_t{s.pmtu_disc}; },
     [](Settings& s, std::uint32_t v) { s.pmtu_disc = v != 0; }},
    {"nat_icmp_send", "1: a real server's packet of no connection is answered: port unreachable", 1,
     [](const Settings& s) { return std::uint32_t{s.nat_icmp_send}; },
     [](Settings& s, std::uint32_t v) { s.nat_icmp_send = v != 0; }},
    {"sloppy_tcp", "1: any TCP segment but a RST opens a connection, not only a SYN", 1,
     [](const Settings& s) { return std::uint32_t{s.sloppy_tcp}; },
     [](Settings& s, std::uint32_t v) { s.sloppy_tcp = v != 0; }},
    {"sloppy_sctp", "1: any SCTP packet but an ABORT opens a connection, not only an INIT", 1,
     [](const Settings& s) { return std::uint32_t{s.sloppy_sctp}; },
     [](Settings& s, std::uint32_t v) { s.sloppy_sctp = v != 0; }},
};

std::string state_name(Protocol protocol, std::uint8_t state) {
  if (protocol == Protocol::tcp) return std::string(kTcpStateNames[state]);
  return protocol == Protocol::sctp ? std::string(kSctpStateNames[state]) : "UDP";
}

constexpr std::size_t kEstablished = static_cast<std::size_t>(TcpState::established);
constexpr std::size_t kFinWait = static_cast<std::size_t>(TcpState::fin_wait);

}  // namespace

namespace {

Totals totals_of(const ServerCounters& counters) {
  return {counters.connections.read(), counters.packets_in.read(), counters.packets_out.read(),
          counters.bytes_in.read(), counters.bytes_out.read()};
}

}  // namespace

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
  listing.is_local = server.published->mode == ForwardMode::local;
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

ServiceListing Services::listing_of(const ServiceRecord& service) const {
  ServiceListing listing;
  listing.spec = service.spec;
  listing.address_is_local = service.local;
  listing.options = list_options(service.options);
  for (const auto& server : service.servers) listing.servers.push_back(listing_of(*server));
  listing.totals = gross_totals(service) - service.baseline;
  listing.rates = service.estimator.rates();
  return listing;
}

std::vector<ServiceListing> Services::list() const {
  std::vector<const ServiceRecord*> order;
  for (const auto& [key, service] : records_) {
    if (!service->removed) order.push_back(service.get());
  }
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->added < b->added; });
  std::vector<ServiceListing> listings;
  for (const ServiceRecord* service : order) listings.push_back(listing_of(*service));
  return listings;
}

absl::StatusOr<ServiceListing> Services::find(const ServiceKey& key) const {
  const ServiceRecord* service = record(key);
  if (service == nullptr) return no_service();
  return listing_of(*service);
}

template <class Address>
std::optional<ConnectionListing> Services::connection_at(const ConnectionTable<Address>& table,
                                                         std::uint32_t index) const {
  const auto connection = table.read(index);
  if (!connection || connection->server_slot >= server_table_.size()) return std::nullopt;
  if (connection->has(kCompanion)) return std::nullopt;
  const RealServer* server = server_table_[connection->server_slot];
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
  row.server = server->address;
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
  for (const IpAddress& address : unseen_addresses_) leaving_addresses_.erase(address);
  return !std::exchange(unseen_addresses_, {}).empty();
}

absl::Status Services::zero(const std::optional<ServiceKey>& key) {
  if (key && record(*key) == nullptr) return no_service();
  for (const auto& [other, service] : records_) {
    if (service->removed || (key && other != *key)) continue;
    service->baseline = gross_totals(*service);
    service->estimator.restart(service->baseline);
    for (const auto& server : service->servers) restart_counting(*server);
  }
  return absl::OkStatus();
}

// ---- Timeouts, counters, settings ----

IpvsTimeouts Services::timeouts() const {
  return {settings_->tcp_timeouts[kEstablished], settings_->tcp_timeouts[kFinWait],
          settings_->udp_timeout};
}

void Services::change_settings(const Settings& settings) {
  settings_ = std::make_shared<Settings>(settings);
  publish();
}

absl::Status Services::set_timeouts(const IpvsTimeouts& timeouts) {
  Settings next = *settings_;
  if (timeouts.tcp != 0) next.tcp_timeouts[kEstablished] = timeouts.tcp;
  if (timeouts.tcp_fin != 0) next.tcp_timeouts[kFinWait] = timeouts.tcp_fin;
  if (timeouts.udp != 0) next.udp_timeout = timeouts.udp;
  change_settings(next);
  return absl::OkStatus();
}

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

std::vector<WorkerListing> Services::workers() const {
  std::vector<WorkerListing> rows;
  for (const WorkerState* worker : workers_) {
    const WorkerStatistics& statistics = *worker->own_statistics;
    WorkerListing row;
    row.worker = worker->index;
    row.busy = busy_[worker->index].per_cent();
    row.open = worker->ipv4.size() + worker->ipv6.size();
    row.capacity = worker->ipv4.capacity() + worker->ipv6.capacity();
    for (std::size_t slot = 0; slot < server_table_.size(); ++slot) {
      row.totals += totals_of(statistics.servers[slot]);
    }
    row.handed_over = sum_of(statistics, is_handed_over);
    row.to_kernel = sum_of(statistics, is_for_kernel);
    row.dropped = sum_of(statistics, is_dropped);
    rows.push_back(row);
  }
  return rows;
}

std::vector<std::pair<std::string, std::uint64_t>> Services::counters() const {
  std::vector<std::pair<std::string, std::uint64_t>> rows;
  for (std::size_t i = 1; i < kOutcomes; ++i) {
    std::uint64_t sum = 0;
    for (const WorkerState* worker : workers_) {
      sum += worker->own_statistics->outcomes[i].read();
    }
    rows.emplace_back(kOutcomeNames[i], sum);
  }
  std::uint64_t given_up = 0;
  for (const WorkerState* worker : workers_) {
    given_up += worker->own_statistics->given_up.read();
  }
  rows.emplace_back("connections_given_up", given_up);
  if (other_counters_) {
    for (auto& row : other_counters_()) rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<ServiceTable::Setting> Services::settings() const {
  std::vector<Setting> rows;
  for (const SettingRow& row : kSettingRows) {
    rows.push_back({row.name, absl::StrCat(row.get(*settings_)), row.help});
  }
  return rows;
}

absl::Status Services::set_setting(const std::string& name, const std::string& value) {
  std::string known;
  for (const SettingRow& row : kSettingRows) {
    absl::StrAppend(&known, known.empty() ? "" : ", ", row.name);
    if (name != row.name) continue;
    std::uint32_t number = 0;
    if (!absl::SimpleAtoi(value, &number) || number > row.most) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " takes a number from 0 to ", row.most, ", not '", value, "'"));
    }
    Settings next = *settings_;
    row.set(next, number);
    change_settings(next);
    return absl::OkStatus();
  }
  return absl::NotFoundError(
      absl::StrCat("there is no setting '", name, "'; the settings are: ", known));
}

}  // namespace weir
