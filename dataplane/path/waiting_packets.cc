// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/waiting_packets.h"

#include "dataplane/net/mix.h"

namespace weir {

WaitingPackets::WaitingPackets(std::uint64_t seed) noexcept : seed_(seed) {
  buckets_.fill(kNone);
  for (std::size_t i = 0; i < kQueues; ++i) {
    queues_[i].newer = i + 1 < kQueues ? static_cast<Index>(i + 1) : kNone;
  }
}

WaitingPackets::Index& WaitingPackets::bucket_of(std::uint16_t interface,
                                                 const IpAddress& neighbour) noexcept {
  const auto low = load<std::uint64_t>(neighbour.bytes().data());
  const auto high = load<std::uint64_t>(neighbour.bytes().data() + 8);
  // Secret, so that no sender finds addresses that share a bucket.
  const std::uint64_t inner = multiply_mix(low ^ seed_, high ^ ~seed_ ^ interface);
  return buckets_[multiply_mix(inner, seed_ | 1U) % kBuckets];
}

WaitingPackets::Index WaitingPackets::find(const Packet& packet) noexcept {
  Index index = bucket_of(packet.out_interface, packet.neighbour);
  while (index != kNone && (queues_[index].neighbour != packet.neighbour ||
                            queues_[index].interface != packet.out_interface)) {
    index = queues_[index].next_in_bucket;
  }
  return index;
}

WaitingPackets::Index WaitingPackets::open(const Packet& packet, std::uint32_t now) noexcept {
  const Index index = free_;
  Queue& queue = queues_[index];
  free_ = queue.newer;
  Index& bucket = bucket_of(packet.out_interface, packet.neighbour);
  queue.neighbour = packet.neighbour;
  queue.interface = packet.out_interface;
  queue.told = false;
  queue.count = 0;
  queue.since = now;
  queue.next_in_bucket = bucket;
  bucket = index;
  queue.older = newest_;
  queue.newer = kNone;
  (newest_ == kNone ? oldest_ : queues_[newest_].newer) = index;
  newest_ = index;
  return index;
}

void WaitingPackets::close(Index index) noexcept {
  Queue& queue = queues_[index];
  if (unchecked_ == index) unchecked_ = queue.newer;
  (queue.older == kNone ? oldest_ : queues_[queue.older].newer) = queue.newer;
  (queue.newer == kNone ? newest_ : queues_[queue.newer].older) = queue.older;
  Index* link = &bucket_of(queue.interface, queue.neighbour);
  while (*link != index) link = &queues_[*link].next_in_bucket;
  *link = queue.next_in_bucket;
  queue.newer = free_;
  free_ = index;
}

WaitingPackets::Held WaitingPackets::held(const Packet& packet) noexcept {
  return {packet.frame,
          packet.ip,
          packet.buffer,
          packet.ip_length,
          packet.headroom,
          packet.fragment_size,
          packet.largest_fragment,
          packet.family};
}

Packet WaitingPackets::packet_of(const Held& held, NextHopIndex next_hop) noexcept {
  Packet packet;
  packet.frame = held.frame;
  packet.ip = held.ip;
  packet.buffer = held.buffer;
  packet.ip_length = held.ip_length;
  packet.headroom = held.headroom;
  packet.fragment_size = held.fragment_size;
  packet.largest_fragment = held.largest_fragment;
  packet.family = held.family;
  packet.neighbour_known = true;
  packet.next_hop = next_hop;
  return packet;
}

// On link, the neighbour is the destination itself, which gets a next hop once control has been
// told of it; a gateway has had one all along.
const NextHop* WaitingPackets::resolved(const Snapshot& snapshot, Queue& queue) noexcept {
  const Routes& routes = *snapshot.routes;
  const auto stands_for = [&](NextHopIndex index) {
    return index < Routes::kMaxNextHops && routes.next_hop(index).used &&
           routes.next_hop(index).address == queue.neighbour;
  };
  if (!queue.next_hop_known || !stands_for(queue.next_hop)) {
    const Routes::Decision decision = routes.find(queue.neighbour, path_hash(queue.neighbour));
    queue.next_hop_known = decision.answer == Routes::Answer::found;
    queue.next_hop = decision.next_hop;
    if (!queue.next_hop_known || !stands_for(queue.next_hop)) return nullptr;
  }
  const NextHop& next_hop = routes.next_hop(queue.next_hop);
  return next_hop.resolved ? &next_hop : nullptr;
}

}  // namespace weir
