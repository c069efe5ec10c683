// SPDX-License-Identifier: Apache-2.0
// A worker beside the threads that it has to do with.
#include "dataplane/io/worker.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <string>

#include "tests/support/frames.h"
#include "tests/support/running_worker.h"

namespace weir::test {
namespace {

const std::string kVip = "10.9.0.1";

bool is_readable(int fd, int milliseconds) {
  pollfd descriptor{fd, POLLIN, 0};
  return ::poll(&descriptor, 1, milliseconds) == 1;
}

Bytes syn(std::uint16_t client_port, std::uint16_t service_port) {
  return client_tcp({"10.1.0.1", client_port, kVip, service_port}, TcpHeader::kSyn);
}

// Real servers on link that have never been heard of.
void add_unknown_servers(LabServices& services, std::uint16_t first_port, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    const auto port = static_cast<std::uint16_t>(first_port + i);
    const ServiceKey key = service_key(Protocol::tcp, kVip, port);
    add_service(services, key);
    must(services.add_server(
        key, server_spec("10.2.0." + std::to_string(200 + i), port, ForwardMode::nat)));
  }
}

TEST(Worker, calls_control_for_the_first_miss_and_not_for_those_after_it) {
  RunningWorker director;
  add_unknown_servers(director.lab().services(), 80, 2);
  director.start();
  Rings& rings = director.rings();
  NeighbourMiss miss;
  ASSERT_TRUE(director.receive(syn(1000, 80)));
  ASSERT_TRUE(is_readable(rings.missed().fd(), 10'000));
  rings.missed().answer();
  ASSERT_TRUE(wait_for([&] { return rings.misses(0).take({&miss, 1}) == 1; }));
  EXPECT_EQ(miss.address, address_of("10.2.0.200"));

  // The same neighbour is not told of again, another is, in silence.
  for (std::uint16_t port = 1001; port < 1010; ++port) director.receive(syn(port, 80));
  ASSERT_TRUE(director.receive(syn(2000, 81)));
  ASSERT_TRUE(wait_for([&] { return rings.misses(0).take({&miss, 1}) == 1; }));
  EXPECT_EQ(miss.address, address_of("10.2.0.201"));
  EXPECT_FALSE(is_readable(rings.missed().fd(), 0));
  EXPECT_EQ(rings.misses(0).take({&miss, 1}), 0U);
  EXPECT_EQ(director.lab().count(Outcome::drop_neighbour_queue_full), 7U);

  rings.missed().listen();
  director.stop();
}

TEST(Rings, tell_once_who_has_something_for_a_worker) {
  Rings rings(Rings::kMaxWorkers);
  EXPECT_EQ(rings.take_announced(5), 0U);
  rings.announce(0, 5);
  rings.announce(63, 5);
  rings.announce(63, 5);
  rings.announce(1, 6);
  EXPECT_EQ(rings.take_announced(5), std::uint64_t{1} << 63 | 1U);
  EXPECT_EQ(rings.take_announced(5), 0U);
  EXPECT_EQ(rings.take_announced(6), 2U);
}

// More than a burst, announced once.
TEST(Worker, empties_the_rings_of_who_has_announced) {
  constexpr unsigned kFrames = 500;
  RunningWorker director;
  const Bytes stray = client_udp({"10.1.0.1", 1000, "10.9.0.77", 9});
  unsigned put = 0;
  while (put + kMaxBurst < kFrames) put += director.receive_many(stray);
  director.start();
  EXPECT_TRUE(wait_for([&] { return director.lab().count(Outcome::kernel_not_a_service) == put; }));
  director.stop();
}

}  // namespace
}  // namespace weir::test
