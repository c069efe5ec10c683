// SPDX-License-Identifier: Apache-2.0
// Control's own, mutable model of services and real servers: what ipvsadm edits and lists.
//
// Every change is checked here, then published to the workers as a new Snapshot. Errors are those
// of IPVS (net/netfilter/ipvs/ip_vs_ctl.c), as absl status codes:
//   AlreadyExists (EEXIST), NotFound (ENOENT: no such real server, or no such scheduler or
//   persistence engine), FailedPrecondition (ESRCH: no such service), InvalidArgument (EINVAL:
//   address not unicast and the like), OutOfRange (ERANGE: thresholds, weight).
// ipvsadm prints IPVS's own text for these five, and the status's message for every other code:
//   Unimplemented (what weir does not do yet; the message says what), ResourceExhausted, ...
// Thread: the control thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "dataplane/table/mark_rules.h"
#include "dataplane/table/service.h"
#include "dataplane/table/settings.h"

namespace weir {

inline constexpr std::uint32_t kEachClientAlone = 0xffffffff;

struct ServiceSpec {
  ServiceKey key;
  std::string scheduler = "wlc";
  std::vector<std::string> scheduler_flags;  // ipvsadm -b
  std::uint32_t persistence_timeout = 0;     // seconds, 0: not persistent
  // Which clients count as one. IPv4: a mask in host order, any bits, as in IPVS; IPv6: a length.
  std::uint32_t persistence_mask = kEachClientAlone;
  std::string persistence_engine;  // ipvsadm --pe
  bool one_packet = false;
};

struct ServerSpec {
  IpAddress address;
  std::uint16_t port = 0;  // host order; dr and tun always use the service's
  ForwardMode mode = ForwardMode::dr;
  std::int32_t weight = 1;
  std::uint32_t upper_threshold = 0;
  std::uint32_t lower_threshold = 0;
  TunnelType tunnel = TunnelType::ipip;
  std::uint16_t tunnel_port = 0;
  TunnelChecksum tunnel_checksum = TunnelChecksum::none;
};

// What a service has beyond IPVS, by name: client-address, gone-server, idle-timeout, table-size,
// slow-start. They go with the service, and an edit by ipvsadm leaves them as they are.
struct ServiceOption {
  std::string name;
  std::string value;
};

// Addresses of one family that fullnat sends from, both included.
struct AddressRange {
  IpAddress first;
  IpAddress last;
  friend auto operator<=>(const AddressRange&, const AddressRange&) = default;
};

struct LocalAddressListing {
  std::optional<ServiceKey> service;  // none: for every service that has none of its own
  AddressRange range;
  std::uint32_t count = 0;
  std::uint32_t not_owned = 0;  // of them, those that no interface of this host owns
};

// A rule, and weir's port that it is for, as the command line names it or by its number; empty:
// all.
struct MarkRuleSpec {
  MarkRule rule;  // `on_port` is the table's own
  std::string on;
};

struct Totals {
  std::uint64_t connections = 0;
  std::uint64_t packets_in = 0;
  std::uint64_t packets_out = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;

  Totals& operator+=(const Totals& other) {
    connections += other.connections;
    packets_in += other.packets_in;
    packets_out += other.packets_out;
    bytes_in += other.bytes_in;
    bytes_out += other.bytes_out;
    return *this;
  }
  friend Totals operator-(Totals a, const Totals& b) {
    a.connections -= b.connections;
    a.packets_in -= b.packets_in;
    a.packets_out -= b.packets_out;
    a.bytes_in -= b.bytes_in;
    a.bytes_out -= b.bytes_out;
    return a;
  }
};

// IPVS's estimator (ip_vs_est.c): every 2 s, average += (rate - average) / 4; per second.
struct Rates {
  std::uint64_t connections = 0;
  std::uint64_t packets_in = 0;
  std::uint64_t packets_out = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
};

struct ServerListing {
  ServerSpec spec;
  bool is_local = false;  // the address is this host's own: its packets go through the kernel
  std::uint32_t active = 0;
  std::uint32_t inactive = 0;
  std::uint32_t persistent = 0;
  Totals totals;  // since the last -Z
  Rates rates;
};

struct ServiceListing {
  ServiceSpec spec;
  bool address_is_local = true;        // false: no interface of this host owns the VIP
  std::vector<ServerListing> servers;  // newest first
  std::vector<ServiceOption> options;  // those that are not default
  Totals totals;
  Rates rates;
};

struct ConnectionListing {
  Protocol protocol = Protocol::tcp;
  std::string state;          // "ESTABLISHED", "UDP", ...
  std::uint32_t expires = 0;  // seconds
  IpAddress client;
  std::uint16_t client_port = 0;
  IpAddress virtual_address;
  std::uint16_t virtual_port = 0;
  IpAddress server;
  std::uint16_t server_port = 0;
};

// What one worker has done since it started.
struct WorkerListing {
  std::uint32_t worker = 0;
  // Per cent of its time that went into packets, over the last RateEstimator::kIntervalSeconds.
  std::uint32_t busy = 0;
  std::uint32_t open = 0;  // connections of both families, and persistence templates
  std::uint32_t capacity = 0;
  Totals totals;
  std::uint64_t handed_over = 0;  // packets, to other workers
  std::uint64_t to_kernel = 0;
  std::uint64_t dropped = 0;
};

struct IpvsTimeouts {
  std::uint32_t tcp = 900;
  std::uint32_t tcp_fin = 120;
  std::uint32_t udp = 300;
};

// One connection synchronisation daemon, as `ipvsadm --start-daemon` describes it.
struct SyncDaemonSpec {
  enum class Role : std::uint8_t { master, backup };
  Role role = Role::master;
  std::string interface = "eth0";
  std::uint32_t sync_id = 0;
  std::uint32_t max_length = 0;  // bytes of a message; 0, here and below: the default
  std::optional<IpAddress> group;
  std::uint16_t port = 0;
  std::uint8_t ttl = 0;
};

// Where a sliced walk over all connections stands. A new one is at the beginning; what it holds
// in between is the table's own business.
struct ConnectionCursor {
  std::uint32_t worker = 0;
  std::uint32_t position = 0;
};

// What the faces (API, weirctl, ipvsadm, later keepalived.conf) call.
class ServiceTable {
 public:
  virtual ~ServiceTable() = default;

