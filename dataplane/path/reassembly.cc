// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/reassembly.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "dataplane/net/checksum.h"
#include "dataplane/net/ipv6_extensions.h"
#include "dataplane/net/mix.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

constexpr std::size_t kFragmentHeader = sizeof(Ipv6FragmentHeader);

std::size_t payload_of(const Packet& packet) noexcept {
  return static_cast<std::size_t>(packet.ip + packet.ip_length - packet.transport);
}

// From the Ethernet header to the payload.
std::size_t headers_of(const Packet& packet) noexcept {
  return static_cast<std::size_t>(packet.transport - packet.frame);
}

std::uint8_t ecn_of(const Packet& packet) noexcept {
  constexpr std::uint8_t kEcnMask = 0x03;
  const std::uint8_t tos = packet.family == Family::ipv4
                               ? reinterpret_cast<const Ipv4Header*>(packet.ip)->tos
                               : reinterpret_cast<const Ipv6Header*>(packet.ip)->traffic_class();
  return static_cast<std::uint8_t>(1U << (tos & kEcnMask));
}

constexpr std::size_t header_of(Protocol protocol) noexcept {
  switch (protocol) {
    case Protocol::tcp:
      return sizeof(TcpHeader);
    case Protocol::udp:
      return sizeof(UdpHeader);
    case Protocol::sctp:
      return sizeof(SctpHeader);
    default:
      return 0;
  }
}

// Whether the payload of a first fragment has every header up to the transport's (RFC 7112).
bool has_all_headers(const Packet& packet, Protocol next) noexcept {
  const Reader payload(packet.transport, payload_of(packet));
  if (packet.family == Family::ipv4) return payload.left() >= header_of(next);
  Ipv6Extensions walk(packet.transport - kFragmentHeader, payload);
  // A fragment header in a fragment is for the whole to judge.
  while (walk.at_extension() && walk.next() != kIpv6Fragment) {
    if (!walk.pass()) return false;
  }
  return walk.reader().left() >= header_of(static_cast<Protocol>(walk.next()));
}

// What is wrong with a fragment whatever its datagram, undecided: nothing. RFC 1858 section 3 and
// RFC 3128 for what is tiny.
Outcome check_alone(const Packet& packet) noexcept {
  constexpr std::uint16_t kSecondUnit = 8;
  const Protocol protocol =
      packet.family == Family::ipv4 ? packet.ipv4.protocol : packet.ipv6.protocol;
  const std::size_t payload = payload_of(packet);
  if (payload == 0) return Outcome::drop_fragment_tiny;
  if (packet.more_fragments && payload % 8 != 0) return Outcome::drop_fragment_malformed;
  if (packet.fragment_offset + payload > Reassembly::kMaxPayload) {
    return Outcome::drop_fragment_too_big;
  }
  if (packet.fragment_offset == kSecondUnit && protocol == Protocol::tcp) {
    return Outcome::drop_fragment_tiny;
  }
  if (packet.fragment_offset != 0) return Outcome::undecided;
  if (!has_all_headers(packet, protocol)) return Outcome::drop_fragment_tiny;
  if (headers_of(packet) > Reassembly::kMaxHeaders) return Outcome::drop_too_many_extension_headers;
  return Outcome::undecided;
}

// Calls visit(word, mask) for the bits [first, last).
template <class Words, class Visit>
void each_word(Words& words, std::size_t first, std::size_t last, Visit&& visit) noexcept {
  constexpr std::size_t kBits = 64;
  while (first < last) {
    const std::size_t low = first % kBits;
    const std::size_t count = std::min(kBits - low, last - first);
    visit(words[first / kBits], ~std::uint64_t{0} >> (kBits - count) << low);
    first += count;
  }
}

// What ECN says of the whole (RFC 3168 section 5.3): the bits to add, or that the mix is invalid.
struct Ecn {
  bool valid;
  std::uint8_t added;
};
constexpr Ecn ecn_of_whole(std::uint8_t seen) noexcept {
  constexpr std::uint8_t kNotEct = 1U << 0;
  constexpr std::uint8_t kCe = 1U << 3;
  constexpr std::uint8_t kCongestionExperienced = 3;
  if ((seen & kNotEct) != 0) return {seen == kNotEct, 0};
  return {true, (seen & kCe) != 0 ? kCongestionExperienced : std::uint8_t{0}};
}

