// SPDX-License-Identifier: Apache-2.0
// One frame on its way through the packet path: its bytes, what has been learned of them, and where
// it goes. Owned by the worker that processes the burst. Most fields have no value before the step
// that sets them: a burst's packets lie on the stack, and clearing them costs as much as parsing.
#pragma once

#include <cstdint>

#include "dataplane/net/wire_headers.h"
#include "dataplane/path/verdict.h"
#include "dataplane/table/connection.h"
#include "dataplane/table/flow_key.h"
#include "dataplane/table/sctp_states.h"
#include "dataplane/table/service.h"

namespace weir {

// What a packet that opens a connection is under way for, where another worker chooses the real
// server (persistence, lblc): it takes the question there and brings the answer back.
struct Errand {
  enum class Kind : std::uint8_t { none, question, answer };
  Kind kind = Kind::none;
  ServerSlot server = 0;
  std::uint32_t generation = 0;  // of the server's slot
  std::uint32_t controller = kNoController;
};

struct Packet {
  // Set by the caller. Exactly `length` bytes are readable at `frame`, `headroom` writable before
  // it. The largest datagram and its Ethernet header have more than 65,535.
  std::uint8_t* frame;
  void* buffer;  // whose bytes these are; opaque to the packet path
  std::uint32_t length;
  std::uint16_t headroom;
  std::uint16_t port;    // received on; once forwarded: to be sent on
  bool chained = false;  // the buffer has more segments
  Outcome outcome = Outcome::undecided;

  // Set by parse_frame, of the packet as received.
  Family family;           // once encapsulated: of the outer header
  std::uint8_t tcp_flags;  // 0 in all but TCP
  SctpEvent sctp_event;    // of SCTP
  bool begins;             // a connection: SYN, INIT
  std::uint8_t hops_left;  // TTL or hop limit
  bool dont_fragment;
  std::uint8_t* ip = nullptr;  // IP header, null for what is not IP
  std::uint8_t* transport;     // TCP, UDP or SCTP header; ICMP header of an ICMP error
  std::uint32_t ip_length;     // bytes of the IP packet
  // An ICMP error: the key is that of the packet that `quote` (its IP header) starts, turned round,
  // so that it is the key of the error's own direction.
  bool icmp_error = false;
  // Of a fragment; its `transport` is where its payload begins.
  bool more_fragments;
  std::uint16_t fragment_offset;  // bytes
  std::uint8_t* quote;
  union {
    FlowKey<Ipv4Address> ipv4;
    FlowKey<Ipv6Address> ipv6;
  };
  std::uint32_t fragment_id;

  // Set by classification and look-up.
  ServiceSlot service;
  Lookup lookup;
  std::uint32_t connection;
  std::uint16_t owner;  // worker, for Outcome::handed_to_owner
  // Of a packet without a connection (one-packet scheduling): where it goes.
  ServerSlot server;
  // Set by the caller for a packet that comes from another worker.
  Errand errand;

  // Set by routing.
  bool neighbour_known;  // `next_hop` is valid
  // Not zero: leaves as fragments of at most so many bytes of IP packet each.
  std::uint16_t fragment_size = 0;
  // Not zero: came as fragments, the largest an IP packet of so many bytes. Set by reassembly, or
  // by the caller for a packet that comes from another worker.
  std::uint16_t largest_fragment = 0;
  NextHopIndex next_hop;
  // Of a packet that waits for its next hop, whose hardware address is wanted.
  std::uint16_t out_interface;
  IpAddress neighbour;

  // A union member keeps the compiler from making this.
  Packet() noexcept {}  // NOLINT(cppcoreguidelines-pro-type-member-init)

  bool decided() const noexcept { return outcome != Outcome::undecided; }

  template <class Address>
  FlowKey<Address>& key() noexcept {
    if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
      return ipv4;
    } else {
      return ipv6;
    }
  }
  template <class Address>
  const FlowKey<Address>& key() const noexcept {
    return const_cast<Packet*>(this)->key<Address>();
  }
};

}  // namespace weir
