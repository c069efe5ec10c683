// SPDX-License-Identifier: Apache-2.0
// One frame on its way through the packet path: its bytes, what has been learned of them, and where
// it goes. Owned by the worker that processes the burst. Most fields have no value before the step
// that sets them: a burst's packets lie on the stack, and clearing them costs as much as parsing.
#pragma once

#include <cstdint>

#include "dataplane/connection.h"
#include "dataplane/flow_key.h"
#include "dataplane/net/wire_headers.h"
#include "dataplane/service.h"
#include "dataplane/verdict.h"

namespace weir {

struct Packet {
  // Set by the caller. Exactly `length` bytes are readable at `frame`, `headroom` writable before
  // it.
  std::uint8_t* frame;
  void* buffer;  // whose bytes these are; opaque to the packet path
  std::uint16_t length;
  std::uint16_t headroom;
  std::uint16_t port;    // received on; once forwarded: to be sent on
  bool chained = false;  // the buffer has more segments
  Outcome outcome = Outcome::undecided;

  // Set by parse_frame, of the packet as received.
  std::uint8_t* ip = nullptr;  // IP header, null for what is not IP
  std::uint8_t* transport;     // TCP or UDP header
  std::uint16_t ip_length;     // bytes of the IP packet
  Family family;               // once encapsulated: of the outer header
  std::uint8_t tcp_flags;
  std::uint8_t hops_left;  // TTL or hop limit
  bool dont_fragment;
  union {
    FlowKey<Ipv4Address> ipv4;
    FlowKey<Ipv6Address> ipv6;
  };

  // Set by classification and look-up.
  ServiceSlot service;
  std::uint32_t connection;
  std::uint16_t owner;  // worker, for Outcome::handed_to_owner

  // Set by routing.
  bool neighbour_known;  // `next_hop` is valid
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
