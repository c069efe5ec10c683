// SPDX-License-Identifier: Apache-2.0
// The service index against std::map and std::set.
#include "dataplane/table/service_index.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>

#include "tests/support/random.h"

namespace weir {
namespace {

using End = std::tuple<IpAddress, std::uint16_t, Protocol>;

// Few enough values that ends meet often, also in one half of the pair only.
End random_end(test::Random& random) {
  Ipv6Address v6{};
  v6.bytes[0] = 0x20;
  v6.bytes[random() % 2 == 0 ? 7 : 15] = static_cast<std::uint8_t>(random() % 20);
  const Ipv4Address v4{Be32::from_host(0x0a000000U + random() % 40)};
  const IpAddress address = random() % 2 == 0 ? IpAddress(v4) : IpAddress(v6);
  const auto protocol = random() % 2 == 0 ? Protocol::tcp : Protocol::udp;
  return {address, static_cast<std::uint16_t>(80 + random() % 10), protocol};
}

class ServiceIndexTest : public testing::Test {
 protected:
  void fill(std::size_t entries, test::Random& random) {
    index_ = ServiceIndex(entries);
    services_.clear();
    sources_.clear();
    for (std::size_t i = 0; i < entries; ++i) {
      const End end = random_end(random);
      const auto& [address, port, protocol] = end;
      if (random() % 2 == 0) {
        // The first service of an end keeps it.
        services_.emplace(end, static_cast<ServiceSlot>(i));
        index_.add_service(address, Be16::from_host(port), protocol, static_cast<ServiceSlot>(i));
      } else {
        sources_.insert(end);
        index_.add_reply_source(address, Be16::from_host(port), protocol);
      }
    }
  }

  void expect_agreement(const End& here, const End& there) {
    const auto& [address, port, protocol] = here;
    if (address.is_ipv4() != std::get<0>(there).is_ipv4()) return;
    if (address.is_ipv4()) {
      expect_agreement<Ipv4Address>(here, there, address.ipv4(), std::get<0>(there).ipv4());
    } else {
      expect_agreement<Ipv6Address>(here, there, address.ipv6(), std::get<0>(there).ipv6());
    }
  }

 private:
  template <class Address>
  void expect_agreement(const End& here, const End& there, const Address& near,
                        const Address& far) {
    const Protocol protocol = std::get<2>(here);
    const Be16 near_port = Be16::from_host(std::get<1>(here));
    const Be16 far_port = Be16::from_host(std::get<1>(there));
    const FlowKey<Address> to{far, near, far_port, near_port, protocol, Direction::inbound};
    const auto service = services_.find(here);
    ASSERT_EQ(index_.find_service(to),
              service == services_.end() ? ServiceIndex::kNoService : service->second);
    const FlowKey<Address> from{near, far, near_port, far_port, protocol, Direction::inbound};
    ASSERT_EQ(index_.is_reply(from), sources_.contains(here));
  }

