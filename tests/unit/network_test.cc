// SPDX-License-Identifier: Apache-2.0
// What weir knows of the host's network, against the real kernel: a director's namespace and a far
// one, joined by a veth pair.
#include "control/host/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>

#include "tests/support/network_namespace.h"

namespace weir {
namespace {

using std::chrono_literals::operator""s;
using std::chrono_literals::operator""ms;
using Answer = Routes::Answer;
using Clock = std::chrono::steady_clock;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

IpAddress address(std::string_view text) { return IpAddress::parse(text).value(); }
MacAddress mac(std::string_view text) { return MacAddress::parse(text).value(); }

// The test's thread is in the director's namespace: `eth0`, the weir port, faces `far0`; `eth1` is
// none of weir's.
class NetworkTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!director_.exists() || !far_.exists()) GTEST_SKIP() << "network namespaces need root";
    director_.enter();
    // No waiting for duplicate address detection: without a source, IPv6 does not resolve.
    sh("sysctl -qw net.ipv6.conf.default.accept_dad=0");
    far("sysctl -qw net.ipv6.conf.default.accept_dad=0");
    sh("ip link add eth0 address 02:00:00:00:00:01 type veth peer name far0 netns " + far_.path());
    sh("ip link add eth1 type veth peer name far1 netns " + far_.path());
    sh("ip link set lo up && ip link set eth0 up && ip link set eth1 up");
    sh("ip addr add 10.1.0.1/24 dev eth0 && ip -6 addr add fd01::1/64 dev eth0 nodad");
    sh("ip addr add 10.2.0.1/24 dev eth1");
    far("ip link set far0 address 02:00:00:00:00:02");
    far("ip link set lo up && ip link set far0 up && ip link set far1 up");
    far("ip addr add 10.1.0.2/24 dev far0 && ip -6 addr add fd01::2/64 dev far0 nodad");
  }

  void sh(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }
  void far(const std::string& command) { ASSERT_EQ(far_.run(command), 0) << command; }

  void open() {
    auto opened = Network::open(io_, {{0, "eth0"}});
    ASSERT_TRUE(opened.ok()) << opened.status();
    network_ = *std::move(opened);
    network_->on_change([this](const Network::Change&) { ++changes_; });
  }

  // Runs the control thread's loop until `condition` holds; how long that took.
  template <class Condition>
  std::chrono::milliseconds until(Condition condition, std::chrono::milliseconds limit = 20s) {
    const auto start = Clock::now();
    while (!condition() && Clock::now() - start < limit) io_.run_one_for(50ms);
    EXPECT_TRUE(condition());
    return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
  }

  Routes::Decision find(std::string_view text) {
    return network_->routes()->find(address(text), 0);
  }
  Answer answer(std::string_view text) { return find(text).answer; }
  const NextHop& next_hop(std::string_view text) {
    return network_->routes()->next_hop(find(text).next_hop);
  }
  bool reaches(std::string_view text, std::string_view wanted) {
    return answer(text) == Answer::found && next_hop(text).resolved &&
           next_hop(text).destination == mac(wanted);
  }
  bool complains(const std::string& text) {
    return testing::Matches(Contains(HasSubstr(text)))(network_->complaints());
  }

  NetworkNamespace director_;
  NetworkNamespace far_;
  boost::asio::io_context io_;
  std::unique_ptr<Network> network_;
  int changes_ = 0;
};

TEST_F(NetworkTest, UnknownInterfaceIsRefusedByName) {
  const auto opened = Network::open(io_, {{0, "eth7"}});
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr("eth7"));
}

