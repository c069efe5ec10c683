// SPDX-License-Identifier: Apache-2.0
// Plans and their commits: whole or not at all, and the same end however one comes to it.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/random.h"
#include "tests/support/sanitizers.h"

namespace weir::test {
namespace {

constexpr std::array<const char*, 5> kSchedulers = {"rr", "wrr", "wlc", "mh", "sh"};

ServiceKey key_of(unsigned number) {
  if (number % 7 == 6) return {.protocol = Protocol::ip, .address = {}, .fwmark = number};
  const bool udp = number % 3 == 0;
  return service_key(udp ? Protocol::udp : Protocol::tcp, number % 2 == 0 ? "10.9.0.1" : "10.9.0.2",
                     static_cast<std::uint16_t>(80 + number / 3));
}

ServiceSpec random_service(Random& random) {
  ServiceSpec spec;
  spec.key = key_of(random() % 20);
  spec.scheduler = kSchedulers[random() % kSchedulers.size()];
  if (random() % 4 == 0) spec.persistence_timeout = 60 * (random() % 3);
  return spec;
}

ServerSpec random_server(Random& random) {
  constexpr std::array kModes = {ForwardMode::nat, ForwardMode::dr, ForwardMode::tun,
                                 ForwardMode::fullnat};
  return server_spec("10.2.0." + std::to_string(1 + random() % 12),
                     static_cast<std::uint16_t>(8080 + random() % 2),
                     kModes[random() % kModes.size()], static_cast<std::int32_t>(random() % 4));
}

Change random_change(Random& random) {
  const ServiceKey key = key_of(random() % 20);
  const AddressRange range{address_of("10.2.0.200"), address_of("10.2.0.203")};
  switch (random() % 16) {
    case 0:
      return DeleteService{key};
    case 1:
    case 2:
    case 3:
      return AddService{random_service(random)};
    case 4:
      return EditService{random_service(random)};
    case 5: {
      const ServerSpec server = random_server(random);
      return DeleteServer{key, server.address, server.port};
    }
    case 6:
    case 7:
      return EditServer{key, random_server(random)};
    case 8:
      return SetServiceOption{key, {"idle-timeout", std::to_string(random() % 3)}};
    case 9:
      return random() % 2 == 0 ? Change(AddLocalAddresses{range, std::nullopt})
                               : Change(DeleteLocalAddresses{range, std::nullopt});
    case 10:
      return random() % 2 == 0 ? Change(AddMarkRule{{.rule = {.mark = 6 + 7 * (random() % 2)}}, {}})
                               : Change(DeleteMarkRule{1});
    case 11:
      return random() % 40 == 0 ? Change(DeleteAllServices{})
                                : Change(SetTimeouts{{.tcp = 900 + random() % 3}});
    default:
      return AddServer{key, random_server(random)};
  }
}

// All that a worker can see of a version, without the numbers of slots.
std::string text_of(const Snapshot& snapshot) {
  std::vector<std::string> services;
  for (std::size_t slot = 0; slot < snapshot.services.size(); ++slot) {
    const Service* const service = snapshot.services[slot];
    if (service == nullptr || service->removed) continue;
    std::ostringstream text;
    const ServiceKey& key = service->key;
    text << static_cast<int>(key.protocol) << ' ' << key.address.to_string() << ' ' << key.port
         << ' ' << key.fwmark << ' ' << service->scheduler_options.name << ' '
         << service->persistence.timeout << ' ' << service->idle_timeout << ' '
         << service->local_addresses->ipv4.size() << ':';
    for (const Candidate& candidate : service->candidates) {
      const RealServer& server = *snapshot.servers[candidate.slot];
      text << ' ' << server.address.to_string() << '/' << server.port.host() << '/'
           << static_cast<int>(server.mode) << '/' << server.weight << '/' << candidate.weight
           << (server.available ? "" : "!");
    }
    if (service->table != nullptr) {
      for (const std::uint32_t position : service->table->positions) text << ',' << position;
    }
    services.push_back(text.str());
  }
  std::sort(services.begin(), services.end());
  std::string all = std::to_string(snapshot.settings->tcp_timeouts[1]) + '\n';
  for (const std::string& service : services) all += service + '\n';
  return all;
}

// What the index says about all ends that there could be.
std::string index_text(const Snapshot& snapshot) {
  std::string text;
  const auto ask = [&](const IpAddress& address, std::uint16_t port, Protocol protocol) {
    const IpAddress other = address_of("10.1.0.1");
    const FlowKey<Ipv4Address> to{other.ipv4(),          address.ipv4(), Be16::from_host(4000),
                                  Be16::from_host(port), protocol,       Direction::inbound};
    const FlowKey<Ipv4Address> from{address.ipv4(),        other.ipv4(), Be16::from_host(port),
                                    Be16::from_host(4000), protocol,     Direction::inbound};
    const ServiceSlot slot = snapshot.index->find_service(to);
    text += slot == ServiceIndex::kNoService ? '.' : 's';
    text += snapshot.index->is_reply(from) ? 'r' : '.';
    text += snapshot.index->concerns(to) ? 'c' : '.';
  };
  for (const Protocol protocol : {Protocol::tcp, Protocol::udp}) {
    for (const char* vip : {"10.9.0.1", "10.9.0.2"}) {
      for (std::uint16_t port = 80; port < 90; ++port) ask(address_of(vip), port, protocol);
    }
    for (int i = 1; i <= 12; ++i) {
      for (const std::uint16_t port : std::initializer_list<std::uint16_t>{8080, 8081, 80}) {
        ask(address_of("10.2.0." + std::to_string(i)), port, protocol);
      }
    }
  }
  return text;
}

absl::Status commit(LabServices& services, Plan plan) {
  CommitResult result;
  services.commit(std::move(plan), [&result](const CommitResult& done) { result = done; });
  return result.status;
}

TEST(Commit, any_sequence_of_plans_ends_like_a_fresh_load_of_its_end) {
  for (unsigned seed = 1; seed <= 12; ++seed) {
    Random random(seed);
    BurstLab lab({.server_slots = 4096});
    lab.own(address_of("10.9.0.2"));
    for (int round = 0; round < 150; ++round) {
      Plan plan;
      for (unsigned i = 0; i <= random() % 30; ++i) plan.push_back(random_change(random));
      // As a whole, which most are not, or each by itself.
      if (random() % 2 == 0) {
        (void)commit(lab.services(), plan);
      } else {
        for (Change& change : plan) (void)commit(lab.services(), {std::move(change)});
      }
      lab.settle();
    }
    for (int i = 0; i < 3; ++i) lab.settle();
    BurstLab fresh({.server_slots = 4096});
    fresh.own(address_of("10.9.0.2"));
    const DirectorConfig& end = lab.services().config();
    ASSERT_EQ(commit(fresh.services(), plan(DirectorConfig(), end)), absl::OkStatus());
    EXPECT_EQ(text_of(lab.snapshot()), text_of(fresh.snapshot())) << "seed " << seed;
    EXPECT_EQ(index_text(lab.snapshot()), index_text(fresh.snapshot())) << "seed " << seed;
    EXPECT_TRUE(plan(fresh.services().config(), end).empty());
  }
}

TEST(Commit, a_plan_leads_from_any_configuration_to_any_other) {
  Random random(99);
  BurstLab from({.server_slots = 4096});
  BurstLab to({.server_slots = 4096});
  for (int round = 0; round < 60; ++round) {
    for (int i = 0; i < 30; ++i) (void)commit(to.services(), {random_change(random)});
    const Plan steps = plan(from.services().config(), to.services().config());
    ASSERT_EQ(commit(from.services(), steps), absl::OkStatus());
    const Plan left = plan(from.services().config(), to.services().config());
    ASSERT_TRUE(left.empty()) << left.size() << " changes are left";
  }
}

TEST(Commit, one_bad_change_changes_nothing_and_is_named) {
  Random random(5);
  BurstLab lab({.server_slots = 4096});
  for (int i = 0; i < 200; ++i) (void)commit(lab.services(), {random_change(random)});
  const std::string before = text_of(lab.snapshot());
  const DirectorConfig config = lab.services().config();
  for (const std::size_t bad : {0U, 1U, 17U, 99U}) {
    Plan plan = {DeleteAllServices{}};
    while (plan.size() < 100) {
      ServiceSpec spec;
      spec.key = service_key(Protocol::tcp, "10.9.0.1", static_cast<std::uint16_t>(plan.size()));
      plan.push_back(AddService{spec});
    }
    plan[bad] = DeleteService{service_key(Protocol::sctp, "10.9.0.1", 1)};
    CommitResult result;
    lab.services().commit(plan, [&result](const CommitResult& done) { result = done; });
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(result.change, bad);
    EXPECT_EQ(text_of(lab.snapshot()), before);
    EXPECT_TRUE(weir::plan(config, lab.services().config()).empty());
  }
}

TEST(Commit, what_the_steering_program_has_no_room_for_is_refused_before_anything_changes) {
  BurstLab lab;
  LabServices& services = lab.services();
  add_service(services, service_key(Protocol::tcp, "10.9.0.1", 80));
  services.set_steering({[](const SteeringSizes& sizes) {
                           return sizes.servers > 3 ? absl::ResourceExhaustedError("full")
                                                    : absl::OkStatus();
                         },
                         [](auto, const auto&) {}});
  Plan plan;
  for (unsigned i = 1; i <= 4; ++i) {
    plan.push_back(AddServer{service_key(Protocol::tcp, "10.9.0.1", 80),
                             server_spec("10.2.0." + std::to_string(i), 80, ForwardMode::nat)});
  }
  EXPECT_EQ(commit(services, plan).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(services.find(service_key(Protocol::tcp, "10.9.0.1", 80))->servers.empty());
  plan.pop_back();
  EXPECT_EQ(commit(services, plan), absl::OkStatus());
}

TEST(Commit, time_outs_that_would_wrap_the_clock_are_refused) {
  BurstLab lab;
  EXPECT_EQ(lab.services().set_timeouts({.tcp = 40'000'000, .tcp_fin = 0, .udp = 0}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(lab.services().timeouts().tcp, 900U);
  EXPECT_TRUE(lab.services().set_timeouts({.tcp = 2'678'400, .tcp_fin = 0, .udp = 0}).ok());
}

// Workers of a real publisher, which leave a version when the test says so.
TEST(Commit, is_done_and_steered_when_every_worker_has_it) {
  BurstLab lab({.workers = 2});
  LabServices& services = lab.services();
  bool woken = false;
  services.on_work([&woken] { woken = true; });
  lab.publisher().enter(0);
  lab.publisher().enter(1);
  bool done = false;
  ServiceSpec spec;
  spec.key = service_key(Protocol::tcp, "10.9.0.1", 80);
  services.commit({AddService{spec}},
                  [&done](const CommitResult& result) { done = result.status.ok(); });
  EXPECT_TRUE(woken);
  const auto work = [&] {
    services.settle();
    while (services.work()) continue;
  };
  work();
  EXPECT_NE(lab.snapshot().services[0], nullptr) << "published, but nobody has looked at it";
  lab.publisher().quiescent(0);
  work();
  EXPECT_FALSE(done);
  EXPECT_TRUE(services.steered_services().empty());
  lab.publisher().quiescent(1);
  work();
  EXPECT_TRUE(done);
  EXPECT_EQ(services.steered_services().size(), 1U);
  lab.publisher().leave(0);
  lab.publisher().leave(1);
}

TEST(Commit, edits_are_replayed_in_bounded_pieces_and_none_is_lost) {
  constexpr unsigned kServices = 100;
  BurstLab lab;
  LabServices& services = lab.services();
  for (std::uint16_t i = 0; i < kServices; ++i) {
    add_service(services,
                service_key(Protocol::tcp, "10.9.0.1", static_cast<std::uint16_t>(80 + i)));
  }
  lab.settle();
  for (std::uint16_t i = 0; i < kServices; ++i) {
    for (unsigned j = 1; j <= 3; ++j) {
      must(services.add_server(
          service_key(Protocol::tcp, "10.9.0.1", static_cast<std::uint16_t>(80 + i)),
          server_spec("10.2.0." + std::to_string(j), 80, ForwardMode::nat)));
    }
  }
  WorkerState& worker = lab.worker();
  adopt_snapshot(worker, lab.snapshot());
  EXPECT_EQ(worker.edits.left, kServices);
  const auto replayed = [&] {
    std::uint64_t edits = 0;
    for (std::size_t slot = 0; slot < kServices; ++slot) {
      edits += (*lab.snapshot().services[slot]->schedulers)[0].edits_applied.read();
    }
    return edits;
  };
  std::uint64_t before = replayed();
  while (worker.edits.left != 0) {
    replay_some_edits(worker, lab.snapshot());
    EXPECT_LE(replayed() - before, kReplayBudget);
    before = replayed();
  }
  EXPECT_EQ(before, 3U * kServices);
}

#if defined(WEIR_ADDRESS_SANITIZER) || defined(WEIR_THREAD_SANITIZER)
constexpr int kPlans = 1'000;
#else
constexpr int kPlans = 20'000;
#endif

TEST(Commit, a_million_random_changes_leave_nothing_behind) {
  Random random(3);
  BurstLab lab({.server_slots = 4096});
  for (int i = 0; i < kPlans; ++i) {
    Plan plan;
    for (int j = 0; j < 50; ++j) plan.push_back(random_change(random));
    for (Change& change : plan) (void)commit(lab.services(), {std::move(change)});
    if (i % 8 == 0) lab.settle();
  }
  must(lab.services().flush());
  for (int i = 0; i < 3; ++i) lab.settle();
  EXPECT_LT(lab.services().server_slots(), 2000U);
  EXPECT_LT(lab.services().service_slots(), 200U);
  EXPECT_FALSE(lab.publisher().anything_retired());
}

}  // namespace
}  // namespace weir::test
