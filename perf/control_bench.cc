// SPDX-License-Identifier: Apache-2.0
// What a change of the configuration costs control and a worker, at three sizes of the whole. The
// workers are driven by the benchmark itself, between two bursts of nothing.
//
//   arguments: services (each with ten real servers), workers
#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>

#include "tests/support/burst_lab.h"

namespace weir {
namespace {

using Clock = std::chrono::steady_clock;
using test::BurstLab;

constexpr std::uint32_t kServersOfAService = 10;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

IpAddress numbered(std::uint32_t network, std::uint32_t number) {
  return Ipv4Address{Be32::from_host(network + number)};
}

ServiceKey service_key(std::uint32_t number) {
  return {.protocol = Protocol::tcp, .address = numbered(0x0ac00000U, number), .port = 80};
}

ServerSpec server_spec(std::uint32_t number, std::int32_t weight = 1) {
  ServerSpec spec;
  spec.address = numbered(0x0a400000U, number);
  spec.port = 8080;
  spec.mode = ForwardMode::nat;
  spec.weight = weight;
  return spec;
}

Plan plan_of(std::uint32_t services) {
  Plan plan;
  for (std::uint32_t i = 0; i < services; ++i) {
    ServiceSpec spec;
    spec.key = service_key(i);
    plan.push_back(AddService{spec});
    for (std::uint32_t j = 0; j < kServersOfAService; ++j) {
      plan.push_back(AddServer{spec.key, server_spec(i * kServersOfAService + j)});
    }
  }
  return plan;
}

void must(const CommitResult& result) {
  if (!result.status.ok()) std::abort();
}

// A director with so many services, kept for all benchmarks of that size.
struct Full {
  BurstLab lab;
  double longest_piece = 0;  // seconds, of work()

  Full(std::uint32_t services, unsigned workers) : lab({.workers = workers, .capacity = 1024}) {
    lab.services().on_work([] {});
    lab.services().commit(plan_of(services), must);
    finish();
  }
  // All pieces of work, and the workers between two of them.
  void finish() {
    for (;;) {
      const auto start = Clock::now();
      const bool more = lab.services().work();
      longest_piece = std::max(longest_piece, seconds_since(start));
      if (!more && !lab.services().settle()) return;
    }
  }
  void adopt() {
    for (unsigned i = 0; i < workers(); ++i) {
      BurstLab::adopt_whole(lab.worker(i), lab.snapshot());
    }
  }
  unsigned workers() { return lab.worker().workers; }
};

Full& full(const benchmark::State& state) {
  static std::map<std::pair<std::int64_t, std::int64_t>, std::unique_ptr<Full>> made;
  auto& place = made[{state.range(0), state.range(1)}];
  if (place == nullptr) {
    place = std::make_unique<Full>(static_cast<std::uint32_t>(state.range(0)),
                                   static_cast<unsigned>(state.range(1)));
  }
  return *place;
}

void BM_load(benchmark::State& state) {
  double longest = 0;
  for (auto _ : state) {
    const auto services = static_cast<std::uint32_t>(state.range(0));
    const auto workers = static_cast<unsigned>(state.range(1));
    const auto start = Clock::now();
    const Full loaded(services, workers);
    state.SetIterationTime(seconds_since(start));
    longest = std::max(longest, loaded.longest_piece);
  }
  state.counters["longest_piece_us"] = longest * 1e6;
}

// One change at a time: until the workers have it, without them.
template <class Make>
void run_changes(benchmark::State& state, Make&& make) {
  Full& director = full(state);
  director.longest_piece = 0;
  std::uint32_t number = 0;
  for (auto _ : state) {
    director.lab.services().commit({make(number++)}, must);
    director.finish();
    state.PauseTiming();
    director.adopt();
    while (director.lab.services().housekeeping()) continue;
    director.finish();
    state.ResumeTiming();
  }
  state.counters["longest_piece_us"] = director.longest_piece * 1e6;
}

void BM_change_weight(benchmark::State& state) {
  run_changes(state, [](std::uint32_t number) {
    return EditServer{service_key(number % 100), server_spec(number % 100 * kServersOfAService,
                                                             2 + static_cast<int>(number % 50))};
  });
}

void BM_add_and_remove_server(benchmark::State& state) {
  run_changes(state, [](std::uint32_t number) -> Change {
    const ServiceKey key = service_key(number / 2 % 100);
    const ServerSpec spec = server_spec(900000);
    if (number % 2 == 0) return AddServer{key, spec};
    return DeleteServer{key, spec.address, spec.port};
  });
}

// The time of one worker between two bursts, when a weight has changed.
void BM_worker_adopts(benchmark::State& state) {
  Full& director = full(state);
  std::uint32_t number = 0;
  for (auto _ : state) {
    state.PauseTiming();
    const std::uint32_t service = number % 100;
    director.lab.services().commit(
        {EditServer{service_key(service), server_spec(service * kServersOfAService,
                                                      2 + static_cast<int>(number++ % 50))}},
        must);
    director.finish();
    state.ResumeTiming();
    BurstLab::adopt_whole(director.lab.worker(), director.lab.snapshot());
    state.PauseTiming();
    director.adopt();
    while (director.lab.services().housekeeping()) continue;
    director.finish();
    state.ResumeTiming();
  }
}

void BM_vip_comes_and_goes(benchmark::State& state) {
  Full& director = full(state);
  std::uint32_t number = 0;
  for (auto _ : state) {
    const IpAddress vip = service_key(number / 2 % 100).address;
    if (number++ % 2 == 0) {
      director.lab.own(vip);
    } else {
      director.lab.disown(vip);
    }
    director.finish();
  }
}

// Of the control thread, each piece by itself: the time of all pieces of a listing.
void BM_list(benchmark::State& state) {
  Full& director = full(state);
  for (auto _ : state) {
    ServiceCursor cursor;
    while (auto listing = director.lab.services().list_services(cursor, 32)) {
      benchmark::DoNotOptimize(listing);
    }
  }
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({100, 1})->Args({1000, 1})->Args({10000, 1})->Args({10000, 4});
}

BENCHMARK(BM_load)->Apply(sizes)->UseManualTime()->Iterations(1)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_change_weight)->Apply(sizes)->Iterations(2000)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_add_and_remove_server)->Apply(sizes)->Iterations(2000)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_worker_adopts)->Apply(sizes)->Iterations(2000)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_vip_comes_and_goes)->Apply(sizes)->Iterations(2000)->Unit(benchmark::kMicrosecond);
BENCHMARK(BM_list)->Apply(sizes)->Iterations(5)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace weir

BENCHMARK_MAIN();
