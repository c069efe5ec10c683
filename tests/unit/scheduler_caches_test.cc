// SPDX-License-Identifier: Apache-2.0
// What lblc and lblcr remember, for how long, and how much: ip_vs_lblc.c and ip_vs_lblcr.c.
#include <gtest/gtest.h>

#include <string>

#include "schedulers/destination_cache.h"
#include "tests/support/simulated_service.h"

namespace weir::test {
namespace {

constexpr std::uint32_t kMinute = 60;
constexpr std::uint32_t kHour = 60 * kMinute;

// Two real servers; the destination is on the one whose load was less when it was first asked for.
class OneDestination {
 public:
  explicit OneDestination(std::string_view name) : service_(name) {
    service_.add(1, 100);
    service_.add(2, 100);
    service_.set_load(2, {.active = 1});
    EXPECT_EQ(service_.pick(), 1U);
    // From now on whoever is chosen anew is the other one.
    service_.set_load(1, {.active = 50});
    service_.set_load(2, {.active = 49});
  }
  void pass(std::uint32_t seconds) { service_.now_ms += seconds * 1000; }
  void set_expiration(std::uint32_t seconds) { service_.expiration = seconds; }
  bool is_remembered() { return service_.pick() == 1; }
  SimulatedService& service() { return service_; }