  ServiceIndex index_{0};
  std::map<End, ServiceSlot> services_;
  std::set<End> sources_;
};

TEST_F(ServiceIndexTest, finds_what_was_added_and_nothing_else) {
  test::Random random(1);
  for (const unsigned entries : {0U, 1U, 2U, 3U, 4U, 10U, 100U, 600U, 5000U}) {
    fill(entries, random);
    for (int i = 0; i < 20000; ++i) {
      ASSERT_NO_FATAL_FAILURE(expect_agreement(random_end(random), random_end(random)))
          << entries << " entries";
    }
  }
}

// ---- What takes more than one port ----

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

// A packet from `from` to `to`, whatever their family.
struct Way {
  const char* from;
  std::uint16_t from_port;
  const char* to;
  std::uint16_t to_port;
  Protocol protocol = Protocol::tcp;
};

template <class Address, class Ask>
auto ask_as(const Way& way, Ask&& ask) {
  return ask(FlowKey<Address>{address_of<Address>(ip(way.from)), address_of<Address>(ip(way.to)),
                              Be16::from_host(way.from_port), Be16::from_host(way.to_port),
                              way.protocol, Direction::inbound});
}

template <class Ask>
auto ask_about(const Way& way, Ask&& ask) {
  return ip(way.from).is_ipv4() ? ask_as<Ipv4Address>(way, ask) : ask_as<Ipv6Address>(way, ask);
}

ServiceSlot service_of(const ServiceIndex& index, const Way& way, std::uint32_t mark = 0) {
  return ask_about(way, [&](const auto& key) { return index.find_service(key, mark); });
}
bool is_reply(const ServiceIndex& index, const Way& way) {
  return ask_about(way, [&](const auto& key) { return index.is_reply(key); });
}
bool concerns(const ServiceIndex& index, const Way& way) {
  return ask_about(way, [&](const auto& key) { return index.concerns(key); });
}

constexpr ServiceSlot kNone = ServiceIndex::kNoService;
constexpr const char* kClient = "10.1.0.1";
constexpr const char* kVip = "10.9.0.1";

TEST(ServiceIndex, a_mark_comes_first_then_the_port_then_ftp_then_all_ports) {
  ServiceIndex index(8);
  index.add_service(ip(kVip), Be16::from_host(80), Protocol::tcp, 1);
  index.add_service(ip(kVip), Be16::from_host(21), Protocol::tcp, 2);
  index.add_service(ip(kVip), Be16{}, Protocol::tcp, 3);
  index.add_service(ip(kVip), Be16::from_host(53), Protocol::udp, 4);
  index.add_fwmark_service(7, Family::ipv4, 5);
  index.add_fwmark_service(7, Family::ipv6, 6);
  struct Case {
    std::uint16_t port;
    Protocol protocol;
    std::uint32_t mark;
    ServiceSlot expected;
  };
  for (const Case& c : {
           Case{80, Protocol::tcp, 0, 1},
           Case{80, Protocol::tcp, 7, 5},
           Case{80, Protocol::tcp, 8, 1},  // no service has this mark
           Case{21, Protocol::tcp, 0, 2},
           Case{20, Protocol::tcp, 0, 2},
           Case{1024, Protocol::tcp, 0, 2},
           Case{65535, Protocol::tcp, 0, 2},
           Case{1023, Protocol::tcp, 0, 3},
           Case{22, Protocol::tcp, 0, 3},
           Case{0, Protocol::tcp, 0, 3},
           Case{53, Protocol::udp, 0, 4},
           Case{54, Protocol::udp, 0, kNone},
           Case{2000, Protocol::udp, 0, kNone},
           Case{2000, Protocol::udp, 7, 5},
       }) {
    EXPECT_EQ(service_of(index, {kClient, 40000, kVip, c.port, c.protocol}, c.mark), c.expected)
        << c.port << " mark " << c.mark;
  }
  EXPECT_EQ(service_of(index, {kClient, 1, "203.0.113.9", 2}, 7), 5U) << "wherever it goes";
  EXPECT_EQ(service_of(index, {"2001:db8::1", 1, "2001:db8::9", 2}, 7), 6U);
  EXPECT_EQ(service_of(index, {kClient, 1, "10.9.0.2", 2000}), kNone);
}

TEST(ServiceIndex, an_address_does_not_pass_for_a_mark) {
  ServiceIndex index(4);
  index.add_fwmark_service(0x0a090001, Family::ipv4, 5);
  EXPECT_EQ(service_of(index, {kClient, 1, kVip, 80}), kNone);
  EXPECT_FALSE(concerns(index, {kClient, 1, kVip, 80}));
  EXPECT_EQ(service_of(index, {kClient, 1, "10.9.0.9", 80}, 0x0a090001), 5U);
}

TEST(ServiceIndex, replies_of_fullnat_go_to_local_addresses_and_nowhere_else) {
  using ReplyTo = ServiceIndex::ReplyTo;
  constexpr const char* kServer = "10.2.0.1";
  constexpr const char* kPool = "10.2.0.200";
  ServiceIndex index(8);
  index.add_reply_source(ip(kServer), Be16::from_host(8080), Protocol::tcp, ReplyTo::local_address);
  index.add_local_address(ip(kPool));
  EXPECT_TRUE(is_reply(index, {kServer, 8080, kPool, kFirstLocalPort}));
  EXPECT_TRUE(is_reply(index, {kServer, 8080, kPool, kLastLocalPort}));
  EXPECT_FALSE(is_reply(index, {kServer, 8080, kPool, kFirstLocalPort - 1}));
  EXPECT_FALSE(is_reply(index, {kServer, 8080, kPool, kLastLocalPort + 1}));
  EXPECT_FALSE(is_reply(index, {kServer, 8081, kPool, 5000}));
  EXPECT_FALSE(is_reply(index, {kServer, 8080, kClient, 5000}));
  EXPECT_FALSE(is_reply(index, {kClient, 8080, kPool, 5000}));
  EXPECT_FALSE(is_reply(index, {kServer, 8080, kPool, 5000, Protocol::udp}));
  EXPECT_TRUE(concerns(index, {kServer, 0, kPool, 0}));
  EXPECT_FALSE(concerns(index, {kServer, 0, kClient, 0}));

  // The same end, of a nat service as well.
  index.add_reply_source(ip(kServer), Be16::from_host(8080), Protocol::tcp, ReplyTo::client);
  EXPECT_TRUE(is_reply(index, {kServer, 8080, kClient, 5000}));
  EXPECT_TRUE(is_reply(index, {kServer, 8080, kPool, 5000}));
  EXPECT_TRUE(concerns(index, {kServer, 0, kClient, 0}));
}

TEST(ServiceIndex, replies_may_come_from_every_port_of_a_server) {
  ServiceIndex index(8);
  index.add_reply_source(ip("2001:db8:2::1"), Be16{}, Protocol::udp);
  index.add_reply_source(ip("2001:db8:2::2"), Be16::from_host(80), Protocol::udp);
  const auto reply = [&](const char* from, std::uint16_t port, Protocol protocol) {
    return is_reply(index, {from, port, "2001:db8:1::1", 40000, protocol});
  };
  EXPECT_TRUE(reply("2001:db8:2::1", 1, Protocol::udp));
  EXPECT_TRUE(reply("2001:db8:2::1", 0, Protocol::udp));
  EXPECT_FALSE(reply("2001:db8:2::1", 1, Protocol::tcp));
  EXPECT_TRUE(reply("2001:db8:2::2", 80, Protocol::udp));
  EXPECT_FALSE(reply("2001:db8:2::2", 81, Protocol::udp));
}

}  // namespace
}  // namespace weir
