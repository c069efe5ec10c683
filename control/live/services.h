// SPDX-License-Identifier: Apache-2.0
// The live ServiceTable: control's model of services and real servers, and its publication.
//
// A real server that is removed keeps its slot while connections refer to it, and an equal one that
// is added again takes it back with its counts, as IPVS's trash does; so does a removed service.
// Thread: the control thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_set.h>

#include "control/model/local_pools.h"
#include "control/model/service_options.h"
#include "control/model/service_table.h"
#include "dataplane/io/publisher.h"
#include "dataplane/path/packet_path.h"
#include "dataplane/table/local_ports.h"
#include "dataplane/xdp/steered.h"

namespace weir {

// IPVS's rate estimator for one set of counters (ip_vs_est.c), fed every two seconds.
class RateEstimator {
 public:
  static constexpr int kIntervalSeconds = 2;
  // From `totals` on, at rates of zero.
  void restart(const Totals& totals) {
    last_ = totals;
    averages_ = {};
  }
  void sample(const Totals& totals);
  Rates rates() const;

 private:
  Totals last_;
  // Connections and packets with 10, bytes with 5 fractional bits.
  std::array<std::uint64_t, 5> averages_{};
};

// The share of its time that a worker was busy with packets, fed every kIntervalSeconds.
class BusyEstimator {
 public:
  void sample(std::uint64_t busy_cycles, std::uint64_t cycles) {
    const std::uint64_t passed = cycles - std::exchange(cycles_, cycles);
    const std::uint64_t busy = busy_cycles - std::exchange(busy_cycles_, busy_cycles);
    per_cent_ = passed == 0 ? 0 : static_cast<std::uint32_t>(100 * busy / passed);
  }
  std::uint32_t per_cent() const { return per_cent_; }

 private:
  std::uint64_t busy_cycles_ = 0;
  std::uint64_t cycles_ = 0;
  std::uint32_t per_cent_ = 0;
};

class Services final : public ServiceTable {
 public:
  static constexpr std::uint32_t kMaxServers = 131072;
  static constexpr std::uint32_t kMaxServices = 65536;

  // The workers' clock, in ticks.
  using Clock = std::uint32_t (*)();
  // `workers` outlive the Services. Publishes an empty Snapshot at once.
  Services(Publisher& publisher, std::span<WorkerState* const> workers, Clock clock);
  ~Services() override;

  // What the host's network gives: ways, own addresses, the ports' MACs. Publishes what changed.
  struct Surroundings {
    std::shared_ptr<const Routes> routes;
    std::shared_ptr<const PortAddresses> ports;
    std::function<bool(const IpAddress&)> owns;
  };
  void set_surroundings(Surroundings surroundings);

  // Names of weir's ports, by number, for rules that are for one of them; and how many rules can
  // be, where a port's steering cannot take all that the workers can.
  void set_ports(std::vector<std::string> names, std::size_t mark_rules);

  // Which ports of local addresses connections take, in an order that is known. Without this they
  // are drawn at random.
  void set_local_ports(std::shared_ptr<const PortGroups> groups, std::uint64_t seed);

  // Called after services, real servers or the state of VIPs changed.
  void on_change(std::function<void()> listener) { listener_ = std::move(listener); }
  // What is counted elsewhere and belongs among counters().
  using Counted = std::vector<std::pair<std::string, std::uint64_t>>;
  void count_also(std::function<Counted()> others) { other_counters_ = std::move(others); }
  // Called with a sentence for the log.
  void on_notice(std::function<void(const std::string&)> notice) { notice_ = std::move(notice); }

  // What XDP steers to the workers; removed services, servers and local addresses stay as long as
  // their connections.
  std::vector<SteeringKey> steered_services() const;
  std::vector<SteeringKey> steered_servers() const;
  std::vector<SteeringKey> steered_fullnat_servers() const;
  std::vector<IpAddress> steered_tunnel_servers() const;
  std::vector<IpAddress> steered_local_addresses() const;
  // Where data connections of FTP go, beside the service itself.
  std::vector<IpAddress> steered_ftp_addresses() const;
  std::vector<SteeringRule> steered_mark_rules() const;
  // Addresses of all real servers, for the neighbours that are kept fresh.
  std::vector<IpAddress> server_addresses() const;

  // Frees slots and memory that nobody refers to any more. Call it several times a second.
  void housekeeping();
  // Call it every RateEstimator::kIntervalSeconds.
  void estimate_rates();

