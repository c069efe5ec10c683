// SPDX-License-Identifier: Apache-2.0
// The service index against std::map and std::set.
#include "dataplane/service_index.h"

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

}  // namespace
}  // namespace weir
