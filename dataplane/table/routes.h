// SPDX-License-Identifier: Apache-2.0
// Where a packet for an address leaves: the kernel's routes and neighbours as immutable tables.
//
// Built by control from netlink, published in the Snapshot, read by workers. A worker asks once per
// connection and direction and caches the answer, so the tables favour memory and building time:
// routes are a sorted array of disjoint address ranges (a default route alone is one range), and a
// lookup is a binary search. Meaning as in the kernel's fib (net/ipv4/fib_semantics.c).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/net/addresses.h"

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

  // Any thread, wait-free. `flow_hash`, well mixed in its high bits, chooses among equal paths.
  Decision find(const IpAddress& destination, std::uint32_t flow_hash) const noexcept;

  std::span<const Interface> interfaces() const noexcept { return interfaces_; }
  std::span<const NextHop> next_hops() const noexcept { return next_hops_; }
  const NextHop& next_hop(NextHopIndex index) const noexcept { return next_hops_[index]; }

  // Changes whenever a cached NextHopIndex may mean something else: routes changed or a next hop's
  // slot was reused. Wraps at 4096.
  std::uint16_t generation() const noexcept { return generation_; }

 private:
  friend class RoutesBuilder;

  // What a hop of the table means here, at the same index as in table_->hops().
  struct Member {
    enum class Kind : std::uint8_t { not_ours, on_link, gateway, gateway_without_next_hop };
    Kind kind = Kind::not_ours;
    std::uint16_t interface = 0;
    NextHopIndex next_hop = 0;  // of a gateway
  };

  const NextHopIndex* find_neighbour(std::uint16_t interface,
                                     const IpAddress& address) const noexcept;

  static constexpr NextHopIndex kNoNextHop = ~0U;

  std::vector<Interface> interfaces_;
  std::vector<NextHop> next_hops_;
  std::shared_ptr<const RouteTable> table_ = std::make_shared<RouteTable>();
  std::vector<Member> members_;
  std::vector<NextHopIndex> neighbours_;  // open addressing, a power of two, at most half full
  std::uint16_t generation_ = 0;
};

// Makes Routes from lists. Next-hop slots are chosen by the caller, so that they stay stable.
class RoutesBuilder {
 public:
  RoutesBuilder& interfaces(std::vector<Interface> interfaces);
  RoutesBuilder& routes(std::span<const RouteEntry> routes);
  RoutesBuilder& table(std::shared_ptr<const RouteTable> table);  // instead of routes()
  // Index = NextHopIndex. A gateway on a weir interface that is not among them has no route.
  RoutesBuilder& next_hops(std::vector<NextHop> next_hops);
  RoutesBuilder& generation(std::uint16_t generation);
  // Once; the builder is empty afterwards.
  std::shared_ptr<const Routes> build();

 private:
  void index_neighbours();
  void link_members();

  std::shared_ptr<Routes> routes_ = std::make_shared<Routes>();
};

}  // namespace weir