  absl::Status add_service(const ServiceSpec& spec) override;
  absl::Status edit_service(const ServiceSpec& spec) override;
  absl::Status delete_service(const ServiceKey& key) override;
  absl::Status flush() override;
  absl::Status add_server(const ServiceKey& key, const ServerSpec& spec) override;
  absl::Status edit_server(const ServiceKey& key, const ServerSpec& spec) override;
  absl::Status delete_server(const ServiceKey& key, const IpAddress& address,
                             std::uint16_t port) override;
  absl::Status set_service_option(const ServiceKey& key, const ServiceOption& option) override;
  absl::Status add_local_addresses(const AddressRange& range,
                                   const std::optional<ServiceKey>& service) override;
  absl::Status delete_local_addresses(const AddressRange& range,
                                      const std::optional<ServiceKey>& service) override;
  std::vector<LocalAddressListing> local_addresses() const override;
  absl::Status add_mark_rule(const MarkRuleSpec& rule, std::optional<std::uint32_t> at) override;
  absl::Status delete_mark_rule(std::uint32_t number) override;
  std::vector<MarkRuleSpec> mark_rules() const override { return mark_rules_; }
  std::vector<ServiceListing> list() const override;
  absl::StatusOr<ServiceListing> find(const ServiceKey& key) const override;
  bool visit_connections(ConnectionCursor& cursor, std::uint32_t at_most,
                         const std::function<void(const ConnectionListing&)>& visit) const override;
  absl::Status zero(const std::optional<ServiceKey>& key) override;
  IpvsTimeouts timeouts() const override;
  absl::Status set_timeouts(const IpvsTimeouts& timeouts) override;
  std::vector<WorkerListing> workers() const override;
  std::vector<std::pair<std::string, std::uint64_t>> counters() const override;
  std::vector<Setting> settings() const override;
  absl::Status set_setting(const std::string& name, const std::string& value) override;

 private:
  struct Server {
    ServerSpec spec;
    ServerSlot slot = 0;
    std::int32_t last_weight = 0;  // of its weights the last above 0, or that of its addition
    // Slow start: its weight grows from here on.
    bool starting = false;
    std::uint32_t start_tick = 0;
    bool available = true;
    // Replies of its connections pass because it is, or was, nat or fullnat; from all of its ports.
    bool replies_to_clients = false;
    bool replies_to_local_addresses = false;
    bool replies_from_all_ports = false;
    std::uint64_t removed_in = 0;  // the first version in which it is not available
    Totals origin;                 // of the slot's counters when the server took it
    Totals baseline;               // of totals() at the last -Z
    RateEstimator estimator;
    std::shared_ptr<const RealServer> published;
  };
  struct ServiceRecord {
    ServiceSpec spec;
    ServiceOptions options;
    ServiceSlot slot = 0;
    std::uint32_t generation = 0;
    std::uint64_t added = 0;  // order of addition
    bool removed = false;
    bool local = false;  // the VIP is an address of this host, or it goes by a mark
    std::vector<std::unique_ptr<Server>> servers;  // newest first
    std::vector<std::unique_ptr<Server>> trash;
    std::shared_ptr<SchedulerSet> schedulers;
    TableMaker tables;
    std::uint64_t first_edit = 0;
    std::vector<Edit> edits;
    // Made for `local_addresses`, and again when those change.
    std::shared_ptr<const LocalAddresses> local_addresses;
    std::shared_ptr<std::vector<LocalPorts>> local_ports;
    Totals departed;  // counted by servers whose slots are free again
    Totals baseline;
    RateEstimator estimator;
    std::shared_ptr<const Service> published;
  };
  using Records = std::map<ServiceKey, std::unique_ptr<ServiceRecord>>;

