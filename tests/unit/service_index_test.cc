// SPDX-License-Identifier: Apache-2.0
// The service index, as claims make it, against std::map and std::set.
#include "control/live/claims.h"

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
    for (std::size_t i = 0; i < entries / 2; ++i) forget_one(random);
    for (std::size_t i = 0; i < entries; ++i) {
      const End end = random_end(random);
      const auto& [address, port, protocol] = end;
      if (random() % 2 == 0) {
        if (!services_.emplace(end, static_cast<ServiceSlot>(i)).second) continue;
        book_.claim_service(address, port, protocol, static_cast<ServiceSlot>(i));
      } else {
        sources_.insert(end);
        book_.claim_replies(address, port, protocol, ServiceIndex::ReplyTo::client);
      }
    }
    index_ = book_.publish();
  }

  // As long as anybody claims an end, it is there.
  void forget_one(test::Random& random) {
    if (random() % 2 == 0 && !services_.empty()) {
      const auto& [address, port, protocol] = services_.begin()->first;
      book_.release_service(address, port, protocol);
      services_.erase(services_.begin());
    } else if (!sources_.empty()) {
      const auto& [address, port, protocol] = *sources_.begin();
      book_.release_replies(address, port, protocol, ServiceIndex::ReplyTo::client);
      sources_.erase(sources_.begin());
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
    ASSERT_EQ(index_->find_service(to),
              service == services_.end() ? ServiceIndex::kNoService : service->second);
    const FlowKey<Address> from{near, far, near_port, far_port, protocol, Direction::inbound};
    ASSERT_EQ(index_->is_reply(from), sources_.contains(here));
  }

  ClaimBook book_;
  std::shared_ptr<const ServiceIndex> index_;
  std::map<End, ServiceSlot> services_;
  std::multiset<End> sources_;
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
  ClaimBook book;
  book.claim_service(ip(kVip), 80, Protocol::tcp, 1);
  book.claim_service(ip(kVip), 21, Protocol::tcp, 2);
  book.claim_service(ip(kVip), 0, Protocol::tcp, 3);
  book.claim_service(ip(kVip), 53, Protocol::udp, 4);
  book.claim_mark(7, Family::ipv4, 5);
  book.claim_mark(7, Family::ipv6, 6);
  const ServiceIndex index = *book.publish();
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
  ClaimBook book;
  book.claim_mark(0x0a090001, Family::ipv4, 5);
  const ServiceIndex index = *book.publish();
  EXPECT_EQ(service_of(index, {kClient, 1, kVip, 80}), kNone);
  EXPECT_FALSE(concerns(index, {kClient, 1, kVip, 80}));
  EXPECT_EQ(service_of(index, {kClient, 1, "10.9.0.9", 80}, 0x0a090001), 5U);
}

TEST(ServiceIndex, replies_of_fullnat_go_to_local_addresses_and_nowhere_else) {
  using ReplyTo = ServiceIndex::ReplyTo;
  constexpr const char* kServer = "10.2.0.1";
  constexpr const char* kPool = "10.2.0.200";
  ClaimBook book;
  book.claim_replies(ip(kServer), 8080, Protocol::tcp, ReplyTo::local_address);
  book.claim_local_address(ip(kPool));
  ServiceIndex index = *book.publish();
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
  book.claim_replies(ip(kServer), 8080, Protocol::tcp, ReplyTo::client);
  index = *book.publish();
  EXPECT_TRUE(is_reply(index, {kServer, 8080, kClient, 5000}));
  EXPECT_TRUE(is_reply(index, {kServer, 8080, kPool, 5000}));
  EXPECT_TRUE(concerns(index, {kServer, 0, kClient, 0}));
}

