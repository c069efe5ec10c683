// SPDX-License-Identifier: Apache-2.0
#include "control/host/host_routes.h"

#include <linux/rtnetlink.h>

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <iterator>
#include <tuple>

namespace weir {

namespace {

bool is_usable(const HostRoute& route) {
  return route.kind != HostRoute::Kind::forward || !route.entry.hops.empty();
}

std::vector<std::string> complaints_about(const std::vector<HostRoute>& routes) {
  std::size_t in_default = 0;
  std::size_t by_type_of_service = 0;
  std::size_t by_next_hop_object = 0;
  for (const HostRoute& route : routes) {
    in_default += route.table == RT_TABLE_DEFAULT ? 1 : 0;
    by_type_of_service += route.table == RT_TABLE_MAIN && route.type_of_service != 0 ? 1 : 0;
    by_next_hop_object += route.names_next_hop ? 1 : 0;
  }
  std::vector<std::string> result;
  if (in_default != 0) {
    result.push_back(absl::StrCat(in_default,
                                  " routes of table default are not used: move them to "
                                  "table main"));
  }
  if (by_type_of_service != 0) {
    result.push_back(absl::StrCat(by_type_of_service,
                                  " routes for one type of service are not used: weir routes by "
                                  "destination only"));
  }
  if (by_next_hop_object != 0) {
    result.push_back(absl::StrCat(by_next_hop_object,
                                  " routes by next-hop objects are not used, because the kernel "
                                  "does not say where they lead: set "
                                  "net.ipv4.nexthop_compat_mode=1 (sysctl -w), which counts from "
                                  "the next change of a route on"));
  }
  return result;
}

// The better one first: prefix, table local before main, metric, router preference.
bool is_before(const HostRoute& a, const HostRoute& b) {
  const auto key = [](const HostRoute& route) {
    return std::make_tuple(route.entry.prefix, route.table != RT_TABLE_LOCAL, route.metric,
                           -int{route.preference});
  };
  return key(a) < key(b);
}

}  // namespace

void PrefixSet::insert(const IpPrefix& prefix) {
  if (!prefixes_.insert(prefix).second) return;
  auto& lengths = lengths_[prefix.address.is_ipv4() ? 0 : 1];
  if (std::ranges::find(lengths, prefix.length) == lengths.end()) lengths.push_back(prefix.length);
}

bool PrefixSet::covers(const IpPrefix& prefix) const {
  for (const std::uint8_t length : lengths_[prefix.address.is_ipv4() ? 0 : 1]) {
    if (length > prefix.length) continue;
    if (prefixes_.contains({prefix.address.masked(length), length})) return true;
  }
  return false;
}

bool HostRoutes::owns(const IpAddress& address) const {
  if (!local.contains(address)) return false;
  const RouteTable::Group* group = table->find(address);
  return group != nullptr && table->hops()[group->first].kernel_interface == 0;
}

HostRoutes select_routes(std::vector<HostRoute> routes) {
  HostRoutes result;
  result.complaints = complaints_about(routes);
  std::erase_if(routes, [](const HostRoute& route) {
    return (route.table != RT_TABLE_LOCAL && route.table != RT_TABLE_MAIN) ||
           route.type_of_service != 0 || !is_usable(route);
  });
  std::stable_sort(routes.begin(), routes.end(), is_before);

  // In IPv6 a prefix of table local hides all that main says about its addresses. In IPv4 the two
  // tables are one trie (fib_trie_unmerge is for hosts with policy rules): the longer prefix
  // counts.
  PrefixSet hidden;
  for (const HostRoute& route : routes) {
    const bool hides = route.table == RT_TABLE_LOCAL && !route.entry.prefix.address.is_ipv4();
    if (hides) hidden.insert(route.entry.prefix);
  }
  for (HostRoute& route : routes) {
    const IpPrefix prefix = route.entry.prefix;
    if (!result.entries.empty() && result.entries.back().prefix == prefix) continue;
    if (route.table != RT_TABLE_LOCAL && hidden.covers(prefix)) continue;
    if (route.kind == HostRoute::Kind::group) result.groups.insert(prefix);
    if (route.kind == HostRoute::Kind::local && !prefix.address.is_loopback()) {
      result.local.insert(prefix);
      result.local_list.push_back(prefix);
      if (prefix.length == prefix.address.bit_width()) result.addresses.push_back(prefix.address);
    }
    const bool whole = prefix.length == prefix.address.bit_width();
    if (route.kind == HostRoute::Kind::group && whole && prefix.address.is_ipv4()) {
      result.broadcasts.push_back(prefix.address.ipv4());
    }
    result.entries.push_back(std::move(route.entry));
  }
  result.table = RouteTable::build(result.entries);
  return result;
}

RouteChanges changes_between(const HostRoutes& former, const HostRoutes& next) {
  RouteChanges changes;
  auto before = former.entries.begin();
  auto after = next.entries.begin();
  while (before != former.entries.end() || after != next.entries.end()) {
    const bool gone = after == next.entries.end() ||
                      (before != former.entries.end() && before->prefix < after->prefix);
    const bool come = !gone && (before == former.entries.end() || after->prefix < before->prefix);
    if (gone) {
      changes.routes.push_back((before++)->prefix);
    } else if (come) {
      changes.routes.push_back((after++)->prefix);
    } else {
      if (*before != *after) changes.routes.push_back(after->prefix);
      ++before, ++after;
    }
  }
  std::ranges::set_symmetric_difference(former.local_list, next.local_list,
                                        std::back_inserter(changes.local));
  std::ranges::set_difference(next.addresses, former.addresses,
                              std::back_inserter(changes.addresses_in));
  std::ranges::set_difference(former.addresses, next.addresses,
                              std::back_inserter(changes.addresses_out));
  return changes;
}

}  // namespace weir
