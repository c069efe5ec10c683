// SPDX-License-Identifier: Apache-2.0
// Services and real servers for BurstLab, as short as a test wants to write them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "control/live/services.h"
#include "dataplane/xdp/steer_maps.h"

namespace weir::test {

// An end that the steering program has been told of.
struct SteeringKey {
  Protocol protocol = Protocol::tcp;
  IpAddress address;
  std::uint16_t port = 0;  // host order
};

// Services with a plan of one change for each verb, and a steering program that remembers.
class LabServices : public Services {
 public:
  LabServices(Publisher& publisher, std::span<WorkerState* const> workers, Clock clock)
      : Services(publisher, workers, clock) {
    set_steering({[](const SteeringSizes&) { return absl::OkStatus(); },
                  [this](auto changes, const auto& config) {
                    config_ = config;
                    for (const SteeringChange& change : changes) remember(change);
                  }});
  }

  using Services::commit;
  absl::Status commit(Change change) {
    CommitResult result;
    commit(Plan{std::move(change)}, [&result](const CommitResult& done) { result = done; });
    return result.status;
  }
  absl::Status add_service(const ServiceSpec& spec) { return commit(AddService{spec}); }
  absl::Status edit_service(const ServiceSpec& spec) { return commit(EditService{spec}); }
  absl::Status delete_service(const ServiceKey& key) { return commit(DeleteService{key}); }
  absl::Status flush() { return commit(DeleteAllServices{}); }
  absl::Status add_server(const ServiceKey& key, const ServerSpec& spec) {
    return commit(AddServer{key, spec});
  }
  absl::Status edit_server(const ServiceKey& key, const ServerSpec& spec) {
    return commit(EditServer{key, spec});
  }
  absl::Status delete_server(const ServiceKey& key, const IpAddress& address, std::uint16_t port) {
    return commit(DeleteServer{key, address, port});
  }
  absl::Status set_service_option(const ServiceKey& key, const ServiceOption& option) {
    return commit(SetServiceOption{key, option});
  }
  absl::Status add_local_addresses(const AddressRange& range,
                                   const std::optional<ServiceKey>& service) {
    return commit(AddLocalAddresses{range, service});
  }
  absl::Status delete_local_addresses(const AddressRange& range,
                                      const std::optional<ServiceKey>& service) {
    return commit(DeleteLocalAddresses{range, service});
  }
  absl::Status add_mark_rule(const MarkRuleSpec& rule, std::optional<std::uint32_t> at) {
    return commit(AddMarkRule{rule, at});
  }
  absl::Status delete_mark_rule(std::uint32_t number) { return commit(DeleteMarkRule{number}); }
  absl::Status set_timeouts(const IpvsTimeouts& timeouts) { return commit(SetTimeouts{timeouts}); }
  absl::Status set_setting(const std::string& name, const std::string& value) {
    return commit(SetSetting{name, value});
  }

  std::vector<ServiceListing> list() const { return list_all(*this); }
  std::vector<WorkerListing> workers() const {
    std::vector<WorkerListing> rows;
    WorkerCursor cursor;
    while (visit_workers(cursor, 1000, [&](const WorkerListing& row) { rows.push_back(row); })) {
    }
    return rows;
  }

  // What the steering program has been told.
  std::vector<SteeringKey> steered_services() const {
    return ends(SteeringChange::Map::services, WEIR_SERVICE);
  }
  std::vector<SteeringKey> steered_servers() const {
    return ends(SteeringChange::Map::servers, WEIR_TO_CLIENTS);
  }
  std::vector<SteeringKey> steered_fullnat_servers() const {
    return ends(SteeringChange::Map::servers, WEIR_TO_POOL);
  }
  std::vector<IpAddress> steered_local_addresses() const {
    return addresses(SteeringChange::Map::addresses, WEIR_POOL);
  }
  std::vector<IpAddress> steered_ftp_addresses() const {
    return addresses(SteeringChange::Map::services, WEIR_FTP);
  }
  const std::vector<SteeringRule>& steered_mark_rules() const { return config_.rules; }

 private:
  using Key = std::tuple<SteeringChange::Map, IpAddress, std::uint16_t, Protocol>;

  void remember(const SteeringChange& change) {
    const Key key(change.map, change.address, change.port, change.protocol);
    told_[key] = change.value;
    if (change.value == 0) told_.erase(key);
  }
  std::vector<SteeringKey> ends(SteeringChange::Map map, std::uint32_t bit) const {
    std::vector<SteeringKey> keys;
    for (const auto& [key, value] : told_) {
      const auto& [of, address, port, protocol] = key;
      if (of == map && (value & bit) != 0) keys.push_back({protocol, address, port});
    }
    return keys;
  }
  std::vector<IpAddress> addresses(SteeringChange::Map map, std::uint32_t bit) const {
    std::vector<IpAddress> list;
    for (const SteeringKey& end : ends(map, bit)) list.push_back(end.address);
    return list;
  }

  std::map<Key, std::uint32_t> told_;
  SteeringConfig config_;
};

inline void must(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

inline IpAddress address_of(const std::string& text) {
  const auto address = IpAddress::parse(text);
  if (!address) throw std::runtime_error(text + " is no address");
  return *address;
}

inline ServiceKey service_key(Protocol protocol, const std::string& vip, std::uint16_t port) {
  return {.protocol = protocol, .address = address_of(vip), .port = port, .fwmark = 0};
}

inline void add_service(LabServices& services, const ServiceKey& key,
                        const std::string& scheduler = "rr") {
  ServiceSpec spec;
  spec.key = key;
  spec.scheduler = scheduler;
  must(services.add_service(spec));
}

inline ServerSpec server_spec(const std::string& address, std::uint16_t port, ForwardMode mode,
                              std::int32_t weight = 1) {
  ServerSpec spec;
  spec.address = address_of(address);
  spec.port = port;
  spec.mode = mode;
  spec.weight = weight;
  return spec;
}

}  // namespace weir::test
