// SPDX-License-Identifier: Apache-2.0
// Routes against a plain longest-prefix match over the same list.
#include "dataplane/table/routes.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

namespace weir {
namespace {

IpAddress address(std::string_view text) { return IpAddress::parse(text).value(); }

IpPrefix prefix(std::string_view text) {
  const auto slash = text.find('/');
  return {address(text.substr(0, slash)),
          static_cast<std::uint8_t>(std::stoi(std::string(text.substr(slash + 1))))};
}

Interface interface(std::uint32_t kernel_index, std::uint16_t port) {
  Interface result;
  result.kernel_index = kernel_index;
  result.port = port;
  return result;
}

NextHop next_hop(std::uint16_t interface, std::string_view text) {
  NextHop result;
  result.interface = interface;
  result.used = true;
  result.address = address(text);
  return result;
}

RouteEntry::Hop via(std::uint32_t kernel_interface, std::string_view gateway,
                    std::uint32_t weight = 1) {
  return {kernel_interface, address(gateway), weight};
}

RouteEntry::Hop on_link(std::uint32_t kernel_interface) { return {kernel_interface, {}, 1}; }

// Two bits of freedom at every byte, so that prefixes nest, touch and reach both ends of the space.
IpAddress random_address(std::mt19937& random, Family family) {
  constexpr std::array<std::uint8_t, 4> kBytes = {0x00, 0x7f, 0x80, 0xff};
  Ipv6Address raw;
  for (auto& byte : raw.bytes) byte = kBytes[random() % kBytes.size()];
  if (family == Family::ipv6) return raw;
  return load<Ipv4Address>(raw.bytes.data());
}

const RouteEntry* longest_match(const std::vector<RouteEntry>& routes, const IpAddress& wanted) {
  const RouteEntry* best = nullptr;
  for (const RouteEntry& route : routes) {
    if (!route.prefix.contains(wanted)) continue;
    if (best == nullptr || best->prefix.length < route.prefix.length) best = &route;
  }
  return best;
}

std::vector<RouteEntry> random_routes(std::mt19937& random, std::size_t count) {
  std::map<IpPrefix, RouteEntry> routes;
  for (std::size_t i = 0; i < count; ++i) {
    const IpAddress any = random_address(random, random() % 2 == 0 ? Family::ipv4 : Family::ipv6);
    const auto length = random() % static_cast<unsigned>(any.bit_width() + 1);
    RouteEntry route{{any.masked(static_cast<int>(length)), static_cast<std::uint8_t>(length)}, {}};
    if (random() % 5 != 0) route.hops = {on_link(static_cast<std::uint32_t>(random() % 4))};
    routes.insert_or_assign(route.prefix, route);
  }
  std::vector<RouteEntry> shuffled;
  for (auto& [key, route] : routes) shuffled.push_back(route);
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  return shuffled;
}

// The addresses at and next to both ends of a prefix.
std::vector<IpAddress> edges(const IpPrefix& prefix) {
  std::array<std::uint8_t, 16> low = prefix.address.bytes();
  std::array<std::uint8_t, 16> high = low;
  const int width = prefix.address.bit_width();
  for (int bit = prefix.length; bit < width; ++bit) {
    high[static_cast<std::size_t>(bit / 8)] |= static_cast<std::uint8_t>(0x80 >> (bit % 8));
  }
  const auto step = [width](std::array<std::uint8_t, 16> bytes, std::uint8_t by,
                            std::uint8_t at_limit) {
    for (auto i = static_cast<std::size_t>(width / 8); i-- > 0;) {
      const bool carries = bytes[i] == at_limit;
      bytes[i] = static_cast<std::uint8_t>(bytes[i] + by);
      if (!carries) break;
    }
    return bytes;
  };
  std::vector<IpAddress> result;
  for (const auto& bytes : {low, high, step(low, 0xff, 0x00), step(high, 0x01, 0xff)}) {
    result.push_back(width == 32 ? IpAddress(load<Ipv4Address>(bytes.data()))
                                 : IpAddress(Ipv6Address{bytes}));
  }
  return result;
}

TEST(Routes, RandomPrefixesMatchLikeThePlainSearch) {
  std::mt19937 random(20240229);
  for (int round = 0; round < 300; ++round) {
    const auto entries = random_routes(random, 1 + random() % 60);
    const auto routes = RoutesEditor()
                            .interfaces({interface(1, 0), interface(2, 1), interface(3, 2)})
                            .routes(entries)
                            .publish();
    std::vector<IpAddress> wanted;
    for (const RouteEntry& entry : entries) {
      for (const IpAddress& edge : edges(entry.prefix)) wanted.push_back(edge);
    }
    for (int i = 0; i < 100; ++i) {
      wanted.push_back(random_address(random, i % 2 == 0 ? Family::ipv4 : Family::ipv6));
    }
    for (const IpAddress& each : wanted) {
      const RouteEntry* expected = longest_match(entries, each);
      const Routes::Decision decision = routes->find(each, 0);
      if (expected == nullptr || expected->hops.empty()) {
        ASSERT_EQ(decision.answer, Routes::Answer::no_route) << each.to_string();
      } else if (expected->hops[0].kernel_interface == 0) {
        ASSERT_EQ(decision.answer, Routes::Answer::not_ours) << each.to_string();
      } else {
        ASSERT_EQ(decision.answer, Routes::Answer::missing) << each.to_string();
        ASSERT_EQ(decision.interface, expected->hops[0].kernel_interface - 1) << each.to_string();
      }
    }
  }
}

TEST(Routes, ManyRoutesToOneGatewayAreOneRange) {
  std::vector<RouteEntry> entries;
  for (std::uint8_t i = 0; i < 128; ++i) {
    const Ipv4Address network{Be32::from_host(std::uint32_t{i} << 24)};
    entries.push_back({{network, 8}, {via(1, "192.0.2.1")}});
  }
  EXPECT_EQ(RouteTable::build(entries)->hops().size(), 1U);
}

TEST(Routes, EqualPathsShareByWeight) {
  const std::vector<RouteEntry> entries = {
      {prefix("0.0.0.0/0"), {via(1, "10.0.0.1", 1), via(1, "10.0.0.2", 2), via(2, "10.1.0.1", 5)}},
      {prefix("::/0"), {via(1, "fe80::1", 3), via(2, "fe80::1", 1)}}};
  const auto routes = RoutesEditor()
                          .interfaces({interface(1, 0), interface(2, 1)})
                          .routes(entries)
                          .next_hop(0, next_hop(0, "10.0.0.1"))
                          .next_hop(1, next_hop(0, "10.0.0.2"))
                          .next_hop(2, next_hop(1, "10.1.0.1"))
                          .next_hop(3, next_hop(0, "fe80::1"))
                          .next_hop(4, next_hop(1, "fe80::1"))
                          .publish();
  std::mt19937 random(7);
  constexpr int kFlows = 80000;
  std::array<int, 5> picked{};
  for (int i = 0; i < kFlows; ++i) {
    const auto hash = static_cast<std::uint32_t>(random());
    ++picked[routes->find(address("203.0.113.9"), hash).next_hop];
    ++picked[routes->find(address("2001:db8::9"), hash).next_hop];
  }
  EXPECT_NEAR(picked[0], kFlows / 8, kFlows / 100);
  EXPECT_NEAR(picked[1], kFlows / 4, kFlows / 100);
  EXPECT_NEAR(picked[2], kFlows * 5 / 8, kFlows / 100);
  EXPECT_NEAR(picked[3], kFlows * 3 / 4, kFlows / 100);
  EXPECT_NEAR(picked[4], kFlows / 4, kFlows / 100);
  EXPECT_EQ(routes->find(address("203.0.113.9"), 0).next_hop, 0U);
  EXPECT_EQ(routes->find(address("203.0.113.9"), ~0U).next_hop, 2U);
}

// Clients are often neighbours of each other: how many of `count` take the first of two equal
// paths.
int on_first_path(const std::string& network, int count) {
  int first = 0;
  for (int i = 0; i < count; ++i) {
    first += path_hash(address(network + std::to_string(i))) < 1U << 31U ? 1 : 0;
  }
  return first;
}

TEST(Routes, ConsecutiveAddressesShareEqualPaths) {
  for (const char* network : {"10.1.0.", "10.8.1.", "192.168.77.", "2001:db8::", "fd00:1:2:3::"}) {
    EXPECT_NEAR(on_first_path(network, 16), 8, 5) << network;
    EXPECT_NEAR(on_first_path(network, 256), 128, 40) << network;
  }
}

TEST(Routes, OnLinkDestinationIsFoundOrMissingPerInterface) {
  const std::vector<RouteEntry> entries = {{prefix("10.0.0.0/24"), {on_link(1)}},
                                           {prefix("10.0.1.0/24"), {on_link(2)}}};
  const auto routes = RoutesEditor()
                          .interfaces({interface(1, 0), interface(2, 1)})
                          .routes(entries)
                          .next_hop(1, next_hop(0, "10.0.0.9"))
                          .next_hop(2, next_hop(0, "10.0.1.9"))
                          .publish();
  const auto known = routes->find(address("10.0.0.9"), 0);
  EXPECT_EQ(known.answer, Routes::Answer::found);
  EXPECT_EQ(known.next_hop, 1U);
  // A neighbour of that address, but behind the other interface.
  const auto other = routes->find(address("10.0.1.9"), 0);
  EXPECT_EQ(other.answer, Routes::Answer::missing);
  EXPECT_EQ(other.interface, 1U);
  EXPECT_EQ(routes->find(address("10.0.2.9"), 0).answer, Routes::Answer::no_route);
}

TEST(Routes, GatewayOfTheOtherFamilyIsUsed) {
  const std::vector<RouteEntry> entries = {{prefix("10.0.0.0/8"), {via(1, "fe80::1")}}};
  const auto routes = RoutesEditor()
                          .interfaces({interface(1, 0)})
                          .routes(entries)
                          .next_hop(0, next_hop(0, "fe80::1"))
                          .publish();
  EXPECT_EQ(routes->find(address("10.9.9.9"), 0).answer, Routes::Answer::found);
}

TEST(Routes, GatewayWithoutANextHopHasNoRoute) {
  const std::vector<RouteEntry> entries = {{prefix("10.0.0.0/8"), {via(1, "10.0.0.1")}}};
  const auto routes = RoutesEditor().interfaces({interface(1, 0)}).routes(entries).publish();
  EXPECT_EQ(routes->find(address("10.9.9.9"), 0).answer, Routes::Answer::no_route);
}

TEST(Routes, EmptyRoutesHaveNoRoute) {
  EXPECT_EQ(Routes().find(address("10.0.0.1"), 0).answer, Routes::Answer::no_route);
  EXPECT_EQ(RoutesEditor().publish()->find(address("::1"), 0).answer, Routes::Answer::no_route);
}

TEST(Routes, VersionsDifferInWhatWasEditedBetweenThem) {
  constexpr NextHopIndex kFar = Routes::kMaxNextHops - 1;
  RoutesEditor editor(7);
  const std::vector<RouteEntry> entries = {{prefix("10.0.0.0/24"), {on_link(1)}}};
  editor.interfaces({interface(1, 0)}).routes(entries);
  const auto first = editor.next_hop(kFar, next_hop(0, "10.0.0.9")).publish();
  const Way way = editor.way_to(address("10.0.0.9"));
  const auto second = editor.way(3, way).next_hop(kFar, NextHop{}).publish();
  EXPECT_EQ(way, (Way{kFar, 0, Way::State::known}));
  EXPECT_EQ(first->way(3), Way{});
  EXPECT_EQ(second->way(3), way);
  EXPECT_EQ(first->find(address("10.0.0.9"), 0).answer, Routes::Answer::found);
  EXPECT_EQ(second->find(address("10.0.0.9"), 0).answer, Routes::Answer::missing);
  EXPECT_FALSE(second->next_hop(kFar).used);
  EXPECT_EQ(second->way_to(address("10.0.0.9")).state, Way::State::to_be_met);
  EXPECT_EQ(second->way_to(address("10.0.1.9")).state, Way::State::none);
}

// Like a set of the same next hops, however they came and went.
TEST(Routes, NeighboursAreFoundAfterAnyEdits) {
  std::mt19937 random(11);
  RoutesEditor editor(random());
  editor.interfaces({interface(1, 0), interface(2, 1)});
  editor.routes(std::vector<RouteEntry>{{prefix("10.0.0.0/16"), {on_link(1)}},
                                        {prefix("10.1.0.0/16"), {on_link(2)}}});
  std::map<std::string, NextHopIndex> known;
  std::shared_ptr<const Routes> routes;
  for (NextHopIndex i = 0; i < 20000; ++i) {
    const auto network = static_cast<std::uint16_t>(random() % 2);
    const std::string text = "10." + std::to_string(network) + "." + std::to_string(random() % 8) +
                             "." + std::to_string(random() % 250);
    const auto former = known.find(text);
    if (former != known.end()) {
      editor.next_hop(former->second, NextHop{});
      known.erase(former);
    } else {
      editor.next_hop(i, next_hop(network, text));
      known.emplace(text, i);
    }
    if (i % 100 == 0) routes = editor.publish();
  }
  routes = editor.publish();
  for (const auto& [text, index] : known) {
    const Routes::Decision decision = routes->find(address(text), 0);
    ASSERT_EQ(decision.answer, Routes::Answer::found) << text;
    ASSERT_EQ(decision.next_hop, index);
  }
  EXPECT_EQ(routes->find(address("10.0.9.1"), 0).answer, Routes::Answer::missing);
}

TEST(Routes, GenerationWrapsAt4096) {
  EXPECT_EQ(RoutesEditor().generation(4097).publish()->generation(), 1);
}

}  // namespace
}  // namespace weir
