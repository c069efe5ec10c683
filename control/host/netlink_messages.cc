// SPDX-License-Identifier: Apache-2.0
#include "control/host/netlink_messages.h"

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace weir {

namespace {

// The attributes that follow a message's fixed part, or that a nested attribute holds.
class Attributes {
 public:
  Attributes(const nlmsghdr& message, int header_length)
      : valid_(::nlmsg_parse(const_cast<nlmsghdr*>(&message), header_length, table_.data(), kLast,
                             nullptr) == 0) {}
  Attributes(nlattr* head, int length)
      : valid_(::nla_parse(table_.data(), kLast, head, length, nullptr) == 0) {}
  explicit Attributes(nlattr* nested)
      : valid_(nested != nullptr &&
               ::nla_parse_nested(table_.data(), kLast, nested, nullptr) == 0) {}

  bool valid() const { return valid_; }
  nlattr* get(int type) const { return table_[static_cast<std::size_t>(type)]; }
  bool has(int type) const { return get(type) != nullptr; }

  template <class T>
  std::optional<T> value(int type) const {
    const nlattr* attribute = get(type);
    if (attribute == nullptr || ::nla_len(attribute) < static_cast<int>(sizeof(T))) return {};
    return load<T>(::nla_data(attribute));
  }
  std::uint32_t number(int type) const { return value<std::uint32_t>(type).value_or(0); }

  std::string text(int type) const {
    const nlattr* attribute = get(type);
    if (attribute == nullptr) return {};
    const char* chars = static_cast<const char*>(::nla_data(attribute));
    return {chars, ::strnlen(chars, static_cast<std::size_t>(::nla_len(attribute)))};
  }

  std::optional<MacAddress> mac(int type) const {
    const nlattr* attribute = get(type);
    if (attribute == nullptr || ::nla_len(attribute) != sizeof(MacAddress)) return {};
    return load<MacAddress>(::nla_data(attribute));
  }

  std::optional<IpAddress> address(int type, int family) const {
    if (family == AF_INET) {
      if (const auto ipv4 = value<Ipv4Address>(type)) return IpAddress(*ipv4);
    } else if (family == AF_INET6) {
      if (const auto ipv6 = value<Ipv6Address>(type)) return IpAddress(*ipv6);
    }
    return {};
  }

 private:
  // No kind of message that is read here has a type above it; higher ones are passed over.
  static constexpr int kLast = 127;
  std::array<nlattr*, kLast + 1> table_{};
  bool valid_;
};

// The fixed part of a message of one of two types; nullptr for others.
template <class Header>
const Header* header_of(const nlmsghdr& message, int type, int other_type) {
  if (message.nlmsg_type != type && message.nlmsg_type != other_type) return nullptr;
  if (!::nlmsg_valid_hdr(&message, sizeof(Header))) return nullptr;
  return static_cast<const Header*>(::nlmsg_data(&message));
}

bool is_ip(int family) { return family == AF_INET || family == AF_INET6; }

IpAddress unspecified(int family) {
  return family == AF_INET ? IpAddress(Ipv4Address{}) : IpAddress(Ipv6Address{});
}

void read_link_kind(const Attributes& attributes, Link& link) {
  const Attributes info(attributes.get(IFLA_LINKINFO));
  if (!info.valid()) return;
  link.kind = info.text(IFLA_INFO_KIND);
  if (link.kind != "vlan") return;
  const Attributes vlan(info.get(IFLA_INFO_DATA));
  if (!vlan.valid()) return;
  link.vlan = vlan.value<std::uint16_t>(IFLA_VLAN_ID).value_or(0);
  const auto protocol = vlan.value<Be16>(IFLA_VLAN_PROTOCOL);
  link.is_provider_vlan = protocol && protocol->host() != ETH_P_8021Q;
}

void read_gateway(const Attributes& attributes, int family, RouteEntry::Hop& hop) {
  hop.gateway = unspecified(family);
  if (const auto gateway = attributes.address(RTA_GATEWAY, family)) {
    hop.gateway = *gateway;
    return;
  }
  // struct rtvia: an address family, then the address.
  const nlattr* via = attributes.get(RTA_VIA);
  constexpr int kFamilyLength = sizeof(std::uint16_t);
  if (via == nullptr || ::nla_len(via) < kFamilyLength + static_cast<int>(sizeof(Ipv6Address))) {
    return;
  }
  const auto* bytes = static_cast<const std::uint8_t*>(::nla_data(via));
  if (load<std::uint16_t>(bytes) == AF_INET6)
    hop.gateway = load<Ipv6Address>(bytes + kFamilyLength);
}

// RTA_MULTIPATH: struct rtnexthop, each followed by its own attributes.
std::vector<RouteEntry::Hop> read_multipath(const nlattr* multipath, int family) {
  std::vector<RouteEntry::Hop> hops;
  auto* bytes = static_cast<std::uint8_t*>(::nla_data(multipath));
  auto rest = static_cast<std::size_t>(::nla_len(multipath));
  while (rest >= sizeof(rtnexthop)) {
    const auto next = load<rtnexthop>(bytes);
    if (next.rtnh_len < sizeof(rtnexthop) || next.rtnh_len > rest) break;
    const Attributes attributes(std::bit_cast<nlattr*>(bytes + sizeof(rtnexthop)),
                                next.rtnh_len - static_cast<int>(sizeof(rtnexthop)));
    if (attributes.valid() && (next.rtnh_flags & RTNH_F_DEAD) == 0) {
      RouteEntry::Hop& hop = hops.emplace_back();
      hop.kernel_interface = static_cast<std::uint32_t>(next.rtnh_ifindex);
      hop.weight = next.rtnh_hops + 1U;
      read_gateway(attributes, family, hop);
    }
    const std::size_t step = std::min<std::size_t>((next.rtnh_len + 3U) & ~3U, rest);
    bytes += step;
    rest -= step;
  }
  return hops;
}

HostRoute::Kind kind_of(unsigned char type) {
  switch (type) {
    case RTN_UNICAST:
      return HostRoute::Kind::forward;
    case RTN_LOCAL:
      return HostRoute::Kind::local;
    case RTN_BROADCAST:
    case RTN_ANYCAST:
    case RTN_MULTICAST:
      return HostRoute::Kind::group;
    default:
      return HostRoute::Kind::refusing;
  }
}

}  // namespace

std::optional<Link> parse_link(const nlmsghdr& message) {
  const auto* header = header_of<ifinfomsg>(message, RTM_NEWLINK, RTM_DELLINK);
  // A bridge's own messages about its members carry AF_BRIDGE.
  if (header == nullptr || header->ifi_family != AF_UNSPEC) return {};
  const Attributes attributes(message, sizeof(ifinfomsg));
  if (!attributes.valid()) return {};
  Link link;
  link.index = static_cast<std::uint32_t>(header->ifi_index);
  link.name = attributes.text(IFLA_IFNAME);
  link.mac = attributes.mac(IFLA_ADDRESS).value_or(MacAddress{});
  link.mtu = attributes.number(IFLA_MTU);
  link.up = (header->ifi_flags & IFF_UP) != 0 && (header->ifi_flags & IFF_LOWER_UP) != 0;
  if (!attributes.has(IFLA_LINK_NETNSID)) link.parent = attributes.number(IFLA_LINK);
  link.master = attributes.number(IFLA_MASTER);
  read_link_kind(attributes, link);
  return link;
}

std::optional<InterfaceAddress> parse_address(const nlmsghdr& message) {
  const auto* header = header_of<ifaddrmsg>(message, RTM_NEWADDR, RTM_DELADDR);
  if (header == nullptr) return {};
  const Attributes attributes(message, sizeof(ifaddrmsg));
  if (!attributes.valid()) return {};
  // On a point-to-point interface IFA_ADDRESS is the far side.
  auto address = attributes.address(IFA_LOCAL, header->ifa_family);
  if (!address) address = attributes.address(IFA_ADDRESS, header->ifa_family);
  if (!address) return {};
  constexpr std::uint32_t kUnfit =
      IFA_F_SECONDARY | IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED;
  const auto flags = attributes.value<std::uint32_t>(IFA_FLAGS).value_or(header->ifa_flags);
  return InterfaceAddress{header->ifa_index, *address,
                          header->ifa_scope == RT_SCOPE_UNIVERSE && (flags & kUnfit) == 0};
}

std::optional<HostRoute> parse_route(const nlmsghdr& message) {
  const auto* header = header_of<rtmsg>(message, RTM_NEWROUTE, RTM_DELROUTE);
  if (header == nullptr || !is_ip(header->rtm_family)) return {};
  if ((header->rtm_flags & RTM_F_CLONED) != 0) return {};
  const Attributes attributes(message, sizeof(rtmsg));
  if (!attributes.valid()) return {};
  const int family = header->rtm_family;
  HostRoute route;
  route.kind = kind_of(header->rtm_type);
  route.table = attributes.value<std::uint32_t>(RTA_TABLE).value_or(header->rtm_table);
  route.metric = attributes.number(RTA_PRIORITY);
  // ICMPV6_ROUTER_PREF_*: 0 medium, 1 high, 3 low.
  constexpr std::array<std::uint8_t, 4> kRank = {1, 2, 1, 0};
  route.preference = kRank[attributes.value<std::uint8_t>(RTA_PREF).value_or(0) % kRank.size()];
  route.type_of_service = header->rtm_tos;
  route.entry.prefix = {attributes.address(RTA_DST, family).value_or(unspecified(family)),
                        header->rtm_dst_len};
  if (route.kind == HostRoute::Kind::local || route.kind == HostRoute::Kind::group) {
    route.entry.hops = {RouteEntry::Hop{0, unspecified(family), 1}};
  } else if (route.kind == HostRoute::Kind::forward) {
    if (attributes.has(RTA_MULTIPATH)) {
      route.entry.hops = read_multipath(attributes.get(RTA_MULTIPATH), family);
    } else if ((header->rtm_flags & RTNH_F_DEAD) == 0 && attributes.has(RTA_OIF)) {
      RouteEntry::Hop& hop = route.entry.hops.emplace_back();
      hop.kernel_interface = attributes.number(RTA_OIF);
      read_gateway(attributes, family, hop);
    }
    route.names_next_hop =
        attributes.has(RTA_NH_ID) && !attributes.has(RTA_MULTIPATH) && !attributes.has(RTA_OIF);
  }
  return route;
}

std::optional<HostNeighbour> parse_neighbour(const nlmsghdr& message) {
  const auto* header = header_of<ndmsg>(message, RTM_NEWNEIGH, RTM_DELNEIGH);
  if (header == nullptr || !is_ip(header->ndm_family)) return {};
  if ((header->ndm_flags & NTF_PROXY) != 0) return {};
  const Attributes attributes(message, sizeof(ndmsg));
  if (!attributes.valid()) return {};
  const auto address = attributes.address(NDA_DST, header->ndm_family);
  if (!address) return {};
  return HostNeighbour{static_cast<std::uint32_t>(header->ndm_ifindex), *address, header->ndm_state,
                       attributes.mac(NDA_LLADDR)};
}

std::optional<PolicyRule> parse_rule(const nlmsghdr& message) {
  const auto* header = header_of<fib_rule_hdr>(message, RTM_NEWRULE, RTM_DELRULE);
  if (header == nullptr || !is_ip(header->family)) return {};
  const Attributes attributes(message, sizeof(fib_rule_hdr));
  if (!attributes.valid()) return {};
  PolicyRule rule;
  rule.family = header->family == AF_INET ? Family::ipv4 : Family::ipv6;
  rule.priority = attributes.number(FRA_PRIORITY);
  rule.table = attributes.value<std::uint32_t>(FRA_TABLE).value_or(header->table);
  constexpr std::array kSelectors = {FRA_IIFNAME, FRA_OIFNAME,     FRA_FWMARK,   FRA_L3MDEV,
                                     FRA_TUN_ID,  FRA_UID_RANGE,   FRA_IP_PROTO, FRA_SPORT_RANGE,
                                     FRA_GOTO,    FRA_DPORT_RANGE, FRA_SRC,      FRA_DST};
  constexpr std::uint32_t kNoSuppression = ~0U;
  rule.is_plain_lookup =
      header->action == FR_ACT_TO_TBL && header->src_len == 0 && header->dst_len == 0 &&
      header->tos == 0 &&
      attributes.value<std::uint32_t>(FRA_SUPPRESS_PREFIXLEN).value_or(kNoSuppression) ==
          kNoSuppression &&
      (header->flags & FIB_RULE_INVERT) == 0 &&
      std::ranges::none_of(kSelectors, [&](int type) { return attributes.has(type); });
  return rule;
}

}  // namespace weir
