// SPDX-License-Identifier: Apache-2.0
// What a device that filters as a NIC does is told to let through.
#include "dataplane/io/port_filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "dataplane/io/dpdk_startup.h"
#include "tests/support/filtering_nic.h"

namespace weir::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const MacAddress kVirtual = *MacAddress::parse("00:00:5e:00:01:0a");
const MacAddress kOther = *MacAddress::parse("00:00:5e:00:01:0b");
const MacAddress kForeign = *MacAddress::parse("02:00:00:00:99:99");
const MacAddress kGroup = *MacAddress::parse("33:33:00:00:00:01");

class PortFilterTest : public testing::Test {
 protected:
  static constexpr unsigned kPorts = 8;

  static void SetUpTestSuite() {
    EalPlan plan;
    plan.lcores = "0@0,1@0";
    plan.huge_pages = false;
    plan.megabytes = 64;
    for (unsigned i = 0; i < kPorts; ++i) {
      plan.devices.push_back("--vdev=net_ring" + std::to_string(i));
    }
    ASSERT_TRUE(start_eal(plan).ok());
    const auto pool = make_buffer_pool(4095, 1500);
    ASSERT_TRUE(pool.ok());
    pool_ = *pool;
  }
  void SetUp() override { FilteringNic::abilities() = {}; }

  // A port of its own for each.
  static Port open(std::uint16_t mtu = 0) {
    static unsigned opened = 0;
    static const OwnerMap owners({}, 1);
    PortPlan plan;
    plan.device = "net_ring" + std::to_string(opened++);
    plan.mtu = mtu;
    auto port = Port::open(plan, owners, pool_);
    EXPECT_TRUE(port.ok()) << port.status();
    return *port;
  }
  static bool arrives(const Port& port, const MacAddress& destination) {
    rte_mbuf* frame = rte_pktmbuf_alloc(pool_);
    char* bytes = rte_pktmbuf_append(frame, 64);
    std::memset(bytes, 0, 64);
    std::memcpy(bytes, &destination, sizeof destination);
    EXPECT_EQ(rte_eth_tx_burst(port.id(), 0, &frame, 1), 1);
    rte_mbuf* received = nullptr;
    if (rte_eth_rx_burst(port.id(), 0, &received, 1) == 0) return false;
    rte_pktmbuf_free(received);
    return true;
  }

  static rte_mempool* pool_;
};

rte_mempool* PortFilterTest::pool_ = nullptr;

TEST_F(PortFilterTest, multicast_passes_and_virtual_addresses_while_they_are_there) {
  const Port port = open();
  EXPECT_FALSE(arrives(port, kGroup)) << "the device does not filter as a NIC does";
  PortFilter filter(port);
  EXPECT_TRUE(arrives(port, kGroup));
  EXPECT_TRUE(arrives(port, port.mac()));
  EXPECT_FALSE(arrives(port, kVirtual));

  filter.pass(std::array{port.mac(), kVirtual});
  EXPECT_TRUE(arrives(port, kVirtual));
  filter.pass(std::array{port.mac(), kOther});
  EXPECT_FALSE(arrives(port, kVirtual));
  EXPECT_TRUE(arrives(port, kOther));
  filter.pass(std::array{port.mac()});
  EXPECT_FALSE(arrives(port, kOther));
  EXPECT_TRUE(arrives(port, port.mac()));
  EXPECT_FALSE(arrives(port, kForeign));
  EXPECT_EQ(filter.complaint(), std::nullopt);
}

TEST_F(PortFilterTest, everything_passes_while_there_are_more_addresses_than_room) {
  FilteringNic::abilities().addresses = 1;
  const Port port = open();
  PortFilter filter(port);
  filter.pass(std::array{port.mac(), kVirtual, kOther});
  EXPECT_TRUE(arrives(port, kVirtual) && arrives(port, kOther));
  EXPECT_THAT(filter.complaint().value_or(""), HasSubstr("promiscuous"));
  filter.pass(std::array{port.mac(), kOther});
  EXPECT_FALSE(FilteringNic::of(port.id()).is_promiscuous());
  EXPECT_THAT(FilteringNic::of(port.id()).addresses(), ElementsAre(kOther));
  EXPECT_EQ(filter.complaint(), std::nullopt);
}

TEST_F(PortFilterTest, everything_passes_where_multicast_is_refused) {
  FilteringNic::abilities().multicast_error = -ENOTSUP;
  const Port port = open();
  PortFilter filter(port);
  EXPECT_TRUE(arrives(port, kGroup));
  filter.pass(std::array{port.mac(), kVirtual});
  EXPECT_TRUE(FilteringNic::of(port.id()).is_promiscuous());
  EXPECT_THAT(filter.complaint().value_or(""), HasSubstr("does not take multicast"));
}

TEST_F(PortFilterTest, a_device_that_refuses_all_is_named) {
  FilteringNic::abilities() = {.addresses = 0, .promiscuous_error = -EIO};
  const Port port = open();
  PortFilter filter(port);
  EXPECT_EQ(filter.complaint(), std::nullopt);
  filter.pass(std::array{port.mac(), kVirtual});
  EXPECT_THAT(filter.complaint().value_or(""), HasSubstr("does not reach weir"));
}

TEST_F(PortFilterTest, a_device_without_any_filter_is_not) {
  FilteringNic::abilities() = {.multicast_error = -ENOTSUP, .promiscuous_error = -ENOTSUP};
  const Port port = open();
  PortFilter filter(port);
  EXPECT_EQ(filter.complaint(), std::nullopt);
}

TEST_F(PortFilterTest, mtu_is_set_as_far_as_the_device_takes_it) {
  EXPECT_EQ(open(9000).mtu(), 9000);
  FilteringNic::abilities().max_mtu = 2000;
  EXPECT_EQ(open(9000).mtu(), 2000);
}

}  // namespace
}  // namespace weir::test
