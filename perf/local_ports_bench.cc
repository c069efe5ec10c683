// SPDX-License-Identifier: Apache-2.0
// A local port for a new fullnat connection, on a real connection table, with the first argument's
// per cent of each address and real server in use; beside the single look-up that any answer needs,
// and a FIFO of free ports for each address and real server, which is faster and takes
// 130 kB for each of them and worker-to-worker transfers besides.
#include <benchmark/benchmark.h>

#include <memory>
#include <numeric>
#include <vector>

#include "dataplane/table/connection_table.h"
#include "dataplane/table/local_ports.h"
#include "dataplane/table/table_memory.h"

namespace weir {
namespace {

constexpr unsigned kServers = 10;
constexpr unsigned kAddresses = 2;
constexpr std::uint16_t kFirst = 1024;
constexpr std::uint16_t kLast = 65535;
constexpr std::uint32_t kPorts = kLast - kFirst + 1;
constexpr std::uint32_t kCapacity = kPorts * kAddresses * kServers;
using Table = ConnectionTable<Ipv4Address>;

Ipv4Address numbered(std::uint32_t number) { return {Be32::from_host(0x0a000000U + number)}; }

// A worker whose addresses are in use to the same extent towards every server.
class Director {
 public:
  explicit Director(unsigned per_cent)
      : memory_(*TableMemory::map(Table::bytes_for(kCapacity), TableMemory::Pages::normal)),
        table_(memory_.data(), kCapacity, {1, 2}, 0),
        owners_(key(), 1),
        ports_(owners_, std::make_shared<const PortGroups>(owners_, kFirst, kLast, 3), pool(), 0,
               4) {
    const std::uint32_t wanted = kPorts * per_cent / 100 * kAddresses * kServers;
    while (table_.size() < wanted) {
      auto connection = next();
      const auto end = choose(connection);
      connection.local = end->address;
      connection.local_port = end->port;
      table_.open(connection);
    }
  }

  Connection<Ipv4Address> next() {
    ++number_;
    Connection<Ipv4Address> connection{};
    connection.client = numbered(0x100000U + number_);
    connection.server = numbered(number_ % kServers);
    connection.server_port = Be16::from_host(8080);
    connection.protocol = Protocol::tcp;
    connection.flags = static_cast<std::uint16_t>(ForwardMode::fullnat) | kReplyIndexed;
    return connection;
  }
  bool in_use(const Connection<Ipv4Address>& connection, const LocalEnd<Ipv4Address>& end) const {
    return first_free(table_, Table::reply_key(connection), std::span(&end, 1)) != 0;
  }
  std::optional<LocalEnd<Ipv4Address>> choose(const Connection<Ipv4Address>& connection) {
    const auto free = [&](std::span<const LocalEnd<Ipv4Address>> ends) {
      probes_ += ends.size();
      return first_free(table_, Table::reply_key(connection), ends);
    };
    const std::uint64_t hash = connection.client.value.raw() * 0x9e3779b97f4a7c15ULL;
    return ports_.choose<Ipv4Address>(hash, exhausted_, free);
  }
  std::uint64_t probes() const { return probes_; }

 private:
  static OwnerMap::Key key() {
    OwnerMap::Key key;
    std::iota(key.begin(), key.end(), std::uint8_t{0x51});
    return key;
  }
  static LocalAddresses pool() {
    LocalAddresses pool;
    for (unsigned i = 0; i < kAddresses; ++i) pool.ipv4.push_back(numbered(0x200000U + i));
    return pool;
  }

  TableMemory memory_;
  Table table_;
  OwnerMap owners_;
  LocalPorts ports_;
  Counter<std::uint64_t> exhausted_;
  std::uint32_t number_ = 0;
  std::uint64_t probes_ = 0;
};

void choose(benchmark::State& state) {
  Director director(static_cast<unsigned>(state.range(0)));
  const std::uint64_t before = director.probes();
  for (auto _ : state) {
    const auto connection = director.next();
    benchmark::DoNotOptimize(director.choose(connection));
  }
  state.counters["probes"] = benchmark::Counter(static_cast<double>(director.probes() - before),
                                                benchmark::Counter::kAvgIterations);
}
BENCHMARK(choose)->Arg(10)->Arg(50)->Arg(90);

void one_look_up(benchmark::State& state) {
  Director director(static_cast<unsigned>(state.range(0)));
  std::uint16_t port = 0;
  for (auto _ : state) {
    const auto connection = director.next();
    port = static_cast<std::uint16_t>(port + 40503);
    benchmark::DoNotOptimize(
        director.in_use(connection, {numbered(0x200000U), Be16::from_host(port)}));
  }
}
BENCHMARK(one_look_up)->Arg(10)->Arg(50)->Arg(90);

// What is taken is given back, so that the fifo keeps its length.
void fifo_of_free_ports(benchmark::State& state) {
  const std::uint32_t free = kPorts * (100 - static_cast<std::uint32_t>(state.range(0))) / 100;
  struct Fifo {
    std::vector<std::uint16_t> ports;
    std::uint32_t head = 0;
  };
  std::vector<Fifo> fifos(kServers * kAddresses);
  for (Fifo& fifo : fifos) {
    fifo.ports.resize(free);
    std::iota(fifo.ports.begin(), fifo.ports.end(), kFirst);
  }
  std::uint32_t number = 0;
  for (auto _ : state) {
    Fifo& fifo = fifos[++number % fifos.size()];
    const std::uint16_t port = fifo.ports[fifo.head];
    fifo.ports[fifo.head] = static_cast<std::uint16_t>(port ^ 1U);
    fifo.head = fifo.head + 1 == free ? 0 : fifo.head + 1;
    benchmark::DoNotOptimize(port);
  }
}
BENCHMARK(fifo_of_free_ports)->Arg(10)->Arg(50)->Arg(90);

}  // namespace
}  // namespace weir

BENCHMARK_MAIN();
