// SPDX-License-Identifier: Apache-2.0
// Snapshots handed to workers and freed behind them. The last test is the one to run under the
// thread and address sanitizers: the real control model changes 100,000 times while workers read
// all of every version that they see and send packets by it.
#include "dataplane/io/publisher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/random.h"

namespace weir::test {
namespace {

std::unique_ptr<const Snapshot> version(std::uint64_t number) {
  auto snapshot = std::make_unique<Snapshot>();
  snapshot->version = number;
  return snapshot;
}

TEST(Publisher, frees_and_reports_in_order_once_no_worker_can_look) {
  Publisher publisher(2);
  publisher.enter(0);
  publisher.enter(1);
  publisher.publish(version(1), {}, {});
  EXPECT_EQ(publisher.load()->version, 1U);

  std::vector<int> reported;
  auto part = std::make_shared<int>(7);
  const std::weak_ptr<int> watched = part;
  publisher.publish(version(2), {std::move(part)}, [&] { reported.push_back(2); });
  publisher.publish(version(3), {}, [&] { reported.push_back(3); });
  EXPECT_EQ(publisher.load()->version, 3U);
  publisher.reclaim();
  EXPECT_FALSE(watched.expired());
  publisher.quiescent(0);
  publisher.reclaim();
  EXPECT_FALSE(watched.expired()) << "worker 1 may still look";
  EXPECT_TRUE(reported.empty());

  publisher.quiescent(1);
  publisher.publish(version(4), {}, [&] { reported.push_back(4); });
  publisher.reclaim();
  EXPECT_TRUE(watched.expired());
  EXPECT_EQ(reported, (std::vector<int>{2, 3}));
  EXPECT_TRUE(publisher.anything_retired());
  publisher.leave(0);
  publisher.leave(1);
  publisher.reclaim();
  EXPECT_EQ(reported, (std::vector<int>{2, 3, 4}));
  EXPECT_FALSE(publisher.anything_retired());
}

TEST(Publisher, a_report_may_publish) {
  Publisher publisher(1);
  bool reported = false;
  publisher.publish(version(1), {},
                    [&] { publisher.publish(version(2), {}, [&] { reported = true; }); });
  publisher.reclaim();
  publisher.reclaim();
  EXPECT_TRUE(reported);
  EXPECT_EQ(publisher.current().version, 2U);
}

// ---- Workers beside a control thread that never rests ----

constexpr unsigned kWorkers = 3;
constexpr std::uint16_t kServicePorts = 6;
constexpr unsigned kServerNumbers = 12;

constexpr std::size_t kSlots = 2048;  // more than ever are taken

const std::string kVip = "10.9.0.1";

// Every pointer and index of a version leads to something of the same version.
void expect_sound(const Snapshot& snapshot, std::atomic<unsigned>& faults) {
  unsigned wrong = 0;
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    const RealServer* server = snapshot.servers[slot];
    if (server != nullptr && (server->slot != slot || server->generation == 0)) ++wrong;
  }
  for (std::size_t slot = 0; slot < kSlots; ++slot) {
    const Service* service = snapshot.services[slot];
    if (service == nullptr) continue;
    if (service->slot != slot || service->schedulers->size() != kWorkers) ++wrong;
    for (const Candidate& candidate : service->candidates) {
      const RealServer* server = snapshot.servers[candidate.slot];
      if (server == nullptr || !server->available || server->weight != candidate.weight) ++wrong;
    }
    const FlowKey<Ipv4Address> key{{},
                                   service->key.address.ipv4(),
                                   {},
                                   Be16::from_host(service->key.port),
                                   service->key.protocol,
                                   Direction::inbound};
    if (snapshot.index->find_service(key) != slot) ++wrong;
  }
  for (const ServiceSlot slot : snapshot.edited) {
    if (slot >= snapshot.services.size()) ++wrong;
  }
  if (wrong != 0) faults.fetch_add(wrong);
}

std::vector<Bytes> client_frames() {
  std::vector<Bytes> frames;
  for (std::uint16_t client = 0; client < 24; ++client) {
    for (std::uint16_t service = 0; service < kServicePorts; ++service) {
      const auto port = static_cast<std::uint16_t>(80 + service);
      const Flow flow{"10.1.0.1", static_cast<std::uint16_t>(3000 + client), kVip, port};
      for (const std::uint8_t flags : {TcpHeader::kSyn, TcpHeader::kAck, TcpHeader::kRst}) {
        frames.push_back(client_tcp(flow, flags));
      }
    }
  }
  return frames;
}

// What Worker::run() does, without ports.
class WorkerThread {
 public:
  WorkerThread(BurstLab& lab, unsigned index, const std::vector<Bytes>& frames)
      : lab_(lab), state_(lab.worker(index)), frames_(frames), random_(index) {
    thread_ = std::thread([this] { run(); });
  }
  void stop() {
    running_.store(false, std::memory_order_relaxed);
    thread_.join();
  }
  std::uint64_t adopted() const { return adopted_.load(std::memory_order_relaxed); }
  unsigned faults() const { return faults_.load(); }
  std::uint64_t forwarded() const { return forwarded_; }

 private:
  void run() {
    lab_.publisher().enter(state_.index);
    while (running_.load(std::memory_order_relaxed)) {
      const Snapshot& snapshot = *lab_.publisher().load();
      if (snapshot.version != adopted()) {
        adopt_snapshot(state_, snapshot);
        expect_sound(snapshot, faults_);
        adopted_.store(snapshot.version, std::memory_order_relaxed);
      }
      state_.now += 8;
      burst(snapshot);
      if (state_.edits.left != 0) replay_some_edits(state_, snapshot);
      expire_connections(state_, snapshot, 64);
      lab_.publisher().quiescent(state_.index);
    }
    lab_.publisher().leave(state_.index);
  }

