// SPDX-License-Identifier: Apache-2.0
// Tables that schedulers look up: mh's against its plain form and the vectors in
// data/ipvs/scheduler_vectors.txt, how many clients a change moves, and the options.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <utility>

#include "schedulers/address_hash.h"
#include "schedulers/modulus.h"
#include "tests/support/simulated_service.h"

namespace weir::test {
namespace {

struct List {
  std::vector<Candidate> candidates;
  std::vector<ServerName> names;

  void add(ServerName name, std::int32_t weight, std::int32_t last_weight) {
    const auto slot = static_cast<ServerSlot>(candidates.size());
    candidates.push_back({slot, weight, last_weight, 0});
    names.push_back(name);
  }
  std::shared_ptr<const LookupTable> table(const std::string& name, std::uint32_t size) const {
    return make_table({.name = name, .table_size = size}, candidates, names);
  }
};

ServerName ipv4_name(std::uint32_t number, std::uint16_t port = 8080) {
  return {.address = {10, static_cast<std::uint8_t>(number >> 16),
                      static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number)},
          .port = port};
}

List equal_servers(std::uint32_t count) {
  List list;
  for (std::uint32_t i = 0; i < count; ++i) list.add(ipv4_name(i + 1), 1, 1);
  return list;
}

// ---- mh ----

// ip_vs_mh_reassign(), step by step: one turn after the other, one place after the other.
std::vector<std::uint32_t> plain_maglev(const List& list, std::uint32_t size) {
  struct Setup {
    std::uint32_t place, skip, turns;
  };
  std::uint32_t gcd = 0;
  std::uint32_t greatest = 0;
  for (const Candidate& candidate : list.candidates) {
    gcd = std::gcd(gcd, static_cast<std::uint32_t>(candidate.last_weight));
    greatest = std::max(greatest, static_cast<std::uint32_t>(candidate.last_weight));
  }
  std::vector<std::uint32_t> table(size, LookupTable::kNobody);
  if (gcd == 0) return table;
  const int bits = static_cast<int>(std::bit_width(greatest / gcd));
  const int shift = std::max(0, bits - static_cast<int>(std::bit_width(size)) / 2);
  std::vector<Setup> setups;
  for (std::size_t at = 0; at < list.names.size(); ++at) {
    const ServerName& name = list.names[at];
    const std::uint32_t value =
        fold_address(std::span(name.address).first(name.service_bytes)) + name.port;
    const auto weight = static_cast<std::uint32_t>(list.candidates[at].last_weight);
    const std::uint32_t turns = weight == 0 ? 0 : std::max(1U, weight / gcd >> shift);
    setups.push_back({siphash_1_3(value, 2654435761U) % size,
                      siphash_1_3(value, 2654446892U) % (size - 1) + 1, turns});
  }
  for (std::uint32_t filled = 0; filled < size;) {
    for (std::uint32_t at = 0; at < setups.size(); ++at) {
      for (std::uint32_t turn = 0; turn < setups[at].turns && filled < size; ++turn) {
        while (table[setups[at].place] != LookupTable::kNobody) {
          setups[at].place = (setups[at].place + setups[at].skip) % size;
        }
        table[setups[at].place] = at;
        ++filled;
      }
    }
  }
  return table;
}

TEST(Maglev, FillsItsTableAsThePlainRuleDoes) {
  std::mt19937 random(1);
  static constexpr std::array<std::int32_t, 10> kWeights = {0, 1, 1, 2, 3, 7, 64, 100, 301, 65535};
  for (const std::uint32_t size : {251U, 509U, 1021U, 2039U, 4093U, 8191U, 65521U, 131071U}) {
    for (const std::uint32_t servers : {0U, 1U, 2U, 3U, 17U, 200U}) {
      List list;
      for (std::uint32_t i = 0; i < servers; ++i) {
        list.add(ipv4_name(static_cast<std::uint32_t>(random() & 0xffffff)), 1,
                 kWeights[random() % kWeights.size()]);
      }
      ASSERT_EQ(list.table("mh", size)->positions, plain_maglev(list, size))
          << servers << " of " << size;
    }
  }
  const List many = equal_servers(1000);
  EXPECT_EQ(many.table("mh", 65521)->positions, plain_maglev(many, 65521));
  // More than there are places.
  const List too_many = equal_servers(300);
  EXPECT_EQ(too_many.table("mh", 251)->positions, plain_maglev(too_many, 251));
}

// scheduler_vectors.txt: real servers 192.0.2.3, .2, .1 in list order; ports are not given there.
TEST(AddressHash, GivesTheVectors) {
  struct Vector {
    AddressBytes address;
    std::uint32_t folded, by_8_bits, by_10_bits, sip, place, place_40000;
  };
  const std::vector<Vector> vectors = {
      {{10, 0, 0, 1}, 0x0a000001, 39, 159, 0x03080ce4, 3711, 2940},
      {{10, 0, 0, 2}, 0x0a000002, 137, 550, 0x41cfde13, 1884, 273},
      {{192, 168, 1, 100}, 0xc0a80164, 89, 357, 0xc15d2cf8, 1341, 1689},
      {{203, 0, 113, 7}, 0xcb007107, 124, 499, 0xa86e2c15, 1705, 2964},
      {{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
       0x20010db9,
       63,
       252,
       0xcdc3f189,
       3457,
       3517},
      {{0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6},
       0x20060db8,
       124,
       498,
       0x2919ec91,
       735,
       3591}};
  for (const Vector& vector : vectors) {
    const std::uint32_t folded = fold_address(vector.address);
    EXPECT_EQ(folded, vector.folded);
    EXPECT_EQ(hash_32(folded, 8), vector.by_8_bits);
    EXPECT_EQ(hash_32(folded, 10), vector.by_10_bits);
    EXPECT_EQ(siphash_1_3(folded, 2654435761U), vector.sip);
    EXPECT_EQ(siphash_1_3(folded, 2654435761U) % 4093, vector.place);
    EXPECT_EQ(siphash_1_3(folded + 40000, 2654435761U) % 4093, vector.place_40000);
  }
}

std::vector<std::uint32_t> counts_of(const LookupTable& table, std::size_t servers) {
  std::vector<std::uint32_t> counts(servers);
  for (const std::uint32_t position : table.positions) ++counts.at(position);
  return counts;
}

List documentation_servers(const std::vector<std::int32_t>& weights) {
  List list;
  for (std::size_t at = 0; at < weights.size(); ++at) {
    const auto last = static_cast<std::uint8_t>(weights.size() - at);
    list.add({.address = {192, 0, 2, last}, .port = 80}, weights[at], weights[at]);
  }
  return list;
}

TEST(Maglev, SharesItsTableByWeight) {
  const auto counts = [](const std::vector<std::int32_t>& weights) {
    const List list = documentation_servers(weights);
    return counts_of(*list.table("mh", 0), weights.size());
  };
  EXPECT_EQ(counts({1, 1, 1}), (std::vector<std::uint32_t>{1365, 1364, 1364}));
  EXPECT_EQ(counts({3, 2, 1}), (std::vector<std::uint32_t>{2047, 1364, 682}));
  EXPECT_EQ(counts({1000, 301, 7}), (std::vector<std::uint32_t>{3143, 900, 50}));
}

std::uint32_t moved_among_others(const List& before, const LookupTable& old_table,
                                 const List& after, const LookupTable& new_table,
                                 std::uint32_t gone) {
  std::uint32_t moved = 0;
  for (std::size_t place = 0; place < old_table.positions.size(); ++place) {
    const auto& old_name = before.names[old_table.positions[place]];
    if (old_table.positions[place] == gone) continue;
    const auto& new_name = after.names[new_table.positions[place]];
    if (old_name.address != new_name.address || old_name.port != new_name.port) ++moved;
  }
  return moved;
}

List without(const List& list, std::uint32_t gone) {
  List rest;
  for (std::uint32_t at = 0; at < list.names.size(); ++at) {
    if (at == gone) continue;
    rest.add(list.names[at], list.candidates[at].weight, list.candidates[at].last_weight);
  }
  return rest;
}

TEST(Maglev, KeepsThePlacesOfWhoIsDrained) {
  List list = equal_servers(5);
  const auto before = list.table("mh", 0)->positions;
  list.candidates[2].weight = 0;
  EXPECT_EQ(list.table("mh", 0)->positions, before);
  list.candidates[2].last_weight = 0;  // added like this
  EXPECT_NE(list.table("mh", 0)->positions, before);
}

// ---- conhash ----

TEST(ConsistentHash, MovesOnlyThePlacesOfWhoGoes) {
  for (const std::uint32_t servers : {2U, 3U, 10U, 1000U}) {
    const List list = equal_servers(servers);
    const auto table = list.table("conhash", 0);
    for (std::uint32_t gone = 0; gone < std::min(servers, 3U); ++gone) {
      const List rest = without(list, gone);
      EXPECT_EQ(moved_among_others(list, *table, rest, *rest.table("conhash", 0), gone), 0U);
    }
  }
}

// Losing one of a thousand moves at most 1.2 of a thousandth of the clients, whoever it is.
TEST(ConsistentHash, LosesAtMostAFifthMoreThanTheShare) {
  const auto counts = counts_of(*equal_servers(1000).table("conhash", 0), 1000);
  const double ideal = 262139.0 / 1000;
  unsigned within = 0;
  for (const std::uint32_t count : counts) within += count <= 1.2 * ideal ? 1 : 0;
  EXPECT_GE(within, 995U);
  EXPECT_LE(*std::ranges::max_element(counts), 1.3 * ideal);
  EXPECT_GE(*std::ranges::min_element(counts), 0.7 * ideal);
}

TEST(ConsistentHash, OnlyTakesPlacesForWhoGainsWeightAndGivesThemBack) {
  List list = equal_servers(20);
  const auto before = list.table("conhash", 0)->positions;
  list.candidates[7].weight = 3;
  const auto heavier = list.table("conhash", 0)->positions;
  for (std::size_t place = 0; place < before.size(); ++place) {
    const bool moved = heavier[place] != before[place];
    ASSERT_TRUE(moved ? heavier[place] == 7 : true) << place;
    ASSERT_TRUE(before[place] == 7 ? !moved : true) << place;
  }
  list.candidates[7].weight = 1;
  EXPECT_EQ(list.table("conhash", 0)->positions, before);
}

TEST(ConsistentHash, SharesByWeight) {
  const std::vector<std::int32_t> weights = {1, 2, 3, 10, 100, 0, 7};
  List list;
  for (std::uint32_t at = 0; at < weights.size(); ++at) {
    list.add(ipv4_name(at), weights[at], weights[at]);
  }
  const auto counts = counts_of(*list.table("conhash", 0), weights.size());
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (std::size_t at = 0; at < weights.size(); ++at) {
    const double share = 262139 * weights[at] / all;
    EXPECT_NEAR(counts[at], share, 5 * std::sqrt(share) + 1e-9) << weights[at];
  }
}

// Another scale of the weights, another order of the list: the same choices.
TEST(ConsistentHash, IsAFunctionOfWhoIsThere) {
  List list;
  List reversed;
  for (std::uint32_t at = 0; at < 30; ++at) {
    list.add(ipv4_name(at), 1 + static_cast<std::int32_t>(at % 4), 1);
  }
  for (std::uint32_t at = 30; at > 0; --at) {
    reversed.add(list.names[at - 1], list.candidates[at - 1].weight * 64, 1);
  }
  const auto one = list.table("conhash", 0);
  const auto other = reversed.table("conhash", 0);
  for (std::size_t place = 0; place < one->positions.size(); ++place) {
    ASSERT_EQ(one->positions[place], 29 - other->positions[place]);
  }
}

// A random life of a list: real servers come to its head, go, change their weights, change places
// with others, and get slots that others had.
class ChangingList {
 public:
  void change() {
    const auto dice = random_() % 10;
    if (dice < 4 || list_.names.empty()) return add();
    const std::uint32_t at = static_cast<std::uint32_t>(random_() % list_.names.size());
    if (dice < 6) return remove(at);
    if (dice < 7) return rename(at);
    if (dice < 8) return swap_first(at);
    list_.candidates[at].weight = weight();
  }
  const List& list() const { return list_; }

 private:
  std::int32_t weight() {
    static constexpr std::array<std::int32_t, 8> kWeights = {0, 1, 1, 1, 2, 3, 10, 65535};
    return kWeights[random_() % kWeights.size()];
  }
  void add() {
    const auto slot = static_cast<ServerSlot>(slots_++ % 64);
    if (std::ranges::count(list_.candidates, slot, &Candidate::slot) != 0) return;
    list_.candidates.insert(list_.candidates.begin(), Candidate{slot, weight(), 1, 0});
    list_.names.insert(list_.names.begin(), ipv4_name(names_++));
  }
  void remove(std::uint32_t at) {
    list_.candidates.erase(list_.candidates.begin() + at);
    list_.names.erase(list_.names.begin() + at);
  }
  void rename(std::uint32_t at) { list_.names[at] = ipv4_name(names_++); }
  void swap_first(std::uint32_t at) {
    std::swap(list_.candidates.front(), list_.candidates[at]);
    std::swap(list_.names.front(), list_.names[at]);
  }

  std::mt19937 random_{3};
  std::uint32_t slots_ = 0;
  std::uint32_t names_ = 0;
  List list_;
};

TEST(ConsistentHash, MakesATableOfAnotherAsItWouldMakeItAnew) {
  for (const std::uint32_t size : {251U, 4093U, 65521U}) {
    const SchedulerOptions options{.name = "conhash", .table_size = size};
    TableMaker maker(options);
    ChangingList changing;
    const std::uint32_t rounds = 5'000'000 / size;
    for (std::uint32_t round = 0; round < rounds; ++round) {
      for (std::uint32_t i = 0; i <= round % 4; ++i) changing.change();
      const List& list = changing.list();
      const auto table = maker.make(list.candidates, list.names);
      ASSERT_EQ(table->positions, list.table("conhash", size)->positions) << size << ", " << round;
    }
  }
}

TEST(ConsistentHash, RepairsALargeTable) {
  TableMaker maker({.name = "conhash"});
  List list = equal_servers(1000);
  maker.make(list.candidates, list.names);
  for (const std::uint32_t gone : {0U, 500U, 997U}) {
    list.candidates.erase(list.candidates.begin() + gone);
    list.names.erase(list.names.begin() + gone);
    ASSERT_EQ(maker.make(list.candidates, list.names)->positions,
              list.table("conhash", 0)->positions);
  }
  list.candidates.push_back({.slot = 1000, .weight = 1, .last_weight = 1});
  list.names.push_back(ipv4_name(5000));
  ASSERT_EQ(maker.make(list.candidates, list.names)->positions,
            list.table("conhash", 0)->positions);
}

// Neighbours with neighbouring ports are one for IPVS's hash of names.
TEST(ConsistentHash, TellsNamesApart) {
  List list;
  list.add(ipv4_name(1, 8081), 1, 1);
  list.add(ipv4_name(2, 8080), 1, 1);
  const auto counts = counts_of(*list.table("conhash", 0), 2);
  EXPECT_NEAR(counts[0], 262139 / 2.0, 5 * std::sqrt(262139 / 2.0));
}

TEST(ConsistentHash, FindsAnotherOneForTheClientsOfWhoIsOverloaded) {
  SimulatedService service("conhash");
  for (const ServerSlot slot : {1U, 2U, 3U}) service.add(slot, 1);
  service.set_overloaded(2, true);
  std::array<int, 4> counts{};
  for (int i = 0; i < 3000; ++i) {
    service.client = {10, 1, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)};
    ++counts[service.pick()];
  }
  EXPECT_EQ(counts[0], 0);
  EXPECT_EQ(counts[2], 0);
  EXPECT_NEAR(counts[1], 1500, 150);
  for (const ServerSlot slot : {1U, 3U}) service.set_overloaded(slot, true);
  EXPECT_EQ(service.pick(), 0U);
}

// ---- twos ----

// Of equal real servers each gets its share; of two the more loaded one only when drawn twice.
TEST(PowerOfTwoChoices, DrawsByWeightAndTakesTheLesserOfTwo) {
  SimulatedService service("twos");
  service.add(1, 1);
  service.add(2, 3);
  std::array<int, 3> counts{};
  constexpr int kPicks = 40'000;
  for (int i = 0; i < kPicks; ++i) ++counts[service.pick()];
  // All idle: the first that was drawn. Of 0 to 4, where 0 counts for the first of the list.
  EXPECT_NEAR(counts[2], kPicks * 4 / 5.0, 5 * std::sqrt(kPicks * 0.16));
  service.set_load(2, {.active = 1000});
  counts = {};
  for (int i = 0; i < kPicks; ++i) ++counts[service.pick()];
  EXPECT_NEAR(counts[2], kPicks * 16 / 25.0, 5 * std::sqrt(kPicks * 0.23));
  service.set_overloaded(2, true);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(service.pick(), 1U);
  service.set_overloaded(1, true);
  EXPECT_EQ(service.pick(), 0U);
}

// ---- Names and options ----

TEST(SchedulerByName, KnowsItsNamesAndNoOthers) {
  for (const auto name : scheduler_names()) {
    EXPECT_NE(make_scheduler({.name = std::string(name)}, 0, 1), nullptr) << name;
  }
  for (const auto name : {"", "r", "rrr", "WRR", "roundrobin"}) {
    EXPECT_EQ(make_scheduler({.name = name}, 0, 1), nullptr) << name;
  }
  // Every one of IPVS, and conhash.
  EXPECT_EQ(scheduler_names().size(), 15U);
}

TEST(SchedulerOptions, AreTheSchedulersOwn) {
  const auto accepts = [](SchedulerOptions options) { return !check_options(options); };
  EXPECT_TRUE(accepts({.name = "sh", .flags = {"sh-port", "sh-fallback"}}));
  EXPECT_TRUE(accepts({.name = "mh", .flags = {"mh-port", "mh-fallback"}}));
  EXPECT_TRUE(accepts({.name = "rr", .flags = {"flag-1", "flag-2", "flag-3"}}));
  EXPECT_FALSE(accepts({.name = "rr", .flags = {"sh-port"}}));
  EXPECT_FALSE(accepts({.name = "mh", .flags = {"sh-port"}}));
  EXPECT_FALSE(accepts({.name = "sh", .flags = {"nonsense"}}));
  for (const std::uint32_t size : {0U, 251U, 4093U, 65521U, 131071U}) {
    EXPECT_TRUE(accepts({.name = "mh", .table_size = size})) << size;
  }
  for (const std::uint32_t size : {1U, 13U, 241U, 4096U, 65536U, 131072U, 131101U}) {
    EXPECT_FALSE(accepts({.name = "mh", .table_size = size})) << size;
  }
  EXPECT_TRUE(accepts({.name = "conhash", .table_size = 524287}));
  EXPECT_FALSE(accepts({.name = "sh", .table_size = 251}));
  EXPECT_EQ(check_options({.name = "wlc", .table_size = 251}),
            "only conhash and mh have a table of another size");
}

TEST(SchedulerOptions, SetTheSizeOfTheTable) {
  const List list = equal_servers(3);
  EXPECT_EQ(list.table("mh", 0)->positions.size(), 4093U);
  EXPECT_EQ(list.table("mh", 65521)->positions.size(), 65521U);
  EXPECT_EQ(list.table("conhash", 65521)->positions.size(), 65521U);
  // Set for mh and left there when the service got another scheduler.
  EXPECT_EQ(list.table("sh", 65521)->positions.size(), 256U);
  EXPECT_EQ(list.table("rr", 65521), nullptr);
}

TEST(Modulus, MultipliesAndInverts) {
  std::mt19937 random(2);
  for (const std::uint32_t prime : {251U, 4093U, 65521U, 131071U, 262139U, 524287U}) {
    const Modulus modulus(prime);
    for (int i = 0; i < 2000; ++i) {
      const auto a = static_cast<std::uint32_t>(random() % prime);
      const auto b = i == 0 ? prime - 1 : static_cast<std::uint32_t>(random() % (prime - 1)) + 1;
      ASSERT_EQ(modulus.product(a, b), std::uint64_t{a} * b % prime);
      ASSERT_EQ(modulus.product(b, modulus.inverse(b)), 1U);
    }
  }
}

}  // namespace
}  // namespace weir::test
