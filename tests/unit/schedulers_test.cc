// SPDX-License-Identifier: Apache-2.0
// The schedulers against recordings of a live IPVS (data/ipvs/sched-?.jsonl), against plain
// step-by-step forms of their rules under random edits, and on several workers.
#include "schedulers/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <random>
#include <sstream>
#include <string>

namespace weir {
namespace {

namespace json = boost::json;

// The life of one service: its list, and the counts of its real servers by slot. Slots are the
// numbers of the recordings: 1 for the first one added.
class SimulatedService final : public LoadView {
 public:
  Load load(ServerSlot slot) const noexcept override { return loads_[slot]; }
  bool overloaded(ServerSlot slot) const noexcept override { return overloaded_[slot]; }

  Edit add(ServerSlot slot, std::int32_t weight) {
    candidates_.insert(candidates_.begin(), Candidate{slot, weight});
    if (slot >= loads_.size()) {
      loads_.resize(slot + 1);
      overloaded_.resize(slot + 1);
    }
    return make_edit(Edit::Kind::add, 0, candidates_);
  }
  Edit change(ServerSlot slot, std::int32_t weight) {
    const auto position = position_of(slot);
    candidates_[position].weight = weight;
    return make_edit(Edit::Kind::change, position, candidates_);
  }
  Edit remove(ServerSlot slot) {
    const auto position = position_of(slot);
    candidates_.erase(candidates_.begin() + position);
    return make_edit(Edit::Kind::remove, position, candidates_);
  }
  Edit bind() const { return make_edit(Edit::Kind::bind, 0, candidates_); }

  void set_overloaded(ServerSlot slot, bool overloaded) { overloaded_[slot] = overloaded; }

  // IPVS counts a new connection as inactive; a TCP handshake makes it active, its end inactive.
  void open(ServerSlot slot, std::string_view protocol) {
    ++(protocol == "tcp" ? loads_[slot].active : loads_[slot].inactive);
  }
  void close(ServerSlot slot) {
    --loads_[slot].active;
    ++loads_[slot].inactive;
  }

  std::uint32_t position_of(ServerSlot slot) const {
    const auto found = std::ranges::find(candidates_, slot, &Candidate::slot);
    EXPECT_NE(found, candidates_.end());
    return static_cast<std::uint32_t>(found - candidates_.begin());
  }
  const std::vector<Candidate>& candidates() const { return candidates_; }
  PickInput input() const { return {candidates_, *this}; }
  // 0 where nobody may take the connection.
  ServerSlot pick(Scheduler& scheduler) const {
    const auto position = scheduler.pick(input());
    return position ? candidates_.at(*position).slot : 0;
  }

 private:
  std::vector<Candidate> candidates_;
  std::vector<Load> loads_ = std::vector<Load>(1);
  std::vector<bool> overloaded_ = std::vector<bool>(1);
};

// --- Recordings ---------------------------------------------------------------------------------

std::string data_path(const std::string& name) {
  const char* folder = std::getenv("WEIR_TEST_DATA");
#ifdef WEIR_TEST_DATA
  if (folder == nullptr) folder = WEIR_TEST_DATA;
#endif
  return (folder == nullptr ? std::string("tests/data") : std::string(folder)) + "/ipvs/" + name;
}

std::vector<json::object> recordings_of(std::string_view scheduler) {
  std::vector<json::object> records;
  for (const char* name : {"sched-a.jsonl", "sched-b.jsonl"}) {
    std::ifstream file(data_path(name));
    EXPECT_TRUE(file) << data_path(name) << " cannot be read; set WEIR_TEST_DATA to tests/data";
    for (std::string line; std::getline(file, line);) {
      json::object record = json::parse(line).as_object();
      if (record.at("sched").as_string() == scheduler) records.push_back(std::move(record));
    }
  }
  return records;
}

class Replay {
 public:
  explicit Replay(const json::object& record)
      : record_(record),
        protocol_(record.at("proto").as_string()),
        scheduler_(make_scheduler(record.at("sched").as_string(), 0, 1)) {}

