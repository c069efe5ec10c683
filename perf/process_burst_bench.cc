// SPDX-License-Identifier: Apache-2.0
// process_burst in process, one worker, 64-byte IPv4 packets, bursts of 32, beside a floor that
// makes the same packets and only swaps their MAC addresses. perf/run prints medians and
// differences.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/net/checksum.h"
#include "dataplane/net/mix.h"
#include "dataplane/net/wire_headers.h"
#include "tests/support/burst_lab.h"

namespace weir {
namespace {

using test::BurstLab;

constexpr std::size_t kFrameBytes = 60;  // 64 with the FCS
constexpr std::size_t kRoom = 256;       // of a buffer, headroom included
constexpr std::size_t kHeadroom = 128;
constexpr std::size_t kBuffers = 4096;  // in turn, as a receive ring has them
constexpr std::uint16_t kServicePort = 80;
constexpr std::uint64_t kFirstSeed = 0x9e3779b97f4a7c15ULL;
constexpr std::uint64_t kSecondSeed = 0xd1b54a32d192ed03ULL;
const Ipv4Address kVip{Be32::from_host(0x0a090001U)};

// Packets of clients 10.16.0.0/12 to the service, made beforehand: a NIC, too, costs the worker
// nothing but the copy into a buffer, which is part of the floor.
class Traffic {
 public:
  // Packets of the connections [first, first + count), each once, `flags` in each. Scattered: in an
  // order without locality; then `count` is a power of two.
  enum class Order : std::uint8_t { in_turn, scattered };
  Traffic(std::uint32_t first, std::uint32_t count, std::uint8_t flags, Order order)
      : frames_(count), buffers_(kBuffers * kRoom) {
    std::uint32_t number = 0;
    for (Frame& frame : frames_) {
      write(frame, first + number, flags);
      number = order == Order::in_turn ? number + 1 : (number * 1664525U + 1013904223U) % count;
    }
  }

  void fill(std::span<Packet> burst) {
    for (Packet& packet : burst) {
      std::uint8_t* at = buffers_.data() + buffer_ * kRoom + kHeadroom;
      buffer_ = (buffer_ + 1) % kBuffers;
      std::memcpy(at, frames_[next_].data(), sizeof(Frame));
      next_ = next_ + 1 == frames_.size() ? 0 : next_ + 1;
      packet.frame = at;
      packet.length = kFrameBytes;
      packet.headroom = kHeadroom;
      packet.port = 0;
    }
  }

 private:
  using Frame = std::array<std::uint8_t, 64>;

  static void write(Frame& frame, std::uint32_t number, std::uint8_t flags) {
    auto& ethernet = *reinterpret_cast<EthernetHeader*>(frame.data());
    ethernet = {BurstLab::kClientSideMac, MacAddress{}, Be16::from_host(kEtherTypeIpv4)};
    auto& ip = *reinterpret_cast<Ipv4Header*>(frame.data() + sizeof ethernet);
    ip.version_and_length = 0x45;
    ip.total_length = Be16::from_host(kFrameBytes - sizeof ethernet);
    ip.ttl = 64;
    ip.protocol = Protocol::tcp;
    ip.source = Ipv4Address{Be32::from_host(0x0a100000U + (number >> 8))};
    ip.destination = kVip;
    ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
    auto& tcp = *reinterpret_cast<TcpHeader*>(frame.data() + sizeof ethernet + sizeof ip);
    tcp.source_port = Be16::from_host(static_cast<std::uint16_t>(1024 + (number & 0xff)));
    tcp.destination_port = Be16::from_host(kServicePort);
    tcp.data_offset = 0x50;
    tcp.flags = flags;
  }

  std::vector<Frame> frames_;
  std::vector<std::uint8_t> buffers_;
  std::size_t next_ = 0;
  std::size_t buffer_ = 0;
};

TableMemory::Pages pages() {
  return TableMemory::map(1, TableMemory::Pages::huge) ? TableMemory::Pages::huge
                                                       : TableMemory::Pages::normal;
}

TableMemory map_memory(std::size_t bytes) {
  auto memory = TableMemory::map(bytes, pages());
  if (!memory) std::abort();
  return std::move(*memory);
}

std::unique_ptr<BurstLab> make_lab(ForwardMode mode, std::uint32_t connections) {
  BurstLab::Shape shape;
  shape.capacity = std::max(4096U, connections + connections / 8);
  shape.pages = pages();
  auto lab = std::make_unique<BurstLab>(shape);
  const ServiceKey key{Protocol::tcp, kVip, kServicePort};
  ServiceSpec service;
  service.key = key;
  service.scheduler = "rr";
  if (!lab->services().add_service(service).ok()) std::abort();
  for (std::uint32_t i = 1; i <= 16; ++i) {
    ServerSpec server;
    server.address = Ipv4Address{Be32::from_host(0x0a020000U + i)};
    server.port = kServicePort;
    server.mode = mode;
    if (!lab->services().add_server(key, server).ok()) std::abort();
  }
  lab->settle();
  return lab;
}

// Opens all connections and brings them to ESTABLISHED.
void establish(BurstLab& lab, std::uint32_t connections) {
  for (const std::uint8_t flags : {TcpHeader::kSyn, TcpHeader::kAck}) {
    Traffic traffic(0, connections, flags, Traffic::Order::in_turn);
    std::array<Packet, kMaxBurst> burst;
    for (std::uint32_t sent = 0; sent < connections; sent += kMaxBurst) {
      traffic.fill(burst);
      process_burst(lab.worker(), lab.snapshot(), burst);
      if (!is_forwarded(burst.back().outcome)) std::abort();
    }
  }
}

void count_items(benchmark::State& state) {
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kMaxBurst));
}

