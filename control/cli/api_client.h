// SPDX-License-Identifier: Apache-2.0
// Calls a running weir through its socket. Blocking; for commands, not for the daemon.
//
// Errors are those of LiveModel. Besides: Unavailable, where nothing answers on the socket, and
// PermissionDenied.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <boost/json/value.hpp>

#include "control/api/api_json.h"

namespace weir {

inline constexpr const char* kDefaultSocket = "/run/weir/weir.sock";

// `option` (--socket), else the environment's WEIR_SOCKET, else the default.
std::string socket_path(const std::optional<std::string>& option);

class ApiClient {
 public:
  // How long weir may say nothing before it counts as one that hangs.
  static constexpr std::chrono::seconds kPatience{15};
  explicit ApiClient(std::string socket_path, std::chrono::milliseconds patience = kPatience);
  ~ApiClient();

  absl::Status commit(const Change& change);
  // Each by itself; those that could not be.
  absl::StatusOr<std::vector<ChangeFailure>> commit_each(Plan plan);

  absl::StatusOr<std::vector<LocalAddressListing>> local_addresses();
  absl::StatusOr<std::vector<MarkRuleSpec>> mark_rules();

  absl::StatusOr<std::vector<ServiceListing>> list();
  absl::StatusOr<ServiceListing> find(const ServiceKey& key);
  // Calls `visit` while the listing still comes in.
  absl::Status for_each_connection(const std::function<void(const ConnectionListing&)>& visit);

  absl::Status zero(const std::optional<ServiceKey>& key);
  absl::StatusOr<IpvsTimeouts> timeouts();
  absl::Status start_sync_daemon(const SyncDaemonSpec& daemon);
  absl::Status stop_sync_daemon(SyncDaemonSpec::Role role);
  absl::StatusOr<std::vector<SyncDaemonSpec>> sync_daemons();

  absl::StatusOr<std::vector<WorkerListing>> workers();
  absl::StatusOr<std::vector<NamedCounter>> counters();
  absl::StatusOr<LoopListing> loop();
  absl::StatusOr<std::vector<SettingListing>> settings();

 private:
  class Transport;
  enum class Method { get, post, put, remove };

  absl::Status change(Method method, const std::string& path, const boost::json::value& body);
  absl::Status change(Method method, const std::string& path);
  absl::StatusOr<boost::json::value> get(const std::string& path);
  absl::StatusOr<boost::json::value> exchange(Method method, const std::string& path,
                                              std::string body);
  template <class Item>
  absl::StatusOr<std::vector<Item>> get_list(const std::string& path, const char* member);

  std::unique_ptr<Transport> transport_;
};

}  // namespace weir
