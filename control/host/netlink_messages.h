// SPDX-License-Identifier: Apache-2.0
// The kernel's rtnetlink messages as plain structures: what weir reads of them and no more.
// Pure functions over bytes. Source: rtnetlink(7),
// include/uapi/linux/{rtnetlink,if_link,neighbour}.h.
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/table/routes.h"

namespace weir {

struct Link {
  std::uint32_t index = 0;
  std::string name;
  std::string kind;  // "vlan", "macvlan", "veth", "vrf", ...; empty for a physical one
  MacAddress mac;
  std::uint32_t mtu = 0;
  bool up = false;                // administratively, and with carrier
  std::uint32_t parent = 0;       // of a vlan or macvlan; 0: none, or in another namespace
  std::uint32_t master = 0;       // the bridge, bond or vrf that it belongs to
  std::uint16_t vlan = 0;         // 802.1Q id
  bool is_provider_vlan = false;  // 802.1ad
};

struct InterfaceAddress {
  std::uint32_t link = 0;
  IpAddress address;
  bool is_source = false;  // fit to be a source: global, not deprecated, tentative or secondary
};

struct HostRoute {
  enum class Kind : std::uint8_t {
    forward,
    local,     // to the host: its addresses
    group,     // to the host: broadcast, multicast, anycast
    refusing,  // blackhole, unreachable, prohibit, throw
  };
  Kind kind = Kind::forward;
  std::uint32_t table = 0;
  std::uint32_t metric = 0;
  std::uint8_t preference = 0;  // RFC 4191, larger is better
  std::uint8_t type_of_service = 0;
  bool names_next_hop = false;  // by a next-hop object whose content the kernel has left out
  RouteEntry entry;             // without dead hops; none at all and Kind::forward: unusable
};

struct HostNeighbour {
  std::uint32_t link = 0;
  IpAddress address;
  std::uint16_t state = 0;  // NUD_*
  std::optional<MacAddress> mac;
};

struct PolicyRule {
  Family family = Family::ipv4;
  std::uint32_t priority = 0;
  std::uint32_t table = 0;
  bool is_plain_lookup = false;  // matches everything and looks up `table`
};

// Nothing for messages of other kinds or malformed ones.
std::optional<Link> parse_link(const nlmsghdr& message);
std::optional<InterfaceAddress> parse_address(const nlmsghdr& message);
std::optional<HostRoute> parse_route(const nlmsghdr& message);
std::optional<HostNeighbour> parse_neighbour(const nlmsghdr& message);
std::optional<PolicyRule> parse_rule(const nlmsghdr& message);

}  // namespace weir
