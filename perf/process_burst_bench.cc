// SPDX-License-Identifier: Apache-2.0
// process_burst in process, one worker, 64-byte IPv4 packets, bursts of 32, beside a floor that
// makes the same packets and only swaps their MAC addresses. perf/run prints medians and
// differences.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "dataplane/net/checksum.h"
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

enum class From : std::uint8_t { clients, servers };

// Packets of many connections, made in buffers in turn: what the receive side of a driver does.
class Traffic {
 public:
  Traffic(std::uint32_t connections, std::uint8_t flags, From from)
      : mask_(connections - 1), buffers_(kBuffers * kRoom), from_(from) {
    auto& ethernet = at<EthernetHeader>(0);
    ethernet = {from == From::clients ? BurstLab::kClientSideMac : BurstLab::kServerSideMac,
                MacAddress{}, Be16::from_host(kEtherTypeIpv4)};
    auto& ip = at<Ipv4Header>(sizeof(EthernetHeader));
    ip.version_and_length = 0x45;
    ip.total_length = Be16::from_host(kFrameBytes - sizeof(EthernetHeader));
    ip.ttl = 64;
    ip.protocol = Protocol::tcp;
    auto& tcp = at<TcpHeader>(sizeof(EthernetHeader) + sizeof(Ipv4Header));
    tcp.data_offset = 0x50;
    tcp.flags = flags;
  }

  // Connection `number` is a client of 10.16.0.0/12 with a port; its server follows from rr.
  void make(Packet& packet, std::uint32_t number, const Ipv4Address& other,
            std::uint16_t other_port) {
    std::uint8_t* frame = buffers_.data() + (next_++ % kBuffers) * kRoom + kHeadroom;
    std::memcpy(frame, template_.data(), kFrameBytes);
    auto& ip = *reinterpret_cast<Ipv4Header*>(frame + sizeof(EthernetHeader));
    auto& ports = *reinterpret_cast<UdpHeader*>(frame + sizeof(EthernetHeader) + sizeof ip);
    const Ipv4Address client{Be32::from_host(0x0a100000U + (number >> 8))};
    const auto client_port = Be16::from_host(static_cast<std::uint16_t>(1024 + (number & 0xff)));
    const bool inbound = from_ == From::clients;
    ip.source = inbound ? client : other;
    ip.destination = inbound ? other : client;
    ports.source_port = inbound ? client_port : Be16::from_host(other_port);
    ports.destination_port = inbound ? Be16::from_host(other_port) : client_port;
    ip.checksum = Be16{};
    ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
    packet.outcome = Outcome::undecided;
    packet.chained = false;
    packet.ip = nullptr;
    packet.frame = frame;
    packet.length = kFrameBytes;
    packet.headroom = kHeadroom;
    packet.port = inbound ? 0 : 1;
  }

  // A different connection each time, in an order without locality.
  std::uint32_t next_number() {
    sequence_ = sequence_ * 1664525U + 1013904223U;
    return (sequence_ >> 7) & mask_;
  }

 private:
  template <class Header>
  Header& at(std::size_t offset) {
    return *reinterpret_cast<Header*>(template_.data() + offset);
  }

  std::uint32_t mask_;
  std::array<std::uint8_t, kFrameBytes> template_{};
  std::vector<std::uint8_t> buffers_;
  std::size_t next_ = 0;
  std::uint32_t sequence_ = 1;
  From from_;
};

const Ipv4Address kVip{Be32::from_host(0x0a090001U)};

std::unique_ptr<BurstLab> make_lab(ForwardMode mode, std::uint32_t connections) {
  BurstLab::Shape shape;
  shape.capacity = std::max(4096U, connections + connections / 8);
  shape.pages = TableMemory::map(1, TableMemory::Pages::huge) ? TableMemory::Pages::huge
                                                              : TableMemory::Pages::normal;
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
    Traffic traffic(connections, flags, From::clients);
    for (std::uint32_t number = 0; number < connections; ++number) {
      Packet packet;
      traffic.make(packet, number, kVip, kServicePort);
      process_burst(lab.worker(), lab.snapshot(), {&packet, 1});
      if (!is_forwarded(packet.outcome)) std::abort();
    }
  }
}

void BM_mac_swap_floor(benchmark::State& state) {
  Traffic traffic(static_cast<std::uint32_t>(state.range(0)), TcpHeader::kAck, From::clients);
  std::array<Packet, kMaxBurst> burst;
  for (auto _ : state) {
    for (Packet& packet : burst) traffic.make(packet, traffic.next_number(), kVip, kServicePort);
    for (Packet& packet : burst) {
      auto& ethernet = *reinterpret_cast<EthernetHeader*>(packet.frame);
      std::swap(ethernet.source, ethernet.destination);
    }
    benchmark::DoNotOptimize(burst);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kMaxBurst));
}

void run_bursts(benchmark::State& state, BurstLab& lab, Traffic& traffic,
                const Ipv4Address& address) {
  std::array<Packet, kMaxBurst> burst;
  std::uint64_t lost = 0;
  for (auto _ : state) {
    for (Packet& packet : burst) {
      traffic.make(packet, traffic.next_number(), address, kServicePort);
    }
    process_burst(lab.worker(), lab.snapshot(), burst);
    for (const Packet& packet : burst) lost += is_forwarded(packet.outcome) ? 0 : 1;
  }
  if (lost != 0) state.SkipWithError("packets were not forwarded");
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kMaxBurst));
}

void BM_inbound(benchmark::State& state, ForwardMode mode) {
  const auto connections = static_cast<std::uint32_t>(state.range(0));
  const auto lab = make_lab(mode, connections);
  establish(*lab, connections);
  Traffic traffic(connections, TcpHeader::kAck, From::clients);
  run_bursts(state, *lab, traffic, kVip);
}

// A SYN of a new connection per packet on top of those that are open; the table is refilled outside
// the measured time.
void BM_open(benchmark::State& state, ForwardMode mode) {
  const auto connections = static_cast<std::uint32_t>(state.range(0));
  const auto lab = make_lab(mode, connections);
  establish(*lab, connections);
  Traffic traffic(1U << 31, TcpHeader::kSyn, From::clients);
  std::array<Packet, kMaxBurst> burst;
  std::uint32_t number = connections;
  const auto room =
      static_cast<std::uint32_t>(lab->worker().ipv4.capacity() - connections - kMaxBurst);
  for (auto _ : state) {
    if (number - connections > room) {
      state.PauseTiming();
      for (std::uint32_t index = connections; index < number; ++index) {
        lab->worker().ipv4.close(index);
      }
      number = connections;
      state.ResumeTiming();
    }
    for (Packet& packet : burst) traffic.make(packet, number++, kVip, kServicePort);
    process_burst(lab->worker(), lab->snapshot(), burst);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kMaxBurst));
}

constexpr std::int64_t kHot = 1 << 10;
constexpr std::int64_t kMillion = 1 << 20;

BENCHMARK(BM_mac_swap_floor)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_inbound, dr, ForwardMode::dr)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_inbound, nat, ForwardMode::nat)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_inbound, tun, ForwardMode::tun)->Arg(kHot)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_open, dr, ForwardMode::dr)->Arg(kMillion);
BENCHMARK_CAPTURE(BM_open, nat, ForwardMode::nat)->Arg(kMillion);

}  // namespace
}  // namespace weir

BENCHMARK_MAIN();
