// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/unfinished_checksum.h"

#include "dataplane/net/checksum.h"
#include "dataplane/net/crc32c.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

template <class Address, class Header>
void finish(Packet& packet, std::uint32_t length) noexcept {
  auto& header = *reinterpret_cast<Header*>(packet.transport);
  const auto& key = packet.key<Address>();
  const std::uint64_t pseudo = pseudo_header_sum(key.source, key.destination, key.protocol, length);
  if (header.checksum.raw() != fold_checksum(pseudo)) return;
  // The field is a part of the sum.
  header.checksum = checksum_finish(checksum_add(&header, length));
  // Of UDP, where zero says that there is none; to TCP both zeros are alike.
  if (header.checksum == Be16{}) header.checksum = Be16::from_raw(0xffff);
}

void finish_sctp(Packet& packet, std::uint32_t length) noexcept {
  constexpr std::uint32_t kBegin = 0xffffffffU;
  auto& header = *reinterpret_cast<SctpHeader*>(packet.transport);
  if (header.checksum == Be32{}) {
    header.checksum = Be32::from_raw(~crc32c_add(kBegin, &header, length));
  }
}

template <class Address>
void finish(Packet& packet) noexcept {
  const auto length = static_cast<std::uint32_t>(packet.ip + packet.ip_length - packet.transport);
  switch (packet.key<Address>().protocol) {
    case Protocol::tcp:
      finish<Address, TcpHeader>(packet, length);
      break;
    case Protocol::udp:
      finish<Address, UdpHeader>(
          packet, reinterpret_cast<const UdpHeader*>(packet.transport)->length.host());
      break;
    case Protocol::sctp:
      finish_sctp(packet, length);
      break;
    default:
      break;
  }
}

}  // namespace

void finish_checksum(Packet& packet) noexcept {
  if (packet.family == Family::ipv4) {
    finish<Ipv4Address>(packet);
  } else {
    finish<Ipv6Address>(packet);
  }
}

}  // namespace weir
