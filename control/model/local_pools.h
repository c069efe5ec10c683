// SPDX-License-Identifier: Apache-2.0
// The addresses that fullnat sends from, as they are configured: ranges for one service or for all
// that have none of their own, made into what the workers see.
//
// Errors: InvalidArgument (no such range can be), AlreadyExists (a part of it is there), NotFound,
// ResourceExhausted. Thread: the control thread only.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include <absl/status/status.h>

#include "control/model/specs.h"
#include "dataplane/table/local_addresses.h"

namespace weir {

// The addresses of a range, in order.
std::vector<IpAddress> addresses_of(const AddressRange& range);

class LocalPools {
 public:
  static constexpr std::size_t kMaxAddresses = 4096;
  using Owner = std::optional<ServiceKey>;  // none: all services
  using Ranges = std::set<AddressRange>;

  absl::Status add(const AddressRange& range, const Owner& owner);
  absl::Status remove(const AddressRange& range, const Owner& owner);
  // The service is gone, its ranges with it.
  void forget(const ServiceKey& service);

  // What a service sends from: of each family its own addresses or, where it has none, those for
  // all. The same object until that changes.
  std::shared_ptr<const LocalAddresses> of(const ServiceKey& service) const;

  const std::map<Owner, Ranges>& ranges() const { return ranges_; }
  // Of all pools, without repetition.
  std::set<IpAddress> addresses() const;
  bool contains(const IpAddress& address) const;

 private:
  void rebuild();

  std::map<Owner, Ranges> ranges_;  // none of them empty
  std::shared_ptr<const LocalAddresses> for_all_ = std::make_shared<LocalAddresses>();
  std::map<ServiceKey, std::shared_ptr<const LocalAddresses>> by_service_;
};

}  // namespace weir
