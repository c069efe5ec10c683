// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/fullnat/client_address.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "dataplane/net/checksum.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

constexpr std::size_t kMaxOptions = 40;
constexpr std::size_t kMaxProxyHeader = 52;
constexpr std::uint8_t kUrgent = 0x20;

// Option kinds (RFC 9293, 7323, 2018).
constexpr std::uint8_t kEndOfOptions = 0;
constexpr std::uint8_t kNoOperation = 1;
constexpr std::uint8_t kMaximumSegmentSize = 2;
constexpr std::uint8_t kWindowScale = 3;
constexpr std::uint8_t kSack = 5;
constexpr std::uint8_t kToa = 254;

constexpr std::size_t kOptionHead = 2;  // kind and length
constexpr std::uint8_t kLargestWindowScale = 14;

TcpHeader& tcp_of(Packet& packet) noexcept {
  return *reinterpret_cast<TcpHeader*>(packet.transport);
}
const TcpHeader& tcp_of(const Packet& packet) noexcept {
  return *reinterpret_cast<const TcpHeader*>(packet.transport);
}

bool has(const TcpHeader& tcp, unsigned flags) noexcept { return (tcp.flags & flags) != 0; }

unsigned transport_bytes(const Packet& packet) noexcept {
  return packet.ip_length - static_cast<unsigned>(packet.transport - packet.ip);
}

unsigned payload_bytes(const Packet& packet) noexcept {
  return transport_bytes(packet) - tcp_of(packet).header_bytes();
}

// How far `sequence` is after `from`; negative when it is before (RFC 9293 section 3.4).
std::int32_t distance(std::uint32_t from, std::uint32_t sequence) noexcept {
  return static_cast<std::int32_t>(sequence - from);
}

// ---- Changes of fields, noted for the checksum ----

template <class Value>
void set(Value& field, Value value, ChecksumDelta& delta) noexcept {
  delta.replace(field, value);
  field = value;
}

void clear_fin(Packet& packet, ChecksumDelta& delta) noexcept {
  TcpHeader& tcp = tcp_of(packet);
  const auto word = load<Be16>(&tcp.data_offset);
  tcp.flags &= static_cast<std::uint8_t>(~TcpHeader::kFin);
  packet.tcp_flags = tcp.flags;
  delta.replace(word, load<Be16>(&tcp.data_offset));
}

// Bytes that were not there; from an even offset of the TCP or UDP header on, and an even number.
void add_bytes(std::span<const std::uint8_t> bytes, ChecksumDelta& delta) noexcept {
  for (std::size_t i = 0; i < bytes.size(); i += 2) delta.replace(Be16{}, load<Be16>(&bytes[i]));
}

void remove_bytes(std::span<const std::uint8_t> bytes, ChecksumDelta& delta) noexcept {
  for (std::size_t i = 0; i < bytes.size(); i += 2) delta.replace(load<Be16>(&bytes[i]), Be16{});
}

void update_checksum(UdpHeader& udp, const ChecksumDelta& delta) noexcept {
  if (udp.checksum == Be16{}) return;
  delta.apply(udp.checksum);
  // Zero would say that there is none.
  if (udp.checksum == Be16{}) udp.checksum = Be16::from_raw(0xffff);
}

// ---- Length ----

// The length fields of the IP header and of the Packet, and the pseudo header's.
void set_ip_length(Packet& packet, unsigned length, ChecksumDelta& delta) noexcept {
  const unsigned before = transport_bytes(packet);
  packet.length += length - packet.ip_length;
  packet.ip_length = length;
  delta.replace(Be16::from_host(static_cast<std::uint16_t>(before)),
                Be16::from_host(static_cast<std::uint16_t>(transport_bytes(packet))));
  if (packet.family == Family::ipv4) {
    auto& ip = *reinterpret_cast<Ipv4Header*>(packet.ip);
    ChecksumDelta of_header;
    set(ip.total_length, Be16::from_host(static_cast<std::uint16_t>(length)), of_header);
    of_header.apply(ip.checksum);
  } else {
    auto& ip = *reinterpret_cast<Ipv6Header*>(packet.ip);
    ip.payload_length = Be16::from_host(static_cast<std::uint16_t>(length - sizeof ip));
  }
}