TEST(ServiceIndex, replies_may_come_from_every_port_of_a_server) {
  ClaimBook book;
  book.claim_replies(ip("2001:db8:2::1"), 0, Protocol::udp, ServiceIndex::ReplyTo::client);
  book.claim_replies(ip("2001:db8:2::2"), 80, Protocol::udp, ServiceIndex::ReplyTo::client);
  const ServiceIndex index = *book.publish();
  const auto reply = [&](const char* from, std::uint16_t port, Protocol protocol) {
    return is_reply(index, {from, port, "2001:db8:1::1", 40000, protocol});
  };
  EXPECT_TRUE(reply("2001:db8:2::1", 1, Protocol::udp));
  EXPECT_TRUE(reply("2001:db8:2::1", 0, Protocol::udp));
  EXPECT_FALSE(reply("2001:db8:2::1", 1, Protocol::tcp));
  EXPECT_TRUE(reply("2001:db8:2::2", 80, Protocol::udp));
  EXPECT_FALSE(reply("2001:db8:2::2", 81, Protocol::udp));
}

// ---- What control says of it ----

TEST(ClaimBook, an_end_is_there_until_its_last_claim_goes) {
  using ReplyTo = ServiceIndex::ReplyTo;
  constexpr const char* kServer = "10.2.0.1";
  ClaimBook book;
  for (int i = 0; i < 2; ++i) book.claim_replies(ip(kServer), 80, Protocol::tcp, ReplyTo::client);
  book.release_replies(ip(kServer), 80, Protocol::tcp, ReplyTo::client);
  const auto once = book.publish();
  EXPECT_TRUE(is_reply(*once, {kServer, 80, kClient, 5000}));
  book.release_replies(ip(kServer), 80, Protocol::tcp, ReplyTo::client);
  const auto gone = book.publish();
  EXPECT_FALSE(is_reply(*gone, {kServer, 80, kClient, 5000}));
  EXPECT_FALSE(concerns(*gone, {kServer, 80, kClient, 5000}));
  EXPECT_TRUE(is_reply(*once, {kServer, 80, kClient, 5000})) << "versions do not change";
  EXPECT_EQ(book.publish(), gone) << "nothing new is no new version";
}

TEST(ClaimBook, one_packet_servers_are_told_apart_while_there_is_one_of_them) {
  using ReplyTo = ServiceIndex::ReplyTo;
  const Way reply = {"10.2.0.1", 53, kClient, 5000, Protocol::udp};
  const auto server = [&](const ServiceIndex& index) {
    return ask_about(reply, [&](const auto& key) { return index.one_packet_server(key); });
  };
  ClaimBook book;
  for (const ServerSlot slot : {3U, 4U}) {
    book.claim_replies(ip("10.2.0.1"), 53, Protocol::udp, ReplyTo::client);
    book.claim_one_packet(ip("10.2.0.1"), 53, slot);
  }
  EXPECT_EQ(server(*book.publish()), kNoServer);
  book.release_one_packet(ip("10.2.0.1"), 53, 3);
  EXPECT_EQ(server(*book.publish()), 4U);
}

TEST(ClaimBook, sizes_are_those_of_the_steering_programs_maps) {
  ClaimBook book;
  std::map<std::tuple<SteeringChange::Map, IpAddress, std::uint16_t, Protocol>, std::uint32_t> told;
  const auto follow = [&] {
    for (const SteeringChange& change : book.take_steering_changes(1000)) {
      const std::tuple key(change.map, change.address, change.port, change.protocol);
      told[key] = change.value;
      if (change.value == 0) told.erase(key);
    }
    const SteeringSizes sizes = book.steering_sizes();
    EXPECT_EQ(told.size(), sizes.services + sizes.servers + sizes.addresses);
  };
  book.claim_service(ip(kVip), 80, Protocol::tcp, 1);
  book.claim_mark(7, Family::ipv4, 2);
  book.claim_replies(ip("10.2.0.1"), 80, Protocol::tcp, ServiceIndex::ReplyTo::client);
  follow();
  EXPECT_EQ(told.size(), 4U);
  book.release_service(ip(kVip), 80, Protocol::tcp);
  book.release_replies(ip("10.2.0.1"), 80, Protocol::tcp, ServiceIndex::ReplyTo::client);
  follow();
  EXPECT_TRUE(told.empty());
}

}  // namespace
}  // namespace weir
