// SPDX-License-Identifier: Apache-2.0
// One frame on its way through the packet path: its bytes, what has been learned of them, and where
// it goes. Owned by the worker that processes the burst.
//
//   Arrival   set by the caller, field by field in its place: a packet that is copied makes who
//             reads it wait for the stores
//   Parsed    what the bytes are: set whole by parse_frame, whatever comes of them
//   Course    what the steps after it decide, each for the next ones; begun anew by parse_frame
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
  Family family = Family::ipv4;  // of an answer: of the controller
  ServerSlot server = 0;
  std::uint32_t generation = 0;  // of the server's slot
  std::uint32_t controller = kNoController;
};

// Exactly `length` bytes are readable at `frame`, `headroom` writable before it. The largest
// datagram and its Ethernet header have more than 65,535. Once forwarded: what leaves.
struct Arrival {
  std::uint8_t* frame = nullptr;
  void* buffer = nullptr;  // whose bytes these are; opaque to the packet path
  std::uint32_t length = 0;
  std::uint16_t headroom = 0;
  std::uint16_t port = 0;  // received on; once forwarded: to be sent on
  // Not zero: came as fragments, the largest an IP packet of so many bytes. Set by reassembly, or
  // by the caller for a packet that comes from another worker.
  std::uint16_t largest_fragment = 0;
  bool chained = false;  // the buffer has more segments
  Errand errand;         // of a packet that comes from another worker
};

// Of the packet as received, until it is encapsulated, translated or answered.
struct Parsed {
  std::uint8_t* ip = nullptr;         // IP header, null for what is not IP
  std::uint8_t* transport = nullptr;  // TCP, UDP or SCTP header; ICMP header of an ICMP error
  // An ICMP error: the key is that of the packet that `quote` (its IP header) starts, turned round,
  // so that it is the key of the error's own direction.
  std::uint8_t* quote = nullptr;
  std::uint32_t ip_length = 0;  // bytes of the IP packet
  // Of a fragment; its `transport` is where its payload begins.
  std::uint32_t fragment_id = 0;
  std::uint16_t fragment_offset = 0;  // bytes
  union {
    FlowKey<Ipv4Address> ipv4;
    FlowKey<Ipv6Address> ipv6;
  };
  bool more_fragments = false;
  bool icmp_error = false;
  Family family = Family::ipv4;
  std::uint8_t tcp_flags = 0;              // 0 in all but TCP
  SctpEvent sctp_event = SctpEvent::data;  // of SCTP
  bool begins = false;                     // a connection: SYN, INIT
  std::uint8_t hops_left = 0;              // TTL or hop limit
  bool dont_fragment = false;

  constexpr Parsed() noexcept : ipv6{} {}
};

struct Course {
  Outcome outcome = Outcome::undecided;
  bool neighbour_known = false;  // `next_hop` is valid
  std::uint16_t owner = 0;       // worker, for Outcome::handed_to_owner
  // Not zero: leaves as fragments of at most so many bytes of IP packet each.
  std::uint16_t fragment_size = 0;
  // Of a packet that waits for its next hop, whose hardware address is wanted.
  std::uint16_t out_interface = 0;
  IpAddress neighbour;
  NextHopIndex next_hop = 0;
  ServiceSlot service = 0;
  Lookup lookup{};
  std::uint32_t connection = kNoConnection;
  // Of a packet without a connection (one-packet scheduling): where it goes.
  ServerSlot server = kNoServer;
};

inline constexpr Parsed kNothingParsed;
inline constexpr Course kNothingDecided;

// Of three cache lines, which are in as few pieces as may be made blank.
struct alignas(64) Packet : Arrival, Parsed, Course {
  // All that is known but what arrived. By constants: what is made on the stack for it is made in
  // small pieces, and copied in large ones that wait for them.
  void forget() noexcept {
    static_cast<Parsed&>(*this) = kNothingParsed;
    static_cast<Course&>(*this) = kNothingDecided;
  }

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

static_assert(sizeof(Packet) == 192);

}  // namespace weir
