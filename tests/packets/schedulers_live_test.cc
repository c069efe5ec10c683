// SPDX-License-Identifier: Apache-2.0
// Every scheduler in a whole director: named and flagged as ipvsadm does, asked by packets, with
// real servers that come, go and change weight in between.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <set>
#include <string>

#include "schedulers/scheduler.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

constexpr const char* kVip = "10.9.0.1";
constexpr std::uint16_t kPort = 80;

class Director {
 public:
  explicit Director(const std::string& scheduler, const std::vector<std::string>& flags = {},
                    unsigned workers = 1)
      : lab_({.workers = workers}) {
    spec_.key = service_key(Protocol::udp, kVip, kPort);
    spec_.scheduler = scheduler;
    spec_.scheduler_flags = flags;
    must(lab_.services().add_service(spec_));
  }

  LabServices& services() { return lab_.services(); }
  const ServiceKey& key() const { return spec_.key; }
  const LookupTable* table() {
    return lab_.snapshot().services[0] == nullptr ? nullptr
                                                  : lab_.snapshot().services[0]->table.get();
  }

  void add(unsigned server, std::int32_t weight = 1, std::uint32_t upper_threshold = 0) {
    must(services().add_server(key(), spec_of(server, weight, upper_threshold)));
  }
  void change(unsigned server, std::int32_t weight) {
    must(services().edit_server(key(), spec_of(server, weight, 0)));
  }
  void remove(unsigned server) {
    must(services().delete_server(key(), spec_of(server, 1, 0).address, 8080));
  }
  void switch_to(const std::string& scheduler) {
    spec_.scheduler = scheduler;
    must(services().edit_service(spec_));
  }
  void settle() { lab_.settle(); }

  // The real server that the client's datagram goes to; 0: it is refused.
  unsigned connect(const std::string& client, std::uint16_t port, unsigned worker = 0) {
    const Forwarded got = lab_.deliver(client_udp({client, port, kVip, kPort}), 0, worker);
    return got.outcome == Outcome::nat_to_server ? decode(got.bytes).server : 0;
  }

 private:
  static ServerSpec spec_of(unsigned server, std::int32_t weight, std::uint32_t upper_threshold) {
    ServerSpec spec =
        server_spec("10.2.0." + std::to_string(server), 8080, ForwardMode::nat, weight);
    spec.upper_threshold = upper_threshold;
    return spec;
  }

  BurstLab lab_;
  ServiceSpec spec_;
};

std::string client_number(unsigned number) {
  return "10.1." + std::to_string(number >> 8) + "." + std::to_string(number & 0xff);
}

class LiveScheduler : public ::testing::TestWithParam<std::string_view> {};

TEST_P(LiveScheduler, NeverPicksWhoIsGoneOrDrainedOrFull) {
  for (const unsigned workers : {1U, 3U}) {
    Director director(std::string(GetParam()), {}, workers);
    for (unsigned server = 1; server <= 6; ++server) director.add(server, 100);
    std::uint16_t port = 1024;
    const auto expect_only = [&](const std::set<unsigned>& allowed) {
      for (unsigned i = 0; i < 120; ++i) {
        const unsigned picked = director.connect(client_number(i), ++port, i % workers);
        // What hashes to somebody ineligible is refused.
        ASSERT_TRUE(picked == 0 || allowed.contains(picked)) << picked;
      }
    };
    expect_only({1, 2, 3, 4, 5, 6});
    director.remove(2);
    expect_only({1, 3, 4, 5, 6});
    director.change(4, 0);
    expect_only({1, 3, 5, 6});
    director.settle();
    director.add(2, 100);
    director.remove(6);
    director.change(4, 5);
    director.change(1, 0);
    expect_only({2, 3, 4, 5});
    for (const unsigned server : {2U, 3U, 4U, 5U}) director.remove(server);
    expect_only({});
    director.add(7, 1);
    director.remove(1);
    EXPECT_EQ(director.connect("10.1.0.1", ++port), 7U);
  }
}

