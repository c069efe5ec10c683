// SPDX-License-Identifier: Apache-2.0
// Packets that wait for their neighbour: who gives way to whom, and that nothing is searched.
#include "dataplane/path/waiting_packets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace weir {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const MacAddress kPortMac = *MacAddress::parse("02:00:00:00:00:01");
const MacAddress kNeighbourMac = *MacAddress::parse("02:00:00:00:0d:01");

IpAddress address(unsigned i) {
  return *IpAddress::parse("10." + std::to_string(i / 65536) + "." + std::to_string(i / 256 % 256) +
                           "." + std::to_string(i % 256));
}

class WaitingPacketsTest : public testing::Test {
 protected:
  WaitingPacketsTest() { publish({}); }

  // A version in which these have a next hop, with a hardware address.
  void publish(const std::vector<IpAddress>& neighbours) {
    std::vector<NextHop> hops;
    for (const IpAddress& each : neighbours) {
      hops.push_back({kNeighbourMac, kPortMac, 0, 1, 0, 1500, true, true, each});
    }
    publish_hops(hops);
  }
  void publish_hops(const std::vector<NextHop>& hops) {
    Interface interface;
    interface.kernel_index = 7;
    RouteEntry on_link{{address(0).masked(8), 8}, {{7, IpAddress(), 1}}};
    RoutesEditor editor;
    editor.interfaces({interface}).routes(std::vector{on_link});
    for (std::size_t i = 0; i < hops.size(); ++i) {
      editor.next_hop(static_cast<NextHopIndex>(i), hops[i]);
    }
    ++snapshot_.version;
    snapshot_.routes = editor.publish();
  }

  // Packet `number` for `neighbour` waits. Whether control knows of the miss.
  bool& wait(int number, const IpAddress& neighbour) {
    Packet packet;
    auto& bytes = frames_.emplace_back(std::make_unique<std::array<std::uint8_t, 256>>());
    packet.frame = bytes->data() + 128;
    packet.ip = packet.frame + sizeof(EthernetHeader);
    packet.headroom = 128;
    packet.ip_length = 40;
    packet.family = Family::ipv4;
    packet.buffer = reinterpret_cast<void*>(static_cast<std::intptr_t>(number));
    packet.neighbour = neighbour;
    packet.out_interface = 0;
    packet.neighbour_known = false;
    packet.next_hop = 0;
    return waiting_.add(packet, now_, [this](void* buffer, Outcome reason) {
      EXPECT_EQ(reason, Outcome::drop_neighbour_queue_full);
      displaced_.push_back(number_of(buffer));
    });
  }
  void look() {
    waiting_.look(
        snapshot_, now_,
        [this](const Packet& packet) {
          EXPECT_EQ(packet.port, 1);
          EXPECT_EQ(packet.length, 54U);
          EXPECT_EQ(load<MacAddress>(packet.frame), kNeighbourMac);
          sent_.push_back(number_of(packet.buffer));
        },
        [this](void* buffer, Outcome reason) {
          EXPECT_EQ(reason, Outcome::drop_neighbour_unreachable);
          late_.push_back(number_of(buffer));
        });
  }
  static int number_of(void* buffer) {
    return static_cast<int>(reinterpret_cast<std::intptr_t>(buffer));
  }

  WaitingPackets waiting_{12345};
  Snapshot snapshot_;
  std::uint32_t now_ = 1000;
  std::vector<std::unique_ptr<std::array<std::uint8_t, 256>>> frames_;
  std::vector<int> sent_;
  std::vector<int> displaced_;
  std::vector<int> late_;
};

TEST_F(WaitingPacketsTest, leave_in_order_once_their_neighbour_has_answered) {
  wait(1, address(1));
  wait(2, address(2));
  wait(3, address(1));
  look();
  EXPECT_THAT(sent_, IsEmpty());
  publish({address(1)});
  look();
  EXPECT_THAT(sent_, ElementsAre(1, 3));
  publish({address(1), address(2)});
  look();
  EXPECT_THAT(sent_, ElementsAre(1, 3, 2));
  EXPECT_TRUE(waiting_.empty());
}