void BM_mac_swap_floor(benchmark::State& state) {
  const auto connections = static_cast<std::uint32_t>(state.range(0));
  Traffic traffic(0, connections, TcpHeader::kAck, Traffic::Order::scattered);
  std::array<Packet, kMaxBurst> burst;
  for (auto _ : state) {
    traffic.fill(burst);
    for (Packet& packet : burst) {
      auto& ethernet = *reinterpret_cast<EthernetHeader*>(packet.frame);
      std::swap(ethernet.source, ethernet.destination);
    }
    benchmark::DoNotOptimize(burst);
  }
  count_items(state);
}

// What no connection table of this size can do without: for each packet a line of buckets and a
// line of a connection, which it changes, in memory as weir's.
void BM_two_lines_floor(benchmark::State& state) {
  constexpr std::size_t kLine = 64;
  const auto connections = static_cast<std::size_t>(state.range(0));
  const std::size_t buckets = connections * 5 / 16;
  auto memory = map_memory((buckets + connections) * kLine);
  std::byte* const lines = memory.data();
  Traffic traffic(0, static_cast<std::uint32_t>(connections), TcpHeader::kAck,
                  Traffic::Order::scattered);
  std::array<Packet, kMaxBurst> burst;
  std::array<std::byte*, kMaxBurst> bucket;
  std::array<std::byte*, kMaxBurst> connection;
  for (auto _ : state) {
    traffic.fill(burst);
    for (std::size_t i = 0; i < burst.size(); ++i) {
      const auto ends = load<std::uint64_t>(burst[i].frame + sizeof(EthernetHeader) + 12);
      const auto ports = load<std::uint32_t>(burst[i].frame + sizeof(EthernetHeader) + 20);
      const std::uint64_t hash = multiply_mix(ends ^ kFirstSeed, ports ^ kSecondSeed);
      bucket[i] = lines + reduce_range(hash, buckets) * kLine;
      connection[i] = lines + (buckets + reduce_range(hash << 32U, connections)) * kLine;
      __builtin_prefetch(bucket[i]);
    }
    for (std::size_t i = 0; i < burst.size(); ++i) {
      benchmark::DoNotOptimize(load<std::uint64_t>(bucket[i]));
      __builtin_prefetch(connection[i]);
    }
    for (std::byte* line : connection) *line ^= std::byte{1};
  }
  count_items(state);
}

void BM_inbound(benchmark::State& state, ForwardMode mode) {
  const auto connections = static_cast<std::uint32_t>(state.range(0));
  const auto lab = make_lab(mode, connections);
  establish(*lab, connections);
  Traffic traffic(0, connections, TcpHeader::kAck, Traffic::Order::scattered);
  std::array<Packet, kMaxBurst> burst;
  std::uint64_t lost = 0;
  for (auto _ : state) {
    traffic.fill(burst);
    process_burst(lab->worker(), lab->snapshot(), burst);
    for (const Packet& packet : burst) lost += is_forwarded(packet.outcome) ? 0 : 1;
  }
  if (lost != 0) state.SkipWithError("packets were not forwarded");
  count_items(state);
}

// A SYN of a new connection per packet on top of those that are open; what has been opened is
// closed outside the measured time.
void BM_open(benchmark::State& state, ForwardMode mode) {
  constexpr std::uint32_t kNew = 1U << 16;
  const auto connections = static_cast<std::uint32_t>(state.range(0));
  const auto lab = make_lab(mode, connections);
  establish(*lab, connections);
  Traffic traffic(connections, kNew, TcpHeader::kSyn, Traffic::Order::scattered);
  std::array<Packet, kMaxBurst> burst;
  std::uint32_t opened = 0;
  for (auto _ : state) {
    if (opened == kNew) {
      state.PauseTiming();
      for (; opened != 0; --opened) lab->worker().ipv4.close(connections + opened - 1);
      state.ResumeTiming();
    }
    traffic.fill(burst);
    process_burst(lab->worker(), lab->snapshot(), burst);
    opened += kMaxBurst;
  }
  if (lab->worker().ipv4.size() != connections + opened) state.SkipWithError("not all opened");
  count_items(state);
}

constexpr std::int64_t kHot = 1 << 10;
constexpr std::int64_t kMillion = 1 << 20;

BENCHMARK(BM_mac_swap_floor)->Arg(kHot)->Arg(kMillion);
BENCHMARK(BM_two_lines_floor)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_inbound, dr, ForwardMode::dr)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_inbound, nat, ForwardMode::nat)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_inbound, tun, ForwardMode::tun)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_open, dr, ForwardMode::dr)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_open, nat, ForwardMode::nat)->Arg(kMillion);

}  // namespace
}  // namespace weir

BENCHMARK_MAIN();
