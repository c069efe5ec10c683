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
void add_unknown_servers(Services& services, std::uint16_t first_port, unsigned count) {
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

}  // namespace
}  // namespace weir::test
