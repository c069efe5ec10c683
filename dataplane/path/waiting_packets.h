// SPDX-License-Identifier: Apache-2.0
// Packets whose next hop has no hardware address yet: a queue of three for each neighbour, as in
// Linux (arp_queue), of which the oldest gives way.
//
// | bucket -> queue -> queue |  found by (interface, address), a secret hash
// | oldest -> ... -> newest  |  in the order in which their neighbours were first missed
//
// Adding costs the same whoever is missed: one look-up; when all queues are taken, the oldest is
// given up. Queues are looked at when a snapshot may have brought their next hop, a few in each
// loop, and when the oldest one's time is over. Written by: the owning worker, only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "dataplane/path/packet.h"
#include "dataplane/path/rewrite.h"
#include "dataplane/table/owner.h"
#include "dataplane/table/snapshot.h"

namespace weir {

class WaitingPackets {
 public:
  static constexpr std::size_t kQueues = 256;
  static constexpr std::size_t kPackets = 3;  // of each queue
  static constexpr std::size_t kBudget = 32;  // queues that one look() asks about
  static constexpr std::uint32_t kMaxTicks = 3 * kTicksPerSecond;

  explicit WaitingPackets(std::uint64_t seed) noexcept;

  bool empty() const noexcept { return oldest_ == kNone; }

  // Keeps `packet`, which is finished but for its Ethernet header, and calls drop(buffer, outcome)
  // for what gives way to it. The answer is for the caller to set once control has been told of
  // the miss; it is false for a neighbour that was not missed before.
  template <class Drop>
  bool& add(const Packet& packet, std::uint32_t now, Drop&& drop) noexcept;

  // Calls send(packet) for those whose next hop has an address now, drop(buffer, outcome) for those
  // whose time is over.
  template <class Send, class Drop>
  void look(const Snapshot& snapshot, std::uint32_t now, Send&& send, Drop&& drop) noexcept;

  // All are dropped.
  template <class Drop>
  void clear(Drop&& drop) noexcept {
    while (!empty()) give_up(oldest_, Outcome::drop_neighbour_unreachable, drop);
  }

 private:
  using Index = std::uint16_t;
  static constexpr Index kNone = 0xffff;
  static constexpr std::size_t kBuckets = 2 * kQueues;

  // What write_ethernet() and whoever cuts a packet into pieces need of it.
  struct Held {
    std::uint8_t* frame;
    std::uint8_t* ip;
    void* buffer;
    std::uint32_t ip_length;
    std::uint16_t headroom;
    std::uint16_t fragment_size;
    std::uint16_t largest_fragment;
    Family family;
  };
  struct Queue {
    IpAddress neighbour;
    std::uint16_t interface;
    bool next_hop_known;
    bool told;
    std::uint8_t count;
    NextHopIndex next_hop;
    std::uint32_t since;  // the neighbour was first missed
    Index newer;          // also links free queues
    Index older;
    Index next_in_bucket;
    std::array<Held, kPackets> packets;  // [0, count), the oldest first
  };

  Index& bucket_of(std::uint16_t interface, const IpAddress& neighbour) noexcept;
  Index find(const Packet& packet) noexcept;
  Index open(const Packet& packet, std::uint32_t now) noexcept;
  void close(Index index) noexcept;
  static Held held(const Packet& packet) noexcept;
  static Packet packet_of(const Held& held, NextHopIndex next_hop) noexcept;
  static const NextHop* resolved(const Snapshot& snapshot, Queue& queue) noexcept;

  template <class Drop>
  void give_up(Index index, Outcome reason, Drop&& drop) noexcept {
    const Queue& queue = queues_[index];
    for (std::size_t i = 0; i < queue.count; ++i) drop(queue.packets[i].buffer, reason);
    close(index);
  }
  template <class Send, class Drop>
  void try_to_send(const Snapshot& snapshot, Index index, Send&& send, Drop&& drop) noexcept;

  std::uint64_t seed_;
  std::uint64_t version_ = 0;  // of the snapshot that the queues were last compared with
  Index oldest_ = kNone;
  Index newest_ = kNone;
  Index free_ = 0;
  Index unchecked_ = kNone;  // this queue and the newer ones have yet to be compared
  std::array<Index, kBuckets> buckets_;
  std::array<Queue, kQueues> queues_;
};

template <class Drop>
bool& WaitingPackets::add(const Packet& packet, std::uint32_t now, Drop&& drop) noexcept {
  Index index = find(packet);
  if (index == kNone) {
    if (free_ == kNone) give_up(oldest_, Outcome::drop_neighbour_queue_full, drop);
    index = open(packet, now);
  }
  Queue& queue = queues_[index];
  if (queue.count == kPackets) {
    drop(queue.packets.front().buffer, Outcome::drop_neighbour_queue_full);
    std::copy(queue.packets.begin() + 1, queue.packets.end(), queue.packets.begin());
    --queue.count;
  }
  queue.packets[queue.count++] = held(packet);
  queue.next_hop_known = packet.neighbour_known;
  queue.next_hop = packet.next_hop;
  return queue.told;
}

template <class Send, class Drop>
void WaitingPackets::look(const Snapshot& snapshot, std::uint32_t now, Send&& send,
                          Drop&& drop) noexcept {
  if (snapshot.version != version_) {
    version_ = snapshot.version;
    unchecked_ = oldest_;
  }
  for (std::size_t i = 0; i < kBudget && unchecked_ != kNone; ++i) {
    const Index index = unchecked_;
    unchecked_ = queues_[index].newer;
    try_to_send(snapshot, index, send, drop);
  }
  for (std::size_t i = 0; i < kBudget && !empty(); ++i) {
    if (now - queues_[oldest_].since < kMaxTicks) return;
    give_up(oldest_, Outcome::drop_neighbour_unreachable, drop);
  }
}

template <class Send, class Drop>
void WaitingPackets::try_to_send(const Snapshot& snapshot, Index index, Send&& send,
                                 Drop&& drop) noexcept {
  Queue& queue = queues_[index];
  const NextHop* next_hop = resolved(snapshot, queue);
  if (next_hop == nullptr) return;
  for (std::size_t i = 0; i < queue.count; ++i) {
    Packet packet = packet_of(queue.packets[i], queue.next_hop);
    if (write_ethernet(packet, *next_hop)) {
      send(packet);
    } else {
      drop(packet.buffer, Outcome::drop_no_headroom);
    }
  }
  close(index);
}

}  // namespace weir