// The IP header may have grown into the room before the frame.
std::uint8_t* first_byte(const Packet& packet) noexcept {
  return std::min(packet.frame, packet.ip);
}

bool has_headroom(const Packet& packet, std::size_t bytes) noexcept {
  return static_cast<std::size_t>(first_byte(packet) - packet.frame + packet.headroom) >= bytes;
}

// Moves what lies before `at` forward. Returns the gap. The caller has checked the headroom.
std::span<std::uint8_t> open_gap(Packet& packet, std::uint8_t* at, std::size_t bytes,
                                 ChecksumDelta& delta) noexcept {
  std::uint8_t* const first = first_byte(packet);
  std::memmove(first - bytes, first, static_cast<std::size_t>(at - first));
  packet.frame -= bytes;
  packet.ip -= bytes;
  packet.transport -= bytes;
  packet.headroom = static_cast<std::uint16_t>(packet.headroom - bytes);
  set_ip_length(packet, packet.ip_length + static_cast<unsigned>(bytes), delta);
  return {at - bytes, bytes};
}

// The last bytes of the payload, and a FIN, go: the sender will send them again.
void cut_tail(Packet& packet, unsigned bytes, ChecksumDelta& delta) noexcept {
  const std::uint8_t* const end = packet.ip + packet.ip_length;
  const std::uint8_t* at = end - bytes;
  if ((at - packet.transport) % 2 != 0) {
    delta.replace(Be16::from_host(*at), Be16{});
    ++at;
  }
  for (; end - at >= 2; at += 2) delta.replace(load<Be16>(at), Be16{});
  if (at != end) delta.replace(Be16::from_host(static_cast<std::uint16_t>(*at << 8)), Be16{});
  set_ip_length(packet, packet.ip_length - bytes, delta);
  clear_fin(packet, delta);
}

// ---- TCP options ----

// The option area of a header, to be changed; finish() notes what has changed.
class OptionArea {
 public:
  explicit OptionArea(Packet& packet) noexcept
      : options_(packet.transport + sizeof(TcpHeader),
                 tcp_of(packet).header_bytes() - sizeof(TcpHeader)) {
    std::copy(options_.begin(), options_.end(), before_.begin());
  }

  // Calls visit(option, kind and length included) for each but padding, until one is malformed.
  template <class Visit>
  void for_each(Visit&& visit) const noexcept {
    std::span<std::uint8_t> rest = options_;
    while (!rest.empty() && rest[0] != kEndOfOptions) {
      if (rest[0] == kNoOperation) {
        rest = rest.subspan(1);
        continue;
      }
      if (rest.size() < kOptionHead || rest[1] < kOptionHead || rest[1] > rest.size()) return;
      const std::size_t length = rest[1];
      visit(rest.first(length));
      rest = rest.subspan(length);
    }
  }

  void finish(ChecksumDelta& delta) const noexcept {
    for (std::size_t i = 0; i < options_.size(); i += 2) {
      delta.replace(load<Be16>(&before_[i]), load<Be16>(&options_[i]));
    }
  }

 private:
  std::span<std::uint8_t> options_;
  std::array<std::uint8_t, kMaxOptions> before_;
};

void blank(std::span<std::uint8_t> option) noexcept {
  std::fill(option.begin(), option.end(), kNoOperation);
}

// ---- TOA ----

std::span<const std::uint8_t> address_bytes(const IpAddress& address) noexcept {
  return std::span(address.bytes()).first(address.is_ipv4() ? 4 : 16);
}

