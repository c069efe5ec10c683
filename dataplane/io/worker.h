// SPDX-License-Identifier: Apache-2.0
// The poll loop of one worker and the rings between workers, control and the exception path.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/io/exception_interface.h"
#include "dataplane/io/port.h"
#include "dataplane/io/publisher.h"
#include "dataplane/io/ring.h"
#include "dataplane/io/wake_up.h"
#include "dataplane/path/packet_path.h"
#include "dataplane/path/urgency.h"
#include "dataplane/path/waiting_packets.h"

struct rte_mbuf;

namespace weir {

// A packet waits for the hardware address of its next hop: make the kernel resolve it.
struct NeighbourMiss {
  IpAddress address;
  std::uint8_t reserved = 0;
  std::uint16_t interface = 0;  // index into Routes::interfaces()
};
static_assert(sizeof(NeighbourMiss) % 4 == 0);

// A frame for another worker, and what it is under way for.
struct HandedOver {
  rte_mbuf* frame = nullptr;
  Errand errand;
  std::uint16_t largest_fragment = 0;  // Packet's
};

// Of a frame on a ring to the kernel: what becomes of its tag.
void set_tag_for_kernel(rte_mbuf& frame, ExceptionInterface::Tag tag) noexcept;
ExceptionInterface::Tag tag_for_kernel(const rte_mbuf& frame) noexcept;

// Everything that crosses threads, by sender and receiver. Each ring has one of either. What a
// worker puts into another one's rings it announces, so that nobody has to poll those of all.
class Rings {
 public:
  static constexpr unsigned kMaxWorkers = 64;

  explicit Rings(unsigned workers);

  unsigned workers() const noexcept { return workers_; }
  // Received frames for the worker that owns their connection, or chooses its real server.
  Ring<HandedOver>& to_owner(unsigned from, unsigned to) {
    return *to_owner_[from * workers_ + to];
  }
  // Finished frames for the worker that has a transmit queue on their port.
  Ring<rte_mbuf*>& to_transmit(unsigned from, unsigned to) {
    return *to_transmit_[from * workers_ + to];
  }
  // There is something in the rings above, or below among notices, for worker `to`.
  void announce(unsigned from, unsigned to) noexcept {
    // Pairs with the exchange in take_announced(): the rings are filled before.
    doorbells_[to].senders.fetch_or(std::uint64_t{1} << from, std::memory_order_release);
  }
  // Who has announced since the last call, as bits. Worker `to`.
  std::uint64_t take_announced(unsigned to) noexcept {
    std::atomic<std::uint64_t>& senders = doorbells_[to].senders;
    if (senders.load(std::memory_order_relaxed) == 0) return 0;
    return senders.exchange(0, std::memory_order_acquire);
  }
  // Frames for the kernel, a ring for each class, and the kernel's for the wire.
  Ring<rte_mbuf*>& to_kernel(unsigned from, Urgency urgency) {
    return *to_kernel_[from * kUrgencies + static_cast<std::size_t>(urgency)];
  }
  Ring<rte_mbuf*>& from_kernel(unsigned to) { return *from_kernel_[to]; }
  Ring<NeighbourMiss>& misses(unsigned from) { return *misses_[from]; }
  // Control is called to the misses of all workers.
  WakeUp& missed() noexcept { return missed_; }
  // What a worker says about templates of another one.
  Ring<TemplateNotice>& notices(unsigned from, unsigned to) {
    return *notices_[from * workers_ + to];
  }

 private:
  struct alignas(64) Doorbell {
    std::atomic<std::uint64_t> senders{0};
  };
  using Buffers = std::unique_ptr<Ring<rte_mbuf*>>;
  unsigned workers_;
  std::array<Doorbell, kMaxWorkers> doorbells_;
  std::vector<std::unique_ptr<Ring<HandedOver>>> to_owner_;
  std::vector<Buffers> to_transmit_;
  std::vector<Buffers> to_kernel_;
  std::vector<Buffers> from_kernel_;
  std::vector<std::unique_ptr<Ring<NeighbourMiss>>> misses_;
  WakeUp missed_;
  std::vector<std::unique_ptr<Ring<TemplateNotice>>> notices_;
};

enum class IdleMode : std::uint8_t { sleep, busy_poll };

class Worker {
 public:
  // `state` and the rest outlive the worker. Control thread.
  Worker(WorkerState& state, std::vector<Port> ports, Publisher& publisher, Rings& rings,
         IdleMode idle);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Polls until stop(). On the worker's lcore.
  void run() noexcept;
  // Any thread.
  void stop() noexcept { running_.store(false, std::memory_order_relaxed); }
  // Whether a next hop was sent to since the last call with it; control keeps such ones fresh.
  bool take_used(NextHopIndex index) noexcept;

 private:
  struct TransmitQueue {
    std::array<rte_mbuf*, kMaxBurst * 2> frames;
    unsigned count = 0;
  };
  static constexpr std::size_t kTrackedNextHops = 65536;

  unsigned poll_once() noexcept;
  unsigned receive() noexcept;
  unsigned take_from_rings() noexcept;
  unsigned take_from(unsigned sender) noexcept;
  unsigned take_handed_over(unsigned sender) noexcept;
  unsigned take_finished(unsigned sender) noexcept;
  unsigned take_notices(unsigned sender) noexcept;
  void announce_to(unsigned worker) noexcept { announcements_ |= std::uint64_t{1} << worker; }
  void make_announcements() noexcept;
  void send_notices() noexcept;
  void process(std::size_t count) noexcept;
  void expire_fragments() noexcept;
  void dispatch(Packet& packet) noexcept;
  void transmit(const Packet& packet) noexcept;
  template <class Send>
  void send_in_pieces(const Packet& packet, Send&& send) noexcept;
  void queue_frame(rte_mbuf* frame) noexcept;
  void flush(std::uint16_t port) noexcept;
  void wait_for_neighbour(const Packet& packet) noexcept;
  bool tell_of_miss(const Packet& packet) noexcept;
  void look_at_waiting() noexcept;
  void look_after_gone_servers() noexcept;
  void drop(rte_mbuf* frame, Outcome reason) noexcept;
  void hand_over(const Packet& packet) noexcept;
  void hand_to_kernel(Packet& packet) noexcept;
  void queue_for_kernel(rte_mbuf* frame, Urgency urgency, ExceptionInterface::Tag tag) noexcept;
  void adopt() noexcept;
  void rest(unsigned idle_loops) noexcept;

  WorkerState& state_;
  std::vector<Port> ports_;
  Publisher& publisher_;
  Rings& rings_;
  IdleMode idle_;
  std::atomic<bool> running_{true};
  const Snapshot* snapshot_ = nullptr;
  std::uint64_t adopted_version_ = 0;
  std::vector<TransmitQueue> transmit_queues_;
  std::uint64_t senders_ = 0;        // whose rings may hold more, as bits
  std::uint64_t announcements_ = 0;  // to be made, as bits
  WaitingPackets waiting_;
  // Made once: on the stack they would be made anew at each poll.
  std::array<Packet, kMaxBurst> burst_;
  std::array<HandedOver, kMaxBurst> handed_;
  std::vector<std::atomic<std::uint8_t>> next_hop_used_;
};

// The workers' clock: ticks since the start of this process, from the TSC.
std::uint32_t current_tick() noexcept;
// Milliseconds of the same clock; wraps.
std::uint32_t current_millisecond() noexcept;

}  // namespace weir
