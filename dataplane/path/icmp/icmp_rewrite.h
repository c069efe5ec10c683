// SPDX-License-Identifier: Apache-2.0
// ICMP errors about connections whose addresses weir rewrites (nat, fullnat): the error itself and
// the packet that it quotes become what the receiver knows, so that it finds its socket. In dr and
// tun the client's packet is quoted as it was, and an error passes untouched.
//
//   to the client:  VIP -> client      [ client:port -> VIP:port       | ... ]
//   to the server:  router -> server   [ server:port -> client:port    | ... ]  nat
//                   local -> server    [ server:port -> local:port     | ... ]  fullnat
//
// Checksums: ICMP's is computed anew (parse_frame has verified it); the quoted ones are updated
// incrementally, where they are quoted, so that a wrong one stays wrong and none stays none.
// Source: ip_vs_nat_icmp (ip_vs_core.c), RFC 5508 section 4. Worker thread.
#pragma once

#include <cstdint>

#include "dataplane/net/checksum.h"
#include "dataplane/path/icmp/icmp_quote.h"
#include "dataplane/path/packet.h"
#include "dataplane/table/connection.h"

namespace weir {

template <class Address>
struct QuoteRewrite {
  Address sender;    // of the error
  Address receiver;  // of the error, and sender of the quoted packet
  Address peer;      // whom the quoted packet was for
  Be16 receiver_port;
  Be16 peer_port;
  // Added to the sequence number of a quoted TCP segment: what has been put in front of the
  // receiver's bytes is taken back (client_sequence() in client_address.h).
  std::uint32_t sequence_change = 0;
  // Bytes that weir adds to the receiver's packets: a reported MTU is lowered by them.
  std::uint16_t growth = 0;
  bool proxied = false;  // a quoted datagram has a PROXY header, which is taken out
};

// An error of the reply's direction, from a real server or from a router on the way to it.
template <class Address>
QuoteRewrite<Address> error_to_client(const Connection<Address>& connection) noexcept {
  return {.sender = connection.virtual_address,
          .receiver = connection.client,
          .peer = connection.virtual_address,
          .receiver_port = connection.client_port,
          .peer_port = connection.virtual_port};
}

// An inbound error, from a client or from a router on the way to it; `sender` is its source.
template <class Address>
QuoteRewrite<Address> error_to_server(const Connection<Address>& connection,
                                      const Address& sender) noexcept {
  const bool fullnat = connection.mode() == ForwardMode::fullnat;
  return {.sender = fullnat ? connection.local : sender,
          .receiver = connection.server,
          .peer = fullnat ? connection.local : connection.client,
          .receiver_port = connection.server_port,
          .peer_port = fullnat ? connection.local_port : connection.client_port};
}

// The source of an error: its key speaks of the quoted packet.
template <class Address>
Address error_sender(const Packet& packet) noexcept;

// The sequence number that an error quotes, host order; 0 where it quotes no TCP.
template <class Address>
std::uint32_t quoted_sequence(const Packet& packet) noexcept;

// `packet` is an error that parse_frame has left undecided.
template <class Address>
void rewrite_quote(Packet& packet, const QuoteRewrite<Address>& to) noexcept;

// For translate.cc: what the above consists of.

// Returns its bytes, 0: there is none (remove_proxy_header in client_address.h).
template <class Address>
std::uint16_t remove_quoted_proxy_header(Quote& quote, const QuoteRewrite<Address>& to) noexcept;

// Ports and checksum of a packet that may be cut off; `addresses` is what has changed in its IP
// header. A UDP checksum of zero stays.
struct TransportRewrite {
  Be16 source_port;
  Be16 destination_port;
  std::uint32_t sequence_change = 0;
};
void rewrite_transport(const Quote& packet, ChecksumDelta addresses,
                       const TransportRewrite& to) noexcept;

// Of an ICMP message that ends with the IP packet.
template <class Address>
void compute_icmp_checksum(Packet& packet) noexcept;

}  // namespace weir