  void run() {
    ServerSlot slot = 0;
    for (const auto& weight : record_.at("weights").as_array()) {
      scheduler_->apply(service_.add(++slot, weight.to_number<std::int32_t>()));
    }
    const auto& expected = record_.at("dest").as_array();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      connect(expected[i].to_number<ServerSlot>());
      ASSERT_FALSE(::testing::Test::HasFailure()) << "connection " << i << " of " << title();
      operate_after(i);
      if (const auto* counts = record_.if_contains("counts_after")) compare(counts->at(i));
      ASSERT_FALSE(::testing::Test::HasFailure()) << "after connection " << i << " of " << title();
    }
    compare(record_.at("counts_end"));
    EXPECT_FALSE(::testing::Test::HasFailure()) << "end of " << title();
  }

 private:
  void connect(ServerSlot expected) {
    // The recorder gives up after five refusals in a row.
    const ServerSlot picked = refusals_ == 5 ? 0 : service_.pick(*scheduler_);
    EXPECT_EQ(picked, expected);
    refusals_ = picked == 0 ? refusals_ + 1 : 0;
    if (picked != 0) service_.open(picked, protocol_);
    picks_.push_back(picked);
  }

  void operate_after(std::size_t connection) {
    const auto* operations = record_.if_contains("ops_after_conn");
    if (operations == nullptr) return;
    for (const auto& operation : operations->as_array()) {
      if (operation.at(0).to_number<std::size_t>() != connection) continue;
      if (operation.at(1).as_string() == "close") {
        service_.close(picks_.at(operation.at(2).to_number<std::size_t>()));
      } else {
        ipvsadm(std::string(operation.at(1).as_string()));
      }
    }
  }

  // "-e -t 10.9.0.1:9009 -r 10.2.0.2:8080 -m -w 6"
  void ipvsadm(const std::string& arguments) {
    std::istringstream words(arguments);
    std::string command, word;
    ServerSlot slot = 0;
    std::int32_t weight = 1;
    words >> command;
    while (words >> word) {
      if (word == "-r" && words >> word) {
        const auto last_dot = word.rfind('.');
        slot = static_cast<ServerSlot>(std::stoul(word.substr(last_dot + 1)));
      }
      if (word == "-w") words >> weight;
    }
    ASSERT_NE(slot, 0U) << arguments;
    if (command == "-a") return scheduler_->apply(service_.add(slot, weight));
    if (command == "-e") return scheduler_->apply(service_.change(slot, weight));
    if (command == "-d") return scheduler_->apply(service_.remove(slot));
    FAIL() << arguments;
  }

  // Rows in the order of the slots; null is one that is not in the list.
  void compare(const json::value& counts) {
    ServerSlot slot = 0;
    for (const auto& row : counts.as_array()) {
      ++slot;
      if (row.is_null()) continue;
      const Load load = service_.load(slot);
      EXPECT_EQ(load.active, row.at(0).to_number<std::uint32_t>()) << "server " << slot;
      EXPECT_EQ(load.inactive, row.at(1).to_number<std::uint32_t>()) << "server " << slot;
    }
  }

  std::string title() const {
    return json::serialize(record_.at("sched")) + json::serialize(record_.at("weights")) +
           protocol_ + json::serialize(record_.at("series"));
  }