TEST_F(NetworkTest, RoutesAreThoseOfTheKernelAtStart) {
  sh("ip route add 10.7.0.0/16 via 10.1.0.2");
  sh("ip route add 10.7.1.0/24 via 10.2.0.9");
  sh("ip route add blackhole 10.7.2.0/24 && ip route add unreachable 10.7.3.0/24");
  sh("ip route add 10.7.4.0/24 via 10.1.0.2 table 77");
  sh("ip -6 route add fd07::/64 via fd01::2 && ip -6 route add fd08::/64 via fe80::2 dev eth0");
  open();
  EXPECT_EQ(answer("10.7.9.9"), Answer::found);
  EXPECT_EQ(next_hop("10.7.9.9").address, address("10.1.0.2"));
  EXPECT_EQ(next_hop("10.7.9.9").source, mac("02:00:00:00:00:01"));
  EXPECT_EQ(answer("10.7.1.1"), Answer::not_ours);
  EXPECT_EQ(answer("10.7.2.1"), Answer::no_route);
  EXPECT_EQ(answer("10.7.3.1"), Answer::no_route);
  EXPECT_EQ(next_hop("10.7.4.1").address, address("10.1.0.2"));
  EXPECT_EQ(next_hop("fd07::1").address, address("fd01::2"));
  EXPECT_EQ(next_hop("fd08::1").address, address("fe80::2"));
  EXPECT_EQ(answer("10.1.0.200"), Answer::missing);
  EXPECT_EQ(answer("fd01::200"), Answer::missing);
  EXPECT_EQ(answer("10.1.0.1"), Answer::not_ours);
  EXPECT_EQ(answer("10.1.0.255"), Answer::not_ours);
  EXPECT_EQ(answer("127.0.0.1"), Answer::not_ours);
  EXPECT_EQ(answer("192.0.2.1"), Answer::no_route);
  EXPECT_EQ(network_->routes()->interfaces()[0].ipv4_source, address("10.1.0.1"));
  EXPECT_EQ(network_->routes()->interfaces()[0].ipv6_source, address("fd01::1"));
  EXPECT_THAT(network_->complaints(), IsEmpty());
}

TEST_F(NetworkTest, RoutesFollowTheKernel) {
  open();
  EXPECT_EQ(answer("10.7.9.9"), Answer::no_route);
  const std::uint16_t before = network_->routes()->generation();
  sh("ip route add 10.7.0.0/16 via 10.1.0.2");
  until([&] { return answer("10.7.9.9") == Answer::found; });
  EXPECT_NE(network_->routes()->generation(), before);
  sh("ip route replace 10.7.0.0/16 via 10.2.0.9");
  until([&] { return answer("10.7.9.9") == Answer::not_ours; });
  sh("ip route add 10.7.0.0/16 via 10.1.0.2 metric 5");  // worse than the other's metric 0
  sh("ip route del 10.7.0.0/16 via 10.2.0.9");
  until([&] { return answer("10.7.9.9") == Answer::found; });
  // The kernel withdraws IPv4 routes of a link that goes down without a word about them.
  sh("ip link set eth0 down");
  until([&] { return answer("10.7.9.9") == Answer::no_route; });
  EXPECT_EQ(network_->link_state(0), Network::LinkState::down);
}

TEST_F(NetworkTest, EqualPathsAndNexthopObjectsAreShared) {
  sh("ip route add 10.7.0.0/16 nexthop via 10.1.0.2 weight 1 nexthop via 10.1.0.3 weight 3");
  sh("ip nexthop add id 5 via 10.1.0.4 dev eth0 && ip route add 10.8.0.0/16 nhid 5");
  sh("ip -6 route add fd07::/64 nexthop via fd01::2 nexthop via fd01::3");
  open();
  const auto via = [&](std::string_view text, std::uint32_t hash) {
    const auto routes = network_->routes();
    return routes->next_hop(routes->find(address(text), hash).next_hop).address.to_string();
  };
  EXPECT_EQ(via("10.7.0.1", 0x30000000), "10.1.0.2");
  EXPECT_EQ(via("10.7.0.1", 0x50000000), "10.1.0.3");
  EXPECT_EQ(via("10.8.0.1", 0), "10.1.0.4");
  EXPECT_NE(via("fd07::1", 0), via("fd07::1", ~0U));
  sh("ip nexthop replace id 5 via 10.1.0.5 dev eth0");
  until([&] { return via("10.8.0.1", 0) == "10.1.0.5"; });
}

