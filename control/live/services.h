// SPDX-License-Identifier: Apache-2.0
// The live services and real servers: what has become of what is wanted (DirectorConfig), in slots
// that the workers see, and its publication.
//
//   commit(plan) ──► checked against the model, whole ──► records change, and what depends on them
//   is noted ──► the parts that changed are made ──► one publication ──► every worker has adopted
//   it ──► the steering program is told ──► done
//
// All of this advances by work(), in pieces of some microseconds. The cost of a change is that of
// what it touches, at any size of the whole.
//
// A real server that is removed keeps its slot while connections refer to it, and an equal one that
// is added again takes it back with its counts, as IPVS's trash does; so does a removed service.
// Thread: the control thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

#include "control/live/claims.h"
#include "control/live/estimators.h"
#include "control/live/health.h"
#include "control/live/host_network.h"
#include "control/live/live_model.h"
#include "control/model/director_config.h"
#include "dataplane/io/publisher.h"
#include "dataplane/path/packet_path.h"
#include "dataplane/table/local_ports.h"
#include "dataplane/xdp/steered.h"

namespace weir {

class Services : public LiveModel {
 public:
  using Clock = Health::Clock;
  // `workers` outlive the Services. Publishes an empty Snapshot at once.
  Services(Publisher& publisher, std::span<WorkerState* const> workers, Clock clock);
  ~Services() override;

  // ---- Surroundings ----

  // The host's network, which outlives the Services; without one there is none.
  void set_host(HostNetwork& host);
  // Its routes or ways have changed; what its addresses are; the MACs of weir's ports.
  void routes_changed();
  void addresses_changed(std::span<const IpPrefix> addresses);
  void ports_changed(std::shared_ptr<const PortAddresses> ports);
  // Addresses of this host, for the steering program.
  void host_address_comes(const IpAddress& address);
  void host_address_goes(const IpAddress& address);

  // DirectorConfig's.
  void set_ports(std::vector<std::string> names, std::size_t most_mark_rules) {
    config_.set_ports(std::move(names), most_mark_rules);
  }
  // Which ports of local addresses connections take, in an order that is known. Without this they
  // are drawn at random.
  void set_local_ports(std::shared_ptr<const PortGroups> groups, std::uint64_t seed);

  // The steering program: whether its maps have room for so many entries, and their changes. Each
  // call of `apply` is a piece; the last one of a publication comes with the rest.
  struct Steering {
    std::function<absl::Status(const SteeringSizes&)> check_room;
    std::function<void(std::span<const SteeringChange>, const SteeringConfig&)> apply;
  };
  void set_steering(Steering steering) { steering_ = std::move(steering); }
  // What is counted elsewhere and belongs among counters().
  using Counted = std::vector<NamedCounter>;
  void count_also(std::function<Counted()> others) { other_counters_ = std::move(others); }
  // Called with a sentence for the log.
  void on_notice(std::function<void(const std::string&)> notice) { notice_ = std::move(notice); }

  // ---- Work ----

  // Called when there is something for work() to do; without it a commit is done when it returns,
  // and does not wait for the workers.
  void on_work(std::function<void()> wake) { wake_ = std::move(wake); }
  // The next piece, of at most some tens of microseconds. False: nothing is left but to wait.
  bool work();
  // Whether work() waits for workers to adopt a version: call settle() about every 100 us.
  bool is_waiting() const { return publisher_.anything_retired(); }
  // Frees what no worker looks at any more. True: there is work.
  bool settle();
  // A piece of what recurs: slots and memory that nobody refers to are freed, weights grow. Call it
  // several times a second. True: there is more of it at once.
  bool housekeeping();
  // A kRateSlices-th of all rates; call it that often in RateEstimator::kIntervalSeconds. Or all
  // at once.
  static constexpr unsigned kRateSlices = 100;
  void estimate_some_rates();
  void estimate_rates() {
    for (unsigned i = 0; i < kRateSlices; ++i) estimate_some_rates();
  }