  const json::object& record_;
  const std::string protocol_;
  const std::unique_ptr<Scheduler> scheduler_;
  SimulatedService service_;
  std::vector<ServerSlot> picks_;
  int refusals_ = 0;
};

class Recordings : public ::testing::TestWithParam<std::string_view> {};

TEST_P(Recordings, AreRepeatedPickByPick) {
  const auto records = recordings_of(GetParam());
  EXPECT_EQ(records.size(), 24U);
  for (const auto& record : records) {
    Replay(record).run();
    if (HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Ipvs, Recordings, ::testing::ValuesIn(scheduler_names()),
                         [](const auto& instance) { return std::string(instance.param); });

// Worked out by hand from the rule: wrr put in place on lists of these weights.
TEST(WeightedRoundRobin, StartsAtTheTopWhenItReplacesAnotherScheduler) {
  const std::vector<std::pair<std::vector<std::int32_t>, std::vector<std::uint32_t>>> cases = {
      {{4, 3, 2}, {0, 0, 1, 0, 1, 2, 0, 1, 2, 0, 0, 1, 0, 1, 2, 0, 1, 2}},
      {{3, 2, 1}, {0, 0, 1, 0, 1, 2, 0, 0, 1, 0, 1, 2, 0, 0, 1, 0, 1, 2}},
      {{5, 1, 1}, {0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0}},
      {{10, 20, 30}, {2, 1, 2, 0, 1, 2, 2, 1, 2, 0, 1, 2, 2, 1, 2, 0, 1, 2}},
      {{0, 2, 1}, {1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 2}},
      {{100, 1}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}};
  for (const auto& [weights, expected] : cases) {
    SimulatedService service;
    for (std::size_t i = weights.size(); i > 0; --i) {
      service.add(static_cast<ServerSlot>(i), weights[i - 1]);
    }
    const auto scheduler = make_scheduler("wrr", 0, 1);
    scheduler->apply(service.bind());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(scheduler->pick(service.input()), expected[i]) << "pick " << i;
    }
  }
}

// 1 inactive connection costs a 256th of an active one.
TEST(WeightedLeastConnection, CountsAnActiveConnectionAs256InactiveOnes) {
  for (const auto& [inactive, expected] :
       {std::pair{511U, 1U}, std::pair{512U, 2U}, std::pair{513U, 2U}}) {
    SimulatedService service;
    const auto scheduler = make_scheduler("wlc", 0, 1);
    scheduler->apply(service.add(1, 1));
    scheduler->apply(service.add(2, 1));
    for (unsigned i = 0; i < inactive; ++i) service.open(1, "udp");
    service.open(2, "tcp");
    service.open(2, "tcp");
    EXPECT_EQ(service.pick(*scheduler), expected) << inactive;
  }
}

// --- Plain forms of the rules -------------------------------------------------------------------

// They hold real servers by slot, not by position, and take every step that the rule describes.
class PlainRule {
 public:
  virtual ~PlainRule() = default;
  // Before the list changes: the edit, and the list as it still is.
  virtual void before_edit(Edit::Kind, ServerSlot, const SimulatedService&) {}
  virtual void after_edit(const Edit&) {}
  virtual ServerSlot pick(const SimulatedService& service) = 0;

 protected:
  // 0 stands for the head, before the first entry and after the last.
  static ServerSlot following(const SimulatedService& service, ServerSlot slot) {
    const auto& list = service.candidates();
    const std::size_t at = slot == 0 ? 0 : service.position_of(slot) + 1;
    return at < list.size() ? list[at].slot : 0;
  }
  static std::int32_t weight(const SimulatedService& service, ServerSlot slot) {
    return service.candidates()[service.position_of(slot)].weight;
  }
};

class PlainRoundRobin : public PlainRule {
 public:
  void before_edit(Edit::Kind kind, ServerSlot slot, const SimulatedService& service) override {
    if (kind != Edit::Kind::remove || slot != cursor_) return;
    const auto position = service.position_of(slot);
    cursor_ = position == 0 ? 0 : service.candidates()[position - 1].slot;
  }
  ServerSlot pick(const SimulatedService& service) override {
    ServerSlot at = cursor_;
    for (std::size_t steps = 0; steps <= service.candidates().size(); ++steps) {
      at = following(service, at);
      if (at != 0 && weight(service, at) > 0 && !service.overloaded(at)) return cursor_ = at;
    }
    return 0;
  }

 private:
  ServerSlot cursor_ = 0;
};

class PlainWeightedRoundRobin : public PlainRule {
 public:
  void after_edit(const Edit& edit) override {
    last_ = 0;
    gcd_ = edit.weight_gcd;
    greatest_ = edit.max_weight - (gcd_ - 1);
    if (level_ > greatest_ || level_ == 0) {
      level_ = greatest_;
    } else if (gcd_ > 1) {
      level_ = (level_ / gcd_) * gcd_ + 1;
    }
  }
  ServerSlot pick(const SimulatedService& service) override {
    if (greatest_ == 0) return 0;
    const ServerSlot begin = last_;
    bool last_pass = false;
    bool restarted = false;
    ServerSlot stop = 0;
    for (ServerSlot at = begin;;) {
      while ((at = following(service, at)) != 0) {
        if (!service.overloaded(at) && weight(service, at) >= level_) return last_ = at;
        if (at == stop) return refuse_at(at);
      }
      level_ -= gcd_;
      if (level_ <= 0) {
        level_ = greatest_;
        if (last_pass || begin == 0) return refuse_at(0);
        restarted = true;
      }
      last_pass = level_ <= gcd_;
      if (last_pass && restarted && begin != 0) stop = begin;
    }
  }

 private:
  ServerSlot refuse_at(ServerSlot slot) {
    last_ = slot;
    return 0;
  }

  ServerSlot last_ = 0;
  std::int32_t level_ = 0;
  std::int32_t greatest_ = 0;
  std::int32_t gcd_ = 1;
};

class PlainWeightedLeastConnection : public PlainRule {
 public:
  ServerSlot pick(const SimulatedService& service) override {
    ServerSlot best = 0;
    for (const auto& candidate : service.candidates()) {
      if (candidate.weight <= 0 || service.overloaded(candidate.slot)) continue;
      if (best == 0 || overhead(service, best) * candidate.weight >
                           overhead(service, candidate.slot) * weight(service, best)) {
        best = candidate.slot;
      }
    }
    return best;
  }

 private:
  static std::int64_t overhead(const SimulatedService& service, ServerSlot slot) {
    return 256 * std::int64_t{service.load(slot).active} + service.load(slot).inactive;
  }
};

std::unique_ptr<PlainRule> make_plain(std::string_view name) {
  if (name == "rr") return std::make_unique<PlainRoundRobin>();
  if (name == "wrr") return std::make_unique<PlainWeightedRoundRobin>();
  if (name == "wlc") return std::make_unique<PlainWeightedLeastConnection>();
  return nullptr;
}

// A service that changes at random, with one scheduler that is told of every edit at once, one that
// is told only before a pick, and the plain rule.
class RandomLife {
 public:
  RandomLife(std::string_view name, unsigned seed)
      : random_(seed),
        prompt_(make_scheduler(name, 0, 1)),
        late_(make_scheduler(name, 0, 1)),
        plain_(make_plain(name)) {}

  void step() {
    switch (up_to(11)) {
      case 0:
        return add();
      case 1:
        return remove();
      case 2:
      case 3:
        return change();
      case 4:
      case 5:
        return service_.set_overloaded(some_slot(), up_to(2) == 0);
      case 6:
        return close();
      default:
        return pick();
    }
  }

 private:
  std::uint32_t up_to(std::uint32_t last) {
    return std::uniform_int_distribution<std::uint32_t>(0, last)(random_);
  }
  ServerSlot some_slot() {
    const auto& list = service_.candidates();
    return list.empty() ? 0 : list[up_to(static_cast<std::uint32_t>(list.size()) - 1)].slot;
  }
  std::int32_t some_weight() {
    static constexpr std::array<std::int32_t, 12> kWeights = {0, 0,  1,  1,  2,  3,
                                                              4, 10, 20, 40, 77, 65535};
    return kWeights[up_to(kWeights.size() - 1)];
  }

  void tell(const Edit& edit) {
    prompt_->apply(edit);
    untold_.push_back(edit);
    plain_->after_edit(edit);
  }
  void add() {
    if (service_.candidates().size() == 12) return;
    // A removed one may come back, with its counts.
    ServerSlot slot = 1 + up_to(15);
    while (std::ranges::count(service_.candidates(), slot, &Candidate::slot) != 0) {
      slot = 1 + up_to(15);
    }
    plain_->before_edit(Edit::Kind::add, slot, service_);
    tell(service_.add(slot, some_weight()));
  }
  void remove() {
    const ServerSlot slot = some_slot();
    if (slot == 0) return;
    plain_->before_edit(Edit::Kind::remove, slot, service_);
    tell(service_.remove(slot));
  }
  void change() {
    const ServerSlot slot = some_slot();
    if (slot == 0) return;
    plain_->before_edit(Edit::Kind::change, slot, service_);
    tell(service_.change(slot, some_weight()));
  }
  void close() {
    const ServerSlot slot = some_slot();
    if (slot != 0 && service_.load(slot).active > 0) service_.close(slot);
  }
  void pick() {
    for (const Edit& edit : untold_) late_->apply(edit);
    untold_.clear();
    const ServerSlot picked = service_.pick(*prompt_);
    ASSERT_EQ(picked, plain_->pick(service_));
    ASSERT_EQ(picked, service_.pick(*late_));
    const bool any = std::ranges::any_of(
        service_.candidates(), [&](const Candidate& one) { return eligible(one, service_); });
    ASSERT_EQ(picked != 0, any);
    if (picked == 0) return;
    ASSERT_TRUE(eligible(service_.candidates()[service_.position_of(picked)], service_));
    service_.open(picked, up_to(1) == 0 ? "tcp" : "udp");
  }

  std::mt19937 random_;
  SimulatedService service_;
  const std::unique_ptr<Scheduler> prompt_;
  const std::unique_ptr<Scheduler> late_;
  const std::unique_ptr<PlainRule> plain_;
  std::vector<Edit> untold_;
};

class EveryScheduler : public ::testing::TestWithParam<std::string_view> {};

TEST_P(EveryScheduler, PicksAsThePlainRuleDoesUnderRandomEdits) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    RandomLife life(GetParam(), seed);
    for (int i = 0; i < 2000; ++i) {
      life.step();
      ASSERT_FALSE(HasFailure()) << "seed " << seed << " step " << i;
    }
  }
}