TEST_F(NetworkTest, NextHopObjectsThatTheKernelKeepsToItselfAreSaid) {
  sh("sysctl -qw net.ipv4.nexthop_compat_mode=0");
  sh("ip nexthop add id 5 via 10.1.0.4 dev eth0 && ip route add 10.8.0.0/16 nhid 5");
  open();
  EXPECT_EQ(answer("10.8.0.1"), Answer::no_route);
  EXPECT_TRUE(complains("1 routes by next-hop objects are not used"));
  sh("sysctl -qw net.ipv4.nexthop_compat_mode=1");
  sh("ip route add 10.9.0.0/16 via 10.1.0.2");
  until([&] { return answer("10.8.0.1") == Answer::found; });
  EXPECT_FALSE(complains("next-hop objects"));
}

TEST_F(NetworkTest, DeadPathOfSeveralIsLeftOut) {
  sh("ip route add 10.7.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.9");
  open();
  const auto last_path = [&] { return network_->routes()->find(address("10.7.0.1"), ~0U).answer; };
  EXPECT_EQ(last_path(), Answer::not_ours);
  sh("ip link set eth1 down");
  until([&] { return last_path() == Answer::found; });
}

TEST_F(NetworkTest, Ipv4RouteThroughAnIpv6GatewayIsUsed) {
  sh("ip route add 10.7.0.0/16 via inet6 fe80::2 dev eth0");
  open();
  EXPECT_EQ(next_hop("10.7.0.1").address, address("fe80::2"));
}

TEST_F(NetworkTest, AddressesOfTheHostAreOwned) {
  open();
  EXPECT_TRUE(network_->owns(address("10.1.0.1")));
  EXPECT_TRUE(network_->owns(address("10.2.0.1")));
  EXPECT_FALSE(network_->owns(address("10.1.0.2")));
  EXPECT_FALSE(network_->owns(address("10.1.0.255")));
  EXPECT_FALSE(network_->owns(address("127.0.0.1")));
  EXPECT_FALSE(network_->owns(address("::1")));
  sh("ip addr add 192.0.2.80/32 dev lo && ip -6 addr add 2001:db8::80/128 dev lo");
  sh("ip addr add 10.1.0.99/24 dev eth0");  // secondary
  until([&] {
    return network_->owns(address("192.0.2.80")) && network_->owns(address("2001:db8::80")) &&
           network_->owns(address("10.1.0.99"));
  });
  EXPECT_THAT(network_->addresses(), Contains(address("192.0.2.80")));
  EXPECT_EQ(answer("192.0.2.80"), Answer::not_ours);
  sh("ip addr del 192.0.2.80/32 dev lo && ip addr del 10.1.0.99/24 dev eth0");
  until([&] {
    return !network_->owns(address("192.0.2.80")) && !network_->owns(address("10.1.0.99"));
  });
  EXPECT_THAT(network_->addresses(), Not(Contains(address("192.0.2.80"))));
}

TEST_F(NetworkTest, LocalPrefixIsOwnedAsTheKernelRoutesIt) {
  sh("ip route add local 10.9.0.0/24 dev lo && ip route add 10.9.0.5/32 via 10.1.0.2");
  sh("ip -6 route add local fd09::/64 dev lo && ip -6 route add fd09::5/128 via fd01::2");
  open();
  EXPECT_TRUE(network_->owns(address("10.9.0.4")));
  EXPECT_FALSE(network_->owns(address("10.9.0.5")));  // `ip route get`: via 10.1.0.2
  EXPECT_EQ(answer("10.9.0.5"), Answer::found);
  EXPECT_TRUE(network_->owns(address("fd09::5")));  // `ip route get`: local
}

TEST_F(NetworkTest, MacsIncludeMacvlansOnThePort) {
  open();
  EXPECT_THAT(network_->macs(0), ElementsAre(mac("02:00:00:00:00:01")));
  sh("ip link add vrrp.51 link eth0 address 00:00:5e:00:01:33 type macvlan mode private");
  until([&] { return network_->macs(0).size() == 2; });
  EXPECT_THAT(network_->macs(0),
              UnorderedElementsAre(mac("02:00:00:00:00:01"), mac("00:00:5e:00:01:33")));
  sh("ip link set vrrp.51 up && ip addr add 10.5.0.1/24 dev vrrp.51");
  until([&] { return answer("10.5.0.9") == Answer::missing; });
  sh("ip link set eth0 address 02:00:00:00:00:99 && ip link del vrrp.51");
  until([&] { return network_->macs(0) == std::vector{mac("02:00:00:00:00:99")}; });
}

