// SPDX-License-Identifier: Apache-2.0
// What a NIC is asked to hash: by what it offers, and as a real driver (net_null, which has two
// queues, a key and a redirection table) takes it.
#include "dataplane/io/receive_hash.h"

#include <gtest/gtest.h>
#include <rte_ethdev.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/io/dpdk_startup.h"
#include "dataplane/io/port.h"

namespace weir {
namespace {

constexpr std::uint64_t kUsual = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_IPV6 |
                                 RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV6_TCP;
constexpr std::uint64_t kSource = RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L4_SRC_ONLY;
constexpr std::uint64_t kDestination = RTE_ETH_RSS_L3_DST_ONLY | RTE_ETH_RSS_L4_DST_ONLY;

OwnerMap owners_of(unsigned workers) {
  OwnerMap::Key key;
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(i * 37 + 11);
  return OwnerMap(key, workers);
}

rte_eth_dev_info offering(std::uint64_t functions, std::uint16_t table) {
  rte_eth_dev_info info{};
  info.flow_type_rss_offloads = functions;
  info.reta_size = table;
  info.hash_key_size = 52;
  return info;
}

TEST(ReceiveHash, OneEndAloneWhereTheDeviceCan) {
  const OwnerMap owners = owners_of(4);
  const auto able = offering(kUsual | kSource | kDestination, 512);
  const ReceiveHash clients(able, PortSide::clients, owners, 4);
  EXPECT_EQ(clients.functions(), kUsual | kSource);
  EXPECT_TRUE(clients.finds_owner());
  const ReceiveHash servers(able, PortSide::servers, owners, 4);
  EXPECT_EQ(servers.functions(), kUsual | kDestination);
  EXPECT_TRUE(servers.finds_owner());
  // Clients and real servers on one port: no single end is the client.
  const ReceiveHash both(able, PortSide::both, owners, 4);
  EXPECT_EQ(both.functions(), kUsual);
  EXPECT_FALSE(both.finds_owner());
}

TEST(ReceiveHash, BothEndsWhereItCannot) {
  const OwnerMap owners = owners_of(4);
  const std::uint64_t addresses_only = kUsual | RTE_ETH_RSS_L3_SRC_ONLY;
  for (const auto& info : {offering(kUsual, 512), offering(addresses_only, 512),
                           offering(kUsual | kSource, 64), offering(kUsual | kSource, 0)}) {
    const ReceiveHash hash(info, PortSide::clients, owners, 4);
    EXPECT_EQ(hash.functions(), kUsual);
    EXPECT_FALSE(hash.finds_owner());
  }
}

TEST(ReceiveHash, NothingForOneQueueOrWithoutHashing) {
  const OwnerMap owners = owners_of(4);
  const ReceiveHash alone(offering(kUsual | kSource, 128), PortSide::clients, owners, 1);
  const ReceiveHash unable(offering(0, 0), PortSide::clients, owners, 4);
  for (const ReceiveHash* hash : {&alone, &unable}) {
    EXPECT_EQ(hash->functions(), 0U);
    EXPECT_FALSE(hash->finds_owner());
  }
}

class OnADriver : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    EalPlan plan;
    plan.lcores = "0@0,1@0";
    plan.huge_pages = false;
    plan.megabytes = 128;
    plan.devices = {"--vdev=net_null0"};
    const auto status = start_eal(plan);
    ASSERT_TRUE(status.ok()) << status;
  }
  static void TearDownTestSuite() { stop_eal(); }
};

void expect_applied(std::uint16_t port, std::uint16_t table_size, const OwnerMap& owners) {
  std::array<std::uint8_t, 64> key{};
  rte_eth_rss_conf conf{};
  conf.rss_key = key.data();
  ASSERT_EQ(rte_eth_dev_rss_hash_conf_get(port, &conf), 0);
  EXPECT_TRUE(std::equal(owners.key().begin(), owners.key().end(), key.begin()));
  std::vector<rte_eth_rss_reta_entry64> table(table_size / RTE_ETH_RETA_GROUP_SIZE);
  for (auto& part : table) part.mask = ~std::uint64_t{0};
  ASSERT_EQ(rte_eth_dev_rss_reta_query(port, table.data(), table_size), 0);
  for (std::size_t i = 0; i < table_size; ++i) {
    EXPECT_EQ(table[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE],
              owners.worker_of_group(i % OwnerMap::kGroups));
  }
}

TEST_F(OnADriver, TakesTheKeyAndTheMapOfTheOwners) {
  const auto pool = make_buffer_pool(4096, 1500);
  ASSERT_TRUE(pool.ok()) << pool.status();
  const OwnerMap owners = owners_of(2);
  PortPlan plan;
  plan.device = "net_null0";
  plan.workers = 2;
  plan.side = PortSide::clients;
  auto port = Port::open(plan, owners, *pool);
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_EQ(port->queues(), 2U);
  // It offers no hash by one end.
  EXPECT_FALSE(port->finds_owner());
  rte_eth_dev_info info;
  ASSERT_EQ(rte_eth_dev_info_get(port->id(), &info), 0);
  ASSERT_EQ(info.reta_size % owners.period(), 0U);
  expect_applied(port->id(), info.reta_size, owners);
  port->close();
}

}  // namespace
}  // namespace weir
