// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/exception_path.h"

#include <poll.h>
#include <rte_mbuf.h>

#include <array>
#include <utility>

namespace weir {
namespace {

// Workers cannot wake the thread without a system call, so it looks at their rings this often.
constexpr int kIdleWaitMs = 1;
constexpr unsigned kFramesPerTurn = 64;  // of one interface, so that no interface starves another

}  // namespace

ExceptionPath::ExceptionPath(std::vector<std::unique_ptr<ExceptionInterface>> interfaces,
                             std::vector<ExceptionInterface::Use> uses, Rings& rings,
                             rte_mempool* pool)
    : interfaces_(std::move(interfaces)),
      uses_(std::move(uses)),
      rings_(rings),
      pool_(pool),
      thread_([this] { run(); }) {}

ExceptionPath::~ExceptionPath() {
  running_.store(false, std::memory_order_relaxed);
  thread_.join();
}

void ExceptionPath::run() noexcept {
  std::vector<pollfd> descriptors;
  for (const auto& interface : interfaces_) descriptors.push_back({interface->fd(), POLLIN, 0});
  while (running_.load(std::memory_order_relaxed)) {
    const unsigned moved = pass_to_kernel() + pass_to_wire();
    if (moved == 0) poll(descriptors.data(), descriptors.size(), kIdleWaitMs);
  }
}

unsigned ExceptionPath::pass_to_kernel() noexcept {
  std::array<rte_mbuf*, kMaxBurst> frames;
  unsigned total = 0;
  for (unsigned worker = 0; worker < rings_.workers(); ++worker) {
    const unsigned count = rings_.to_kernel(worker).take(frames);
    for (unsigned i = 0; i < count; ++i) {
      const auto* bytes = rte_pktmbuf_mtod(frames[i], const std::uint8_t*);
      const auto result = interfaces_[frames[i]->port]->write({bytes, frames[i]->data_len});
      (result == ExceptionInterface::Transfer::done ? counters_.to_kernel
                                                    : counters_.lost_to_kernel)
          .add(1);
    }
    rte_pktmbuf_free_bulk(frames.data(), count);
    total += count;
  }
  return total;
}

unsigned ExceptionPath::pass_to_wire() noexcept {
  unsigned total = 0;
  for (std::uint16_t port = 0; port < interfaces_.size(); ++port) {
    for (unsigned i = 0; i < kFramesPerTurn && read_one(port); ++i) ++total;
  }
  return total;
}

// False: the kernel has nothing more for this port.
bool ExceptionPath::read_one(std::uint16_t port) noexcept {
  rte_mbuf* frame = rte_pktmbuf_alloc(pool_);
  std::array<std::uint8_t, 64> nowhere;
  auto* bytes = frame != nullptr ? rte_pktmbuf_mtod(frame, std::uint8_t*) : nowhere.data();
  const std::size_t room = frame != nullptr ? rte_pktmbuf_tailroom(frame) : nowhere.size();
  const auto received = interfaces_[port]->read({bytes, room});
  if (received.result != ExceptionInterface::Transfer::done) {
    rte_pktmbuf_free(frame);
    return false;
  }
  if (frame == nullptr) {
    counters_.lost_from_kernel.add(1);
    return true;
  }
  frame->data_len = static_cast<std::uint16_t>(received.length);
  frame->pkt_len = static_cast<std::uint32_t>(received.length);
  frame->port = port;
  // What the kernel sends into an injection-only interface is noise.
  const bool wanted = uses_[port] == ExceptionInterface::Use::full;
  if (wanted && rings_.from_kernel(0).put({&frame, 1}) == 1) {
    counters_.from_kernel.add(1);
    return true;
  }
  if (wanted) counters_.lost_from_kernel.add(1);
  rte_pktmbuf_free(frame);
  return true;
}

}  // namespace weir