TEST_F(NetworkTest, DeletedInterfaceIsTold) {
  open();
  EXPECT_EQ(network_->link_state(0), Network::LinkState::up);
  far("ip link set far0 down");
  until([&] { return network_->link_state(0) == Network::LinkState::down; });
  sh("ip link del eth0");
  until([&] { return network_->link_state(0) == Network::LinkState::deleted; });
  EXPECT_EQ(answer("10.1.0.2"), Answer::no_route);
  EXPECT_GE(changes_, 2);
}

TEST_F(NetworkTest, PolicyRulesAndVrfsAreNamed) {
  open();
  sh("ip rule add pref 100 from 10.7.0.0/16 lookup 77");
  sh("ip -6 rule add pref 200 lookup main suppress_prefixlength 0");
  until([&] { return complains("IPv4 policy rule of priority 100"); });
  until([&] { return complains("IPv6 policy rule of priority 200"); });
  sh("ip rule del pref 100 && ip -6 rule del pref 200");
  until([&] { return network_->complaints().empty(); });
  sh("ip link add br0 type bridge && ip link set eth0 master br0");
  until([&] { return complains("eth0 belongs to br0 (bridge)"); });
}

TEST_F(NetworkTest, MissingNeighbourIsResolved) {
  open();
  for (const std::string neighbour : {"10.1.0.2", "fd01::2"}) {
    ASSERT_EQ(answer(neighbour), Answer::missing);
    network_->neighbour_missing(find(neighbour).interface, address(neighbour));
    const auto took = until([&] { return reaches(neighbour, "02:00:00:00:00:02"); });
    std::cout << neighbour << " resolved after " << took.count() << " ms\n";
  }
}

TEST_F(NetworkTest, UnansweredNeighbourStaysUnresolvedAndIsAskedAgain) {
  open();
  network_->neighbour_missing(0, address("10.1.0.50"));
  until([&] { return answer("10.1.0.50") == Answer::found; });
  EXPECT_FALSE(next_hop("10.1.0.50").resolved);
  // Past the kernel's three attempts.
  until([&] { return std::system("ip neigh show nud failed | grep -q 10.1.0.50") == 0; }, 8s);
  far("ip addr add 10.1.0.50/24 dev far0");
  until([&] { return reaches("10.1.0.50", "02:00:00:00:00:02"); }, 8s);
}

TEST_F(NetworkTest, SilentlyChangedMacIsKnownWithinTenSeconds) {
  sh("ip route add 10.7.0.0/16 via 10.1.0.2");
  open();
  for (const char* server : {"fd01::2", "10.7.0.9", "10.2.0.9"}) {
    network_->acquire_way(address(server));
  }
  until([&] {
    return reaches("10.7.0.1", "02:00:00:00:00:02") && reaches("fd01::2", "02:00:00:00:00:02");
  });
  far("sysctl -qw net.ipv4.conf.all.arp_notify=0 net.ipv4.conf.far0.arp_notify=0 "
      "net.ipv6.conf.far0.ndisc_notify=0");
  far("ip link set far0 address 02:00:00:00:00:33");
  const auto took = until(
      [&] {
        // The last known MAC stays usable meanwhile.
        EXPECT_TRUE(next_hop("10.7.0.1").resolved && next_hop("fd01::2").resolved);
        return reaches("10.7.0.1", "02:00:00:00:00:33") && reaches("fd01::2", "02:00:00:00:00:33");
      },
      10s);
  std::cout << "both families followed after " << took.count() << " ms\n";
}

