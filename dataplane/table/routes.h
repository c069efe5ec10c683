// SPDX-License-Identifier: Apache-2.0
// Where a packet for an address leaves: the kernel's routes and neighbours as immutable tables.
//
// Built by control from netlink, published in the Snapshot, read by workers. A worker asks once per
// connection and direction and caches the answer, so the tables favour memory and building time:
// routes are a sorted array of disjoint address ranges (a default route alone is one range), and a
// lookup is a binary search. Meaning as in the kernel's fib (net/ipv4/fib_semantics.c).
//
// Real servers have a Way each, at an index that stays theirs: a route or a neighbour that changes
// changes ways and next hops, and no service. Versions share what did not change.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/net/mix.h"
#include "dataplane/table/paged_array.h"

namespace weir {

// One of weir's ports, or a VLAN interface of the kernel on it.
struct Interface {
  std::uint32_t kernel_index = 0;  // ifindex
  std::uint16_t port = 0;          // index of the weir port that frames leave through
  std::uint16_t vlan = 0;          // 802.1Q id, 0: untagged
  std::uint16_t mtu = 1500;        // bytes of the IP packet
  bool up = false;
  MacAddress mac;
  // For ICMP errors and tunnels that weir originates; unspecified where the interface has none.
  IpAddress ipv4_source;
  IpAddress ipv6_source;
  friend bool operator==(const Interface&, const Interface&) = default;
};

using NextHopIndex = std::uint32_t;

// A neighbour on a weir interface: everything that is needed to send a frame to it.
struct NextHop {
  MacAddress destination;
  MacAddress source;
  std::uint16_t interface = 0;  // index into Routes::interfaces()
  std::uint16_t port = 0;
  std::uint16_t vlan = 0;
  std::uint16_t mtu = 1500;
  bool resolved = false;  // `destination` is valid
  bool used = false;      // the slot holds a neighbour
  IpAddress address;
};

using WayIndex = std::uint32_t;

// How packets reach one address.
struct Way {
  enum class State : std::uint8_t {
    none,       // not through weir's interfaces
    to_be_met,  // on link through `interface`; its neighbour has no next hop yet
    known,      // by `next_hop`, which may still be unresolved
  };
  NextHopIndex next_hop = 0;
  std::uint16_t interface = 0;  // index into Routes::interfaces()
  State state = State::none;
  friend bool operator==(const Way&, const Way&) noexcept = default;
};
static_assert(sizeof(Way) == 8);

// What the kernel's tables say about one prefix, already chosen among metrics and tables.
struct RouteEntry {
  struct Hop {
    std::uint32_t kernel_interface = 0;  // 0: the host itself (local, broadcast)
    IpAddress gateway;                   // unspecified: on link. May be IPv6 for an IPv4 prefix.
    std::uint32_t weight = 1;            // at least 1
    friend bool operator==(const Hop&, const Hop&) = default;
  };
  IpPrefix prefix;
  std::vector<Hop> hops;  // several for ECMP, none: blackhole, unreachable, prohibit
  friend bool operator==(const RouteEntry&, const RouteEntry&) = default;
};

// Prefixes flattened into disjoint ranges; the costly part of Routes (0.2 us per route), so that
// neighbours and interfaces can change without building it again. Immutable: any thread.
class RouteTable {
 public:
  // Distinct prefixes, in any order.
  static std::shared_ptr<const RouteTable> build(std::span<const RouteEntry> routes);

  struct Group {  // hops()[first, first + count)
    std::uint32_t first = 0;
    std::uint32_t count = 0;
    std::uint64_t total_weight = 0;
  };
  // The longest matching prefix's hops; nullptr: no route, or one that refuses.
  const Group* find(const IpAddress& destination) const noexcept;
  // Every hop of every group, each group once.
  std::span<const RouteEntry::Hop> hops() const noexcept { return hops_; }

 private:
  static constexpr std::uint32_t kNoGroup = ~0U;
  struct Key128 {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    friend constexpr auto operator<=>(const Key128&, const Key128&) noexcept = default;
  };
  template <class Key>
  struct Range {
    Key first;            // in host order; the range ends before the next one's first
    std::uint32_t group;  // index into groups_
  };
  friend class RouteTableBuilder;

  std::vector<Range<std::uint32_t>> ipv4_;
  std::vector<Range<Key128>> ipv6_;
  std::vector<Group> groups_;
  std::vector<RouteEntry::Hop> hops_;
};

class Routes {
 public:
  static constexpr std::size_t kMaxNextHops = 131072;
  static constexpr std::size_t kMaxWays = 262144;

  enum class Answer : std::uint8_t {
    found,     // `next_hop` is set; it may still be unresolved
    missing,   // on link through `interface`, but no next hop has been made for the address yet
    not_ours,  // leaves through an interface that is none of weir's ports (lo included)
    no_route,
  };
  struct Decision {
    Answer answer = Answer::no_route;
    std::uint16_t interface = 0;
    NextHopIndex next_hop = 0;
  };

  // All of these: any thread, wait-free. `flow_hash`, whose bits are all random, chooses among
  // equal paths.
  Decision find(const IpAddress& destination, std::uint32_t flow_hash) const noexcept;
  // The way that packets for one address take, whatever their flow.
  Way way_to(const IpAddress& destination) const noexcept;

