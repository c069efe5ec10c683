// SPDX-License-Identifier: Apache-2.0
// Ports for fullnat connections, on real connection tables: whose replies are they, is any given
// twice or lost, and how far does one address go. The judge of ownership is OwnerMap, which
// owner_test holds against DPDK's Toeplitz hash; of use, a set kept here.
#include "dataplane/table/local_ports.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/table/connection_table.h"
#include "tests/support/random.h"
#include "tests/support/sanitizers.h"

namespace weir {
namespace {

constexpr std::uint64_t kSeed = 0x5eed;

OwnerMap owners_of(unsigned workers, std::uint64_t seed = 7) {
  test::Random random(seed);
  OwnerMap::Key key;
  for (std::uint8_t& byte : key) byte = static_cast<std::uint8_t>(random());
  return {key, workers};
}

template <class Address>
Address numbered(std::uint32_t net, std::uint32_t number);
template <>
Ipv4Address numbered(std::uint32_t net, std::uint32_t number) {
  return {Be32::from_host(0x0a000000U | net << 16 | number)};
}
template <>
Ipv6Address numbered(std::uint32_t net, std::uint32_t number) {
  Ipv6Address address{{0x20, 0x01, 0x0d, 0xb8}};
  address.bytes[7] = static_cast<std::uint8_t>(net);
  const Be32 last = Be32::from_host(number);
  std::memcpy(&address.bytes[12], &last, sizeof last);
  return address;
}

LocalAddresses pool_of(unsigned count, std::uint16_t first = 1024, std::uint16_t last = 65535) {
  LocalAddresses pool{.first_port = first, .last_port = last};
  for (unsigned i = 0; i < count; ++i) {
    pool.ipv4.push_back(numbered<Ipv4Address>(3, i + 1));
    pool.ipv6.push_back(numbered<Ipv6Address>(3, i + 1));
  }
  return pool;
}

// A worker: its connections and its ports.
template <class Address>
class Lab {
 public:
  using Table = ConnectionTable<Address>;

  Lab(unsigned workers, const LocalAddresses& pool, std::uint32_t capacity)
      : owners_(owners_of(workers)),
        groups_(
            std::make_shared<const PortGroups>(owners_, pool.first_port, pool.last_port, kSeed)),
        ports_(make_local_ports(owners_, groups_, pool, workers, kSeed)) {
    for (unsigned i = 0; i < workers; ++i) {
      const std::size_t bytes = (Table::bytes_for(capacity) + 63) / 64 * 64;
      memory_.emplace_back(static_cast<std::byte*>(std::aligned_alloc(64, bytes)), std::free);
      std::fill_n(memory_.back().get(), bytes, std::byte{0});
      tables_.emplace_back(memory_.back().get(), capacity, std::array<std::uint64_t, 2>{1, 2}, 0U);
    }
  }

  // The worker that owns the client opens its connection. Nothing: no port.
  std::optional<std::uint32_t> open(unsigned worker, const Connection<Address>& wanted) {
    Table& table = tables_[worker];
    const auto free = [&](std::span<const LocalEnd<Address>> ends) {
      probes_ += ends.size();
      return first_free(table, Table::reply_key(wanted), ends);
    };
    const auto hash = std::hash<IpAddress>{}(IpAddress(wanted.client));
    const auto end = ports_[worker].template choose<Address>(hash, exhausted_, free);
    if (!end) return std::nullopt;
    Connection<Address> connection = wanted;
    connection.local = end->address;
    connection.local_port = end->port;
    return table.open(connection);
  }

  static Connection<Address> connection(const Address& client, std::uint16_t client_port,
                                        unsigned server) {
    Connection<Address> connection{};
    connection.client = client;
    connection.client_port = Be16::from_host(client_port);
    connection.virtual_address = numbered<Address>(9, 1);
    connection.virtual_port = Be16::from_host(80);
    connection.server = numbered<Address>(2, server + 1);
    connection.server_port = Be16::from_host(8080);
    connection.protocol = Protocol::tcp;
    connection.flags = static_cast<std::uint16_t>(ForwardMode::fullnat) | kReplyIndexed;
    return connection;
  }