TEST_F(NetworkTest, WaysFollowRoutesNeighboursAndLinks) {
  open();
  const WayIndex server = network_->acquire_way(address("10.7.0.9"));
  const WayIndex near = network_->acquire_way(address("10.1.0.2"));
  EXPECT_EQ(network_->acquire_way(address("10.1.0.2")), near) << "one address, one way";
  const auto way = [&](WayIndex index) { return network_->current_routes()->way(index); };
  EXPECT_EQ(way(server).state, Way::State::none);
  EXPECT_EQ(way(near).state, Way::State::known);
  until([&] { return network_->routes()->next_hop(way(near).next_hop).resolved; });
  sh("ip route add 10.7.0.0/16 via 10.1.0.2");
  until([&] { return way(server).state == Way::State::known; });
  EXPECT_EQ(way(server).next_hop, way(near).next_hop);
  sh("ip route add 10.7.0.9/32 via 10.2.0.9");
  until([&] { return way(server).state == Way::State::none; });
  sh("ip route del 10.7.0.9/32 && ip link set eth0 down");
  until([&] { return way(near).state == Way::State::none; });
  sh("ip link set eth0 up && ip route add 10.7.0.0/16 via 10.1.0.2");
  until([&] {
    return way(server).state == Way::State::known && way(near).state == Way::State::known;
  });
  network_->release_way(address("10.1.0.2"));
  EXPECT_EQ(way(near).state, Way::State::known);
  network_->release_way(address("10.1.0.2"));
  EXPECT_EQ(way(near).state, Way::State::none);
  EXPECT_EQ(network_->acquire_way(address("10.1.0.7")), near) << "places are used again";
}

TEST_F(NetworkTest, AddressesThatNoServerCanHaveAreNamed) {
  open();
  EXPECT_FALSE(network_->problem_with(address("10.1.0.2")));
  EXPECT_FALSE(network_->problem_with(address("198.51.100.255")));
  ASSERT_TRUE(network_->problem_with(address("10.1.0.255")));
  EXPECT_THAT(*network_->problem_with(address("10.1.0.255")), HasSubstr("broadcast"));
  EXPECT_THAT(*network_->problem_with(address("fe80::9")), HasSubstr("link-local"));
}

TEST_F(NetworkTest, PermanentNeighbourIsLeftAlone) {
  sh("ip neigh add 10.1.0.60 lladdr 02:00:00:00:00:60 dev eth0 nud permanent");
  open();
  network_->acquire_way(address("10.1.0.60"));
  until([&] { return reaches("10.1.0.60", "02:00:00:00:00:60"); });
  const auto end = Clock::now() + Neighbours::kProbeInterval + 500ms;
  until([&] { return Clock::now() > end; });
  EXPECT_EQ(std::system("ip neigh show 10.1.0.60 | grep -q PERMANENT"), 0);
}

TEST_F(NetworkTest, NeighbourMadePermanentBehindItsBackIsLeftAlone) {
  open();
  sh("ip neigh add 10.1.0.60 lladdr 02:00:00:00:00:60 dev eth0 nud permanent");
  network_->neighbour_missing(0, address("10.1.0.60"));  // before the event is read
  until([&] { return reaches("10.1.0.60", "02:00:00:00:00:60"); });
  EXPECT_EQ(std::system("ip neigh show 10.1.0.60 | grep -q PERMANENT"), 0);
}

TEST_F(NetworkTest, ManyChangesAtOnceEndInTheRightPicture) {
  open();
  sh("for i in $(seq 0 255); do for j in $(seq 0 15); do "
     "echo route add 10.$((100 + j)).$i.0/24 via 10.1.0.2; done; done | ip -batch -");
  const auto took = until([&] {
    return answer("10.100.0.1") == Answer::found && answer("10.115.255.1") == Answer::found;
  });
  std::cout << "4096 routes published " << took.count() << " ms after the last, in " << changes_
            << " publications\n";
  sh("for i in $(seq 0 255); do for j in $(seq 0 15); do "
     "echo route del 10.$((100 + j)).$i.0/24; done; done | ip -batch -");
  until([&] { return answer("10.100.0.1") == Answer::no_route; });
  until([&] { return answer("10.115.255.1") == Answer::no_route; });
}