  std::span<const Interface> interfaces() const noexcept { return *interfaces_; }
  // Below kMaxNextHops; `used` is false where there is none.
  const NextHop& next_hop(NextHopIndex index) const noexcept { return next_hops_[index]; }
  const Way& way(WayIndex index) const noexcept { return ways_[index]; }

  // Changes whenever a cached NextHopIndex may mean something else: routes changed or a next hop's
  // slot was reused. Wraps at 4096.
  std::uint16_t generation() const noexcept { return generation_; }

 private:
  friend class RoutesEditor;

  static constexpr std::size_t kNextHopPage = 64;
  static constexpr std::size_t kWayPage = 512;
  using NextHops = PagedArray<NextHop, kNextHopPage, kMaxNextHops / kNextHopPage>;
  using Ways = PagedArray<Way, kWayPage, kMaxWays / kWayPage>;
  using Interfaces = std::shared_ptr<const std::vector<Interface>>;

  // What a hop of the table means here, at the same index as in table_->hops().
  struct Member {
    enum class Kind : std::uint8_t { not_ours, on_link, gateway, gateway_without_next_hop };
    Kind kind = Kind::not_ours;
    std::uint16_t interface = 0;
    NextHopIndex next_hop = 0;  // of a gateway
  };

  // The next hops of one share of all (interface, address), in open addressing.
  static constexpr std::size_t kSegments = 1024;
  static constexpr NextHopIndex kNoNextHop = ~0U;
  struct Segment {
    const NextHopIndex* places = &kNoNextHop;
    std::uint32_t mask = 0;
  };
  static std::uint64_t hash_of(std::uint64_t seed, std::uint16_t interface,
                               const IpAddress& address) noexcept;
  static std::size_t segment_of(std::uint64_t hash) noexcept { return hash >> 54U; }
  const NextHopIndex* find_neighbour(std::uint16_t interface,
                                     const IpAddress& address) const noexcept;

  Interfaces interfaces_ = std::make_shared<const std::vector<Interface>>();
  NextHops::View next_hops_;
  Ways::View ways_;
  std::shared_ptr<const RouteTable> table_ = std::make_shared<RouteTable>();
  std::shared_ptr<const std::vector<Member>> members_ =
      std::make_shared<const std::vector<Member>>();
  std::array<Segment, kSegments> neighbours_;
  // Whoever sends from many addresses on link cannot know which of them meet.
  std::uint64_t seed_ = 0;
  std::uint16_t generation_ = 0;
  std::shared_ptr<Losses> losses_ = std::make_shared<Losses>();
};

// The flow hash of everything that goes to one address.
inline std::uint32_t path_hash(const IpAddress& destination) noexcept {
  // Folded once more: a fold's low half hardly depends on the high half of what went in.
  constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15U;
  return static_cast<std::uint32_t>(multiply_mix(std::hash<IpAddress>{}(destination), kOdd) >> 32);
}

// Makes one version of Routes after the other; each costs what has changed since the one before.
// Thread: control's, or whose it is; of the versions, the last use too.
class RoutesEditor {
 public:
  // `seed` is secret.
  explicit RoutesEditor(std::uint64_t seed = 0);
  // Versions live on.
  ~RoutesEditor();
  RoutesEditor(const RoutesEditor&) = delete;
  RoutesEditor& operator=(const RoutesEditor&) = delete;

  RoutesEditor& interfaces(std::vector<Interface> interfaces);
  RoutesEditor& table(std::shared_ptr<const RouteTable> table);
  RoutesEditor& routes(std::span<const RouteEntry> routes) {
    return table(RouteTable::build(routes));
  }
  // A hop whose `used` is false frees the index. A gateway on a weir interface without a next hop
  // has no route.
  RoutesEditor& next_hop(NextHopIndex index, const NextHop& hop);
  RoutesEditor& way(WayIndex index, const Way& way);
  RoutesEditor& generation(std::uint16_t generation);

  const NextHop& next_hop_at(NextHopIndex index) const { return next_hops_[index]; }

  // The kernel's decision for an address, from all that has been said so far.
  Routes::Decision find(const IpAddress& destination, std::uint32_t flow_hash);
  Way way_to(const IpAddress& destination);

  std::shared_ptr<const Routes> publish();

 private:
  struct Neighbours {  // of one segment
    std::vector<NextHopIndex> all;
    std::shared_ptr<const void> places;
    bool is_stale = false;
  };

  void move_neighbour(NextHopIndex index, const NextHop& before, const NextHop& after);
  std::size_t segment_of(const NextHop& hop) const noexcept;
  void bring_up_to_date();
  void make_places(std::size_t segment);
  void link_members();

  Routes draft_;
  Routes::NextHops next_hops_;
  std::size_t next_hop_pages_ = 0;  // that draft_ has
  Routes::Ways ways_;
  std::vector<Neighbours> neighbours_ = std::vector<Neighbours>(Routes::kSegments);
  std::vector<std::size_t> stale_;  // of these
  bool members_stale_ = true;
  RetiredParts replaced_;
};

}  // namespace weir