TEST_P(LiveScheduler, CanReplaceAnyOther) {
  Director director("rr");
  std::uint16_t port = 1024;
  for (const auto other : scheduler_names()) {
    director.switch_to(std::string(other));
    director.add(1);
    director.switch_to(std::string(GetParam()));
    EXPECT_EQ(director.connect("10.1.0.1", ++port), 1U) << "after " << other;
    director.remove(1);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LiveScheduler, ::testing::ValuesIn(scheduler_names()),
                         [](const auto& instance) { return std::string(instance.param); });

// data/ipvs/hash.jsonl: by ipvsadm's flags, through the whole director.
TEST(RecordedMappings, AreRepeatedByTheDirector) {
  namespace json = boost::json;
  int replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/hash.jsonl")) {
    if (record.contains("series") || record.at("rports").to_number<int>() != 8080) continue;
    std::vector<std::string> flags;
    std::string text(record.at("flags").as_string());
    for (std::size_t end; !text.empty(); text.erase(0, end == text.npos ? end : end + 1)) {
      end = text.find(',');
      flags.push_back(text.substr(0, end));
    }
    SCOPED_TRACE(json::serialize(record.at("sched")) + json::serialize(record.at("flags")) +
                 json::serialize(record.at("weights")));
    Director director(std::string(record.at("sched").as_string()), flags);
    unsigned server = 0;
    for (const auto& weight : record.at("weights").as_array()) {
      director.add(++server, weight.to_number<std::int32_t>());
    }
    const auto sport = record.at("sport").to_number<std::uint16_t>();
    const auto& expected = record.at("by_ip").at("10.1.0.1-64").as_array();
    for (unsigned i = 0; i < expected.size(); ++i) {
      ASSERT_EQ(director.connect(client_number(i + 1), sport), expected[i].to_number<unsigned>())
          << client_number(i + 1);
    }
    ++replayed;
  }
  EXPECT_GE(replayed, 30);
}

TEST(Services, KeepATableUntilTheListChanges) {
  Director director("mh");
  director.add(1);
  director.add(2);
  const LookupTable* before = director.table();
  ASSERT_NE(before, nullptr);
  EXPECT_EQ(before->positions.size(), 4093U);
  must(director.services().set_service_option(director.key(), {"idle-timeout", "60"}));
  EXPECT_EQ(director.table(), before);
  must(director.services().set_service_option(director.key(), {"table-size", "65521"}));
  EXPECT_EQ(director.table()->positions.size(), 65521U);
  const auto refused =
      director.services().set_service_option(director.key(), {"table-size", "65536"});
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(director.table()->positions.size(), 65521U);
}

// By its last weight: mh's table is the same, and its clients are refused meanwhile.
TEST(Services, TellMhTheLastWeightOfWhoIsDrained) {
  Director director("mh");
  for (unsigned server = 1; server <= 4; ++server) director.add(server, 3);
  const std::vector<std::uint32_t> before = director.table()->positions;
  director.change(2, 0);
  EXPECT_EQ(director.table()->positions, before);
  director.remove(2);
  director.add(2, 0);
  for (const std::uint32_t position : director.table()->positions) ASSERT_NE(position, 0U);
}

// A threshold that the connections of three workers reach together.
TEST(Services, HoldThresholdsAcrossWorkers) {
  for (const char* scheduler : {"wlc", "rr", "sed", "fo"}) {
    Director director(scheduler, {}, 3);
    director.add(1, 1, 5);
    director.add(2, 1, 5);
    std::map<unsigned, int> counts;
    for (unsigned i = 0; i < 40; ++i) {
      ++counts[director.connect(client_number(i), static_cast<std::uint16_t>(2000 + i), i % 3)];
    }
    EXPECT_EQ(counts[1], 5) << scheduler;
    EXPECT_EQ(counts[2], 5) << scheduler;
  }
}

// The cache of lblc is asked of one worker, whichever gets the packet.
TEST(Services, KeepOneDestinationOnOneRealServer) {
  for (const char* scheduler : {"lblc", "lblcr"}) {
    Director director(scheduler, {}, 3);
    for (unsigned server = 1; server <= 5; ++server) director.add(server, 100);
    std::set<unsigned> seen;
    for (unsigned i = 0; i < 60; ++i) {
      seen.insert(director.connect(client_number(i), static_cast<std::uint16_t>(3000 + i), i % 3));
    }
    EXPECT_EQ(seen.size(), 1U) << scheduler;
    EXPECT_FALSE(seen.contains(0)) << scheduler;
  }
}

TEST(Services, RefuseFlagsThatASchedulerDoesNotHave) {
  Director director("rr");
  ServiceSpec spec;
  spec.key = service_key(Protocol::udp, kVip, 81);
  spec.scheduler = "rr";
  spec.scheduler_flags = {"sh-port"};
  EXPECT_EQ(director.services().add_service(spec).code(), absl::StatusCode::kInvalidArgument);
  spec.scheduler = "none";
  EXPECT_EQ(director.services().add_service(spec).code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace weir::test
