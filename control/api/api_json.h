// SPDX-License-Identifier: Apache-2.0
// The API's data as JSON, for both ends of the socket.
//
// Reading is strict: an unknown member, a wrong type or a number out of range is an
// InvalidArgument that names the member. Members that are left out keep their defaults.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>

#include "control/model/changes.h"
#include "control/model/listings.h"

namespace weir {

boost::json::value to_json(const ServiceSpec& spec);
boost::json::value to_json(const ServerSpec& spec);
// Without the real servers, which a listing may send in slices.
boost::json::object service_without_servers(const ServiceListing& service);
boost::json::value to_json(const ServerListing& server);
boost::json::value to_json(const ConnectionListing& connection);
boost::json::value to_json(const IpvsTimeouts& timeouts);
boost::json::value to_json(const SyncDaemonSpec& daemon);
boost::json::value to_json(const SettingListing& setting);
boost::json::value to_json(const ServiceOption& option);
boost::json::value to_json(const AddressRange& range);
boost::json::value to_json(const LocalAddressListing& addresses);
boost::json::value to_json(const MarkRuleSpec& rule);
boost::json::value to_json(const WorkerListing& worker);
boost::json::value to_json(const NamedCounter& counter);
boost::json::value to_json(const LoopListing& loop);
// {"change": "add_server", "service": "tcp/10.9.0.1/80", "spec": {...}} and the like: what it is,
// and its members.
boost::json::value to_json(const Change& change);
// {"error": {"code": "NOT_FOUND", "message": "..."}}; not for an OK status.
boost::json::value to_json(const absl::Status& status);

absl::StatusOr<boost::json::value> parse_json(std::string_view text);

template <class Type>
absl::StatusOr<Type> from_json(const boost::json::value& json);
template <>
absl::StatusOr<ServiceSpec> from_json(const boost::json::value& json);
template <>
absl::StatusOr<ServerSpec> from_json(const boost::json::value& json);
template <>
absl::StatusOr<ServiceListing> from_json(const boost::json::value& json);
template <>
absl::StatusOr<ConnectionListing> from_json(const boost::json::value& json);
template <>
absl::StatusOr<IpvsTimeouts> from_json(const boost::json::value& json);
template <>
absl::StatusOr<SyncDaemonSpec> from_json(const boost::json::value& json);
template <>
absl::StatusOr<SettingListing> from_json(const boost::json::value& json);
template <>
absl::StatusOr<ServiceOption> from_json(const boost::json::value& json);
template <>
absl::StatusOr<AddressRange> from_json(const boost::json::value& json);
template <>
absl::StatusOr<LocalAddressListing> from_json(const boost::json::value& json);
template <>
absl::StatusOr<MarkRuleSpec> from_json(const boost::json::value& json);
template <>
absl::StatusOr<WorkerListing> from_json(const boost::json::value& json);
template <>
absl::StatusOr<NamedCounter> from_json(const boost::json::value& json);
template <>
absl::StatusOr<JobLengths> from_json(const boost::json::value& json);
template <>
absl::StatusOr<LoopListing> from_json(const boost::json::value& json);
template <>
absl::StatusOr<Change> from_json(const boost::json::value& json);

// Many changes: as one, of which all or nothing is done, or each by itself.
struct ChangesRequest {
  bool each_alone = false;
  Plan plan;
};
// What has become of such: which could not be, counted from 0.
struct ChangeFailure {
  std::uint32_t change = 0;
  absl::Status status;
};
template <>
absl::StatusOr<ChangesRequest> from_json(const boost::json::value& json);
boost::json::value to_json(const ChangesRequest& request);
// {"failures": [{"change": 3, "error": {...}}]}
boost::json::value to_json(const std::vector<ChangeFailure>& failures);
template <>
absl::StatusOr<std::vector<ChangeFailure>> from_json(const boost::json::value& json);

// What to_json(Status) wrote; Internal where `json` is something else.
absl::Status status_from_json(const boost::json::value& json);

// A service as the end of a path: "tcp/10.0.0.1/80", "fwmark/ipv6/7".
std::string path_of(const ServiceKey& key);
// Three elements of such a path.
absl::StatusOr<ServiceKey> key_from_path(const std::string& first, const std::string& second,
                                         const std::string& third);

std::string name_of(SyncDaemonSpec::Role role);
absl::StatusOr<SyncDaemonSpec::Role> role_from_name(std::string_view name);
std::optional<std::uint32_t> parse_decimal(std::string_view text, std::uint32_t highest);

}  // namespace weir