void write_toa(std::span<std::uint8_t> option, const ClientEnds& ends) noexcept {
  option[0] = kToa;
  option[1] = static_cast<std::uint8_t>(option.size());
  std::memcpy(&option[2], &ends.client_port, sizeof ends.client_port);
  const auto address = address_bytes(ends.client);
  std::copy(address.begin(), address.end(), option.begin() + 4);
}

// The client's own options of this kind go; one of the right length becomes ours. True: it did.
bool replace_toa(Packet& packet, const ClientEnds& ends, std::size_t bytes,
                 ChecksumDelta& delta) noexcept {
  bool written = false;
  const OptionArea area(packet);
  area.for_each([&](std::span<std::uint8_t> option) {
    if (option[0] != kToa) return;
    if (option.size() == bytes && !written) {
      write_toa(option, ends);
      written = true;
    } else {
      blank(option);
    }
  });
  area.finish(delta);
  return written;
}

// First of the options, where a reader finds it whatever follows.
void insert_toa(Packet& packet, const ClientEnds& ends, std::size_t bytes,
                ChecksumDelta& delta) noexcept {
  const auto option = open_gap(packet, packet.transport + sizeof(TcpHeader), bytes, delta);
  write_toa(option, ends);
  add_bytes(option, delta);
  TcpHeader& tcp = tcp_of(packet);
  const auto word = load<Be16>(&tcp.data_offset);
  tcp.data_offset = static_cast<std::uint8_t>(tcp.data_offset + (bytes / 4 << 4U));
  delta.replace(word, load<Be16>(&tcp.data_offset));
}

Outcome pass_toa(Packet& packet, const SequenceShift& shift, const ClientEnds& ends,
                 std::uint16_t mtu) noexcept {
  constexpr std::size_t kMaxHeader = sizeof(TcpHeader) + kMaxOptions;
  if (shift.told != Told::no || has(tcp_of(packet), TcpHeader::kRst)) return Outcome::undecided;
  if (!has_headroom(packet, shift.bytes)) return Outcome::drop_no_headroom;
  ChecksumDelta delta;
  const bool written = replace_toa(packet, ends, shift.bytes, delta);
  const bool fits = tcp_of(packet).header_bytes() + shift.bytes <= kMaxHeader &&
                    packet.ip_length + shift.bytes <= mtu;
  if (!written && fits) insert_toa(packet, ends, shift.bytes, delta);
  delta.apply(tcp_of(packet).checksum);
  return Outcome::undecided;
}

// The server's socket is established once it sends what only such a socket does. Only the server is
// asked, because a client could feign it.
void learn_toa(const Packet& packet, SequenceShift& shift) noexcept {
  const TcpHeader& tcp = tcp_of(packet);
  if (has(tcp, TcpHeader::kRst)) return;
  if (has(tcp, TcpHeader::kSyn)) {
    shift.client_first = tcp.acknowledgement.host();
    shift.told = Told::no;
    return;
  }
  const bool sends = has(tcp, TcpHeader::kFin) || payload_bytes(packet) != 0;
  const bool received =
      has(tcp, TcpHeader::kAck) && distance(shift.client_first, tcp.acknowledgement.host()) > 0;
  if (sends || received) shift.told = Told::yes;
}

// ---- PROXY protocol ----

using ProxyHeader = std::array<std::uint8_t, kMaxProxyHeader>;