  // Real servers of fullnat that come and go, and the addresses that it sends from when they
  // change.
  struct FullnatWatch {
    std::function<void(const IpAddress&)> server_comes;
    std::function<void(const IpAddress&)> server_goes;
    std::function<void(std::vector<IpAddress>)> addresses_change;
  };
  void set_fullnat_watch(FullnatWatch watch) { fullnat_watch_ = std::move(watch); }

  const DirectorConfig& config() const { return config_; }
  const ServiceIndex& index() const { return *draft_.index; }
  SteeringSizes steering_sizes() const { return claims_.steering_sizes(); }
  // Slots that were ever taken by real servers, and by services.
  std::size_t server_slots() const { return server_by_slot_.size(); }
  std::size_t service_slots() const { return record_by_slot_.size(); }

  // ---- LiveModel ----

  void commit(Plan plan, Done done) override;
  std::optional<ServiceListing> list_services(ServiceCursor& cursor,
                                              std::size_t at_most) const override;
  absl::StatusOr<ServiceListing> find(const ServiceKey& key) const override;
  bool visit_connections(ConnectionCursor& cursor, std::uint32_t at_most,
                         const std::function<void(const ConnectionListing&)>& visit) const override;
  bool visit_workers(WorkerCursor& cursor, std::uint32_t at_most,
                     const std::function<void(const WorkerListing&)>& visit) const override;
  absl::Status zero(const std::optional<ServiceKey>& key) override;
  std::vector<LocalAddressListing> local_addresses() const override;
  std::vector<MarkRuleSpec> mark_rules() const override { return config_.mark_rules(); }
  IpvsTimeouts timeouts() const override;
  std::vector<SettingListing> settings() const override;
  std::vector<NamedCounter> counters() const override;

 private:
  // The first version with a change, while that has not been published.
  static constexpr std::uint64_t kNextVersion = ~std::uint64_t{0};

  // Where replies of a real server's connections go, and whether they come from all of its ports.
  struct ReplyKinds {
    bool to_clients = false;
    bool to_local_addresses = false;
    bool from_all_ports = false;
    friend bool operator==(const ReplyKinds&, const ReplyKinds&) = default;
  };
  // What a real server claims of its service's replies.
  struct ReplyClaim {
    std::uint16_t port = 0;
    bool to_clients = false;
    bool to_local_addresses = false;
    bool one_packet = false;
    bool tunnel = false;
    friend bool operator==(const ReplyClaim&, const ReplyClaim&) = default;
  };
  struct ServiceRecord;
  struct Server {
    ServiceRecord* service = nullptr;
    ServerSpec spec;
    ServerSlot slot = 0;
    WayIndex way = 0;
    std::uint64_t added = 0;       // order of addition
    PresentWeight weight;          // Health's
    std::int32_t last_weight = 0;  // of its weights the last above 0, or that of its addition
    bool available = true;
    bool is_dirty = false;
    ReplyKinds replies;  // of its connections, some of which may be older than its last edit
    ReplyClaim claim;
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
    bool is_claimed = false;
    bool claims_ftp_data = false;
    bool is_dirty = false;
    std::vector<std::unique_ptr<Server>> servers;  // newest first
    std::vector<std::unique_ptr<Server>> trash;
    std::shared_ptr<SchedulerSet> schedulers;  // null: to be made for the list as it will be
    TableMaker tables;
    std::uint64_t first_edit = 0;
    std::vector<Edit> edits;
    Totals departed;  // counted by servers whose slots are free again
    Totals baseline;
    RateEstimator estimator;
    std::shared_ptr<const Service> published;
  };
  using Records = std::map<ServiceKey, std::unique_ptr<ServiceRecord>>;

