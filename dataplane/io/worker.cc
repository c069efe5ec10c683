// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/worker.h"

#include <rte_cycles.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_pause.h>
#include <rte_random.h>
#include <sys/prctl.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <ctime>

#include "dataplane/path/admission.h"
#include "dataplane/path/fragmentation.h"
#include "dataplane/path/persistence.h"

namespace weir {
namespace {

constexpr unsigned kRingPackets = 2048;
constexpr unsigned kLeastRing = 256;
// Of strays few wait: what a flood leaves in the ring is answered late and helps nobody.
constexpr unsigned kRingStrays = 256;
constexpr unsigned kRingMisses = 256;
constexpr unsigned kRingNotices = 1024;
constexpr unsigned kExpiryBudget = 64;  // steps of work per loop
constexpr unsigned kFragmentBudget = 8;
constexpr unsigned kSpinsBeforeSleep = 256;  // empty loops
constexpr unsigned kSleepsBeforeLong = 64;
constexpr long kShortSleepNs = 5'000;
constexpr long kLongSleepNs = 100'000;

// Of a ring between two workers: the more there are, the smaller each one's share.
unsigned capacity_among(unsigned workers) {
  constexpr unsigned kFew = 8;
  const unsigned shares = std::bit_ceil((workers + kFew - 1) / kFew);
  return std::max(kRingPackets / shares, kLeastRing);
}

template <class T>
std::vector<std::unique_ptr<Ring<T>>> make_rings(std::size_t count, unsigned capacity) {
  std::vector<std::unique_ptr<Ring<T>>> rings;
  for (std::size_t i = 0; i < count; ++i) rings.push_back(std::make_unique<Ring<T>>(capacity));
  return rings;
}

std::vector<std::unique_ptr<Ring<rte_mbuf*>>> make_rings_to_kernel(unsigned workers) {
  std::vector<std::unique_ptr<Ring<rte_mbuf*>>> rings;
  for (unsigned worker = 0; worker < workers; ++worker) {
    for (const unsigned capacity : {kRingPackets, kRingPackets, kRingStrays}) {
      rings.push_back(std::make_unique<Ring<rte_mbuf*>>(capacity));
    }
  }
  return rings;
}

void take_in(Packet& packet, rte_mbuf* frame) noexcept {
  packet.frame = rte_pktmbuf_mtod(frame, std::uint8_t*);
  packet.buffer = frame;
  packet.length = frame->pkt_len;
  packet.headroom = rte_pktmbuf_headroom(frame);
  packet.port = frame->port;
  packet.chained = frame->nb_segs != 1;
  packet.largest_fragment = 0;
  packet.errand = {};
}

// Carries what the packet path changed back into the buffer. Only pkt_len has enough bits for the
// largest datagrams; a port never sees these.
rte_mbuf* frame_of(const Packet& packet) noexcept {
  auto* frame = static_cast<rte_mbuf*>(packet.buffer);
  frame->data_off =
      static_cast<std::uint16_t>(packet.frame - static_cast<std::uint8_t*>(frame->buf_addr));
  frame->data_len = static_cast<std::uint16_t>(packet.length);
  frame->pkt_len = packet.length;
  frame->port = packet.port;
  return frame;
}

}  // namespace

std::uint32_t current_tick() noexcept {
  static const std::uint64_t cycles_per_tick = rte_get_tsc_hz() / kTicksPerSecond;
  static const std::uint64_t start = rte_rdtsc();
  return static_cast<std::uint32_t>((rte_rdtsc() - start) / cycles_per_tick);
}

std::uint32_t current_millisecond() noexcept {
  static const std::uint64_t cycles_per_ms = rte_get_tsc_hz() / 1000;
  return static_cast<std::uint32_t>(rte_rdtsc() / cycles_per_ms);
}

// Between threads of weir no other use is made of the field.
void set_tag_for_kernel(rte_mbuf& frame, ExceptionInterface::Tag tag) noexcept {
  frame.vlan_tci = static_cast<std::uint16_t>(tag);
}

ExceptionInterface::Tag tag_for_kernel(const rte_mbuf& frame) noexcept {
  return static_cast<ExceptionInterface::Tag>(frame.vlan_tci);
}

Rings::Rings(unsigned workers)
    : workers_(workers),
      to_owner_(make_rings<HandedOver>(std::size_t{workers} * workers, capacity_among(workers))),
      to_transmit_(make_rings<rte_mbuf*>(std::size_t{workers} * workers, capacity_among(workers))),
      to_kernel_(make_rings_to_kernel(workers)),
      from_kernel_(make_rings<rte_mbuf*>(workers, kRingPackets)),
      misses_(make_rings<NeighbourMiss>(workers, kRingMisses)),
      notices_(make_rings<TemplateNotice>(std::size_t{workers} * workers,
                                          std::min(kRingNotices, capacity_among(workers)))) {
  if (workers > kMaxWorkers) std::abort();
}

Worker::Worker(WorkerState& state, std::vector<Port> ports, Publisher& publisher, Rings& rings,
               IdleMode idle)
    : state_(state),
      ports_(std::move(ports)),
      publisher_(publisher),
      rings_(rings),
      idle_(idle),
      transmit_queues_(ports_.size()),
      waiting_(rte_rand()),
      next_hop_used_(kTrackedNextHops) {}

Worker::~Worker() {
  waiting_.clear([](void* frame, Outcome) { rte_pktmbuf_free(static_cast<rte_mbuf*>(frame)); });
}

bool Worker::take_used(NextHopIndex index) noexcept {
  return index < next_hop_used_.size() &&
         next_hop_used_[index].exchange(0, std::memory_order_relaxed) != 0;
}

void Worker::run() noexcept {
  // Sleeps of microseconds are meant as such.
  prctl(PR_SET_TIMERSLACK, 1);
  publisher_.enter(state_.index);
  unsigned idle_loops = 0;
  std::uint64_t before = rte_rdtsc();
  while (running_.load(std::memory_order_relaxed)) {
    const unsigned work = poll_once();
    publisher_.quiescent(state_.index);
    idle_loops = work == 0 ? idle_loops + 1 : 0;
    if (idle_loops > kSpinsBeforeSleep) rest(idle_loops);
    const std::uint64_t passed = rte_rdtsc() - before;
    before += passed;
    state_.own().cycles.add(passed);
    if (work != 0) state_.own().busy_cycles.add(passed);
  }
  publisher_.leave(state_.index);
}

unsigned Worker::poll_once() noexcept {
  snapshot_ = publisher_.load();
  if (snapshot_->version != adopted_version_) adopt();
  state_.now = current_tick();
  state_.now_ms = current_millisecond();
  const unsigned work = receive() + take_from_rings();
  if (state_.reassembly.under_way() != 0) expire_fragments();
  for (std::uint16_t port = 0; port < ports_.size(); ++port) flush(port);
  expire_connections(state_, *snapshot_, kExpiryBudget);
  if (!state_.notices.empty()) send_notices();
  if (!waiting_.empty()) look_at_waiting();
  if (state_.edits.left != 0) replay_some_edits(state_, *snapshot_);
  if (state_.gone_servers.is_under_way()) look_after_gone_servers();
  if (announcements_ != 0) make_announcements();
  return work;
}

void Worker::adopt() noexcept {
  adopt_snapshot(state_, *snapshot_);
  adopted_version_ = snapshot_->version;
}

void Worker::rest(unsigned idle_loops) noexcept {
  if (idle_ == IdleMode::busy_poll) {
    rte_pause();
    return;
  }
  const bool brief = idle_loops < kSpinsBeforeSleep + kSleepsBeforeLong;
  const timespec pause = {0, brief ? kShortSleepNs : kLongSleepNs};
  nanosleep(&pause, nullptr);
}

unsigned Worker::receive() noexcept {
  unsigned total = 0;
  std::array<rte_mbuf*, kMaxBurst> frames;
  for (std::uint16_t port = 0; port < ports_.size(); ++port) {
    for (std::uint16_t queue = 0; queue < ports_[port].queues(); ++queue) {
      if (queue % state_.workers != state_.index) continue;
      const unsigned count = rte_eth_rx_burst(ports_[port].id(), queue, frames.data(),
                                              static_cast<std::uint16_t>(frames.size()));
      for (unsigned i = 0; i < count; ++i) {
        // From here on a port is weir's number, not DPDK's.
        frames[i]->port = port;
        take_in(burst_[i], frames[i]);
      }
      if (count != 0) process(count);
      total += count;
    }
  }
  return total;
}

void Worker::send_notices() noexcept {
  state_.notices.flush([this](const TemplateNotice& notice) {
    if (rings_.notices(state_.index, notice.owner).put({&notice, 1}) == 0) return false;
    announce_to(notice.owner);
    return true;
  });
}

unsigned Worker::take_from_rings() noexcept {
  unsigned total = 0;
  for (std::uint64_t senders = senders_ | rings_.take_announced(state_.index); senders != 0;
       senders &= senders - 1) {
    total += take_from(static_cast<unsigned>(std::countr_zero(senders)));
  }
  std::array<rte_mbuf*, kMaxBurst> frames;
  const unsigned injected = rings_.from_kernel(state_.index).take(frames);
  for (unsigned i = 0; i < injected; ++i) queue_frame(frames[i]);
  return total + injected;
}

// A burst of each kind, so that the ports and other senders have their turn.
unsigned Worker::take_from(unsigned sender) noexcept {
  // What answers take with them must have room.
  const bool may_answer = state_.notices.has_room_for_burst();
  const unsigned handed = may_answer ? take_handed_over(sender) : 0;
  const unsigned finished = take_finished(sender);
  const unsigned notices = take_notices(sender);
  const std::uint64_t bit = std::uint64_t{1} << sender;
  const bool may_hold_more = !may_answer || std::max({handed, finished, notices}) == kMaxBurst;
  senders_ = may_hold_more ? senders_ | bit : senders_ & ~bit;
  return handed + finished + notices;
}

unsigned Worker::take_handed_over(unsigned sender) noexcept {
  const unsigned count = rings_.to_owner(sender, state_.index).take(handed_);
  for (unsigned i = 0; i < count; ++i) {
    take_in(burst_[i], handed_[i].frame);
    burst_[i].errand = handed_[i].errand;
    burst_[i].largest_fragment = handed_[i].largest_fragment;
  }
  if (count != 0) process(count);
  return count;
}

unsigned Worker::take_finished(unsigned sender) noexcept {
  std::array<rte_mbuf*, kMaxBurst> frames;
  const unsigned count = rings_.to_transmit(sender, state_.index).take(frames);
  for (unsigned i = 0; i < count; ++i) queue_frame(frames[i]);
  return count;
}

unsigned Worker::take_notices(unsigned sender) noexcept {
  std::array<TemplateNotice, kMaxBurst> notices;
  const unsigned count = rings_.notices(sender, state_.index).take(notices);
  for (unsigned i = 0; i < count; ++i) take_notice(state_, notices[i]);
  return count;
}

// Once in a loop and receiver, because each may cost a cache line that another worker has.
void Worker::make_announcements() noexcept {
  for (; announcements_ != 0; announcements_ &= announcements_ - 1) {
    rings_.announce(state_.index, static_cast<unsigned>(std::countr_zero(announcements_)));
  }
}

void Worker::process(std::size_t count) noexcept {
  const auto packets = std::span(burst_).first(count);
  process_burst(state_, *snapshot_, packets);
  for (Packet& packet : packets) dispatch(packet);
}

void Worker::expire_fragments() noexcept {
  const auto room = std::span(burst_).first(kFragmentBudget);
  const std::size_t count = weir::expire_fragments(state_, *snapshot_, room);
  for (Packet& packet : room.first(count)) dispatch(packet);
}

void Worker::dispatch(Packet& packet) noexcept {
  auto* frame = static_cast<rte_mbuf*>(packet.buffer);
  if (is_forwarded(packet.outcome)) {
    transmit(packet);
  } else if (packet.outcome == Outcome::handed_to_owner ||
             packet.outcome == Outcome::handed_to_chooser) {
    hand_over(packet);
  } else if (packet.outcome == Outcome::waiting_for_neighbour) {
    wait_for_neighbour(packet);
  } else if (is_for_kernel(packet.outcome)) {
    hand_to_kernel(packet);
  } else {
    rte_pktmbuf_free(frame);
  }
}

void Worker::transmit(const Packet& packet) noexcept {
  if (packet.next_hop < next_hop_used_.size()) {
    next_hop_used_[packet.next_hop].store(1, std::memory_order_relaxed);
  }
  if ((packet.fragment_size | packet.largest_fragment) != 0) [[unlikely]] {
    send_in_pieces(packet, [this](rte_mbuf* piece) { queue_frame(piece); });
    return;
  }
  queue_frame(frame_of(packet));
}

// What is to be cut, and what lies in a datagram's buffer, leaves in buffers of the port's pool.
template <class Send>
void Worker::send_in_pieces(const Packet& packet, Send&& send) noexcept {
  FragmentCutter cutter(packet, state_.take_fragment_id());
  Outcome lost = cutter.next_length() == 0 ? Outcome::drop_too_big : Outcome::undecided;
  while (const std::size_t length = cutter.next_length()) {
    rte_mbuf* const piece = rte_pktmbuf_alloc(ports_[packet.port].pool());
    if (piece == nullptr) {
      lost = Outcome::drop_no_buffer;
      break;
    }
    char* const bytes = rte_pktmbuf_append(piece, static_cast<std::uint16_t>(length));
    if (bytes == nullptr) {
      rte_pktmbuf_free(piece);
      lost = Outcome::drop_too_big;
      break;
    }
    cutter.write_next(reinterpret_cast<std::uint8_t*>(bytes));
    piece->port = packet.port;
    send(piece);
  }
  auto* const whole = static_cast<rte_mbuf*>(packet.buffer);
  if (lost == Outcome::undecided) {
    rte_pktmbuf_free(whole);
  } else {
    drop(whole, lost);
  }
}

void Worker::queue_frame(rte_mbuf* frame) noexcept {
  const std::uint16_t port = frame->port;
  TransmitQueue& queue = transmit_queues_[port];
  queue.frames[queue.count++] = frame;
  if (queue.count == queue.frames.size()) flush(port);
}

void Worker::flush(std::uint16_t port) noexcept {
  TransmitQueue& queue = transmit_queues_[port];
  if (queue.count == 0) return;
  const Port& device = ports_[port];
  unsigned sent = 0;
  Outcome reason = Outcome::drop_transmit_full;
  if (state_.index < device.queues()) {
    sent = rte_eth_tx_burst(device.id(), static_cast<std::uint16_t>(state_.index),
                            queue.frames.data(), static_cast<std::uint16_t>(queue.count));
  } else {
    const unsigned helper = state_.index % device.queues();
    sent = rings_.to_transmit(state_.index, helper).put({queue.frames.data(), queue.count});
    announce_to(helper);
    reason = Outcome::drop_transmit_ring_full;
  }
  for (unsigned i = sent; i < queue.count; ++i) drop(queue.frames[i], reason);
  queue.count = 0;
}

void Worker::wait_for_neighbour(const Packet& packet) noexcept {
  bool& told = waiting_.add(packet, state_.now, [this](void* frame, Outcome reason) {
    drop(static_cast<rte_mbuf*>(frame), reason);
  });
  if (!told) told = tell_of_miss(packet);
}

// False: control is far behind; the neighbour's next packet tries again.
bool Worker::tell_of_miss(const Packet& packet) noexcept {
  const NeighbourMiss miss{packet.neighbour, 0, packet.out_interface};
  const bool told = rings_.misses(state_.index).put({&miss, 1}) == 1;
  rings_.missed().call();
  return told;
}

void Worker::look_at_waiting() noexcept {
  waiting_.look(
      *snapshot_, state_.now, [this](const Packet& packet) { transmit(packet); },
      [this](void* frame, Outcome reason) { drop(static_cast<rte_mbuf*>(frame), reason); });
  for (std::uint16_t port = 0; port < ports_.size(); ++port) flush(port);
}

void Worker::look_after_gone_servers() noexcept {
  std::array<rte_mbuf*, kMaxBurst> frames;
  if (rte_pktmbuf_alloc_bulk(ports_[0].pool(), frames.data(), kMaxBurst) != 0) return;
  for (std::size_t i = 0; i < kMaxBurst; ++i) take_in(burst_[i], frames[i]);
  const std::size_t used = walk_gone_servers(state_, *snapshot_, burst_);
  for (std::size_t i = 0; i < used; ++i) dispatch(burst_[i]);
  rte_pktmbuf_free_bulk(frames.data() + used, static_cast<unsigned>(kMaxBurst - used));
  for (std::uint16_t port = 0; port < ports_.size(); ++port) flush(port);
}

void Worker::drop(rte_mbuf* frame, Outcome reason) noexcept {
  state_.own().outcomes[static_cast<std::size_t>(reason)].add(1);
  rte_pktmbuf_free(frame);
}

void Worker::hand_over(const Packet& packet) noexcept {
  HandedOver handed;
  // The ring copies words, holes included.
  std::memset(static_cast<void*>(&handed), 0, sizeof handed);
  handed.frame = frame_of(packet);
  handed.errand = packet.errand;
  handed.largest_fragment = packet.largest_fragment;
  if (rings_.to_owner(state_.index, packet.owner).put({&handed, 1}) == 1) {
    announce_to(packet.owner);
    return;
  }
  forget_answer(state_, packet);
  drop(handed.frame, Outcome::drop_owner_ring_full);
}

// The kernel gets a datagram as it came, as fragments.
void Worker::hand_to_kernel(Packet& packet) noexcept {
  const Urgency urgency = urgency_of(packet, *snapshot_->index);
  const auto tag = packet.outcome == Outcome::kernel_foreign_vlan
                       ? ExceptionInterface::Tag::kept
                       : ExceptionInterface::Tag::taken_off;
  if (packet.largest_fragment != 0) [[unlikely]] {
    packet.fragment_size = packet.largest_fragment;
    send_in_pieces(packet, [=, this](rte_mbuf* piece) { queue_for_kernel(piece, urgency, tag); });
    return;
  }
  queue_for_kernel(static_cast<rte_mbuf*>(packet.buffer), urgency, tag);
}

void Worker::queue_for_kernel(rte_mbuf* frame, Urgency urgency,
                              ExceptionInterface::Tag tag) noexcept {
  set_tag_for_kernel(*frame, tag);
  if (rings_.to_kernel(state_.index, urgency).put({&frame, 1}) == 1) return;
  drop(frame, lost(urgency));
}

}  // namespace weir