TEST_F(WaitingPacketsTest, of_a_neighbour_are_three_and_the_oldest_gives_way) {
  for (int i = 1; i <= 5; ++i) wait(i, address(1));
  wait(6, address(2));
  EXPECT_THAT(displaced_, ElementsAre(1, 2));
  publish({address(1)});
  look();
  EXPECT_THAT(sent_, ElementsAre(3, 4, 5));
}

TEST_F(WaitingPacketsTest, miss_is_told_once_and_again_where_that_failed) {
  EXPECT_FALSE(wait(1, address(1)));
  bool& told = wait(2, address(1));
  EXPECT_FALSE(told);
  told = true;
  EXPECT_TRUE(wait(3, address(1)));
  EXPECT_FALSE(wait(4, address(2)));
}

TEST_F(WaitingPacketsTest, a_flood_of_neighbours_displaces_the_oldest_and_each_miss_is_told) {
  constexpr int kFlood = 100'000;
  constexpr int kLeft = static_cast<int>(WaitingPackets::kQueues);
  for (int i = 0; i < kFlood; ++i) EXPECT_FALSE(wait(i, address(static_cast<unsigned>(i))));
  EXPECT_EQ(displaced_.size(), static_cast<std::size_t>(kFlood - kLeft));
  publish({address(kFlood - kLeft - 1), address(kFlood - kLeft)});
  look();
  EXPECT_THAT(sent_, ElementsAre(kFlood - kLeft));
}

TEST_F(WaitingPacketsTest, time_is_over_three_seconds_after_the_neighbour_was_first_missed) {
  wait(1, address(1));
  now_ += kTicksPerSecond;
  wait(2, address(2));
  wait(3, address(1));
  now_ += 2 * kTicksPerSecond - 1;
  look();
  EXPECT_THAT(late_, IsEmpty());
  now_ += 1;
  look();
  EXPECT_THAT(late_, ElementsAre(1, 3));
  now_ += kTicksPerSecond;
  look();
  EXPECT_THAT(late_, ElementsAre(1, 3, 2));
  EXPECT_FALSE(wait(4, address(1))) << "missed anew";
}

TEST_F(WaitingPacketsTest, a_neighbour_that_moved_to_another_slot_is_found) {
  NextHop silent{MacAddress{}, kPortMac, 0, 1, 0, 1500, false, true, address(1)};
  wait(1, address(1));
  publish_hops({silent});
  look();
  EXPECT_THAT(sent_, IsEmpty());
  publish({address(9), address(1)});
  look();
  EXPECT_THAT(sent_, ElementsAre(1));
}

// Nothing but a new version can bring a next hop: the routes may be taken away meanwhile.
TEST_F(WaitingPacketsTest, are_not_compared_with_a_version_twice) {
  for (int i = 1; i <= 100; ++i) wait(i, address(static_cast<unsigned>(i)));
  for (std::size_t i = 0; i < 100 / WaitingPackets::kBudget + 1; ++i) look();
  const auto routes = std::exchange(snapshot_.routes, nullptr);
  for (int i = 0; i < 1000; ++i) look();
  snapshot_.routes = routes;
  publish({address(100)});
  for (std::size_t i = 0; i < 100 / WaitingPackets::kBudget; ++i) look();
  EXPECT_THAT(sent_, IsEmpty()) << "a loop asks about kBudget queues";
  look();
  EXPECT_THAT(sent_, ElementsAre(100));
}

TEST_F(WaitingPacketsTest, a_queue_that_ends_while_others_have_yet_to_be_compared_skips_none) {
  const int count = static_cast<int>(WaitingPackets::kQueues);
  std::vector<IpAddress> all;
  for (int i = 0; i < count; ++i) {
    wait(i, address(static_cast<unsigned>(i)));
    all.push_back(address(static_cast<unsigned>(i)));
  }
  publish(all);
  look();
  const auto first = sent_.size();
  ASSERT_EQ(first, WaitingPackets::kBudget);
  // All queues are taken again, and the next one to be compared gives way.
  for (std::size_t i = 0; i <= first; ++i) wait(1000, address(5000 + static_cast<unsigned>(i)));
  EXPECT_THAT(displaced_, ElementsAre(static_cast<int>(first)));
  for (int i = 0; i < count; ++i) look();
  EXPECT_EQ(sent_.size(), static_cast<std::size_t>(count - 1));
}

}  // namespace
}  // namespace weir
