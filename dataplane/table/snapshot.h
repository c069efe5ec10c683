// SPDX-License-Identifier: Apache-2.0
// The configuration as the workers see it: one immutable root, published by one atomic exchange,
// loaded once per burst. Parts that did not change are shared with the version before.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/table/mark_rules.h"
#include "dataplane/table/own_macs.h"
#include "dataplane/table/paged_array.h"
#include "dataplane/table/routes.h"
#include "dataplane/table/service.h"
#include "dataplane/table/service_index.h"
#include "dataplane/table/settings.h"
#include "dataplane/table/shared_servers.h"

namespace weir {

inline constexpr std::size_t kMaxPorts = 32;

struct PortAddresses {
  std::array<OwnMacs, kMaxPorts> macs;
  std::vector<Ipv4Address> broadcasts;  // of the networks that the host is on, sorted
};

// Slots of services and real servers.
inline constexpr std::uint32_t kMaxServices = 65536;
inline constexpr std::uint32_t kMaxServers = 131072;
using ServiceSlots = PagedArray<const Service*, 512, kMaxServices / 512>;
using ServerSlots = PagedArray<const RealServer*, 512, kMaxServers / 512>;

struct Snapshot {
  std::uint64_t version = 0;
  std::shared_ptr<const ServiceIndex> index;
  ServiceSlots::View services;  // by ServiceSlot, null: free
  ServerSlots::View servers;    // by ServerSlot, null: free
  // The first version without a real server that an earlier one had, or with another policy for the
  // connections of such; 0: none.
  std::uint64_t last_departure = 0;
  // Services with edits that some worker may not have replayed yet.
  std::vector<ServiceSlot> edited;
  std::shared_ptr<const Routes> routes;
  std::shared_ptr<const PortAddresses> ports;
  std::shared_ptr<const Settings> settings;
  std::shared_ptr<const MarkRules> marks;
  std::shared_ptr<SharedServers> shared;  // the same in every version
};

}  // namespace weir