  unsigned owner_of_client(const Connection<Address>& connection) const {
    return owners_.owner(connection.client, connection.client_port);
  }
  unsigned owner_of_reply(const Connection<Address>& connection) const {
    return owners_.owner(connection.local, connection.local_port);
  }

  Table& table(unsigned worker) { return tables_[worker]; }
  const PortGroups& groups() const { return *groups_; }
  std::uint64_t probes() const { return probes_; }
  std::uint64_t exhausted() const { return exhausted_.read(); }

 private:
  OwnerMap owners_;
  std::shared_ptr<const PortGroups> groups_;
  LocalPortsSet ports_;
  std::vector<std::unique_ptr<std::byte, decltype(&std::free)>> memory_;
  std::vector<Table> tables_;
  std::uint64_t probes_ = 0;
  Counter<std::uint64_t> exhausted_;
};

template <class Address>
class LocalPortsTest : public testing::Test {};
using Families = testing::Types<Ipv4Address, Ipv6Address>;
TYPED_TEST_SUITE(LocalPortsTest, Families);

TYPED_TEST(LocalPortsTest, groups_hold_every_port_of_the_range_once) {
  constexpr std::uint16_t kFirst = 20000;
  constexpr std::uint16_t kLast = 39999;
  const OwnerMap owners = owners_of(3);
  const PortGroups groups(owners, kFirst, kLast, kSeed);
  const auto address = numbered<TypeParam>(3, 77);
  const std::size_t address_group = owners.hash(address, Be16{}) % OwnerMap::kGroups;
  std::set<std::uint16_t> seen;
  for (std::size_t group = 0; group < OwnerMap::kGroups; ++group) {
    for (const std::uint16_t port : groups.ports<TypeParam>(address_group, group)) {
      EXPECT_TRUE(seen.insert(port).second) << port;
      EXPECT_EQ(owners.hash(address, Be16::from_host(port)) % OwnerMap::kGroups, group);
    }
  }
  EXPECT_EQ(seen.size(), kLast - kFirst + 1U);
  EXPECT_EQ(*seen.begin(), kFirst);
  EXPECT_EQ(*seen.rbegin(), kLast);
}

TYPED_TEST(LocalPortsTest, every_key_spreads_the_ports_over_the_workers_or_says_that_it_does_not) {
  unsigned fair = 0;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const PortGroups groups(owners_of(4, seed), 1024, 65535, kSeed);
    if (groups.fewest_of_any_worker() > 64512 / 4 * 9 / 10) ++fair;
  }
  EXPECT_GE(fair, 48U);
}

TYPED_TEST(LocalPortsTest, a_key_that_leaves_a_worker_without_ports_is_told) {
  // Only zeros: every port hashes alike.
  const PortGroups groups(OwnerMap(OwnerMap::Key{}, 2), 1024, 65535, kSeed);
  EXPECT_EQ(groups.fewest_of_any_worker(), 0U);
}

// One address, one real server: all workers together fill it.
TYPED_TEST(LocalPortsTest, an_address_serves_60000_connections_to_one_real_server) {
  constexpr unsigned kConnections = 60'000;
  for (const unsigned workers : {1U, 2U, 3U, 4U}) {
    Lab<TypeParam> lab(workers, pool_of(1), kConnections);
    ASSERT_GT(lab.groups().fewest_of_any_worker(), 0U);
    std::set<std::uint16_t> used;
    for (unsigned i = 0; i < kConnections; ++i) {
      const auto connection = lab.connection(numbered<TypeParam>(1, i), 40000, 0);
      // Each worker its share, so that none is asked for more than it has.
      const unsigned worker = i % workers;
      const auto index = lab.open(worker, connection);
      ASSERT_TRUE(index) << "worker " << worker << " of " << workers << ", connection " << i;
      const auto& opened = lab.table(worker)[*index];
      ASSERT_EQ(lab.owner_of_reply(opened), worker);
      ASSERT_GE(opened.local_port.host(), 1024);
      ASSERT_TRUE(used.insert(opened.local_port.host()).second) << "a port was given twice";
    }
    EXPECT_EQ(used.size(), kConnections);
    EXPECT_EQ(lab.exhausted(), 0U);
  }
}

TYPED_TEST(LocalPortsTest, the_next_address_helps_out_and_the_last_failure_is_cheap) {
  constexpr std::uint16_t kPorts = 1000;
  Lab<TypeParam> lab(1, pool_of(2, 10000, 10000 + kPorts - 1), 3 * kPorts);
  // One client, so that all begin with the same address.
  const auto client = numbered<TypeParam>(1, 1);
  std::map<std::string, unsigned> by_address;
  unsigned opened = 0;
  for (std::uint16_t port = 1; port <= 2 * kPorts; ++port) {
    const auto index = lab.open(0, lab.connection(client, port, 0));
    if (!index) continue;
    ++opened;
    ++by_address[IpAddress(lab.table(0)[*index].local).to_string()];
  }
  EXPECT_GT(opened, 2 * kPorts * 97 / 100);
  EXPECT_LE(opened, 2 * kPorts);
  EXPECT_EQ(by_address.size(), 2U);
  EXPECT_GT(lab.exhausted(), kPorts * 9U / 10);
  const std::uint64_t before = lab.probes();
  constexpr unsigned kRefused = 100;
  unsigned refused = 0;
  for (std::uint16_t port = 5000; port < 5000 + kRefused; ++port) {
    if (!lab.open(0, lab.connection(client, port, 0))) ++refused;
  }
  EXPECT_GT(refused, kRefused * 8 / 10);
  EXPECT_LT((lab.probes() - before) / kRefused, LocalPorts::kMaxProbes / 2);
  // Another real server has all of them to itself.
  const auto other = lab.open(0, lab.connection(client, 1, 1));
  EXPECT_TRUE(other);
}

TYPED_TEST(LocalPortsTest, a_stretch_of_used_ports_does_not_hide_the_free_ones) {
  LocalAddresses pool = pool_of(1);
  const OwnerMap owners = owners_of(1);
  const auto groups = std::make_shared<const PortGroups>(owners, 1024, 65535, kSeed);
  LocalPorts ports(owners, groups, pool, 0, kSeed);
  Counter<std::uint64_t> exhausted;
  // What was given stays in use, as after a burst of long connections; half of all ports.
  std::set<std::uint16_t> used;
  const auto free = [&](std::span<const LocalEnd<TypeParam>> ends) {
    const auto first = std::find_if(ends.begin(), ends.end(), [&](const LocalEnd<TypeParam>& end) {
      return !used.contains(end.port.host());
    });
    return static_cast<std::size_t>(first - ends.begin());
  };
  for (unsigned i = 0; i < 32'000; ++i) {
    const auto end = ports.template choose<TypeParam>(1, exhausted, free);
    ASSERT_TRUE(end);
    used.insert(end->port.host());
  }
  EXPECT_EQ(exhausted.read(), 0U);
}

TYPED_TEST(LocalPortsTest, a_closed_port_comes_back_late_while_few_are_in_use) {
  LocalAddresses pool = pool_of(1);
  const OwnerMap owners = owners_of(2);
  const auto groups = std::make_shared<const PortGroups>(owners, 1024, 65535, kSeed);
  LocalPorts ports(owners, groups, pool, 1, kSeed);
  Counter<std::uint64_t> exhausted;
  std::map<std::uint16_t, unsigned> last_given;
  unsigned soonest = 100'000;
  for (unsigned i = 0; i < 20'000; ++i) {
    const auto end =
        ports.template choose<TypeParam>(1, exhausted, [](auto) { return std::size_t{0}; });
    ASSERT_TRUE(end);
    const auto [at, is_new] = last_given.try_emplace(end->port.host(), i);
    if (!is_new) soonest = std::min(soonest, i - std::exchange(at->second, i));
  }
  EXPECT_GE(soonest, 32256U / 16 - 16) << "a round is at least that long";
}

TYPED_TEST(LocalPortsTest, the_next_port_does_not_follow_from_the_last) {
  LocalAddresses pool = pool_of(1);
  const OwnerMap owners = owners_of(1);
  const auto groups = std::make_shared<const PortGroups>(owners, 1024, 65535, kSeed);
  LocalPorts ports(owners, groups, pool, 0, kSeed);
  LocalPorts other_seed(owners, groups, pool, 0, kSeed + 1);
  Counter<std::uint64_t> exhausted;
  const auto next = [&](LocalPorts& from) {
    return from.template choose<TypeParam>(1, exhausted, [](auto) { return std::size_t{0}; })
        ->port.host();
  };
  std::map<int, unsigned> differences;
  unsigned same = 0;
  int last = next(ports);
  for (unsigned i = 0; i < 5000; ++i) {
    const int port = next(ports);
    ++differences[port - last];
    last = port;
    if (port == next(other_seed)) ++same;
  }
  for (const auto& [difference, count] : differences) EXPECT_LT(count, 20U) << difference;
  EXPECT_LT(same, 10U);
}

TYPED_TEST(LocalPortsTest, clients_spread_over_the_addresses_and_keep_theirs) {
  constexpr unsigned kAddresses = 4;
  constexpr unsigned kClients = 4000;
  Lab<TypeParam> lab(2, pool_of(kAddresses), 3 * kClients);
  std::map<std::string, unsigned> by_address;
  for (unsigned i = 0; i < kClients; ++i) {
    std::set<std::string> of_client;
    for (const unsigned worker : {0U, 1U}) {
      const auto index = lab.open(
          worker,
          lab.connection(numbered<TypeParam>(1, i), static_cast<std::uint16_t>(worker + 1), 0));
      ASSERT_TRUE(index);
      of_client.insert(IpAddress(lab.table(worker)[*index].local).to_string());
    }
    ASSERT_EQ(of_client.size(), 1U) << "workers disagree";
    ++by_address[*of_client.begin()];
  }
  ASSERT_EQ(by_address.size(), kAddresses);
  for (const auto& [address, count] : by_address) {
    EXPECT_NEAR(count, kClients / kAddresses, kClients / kAddresses / 5) << address;
  }
}

TYPED_TEST(LocalPortsTest, a_pool_without_addresses_or_ports_gives_nothing) {
  Lab<TypeParam> empty(1, pool_of(0), 16);
  EXPECT_FALSE(empty.open(0, empty.connection(numbered<TypeParam>(1, 1), 1, 0)));
  // A single port, which belongs to one of the two workers.
  Lab<TypeParam> tiny(2, pool_of(1, 5000, 5000), 16);
  const auto client = numbered<TypeParam>(1, 1);
  unsigned given = 0;
  for (std::uint16_t port = 1; port < 100; ++port) {
    if (tiny.open(port % 2, tiny.connection(client, port, 0))) ++given;
  }
  EXPECT_EQ(given, 1U);
}

// ---- Churn, with a clock that the test moves ----

#if defined(WEIR_ADDRESS_SANITIZER) || defined(WEIR_THREAD_SANITIZER)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

constexpr std::uint32_t kTimeWait = 120 * kTicksPerSecond;
constexpr unsigned kAddresses = 4;
constexpr unsigned kServers = 10;

// Connections come and go as fast as the clock lets them; each stays for kTimeWait after its end.
class Churn {
 public:
  Churn(unsigned workers, std::uint64_t connections)
      : lab_(workers, pool_of(kAddresses), kCapacity), workers_(workers), wanted_(connections) {}

