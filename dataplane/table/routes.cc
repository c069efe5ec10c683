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

Way way_of(const Routes::Decision& decision) noexcept {
  using State = Way::State;
  switch (decision.answer) {
    case Routes::Answer::found:
      return {decision.next_hop, decision.interface, State::known};
    case Routes::Answer::missing:
      return {0, decision.interface, State::to_be_met};
    case Routes::Answer::not_ours:
    case Routes::Answer::no_route:
      break;
  }
  return {};
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
  const Member& member = (*members_)[chosen];
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

Way Routes::way_to(const IpAddress& destination) const noexcept {
  const auto flow_hash = static_cast<std::uint32_t>(hash_of(seed_, 0, destination));
  return way_of(find(destination, flow_hash));
}

std::uint64_t Routes::hash_of(std::uint64_t seed, std::uint16_t interface,
                              const IpAddress& address) noexcept {
  const auto low = load<std::uint64_t>(address.bytes().data());
  const auto high = load<std::uint64_t>(address.bytes().data() + 8);
  const std::uint64_t mixed = multiply_mix(low ^ seed, (high ^ 0x9e3779b97f4a7c15ULL) + interface);
  return multiply_mix(mixed ^ seed, 0xd1b54a32d192ed03ULL);
}

const NextHopIndex* Routes::find_neighbour(std::uint16_t interface,
                                           const IpAddress& address) const noexcept {
  const std::uint64_t hash = hash_of(seed_, interface, address);
  const Segment& segment = neighbours_[segment_of(hash)];
  for (std::uint64_t i = hash & segment.mask;; i = (i + 1) & segment.mask) {
    if (segment.places[i] == kNoNextHop) return nullptr;
    const NextHop& hop = next_hops_[segment.places[i]];
    if (hop.interface == interface && hop.address == address) return &segment.places[i];
  }
}

// ---- Editing ----

RoutesEditor::RoutesEditor(std::uint64_t seed) { draft_.seed_ = seed; }

RoutesEditor::~RoutesEditor() {
  next_hops_.give_up(replaced_);
  ways_.give_up(replaced_);
  for (Neighbours& segment : neighbours_) {
    if (segment.places != nullptr) replaced_.push_back(std::move(segment.places));
  }
  draft_.losses_->follow(std::move(replaced_));
}

RoutesEditor& RoutesEditor::interfaces(std::vector<Interface> interfaces) {
  draft_.interfaces_ = std::make_shared<const std::vector<Interface>>(std::move(interfaces));
  members_stale_ = true;
  return *this;
}

RoutesEditor& RoutesEditor::table(std::shared_ptr<const RouteTable> table) {
  draft_.table_ = std::move(table);
  members_stale_ = true;
  return *this;
}

RoutesEditor& RoutesEditor::next_hop(NextHopIndex index, const NextHop& hop) {
  const NextHop& before = next_hops_[index];
  const bool moves =
      before.used != hop.used || before.interface != hop.interface || before.address != hop.address;
  if (moves) move_neighbour(index, before, hop);
  next_hops_.edit(index) = hop;
  return *this;
}

RoutesEditor& RoutesEditor::way(WayIndex index, const Way& way) {
  if (ways_[index] != way) ways_.edit(index) = way;
  return *this;
}

RoutesEditor& RoutesEditor::generation(std::uint16_t generation) {
  draft_.generation_ = generation % kGenerations;
  return *this;
}

std::size_t RoutesEditor::segment_of(const NextHop& hop) const noexcept {
  return Routes::segment_of(Routes::hash_of(draft_.seed_, hop.interface, hop.address));
}

void RoutesEditor::move_neighbour(NextHopIndex index, const NextHop& before, const NextHop& after) {
  const auto touch = [this](std::size_t segment) -> std::vector<NextHopIndex>& {
    Neighbours& neighbours = neighbours_[segment];
    if (!std::exchange(neighbours.is_stale, true)) stale_.push_back(segment);
    return neighbours.all;
  };
  if (before.used) std::erase(touch(segment_of(before)), index);
  if (after.used) touch(segment_of(after)).push_back(index);
  members_stale_ = true;
}

void RoutesEditor::make_places(std::size_t segment) {
  Neighbours& neighbours = neighbours_[segment];
  const std::size_t size = std::bit_ceil(2 * neighbours.all.size() + 1);
  const std::size_t mask = size - 1;
  auto places = std::make_shared<std::vector<NextHopIndex>>(size, Routes::kNoNextHop);
  for (const NextHopIndex index : neighbours.all) {
    const NextHop& hop = next_hops_[index];
    std::size_t i = Routes::hash_of(draft_.seed_, hop.interface, hop.address) & mask;
    while ((*places)[i] != Routes::kNoNextHop) i = (i + 1) & mask;
    (*places)[i] = index;
  }
  draft_.neighbours_[segment] = {places->data(), static_cast<std::uint32_t>(mask)};
  if (neighbours.places != nullptr) replaced_.push_back(std::move(neighbours.places));
  neighbours.places = std::move(places);
  neighbours.is_stale = false;
}

void RoutesEditor::link_members() {
  using Kind = Routes::Member::Kind;
  std::unordered_map<std::uint32_t, std::uint16_t> positions;
  for (std::size_t i = 0; i < draft_.interfaces_->size(); ++i) {
    const std::uint32_t kernel_index = (*draft_.interfaces_)[i].kernel_index;
    if (kernel_index != 0) positions.emplace(kernel_index, static_cast<std::uint16_t>(i));
  }
  auto members = std::make_shared<std::vector<Routes::Member>>();
  for (const RouteEntry::Hop& hop : draft_.table_->hops()) {
    Routes::Member& member = members->emplace_back();
    const auto position = positions.find(hop.kernel_interface);
    if (position == positions.end()) continue;
    member.interface = position->second;
    if (hop.gateway.is_unspecified()) {
      member.kind = Kind::on_link;
      continue;
    }
    const NextHopIndex* next_hop = draft_.find_neighbour(member.interface, hop.gateway);
    member.kind = next_hop == nullptr ? Kind::gateway_without_next_hop : Kind::gateway;
    if (next_hop != nullptr) member.next_hop = *next_hop;
  }
  draft_.members_ = std::move(members);
  members_stale_ = false;
}

void RoutesEditor::bring_up_to_date() {
  for (const std::size_t segment : stale_) make_places(segment);
  stale_.clear();
  if (std::exchange(next_hop_pages_, next_hops_.pages_made()) != next_hops_.pages_made()) {
    draft_.next_hops_ = next_hops_.draft();
  }
  if (members_stale_) link_members();
}

Routes::Decision RoutesEditor::find(const IpAddress& destination, std::uint32_t flow_hash) {
  bring_up_to_date();
  return draft_.find(destination, flow_hash);
}

Way RoutesEditor::way_to(const IpAddress& destination) {
  bring_up_to_date();
  return draft_.way_to(destination);
}

std::shared_ptr<const Routes> RoutesEditor::publish() {
  bring_up_to_date();
  draft_.next_hops_ = next_hops_.publish(replaced_);
  draft_.ways_ = ways_.publish(replaced_);
  draft_.losses_ = draft_.losses_->follow(std::exchange(replaced_, {}));
  return std::make_shared<const Routes>(draft_);
}

}  // namespace weir
