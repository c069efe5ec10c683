// SPDX-License-Identifier: Apache-2.0
// Several workers with a scheduler each: fair in the sum, and never worse than they must be.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "tests/support/simulated_service.h"

namespace weir::test {
namespace {

// Which worker gets connection i.
enum class Spread { in_turn, random, skewed };

unsigned worker_of(unsigned i, unsigned workers, Spread spread, std::mt19937& random) {
  if (spread == Spread::in_turn) return i % workers;
  const unsigned any = std::uniform_int_distribution<unsigned>(0, workers - 1)(random);
  if (spread == Spread::random) return any;
  return std::uniform_int_distribution<unsigned>(0, any)(random);
}

struct Fairness {
  std::string_view scheduler;
  unsigned workers;
};

class GoingRound : public ::testing::TestWithParam<Fairness> {
 protected:
  static void expect_fair(const std::vector<std::int32_t>& weights, Spread spread,
                          unsigned connections) {
    const auto [name, workers] = GetParam();
    SimulatedService service(name, workers);
    for (ServerSlot slot = 1; slot <= weights.size(); ++slot) service.add(slot, weights[slot - 1]);
    std::vector<double> counts(weights.size() + 1);
    std::mt19937 random(workers);
    for (unsigned i = 0; i < connections; ++i) {
      ++counts[service.pick(worker_of(i, workers, spread, random))];
    }
    EXPECT_EQ(counts[0], 0);
    const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (std::size_t slot = 1; slot < counts.size(); ++slot) {
      const double share =
          name == "rr" ? 1.0 / static_cast<double>(weights.size()) : weights[slot - 1] / all;
      EXPECT_LE(std::abs(counts[slot] - connections * share), workers)
          << "server " << slot << " of " << weights.size();
    }
  }
  static void expect_fair_whatever_the_spread(const std::vector<std::int32_t>& weights) {
    for (const Spread spread : {Spread::in_turn, Spread::random, Spread::skewed}) {
      for (const unsigned connections : {9990U, 9995U, 10'000U, 10'007U}) {
        expect_fair(weights, spread, connections);
      }
    }
  }
};

TEST_P(GoingRound, DeviatesAtMostOneConnectionPerWorkerAndRealServer) {
  expect_fair_whatever_the_spread({1});
  expect_fair_whatever_the_spread({1, 1, 1});
  expect_fair_whatever_the_spread({4, 3, 2});
  expect_fair_whatever_the_spread({10, 20, 30, 40});
  expect_fair_whatever_the_spread({1, 2, 3, 4, 5, 6, 7});
  expect_fair_whatever_the_spread({5, 1, 1});
  expect_fair_whatever_the_spread({100, 1});
  expect_fair_whatever_the_spread(std::vector<std::int32_t>(100, 1));
}

TEST_P(GoingRound, DoesNotBeginWithTheSameRealServerEverywhere) {
  const auto [name, workers] = GetParam();
  SimulatedService service(name, workers);
  for (ServerSlot slot = 1; slot <= workers; ++slot) service.add(slot, 10);
  std::vector<int> counts(workers + 1);
  for (unsigned worker = 0; worker < workers; ++worker) ++counts[service.pick(worker)];
  for (ServerSlot slot = 1; slot <= workers; ++slot) EXPECT_EQ(counts[slot], 1) << slot;
}

INSTANTIATE_TEST_SUITE_P(Fair, GoingRound,
                         ::testing::Values(Fairness{"rr", 2}, Fairness{"rr", 4}, Fairness{"rr", 16},
                                           Fairness{"wrr", 2}, Fairness{"wrr", 4},
                                           Fairness{"wrr", 16}),
                         [](const auto& instance) {
                           return std::string(instance.param.scheduler) + "_" +
                                  std::to_string(instance.param.workers);
                         });

// ---- By load ----

class BySumOfLoads : public ::testing::TestWithParam<std::string_view> {};

// 300 simultaneous first packets on four workers: every worker chooses knowing of the others what
// was there at the last millisecond or when it last picked the same real server.
TEST_P(BySumOfLoads, SpreadsSimultaneousFirstPackets) {
  for (const Spread spread : {Spread::in_turn, Spread::random, Spread::skewed}) {
    SimulatedService service(GetParam(), 4);
    for (ServerSlot slot = 1; slot <= 3; ++slot) service.add(slot, 1);
    std::mt19937 random(3);
    std::vector<int> counts(4);
    for (unsigned i = 0; i < 300; ++i) {
      const unsigned worker = worker_of(i, 4, spread, random);
      const ServerSlot picked = service.pick(worker);
      ++counts[picked];
      service.open(picked, "tcp", worker);
    }
    for (const int slot : {1, 2, 3}) EXPECT_NEAR(counts[static_cast<std::size_t>(slot)], 100, 4);
  }
}

// The same, each worker with a burst of 25 at a time.
TEST_P(BySumOfLoads, SpreadsBurstsOfFirstPackets) {
  SimulatedService service(GetParam(), 4);
  for (ServerSlot slot = 1; slot <= 3; ++slot) service.add(slot, 1);
  std::vector<int> counts(4);
  for (unsigned i = 0; i < 300; ++i) {
    const unsigned worker = i / 25 % 4;
    const ServerSlot picked = service.pick(worker);
    ++counts[picked];
    service.open(picked, "tcp", worker);
  }
  for (const int slot : {1, 2, 3}) EXPECT_NEAR(counts[static_cast<std::size_t>(slot)], 100, 4);
}

// What other workers closed is known within a millisecond, in a list of 64.
TEST_P(BySumOfLoads, SeesWithinAMillisecondWhatOthersClosed) {
  SimulatedService service(GetParam(), 2);
  for (ServerSlot slot = 1; slot <= 64; ++slot) {
    service.add(slot, 1);
    service.open(slot, "tcp", 1);
    service.open(slot, "tcp", 1);
  }
  ASSERT_NE(service.pick(0), 0U);
  for (const ServerSlot slot : {17U, 64U, 1U}) {
    service.close(slot, 1);
    service.expire(slot, 1);
    ++service.now_ms;
    ASSERT_EQ(service.pick(0), slot);
    service.open(slot, "tcp", 1);
  }
}

// What they opened there is seen before a pick, however long the list and short the time.
TEST_P(BySumOfLoads, SeesAtOnceWhatOthersOpenedAtTheWinner) {
  SimulatedService service(GetParam(), 2);
  for (ServerSlot slot = 1; slot <= 500; ++slot) service.add(slot, 1);
  for (int round = 0; round < 5; ++round) {
    const ServerSlot winner = service.pick(0);
    service.open(winner, "tcp", 1);
    ASSERT_NE(service.pick(0), winner);
  }
}

INSTANTIATE_TEST_SUITE_P(Sum, BySumOfLoads, ::testing::Values("lc", "wlc", "sed", "nq"),
                         [](const auto& instance) { return std::string(instance.param); });

// Long lists: what others opened is seen when it would matter, before each pick.
TEST(BySumOfLoads, StaysEvenInALongList) {
  constexpr ServerSlot kServers = 1000;
  SimulatedService service("wlc", 4);
  for (ServerSlot slot = 1; slot <= kServers; ++slot) service.add(slot, 1);
  std::mt19937 random(5);
  for (unsigned i = 0; i < 20 * kServers; ++i) {
    service.now_ms = i / 200;
    const unsigned worker = worker_of(i, 4, Spread::skewed, random);
    service.open(service.pick(worker), "tcp", worker);
  }
  for (ServerSlot slot = 1; slot <= kServers; ++slot) {
    ASSERT_NEAR(service.load(slot).active, 20, 2) << slot;
  }
}

// A threshold that is crossed on one worker is heeded by the next pick of every other one.
TEST(Thresholds, HoldAcrossWorkers) {
  constexpr unsigned kWorkers = 4;
  constexpr std::uint32_t kThreshold = 10;
  for (const auto name : {"rr", "wrr", "lc", "wlc", "sed", "nq", "fo", "ovf", "twos"}) {
    SimulatedService service(name, kWorkers);
    for (ServerSlot slot = 1; slot <= 3; ++slot) service.add(slot, 100);
    std::mt19937 random(9);
    unsigned refused = 0;
    for (unsigned i = 0; i < 100; ++i) {
      const unsigned worker = worker_of(i, kWorkers, Spread::random, random);
      const ServerSlot picked = service.pick(worker);
      if (picked == 0) {
        ++refused;
        continue;
      }
      service.open(picked, "tcp", worker);
      if (service.load(picked).active == kThreshold) service.set_overloaded(picked, true, worker);
    }
    for (ServerSlot slot = 1; slot <= 3; ++slot) {
      EXPECT_EQ(service.load(slot).active, kThreshold) << name << " server " << slot;
    }
    EXPECT_EQ(refused, 70U) << name;
  }
}

// ---- Control beside a worker ----

class NoLoads final : public LoadView {
 public:
  Load load(ServerSlot) const noexcept override { return {}; }
  bool overloaded(ServerSlot) const noexcept override { return false; }
};

// Control reserves and publishes one addition after the other, while the worker replays, picks and
// takes up more room when it needs to. For thread sanitizer.
TEST(Growing, TakesPlaceWhileTheWorkerRuns) {
  constexpr std::uint32_t kServers = 20'000;
  const auto scheduler = make_scheduler({.name = "wlc"}, 0, 1);
  scheduler->bind({});
  std::vector<Edit> edits(kServers);
  std::atomic<std::uint32_t> published{0};
  const std::jthread control([&] {
    for (std::uint32_t slot = 0; slot < kServers; ++slot) {
      edits[slot].server = {.slot = slot, .weight = 1};
      scheduler->reserve(slot + 1);
      published.store(slot + 1, std::memory_order_release);
    }
  });
  const NoLoads loads;
  const std::vector<Candidate> unused;
  for (std::uint32_t replayed = 0; replayed < kServers;) {
    for (const std::uint32_t end = published.load(std::memory_order_acquire); replayed < end;) {
      scheduler->apply(edits[replayed++]);
    }
    if (replayed == 0) continue;
    ASSERT_EQ(scheduler->pick({.candidates = unused, .loads = loads}), replayed - 1);
  }
}

// ---- By destination ----

// The packet path asks the worker that owns a destination; the others open the connection.
TEST(ByDestination, KeepsOneDestinationOnOneRealServer) {
  constexpr unsigned kWorkers = 4;
  for (const auto name : {"lblc", "lblcr"}) {
    SimulatedService service(name, kWorkers);
    for (ServerSlot slot = 1; slot <= 5; ++slot) service.add(slot, 1000);
    std::vector<std::set<ServerSlot>> seen(100);
    std::mt19937 random(11);
    for (unsigned i = 0; i < 3000; ++i) {
      service.now_ms = i / 10;
      const auto destination = static_cast<std::uint8_t>(random() % seen.size());
      service.destination.back() = destination;
      const unsigned owner = destination % kWorkers;
      ASSERT_TRUE(service.scheduler(owner).asks_one_owner());
      const ServerSlot picked = service.pick(owner);
      seen[destination].insert(picked);
      service.open(picked, "tcp", static_cast<unsigned>(random()) % kWorkers);
    }
    for (const auto& servers : seen) EXPECT_EQ(servers.size(), 1U);
  }
}

}  // namespace
}  // namespace weir::test
