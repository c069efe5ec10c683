// SPDX-License-Identifier: Apache-2.0
// The last step of a packet's way: where it goes, whether it may, and how it is rewritten. Each
// function sets the outcome, and for what leaves the next hop; the Ethernet header follows later.
// Worker thread.
#pragma once

#include <cstdint>

#include "dataplane/packet.h"
#include "dataplane/snapshot.h"
#include "dataplane/worker_state.h"

namespace weir {

inline void count_packet(WorkerState& worker, ServerSlot slot, Direction direction,
                         const Packet& packet) noexcept {
  ServerCounters& counters = worker.own().servers[slot];
  if (direction == Direction::inbound) {
    counters.packets_in.add(1);
    counters.bytes_in.add(packet.ip_length);
  } else {
    counters.packets_out.add(1);
    counters.bytes_out.add(packet.ip_length);
  }
}

// A packet of packet.connection, in its direction.
template <class Address>
void forward(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// A datagram that was scheduled alone, or the answer to one: packet.server.
template <class Address>
void forward_alone(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// A reply of Address's family for the connection `index` of the other one (NAT64).
template <class Address>
void forward_translated(WorkerState& worker, const Snapshot& snapshot, Packet& packet,
                        std::uint32_t index) noexcept;

// An ICMP error about packet.connection; counted with it.
template <class Address>
void forward_error(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// A packet of a service that nobody may serve (ip_vs_leave).
template <class Address>
void refuse(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// An ICMP error of weir's own back to the packet's sender; `unanswered` is the outcome where none
// can be sent. `mtu` counts for too_big.
template <class Address>
void answer(WorkerState& worker, const Snapshot& snapshot, Packet& packet, IcmpError error,
            std::uint16_t mtu, Outcome unanswered) noexcept;

// A TCP reset back to the packet's sender; the outcome stays where none can be sent.
template <class Address>
void reset_sender(const Snapshot& snapshot, Packet& packet) noexcept;

// What a router says about the size of a tunnel's packets, if the ICMP error `packet` is that.
void learn_path_mtu(WorkerState& worker, const Snapshot& snapshot, const Packet& packet) noexcept;

// The way to `destination`. False: there is none through weir's ports.
bool route(const Snapshot& snapshot, Packet& packet, const IpAddress& destination) noexcept;

}  // namespace weir
