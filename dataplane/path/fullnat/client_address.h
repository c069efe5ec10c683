// SPDX-License-Identifier: Apache-2.0
// Telling a fullnat real server who the client is: TOA or PROXY protocol v2.
//
// TOA, TCP only: option 254 with the client's port and address, on SYN and on the client's segments
// until the server shows that its socket is established (the toa kernel module reads the segment
// that completes the handshake). A client's own option 254 is taken out, or it could pose as
// anybody. Skipped where the options or the MTU leave no room.
// PROXY v2 (haproxy's proxy-protocol.txt, section 2.2) over UDP: a header in each datagram.
// PROXY v2 over TCP: a header in front of the first byte. In the server's numbering it lies where
// the client's first byte lies in the client's, and all that follows is shifted by its length:
//
//   client's numbers   ISN | ISN+1 data ...                       the SYN carries no data on
//   server's numbers   ISN | ISN+1 header | ISN+1+h data ...      (what TCP Fast Open sends)
//
// Each segment at ISN+1 carries the header, the handshake's ACK and a bare FIN or RST too, until
// the server has acknowledged it. Towards the client acknowledgements, SACK edges and the window
// are shifted back, however far the stream has come since.
// Nothing that a client sends can reach the header's place: what lies before it goes, and one
// connection has one ISN, or a client could offer SYN cookies' servers two and choose the place.
//
// All take a parsed packet, in either order with the rewriting of addresses; headers move into the
// headroom, the payload stays. Checksums are updated incrementally: a wrong one stays wrong, UDP's
// zero stays zero. Worker thread.
#pragma once

#include <cstdint>

#include "dataplane/net/addresses.h"
#include "dataplane/path/icmp/icmp_quote.h"
#include "dataplane/path/packet.h"
#include "dataplane/path/verdict.h"
#include "dataplane/table/sequence_shift.h"
#include "dataplane/table/service.h"

namespace weir {

// Both ends as the client sees them, of one family, whatever the real server's.
struct ClientEnds {
  IpAddress client;
  IpAddress virtual_address;
  Be16 client_port;
  Be16 virtual_port;
};

// For the packet that opens a connection. Without a SYN (sloppy_tcp) nobody knows where the
// client's bytes begin: nothing to tell.
SequenceShift begin_shift(const Packet& packet, ClientAddress how, Family client) noexcept;

// Every TCP packet of a connection with an active shift. `mtu` is that of the way to the server;
// where the header does not fit the segment loses its last bytes, which the client sends again.
// Outcome::undecided: go on; else drop_no_headroom or drop_too_big, and the packet is unchanged.
[[nodiscard]] Outcome pass_to_server(Packet& packet, SequenceShift& shift, const ClientEnds& ends,
                                     std::uint16_t mtu) noexcept;
// False: not for the client, to be dropped: a SYN-ACK for another ISN than the connection's.
[[nodiscard]] bool pass_to_client(Packet& packet, SequenceShift& shift) noexcept;

// A client's SYN that wants a connection of its own, from another local port: with another ISN,
// while the server has not been told. Asked before pass_to_server.
bool starts_anew(const Packet& packet, const SequenceShift& shift) noexcept;

// A UDP datagram gets its header. The caller fragments what is now too big.
// Outcome::undecided: go on; else drop_no_headroom or drop_too_big (too long for IP).
[[nodiscard]] Outcome prepend_proxy_header(Packet& packet, const ClientEnds& ends) noexcept;

// Takes the header out of a datagram to the server, as far as that is quoted, and what it added to
// the datagram's length and checksum. The lengths in the quoted IP header are the caller's. Returns
// the header's bytes; 0, and the quote unchanged: the datagram cannot have had one.
std::uint16_t remove_proxy_header(Quote& quote, const ClientEnds& ends) noexcept;

// Bytes that the next packet to the server may grow by. An MTU that an ICMP error reports to the
// client is to be lowered by it.
constexpr std::uint16_t growth(const SequenceShift& shift) noexcept {
  return shift.told != Told::no ? std::uint16_t{0} : std::uint16_t{shift.bytes};
}
constexpr std::uint16_t proxy_header_bytes(Family client) noexcept {
  return client == Family::ipv4 ? 28 : 52;
}

// The largest MSS that leaves room for what is added, on a way of this MTU.
constexpr std::uint16_t largest_mss(const SequenceShift& shift, Family server,
                                    std::uint16_t mtu) noexcept {
  const unsigned headers = (server == Family::ipv4 ? 20U : 40U) + 20U + shift.bytes;
  return static_cast<std::uint16_t>(mtu > headers ? mtu - headers : 0U);
}
// Lowers the MSS option of a SYN or SYN-ACK, where there is one. Other packets stay as they are.
void clamp_mss(Packet& packet, std::uint16_t largest) noexcept;

// A sequence number in a packet that went to the server, as the client counts: of the segment that
// an ICMP error quotes.
constexpr std::uint32_t client_sequence(const SequenceShift& shift, std::uint32_t server) noexcept {
  if (shift.how != ClientAddress::proxy) return server;
  if (shift.told == Told::long_ago) return server - shift.bytes;
  const std::uint32_t offset = server - shift.client_first;
  if ((offset >> 31U) != 0) return server;
  return shift.client_first + (offset > shift.bytes ? offset - shift.bytes : 0);
}

}  // namespace weir
