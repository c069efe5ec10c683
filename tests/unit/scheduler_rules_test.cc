// SPDX-License-Identifier: Apache-2.0
// The schedulers against the plain forms of their rules, in services that change at random.
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>

#include "tests/support/plain_rules.h"
#include "tests/support/simulated_service.h"

namespace weir::test {
namespace {

std::string name_of_instance(const ::testing::TestParamInfo<std::string_view>& instance) {
  return std::string(instance.param);
}

// mh is held against its own plain form in scheduler_tables_test.cc.
std::vector<std::string_view> names_with_plain_rules() {
  std::vector<std::string_view> names;
  for (const auto name : scheduler_names()) {
    if (make_plain_rule(name) != nullptr) names.push_back(name);
  }
  return names;
}

// Two services that live the same life: the scheduler of one is told of every edit at once, that of
// the other only before a pick.
class RandomLife {
 public:
  struct Shape {
    std::uint32_t servers;
    std::uint32_t destinations;
  };

  RandomLife(std::string_view name, unsigned seed, Shape shape)
      : shape_(shape), random_(seed), prompt_(name), late_(name), plain_(make_plain_rule(name)) {
    late_.hold_back_edits();
  }

  void step() {
    switch (up_to(12)) {
      case 0:
      case 1:
        return add();
      case 2:
        return remove();
      case 3:
      case 4:
        return change();
      case 5:
      case 6:
        return overload();
      case 7:
        return close();
      default:
        return pick();
    }
  }
  const SimulatedService& service() const { return prompt_; }

 private:
  std::uint32_t up_to(std::uint32_t last) {
    return std::uniform_int_distribution<std::uint32_t>(0, last)(random_);
  }
  ServerSlot some_slot() {
    const auto& list = prompt_.candidates();
    return list.empty() ? 0 : list[up_to(static_cast<std::uint32_t>(list.size()) - 1)].slot;
  }
  std::int32_t some_weight() {
    static constexpr std::array<std::int32_t, 12> kWeights = {0, 0,  1,  1,  2,  3,
                                                              4, 10, 20, 40, 77, 65535};
    return kWeights[up_to(kWeights.size() - 1)];
  }
  template <class Do>
  void both(Do&& act) {
    act(prompt_);
    act(late_);
  }

  void add() {
    if (prompt_.candidates().size() == shape_.servers) return;
    // A removed one may come back with its counts, or another one in its slot.
    ServerSlot slot = 0;
    do {
      slot = 1 + up_to(shape_.servers * 4 / 3);
    } while (prompt_.has(slot));
    plain_->before_edit(Edit::Kind::add, slot, prompt_);
    const std::int32_t weight = some_weight();
    both([&](SimulatedService& service) { service.add(slot, weight); });
    plain_->after_edit(prompt_);
  }
  void remove() {
    const ServerSlot slot = some_slot();
    if (slot == 0) return;
    plain_->before_edit(Edit::Kind::remove, slot, prompt_);
    const bool given_away = up_to(1) == 0;
    both([&](SimulatedService& service) {
      service.remove(slot);
      if (given_away) service.give_away(slot);
    });
    plain_->after_edit(prompt_);
  }
  void change() {
    const ServerSlot slot = some_slot();
    if (slot == 0) return;
    plain_->before_edit(Edit::Kind::change, slot, prompt_);
    const std::int32_t weight = some_weight();
    both([&](SimulatedService& service) { service.change(slot, weight); });
    plain_->after_edit(prompt_);
  }
  void overload() {
    const ServerSlot slot = some_slot();
    if (slot == 0) return;
    const bool overloaded = up_to(2) == 0;
    const bool silently = prompt_.candidates().size() <= 64 && up_to(1) == 0;
    both([&](SimulatedService& service) {
      if (!silently) return service.set_overloaded(slot, overloaded);
      service.set_overloaded_silently(slot, overloaded);
      // What nobody has told is seen within a millisecond.
      ++service.now_ms;
    });
  }
  void close() {
    const ServerSlot slot = some_slot();
    if (slot == 0 || prompt_.load(slot).active == 0) return;
    const bool expires = up_to(1) == 0;
    both([&](SimulatedService& service) {
      service.close(slot);
      if (expires) service.expire(slot);
    });
  }
  void pick() {
    const auto destination = static_cast<std::uint8_t>(up_to(shape_.destinations));
    const auto client = static_cast<std::uint8_t>(up_to(255));
    both([&](SimulatedService& service) {
      service.destination.back() = destination;
      service.client.back() = client;
    });
    late_.tell_held_back_edits();
    const ServerSlot picked = prompt_.pick();
    ASSERT_EQ(picked, plain_->pick(prompt_));
    ASSERT_EQ(picked, late_.pick());
    if (picked == 0) return;
    ASSERT_GT(prompt_.candidates()[prompt_.position_of(picked)].weight, 0);
    const char* protocol = up_to(2) == 0 ? "udp" : "tcp";
    both([&](SimulatedService& service) { service.open(picked, protocol); });
  }