std::span<const std::uint8_t> write_proxy_header(ProxyHeader& header, const ClientEnds& ends,
                                                 Protocol protocol) noexcept {
  constexpr std::array<std::uint8_t, 12> kSignature = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                                       0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
  constexpr std::uint8_t kVersion2Proxy = 0x21;
  constexpr std::size_t kFixedPart = 16;
  const bool ipv4 = ends.client.is_ipv4();
  const std::size_t length = proxy_header_bytes(ends.client.family());
  auto at = std::copy(kSignature.begin(), kSignature.end(), header.begin());
  *at++ = kVersion2Proxy;
  *at++ = static_cast<std::uint8_t>((ipv4 ? 0x10 : 0x20) | (protocol == Protocol::tcp ? 1 : 2));
  *at++ = 0;
  *at++ = static_cast<std::uint8_t>(length - kFixedPart);
  for (const IpAddress& address : {ends.client, ends.virtual_address}) {
    const auto bytes = address_bytes(address);
    at = std::copy(bytes.begin(), bytes.end(), at);
  }
  std::memcpy(&*at, &ends.client_port, sizeof(Be16));
  std::memcpy(&*at + sizeof(Be16), &ends.virtual_port, sizeof(Be16));
  return std::span(header).first(length);
}

void shift_sequence(Packet& packet, const SequenceShift& shift, ChecksumDelta& delta) noexcept {
  TcpHeader& tcp = tcp_of(packet);
  set(tcp.sequence, Be32::from_host(tcp.sequence.host() + shift.bytes), delta);
}

void prepend_to_payload(Packet& packet, std::span<const std::uint8_t> header,
                        ChecksumDelta& delta) noexcept {
  std::uint8_t* const payload = packet.transport + tcp_of(packet).header_bytes();
  const auto gap = open_gap(packet, payload, header.size(), delta);
  std::copy(header.begin(), header.end(), gap.begin());
  add_bytes(header, delta);
  TcpHeader& tcp = tcp_of(packet);
  if (!has(tcp, kUrgent)) return;
  const std::size_t urgent = std::min<std::size_t>(tcp.urgent.host() + header.size(), 0xffff);
  set(tcp.urgent, Be16::from_host(static_cast<std::uint16_t>(urgent)), delta);
}

// A segment at the client's first byte while the server has no header.
Outcome add_header(Packet& packet, const SequenceShift& shift, const ClientEnds& ends,
                   std::uint16_t mtu, ChecksumDelta& delta) noexcept {
  if (!has_headroom(packet, shift.bytes)) return Outcome::drop_no_headroom;
  const unsigned wanted = packet.ip_length + unsigned{shift.bytes};
  const unsigned excess = wanted > mtu ? wanted - mtu : 0;
  if (excess > payload_bytes(packet)) return Outcome::drop_too_big;
  if (excess != 0) cut_tail(packet, excess, delta);
  ProxyHeader header;
  prepend_to_payload(packet, write_proxy_header(header, ends, Protocol::tcp), delta);
  return Outcome::undecided;
}

Outcome pass_proxy(Packet& packet, const SequenceShift& shift, const ClientEnds& ends,
                   std::uint16_t mtu) noexcept {
  const TcpHeader& tcp = tcp_of(packet);
  const bool syn = has(tcp, TcpHeader::kSyn);
  const std::int32_t after = distance(shift.client_first, tcp.sequence.host());
  ChecksumDelta delta;
  Outcome outcome = Outcome::undecided;
  if (syn || (shift.told == Told::no && after < 0)) {
    // Where the header belongs there must be nothing else.
    if (payload_bytes(packet) != 0) cut_tail(packet, payload_bytes(packet), delta);
  } else if (shift.told != Told::no || after > 0) {
    shift_sequence(packet, shift, delta);
  } else {
    outcome = add_header(packet, shift, ends, mtu, delta);
  }
  if (outcome == Outcome::undecided) delta.apply(tcp_of(packet).checksum);
  return outcome;
}

// Removes the blocks that lie in the header alone (duplicate SACKs of it do).
void shift_sack(std::span<std::uint8_t> option, const SequenceShift& shift) noexcept {
  constexpr std::size_t kBlock = 8;
  std::size_t kept = kOptionHead;
  for (std::size_t at = kOptionHead; at + kBlock <= option.size(); at += kBlock) {
    const auto left = client_sequence(shift, load<Be32>(&option[at]).host());
    const auto right = client_sequence(shift, load<Be32>(&option[at + 4]).host());
    if (left == right) continue;
    const std::array<Be32, 2> block = {Be32::from_host(left), Be32::from_host(right)};
    std::memcpy(&option[kept], &block, sizeof block);
    kept += kBlock;
  }
  option[1] = static_cast<std::uint8_t>(kept);
  blank(option.subspan(kept == kOptionHead ? 0 : kept));
}

