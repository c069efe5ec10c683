// SPDX-License-Identifier: Apache-2.0
// A worker that runs, on ring ports: each of the two receives what is sent on it, so that a frame
// which the test hands in goes out, comes back in and is processed. Its network is BurstLab's.
#pragma once

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/io/dpdk_startup.h"
#include "dataplane/io/worker.h"
#include "dataplane/net/wire_headers.h"
#include "tests/support/burst_lab.h"
#include "tests/support/lab_services.h"

namespace weir::test {

class RunningWorker {
 public:
  static constexpr unsigned kMost = 8;  // of them in one process

  explicit RunningWorker(const BurstLab::Shape& shape = {.clock = current_tick})
      : pool_(pool()), lab_(shape), rings_(2) {
    static unsigned made = 0;
    for (unsigned i = 0; i < 2; ++i) {
      const std::string device = "net_ring" + std::to_string(2 * made + i);
      auto port = Port::open({.device = device}, *lab_.worker().owners, pool_);
      must(port.status());
      ports_.push_back(*port);
      rte_eth_add_rx_callback(port->id(), 0, count_received, &received_);
    }
    ++made;
  }
  ~RunningWorker() { stop(); }

  BurstLab& lab() { return lab_; }
  Rings& rings() { return rings_; }
  rte_mempool* buffers() { return pool_; }

  // Services are to be there by now.
  void start() {
    worker_ = std::make_unique<Worker>(lab_.worker(), ports_, lab_.publisher(), rings_,
                                       IdleMode::busy_poll);
    thread_ = std::thread([this] { worker_->run(); });
  }
  void stop() {
    if (worker_ == nullptr) return;
    worker_->stop();
    thread_.join();
    worker_.reset();
  }

  // As if another worker had sent it out. False: there is no room for it yet; a part of the ring is
  // for what the worker itself sends.
  bool receive(std::span<const std::uint8_t> bytes, std::uint16_t port = 0) {
    std::array<rte_mbuf*, 1> frame;
    return receive_copies(bytes, port, frame) == 1;
  }
  // As many of the same as there is room for, at most kMaxBurst.
  unsigned receive_many(std::span<const std::uint8_t> bytes, std::uint16_t port = 0) {
    std::array<rte_mbuf*, kMaxBurst> frames;
    return receive_copies(bytes, port, frames);
  }

 private:
  unsigned receive_copies(std::span<const std::uint8_t> bytes, std::uint16_t port,
                          std::span<rte_mbuf*> frames) {
    constexpr unsigned kMostUnderWay = 768;
    const auto count = static_cast<unsigned>(frames.size());
    if (put_ - received_.load(std::memory_order_relaxed) + count > kMostUnderWay) return 0;
    if (rte_pktmbuf_alloc_bulk(pool_, frames.data(), count) != 0) return 0;
    const auto length = static_cast<std::uint16_t>(bytes.size());
    for (rte_mbuf* frame : frames) {
      std::memcpy(rte_pktmbuf_append(frame, length), bytes.data(), length);
      frame->port = port;
    }
    const unsigned taken = rings_.to_transmit(1, 0).put(frames);
    rings_.announce(1, 0);
    put_ += taken;
    rte_pktmbuf_free_bulk(frames.data() + taken, count - taken);
    return taken;
  }

  // Of what the test has handed in.
  static std::uint16_t count_received(std::uint16_t, std::uint16_t, rte_mbuf** frames,
                                      std::uint16_t count, std::uint16_t, void* received) {
    unsigned from_test = 0;
    for (unsigned i = 0; i < count; ++i) {
      const auto ethernet = load<EthernetHeader>(rte_pktmbuf_mtod(frames[i], const std::uint8_t*));
      const bool own = ethernet.source == BurstLab::kClientSideMac ||
                       ethernet.source == BurstLab::kServerSideMac;
      from_test += own ? 0 : 1;
    }
    static_cast<std::atomic<unsigned>*>(received)->fetch_add(from_test, std::memory_order_relaxed);
    return count;
  }

  static rte_mempool* pool() {
    static rte_mempool* const only = [] {
      EalPlan plan;
      plan.lcores = "0@0,1@0";
      plan.huge_pages = false;
      plan.megabytes = 256;
      for (unsigned i = 0; i < 2 * kMost; ++i) {
        plan.devices.push_back("--vdev=net_ring" + std::to_string(i));
      }
      must(start_eal(plan));
      auto made = make_buffer_pool(16383, 1500);
      must(made.status());
      return *made;
    }();
    return only;
  }

  rte_mempool* pool_;  // made first: the clock needs the EAL
  BurstLab lab_;
  Rings rings_;
  std::vector<Port> ports_;
  unsigned put_ = 0;
  std::atomic<unsigned> received_{0};
  std::unique_ptr<Worker> worker_;
  std::thread thread_;
};

// Whether `condition` holds within ten seconds.
inline bool wait_for(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

}  // namespace weir::test