  // Slots and entries of the steering program that changes take, at most.
  struct Needs {
    std::size_t services = 0;
    std::size_t servers = 0;
    SteeringSizes steering;
    void add(const Change& change);
  };
  // A plan on its way.
  struct Commit {
    enum class Step : std::uint8_t { check, take_back, carry_out };
    Plan plan;
    Done done;
    Step step = Step::check;
    std::size_t next = 0;
    Plan changes;  // as DirectorConfig has them
    Needs needs;
    CommitResult result;
  };
  using Completion = std::function<void()>;
  // Of a version that not every worker has adopted.
  struct Publication {
    std::uint64_t version = 0;
    std::vector<Completion> done;
  };

  // services.cc: commits.
  void check_some(Commit& commit);
  void take_back_some(Commit& commit);
  void carry_out_some(Commit& commit);
  void finish(Commit& commit);
  void advance_commit();
  absl::Status check_room(const Needs& needs) const;
  absl::Status check_host(const Change& change) const;
  // The record that a change is about, which is there.
  ServiceRecord& record_of(const ServiceKey& key) const { return *records_.at(key); }
  ServiceRecord* find_record(const ServiceKey& key) const;
  static std::size_t position_of(const ServiceRecord& service, const IpAddress& address,
                                 std::uint16_t port);
  void carry_out(const AddService& change);
  void carry_out(const EditService& change);
  void carry_out(const DeleteService& change);
  void carry_out(const DeleteAllServices& change);
  void carry_out(const AddServer& change);
  void carry_out(const EditServer& change);
  void carry_out(const DeleteServer& change);
  void carry_out(const SetServiceOption& change);
  void carry_out(const AddLocalAddresses& change);
  void carry_out(const DeleteLocalAddresses& change);
  void carry_out(const AddMarkRule& change);
  void carry_out(const DeleteMarkRule& change);
  void carry_out(const SetTimeouts& change);
  void carry_out(const SetSetting& change);
  ServiceRecord& new_record(const ServiceKey& key);
  std::unique_ptr<Server> take_back(ServiceRecord& service, const ServerSpec& spec);
  std::unique_ptr<Server> new_server(ServiceRecord& service, const ServerSpec& spec);
  void change_thresholds(const Server& server, const ServerSpec& before);
  void remove_service(ServiceRecord& service);
  void remove_server(ServiceRecord& service, std::size_t position);
  void follow_pools();
  void tell_pool_addresses() const;
  void follow_mark_rules();
  void follow_settings();

  // services_build.cc: what the workers see.
  bool is_own(const IpAddress& address) const;
  Candidate candidate_of(const Server& server) const;
  std::vector<Candidate> candidates_of(const ServiceRecord& service) const;
  static SchedulerOptions scheduler_options(const ServiceRecord& service);
  static std::shared_ptr<const LookupTable> table_of(ServiceRecord& service,
                                                     const std::vector<Candidate>& list);
  void make_schedulers(ServiceRecord& service);
  void note_edit(ServiceRecord& service, Edit::Kind kind, std::size_t position,
                 const Server& server);
  void mark_dirty(Server& server);
  void mark_dirty(ServiceRecord& service);
  static ReplyKinds present_replies(const ServiceRecord& service, const Server& server);
  void note_replies(const ServiceRecord& service, Server& server);
  ReplyClaim wanted_claim(const ServiceRecord& service, const Server& server) const;
  void change_claim(const ServiceRecord& service, Server& server, const ReplyClaim& wanted);
  void follow_claims(ServiceRecord& service);
  void follow_ownership(ServiceRecord& service);
  static std::span<const Protocol> reply_protocols(const ServiceKey& key);
  RealServer describe(const Server& server) const;
  void warn_of_other_port(const Server& server, const RealServer& next) const;
  void warn_of_no_way(const Server& server);
  void build(Server& server);
  void build(ServiceRecord& service);
  void give_local_addresses(const ServiceRecord& service, Service& to);
  bool build_some();
  void publish();
  void publish_root(RetiredParts retired, Completion then);
  void hand_out();
  bool tell_steering();
  void retire(std::shared_ptr<const void> part);
  void wake();

