// SPDX-License-Identifier: Apache-2.0
// The owner function against DPDK's own Toeplitz hash, and how it spreads clients over workers.
#include "dataplane/table/owner.h"

#include <gtest/gtest.h>
#include <rte_thash.h>

#include <algorithm>
#include <array>
#include <vector>

#include "tests/support/random.h"

namespace weir {
namespace {

OwnerMap::Key random_key(test::Random& random) {
  OwnerMap::Key key;
  for (std::uint8_t& byte : key) byte = static_cast<std::uint8_t>(random());
  return key;
}

Ipv4Address random_ipv4(test::Random& random) { return {Be32::from_host(random())}; }

Ipv6Address random_ipv6(test::Random& random) {
  Ipv6Address address;
  for (std::uint8_t& byte : address.bytes) byte = static_cast<std::uint8_t>(random());
  return address;
}

// What a NIC computes with L3_SRC_ONLY | L4_SRC_ONLY: the address, then the port, nothing else.
template <class Address>
std::uint32_t rss_of(const Address& client, std::uint16_t port, const OwnerMap::Key& key) {
  std::vector<std::uint32_t> words;
  for (std::size_t at = 0; at < sizeof client; at += 4) {
    words.push_back(load<Be32>(reinterpret_cast<const char*>(&client) + at).host());
  }
  words.push_back(std::uint32_t{port} << 16);
  return rte_softrss(words.data(), static_cast<std::uint32_t>(words.size()), key.data());
}

TEST(OwnerMap, hash_is_that_of_source_only_rss) {
  test::Random random(1);
  for (int round = 0; round < 20; ++round) {
    const OwnerMap map(random_key(random), 4);
    for (int i = 0; i < 500; ++i) {
      const auto port = static_cast<std::uint16_t>(random());
      const Ipv4Address v4 = random_ipv4(random);
      const Ipv6Address v6 = random_ipv6(random);
      ASSERT_EQ(map.hash(v4, Be16::from_host(port)), rss_of(v4, port, map.key()));
      ASSERT_EQ(map.hash(v6, Be16::from_host(port)), rss_of(v6, port, map.key()));
    }
  }
}

TEST(OwnerMap, hash_of_the_key_itself_agrees_with_the_published_vector) {
  // Key and addresses of Microsoft's RSS verification suite. The published hash of source and
  // destination is the XOR of the hash of each at its place; of the source alone it is this one.
  const OwnerMap::Key key = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                             0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                             0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                             0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
  // IPv4 with 161.142.100.80 where the vector has the destination is 0x323e8fc2; with ports
  // 0x51ccc178. Feeding source 66.9.149.187 and "port" 0xa18e, the destination's first half, covers
  // exactly the first 6 of the 8 bytes; the rest, 0x6450, contributes by itself.
  std::array<std::uint32_t, 2> rest = {0, 0x6450};
  const std::uint32_t tail = rte_softrss(rest.data(), 2, key.data());
  const OwnerMap map(key, 1);
  const Ipv4Address source{Be32::from_host(0x420995bb)};
  EXPECT_EQ(map.hash(source, Be16::from_host(0xa18e)) ^ tail, 0x323e8fc2U);
}

TEST(OwnerMap, clients_spread_evenly_over_the_workers) {
  constexpr unsigned kClients = 100'000;
  test::Random random(2);
  for (const unsigned workers : {1U, 2U, 3U, 4U, 7U, 16U, 32U, 33U, 48U, 63U, 64U, 128U}) {
    const OwnerMap map(random_key(random), workers);
    std::vector<unsigned> counts(workers);
    for (unsigned i = 0; i < kClients; ++i) {
      // Neighbouring addresses and ports, as real clients have.
      const Ipv4Address client{Be32::from_host(0x0a000000U + i / 100)};
      const auto port = static_cast<std::uint16_t>(32768 + i % 100);
      const unsigned owner = map.owner(client, Be16::from_host(port));
      ASSERT_LT(owner, workers);
      ++counts[owner];
    }
    // Groups do not divide by every number of workers: the largest share is that of
    // ceil(groups / workers) of them.
    const std::size_t groups = (map.period() + workers - 1) / workers;
    EXPECT_LE(static_cast<double>(groups * workers), 1.25 * static_cast<double>(map.period()));
    const double most = kClients * static_cast<double>(groups) / static_cast<double>(map.period());
    EXPECT_LT(*std::max_element(counts.begin(), counts.end()), most * 1.15) << workers;
    EXPECT_GT(*std::min_element(counts.begin(), counts.end()), 0U) << workers;
  }
}

TEST(OwnerMap, owner_goes_by_the_groups_that_a_redirection_table_gets) {
  test::Random random(3);
  const OwnerMap map(random_key(random), 5);
  for (int i = 0; i < 1000; ++i) {
    const Ipv6Address client = random_ipv6(random);
    const Be16 port = Be16::from_host(static_cast<std::uint16_t>(random()));
    EXPECT_EQ(map.owner(client, port),
              map.worker_of_group(map.hash(client, port) % OwnerMap::kGroups));
  }
}

}  // namespace
}  // namespace weir