void finish_ipv4(std::uint8_t* at, std::size_t length, bool dont_fragment, std::uint8_t ecn) {
  auto& ip = *reinterpret_cast<Ipv4Header*>(at);
  ip.total_length = Be16::from_host(static_cast<std::uint16_t>(length));
  ip.fragment = Be16::from_host(dont_fragment ? Ipv4Header::kDontFragment : std::uint16_t{0});
  ip.tos = static_cast<std::uint8_t>(ip.tos | ecn);
  ip.checksum = Be16{};
  ip.checksum = checksum_finish(checksum_add(&ip, ip.header_bytes()));
}

void finish_ipv6(std::uint8_t* at, std::size_t length, std::uint8_t ecn) {
  constexpr unsigned kTrafficClassShift = 20;
  auto& ip = *reinterpret_cast<Ipv6Header*>(at);
  ip.payload_length = Be16::from_host(static_cast<std::uint16_t>(length - sizeof ip));
  ip.version_class_flow =
      Be32::from_host(ip.version_class_flow.host() | std::uint32_t{ecn} << kTrafficClassShift);
}

// Takes the fragment header, the last of the `headers` bytes at `frame`, out of the chain and the
// packet, whose IP header is at `ip` in them. What is in front of it moves up.
void remove_fragment_header(std::uint8_t* frame, std::size_t headers, std::size_t ip) noexcept {
  const std::size_t kept = headers - kFragmentHeader;
  const std::size_t first = ip + sizeof(Ipv6Header);
  Ipv6Extensions walk(frame + ip + offsetof(Ipv6Header, next_header),
                      {frame + first, headers - first});
  // An atomic one may precede it.
  while (walk.reader().left() != kFragmentHeader && walk.pass()) {
  }
  frame[walk.next_field() - frame] = frame[kept];
  std::memmove(frame + kFragmentHeader, frame, kept);
}

}  // namespace

Reassembly::Reassembly(DatagramBuffers& buffers, std::uint64_t seed, std::size_t datagrams)
    : buffers_(buffers), seed_(seed), datagrams_(datagrams) {
  heads_.fill(kNone);
  for (std::size_t i = 0; i + 1 < datagrams; ++i) datagrams_[i].next = static_cast<Index>(i + 1);
}

Reassembly::~Reassembly() {
  for (Index index = oldest(); index != kNone; index = oldest()) give_up(index);
}

// ---- The table ----

Reassembly::Key Reassembly::key_of(const Packet& packet) noexcept {
  if (packet.family == Family::ipv4) {
    return {packet.ipv4.source, packet.ipv4.destination, packet.fragment_id, packet.ipv4.protocol};
  }
  return {packet.ipv6.source, packet.ipv6.destination, packet.fragment_id, Protocol::ip};
}

std::size_t Reassembly::head_of(const Key& key) const noexcept {
  const std::uint64_t ends = std::hash<IpAddress>{}(key.source) ^
                             multiply_mix(std::hash<IpAddress>{}(key.destination), seed_ | 1);
  const std::uint64_t rest = std::uint64_t{key.id} << 8 | static_cast<std::uint8_t>(key.protocol);
  return reduce_range(multiply_mix(ends ^ seed_, rest ^ 0x9e3779b97f4a7c15ULL), kHeads);
}

Reassembly::Index Reassembly::find(const Key& key) const noexcept {
  Index index = heads_[head_of(key)];
  while (index != kNone && !(datagrams_[index].key == key)) index = datagrams_[index].chain;
  return index;
}

Reassembly::Index Reassembly::oldest() const noexcept {
  const Index ipv4 = ages_[0].oldest;
  const Index ipv6 = ages_[1].oldest;
  if (ipv4 == kNone || ipv6 == kNone) return ipv4 == kNone ? ipv6 : ipv4;
  // Ticks wrap.
  const std::uint32_t lead = datagrams_[ipv6].started - datagrams_[ipv4].started;
  return static_cast<std::int32_t>(lead) < 0 ? ipv6 : ipv4;
}