// The window ends where it ended, without the bytes of the header that are still to come.
void shift_window(TcpHeader& tcp, unsigned missing, unsigned scale, ChecksumDelta& delta) noexcept {
  const unsigned units = (missing + (1U << scale) - 1) >> scale;
  const unsigned window = tcp.window.host();
  set(tcp.window, Be16::from_host(static_cast<std::uint16_t>(window > units ? window - units : 0)),
      delta);
}

void learn_window_scale(Packet& packet, SequenceShift& shift) noexcept {
  shift.window_scale = 0;
  OptionArea(packet).for_each([&](std::span<std::uint8_t> option) {
    if (option[0] != kWindowScale || option.size() != 3) return;
    shift.window_scale = std::min(option[2], kLargestWindowScale);
  });
}

void shift_back(Packet& packet, SequenceShift& shift, std::uint32_t acknowledged) noexcept {
  TcpHeader& tcp = tcp_of(packet);
  const std::int32_t received = distance(shift.client_first, acknowledged);
  const bool near = shift.told != Told::long_ago;
  if (near && received < 0) return;
  ChecksumDelta delta;
  if (near && received < shift.bytes) {
    const auto missing = static_cast<unsigned>(shift.bytes - received);
    const bool scaled = !has(tcp, TcpHeader::kSyn);
    shift_window(tcp, missing, scaled ? shift.window_scale : 0, delta);
  } else if (near && !has(tcp, TcpHeader::kRst)) {
    // No window is larger than this: the next acknowledgement is nearer than twice as far.
    constexpr std::int32_t kFar = 1 << 30;
    shift.told = received < kFar ? Told::yes : Told::long_ago;
  }
  set(tcp.acknowledgement, Be32::from_host(client_sequence(shift, acknowledged)), delta);
  if (tcp.header_bytes() != sizeof(TcpHeader)) {
    const OptionArea area(packet);
    area.for_each([&](std::span<std::uint8_t> option) {
      if (option[0] == kSack) shift_sack(option, shift);
    });
    area.finish(delta);
  }
  delta.apply(tcp.checksum);
}

bool pass_back(Packet& packet, SequenceShift& shift) noexcept {
  const TcpHeader& tcp = tcp_of(packet);
  if (!has(tcp, TcpHeader::kAck)) return true;
  const std::uint32_t acknowledged = tcp.acknowledgement.host();
  if (has(tcp, TcpHeader::kSyn)) {
    if (acknowledged != shift.client_first) {
      shift.told = Told::no;
      return false;
    }
    learn_window_scale(packet, shift);
  }
  shift_back(packet, shift, acknowledged);
  return true;
}

}  // namespace

SequenceShift begin_shift(const Packet& packet, ClientAddress how, Family client) noexcept {
  constexpr std::uint8_t kToaIpv4 = 8;
  constexpr std::uint8_t kToaIpv6 = 20;
  const TcpHeader& tcp = tcp_of(packet);
  if (how == ClientAddress::hidden || !has(tcp, TcpHeader::kSyn)) return {};
  SequenceShift shift{};
  shift.client_first = tcp.sequence.host() + 1;
  shift.how = how;
  if (how == ClientAddress::toa) {
    shift.bytes = client == Family::ipv4 ? kToaIpv4 : kToaIpv6;
  } else {
    shift.bytes = static_cast<std::uint8_t>(proxy_header_bytes(client));
  }
  return shift;
}