// Messages that the kernel could not deliver, over this namespace's netlink sockets.
unsigned lost_messages() {
  std::ifstream file("/proc/thread-self/net/netlink");
  std::string line;
  unsigned result = 0;
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    std::string field;
    for (int i = 0; i < 9; ++i) fields >> field;
    if (unsigned drops = 0; std::istringstream(field) >> drops) result += drops;
  }
  return result;
}

TEST_F(NetworkTest, LostEventsAreMadeGood) {
  open();
  network_->acquire_way(address("10.1.0.60"));
  sh("for i in $(seq 100 199); do for j in $(seq 1 200); do "
     "echo neigh add 10.1.$i.$j lladdr 02:00:00:00:00:60 nud permanent dev eth0; done; done "
     "| ip -batch -");
  sh("ip neigh replace 10.1.0.60 lladdr 02:00:00:00:00:60 nud permanent dev eth0");
  sh("ip route add 10.7.0.0/16 via 10.1.0.60");
  ASSERT_GT(lost_messages(), 0U);
  until([&] { return reaches("10.7.0.1", "02:00:00:00:00:60"); });
}

TEST_F(NetworkTest, DestructionWhileReadingIsHarmless) {
  open();
  sh("ip route add 10.7.0.0/16 via 10.1.0.2");
  io_.run_one_for(50ms);
  network_.reset();
  io_.run_for(20ms);
}

// ---- What this kernel may lack, from hand-made messages.

TEST(NetlinkMessages, VlanInterfaceIsParsed) {
  const std::unique_ptr<nl_msg, decltype(&::nlmsg_free)> message(
      ::nlmsg_alloc_simple(RTM_NEWLINK, 0), ::nlmsg_free);
  ifinfomsg header{};
  header.ifi_index = 12;
  ::nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO);
  ::nla_put_string(message.get(), IFLA_IFNAME, "eth0.100");
  ::nla_put_u32(message.get(), IFLA_LINK, 3);
  nlattr* info = ::nla_nest_start(message.get(), IFLA_LINKINFO);
  ::nla_put_string(message.get(), IFLA_INFO_KIND, "vlan");
  nlattr* data = ::nla_nest_start(message.get(), IFLA_INFO_DATA);
  ::nla_put_u16(message.get(), IFLA_VLAN_ID, 100);
  ::nla_put_u16(message.get(), IFLA_VLAN_PROTOCOL, Be16::from_host(ETH_P_8021Q).raw());
  ::nla_nest_end(message.get(), data);
  ::nla_nest_end(message.get(), info);
  const auto link = parse_link(*::nlmsg_hdr(message.get()));
  ASSERT_TRUE(link);
  EXPECT_EQ(link->kind, "vlan");
  EXPECT_EQ(link->vlan, 100);
  EXPECT_EQ(link->parent, 3U);
  EXPECT_FALSE(link->is_provider_vlan);
}

HostRoute route(std::uint32_t metric, std::uint32_t link) {
  HostRoute result;
  result.table = RT_TABLE_MAIN;
  result.metric = metric;
  result.entry.prefix = {address("10.0.0.0"), 8};
  if (link != 0) result.entry.hops = {{link, address("0.0.0.0"), 1}};
  return result;
}

TEST(HostRoutes, BestMetricWithALivingHopWins) {
  EXPECT_EQ(select_routes({route(20, 2), route(10, 1)}).entries[0].hops[0].kernel_interface, 1U);
  EXPECT_EQ(select_routes({route(20, 2), route(10, 0)}).entries[0].hops[0].kernel_interface, 2U);
}

TEST(HostRoutes, BroadcastAddressesAreKnown) {
  const auto local = [](HostRoute::Kind kind, const char* prefix, std::uint8_t length) {
    HostRoute result;
    result.table = RT_TABLE_LOCAL;
    result.kind = kind;
    result.entry.prefix = {address(prefix), length};
    return result;
  };
  const HostRoutes routes = select_routes({local(HostRoute::Kind::group, "10.2.0.255", 32),
                                           local(HostRoute::Kind::local, "10.2.0.254", 32),
                                           local(HostRoute::Kind::group, "10.1.255.255", 32),
                                           local(HostRoute::Kind::group, "224.0.0.0", 4),
                                           local(HostRoute::Kind::group, "ff00::", 8)});
  EXPECT_THAT(routes.broadcasts,
              ElementsAre(address("10.1.255.255").ipv4(), address("10.2.0.255").ipv4()));
}