Reassembly::Index Reassembly::start(const Key& key, std::uint32_t now,
                                    bool& gave_up_oldest) noexcept {
  DatagramBuffers::Buffer buffer;
  if (free_ != kNone) buffer = buffers_.get();
  if (buffer.bytes == nullptr) {
    const Index index = oldest();
    if (index == kNone) return kNone;
    give_up(index);
    gave_up_oldest = true;
    buffer = buffers_.get();
    if (buffer.bytes == nullptr) return kNone;
  }
  const Index index = free_;
  Datagram& datagram = datagrams_[index];
  free_ = datagram.next;
  ++under_way_;

  Index& head = heads_[head_of(key)];
  Ages& ages = ages_[static_cast<std::size_t>(key.source.family())];
  datagram = Datagram{.key = key, .buffer = buffer, .started = now, .received = {}};
  datagram.chain = head;
  head = index;
  datagram.previous = ages.youngest;
  (ages.youngest == kNone ? ages.oldest : datagrams_[ages.youngest].next) = index;
  ages.youngest = index;
  return index;
}

// The buffer is no longer the datagram's.
void Reassembly::release(Index index) noexcept {
  Datagram& datagram = datagrams_[index];
  Index* link = &heads_[head_of(datagram.key)];
  while (*link != index) link = &datagrams_[*link].chain;
  *link = datagram.chain;
  Ages& ages = ages_[static_cast<std::size_t>(datagram.key.source.family())];
  (datagram.previous == kNone ? ages.oldest : datagrams_[datagram.previous].next) = datagram.next;
  (datagram.next == kNone ? ages.youngest : datagrams_[datagram.next].previous) = datagram.previous;
  datagram.next = free_;
  free_ = index;
  --under_way_;
}

void Reassembly::give_up(Index index) noexcept {
  buffers_.put(datagrams_[index].buffer.handle);
  release(index);
}

std::size_t Reassembly::expire(std::uint32_t now, std::span<Packet> expired) noexcept {
  std::size_t given_up = 0;
  for (const Family family : {Family::ipv4, Family::ipv6}) {
    const Ages& ages = ages_[static_cast<std::size_t>(family)];
    const std::uint32_t timeout = family == Family::ipv4 ? kTimeout4 : kTimeout6;
    while (given_up < expired.size() && ages.oldest != kNone &&
           now - datagrams_[ages.oldest].started >= timeout) {
      become_first(datagrams_[ages.oldest], expired[given_up++]);
      release(ages.oldest);
    }
  }
  return given_up;
}

// ---- Collecting ----

// Where the payload ends, which all fragments must agree on. Undecided: they do.
Outcome Reassembly::check_end(Datagram& datagram, std::uint32_t end, bool more) noexcept {
  const bool beyond = datagram.last_seen && end > datagram.end;
  const bool short_of = !more && end < datagram.end;
  if (beyond || short_of) return Outcome::drop_fragment_malformed;
  datagram.last_seen = datagram.last_seen || !more;
  datagram.end = std::max(datagram.end, end);
  return Outcome::undecided;
}

void Reassembly::keep_headers(Datagram& datagram, const Packet& packet) noexcept {
  const std::size_t headers = headers_of(packet);
  std::memcpy(datagram.buffer.bytes + kPayloadPlace - headers, packet.frame, headers);
  datagram.headers = static_cast<std::uint16_t>(headers);
  datagram.first = static_cast<std::uint16_t>(packet.length);
  datagram.ip = static_cast<std::uint16_t>(packet.ip - packet.frame);
  datagram.port = packet.port;
}

void Reassembly::become_first(const Datagram& datagram, Packet& packet) noexcept {
  static_cast<Arrival&>(packet) = {
      .frame = datagram.buffer.bytes + kPayloadPlace - datagram.headers,
      .buffer = datagram.buffer.handle,
      .length = datagram.first,
      .headroom = static_cast<std::uint16_t>(kPayloadPlace - datagram.headers),
      .port = datagram.port,
      .largest_fragment = datagram.largest,
      .errand = {}};
}

