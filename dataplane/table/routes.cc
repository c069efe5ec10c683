// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/routes.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace weir {

namespace {

constexpr std::uint16_t kGenerations = 4096;

std::size_t hash_of(std::uint16_t interface, const IpAddress& address) noexcept {
  return std::hash<IpAddress>{}(address) + interface * std::size_t{0x9e3779b97f4a7c15ULL};
}

}  // namespace

// Fills a RouteTable. The sweep: prefixes either nest or are disjoint, so after sorting by first
// address (the shorter prefix first) a stack holds those that enclose the current one.
class RouteTableBuilder {
 public:
  using Key128 = RouteTable::Key128;

  std::shared_ptr<const RouteTable> build(std::span<const RouteEntry> routes) {
    for (const RouteEntry& route : routes) {
      const std::uint32_t group = group_of(route.hops);
      const int length = route.prefix.length;
      if (route.prefix.address.is_ipv4()) {
        const std::uint32_t first = key32(route.prefix.address);
        const std::uint32_t host_bits = length == 0 ? ~0U : (1U << (32 - length)) - 1;
        ipv4_.push_back({first, first | host_bits, group});
      } else {
        const Key128 first = key128(route.prefix.address);
        ipv6_.push_back({first, last_of(first, length), group});
      }
    }
    table_->ipv4_ = flatten(ipv4_);
    table_->ipv6_ = flatten(ipv6_);
    return std::move(table_);
  }

  static std::uint32_t key32(const IpAddress& address) noexcept {
    return address.ipv4().value.host();
  }
  static Key128 key128(const IpAddress& address) noexcept {
    return {load<Be64>(address.bytes().data()).host(),
            load<Be64>(address.bytes().data() + 8).host()};
  }

 private:
  template <class Key>
  struct Interval {
    Key first;
    Key last;
    std::uint32_t group;
  };

  static Key128 last_of(const Key128& first, int length) noexcept {
    constexpr auto kAll = std::numeric_limits<std::uint64_t>::max();
    const std::uint64_t high = length >= 64 ? 0 : kAll >> length;
    const std::uint64_t low = length <= 64 ? kAll : length == 128 ? 0 : kAll >> (length - 64);
    return {first.high | high, first.low | low};
  }

  static std::uint32_t highest(std::uint32_t) noexcept { return ~0U; }
  static Key128 highest(const Key128&) noexcept { return {~0ULL, ~0ULL}; }
  static std::uint32_t successor(std::uint32_t key) noexcept { return key + 1; }
  static Key128 successor(const Key128& key) noexcept {
    return {key.low + 1 == 0 ? key.high + 1 : key.high, key.low + 1};
  }

  std::uint32_t group_of(const std::vector<RouteEntry::Hop>& hops) {
    if (hops.empty()) return RouteTable::kNoGroup;
    const auto next = static_cast<std::uint32_t>(table_->groups_.size());
    const auto [known, added] = groups_.try_emplace(hops, next);
    if (!added) return known->second;
    RouteTable::Group group{static_cast<std::uint32_t>(table_->hops_.size()),
                            static_cast<std::uint32_t>(hops.size()), 0};
    for (const RouteEntry::Hop& hop : hops) {
      group.total_weight += hop.weight;
      table_->hops_.push_back(hop);
    }
    table_->groups_.push_back(group);
    return next;
  }

  // Appends "from `first` on, `group`", over a range that would be empty or like its neighbour.
  template <class Key>
  static void emit(std::vector<RouteTable::Range<Key>>& ranges, const Key& first,
                   std::uint32_t group) {
    if (!ranges.empty() && ranges.back().first == first) ranges.pop_back();
    if (ranges.empty() || ranges.back().group != group) ranges.push_back({first, group});
  }

  template <class Key>
  static std::vector<RouteTable::Range<Key>> flatten(std::vector<Interval<Key>>& intervals) {
    std::sort(intervals.begin(), intervals.end(), [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first < b.first : b.last < a.last;
    });
    std::vector<RouteTable::Range<Key>> ranges;
    std::vector<Interval<Key>> enclosing;
    const auto leave_innermost = [&] {
      const Key last = enclosing.back().last;
      enclosing.pop_back();
      if (last == highest(last)) return;
      emit(ranges, successor(last),
           enclosing.empty() ? RouteTable::kNoGroup : enclosing.back().group);
    };
    emit(ranges, Key{}, RouteTable::kNoGroup);
    for (const Interval<Key>& interval : intervals) {
      while (!enclosing.empty() && enclosing.back().last < interval.first) leave_innermost();
      emit(ranges, interval.first, interval.group);
      enclosing.push_back(interval);
    }
    while (!enclosing.empty()) leave_innermost();
    return ranges;
  }

  struct Less {
    bool operator()(const std::vector<RouteEntry::Hop>& a,
                    const std::vector<RouteEntry::Hop>& b) const {
      return std::lexicographical_compare(
          a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
            return std::tie(x.kernel_interface, x.gateway, x.weight) <
                   std::tie(y.kernel_interface, y.gateway, y.weight);
          });
    }
  };

  std::shared_ptr<RouteTable> table_ = std::make_shared<RouteTable>();
  std::map<std::vector<RouteEntry::Hop>, std::uint32_t, Less> groups_;
  std::vector<Interval<std::uint32_t>> ipv4_;
  std::vector<Interval<Key128>> ipv6_;
};