  void run() {
    // As many a tick as keep about 8,000 ports of each address and server in use.
    constexpr unsigned kEachTick = 8'000 * kAddresses * kServers / kTimeWait;
    while (opened_ < wanted_ && !testing::Test::HasFatalFailure()) {
      for (unsigned i = 0; i < kEachTick; ++i) open_one();
      ++now_;
      for (unsigned worker = 0; worker < workers_; ++worker) expire(worker, now_);
    }
  }
  void drain() {
    now_ += kTimeWait + 1;
    for (unsigned worker = 0; worker < workers_; ++worker) expire(worker, now_);
  }

  std::uint64_t opened() const { return opened_; }
  std::uint64_t refused() const { return refused_; }
  std::size_t ends_in_use() const { return ends_in_use_; }
  std::uint32_t connections() {
    std::uint32_t sum = 0;
    for (unsigned worker = 0; worker < workers_; ++worker) sum += lab_.table(worker).size();
    return sum;
  }
  double probes_each() const {
    return static_cast<double>(lab_.probes()) / static_cast<double>(opened_);
  }

 private:
  static constexpr std::uint32_t kCapacity = 400'000;

  // Local address, port and real server as one number.
  static std::size_t end_of(const Connection<Ipv4Address>& c) {
    const std::size_t address = (c.local.value.host() & 0xff) - 1;
    const std::size_t server = (c.server.value.host() & 0xff) - 1;
    return (address * kServers + server) << 16 | c.local_port.host();
  }

