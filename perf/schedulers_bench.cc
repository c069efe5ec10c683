// SPDX-License-Identifier: Apache-2.0
// Nanoseconds per pick, by scheduler and number of real servers, and microseconds per table: made
// anew (BM_table), and after a real server has come (BM_table_add) or gone (BM_table_remove).
//
// BM_pick is the choice alone, with loads that do not change. BM_connect is all that a connection
// costs its scheduler: the choice, the change of the load that it makes, and the change by another
// connection that ends. Of the same run: BM_floor is a scheduler that takes the first of the list,
// hence what the call and its input cost; BM_linear is the rule of wlc as IPVS has it, a walk
// through the list. Every load has its own cache line.
#include <benchmark/benchmark.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "schedulers/scheduler.h"

namespace weir {
namespace {

constexpr std::uint32_t kClients = 4096;
constexpr std::uint32_t kDestinations = 4096;

struct alignas(64) OneLoad {
  Load load;
};

class FirstOfTheList final : public Scheduler {
 public:
  void bind(std::span<const Candidate>) override {}
  void apply(const Edit&) noexcept override {}
  ServerSlot pick(const PickInput& input) noexcept override {
    return input.candidates.front().slot;
  }
};

class Bench final : public LoadView {
 public:
  enum class Weights : std::uint8_t { equal, uneven };

  Bench(const SchedulerOptions& options, std::uint32_t servers, Weights weights) : loads_(servers) {
    std::mt19937 random(1);
    for (std::uint32_t slot = 0; slot < servers; ++slot) {
      const auto weight =
          weights == Weights::equal ? 100 : static_cast<std::int32_t>(1 + random() % 100);
      candidates_.push_back({slot, weight, weight, 0});
      names_.push_back(
          {.address = {10, static_cast<std::uint8_t>(slot >> 16),
                       static_cast<std::uint8_t>(slot >> 8), static_cast<std::uint8_t>(slot)},
           .port = 8080});
      loads_[slot].load.active = static_cast<std::uint32_t>(random() % 50);
    }
    scheduler_ = make_scheduler(options, 0, 1);
    if (scheduler_ == nullptr) scheduler_ = std::make_unique<FirstOfTheList>();
    scheduler_->bind(candidates_);
    table_ = make_table(options, candidates_, names_);
    for (std::uint32_t at = 0; at < kClients; ++at) {
      clients_.push_back(static_cast<std::uint32_t>(random()));
    }
  }

  Load load(ServerSlot slot) const noexcept override { return loads_[slot].load; }
  bool overloaded(ServerSlot) const noexcept override { return false; }

