// SPDX-License-Identifier: Apache-2.0
// A director without NIC and threads: the real control model and packet path, driven packet by
// packet with a clock that the test sets. For packet tests, fuzzing and benchmarks.
//
// Its network is that of the recordings: port 0, 10.8.0.254/16 and 2001:db8:8::fe, leads to the
// clients (10.0.0.0/8 and everything else through 10.8.0.1, MAC 02:00:00:00:0c:01), port 1,
// 10.2.0.254/24 and 2001:db8:2::254, to the real servers 10.2.0.N, MAC 02:00:00:00:0d:N.
// 192.0.2.0/24 and 2001:db8:ffff::/64 have no route.
//
// Every frame that leaves is judged (frame_checks.h): a wrong one fails the test.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "control/live/services.h"
#include "dataplane/io/publisher.h"
#include "dataplane/path/packet_path.h"
#include "dataplane/table/table_memory.h"
#include "tests/support/datagram_arena.h"
#include "tests/support/lab_services.h"

namespace weir::test {

// Bytes of a frame with room in front, as a buffer of DPDK has.
class Frame {
 public:
  static constexpr std::size_t kHeadroom = 128;

  explicit Frame(std::span<const std::uint8_t> bytes, std::uint16_t port = 0);
  // The same, exactly as long as its bytes, so that a sanitizer sees a read beyond them.
  Packet packet();

  std::uint16_t port;

 private:
  std::vector<std::uint8_t> storage_;
};

struct Forwarded {
  Outcome outcome = Outcome::undecided;
  std::uint16_t port = 0;
  std::uint16_t owner = 0;          // of what was handed to another worker
  std::vector<std::uint8_t> bytes;  // what leaves, from the Ethernet header on
  // The same as fragments, if it leaves as such.
  std::vector<std::vector<std::uint8_t>> pieces;
  std::uint16_t largest_fragment = 0;  // Packet::largest_fragment
  Errand errand;                       // of what was handed to another worker
};

class BurstLab {
 public:
  struct Shape {
    unsigned workers = 1;
    std::uint32_t capacity = 4096;
    // Of each local address, from kFirstLocalPort on.
    std::uint16_t local_ports = kLastLocalPort - kFirstLocalPort + 1;
    TableMemory::Pages pages = TableMemory::Pages::normal;
    std::uint16_t server_mtu = 1500;
    std::uint16_t client_mtu = 1500;
    std::size_t datagrams = Reassembly::kDatagrams;  // of each worker, under way
    std::uint32_t server_slots = kMaxServers;
    Services::Clock clock = nullptr;  // null: the one that pass_seconds() moves
    std::uint16_t server_vlan = 0;    // 0: untagged
    // Whether fragments make datagrams with right checksums, so that what leaves of these has them.
    bool right_datagrams = true;
  };
  static const MacAddress kClientSideMac;  // of port 0
  static const MacAddress kServerSideMac;  // of port 1
  static constexpr unsigned kServers = 64;
  // Clients come untagged or by this one.
  static constexpr std::uint16_t kClientVlan = 7;

  BurstLab() : BurstLab(Shape{}) {}
  explicit BurstLab(const Shape& shape);
  ~BurstLab();

  LabServices& services() { return *services_; }
  Publisher& publisher() { return *publisher_; }
  WorkerState& worker(unsigned index = 0) { return *states_[index]; }
  const Snapshot& snapshot() { return publisher_->current(); }
  std::uint64_t count(Outcome outcome) const;

  // VIPs of this host; 10.9.0.1 and 2001:db8:9::1 from the start.
  void own(const IpAddress& address);
  void disown(const IpAddress& address);

  // The clock of pass_seconds() starts anew, for labs to come.
  static void restart_clock();
  // Whole seconds pass, with all that expires in them; workers look for it every `step` ticks, of
  // which a second has a multiple.
  void pass_seconds(unsigned seconds, unsigned step = 1);
  // Every worker looks through the connections of real servers that have gone; what it sends.
  std::vector<Forwarded> look_after_gone_servers();
  // A piece of that by the first worker.
  std::vector<Forwarded> one_step_of_gone_servers() { return walk_gone_servers(*states_[0]); }
  // As pass_seconds() does, for one worker.
  void expire_fragments(unsigned worker);
  // What has become of datagrams whose time was over, since the last call.
  std::vector<Forwarded> take_overdue();
  // What a worker does when it meets a version, without pauses.
  static void adopt_whole(WorkerState& worker, const Snapshot& snapshot);
  // Every worker is between two bursts: control may free what was replaced.
  void settle();

  // One frame through `worker`; a datagram that another worker collected comes with its
  // `largest_fragment`.
  Forwarded send(std::span<const std::uint8_t> frame, std::uint16_t port = 0, unsigned worker = 0,
                 std::uint16_t largest_fragment = 0);
  // What was handed to another worker, at that worker.
  Forwarded pass_on(const Forwarded& handed);
  // One frame that `worker` receives, from worker to worker until it is decided, and then what they
  // have to tell each other.
  Forwarded deliver(std::span<const std::uint8_t> frame, std::uint16_t port = 0,
                    unsigned worker = 0);
  void deliver_notices();
  // A burst that the caller has made, for one worker, which may look at an older snapshot.
  void process_burst(std::span<Packet> burst, unsigned worker = 0) {
    process_burst(burst, worker, snapshot());
  }
  void process_burst(std::span<Packet> burst, unsigned worker, const Snapshot& snapshot);
  // For its callers: where the datagrams that it completes lie.
  DatagramArena& datagrams() { return *datagrams_; }

 private:
  struct Arrival {
    std::uint16_t port = 0;
    unsigned worker = 0;
    std::uint16_t largest_fragment = 0;
    Errand errand;
  };
  std::vector<Forwarded> walk_gone_servers(WorkerState& state);
  Forwarded process(std::span<const std::uint8_t> frame, const Arrival& arrival);
  static Forwarded leaving(WorkerState& state, const Packet& packet);
  void judge(const Packet& packet, std::span<const std::uint8_t> received) const;
  std::string fault_on_link(std::span<const std::uint8_t> frame, std::uint16_t port) const;
  void build_network();

  const Shape shape_;
  std::unique_ptr<DatagramArena> datagrams_;
  std::vector<std::unique_ptr<TableMemory>> memories_;
  std::vector<std::unique_ptr<WorkerStatistics>> statistics_;
  std::vector<WorkerStatistics*> statistics_view_;
  std::vector<std::unique_ptr<WorkerState>> owned_states_;
  std::vector<WorkerState*> states_;
  const OwnerMap& owners_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<LabServices> services_;
  class Host;
  std::unique_ptr<Host> host_;
  std::vector<Forwarded> overdue_;
};

}  // namespace weir::test
