// SPDX-License-Identifier: Apache-2.0
// What a service has beyond IPVS, by name and as the workers see it. Pure values: any thread.
#pragma once

#include <cstdint>
#include <vector>

#include <absl/status/status.h>

#include "control/model/specs.h"
#include "dataplane/table/service.h"

namespace weir {

struct ServiceOptions {
  ClientAddress client_address = ClientAddress::hidden;
  GoneServer gone_server = GoneServer::drop;
  std::uint32_t idle_timeout = 0;  // seconds
  std::uint32_t table_size = 0;    // of mh
  std::uint32_t slow_start = 0;    // seconds
  friend bool operator==(const ServiceOptions&, const ServiceOptions&) = default;
};

// NotFound: no such option; InvalidArgument: no such value. `options` are as before then.
absl::Status set_option(ServiceOptions& options, const ServiceOption& option);
// InvalidArgument: an option that a service of this protocol has no use for.
absl::Status check_options_of(const ServiceKey& key, const ServiceOptions& options);
// Those that are not default.
std::vector<ServiceOption> list_options(const ServiceOptions& options);
// Those of `wanted` that `current` has otherwise.
std::vector<ServiceOption> differing_options(const ServiceOptions& current,
                                             const ServiceOptions& wanted);

}  // namespace weir
