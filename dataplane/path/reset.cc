// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/reset.h"

#include <cstring>

#include "dataplane/net/checksum.h"
#include "dataplane/net/crc32c.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

constexpr std::uint8_t kHops = 64;

// ---- TCP ----

// Sequence numbers that the segment takes up.
std::uint32_t extent(const Packet& packet, const TcpHeader& tcp) noexcept {
  const auto headers = static_cast<std::uint32_t>(packet.transport - packet.ip);
  const std::uint32_t data = packet.ip_length - headers - tcp.header_bytes();
  return data + ((tcp.flags & TcpHeader::kSyn) != 0 ? 1U : 0U) +
         ((tcp.flags & TcpHeader::kFin) != 0 ? 1U : 0U);
}

std::uint64_t pseudo_header(const Packet& packet) noexcept {
  return packet.family == Family::ipv4
             ? pseudo_header_sum(packet.ipv4.destination, packet.ipv4.source, Protocol::tcp,
                                 sizeof(TcpHeader))
             : pseudo_header_sum(packet.ipv6.destination, packet.ipv6.source, Protocol::tcp,
                                 sizeof(TcpHeader));
}

TcpHeader reset_for(const Packet& packet, const TcpHeader& tcp) noexcept {
  TcpHeader reset{};
  reset.source_port = tcp.destination_port;
  reset.destination_port = tcp.source_port;
  reset.data_offset = sizeof(TcpHeader) / 4 << 4;
  reset.flags = TcpHeader::kRst;
  if ((tcp.flags & TcpHeader::kAck) != 0) {
    reset.sequence = tcp.acknowledgement;
  } else {
    reset.flags |= TcpHeader::kAck;
    reset.acknowledgement = Be32::from_host(tcp.sequence.host() + extent(packet, tcp));
  }
  reset.checksum = checksum_finish(checksum_add(&reset, sizeof reset, pseudo_header(packet)));
  return reset;
}

TcpHeader probe_for(const Packet& packet) noexcept {
  const bool ipv4 = packet.family == Family::ipv4;
  TcpHeader probe{};
  probe.source_port = ipv4 ? packet.ipv4.destination_port : packet.ipv6.destination_port;
  probe.destination_port = ipv4 ? packet.ipv4.source_port : packet.ipv6.source_port;
  probe.data_offset = sizeof(TcpHeader) / 4 << 4;
  probe.flags = TcpHeader::kAck;
  probe.window = Be16::from_host(0xffff);
  probe.checksum = checksum_finish(checksum_add(&probe, sizeof probe, pseudo_header(packet)));
  return probe;
}

// ---- SCTP ----

struct SctpAbort {
  SctpHeader sctp;
  SctpChunkHeader chunk;
};
static_assert(sizeof(SctpAbort) == 16);

constexpr std::uint8_t kAbortChunk = 6;
// The verification tag is the one that the receiver itself sends, for want of its own.
constexpr std::uint8_t kTagReflected = 1;
constexpr std::uint32_t kCrcBegin = 0xffffffffU;

// An INIT carries no tag, but says by which one its sender wants to be spoken to.
bool has_initiate_tag(const Packet& packet) noexcept {
  const auto headers = static_cast<std::size_t>(packet.transport - packet.ip);
  return packet.sctp_event == SctpEvent::init &&
         packet.ip_length >= headers + sizeof(SctpAbort) + sizeof(Be32);
}

SctpAbort abort_for(const Packet& packet, const SctpHeader& sctp) noexcept {
  SctpAbort abort{};
  abort.sctp.source_port = sctp.destination_port;
  abort.sctp.destination_port = sctp.source_port;
  abort.chunk.type = kAbortChunk;
  abort.chunk.length = Be16::from_host(sizeof abort.chunk);
  if (has_initiate_tag(packet)) {
    abort.sctp.verification_tag = load<Be32>(packet.transport + sizeof(SctpAbort));
  } else {
    abort.sctp.verification_tag = sctp.verification_tag;
    abort.chunk.flags = kTagReflected;
  }
  abort.sctp.checksum = Be32::from_raw(~crc32c_add(kCrcBegin, &abort, sizeof abort));
  return abort;
}

// ---- IP ----

void write_ipv4(Packet& packet, Protocol protocol) noexcept {
  auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
  ip = {0x45,
        0,
        Be16::from_host(static_cast<std::uint16_t>(packet.ip_length)),
        Be16{},
        Be16::from_host(Ipv4Header::kDontFragment),
        kHops,
        protocol,
        Be16{},
        packet.ipv4.destination,
        packet.ipv4.source};
  ip.checksum = checksum_finish(checksum_add(&ip, sizeof ip));
}

void write_ipv6(Packet& packet, Protocol protocol, std::size_t payload) noexcept {
  *reinterpret_cast<Ipv6Header*>(packet.ip) = {Be32::from_host(6U << 28),
                                               Be16::from_host(static_cast<std::uint16_t>(payload)),
                                               protocol,
                                               kHops,
                                               packet.ipv6.destination,
                                               packet.ipv6.source};
}

// Where there is room for it.
template <class Message>
void become(Packet& packet, Protocol protocol, const Message& message) noexcept {
  const bool ipv4 = packet.family == Family::ipv4;
  const std::size_t header = ipv4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
  packet.ip_length = static_cast<std::uint32_t>(header + sizeof message);
  packet.transport = packet.ip + header;
  if (ipv4) {
    write_ipv4(packet, protocol);
  } else {
    write_ipv6(packet, protocol, sizeof message);
  }
  std::memcpy(packet.transport, &message, sizeof message);
}

bool become_tcp_reset(Packet& packet) noexcept {
  const auto& tcp = *reinterpret_cast<const TcpHeader*>(packet.transport);
  if ((tcp.flags & TcpHeader::kRst) != 0) return false;
  become(packet, Protocol::tcp, reset_for(packet, tcp));
  return true;
}

bool become_sctp_abort(Packet& packet) noexcept {
  if (packet.sctp_event == SctpEvent::abort || packet.sctp_event == SctpEvent::shutdown_complete) {
    return false;
  }
  const auto& sctp = *reinterpret_cast<const SctpHeader*>(packet.transport);
  become(packet, Protocol::sctp, abort_for(packet, sctp));
  return true;
}

}  // namespace

bool become_reset(Packet& packet) noexcept {
  const Protocol protocol =
      packet.family == Family::ipv4 ? packet.ipv4.protocol : packet.ipv6.protocol;
  if (protocol == Protocol::tcp) return become_tcp_reset(packet);
  return protocol == Protocol::sctp && become_sctp_abort(packet);
}

void become_probe(Packet& packet) noexcept { become(packet, Protocol::tcp, probe_for(packet)); }

}  // namespace weir