  void burst(const Snapshot& snapshot) {
    std::vector<Frame> frames;
    for (int i = 0; i < 4; ++i) frames.emplace_back(frames_[random_() % frames_.size()]);
    std::vector<Packet> packets;
    for (Frame& frame : frames) packets.push_back(frame.packet());
    lab_.process_burst(packets, state_.index, snapshot);
    for (const Packet& packet : packets) forwarded_ += is_forwarded(packet.outcome) ? 1 : 0;
  }

  BurstLab& lab_;
  WorkerState& state_;
  const std::vector<Bytes>& frames_;
  Random random_;
  std::atomic<bool> running_{true};
  std::atomic<std::uint64_t> adopted_{0};
  std::atomic<unsigned> faults_{0};
  std::uint64_t forwarded_ = 0;
  std::thread thread_;
};

ServiceKey random_service(Random& random) {
  return service_key(Protocol::tcp, kVip,
                     static_cast<std::uint16_t>(80 + random() % kServicePorts));
}

// Succeeds or is refused, as the state has it.
void change_something(LabServices& services, Random& random) {
  const ServiceKey key = random_service(random);
  const std::string address = "10.2.0." + std::to_string(1 + random() % kServerNumbers);
  const auto mode = static_cast<ForwardMode>(random() % 3);
  const ServerSpec server = server_spec(address, key.port, mode, static_cast<int>(random() % 4));
  static constexpr const char* kSchedulers[] = {"rr", "wrr", "wlc"};
  ServiceSpec spec;
  spec.key = key;
  spec.scheduler = kSchedulers[random() % 3];
  switch (random() % 16) {
    case 0:
      (void)services.delete_service(key);
      break;
    case 1:
    case 2:
      (void)services.add_service(spec);
      break;
    case 3:
      (void)services.edit_service(spec);
      break;
    case 4:
    case 5:
    case 6:
      (void)services.delete_server(key, server.address, server.port);
      break;
    case 7:
    case 8:
    case 9:
    case 10:
      (void)services.edit_server(key, server);
      break;
    default:
      (void)services.add_server(key, server);
      break;
  }
}

// What a person at the director looks at.
void look_around(const LabServices& services) {
  for (const ServiceListing& service : services.list()) {
    for (const ServerListing& server : service.servers) {
      // No more than the table holds, hence never below zero.
      EXPECT_LE(server.active, 4096U * kWorkers);
      EXPECT_LE(server.inactive, 4096U * kWorkers);
    }
  }
  ConnectionCursor cursor;
  while (services.visit_connections(cursor, 256, [](const ConnectionListing& row) {
    EXPECT_EQ(row.client.to_string(), "10.1.0.1");
  })) {
  }
}

// Nothing is left once services and connections are gone.
void expect_everything_freed(BurstLab& lab) {
  must(lab.services().flush());
  for (unsigned i = 0; i < kWorkers; ++i) {
    WorkerState& worker = lab.worker(i);
    worker.now += 1000 * kTicksPerSecond;
    expire_connections(worker, lab.snapshot(), ~0U);
    EXPECT_EQ(worker.ipv4.size(), 0U);
    for (const ServerLoad& load : worker.own().loads) {
      ASSERT_EQ(load.connections.read(), 0U);
      ASSERT_EQ(load.active.read(), 0U);
    }
  }
  for (int i = 0; i < 4; ++i) lab.settle();
  const Snapshot& snapshot = lab.snapshot();
  const auto expect_empty = [](const auto& slots) {
    for (std::size_t i = 0; i < slots.size(); ++i) ASSERT_EQ(slots[i], nullptr) << i;
  };
  expect_empty(snapshot.services);
  expect_empty(snapshot.servers);
  EXPECT_FALSE(lab.publisher().anything_retired());
}

TEST(Publisher, publishes_100000_times_while_workers_read) {
  constexpr std::uint64_t kVersions = 100'000;
  constexpr std::uint64_t kAhead = 500;  // versions that control gets ahead of the slowest worker
  BurstLab lab({.workers = kWorkers});
  const std::vector<Bytes> frames = client_frames();
  std::vector<std::unique_ptr<WorkerThread>> workers;
  for (unsigned i = 0; i < kWorkers; ++i) {
    workers.push_back(std::make_unique<WorkerThread>(lab, i, frames));
  }
  Random random(1);
  for (unsigned step = 0; lab.snapshot().version < kVersions; ++step) {
    change_something(lab.services(), random);
    if (step % 8 == 0) lab.services().housekeeping();
    if (step % 4096 == 0) look_around(lab.services());
    for (const auto& worker : workers) {
      while (worker->adopted() + kAhead < lab.snapshot().version) std::this_thread::yield();
    }
  }
  for (const auto& worker : workers) {
    worker->stop();
    EXPECT_EQ(worker->faults(), 0U);
    EXPECT_GT(worker->forwarded(), 100U);
  }
  // Slots are used again, not one for every addition.
  EXPECT_LT(lab.services().server_slots(), 4000U);
  EXPECT_LT(lab.services().service_slots(), 200U);
  ASSERT_NO_FATAL_FAILURE(expect_everything_freed(lab));
}

}  // namespace
}  // namespace weir::test