  const Shape shape_;
  std::mt19937 random_;
  SimulatedService prompt_;
  SimulatedService late_;
  const std::unique_ptr<PlainRule> plain_;
};

class PlainRules : public ::testing::TestWithParam<std::string_view> {
 protected:
  static void live(unsigned lives, int steps, RandomLife::Shape shape) {
    for (unsigned seed = 0; seed < lives; ++seed) {
      RandomLife life(GetParam(), seed, shape);
      for (int i = 0; i < steps; ++i) {
        life.step();
        ASSERT_FALSE(HasFailure()) << "seed " << seed << " step " << i;
      }
    }
  }
};

TEST_P(PlainRules, AreFollowedUnderRandomEdits) { live(40, 2000, {12, 4}); }

TEST_P(PlainRules, AreFollowedInLongLists) { live(2, 12'000, {300, 40}); }

INSTANTIATE_TEST_SUITE_P(Ipvs, PlainRules, ::testing::ValuesIn(names_with_plain_rules()),
                         name_of_instance);

class EveryScheduler : public ::testing::TestWithParam<std::string_view> {};

// lblc's remembered destinations are not refused by thresholds; elsewhere nobody overloaded is
// picked.
TEST_P(EveryScheduler, PicksOnlyEligibleRealServersOnEveryWorker) {
  constexpr unsigned kWorkers = 5;
  SimulatedService service({.name = std::string(GetParam())}, kWorkers);
  for (unsigned worker = 0; worker < kWorkers; ++worker) ASSERT_EQ(service.pick(worker), 0U);
  for (ServerSlot slot = 1; slot <= 6; ++slot) service.add(slot, 40);
  service.remove(2);
  service.change(4, 0);
  service.set_overloaded_silently(5, true);
  for (int i = 0; i < 100; ++i) {
    ++service.now_ms;
    service.client[3] = service.destination[3] = static_cast<std::uint8_t>(i);
    for (unsigned worker = 0; worker < kWorkers; ++worker) {
      const ServerSlot picked = service.pick(worker);
      if (picked == 0) continue;  // what hashes to somebody ineligible
      ASSERT_TRUE(picked == 1 || picked == 3 || picked == 6) << picked;
      service.open(picked, "tcp", worker);
    }
  }
  for (ServerSlot slot : {1U, 3U, 6U}) service.remove(slot);
  for (unsigned worker = 0; worker < kWorkers; ++worker) EXPECT_EQ(service.pick(worker), 0U);
  service.set_overloaded_silently(5, false);
  service.change(4, 1);
  ++service.now_ms;
  for (int i = 0; i < 20; ++i) {
    service.client[3] = service.destination[3] = static_cast<std::uint8_t>(i);
    const ServerSlot picked = service.pick(2);
    EXPECT_TRUE(picked == 4 || picked == 5) << picked;
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryScheduler, ::testing::ValuesIn(scheduler_names()),
                         name_of_instance);

// Worked out by hand from the rule: wrr put in place on lists of these weights.
TEST(WeightedRoundRobin, StartsAtTheTopWhenItReplacesAnotherScheduler) {
  const std::vector<std::pair<std::vector<std::int32_t>, std::vector<ServerSlot>>> cases = {
      {{4, 3, 2}, {1, 1, 2, 1, 2, 3, 1, 2, 3, 1, 1, 2, 1, 2, 3, 1, 2, 3}},
      {{3, 2, 1}, {1, 1, 2, 1, 2, 3, 1, 1, 2, 1, 2, 3, 1, 1, 2, 1, 2, 3}},
      {{5, 1, 1}, {1, 1, 1, 1, 1, 2, 3, 1, 1, 1, 1, 1, 2, 3, 1, 1, 1, 1}},
      {{10, 20, 30}, {3, 2, 3, 1, 2, 3, 3, 2, 3, 1, 2, 3, 3, 2, 3, 1, 2, 3}},
      {{0, 2, 1}, {2, 2, 3, 2, 2, 3, 2, 2, 3, 2, 2, 3, 2, 2, 3, 2, 2, 3}},
      {{100, 1}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}};
  for (const auto& [weights, expected] : cases) {
    SimulatedService service("rr");
    for (std::size_t i = weights.size(); i > 0; --i) {
      service.add(static_cast<ServerSlot>(i), weights[i - 1]);
    }
    service.replace_schedulers({.name = "wrr"});
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(service.pick(), expected[i]) << "pick " << i;
    }
  }
}

// 1 inactive connection costs a 256th of an active one.
TEST(WeightedLeastConnection, CountsAnActiveConnectionAs256InactiveOnes) {
  for (const auto& [inactive, expected] :
       {std::pair{511U, 1U}, std::pair{512U, 2U}, std::pair{513U, 2U}}) {
    SimulatedService service("wlc");
    service.add(1, 1);
    service.add(2, 1);
    service.set_load(1, {.inactive = inactive});
    service.set_load(2, {.active = 2});
    EXPECT_EQ(service.pick(), expected) << inactive;
  }
}

// Connections open and close all the time, and nobody asks for the index of what has changed.
TEST(LoadIndex, CatchesUpWithManyChangesAtOnce) {
  for (const ServerSlot servers : {3U, 64U, 1000U}) {
    SimulatedService service("lc");
    for (ServerSlot slot = 1; slot <= servers; ++slot) service.add(slot, 1);
    for (int round = 0; round < 3; ++round) {
      for (ServerSlot slot = 1; slot <= servers; ++slot) {
        service.set_load(slot, {.active = (slot * 7919 + 13) % servers + 1});
      }
      const ServerSlot least = 1 + static_cast<ServerSlot>(round) % servers;
      service.set_load(least, {});
      ASSERT_EQ(service.pick(), least);
    }
  }
}

// The list grows while the worker has not looked for long: room is there when it looks.
TEST(LoadIndex, GrowsWithTheListWithoutTheWorker) {
  SimulatedService service("wlc");
  service.hold_back_edits();
  for (ServerSlot slot = 1; slot <= 5000; ++slot) service.add(slot, 1);
  for (ServerSlot slot = 1; slot <= 4990; ++slot) service.remove(slot);
  service.tell_held_back_edits();
  for (ServerSlot slot = 5000; slot > 4990; --slot) {
    ASSERT_EQ(service.pick(), slot);
    service.open(slot, "tcp");
  }
  EXPECT_EQ(service.pick(), 5000U);
}

// More closed real servers than are looked at in one call: all of them are found again.
TEST(LoadIndex, FindsManyClosedRealServersAgain) {
  SimulatedService service("wlc");
  constexpr ServerSlot kServers = 500;
  for (ServerSlot slot = 1; slot <= kServers; ++slot) service.add(slot, 1);
  for (ServerSlot slot = 1; slot <= kServers; ++slot) service.set_overloaded_silently(slot, true);
  ASSERT_EQ(service.pick(), 0U);
  service.set_overloaded_silently(77, false);
  ServerSlot picked = 0;
  for (int ms = 0; picked == 0 && ms <= 500 / 64; ++ms) {
    ++service.now_ms;
    picked = service.pick();
  }
  EXPECT_EQ(picked, 77U);
}

}  // namespace
}  // namespace weir::test