  // Look-ups.
  static absl::Status no_service();
  ServiceRecord* record(const ServiceKey& key) const;
  static std::size_t position_of(const ServiceRecord& service, const IpAddress& address,
                                 std::uint16_t port);
  bool is_own(const IpAddress& address) const;
  absl::Status check_place(const ServiceKey& key) const;
  absl::Status check_local_addresses(const ServiceKey& key, const ServerSpec& spec) const;
  // Changes of the model, each followed by publish().
  void replace_schedulers(ServiceRecord& service);
  // Slow start.
  void start_slowly(const ServiceRecord& service, Server& server);
  std::int32_t present_weight(const ServiceRecord& service, const Server& server) const;
  bool advance_slow_starts(ServiceRecord& service);
  Candidate candidate_of(const ServiceRecord& service, const Server& server) const;
  std::vector<Candidate> candidates_of(const ServiceRecord& service) const;
  static SchedulerOptions scheduler_options(const ServiceRecord& service);
  static std::shared_ptr<const LookupTable> table_of(ServiceRecord& service,
                                                     const std::vector<Candidate>& list);
  void note_edit(ServiceRecord& service, Edit::Kind kind, std::size_t position,
                 const Server& server);
  void rebuild(ServiceRecord& service);
  void give_local_addresses(ServiceRecord& service, Service& to);
  RealServer describe(const ServiceRecord& service, const Server& server) const;
  void warn_of_other_port(const ServiceRecord& service, const Server& server,
                          const RealServer& next) const;
  void rebuild(const ServiceRecord& service, Server& server);
  void retire(std::shared_ptr<const void> part);
  void remove_server(ServiceRecord& service, std::size_t position);
  void remove_service(ServiceRecord& service);
  std::unique_ptr<Server> take_back(ServiceRecord& service, const ServerSpec& spec);
  std::unique_ptr<Server> new_server(const ServerSpec& spec);
  void place_server(ServiceRecord& service, std::unique_ptr<Server> server);
  void change_thresholds(const Server& server, const ServerSpec& before);
  static void note_replies(const ServiceRecord& service, Server& server);
  void adopt_pools(LocalPools next);
  void change_mark_rules(std::vector<MarkRuleSpec> rules);
  absl::StatusOr<MarkRuleSpec> checked(MarkRuleSpec rule) const;
  void refresh_ways(ServiceRecord& service);
  void refresh_ownership();
  // Where replies of a server come from: its port, 0 for all of them, and the protocols.
  static std::uint16_t reply_port(const ServiceRecord& service, const Server& server);
  static std::span<const Protocol> reply_protocols(const ServiceKey& key);
  // Of servers whose `kind` is set.
  std::vector<SteeringKey> reply_sources(bool Server::*kind) const;
  static void add_reply_sources(ServiceIndex& index, const ServiceRecord& service,
                                const Server& server);
  void rebuild_index();
  void publish();
  void forget_replayed_edits();
  bool collect_trash(ServiceRecord& service);
  bool collect_service(ServiceRecord& service);
  bool collect_local_addresses();
  void change_settings(const Settings& settings);
  // Counting.
  Totals slot_totals(ServerSlot slot) const;
  Totals totals(const Server& server) const;
  Load slot_load(ServerSlot slot) const;
  bool has_connections(ServerSlot slot) const;
  void restart_counting(Server& server) const;
  Totals gross_totals(const ServiceRecord& service) const;
  ServerListing listing_of(const Server& server) const;
  ServiceListing listing_of(const ServiceRecord& service) const;
  // Calls look(table, index) for the next `at_most` places of the tables; false: that was the end.
  template <class Look>
  bool walk(ConnectionCursor& cursor, std::uint32_t at_most, Look&& look) const;
  template <class Address>
  std::optional<ConnectionListing> connection_at(const ConnectionTable<Address>& table,
                                                 std::uint32_t index) const;

  Publisher& publisher_;
  std::span<WorkerState* const> workers_;
  Clock clock_;
  Surroundings surroundings_;
  std::function<void()> listener_;
  std::function<void(const std::string&)> notice_;
  std::function<Counted()> other_counters_;

  Records records_;
  std::uint64_t additions_ = 0;
  std::vector<ServiceRecord*> record_by_slot_;
  std::vector<std::uint32_t> service_generations_;
  std::vector<ServiceSlot> free_services_;
  std::vector<std::uint32_t> server_generations_;
  std::vector<ServerSlot> free_servers_;
  std::vector<const Service*> service_table_;
  std::vector<const RealServer*> server_table_;

  std::shared_ptr<const ServiceIndex> index_;
  bool index_stale_ = true;
  std::vector<BusyEstimator> busy_;  // by worker
  std::shared_ptr<const Settings> settings_;
  LocalPools pools_;
  // Local addresses that were taken away and may still have connections, with the first version in
  // which no new ones can come; the walk that looks for these, and those that it has not met.
  std::map<IpAddress, std::uint64_t> leaving_addresses_;
  ConnectionCursor sweep_;
  std::set<IpAddress> unseen_addresses_;
  std::vector<std::string> port_names_;
  std::size_t most_mark_rules_ = MarkRules::kMax;
  std::vector<MarkRuleSpec> mark_rules_;
  std::shared_ptr<const MarkRules> marks_ = std::make_shared<MarkRules>();
  std::shared_ptr<SharedServers> shared_;
  std::shared_ptr<const PortGroups> port_groups_;  // of the ports of local addresses
  std::uint64_t port_seed_ = 0;                    // of the next LocalPorts
  std::uint64_t version_ = 0;
  std::uint64_t last_departure_ = 0;  // Snapshot's
  std::uint64_t oldest_in_use_ = 0;   // no worker looks at a version before it
  absl::flat_hash_set<ServiceSlot> edited_;
  std::vector<std::shared_ptr<const void>> retired_;
  // Slots to be freed once no worker can see what they held.
  std::vector<ServiceSlot> leaving_services_;
  std::vector<ServerSlot> leaving_servers_;
};

}  // namespace weir