TEST_P(EveryScheduler, PicksOnlyEligibleRealServersOnEveryWorker) {
  constexpr unsigned kWorkers = 5;
  std::mt19937 random(7);
  for (unsigned worker = 0; worker < kWorkers; ++worker) {
    SimulatedService service;
    const auto scheduler = make_scheduler(GetParam(), worker, kWorkers);
    ASSERT_EQ(service.pick(*scheduler), 0U);
    for (ServerSlot slot = 1; slot <= 6; ++slot) scheduler->apply(service.add(slot, 3));
    scheduler->apply(service.remove(2));
    scheduler->apply(service.change(4, 0));
    service.set_overloaded(5, true);
    for (int i = 0; i < 200; ++i) {
      const ServerSlot picked = service.pick(*scheduler);
      ASSERT_TRUE(picked == 1 || picked == 3 || picked == 6) << picked;
      service.open(picked, "tcp");
    }
    for (const ServerSlot slot : {1U, 3U, 6U}) service.set_overloaded(slot, true);
    EXPECT_EQ(service.pick(*scheduler), 0U);
    service.set_overloaded(5, false);
    EXPECT_EQ(service.pick(*scheduler), 5U);
  }
}

INSTANTIATE_TEST_SUITE_P(Ipvs, EveryScheduler, ::testing::ValuesIn(scheduler_names()),
                         [](const auto& instance) { return std::string(instance.param); });