  void open_one() {
    const std::uint32_t number = random_();
    auto connection = Lab<Ipv4Address>::connection(
        numbered<Ipv4Address>(64 + (number & 0x1f), number >> 16),
        static_cast<std::uint16_t>(1 + opened_ % 65535), number % kServers);
    const unsigned worker = lab_.owner_of_client(connection);
    connection.deadline = now_ + kTimeWait;
    // The same client once more, while its former connection is there: not what this is about.
    const FlowKey<Ipv4Address> key{connection.client,      connection.virtual_address,
                                   connection.client_port, connection.virtual_port,
                                   connection.protocol,    Direction::inbound};
    if (lab_.table(worker).find_one(key) != kNoConnection) return;
    const auto index = lab_.open(worker, connection);
    if (!index) {
      ++refused_;
      return;
    }
    ++opened_;
    const auto& opened = lab_.table(worker)[*index];
    ASSERT_EQ(lab_.owner_of_reply(opened), worker);
    ASSERT_FALSE(ends_[end_of(opened)]) << "in use already";
    ends_[end_of(opened)] = true;
    ++ends_in_use_;
  }

  void expire(unsigned worker, std::uint32_t now) {
    auto& table = lab_.table(worker);
    table.advance(now, 1U << 30, [&](std::uint32_t index) {
      ASSERT_TRUE(ends_[end_of(table[index])]);
      ends_[end_of(table[index])] = false;
      --ends_in_use_;
      table.close(index);
    });
  }

