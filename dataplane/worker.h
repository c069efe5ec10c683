// SPDX-License-Identifier: Apache-2.0
// The poll loop of one worker and the rings between workers, control and the exception path.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/packet_path.h"
#include "dataplane/port.h"
#include "dataplane/publisher.h"
#include "dataplane/ring.h"

struct rte_mbuf;

namespace weir {

// A packet waits for the hardware address of its next hop: make the kernel resolve it.
struct NeighbourMiss {
  IpAddress address;
  std::uint8_t reserved = 0;
  std::uint16_t interface = 0;  // index into Routes::interfaces()
};
static_assert(sizeof(NeighbourMiss) % 4 == 0);

// Everything that crosses threads, by sender and receiver. Each ring has one of either.
class Rings {
 public:
  explicit Rings(unsigned workers);

  unsigned workers() const noexcept { return workers_; }
  // Received frames for the worker that owns their connection.
  Ring<rte_mbuf*>& to_owner(unsigned from, unsigned to) { return *to_owner_[from * workers_ + to]; }
  // Finished frames for the worker that has a transmit queue on their port.
  Ring<rte_mbuf*>& to_transmit(unsigned from, unsigned to) {
    return *to_transmit_[from * workers_ + to];
  }
  // Frames for the kernel, and the kernel's for the wire.
  Ring<rte_mbuf*>& to_kernel(unsigned from) { return *to_kernel_[from]; }
  Ring<rte_mbuf*>& from_kernel(unsigned to) { return *from_kernel_[to]; }
  Ring<NeighbourMiss>& misses(unsigned from) { return *misses_[from]; }

 private:
  using Buffers = std::unique_ptr<Ring<rte_mbuf*>>;
  unsigned workers_;
  std::vector<Buffers> to_owner_;
  std::vector<Buffers> to_transmit_;
  std::vector<Buffers> to_kernel_;
  std::vector<Buffers> from_kernel_;
  std::vector<std::unique_ptr<Ring<NeighbourMiss>>> misses_;
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
  // Loops since the start: a worker that lives moves it. Any thread.
  std::uint64_t heartbeat() const noexcept { return loops_.read(); }
  // Whether a next hop was sent to since the last call with it; control keeps such ones fresh.
  bool take_used(NextHopIndex index) noexcept;

 private:
  struct Waiting {
    Packet packet;
    std::uint32_t since = 0;
  };
  struct TransmitQueue {
    std::array<rte_mbuf*, kMaxBurst * 2> frames;
    unsigned count = 0;
  };
  static constexpr std::size_t kMaxWaiting = 256;
  static constexpr std::size_t kTrackedNextHops = 65536;

  unsigned poll_once() noexcept;
  unsigned receive() noexcept;
  unsigned take_from_rings() noexcept;
  void process(std::span<rte_mbuf*> frames) noexcept;
  void dispatch(Packet& packet) noexcept;
  void transmit(const Packet& packet) noexcept;
  void queue_frame(rte_mbuf* frame) noexcept;
  void flush(std::uint16_t port) noexcept;
  void wait_for_neighbour(Packet& packet) noexcept;
  void retry_waiting() noexcept;
  void drop(rte_mbuf* frame, Outcome reason) noexcept;
  void put_or_drop(Ring<rte_mbuf*>& ring, rte_mbuf* frame, Outcome reason) noexcept;
  void adopt() noexcept;
  void rest(unsigned idle_loops) noexcept;

  WorkerState& state_;
  std::vector<Port> ports_;
  Publisher& publisher_;
  Rings& rings_;
  IdleMode idle_;
  std::atomic<bool> running_{true};
  Counter<std::uint64_t> loops_;
  const Snapshot* snapshot_ = nullptr;
  std::uint64_t adopted_version_ = 0;
  std::vector<TransmitQueue> transmit_queues_;
  std::vector<Waiting> waiting_;  // kMaxWaiting reserved, never more
  std::vector<std::atomic<std::uint8_t>> next_hop_used_;
};

// The workers' clock: ticks since the start of this process, from the TSC.
std::uint32_t current_tick() noexcept;

}  // namespace weir
