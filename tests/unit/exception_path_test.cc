// SPDX-License-Identifier: Apache-2.0
// The exception path with the real kernel behind it: what a flood of one class leaves of the
// others.
#include "dataplane/io/exception_path.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <rte_ethdev.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/frames.h"
#include "tests/support/network_namespace.h"
#include "tests/support/raw_frames.h"
#include "tests/support/running_worker.h"

namespace weir::test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

const std::string kVip = "10.9.0.1";
constexpr std::uint16_t kEtherTypeArp = 0x0806;

// Who has 10.8.0.254? Tell 10.8.0.2.
Bytes arp_request() {
  const Bytes question = {0, 1, 8, 0, 6, 4, 0, 1};
  Bytes arp = question;
  std::copy(kNeighbourMac.bytes.begin(), kNeighbourMac.bytes.end(), std::back_inserter(arp));
  const Bytes addresses = {10, 8, 0, 2, 0, 0, 0, 0, 0, 0, 10, 8, 0, 254};
  std::copy(addresses.begin(), addresses.end(), std::back_inserter(arp));
  return ethernet_frame(*MacAddress::parse("ff:ff:ff:ff:ff:ff"), kEtherTypeArp, arp);
}

Bytes echo_request(std::uint16_t number) {
  const Bytes message = icmp_message({8, 0, Be16{}, Be16::from_host(1), Be16::from_host(number)});
  return ethernet_frame(BurstLab::kClientSideMac, kEtherTypeIpv4,
                        ipv4_packet(1, kNeighbour4, "10.8.0.254", message));
}

Bytes vrrp_advert(std::uint16_t number) {
  Bytes advert(20);
  std::memcpy(advert.data(), &number, sizeof number);
  return ethernet_frame(*MacAddress::parse("01:00:5e:00:00:12"), kEtherTypeIpv4,
                        ipv4_packet(112, kNeighbour4, "224.0.0.18", advert));
}

// What the kernel answers, as it leaves on the port.
struct Answers {
  std::atomic<unsigned> arp{0};
  std::atomic<unsigned> echo{0};
  std::atomic<unsigned> resets{0};

  void look_at(const rte_mbuf* frame) {
    const auto* bytes = rte_pktmbuf_mtod(frame, const std::uint8_t*);
    if (load<MacAddress>(bytes + 6) != BurstLab::kClientSideMac) return;
    const std::uint16_t type = load<Be16>(bytes + 12).host();
    if (type == kEtherTypeArp && bytes[21] == 2) ++arp;
    if (type != kEtherTypeIpv4) return;
    if (bytes[23] == IPPROTO_ICMP && bytes[34] == 0) ++echo;
    if (bytes[23] == IPPROTO_TCP && (bytes[47] & TcpHeader::kRst) != 0) ++resets;
  }
};

std::uint16_t look_at_answers(std::uint16_t, std::uint16_t, rte_mbuf** frames, std::uint16_t count,
                              void* answers) {
  for (unsigned i = 0; i < count; ++i) static_cast<Answers*>(answers)->look_at(frames[i]);
  return count;
}

class ExceptionPathTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!network_.exists()) GTEST_SKIP() << "network namespaces need root";
    network_.enter();
    ExceptionInterface::Wish wish{ExceptionInterface::Use::full, BurstLab::kClientSideMac, 1500};
    std::vector<std::unique_ptr<ExceptionInterface>> interfaces;
    for (int i = 0; i < 2; ++i) {
      auto interface = ExceptionInterface::create(wish);
      must(interface.status());
      interfaces.push_back(std::move(*interface));
    }
    ASSERT_EQ(system(("ip address add 10.8.0.254/16 dev weir0; ip address add " + kVip +
                      "/32 dev weir0; ip route add default via 10.8.0.2; "
                      "ip neighbour add 10.8.0.2 lladdr " +
                      kNeighbourMac.to_string() + " dev weir0 nud permanent")
                         .c_str()),
              0);
    vrrp_ = ::socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK, 112);
    const ip_mreqn group{{htonl(0xe0000012)}, {htonl(0x0a0800fe)}, 0};
    ASSERT_EQ(::setsockopt(vrrp_, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group), 0);

    const ServiceKey key = service_key(Protocol::tcp, kVip, 80);
    add_service(director_.lab().services(), key);
    must(director_.lab().services().add_server(key, server_spec("10.2.0.1", 80, ForwardMode::nat)));
    std::uint16_t port = 0;
    ASSERT_EQ(rte_eth_dev_get_port_by_name("net_ring0", &port), 0);
    rte_eth_add_tx_callback(port, 0, look_at_answers, &answers_);
    director_.start();
    const std::vector uses(2, ExceptionInterface::Use::full);
    path_ = std::make_unique<ExceptionPath>(std::move(interfaces), uses, director_.rings(),
                                            director_.buffers());
  }
  void TearDown() override {
    director_.stop();
    path_.reset();
    if (vrrp_ >= 0) ::close(vrrp_);
  }

  void count_adverts() {
    std::array<std::uint8_t, 64> packet;
    while (::recv(vrrp_, packet.data(), packet.size(), 0) == 40) {
      adverts_.insert(load<std::uint16_t>(packet.data() + 20));
    }
  }
  void deliver(const Bytes& frame) {
    ASSERT_TRUE(wait_for([&] { return director_.receive(frame); }));
  }

  NetworkNamespace network_;
  RunningWorker director_;
  Answers answers_;
  std::unique_ptr<ExceptionPath> path_;
  int vrrp_ = -1;
  std::set<std::uint16_t> adverts_;
};

TEST_F(ExceptionPathTest, a_flood_of_strays_takes_nothing_from_arp_ping_and_vrrp) {
  constexpr unsigned kRounds = 1000;
  const Bytes ack = client_tcp({"10.1.0.1", 1024, kVip, 80}, TcpHeader::kAck);
  std::uint64_t flood = 0;
  const auto began = Clock::now();
  for (std::uint16_t round = 1; round <= kRounds; ++round) {
    for (const auto end = Clock::now() + milliseconds(2); Clock::now() < end;) {
      flood += director_.receive_many(ack);
    }
    deliver(arp_request());
    deliver(echo_request(round));
    deliver(vrrp_advert(round));
    count_adverts();
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  EXPECT_TRUE(wait_for([&] {
    count_adverts();
    return adverts_.size() == kRounds && answers_.arp == kRounds && answers_.echo == kRounds;
  })) << adverts_.size()
      << " adverts arrived, and " << answers_.arp << " of ARP and " << answers_.echo
      << " echoes were answered, of " << kRounds << " each";
  std::printf("%.2f Mpps of strays, %u answered by a RST\n",
              static_cast<double>(flood) / seconds / 1e6, answers_.resets.load());
  const std::uint64_t beyond = director_.lab().count(Outcome::drop_stray_budget);
  EXPECT_EQ(director_.lab().count(Outcome::drop_transmit_full), 0U);
  EXPECT_EQ(director_.lab().count(Outcome::drop_link_ring_full), 0U);
  EXPECT_EQ(director_.lab().count(Outcome::drop_exception_ring_full), 0U);
  EXPECT_EQ(path_->counters().lost_to_kernel.read(), 0U);
  EXPECT_EQ(path_->counters().lost_from_kernel.read(), 0U);
  EXPECT_GT(beyond, flood / 2);
  const double most = StrayBudget::kBurst + (seconds + 1) * StrayBudget::kPerSecond;
  EXPECT_LE(answers_.resets, most);
  EXPECT_GT(answers_.resets, 100U);
}

TEST(StrayBudget, is_refilled_by_time_and_never_holds_more_than_a_burst) {
  StrayBudget budget;
  EXPECT_EQ(budget.available(5000), StrayBudget::kBurst);
  budget.spend(StrayBudget::kBurst);
  EXPECT_EQ(budget.available(5000), 0U);
  EXPECT_EQ(budget.available(5003), 3 * StrayBudget::kPerSecond / 1000);
  EXPECT_EQ(budget.available(5003 + 0xffffffffU / 2), StrayBudget::kBurst);
}

}  // namespace
}  // namespace weir::test