  Lab<Ipv4Address> lab_;
  unsigned workers_;
  std::uint64_t wanted_;
  std::uint64_t opened_ = 0;
  std::uint64_t refused_ = 0;
  std::uint32_t now_ = 0;
  std::vector<bool> ends_ = std::vector<bool>((kAddresses * kServers) << 16);
  std::size_t ends_in_use_ = 0;
  test::Random random_{1};
};

TEST(LocalPortsChurn, ten_million_connections_neither_collide_nor_leak) {
  const std::vector<unsigned> all = {1, 2, 4};
  // Sanitizers make ten million take minutes.
  constexpr std::uint64_t kConnections = kSanitized ? 1'000'000 : 10'000'000;
  for (const unsigned workers : kSanitized ? std::vector<unsigned>{2} : all) {
    Churn churn(workers, kConnections);
    churn.run();
    if (testing::Test::HasFatalFailure()) return;
    EXPECT_EQ(churn.refused(), 0U);
    EXPECT_EQ(churn.connections(), churn.ends_in_use());
    EXPECT_GT(churn.connections(), 300'000U);
    EXPECT_LT(churn.probes_each(), 1.5);
    churn.drain();
    EXPECT_EQ(churn.ends_in_use(), 0U);
    EXPECT_EQ(churn.connections(), 0U);
  }
}

}  // namespace
}  // namespace weir
