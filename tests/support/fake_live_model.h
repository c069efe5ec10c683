// SPDX-License-Identifier: Apache-2.0
// A LiveModel in memory that follows the rules of IPVS (net/netfilter/ipvs/ip_vs_ctl.c) and
// forwards nothing. Tests fill in counters and connections.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "control/live/live_model.h"

namespace weir {

class FakeLiveModel : public LiveModel {
 public:
  void commit(Plan plan, Done done) override;
  // What a change does.
  absl::Status add_service(const ServiceSpec& spec);
  absl::Status edit_service(const ServiceSpec& spec);
  absl::Status delete_service(const ServiceKey& key);
  absl::Status flush();
  absl::Status add_server(const ServiceKey& key, const ServerSpec& spec);
  absl::Status edit_server(const ServiceKey& key, const ServerSpec& spec);
  absl::Status delete_server(const ServiceKey& key, const IpAddress& address, std::uint16_t port);
  std::optional<ServiceListing> list_services(ServiceCursor& cursor,
                                              std::size_t at_most) const override;
  absl::Status set_service_option(const ServiceKey& key, const ServiceOption& option);
  absl::Status add_local_addresses(const AddressRange& range,
                                   const std::optional<ServiceKey>& service);
  absl::Status delete_local_addresses(const AddressRange& range,
                                      const std::optional<ServiceKey>& service);
  std::vector<LocalAddressListing> local_addresses() const override { return addresses_; }
  absl::Status add_mark_rule(const MarkRuleSpec& rule, std::optional<std::uint32_t> at);
  absl::Status delete_mark_rule(std::uint32_t number);
  std::vector<MarkRuleSpec> mark_rules() const override { return rules_; }
  absl::StatusOr<ServiceListing> find(const ServiceKey& key) const override;
  bool visit_connections(ConnectionCursor& cursor, std::uint32_t at_most,
                         const std::function<void(const ConnectionListing&)>& visit) const override;
  absl::Status zero(const std::optional<ServiceKey>& key) override;
  IpvsTimeouts timeouts() const override { return timeouts_; }
  absl::Status set_timeouts(const IpvsTimeouts& timeouts);
  absl::Status start_sync_daemon(const SyncDaemonSpec& daemon) override;
  absl::Status stop_sync_daemon(SyncDaemonSpec::Role role) override;
  std::vector<SyncDaemonSpec> sync_daemons() const override { return daemons_; }
  bool visit_workers(WorkerCursor& cursor, std::uint32_t at_most,
                     const std::function<void(const WorkerListing&)>& visit) const override;
  std::vector<NamedCounter> counters() const override;
  std::vector<SettingListing> settings() const override;
  absl::Status set_setting(const std::string& name, const std::string& value);

  std::vector<ServiceListing> services;  // in the order of addition
  std::vector<ConnectionListing> connections;

 private:
  ServiceListing* service(const ServiceKey& key);

  IpvsTimeouts timeouts_;
  std::vector<SyncDaemonSpec> daemons_;
  std::vector<LocalAddressListing> addresses_;
  std::vector<MarkRuleSpec> rules_;
  std::string sloppy_tcp_ = "0";
};

}  // namespace weir
