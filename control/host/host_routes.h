// SPDX-License-Identifier: Apache-2.0
// Which of the kernel's routes counts: one per prefix, as the default policy rules decide
// (tables local and main), and which addresses are the host's own.
// Pure functions and immutable values: any thread.
// Source: ip-route(8), fib_table_lookup (net/ipv4/fib_trie.c), rt6_score_route (net/ipv6/route.c).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <absl/container/flat_hash_set.h>

#include "control/host/netlink_messages.h"
#include "dataplane/table/routes.h"

namespace weir {

// A set of prefixes, asked by address.
class PrefixSet {
 public:
  void insert(const IpPrefix& prefix);
  bool contains(const IpAddress& address) const { return covers({address, 128}); }
  // Whether one of the set's prefixes contains the whole of `prefix`.
  bool covers(const IpPrefix& prefix) const;

 private:
  struct Hash {
    std::size_t operator()(const IpPrefix& prefix) const {
      return std::hash<IpAddress>{}(prefix.address) * 131 + prefix.length;
    }
  };
  absl::flat_hash_set<IpPrefix, Hash> prefixes_;
  std::vector<std::uint8_t> lengths_[2];  // by family: those that occur
};

struct HostRoutes {
  std::vector<RouteEntry> entries;  // sorted by prefix
  std::shared_ptr<const RouteTable> table;
  PrefixSet local;                   // routed to the host itself, without the loopback ones
  std::vector<IpPrefix> local_list;  // the same, sorted
  std::vector<IpAddress> addresses;  // the whole addresses in `local`, sorted
  PrefixSet groups;                  // broadcast, multicast and anycast addresses of its networks
  std::vector<Ipv4Address> broadcasts;
  std::vector<std::string> complaints;

  bool owns(const IpAddress& address) const;
};

HostRoutes select_routes(std::vector<HostRoute> routes);

// From one reading to the next.
struct RouteChanges {
  std::vector<IpPrefix> routes;         // that come, go, or lead elsewhere
  std::vector<IpPrefix> local;          // that come or go among HostRoutes::local
  std::vector<IpAddress> addresses_in;  // whole addresses among these
  std::vector<IpAddress> addresses_out;
};
RouteChanges changes_between(const HostRoutes& former, const HostRoutes& next);

}  // namespace weir