  ServerSlot pick() {
    const std::uint32_t& client = clients_[turn_ % kClients];
    const std::uint32_t destination = client % kDestinations;
    ++turn_;
    return scheduler_->pick({.candidates = candidates_,
                             .loads = *this,
                             .table = table_.get(),
                             .client_address = bytes_of(client),
                             .destination_address = bytes_of(destination),
                             .client_port = static_cast<std::uint16_t>(turn_),
                             .now_ms = turn_ / 256});
  }
  // Connections come and go: the load of each real server stays about the same.
  void connect() {
    const ServerSlot picked = pick();
    if (picked == kNoServer) return;
    change(picked, 1);
    change(picks_[turn_ % picks_.size()], -1);
    picks_[turn_ % picks_.size()] = picked;
  }
  void fill() {
    for (std::size_t at = 0; at < picks_.size(); ++at) {
      picks_[at] = static_cast<ServerSlot>(at % loads_.size());
      ++loads_[picks_[at]].load.active;
    }
    for (int i = 0; i < 100'000; ++i) connect();
  }

  // ip_vs_wlc_schedule(), step by step.
  ServerSlot linear() const {
    const Candidate* least = nullptr;
    std::uint64_t least_overhead = 0;
    for (const Candidate& candidate : candidates_) {
      if (!eligible(candidate, *this)) continue;
      const Load load_now = load(candidate.slot);
      const std::uint64_t overhead = std::uint64_t{load_now.active} * 256 + load_now.inactive;
      if (least != nullptr && least_overhead * static_cast<std::uint32_t>(candidate.weight) <=
                                  overhead * static_cast<std::uint32_t>(least->weight)) {
        continue;
      }
      least = &candidate;
      least_overhead = overhead;
    }
    return least->slot;
  }

  std::shared_ptr<const LookupTable> make_table_again(TableMaker& maker) const {
    return maker.make(candidates_, names_);
  }
  // Others in turn leave the list and come to its head.
  void remove_one() {
    const auto at = static_cast<std::ptrdiff_t>(turn_++ * 7919 % candidates_.size());
    removed_ = {candidates_[static_cast<std::size_t>(at)], names_[static_cast<std::size_t>(at)]};
    candidates_.erase(candidates_.begin() + at);
    names_.erase(names_.begin() + at);
  }
  void add_removed() {
    candidates_.insert(candidates_.begin(), removed_.first);
    names_.insert(names_.begin(), removed_.second);
  }

 private:
  static std::span<const std::uint8_t> bytes_of(const std::uint32_t& value) {
    return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
  }
  void change(ServerSlot slot, int by) {
    loads_[slot].load.active += static_cast<std::uint32_t>(by);
    scheduler_->load_changed(slot);
  }

  std::vector<OneLoad> loads_;
  std::vector<Candidate> candidates_;
  std::vector<ServerName> names_;
  std::pair<Candidate, ServerName> removed_;
  std::vector<std::uint32_t> clients_;
  std::vector<ServerSlot> picks_ = std::vector<ServerSlot>(1024);
  std::unique_ptr<Scheduler> scheduler_;
  std::shared_ptr<const LookupTable> table_;
  std::uint32_t turn_ = 0;
};

void pick(benchmark::State& state, const std::string& name, Bench::Weights weights) {
  Bench bench({.name = name}, static_cast<std::uint32_t>(state.range(0)), weights);
  bench.fill();
  for (auto _ : state) benchmark::DoNotOptimize(bench.pick());
}

void connect(benchmark::State& state, const std::string& name, Bench::Weights weights) {
  Bench bench({.name = name}, static_cast<std::uint32_t>(state.range(0)), weights);
  bench.fill();
  for (auto _ : state) bench.connect();
}

void linear(benchmark::State& state) {
  const Bench bench({.name = "wlc"}, static_cast<std::uint32_t>(state.range(0)),
                    Bench::Weights::uneven);
  for (auto _ : state) benchmark::DoNotOptimize(bench.linear());
}

void table(benchmark::State& state, const std::string& name, Bench::Weights weights) {
  const SchedulerOptions options{.name = name,
                                 .table_size = static_cast<std::uint32_t>(state.range(1))};
  const Bench bench(options, static_cast<std::uint32_t>(state.range(0)), weights);
  for (auto _ : state) {
    TableMaker maker(options);
    benchmark::DoNotOptimize(bench.make_table_again(maker));
  }
}

// Tables live until the next but one, as where workers still use them.
void table_add(benchmark::State& state, const std::string& name, Bench::Weights weights) {
  const SchedulerOptions options{.name = name,
                                 .table_size = static_cast<std::uint32_t>(state.range(1))};
  Bench bench(options, static_cast<std::uint32_t>(state.range(0)), weights);
  TableMaker maker(options);
  auto with = bench.make_table_again(maker);
  for (auto _ : state) {
    state.PauseTiming();
    bench.remove_one();
    const auto without = bench.make_table_again(maker);
    bench.add_removed();
    state.ResumeTiming();
    with = bench.make_table_again(maker);
  }
}

void table_remove(benchmark::State& state, const std::string& name, Bench::Weights weights) {
  const SchedulerOptions options{.name = name,
                                 .table_size = static_cast<std::uint32_t>(state.range(1))};
  Bench bench(options, static_cast<std::uint32_t>(state.range(0)), weights);
  TableMaker maker(options);
  auto without = bench.make_table_again(maker);
  for (auto _ : state) {
    state.PauseTiming();
    const auto with = bench.make_table_again(maker);
    bench.remove_one();
    state.ResumeTiming();
    without = bench.make_table_again(maker);
    state.PauseTiming();
    bench.add_removed();
    state.ResumeTiming();
  }
}

void add_all() {
  for (const auto name : scheduler_names()) {
    for (const auto& [text, weights] :
         {std::pair("equal", Bench::Weights::equal), std::pair("uneven", Bench::Weights::uneven)}) {
      const std::string variant = std::string(name) + "/" + text;
      for (auto* benchmark : {benchmark::RegisterBenchmark(("BM_pick/" + variant).c_str(), pick,
                                                           std::string(name), weights),
                              benchmark::RegisterBenchmark(("BM_connect/" + variant).c_str(),
                                                           connect, std::string(name), weights)}) {
        benchmark->Arg(3)->Arg(10)->Arg(100)->Arg(1000)->Arg(10'000);
      }
    }
  }
  benchmark::RegisterBenchmark("BM_floor", pick, "", Bench::Weights::equal)->Arg(1000);
  benchmark::RegisterBenchmark("BM_linear", linear)
      ->Arg(3)
      ->Arg(10)
      ->Arg(100)
      ->Arg(1000)
      ->Arg(10'000);
  for (const auto& [text, weights] :
       {std::pair("equal", Bench::Weights::equal), std::pair("uneven", Bench::Weights::uneven)}) {
    benchmark::RegisterBenchmark((std::string("BM_table/mh/") + text).c_str(), table, "mh", weights)
        ->Unit(benchmark::kMicrosecond)
        ->Args({1000, 4093})
        ->Args({1000, 65521});
    for (const auto& [what, benchmark] :
         {std::pair("BM_table/conhash/", &table), std::pair("BM_table_add/conhash/", &table_add),
          std::pair("BM_table_remove/conhash/", &table_remove)}) {
      benchmark::RegisterBenchmark((std::string(what) + text).c_str(), benchmark, "conhash",
                                   weights)
          ->Unit(benchmark::kMicrosecond)
          ->Args({3, 262139})
          ->Args({1000, 65521})
          ->Args({1000, 262139});
    }
  }
}

}  // namespace
}  // namespace weir

int main(int argc, char** argv) {
  weir::add_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