  // services_upkeep.cc: what recurs.
  void forget_replayed_edits();
  bool advance_slow_starts();
  bool collect_trash(ServiceRecord& service, std::size_t& budget);
  bool collect_service(ServiceRecord& service);
  bool collect_some();
  bool collect_local_addresses();
  bool forget_former_replies();

  // services_listing.cc: counting and telling.
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
  Health health_;
  NoNetwork no_network_;
  HostNetwork* host_ = &no_network_;
  Steering steering_;
  std::function<void(const std::string&)> notice_;
  std::function<Counted()> other_counters_;
  std::function<void()> wake_;

  DirectorConfig config_;
  std::deque<Commit> commits_;
  std::vector<Completion> finished_;  // whose changes are in no publication yet
  std::deque<Publication> publications_;

  // Records, those of removed services too, and what finds them.
  Records records_;
  std::map<std::uint64_t, ServiceRecord*> order_;  // by ServiceRecord::added; not the removed ones
  std::set<std::pair<IpAddress, ServiceSlot>> by_virtual_address_;
  std::set<std::pair<IpAddress, ServerSlot>> by_server_address_;
  std::uint64_t additions_ = 0;
  std::vector<ServiceRecord*> record_by_slot_;
  std::vector<Server*> server_by_slot_;
  std::vector<std::uint32_t> service_generations_;
  std::vector<ServiceSlot> free_services_;
  std::vector<std::uint32_t> server_generations_;
  std::vector<ServerSlot> free_servers_;

  // What the next publication shows.
  ServiceSlots services_;
  ServerSlots servers_;
  ClaimBook claims_;
  std::vector<Server*> dirty_servers_;
  std::vector<ServiceRecord*> dirty_services_;
  bool is_stale_ = false;   // something is to be published
  bool departure_ = false;  // a real server goes with it
  std::vector<Server*> departing_;
  RetiredParts retired_;
  Snapshot draft_;  // the root as it was published last
  std::uint64_t version_ = 0;
  std::uint64_t oldest_in_use_ = 0;  // no worker looks at a version before it
  absl::flat_hash_set<ServiceSlot> edited_;
  // Slots to be freed once no worker can see what they held.
  std::vector<ServiceSlot> leaving_services_;
  std::vector<ServerSlot> leaving_servers_;

  // What recurs is about these alone.
  std::map<ServerSlot, std::uint64_t> former_replies_;  // the first version with fewer kinds
  std::vector<ServerSlot> fewer_replies_;               // since the last publication
  std::set<ServerSlot> growing_;                        // whose weight is
  std::set<ServiceSlot> with_departed_;  // that are removed, or have real servers that are
  ServiceSlot next_departed_ = 0;
  ServerSlot next_former_ = 0;
  unsigned rate_slice_ = 0;
  std::vector<BusyEstimator> busy_;  // by worker

  // Local addresses. Those that were taken away may still have connections: with the first version
  // in which no new ones can come, the walk that looks for these, and those that it has not met.
  std::uint64_t pool_changes_ = 0;  // of the model, that have been followed
  std::set<IpAddress> pool_addresses_;
  std::map<IpAddress, std::uint64_t> leaving_addresses_;
  ConnectionCursor sweep_;
  std::set<IpAddress> unseen_addresses_;
  std::map<std::shared_ptr<const LocalAddresses>, std::shared_ptr<LocalPortsSet>> local_ports_;
  std::shared_ptr<const PortGroups> port_groups_;  // of the ports of local addresses
  std::uint64_t port_seed_ = 0;                    // of the next LocalPorts
  std::map<IpAddress, std::uint32_t> fullnat_servers_;
  FullnatWatch fullnat_watch_;
};

}  // namespace weir