TEST(HostRoutes, RoutesThatAreNotFollowedAreNamed) {
  HostRoute by_type = route(1, 1);
  by_type.type_of_service = 0x10;
  HostRoute in_default = route(1, 1);
  in_default.table = RT_TABLE_DEFAULT;
  const HostRoutes routes = select_routes({by_type, in_default});
  EXPECT_THAT(routes.entries, IsEmpty());
  EXPECT_THAT(routes.complaints,
              ElementsAre(HasSubstr("table default"), HasSubstr("type of service")));
}

// ---- Slots, without a kernel.

TEST(Neighbours, UnusedSlotIsFreedAndPinnedOneIsKept) {
  Neighbours neighbours([](auto...) { return 0; });
  const auto start = Neighbours::Clock::now();
  const Neighbours::Key pinned = {1, address("10.0.0.1")};
  neighbours.pin(pinned, start);
  neighbours.pin(pinned, start);
  neighbours.unpin(pinned);
  EXPECT_THAT(neighbours.take_changes(), ElementsAre(0U));
  const auto exists = [](auto) { return true; };
  for (const auto* text : {"10.0.0.2", "10.0.0.3", "10.0.0.4"}) {
    neighbours.want({1, address(text)}, start);
  }
  neighbours.on_change({1, address("10.0.0.2"), NUD_REACHABLE, MacAddress{}}, start);
  neighbours.on_change({1, address("10.0.0.3"), NUD_REACHABLE, MacAddress{}}, start);
  const auto used = [&] {
    std::vector<bool> result;
    for (const Neighbours::Slot& slot : neighbours.slots()) result.push_back(slot.used);
    return result;
  };
  // The last one never answered.
  EXPECT_TRUE(neighbours.release_unused(start + Neighbours::kUnansweredTime + 1s, exists));
  EXPECT_THAT(used(), ElementsAre(true, true, true, false));
  const auto later = start + Neighbours::kIdleTime + 1s;
  neighbours.mark_used(2, later);
  EXPECT_TRUE(neighbours.release_unused(later, exists));
  EXPECT_THAT(used(), ElementsAre(true, false, true, false));
  EXPECT_FALSE(neighbours.release_unused(later, exists));
}

TEST(Neighbours, FullTableKeepsRoomForRealServersAndIsNamed) {
  Neighbours neighbours([](auto...) { return 0; });
  const auto now = Neighbours::Clock::now();
  for (std::uint32_t i = 0; i <= Neighbours::kMaxSlots; ++i) {
    neighbours.want({1, Ipv4Address{Be32::from_host(0x0a000000 + i)}}, now);
  }
  EXPECT_EQ(neighbours.slots().size(), Neighbours::kMaxSlots - Neighbours::kReservedSlots);
  EXPECT_THAT(neighbours.complaints(), Contains(HasSubstr("next hops are taken")));
  neighbours.take_changes();
  neighbours.pin({1, address("192.0.2.1")}, now);
  EXPECT_EQ(neighbours.take_changes().size(), 1U);
}

TEST(Neighbours, ProbesAreSpreadOverTheInterval) {
  int asked = 0;
  Neighbours neighbours([&](auto...) { return ++asked, 0; });
  auto now = Neighbours::Clock::now();
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const Ipv4Address each{Be32::from_host(0x0a000000 + i)};
    neighbours.want({1, each}, now);
    neighbours.on_change({1, each, NUD_REACHABLE, MacAddress{}}, now);
  }
  asked = 0;
  now += Neighbours::kProbeInterval;
  int worst = 0;
  for (int i = 0; i < Neighbours::kProbeInterval / Neighbours::kTick; ++i) {
    const int before = asked;
    neighbours.tick(now += Neighbours::kTick);
    worst = std::max(worst, asked - before);
  }
  EXPECT_EQ(asked, 1000);
  EXPECT_LE(worst, 10);
}

}  // namespace
}  // namespace weir