 private:
  SimulatedService service_;
};

class Caches : public ::testing::TestWithParam<std::string_view> {};

TEST_P(Caches, RememberForADayWithoutBeingAsked) {
  OneDestination one(GetParam());
  one.pass(24 * kHour - 1);
  EXPECT_TRUE(one.is_remembered());
  // Asking counts: another day begins.
  one.pass(24 * kHour - 1);
  EXPECT_TRUE(one.is_remembered());
  one.pass(25 * kHour);
  EXPECT_FALSE(one.is_remembered());
}

// The thirtieth check, counted from 1, is 30 minutes after the first connection.
TEST_P(Caches, LookForWhatHasExpiredEveryHalfHour) {
  OneDestination one(GetParam());
  one.set_expiration(10);
  one.pass(29 * kMinute);
  EXPECT_TRUE(one.is_remembered());
  one.pass(2 * kMinute);
  EXPECT_FALSE(one.is_remembered());
}

// However rarely anybody asks, the checks are where they would have been.
TEST_P(Caches, CheckOnTimeWhenNobodyAsksForLong) {
  OneDestination one(GetParam());
  one.set_expiration(48 * kHour);
  one.pass(47 * kHour);
  EXPECT_TRUE(one.is_remembered());
  one.pass(49 * kHour);
  EXPECT_FALSE(one.is_remembered());
}

TEST_P(Caches, SurviveTheWrapOfTheClock) {
  SimulatedService service(GetParam());
  service.now_ms = 0xffffffff - 1000;
  service.add(1, 100);
  EXPECT_EQ(service.pick(), 1U);
  service.add(2, 100);
  service.now_ms += 60 * 1000;
  EXPECT_EQ(service.pick(), 1U);
}

TEST_P(Caches, GoOnWhenARealServerComesBackButNotWithAnotherInItsPlace) {
  for (const bool another : {false, true}) {
    OneDestination one(GetParam());
    one.service().remove(1);
    if (another) one.service().give_away(1);
    one.service().add(1, 100);
    one.service().set_load(1, {.active = 50});
    EXPECT_EQ(one.is_remembered(), !another);
  }
}

// More destinations than there is room for: all are served, and memory does not grow.
TEST_P(Caches, ServeMoreDestinationsThanTheyRemember) {
  SimulatedService service(GetParam());
  service.add(1, 100);
  service.add(2, 100);
  for (unsigned i = 0; i < 40'000; ++i) {
    service.destination = {10, 0, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)};
    ASSERT_NE(service.pick(), 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(Locality, Caches, ::testing::Values("lblc", "lblcr"),
                         [](const auto& instance) { return std::string(instance.param); });

// ---- lblcr's sets ----

// With more active connections than its weight while another is half idle, a set gets a member.
TEST(Replication, GrowsUnderLoadAndShrinksAfterADay) {
  SimulatedService service("lblcr");
  service.add(1, 10);
  service.add(2, 10);
  service.set_load(2, {.active = 1});
  ASSERT_EQ(service.pick(), 1U);
  service.set_load(1, {.active = 11});
  ASSERT_EQ(service.pick(), 2U);  // joins
  service.set_load(1, {.active = 3});
  service.set_load(2, {.active = 4});
  ASSERT_EQ(service.pick(), 1U);  // the lesser of the members
  // After the time the most loaded member goes, and does not come back while the other will do.
  // Asked for all the while, so that the set itself is not forgotten.
  for (int hours = 0; hours < 25; ++hours) {
    service.now_ms += kHour * 1000;
    ASSERT_EQ(service.pick(), 1U);
  }
  service.set_load(2, {});
  service.set_load(1, {.active = 5});
  EXPECT_EQ(service.pick(), 1U);
}

TEST(Replication, PassesOverMembersThatAreClosed) {
  SimulatedService service("lblcr");
  service.add(1, 10);
  ASSERT_EQ(service.pick(), 1U);
  service.add(2, 10);
  service.set_overloaded(1, true);
  EXPECT_EQ(service.pick(), 2U);
  service.set_overloaded(1, false);
  service.set_load(2, {.active = 1});
  EXPECT_EQ(service.pick(), 1U);
}

// lblc looks at thresholds only when it chooses anew (ip_vs_lblc_schedule).
TEST(Locality, KeepsItsRealServerThoughItIsOverloaded) {
  SimulatedService service("lblc");
  service.add(1, 10);
  ASSERT_EQ(service.pick(), 1U);
  service.add(2, 10);
  service.set_overloaded(1, true);
  EXPECT_EQ(service.pick(), 1U);
}

// ---- The cache itself ----

DestinationKey key_of(std::uint32_t number) { return {number, 0}; }

struct Counted {
  int value = 0;
};

TEST(DestinationCache, TakesOutTheIdleWhenCrowded) {
  DestinationCache<Counted> cache(1, 42);
  int released = 0;
  const auto release = [&](Counted&) noexcept { ++released; };
  cache.pass_time(0, kHour, release);
  constexpr std::uint32_t kEntries = 20'000;
  for (std::uint32_t i = 0; i < kEntries; ++i) ASSERT_NE(cache.insert(key_of(i)), nullptr);
  // Five minutes: nobody has been idle for six.
  for (std::uint32_t call = 0; call < 5000; ++call) cache.pass_time(5 * 60'000, kHour, release);
  EXPECT_EQ(released, 0);
  // The next check wants (20,000 - 16,384) * 4 / 3 of them, bucket by bucket.
  for (std::uint32_t call = 0; call < 5000; ++call) cache.pass_time(6 * 60'000, kHour, release);
  constexpr int kGoal = (20'000 - 16'384) * 4 / 3;
  EXPECT_GE(released, kGoal);
  EXPECT_LE(released, kGoal + 16);
  EXPECT_EQ(cache.size(), kEntries - static_cast<std::uint32_t>(released));
}

TEST(DestinationCache, RefusesMoreThanItHolds) {
  for (const unsigned workers : {1U, 4U}) {
    DestinationCache<Counted> cache(workers, 1);
    const auto release = [](Counted&) noexcept {};
    cache.pass_time(0, kHour, release);
    std::uint32_t held = 0;
    while (cache.insert(key_of(held)) != nullptr) ++held;
    EXPECT_EQ(held, 24'576 / workers);
    for (std::uint32_t i = 0; i < held; ++i) ASSERT_NE(cache.find(key_of(i), release), nullptr);
    EXPECT_EQ(cache.find(key_of(held), release), nullptr);
  }
}

TEST(DestinationCache, SweepsOutEverythingThatHasExpired) {
  DestinationCache<Counted> cache(1, 7);
  int released = 0;
  const auto release = [&](Counted&) noexcept { ++released; };
  cache.pass_time(0, 60, release);
  for (std::uint32_t i = 0; i < 1000; ++i) cache.insert(key_of(i));
  for (std::uint32_t call = 0; call < 5000; ++call) {
    cache.pass_time(31 * 60'000, 60, release);
  }
  EXPECT_EQ(released, 1000);
  EXPECT_EQ(cache.size(), 0U);
  for (std::uint32_t i = 0; i < 1000; ++i) ASSERT_NE(cache.insert(key_of(i)), nullptr);
}

}  // namespace
}  // namespace weir::test