// A fragment of bytes that are all here is a duplicate; of some that are, an overlap, which is the
// end of the whole datagram (RFC 5722 section 4 and its erratum 3089).
Outcome Reassembly::place(Datagram& datagram, const Packet& packet) noexcept {
  const std::size_t length = payload_of(packet);
  const std::size_t end = packet.fragment_offset + length;
  const Outcome agreed =
      check_end(datagram, static_cast<std::uint32_t>(end), packet.more_fragments);
  if (agreed != Outcome::undecided) return agreed;
  const std::size_t first = packet.fragment_offset / kUnit;
  const std::size_t last = (end + kUnit - 1) / kUnit;
  std::size_t known = 0;
  each_word(datagram.received, first, last, [&](std::uint64_t word, std::uint64_t mask) {
    known += static_cast<std::size_t>(std::popcount(word & mask));
  });
  if (known == last - first) return Outcome::drop_fragment_duplicate;
  if (known != 0) return Outcome::drop_fragment_overlap;
  if (++datagram.fragments > kMaxFragments) return Outcome::drop_fragment_too_many;

  each_word(datagram.received, first, last,
            [](std::uint64_t& word, std::uint64_t mask) { word |= mask; });
  std::memcpy(datagram.buffer.bytes + kPayloadPlace + packet.fragment_offset, packet.transport,
              length);
  if (first == 0) keep_headers(datagram, packet);
  datagram.units += static_cast<std::uint32_t>(last - first);
  const auto size = static_cast<std::uint16_t>(packet.ip_length);
  datagram.largest = std::max(datagram.largest, size);
  if (packet.dont_fragment) datagram.largest_df = std::max(datagram.largest_df, size);
  datagram.ecn = static_cast<std::uint8_t>(datagram.ecn | ecn_of(packet));
  return Outcome::fragment_kept;
}

// All bytes are here: `packet` becomes the datagram. As in Linux it has DF where the largest of its
// fragments had.
Outcome Reassembly::finish(Datagram& datagram, Packet& packet) noexcept {
  const Ecn ecn = ecn_of_whole(datagram.ecn);
  if (!ecn.valid) return Outcome::drop_fragment_malformed;
  const bool v4 = packet.family == Family::ipv4;
  const std::size_t headers = datagram.headers - (v4 ? 0 : kFragmentHeader);
  const std::size_t length = headers + datagram.end;
  const std::size_t ip_length = length - datagram.ip;
  if (ip_length > max_ip_length(packet.family)) return Outcome::drop_fragment_too_big;
  std::uint8_t* const frame = datagram.buffer.bytes + kPayloadPlace - headers;
  if (v4) {
    finish_ipv4(frame + datagram.ip, ip_length, datagram.largest_df == datagram.largest, ecn.added);
  } else {
    remove_fragment_header(frame - kFragmentHeader, datagram.headers, datagram.ip);
    finish_ipv6(frame + datagram.ip, ip_length, ecn.added);
  }
  buffers_.put(packet.buffer);
  packet.buffer = datagram.buffer.handle;
  packet.frame = frame;
  packet.length = static_cast<std::uint32_t>(length);
  packet.headroom = static_cast<std::uint16_t>(kPayloadPlace - headers);
  packet.port = datagram.port;
  packet.largest_fragment = datagram.largest;
  return Outcome::undecided;
}

Reassembly::Result Reassembly::add(Packet& packet, std::uint32_t now) noexcept {
  Result result;
  result.outcome = check_alone(packet);
  const Key key = key_of(packet);
  Index index = find(key);
  if (result.outcome != Outcome::undecided) {
    // It can never be complete.
    if (result.outcome == Outcome::drop_fragment_too_big && index != kNone) give_up(index);
    return result;
  }
  if (index == kNone) index = start(key, now, result.gave_up_oldest);
  if (index == kNone) {
    result.outcome = Outcome::drop_fragment_table_full;
    return result;
  }
  Datagram& datagram = datagrams_[index];
  result.outcome = place(datagram, packet);
  const bool whole = datagram.last_seen && datagram.units == (datagram.end + kUnit - 1) / kUnit;
  if (result.outcome == Outcome::fragment_kept && whole) {
    result.outcome = finish(datagram, packet);
    if (result.outcome == Outcome::undecided) {
      release(index);
      return result;
    }
  }
  if (result.outcome != Outcome::fragment_kept &&
      result.outcome != Outcome::drop_fragment_duplicate) {
    give_up(index);
  }
  return result;
}

}  // namespace weir
