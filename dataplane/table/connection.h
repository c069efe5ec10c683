// SPDX-License-Identifier: Apache-2.0
// One connection, as it lies in the connection table's mapping.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "dataplane/net/addresses.h"
#include "dataplane/table/sctp_states.h"
#include "dataplane/table/service.h"
#include "dataplane/table/tcp_states.h"

namespace weir {

// Ticks of the workers' clock. 32 bits of them wrap after two years; compare by difference.
inline constexpr std::uint32_t kTicksPerSecond = 64;

enum ConnectionFlags : std::uint16_t {
  kModeMask = 0x0007,        // ForwardMode
  kInactive = 0x0008,        // counted as inactive (IP_VS_CONN_F_INACTIVE)
  kOutputSeen = 0x0010,      // a packet of the server has passed (no IP_VS_CONN_F_NOOUTPUT)
  kReplyIndexed = 0x0020,    // the reply's key is in the table, too
  kReplyHopCached = 0x0040,  // reply_next_hop is valid
  kInUse = 0x0080,           // the place holds a connection
  // A persistence template: `client` is masked, `protocol` is ip and `client_port` holds the number
  // of the service's protocol; `state` says whether it is assured, `packets_in` how many
  // connections it controls.
  kTemplate = 0x0100,
  kAssured = 0x0200,     // its template knows that it is assured
  kProxied = 0x0800,     // each datagram to the server gets a PROXY header
  kTranslated = 0x1000,  // fullnat to a server of the other family: see companion()
  // In the other family's table, found by the replies: `controller` is the connection's index.
  kCompanion = 0x2000,
  kReset = 0x0400,  // its real server is gone, and whatever its ends send is answered by a reset
};

// Whether a packet of the real server has passed.
inline constexpr std::uint8_t kUdpUnanswered = 0;
inline constexpr std::uint8_t kUdpAnswered = 1;

// In place of an index: there is none.
inline constexpr std::uint32_t kNoConnection = 0xffffffffU;
inline constexpr std::uint32_t kNoController = 0xffffffffU;

// 64 bytes for IPv4, 128 for IPv6. Holds indices, never pointers.
// Written by: the owning worker. Read by: control, word by word, for listings.
template <class Address>
struct alignas(64) Connection {
  Address client;
  Address virtual_address;
  Address server;
  Be16 client_port;
  Be16 virtual_port;
  Be16 server_port;
  Protocol protocol;
  std::uint8_t state;  // TcpState or SctpState; of UDP kUdpUnanswered or kUdpAnswered
  std::uint16_t flags;
  std::uint16_t sequence;  // odd while the identity changes
  std::uint32_t deadline;  // ticks
  std::uint32_t wheel_next;
  std::uint32_t wheel_previous;
  ServerSlot server_slot;
  ServiceSlot service_slot;
  std::uint32_t packets_in;
  std::uint32_t controller;      // persistence template: worker 8 bits, index 24 bits
  std::uint32_t reply_next_hop;  // index 20 bits, generation of the routes 12 bits
  Address local;                 // fullnat: the director's own end towards the server
  Be16 local_port;
  std::uint16_t idle_timeout;  // seconds, in place of the settings'; 0: theirs

  ForwardMode mode() const noexcept { return static_cast<ForwardMode>(flags & kModeMask); }
  bool has(ConnectionFlags flag) const noexcept { return (flags & flag) != 0; }
  // Index in the other family's table of what has the addresses towards the server.
  std::uint32_t companion() const noexcept { return load<std::uint32_t>(&local); }
  void set_companion(std::uint32_t index) noexcept {
    std::memcpy(static_cast<void*>(&local), &index, sizeof index);
  }
  TcpState tcp_state() const noexcept { return static_cast<TcpState>(state); }
  SctpState sctp_state() const noexcept { return static_cast<SctpState>(state); }
};
static_assert(sizeof(Connection<Ipv4Address>) == 64);
static_assert(sizeof(Connection<Ipv6Address>) == 128);
static_assert(std::is_trivially_copyable_v<Connection<Ipv6Address>>);

// A field of a connection in the table that control may be reading: relaxed, because each field
// stands for itself and the identity is guarded by `sequence`.
template <class T>
inline void set_field(T& field, std::type_identity_t<T> value) noexcept {
  std::atomic_ref<T>(field).store(value, std::memory_order_relaxed);
}

}  // namespace weir