  virtual absl::Status add_service(const ServiceSpec& spec) = 0;
  virtual absl::Status edit_service(const ServiceSpec& spec) = 0;
  virtual absl::Status delete_service(const ServiceKey& key) = 0;
  virtual absl::Status flush() = 0;  // ipvsadm -C

  virtual absl::Status add_server(const ServiceKey& key, const ServerSpec& spec) = 0;
  virtual absl::Status edit_server(const ServiceKey& key, const ServerSpec& spec) = 0;
  virtual absl::Status delete_server(const ServiceKey& key, const IpAddress& address,
                                     std::uint16_t port) = 0;

  virtual absl::Status set_service_option(const ServiceKey& key, const ServiceOption& option) = 0;

  // Local addresses of a service, or of all that have none of their own. What is taken away serves
  // the connections that use it until they end.
  virtual absl::Status add_local_addresses(const AddressRange& range,
                                           const std::optional<ServiceKey>& service) = 0;
  virtual absl::Status delete_local_addresses(const AddressRange& range,
                                              const std::optional<ServiceKey>& service) = 0;
  virtual std::vector<LocalAddressListing> local_addresses() const = 0;

  // Rules are numbered from 1; the first that matches a packet gives it its mark. `at` puts a rule
  // before the one that has this number; without it the rule is the last.
  virtual absl::Status add_mark_rule(const MarkRuleSpec& rule, std::optional<std::uint32_t> at) = 0;
  virtual absl::Status delete_mark_rule(std::uint32_t number) = 0;
  virtual std::vector<MarkRuleSpec> mark_rules() const = 0;

  // All services, in the order in which they were added; or one.
  virtual std::vector<ServiceListing> list() const = 0;
  virtual absl::StatusOr<ServiceListing> find(const ServiceKey& key) const = 0;
  // One slice of a walk over the connections of all workers, templates included: looks at no more
  // than `at_most` places of the tables, calls `visit` for the connections there and moves `cursor`
  // on. False: that was the end.
  virtual bool visit_connections(
      ConnectionCursor& cursor, std::uint32_t at_most,
      const std::function<void(const ConnectionListing&)>& visit) const = 0;

  // Without a key: all services.
  virtual absl::Status zero(const std::optional<ServiceKey>& key) = 0;

  virtual IpvsTimeouts timeouts() const = 0;
  virtual absl::Status set_timeouts(const IpvsTimeouts& timeouts) = 0;  // 0: unchanged

  virtual absl::Status start_sync_daemon(const SyncDaemonSpec&) {
    return absl::UnimplementedError(
        "weir does not synchronise connections between directors yet: leave out --start-daemon.");
  }
  virtual absl::Status stop_sync_daemon(SyncDaemonSpec::Role) {
    return absl::FailedPreconditionError("No connection synchronisation daemon is running.");
  }
  virtual std::vector<SyncDaemonSpec> sync_daemons() const { return {}; }

  virtual std::vector<WorkerListing> workers() const = 0;
  // Every outcome of the packet path and its count over all workers, in a stable order.
  virtual std::vector<std::pair<std::string, std::uint64_t>> counters() const = 0;

  struct Setting {
    std::string name;
    std::string value;
    std::string help;
  };
  virtual std::vector<Setting> settings() const = 0;
  virtual absl::Status set_setting(const std::string& name, const std::string& value) = 0;
};

}  // namespace weir