Outcome pass_to_server(Packet& packet, SequenceShift& shift, const ClientEnds& ends,
                       std::uint16_t mtu) noexcept {
  switch (shift.how) {
    case ClientAddress::hidden:
      return Outcome::undecided;
    case ClientAddress::toa:
      return pass_toa(packet, shift, ends, mtu);
    case ClientAddress::proxy:
      return pass_proxy(packet, shift, ends, mtu);
  }
  return Outcome::undecided;
}

bool pass_to_client(Packet& packet, SequenceShift& shift) noexcept {
  if (shift.how == ClientAddress::proxy) return pass_back(packet, shift);
  if (shift.how == ClientAddress::toa) learn_toa(packet, shift);
  return true;
}

bool starts_anew(const Packet& packet, const SequenceShift& shift) noexcept {
  const TcpHeader& tcp = tcp_of(packet);
  return shift.how == ClientAddress::proxy && shift.told == Told::no && has(tcp, TcpHeader::kSyn) &&
         tcp.sequence.host() + 1 != shift.client_first;
}

Outcome prepend_proxy_header(Packet& packet, const ClientEnds& ends) noexcept {
  ProxyHeader bytes;
  const auto header = write_proxy_header(bytes, ends, Protocol::udp);
  if (packet.ip_length + header.size() > max_ip_length(packet.family)) return Outcome::drop_too_big;
  if (!has_headroom(packet, header.size())) return Outcome::drop_no_headroom;
  ChecksumDelta delta;
  const auto gap = open_gap(packet, packet.transport + sizeof(UdpHeader), header.size(), delta);
  std::copy(header.begin(), header.end(), gap.begin());
  add_bytes(header, delta);
  auto& udp = *reinterpret_cast<UdpHeader*>(packet.transport);
  const std::size_t length = udp.length.host() + header.size();
  set(udp.length, Be16::from_host(static_cast<std::uint16_t>(length)), delta);
  update_checksum(udp, delta);
  return Outcome::undecided;
}

std::uint16_t remove_proxy_header(Quote& quote, const ClientEnds& ends) noexcept {
  ProxyHeader bytes;
  const auto header = write_proxy_header(bytes, ends, Protocol::udp);
  auto& udp = *reinterpret_cast<UdpHeader*>(quote.transport);
  const std::size_t least = sizeof udp + header.size();
  if (quote.whole_bytes < least || udp.length.host() < least) return 0;
  std::uint8_t* const payload = quote.transport + sizeof udp;
  const std::size_t quoted = quote.transport_bytes - sizeof udp;
  const std::size_t removed = std::min(quoted, header.size());
  std::memmove(payload, payload + removed, quoted - removed);
  quote.transport_bytes -= removed;
  quote.whole_bytes -= header.size();

  // The header's own bytes may not be quoted; the length counts in the pseudo header, too.
  ChecksumDelta delta;
  remove_bytes(header, delta);
  const std::size_t length = udp.length.host() - header.size();
  const Be16 shorter = Be16::from_host(static_cast<std::uint16_t>(length));
  delta.replace(udp.length, shorter);
  set(udp.length, shorter, delta);
  update_checksum(udp, delta);
  return static_cast<std::uint16_t>(header.size());
}

void clamp_mss(Packet& packet, std::uint16_t largest) noexcept {
  constexpr std::size_t kMssOption = 4;
  TcpHeader& tcp = tcp_of(packet);
  if (!has(tcp, TcpHeader::kSyn)) return;
  const OptionArea area(packet);
  area.for_each([&](std::span<std::uint8_t> option) {
    if (option[0] != kMaximumSegmentSize || option.size() != kMssOption) return;
    const auto clamped = std::min(load<Be16>(&option[2]).host(), largest);
    const Be16 value = Be16::from_host(clamped);
    std::memcpy(&option[2], &value, sizeof value);
  });
  ChecksumDelta delta;
  area.finish(delta);
  delta.apply(tcp.checksum);
}

}  // namespace weir