TEST(SchedulerByName, KnowsItsNamesAndNoOthers) {
  for (const auto name : scheduler_names()) EXPECT_NE(make_scheduler(name, 0, 1), nullptr) << name;
  for (const auto name : {"", "r", "rrr", "WRR", "roundrobin"}) {
    EXPECT_EQ(make_scheduler(name, 0, 1), nullptr) << name;
  }
}

// --- Several workers ----------------------------------------------------------------------------

struct Fairness {
  std::string_view scheduler;
  unsigned workers;
};

class SeveralWorkers : public ::testing::TestWithParam<Fairness> {
 protected:
  // Which worker gets connection i.
  enum class Spread { in_turn, random, skewed };

  void expect_fair(const std::vector<std::int32_t>& weights, Spread spread, unsigned connections) {
    const auto [name, workers] = GetParam();
    SimulatedService service;
    std::vector<std::unique_ptr<Scheduler>> schedulers;
    for (unsigned worker = 0; worker < workers; ++worker) {
      schedulers.push_back(make_scheduler(name, worker, workers));
    }
    for (ServerSlot slot = 1; slot <= weights.size(); ++slot) {
      const Edit edit = service.add(slot, weights[slot - 1]);
      for (auto& scheduler : schedulers) scheduler->apply(edit);
    }
    std::vector<double> counts(weights.size() + 1);
    std::mt19937 random(workers);
    for (unsigned i = 0; i < connections; ++i) {
      ++counts[service.pick(*schedulers[worker_of(i, workers, spread, random)])];
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

 private:
  static unsigned worker_of(unsigned i, unsigned workers, Spread spread, std::mt19937& random) {
    if (spread == Spread::in_turn) return i % workers;
    const unsigned any = std::uniform_int_distribution<unsigned>(0, workers - 1)(random);
    if (spread == Spread::random) return any;
    return std::uniform_int_distribution<unsigned>(0, any)(random);
  }

 protected:
  void expect_fair_whatever_the_spread(const std::vector<std::int32_t>& weights) {
    for (const Spread spread : {Spread::in_turn, Spread::random, Spread::skewed}) {
      for (const unsigned connections : {9990U, 9995U, 10'000U, 10'007U}) {
        expect_fair(weights, spread, connections);
      }
    }
  }
};

TEST_P(SeveralWorkers, DeviateAtMostOneConnectionPerWorkerAndRealServer) {
  expect_fair_whatever_the_spread({1});
  expect_fair_whatever_the_spread({1, 1, 1});
  expect_fair_whatever_the_spread({4, 3, 2});
  expect_fair_whatever_the_spread({10, 20, 30, 40});
  expect_fair_whatever_the_spread({1, 2, 3, 4, 5, 6, 7});
  expect_fair_whatever_the_spread({5, 1, 1});
  expect_fair_whatever_the_spread({100, 1});
  expect_fair_whatever_the_spread(std::vector<std::int32_t>(100, 1));
}

TEST_P(SeveralWorkers, DoNotAllBeginWithTheSameRealServer) {
  const auto [name, workers] = GetParam();
  SimulatedService service;
  std::vector<std::unique_ptr<Scheduler>> schedulers;
  for (unsigned worker = 0; worker < workers; ++worker) {
    schedulers.push_back(make_scheduler(name, worker, workers));
  }
  for (ServerSlot slot = 1; slot <= workers; ++slot) {
    const Edit edit = service.add(slot, 10);
    for (auto& scheduler : schedulers) scheduler->apply(edit);
  }
  std::vector<int> counts(workers + 1);
  for (auto& scheduler : schedulers) ++counts[service.pick(*scheduler)];
  for (ServerSlot slot = 1; slot <= workers; ++slot) EXPECT_EQ(counts[slot], 1) << slot;
}

INSTANTIATE_TEST_SUITE_P(Fair, SeveralWorkers,
                         ::testing::Values(Fairness{"rr", 2}, Fairness{"rr", 4}, Fairness{"rr", 16},
                                           Fairness{"wrr", 2}, Fairness{"wrr", 4},
                                           Fairness{"wrr", 16}),
                         [](const auto& instance) {
                           return std::string(instance.param.scheduler) + "_" +
                                  std::to_string(instance.param.workers);
                         });

}  // namespace
}  // namespace weir
