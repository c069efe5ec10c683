// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/exception_path.h"

#include <poll.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace weir {
namespace {

// Workers cannot wake the thread without a system call, so it looks at their rings this often.
constexpr int kIdleWaitMs = 1;
constexpr unsigned kLinkFramesPerTurn = 1024;
// Of each other class, and from one interface: none starves another, and what the kernel answers is
// fetched before its queue is full.
constexpr unsigned kFramesPerTurn = 64;

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

unsigned StrayBudget::available(std::uint32_t now) noexcept {
  constexpr unsigned kPerMillisecond = kPerSecond / 1000;
  const std::uint32_t passed = std::min<std::uint32_t>(now - refilled_, kBurst);
  refilled_ = now;
  tokens_ = std::min(tokens_ + passed * kPerMillisecond, kBurst);
  return tokens_;
}

unsigned ExceptionPath::pass_to_kernel() noexcept {
  const unsigned urgent = pass_to_kernel(Urgency::link, kLinkFramesPerTurn);
  const unsigned own = pass_to_kernel(Urgency::host, kFramesPerTurn);
  const unsigned most = std::min(strays_.available(current_millisecond()), kFramesPerTurn);
  const unsigned strays = pass_to_kernel(Urgency::stray, most);
  strays_.spend(strays);
  first_worker_ = (first_worker_ + 1) % rings_.workers();
  return urgent + own + strays;
}

unsigned ExceptionPath::pass_to_kernel(Urgency urgency, unsigned most) noexcept {
  unsigned total = 0;
  for (unsigned i = 0; i < rings_.workers() && total < most; ++i) {
    const unsigned worker = (first_worker_ + i) % rings_.workers();
    total += pass_to_kernel(worker, urgency, most - total);
  }
  return total;
}

unsigned ExceptionPath::pass_to_kernel(unsigned worker, Urgency urgency, unsigned most) noexcept {
  std::array<rte_mbuf*, kMaxBurst> frames;
  unsigned total = 0;
  while (total < most) {
    const auto room = std::min<std::size_t>(frames.size(), most - total);
    const unsigned count = rings_.to_kernel(worker, urgency).take(std::span(frames).first(room));
    for (unsigned i = 0; i < count; ++i) {
      const auto* bytes = rte_pktmbuf_mtod(frames[i], const std::uint8_t*);
      const auto result = interfaces_[frames[i]->port]->write({bytes, frames[i]->data_len},
                                                              tag_for_kernel(*frames[i]));
      (result == ExceptionInterface::Transfer::done ? counters_.to_kernel
                                                    : counters_.lost_to_kernel)
          .add(1);
    }
    rte_pktmbuf_free_bulk(frames.data(), count);
    total += count;
    if (count < room) break;
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
  // No buffer, or a frame that fills it and was cut.
  if (frame == nullptr || received.length == room) {
    counters_.lost_from_kernel.add(1);
    rte_pktmbuf_free(frame);
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