std::shared_ptr<const RouteTable> RouteTable::build(std::span<const RouteEntry> routes) {
  return RouteTableBuilder().build(routes);
}

const RouteTable::Group* RouteTable::find(const IpAddress& destination) const noexcept {
  const auto search = [this](const auto& ranges, const auto& key) -> const Group* {
    const auto after = std::upper_bound(
        ranges.begin(), ranges.end(), key,
        [](const auto& wanted, const auto& range) { return wanted < range.first; });
    if (after == ranges.begin()) return nullptr;
    const std::uint32_t group = std::prev(after)->group;
    return group == kNoGroup ? nullptr : &groups_[group];
  };
  return destination.is_ipv4() ? search(ipv4_, RouteTableBuilder::key32(destination))
                               : search(ipv6_, RouteTableBuilder::key128(destination));
}

Routes::Decision Routes::find(const IpAddress& destination,
                              std::uint32_t flow_hash) const noexcept {
  const RouteTable::Group* group = table_->find(destination);
  if (group == nullptr) return {};
  std::uint32_t chosen = group->first;
  if (group->count > 1) {
    std::uint64_t rest = (std::uint64_t{flow_hash} * group->total_weight) >> 32;
    while (rest >= table_->hops()[chosen].weight) rest -= table_->hops()[chosen++].weight;
  }
  const Member& member = members_[chosen];
  switch (member.kind) {
    case Member::Kind::not_ours:
      return {Answer::not_ours, 0, 0};
    case Member::Kind::gateway:
      return {Answer::found, member.interface, member.next_hop};
    case Member::Kind::gateway_without_next_hop:
      return {Answer::no_route, member.interface, 0};
    case Member::Kind::on_link:
      break;
  }
  const NextHopIndex* neighbour = find_neighbour(member.interface, destination);
  if (neighbour == nullptr) return {Answer::missing, member.interface, 0};
  return {Answer::found, member.interface, *neighbour};
}

const NextHopIndex* Routes::find_neighbour(std::uint16_t interface,
                                           const IpAddress& address) const noexcept {
  const std::size_t mask = neighbours_.size() - 1;
  for (std::size_t i = hash_of(interface, address) & mask;; i = (i + 1) & mask) {
    if (neighbours_[i] == kNoNextHop) return nullptr;
    const NextHop& hop = next_hops_[neighbours_[i]];
    if (hop.interface == interface && hop.address == address) return &neighbours_[i];
  }
}

RoutesBuilder& RoutesBuilder::interfaces(std::vector<Interface> interfaces) {
  routes_->interfaces_ = std::move(interfaces);
  return *this;
}

RoutesBuilder& RoutesBuilder::routes(std::span<const RouteEntry> routes) {
  return table(RouteTable::build(routes));
}

RoutesBuilder& RoutesBuilder::table(std::shared_ptr<const RouteTable> table) {
  routes_->table_ = std::move(table);
  return *this;
}

RoutesBuilder& RoutesBuilder::next_hops(std::vector<NextHop> next_hops) {
  routes_->next_hops_ = std::move(next_hops);
  return *this;
}

RoutesBuilder& RoutesBuilder::generation(std::uint16_t generation) {
  routes_->generation_ = generation % kGenerations;
  return *this;
}

std::shared_ptr<const Routes> RoutesBuilder::build() {
  if (routes_->table_ == nullptr) routes({});
  index_neighbours();
  link_members();
  return std::exchange(routes_, std::make_shared<Routes>());
}

void RoutesBuilder::index_neighbours() {
  const std::vector<NextHop>& hops = routes_->next_hops_;
  auto& neighbours = routes_->neighbours_;
  neighbours.assign(std::bit_ceil(2 * hops.size() + 1), Routes::kNoNextHop);
  const std::size_t mask = neighbours.size() - 1;
  for (std::size_t index = 0; index < hops.size(); ++index) {
    if (!hops[index].used) continue;
    std::size_t i = hash_of(hops[index].interface, hops[index].address) & mask;
    while (neighbours[i] != Routes::kNoNextHop) i = (i + 1) & mask;
    neighbours[i] = static_cast<NextHopIndex>(index);
  }
}

void RoutesBuilder::link_members() {
  using Kind = Routes::Member::Kind;
  std::unordered_map<std::uint32_t, std::uint16_t> positions;
  for (std::size_t i = 0; i < routes_->interfaces_.size(); ++i) {
    const std::uint32_t kernel_index = routes_->interfaces_[i].kernel_index;
    if (kernel_index != 0) positions.emplace(kernel_index, static_cast<std::uint16_t>(i));
  }
  for (const RouteEntry::Hop& hop : routes_->table_->hops()) {
    Routes::Member& member = routes_->members_.emplace_back();
    const auto position = positions.find(hop.kernel_interface);
    if (position == positions.end()) continue;
    member.interface = position->second;
    if (hop.gateway.is_unspecified()) {
      member.kind = Kind::on_link;
      continue;
    }
    const NextHopIndex* next_hop = routes_->find_neighbour(member.interface, hop.gateway);
    member.kind = next_hop == nullptr ? Kind::gateway_without_next_hop : Kind::gateway;
    if (next_hop != nullptr) member.next_hop = *next_hop;
  }
}

}  // namespace weir
