// SPDX-License-Identifier: Apache-2.0
// Fragments collected, judged by scapy's cuts (make_fragments.py) and by datagrams that are cut
// here at random places.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "dataplane/path/parse.h"
#include "dataplane/path/reassembly.h"
#include "tests/support/datagram_arena.h"
#include "tests/support/random.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::size_t kEthernet = 14;
constexpr std::uint32_t kSecond = kTicksPerSecond;
constexpr std::uint8_t kUdp = 17;
constexpr std::uint8_t kTcp = 6;
constexpr std::uint8_t kSctp = 132;
constexpr std::uint16_t kVlan = 5;
const OwnMacs kMac({MacAddress{{2, 0, 0, 0, 0x0a, 0xfe}}}, {kVlan});

std::size_t below(Random& random, std::size_t bound) { return random() % bound; }
template <class T>
void shuffle(std::vector<T>& items, Random& random) {
  for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(random, i)]);
}
std::string text(const json::value& value) { return json::value_to<std::string>(value); }

void put16(Bytes& bytes, std::size_t at, std::size_t value) {
  bytes[at] = static_cast<std::uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<std::uint8_t>(value);
}

void fix_checksum(Bytes& ip) {
  const std::size_t header = (ip[0] & 15U) * 4;
  put16(ip, 10, 0);
  put16(ip, 10, internet_checksum({ip.data(), header}));
}

// What one fragment says of itself.
struct Piece {
  std::size_t offset = 0;  // bytes
  Bytes payload;
  bool more = true;
  std::uint32_t id = 7;
  std::uint8_t protocol = kUdp;
  std::uint8_t tos = 0;
  std::uint8_t ttl = 64;
  bool dont_fragment = false;
  std::uint8_t host = 1;  // last byte of the source
  Bytes options;          // IPv4; IPv6: extension headers in front of the fragment header
  std::uint8_t first_extension = kIpv6Fragment;
};

Bytes ipv4(const Piece& piece) {
  Bytes ip(20);
  ip.insert(ip.end(), piece.options.begin(), piece.options.end());
  ip[0] = static_cast<std::uint8_t>(0x40 + ip.size() / 4);
  ip.insert(ip.end(), piece.payload.begin(), piece.payload.end());
  ip[1] = piece.tos;
  put16(ip, 2, ip.size());
  put16(ip, 4, piece.id);
  put16(ip, 6, piece.offset / 8 + (piece.more ? 0x2000 : 0) + (piece.dont_fragment ? 0x4000 : 0));
  ip[8] = piece.ttl;
  ip[9] = piece.protocol;
  const Bytes ends = {10, 1, 0, piece.host, 10, 9, 0, 1};
  std::copy(ends.begin(), ends.end(), ip.begin() + 12);
  fix_checksum(ip);
  return ip;
}

Bytes ipv6(const Piece& piece) {
  Bytes ip(40);
  ip[0] = static_cast<std::uint8_t>(0x60 + piece.tos / 16);
  ip[1] = static_cast<std::uint8_t>(piece.tos * 16);
  ip[6] = piece.first_extension;
  ip[7] = piece.ttl;
  ip[8] = ip[24] = 0x20;
  ip[23] = piece.host;
  ip[39] = 9;
  ip.insert(ip.end(), piece.options.begin(), piece.options.end());
  const std::size_t at = ip.size();
  ip.resize(at + 8);
  ip[at] = piece.protocol;
  put16(ip, at + 2, piece.offset + (piece.more ? 1 : 0));
  put16(ip, at + 4, piece.id >> 16);
  put16(ip, at + 6, piece.id);
  ip.insert(ip.end(), piece.payload.begin(), piece.payload.end());
  put16(ip, 4, ip.size() - 40);
  return ip;
}

Bytes ip_of(Family family, const Piece& piece) {
  return family == Family::ipv4 ? ipv4(piece) : ipv6(piece);
}

Bytes framed(const Bytes& ip, std::uint16_t vlan = 0) {
  Bytes frame = {2, 0, 0, 0, 0x0a, 0xfe, 2, 0, 0, 0, 0x0c, 1};
  if (vlan != 0) frame.insert(frame.end(), {0x81, 0, 0, static_cast<std::uint8_t>(vlan)});
  const bool v4 = ip[0] >> 4 == 4;
  frame.push_back(v4 ? 0x08 : 0x86);
  frame.push_back(v4 ? 0x00 : 0xdd);
  frame.insert(frame.end(), ip.begin(), ip.end());
  return frame;
}

struct Got {
  Outcome outcome = Outcome::undecided;
  bool gave_up_oldest = false;
  Bytes frame;  // of a whole datagram
  std::uint16_t port = 0;
  std::uint16_t headroom = 0;
  std::uint16_t largest = 0;
};

class ReassemblyTest : public testing::Test {
 protected:
  Got add_frame(const Bytes& frame, std::uint16_t port = 0) {
    // Exactly as long as its bytes, so that a sanitizer sees a read beyond them.
    const auto exact = std::make_unique<std::uint8_t[]>(frame.size());
    std::copy(frame.begin(), frame.end(), exact.get());
    Packet packet;
    packet.frame = exact.get();
    packet.buffer = this;
    packet.length = static_cast<std::uint32_t>(frame.size());
    packet.headroom = 0;
    packet.port = port;
    parse_frame(packet, kMac);
    Got got;
    got.outcome = packet.outcome;
    if (got.outcome != Outcome::fragment) return got;
    const Reassembly::Result result = reassembly_->add(packet, now_);
    got.outcome = result.outcome;
    got.gave_up_oldest = result.gave_up_oldest;
    if (result.outcome != Outcome::undecided) return got;
    EXPECT_NE(packet.buffer, this);
    EXPECT_EQ(packet.frame - packet.headroom, packet.buffer);
    got.frame.assign(packet.frame, packet.frame + packet.length);
    got.port = packet.port;
    got.headroom = packet.headroom;
    got.largest = packet.largest_fragment;
    arena_.put(packet.buffer);
    return got;
  }
  Got add_ip(const Bytes& ip) { return add_frame(framed(ip)); }
  Got add(Family family, const Piece& piece) { return add_ip(ip_of(family, piece)); }

  // Of datagrams whose time is over: the first fragment's frame, empty where that has not come.
  std::vector<Got> expire(std::size_t most = Reassembly::kDatagrams) {
    std::vector<Packet> packets(std::min(most, reassembly_->under_way()));
    packets.resize(reassembly_->expire(now_, packets));
    std::vector<Got> expired;
    for (const Packet& packet : packets) {
      EXPECT_EQ(packet.frame - packet.headroom, packet.buffer);
      expired.push_back({.frame = {packet.frame, packet.frame + packet.length},
                         .port = packet.port,
                         .headroom = packet.headroom,
                         .largest = packet.largest_fragment});
      arena_.put(packet.buffer);
    }
    return expired;
  }

  DatagramArena arena_{Reassembly::kDatagrams};
  std::unique_ptr<Reassembly> reassembly_ = std::make_unique<Reassembly>(arena_, 42);
  std::uint32_t now_ = 0xffffff00;  // ticks wrap
};

class ReassemblyOfEither : public ReassemblyTest, public testing::WithParamInterface<Family> {
 protected:
  // The length of IPv4 counts the header.
  static std::size_t most_payload() { return GetParam() == Family::ipv4 ? 65515 : 65535; }
};
INSTANTIATE_TEST_SUITE_P(Families, ReassemblyOfEither, testing::Values(Family::ipv4, Family::ipv6),
                         [](const auto& about) {
                           return about.param == Family::ipv4 ? "Ipv4" : "Ipv6";
                         });

Bytes counting(std::size_t length, std::size_t from = 0) {
  Bytes bytes(length);
  for (std::size_t i = 0; i < length; ++i) {
    bytes[i] = static_cast<std::uint8_t>((from + i) * 5 + (from + i) / 256);
  }
  return bytes;
}

// A fragment of counting(...).
Piece piece_of(std::size_t offset, std::size_t length, bool more) {
  Piece piece;
  piece.offset = offset;
  piece.payload = counting(length, offset);
  piece.more = more;
  return piece;
}

Bytes payload_of(const Bytes& frame) {
  const bool v4 = frame[kEthernet] >> 4 == 4;
  const std::size_t header = v4 ? (frame[kEthernet] & 15U) * 4U : 40U;
  return {frame.begin() + static_cast<std::ptrdiff_t>(kEthernet + header), frame.end()};
}

// ---- Whole datagrams ----

TEST_F(ReassemblyTest, PutsTogetherWhatScapyCutInAnyOrder) {
  Random random(1);
  const json::value data = read_json("packets/fragments.json");
  for (const json::value& entry : data.at("cuts").as_array()) {
    std::vector<Bytes> pieces;
    std::size_t largest = 0;
    for (const json::value& piece : entry.at("pieces").as_array()) {
      pieces.push_back(from_hex(text(piece)));
      largest = std::max(largest, pieces.back().size());
    }
    for (int order = 0; order < 5; ++order) {
      SCOPED_TRACE(text(entry.at("name")) + ", order " + std::to_string(order));
      for (std::size_t i = 0; i + 1 < pieces.size(); ++i) {
        ASSERT_EQ(add_ip(pieces[i]).outcome, Outcome::fragment_kept);
      }
      const Got got = add_ip(pieces.back());
      ASSERT_EQ(got.outcome, Outcome::undecided);
      EXPECT_EQ(to_hex(got.frame), to_hex(framed(from_hex(text(entry.at("packet"))))));
      EXPECT_EQ(got.largest, largest);
      EXPECT_GE(got.headroom, Reassembly::kHeadroom);
      EXPECT_EQ(arena_.in_use(), 0U);
      if (order == 0) {
        std::reverse(pieces.begin(), pieces.end());
      } else {
        shuffle(pieces, random);
      }
    }
  }
}

// Random cuts of datagrams up to the largest, several under way at once, each fragment up to three
// times, in random order.
TEST_P(ReassemblyOfEither, RandomCutsWithDuplicatesAreTheDatagram) {
  Random random(2);
  constexpr std::size_t kAtOnce = 8;
  for (int round = 0; round < 60; ++round) {
    std::vector<Piece> pieces;
    std::vector<std::size_t> lengths;
    for (std::uint32_t id = 0; id < kAtOnce; ++id) {
      const std::size_t most = round % 20 == 0 ? most_payload() - 9 : 4000;
      const std::size_t length = 9 + below(random, most);
      lengths.push_back(length);
      const std::size_t step = 8 + length / 100;
      for (std::size_t at = 0; at < length;) {
        // One piece alone is no fragment.
        const std::size_t most_here = at == 0 ? (length - 1) / 8 * 8 : length - at;
        const std::size_t size = std::min((step + below(random, 1500)) / 8 * 8, most_here);
        Piece piece = piece_of(at, size, at + size < length);
        piece.id = id << (GetParam() == Family::ipv4 ? 0 : 20);
        at += size;
        const std::size_t copies = 1 + (below(random, 10) == 0 ? 2 : 0);
        for (std::size_t i = 0; i < copies; ++i) pieces.push_back(piece);
      }
    }
    shuffle(pieces, random);
    std::size_t whole = 0;
    for (const Piece& piece : pieces) {
      const Got got = add(GetParam(), piece);
      if (got.outcome == Outcome::undecided) {
        const std::uint32_t id = piece.id >> (GetParam() == Family::ipv4 ? 0 : 20);
        ASSERT_EQ(payload_of(got.frame), counting(lengths[id]));
        ++whole;
      } else {
        ASSERT_TRUE(got.outcome == Outcome::fragment_kept ||
                    got.outcome == Outcome::drop_fragment_duplicate)
            << name_of(got.outcome);
      }
    }
    // Copies that come after the last missing one begin a datagram anew.
    ASSERT_GE(whole, kAtOnce);
    now_ += 61 * kSecond;
    expire();
    ASSERT_EQ(arena_.in_use(), 0U);
  }
}

TEST_F(ReassemblyTest, HeaderIsThatOfTheFirstFragment) {
  Piece last = piece_of(16, 5, false);
  last.ttl = 9;
  last.tos = 0x10;
  Piece first = piece_of(0, 16, true);
  first.options = {0x94, 4, 0, 0};
  first.ttl = 33;
  first.tos = 0x20;
  ASSERT_EQ(add(Family::ipv4, last).outcome, Outcome::fragment_kept);
  const Got got = add_frame(framed(ipv4(first)), 1);
  Piece whole = first;
  whole.payload = counting(21);
  whole.more = false;
  EXPECT_EQ(to_hex(got.frame), to_hex(framed(ipv4(whole))));
  EXPECT_EQ(got.port, 1);
}

TEST_F(ReassemblyTest, PortAndTagAreThoseOfTheFirstFragment) {
  ASSERT_EQ(add_frame(framed(ipv4(piece_of(0, 16, true)), kVlan), 3).outcome,
            Outcome::fragment_kept);
  const Got got = add_frame(framed(ipv4(piece_of(16, 4, false))), 8);
  EXPECT_EQ(got.port, 3);
  EXPECT_EQ(to_hex(got.frame), to_hex(framed(ipv4(piece_of(0, 20, false)), kVlan)));
}

// As Linux: DF, and with it path MTU discovery, where the largest fragment had it.
TEST_F(ReassemblyTest, DfIsThatOfTheLargestFragment) {
  for (const auto& [first_df, last_df, expected] :
       {std::array{true, true, true}, std::array{true, false, true}, std::array{false, true, false},
        std::array{false, false, false}}) {
    Piece first = piece_of(0, 64, true);
    Piece last = piece_of(64, 8, false);
    first.dont_fragment = first_df;
    last.dont_fragment = last_df;
    ASSERT_EQ(add(Family::ipv4, last).outcome, Outcome::fragment_kept);
    const Got got = add(Family::ipv4, first);
    ASSERT_EQ(got.outcome, Outcome::undecided);
    EXPECT_EQ(got.frame[kEthernet + 6], expected ? 0x40 : 0);
    EXPECT_EQ(got.largest, 84);
    EXPECT_TRUE(ipv4_checksum_ok(got.frame, kEthernet));
  }
}

// RFC 3168 section 5.3, as ip_frag_ecn_table has it: which codepoints were seen -> what the whole
// says, -1: refused.
TEST_P(ReassemblyOfEither, EcnOfTheWhole) {
  constexpr int kRefused = -1;
  for (unsigned first = 0; first < 4; ++first) {
    for (unsigned second = 0; second < 4; ++second) {
      Piece one = piece_of(0, 16, true);
      Piece two = piece_of(16, 8, false);
      one.tos = static_cast<std::uint8_t>(0xb8 | first);
      two.tos = static_cast<std::uint8_t>(0xb8 | second);
      const bool mixed = (first == 0) != (second == 0);
      const int expected = mixed                       ? kRefused
                           : first == 3 || second == 3 ? 3
                                                       : static_cast<int>(first);
      ASSERT_EQ(add(GetParam(), one).outcome, Outcome::fragment_kept);
      const Got got = add(GetParam(), two);
      SCOPED_TRACE(std::to_string(first) + " and " + std::to_string(second));
      EXPECT_EQ(got.outcome == Outcome::drop_fragment_malformed, expected == kRefused);
      EXPECT_EQ(arena_.in_use(), 0U);
      if (expected == kRefused) continue;
      const std::uint8_t tos = GetParam() == Family::ipv4
                                   ? got.frame[kEthernet + 1]
                                   : static_cast<std::uint8_t>(got.frame[kEthernet] << 4 |
                                                               got.frame[kEthernet + 1] >> 4);
      EXPECT_EQ(tos, 0xb8 | expected);
    }
  }
}

TEST_F(ReassemblyTest, DatagramsAreToldApart) {
  Piece first = piece_of(0, 16, true);
  std::vector<Piece> others(3, piece_of(16, 8, false));
  others[0].id = 8;
  others[1].host = 2;
  others[2].protocol = kTcp;
  ASSERT_EQ(add(Family::ipv4, first).outcome, Outcome::fragment_kept);
  for (const Piece& other : others) {
    EXPECT_EQ(add(Family::ipv4, other).outcome, Outcome::fragment_kept);
  }
  EXPECT_EQ(reassembly_->under_way(), 4U);
  EXPECT_EQ(add(Family::ipv4, piece_of(16, 8, false)).outcome, Outcome::undecided);
}

// RFC 8200: not the next header of a fragment tells datagrams apart, and that of the first counts.
TEST_F(ReassemblyTest, Ipv6FragmentsMaySayDifferentNextHeaders) {
  Piece last = piece_of(16, 8, false);
  last.protocol = kIpv6DestinationOptions;
  ASSERT_EQ(add(Family::ipv6, last).outcome, Outcome::fragment_kept);
  const Got got = add(Family::ipv6, piece_of(0, 16, true));
  ASSERT_EQ(got.outcome, Outcome::undecided);
  EXPECT_EQ(got.frame[kEthernet + 6], kUdp);
}

// ---- What is refused ----

TEST_P(ReassemblyOfEither, ADuplicateIsIgnored) {
  ASSERT_EQ(add(GetParam(), piece_of(0, 32, true)).outcome, Outcome::fragment_kept);
  Piece within = piece_of(8, 16, true);
  within.payload.assign(16, 0xee);
  EXPECT_EQ(add(GetParam(), within).outcome, Outcome::drop_fragment_duplicate);
  EXPECT_EQ(add(GetParam(), piece_of(0, 32, true)).outcome, Outcome::drop_fragment_duplicate);
  const Got got = add(GetParam(), piece_of(32, 3, false));
  ASSERT_EQ(got.outcome, Outcome::undecided);
  EXPECT_EQ(payload_of(got.frame), counting(35));
}

TEST_P(ReassemblyOfEither, AnOverlapIsTheEndOfTheDatagram) {
  struct Range {
    std::size_t offset;
    std::size_t length;
    bool more;
  };
  // Against [32, 64): over its start, its end, both ends, and as the last one.
  for (const Range& bad :
       {Range{24, 16, true}, Range{56, 16, true}, Range{24, 48, true}, Range{56, 20, false}}) {
    ASSERT_EQ(add(GetParam(), piece_of(32, 32, true)).outcome, Outcome::fragment_kept);
    EXPECT_EQ(add(GetParam(), piece_of(bad.offset, bad.length, bad.more)).outcome,
              Outcome::drop_fragment_overlap)
        << bad.offset;
    EXPECT_EQ(reassembly_->under_way(), 0U);
    EXPECT_EQ(arena_.in_use(), 0U);
  }
}

TEST_P(ReassemblyOfEither, FragmentsThatDisagreeAboutTheEnd) {
  const auto refused = [this](const Piece& first, const Piece& second) {
    EXPECT_EQ(add(GetParam(), first).outcome, Outcome::fragment_kept);
    EXPECT_EQ(add(GetParam(), second).outcome, Outcome::drop_fragment_malformed);
    EXPECT_EQ(arena_.in_use(), 0U);
  };
  refused(piece_of(64, 8, false), piece_of(80, 8, true));   // beyond the last
  refused(piece_of(64, 8, false), piece_of(80, 8, false));  // two ends
  refused(piece_of(64, 8, true), piece_of(32, 8, false));   // ends before what is here
  refused(piece_of(64, 8, false), piece_of(64, 7, false));
}

TEST_P(ReassemblyOfEither, LengthThatIsNoMultipleOfEight) {
  for (std::size_t length = 9; length < 16; ++length) {
    EXPECT_EQ(add(GetParam(), piece_of(0, length, true)).outcome, Outcome::drop_fragment_malformed);
  }
  EXPECT_EQ(add(GetParam(), piece_of(0, 16, true)).outcome, Outcome::fragment_kept);
}

TEST_P(ReassemblyOfEither, TinyFragments) {
  const auto outcome = [this](std::uint8_t protocol, std::size_t offset, std::size_t length,
                              bool more) {
    Piece piece = piece_of(offset, length, more);
    piece.protocol = protocol;
    const Outcome got = add(GetParam(), piece).outcome;
    now_ += 61 * kSecond;
    expire();
    return got;
  };
  constexpr Outcome kTiny = Outcome::drop_fragment_tiny;
  constexpr Outcome kKept = Outcome::fragment_kept;
  EXPECT_EQ(outcome(kTcp, 0, 8, true), kTiny);
  EXPECT_EQ(outcome(kTcp, 0, 16, true), kTiny);
  EXPECT_EQ(outcome(kTcp, 0, 24, true), kKept);
  EXPECT_EQ(outcome(kTcp, 8, 24, true), kTiny);  // RFC 3128
  EXPECT_EQ(outcome(kTcp, 8, 5, false), kTiny);
  EXPECT_EQ(outcome(kTcp, 16, 8, true), kKept);
  EXPECT_EQ(outcome(kUdp, 0, 8, true), kKept);
  EXPECT_EQ(outcome(kUdp, 8, 8, true), kKept);
  EXPECT_EQ(outcome(kSctp, 0, 8, true), kTiny);
  EXPECT_EQ(outcome(kSctp, 0, 16, true), kKept);
  EXPECT_EQ(outcome(kUdp, 0, 0, true), kTiny);
  EXPECT_EQ(outcome(kUdp, 64, 0, true), kTiny);
  EXPECT_EQ(outcome(kUdp, 64, 0, false), kTiny);
  EXPECT_EQ(outcome(kUdp, 64, 1, false), kKept);
}

// RFC 7112: the first fragment has the whole chain of headers.
TEST_F(ReassemblyTest, Ipv6FirstFragmentHasEveryHeader) {
  const auto outcome = [this](std::size_t options, std::size_t length) {
    Piece piece = piece_of(0, length, true);
    piece.protocol = kIpv6DestinationOptions;
    piece.payload[0] = kTcp;
    piece.payload[1] = static_cast<std::uint8_t>(options / 8 - 1);
    const Outcome got = add(Family::ipv6, piece).outcome;
    now_ += 61 * kSecond;
    expire();
    return got;
  };
  EXPECT_EQ(outcome(8, 32), Outcome::fragment_kept);
  EXPECT_EQ(outcome(8, 24), Outcome::drop_fragment_tiny);
  EXPECT_EQ(outcome(64, 32), Outcome::drop_fragment_tiny);
  EXPECT_EQ(outcome(2048, 32), Outcome::drop_fragment_tiny);
}

TEST_F(ReassemblyTest, Ipv6HeadersThatDoNotFitTheirPlace) {
  const auto outcome = [this](std::size_t options) {
    Piece piece = piece_of(0, 16, true);
    piece.first_extension = kIpv6HopByHop;
    piece.options.resize(options);
    piece.options[0] = kIpv6Fragment;
    piece.options[1] = static_cast<std::uint8_t>(options / 8 - 1);
    return add(Family::ipv6, piece).outcome;
  };
  constexpr std::size_t kMost = (Reassembly::kMaxHeaders - kEthernet - 40 - 8) / 8 * 8;
  EXPECT_EQ(outcome(kMost + 8), Outcome::drop_too_many_extension_headers);
  EXPECT_EQ(outcome(kMost), Outcome::fragment_kept);
}

TEST_P(ReassemblyOfEither, TheLargestDatagramFitsAndALargerOneIsGivenUp) {
  const auto send = [this](std::size_t total) {
    constexpr std::size_t kStep = 1480;
    Got got;
    for (std::size_t at = 0; at < total && got.outcome != Outcome::drop_fragment_too_big;
         at += kStep) {
      const std::size_t length = std::min(kStep, total - at);
      got = add(GetParam(), piece_of(at, length, at + length < total));
    }
    return got;
  };
  const Got got = send(most_payload());
  ASSERT_EQ(got.outcome, Outcome::undecided);
  EXPECT_EQ(payload_of(got.frame), counting(most_payload()));
  EXPECT_EQ(send(most_payload() + 1).outcome, Outcome::drop_fragment_too_big);
  EXPECT_EQ(arena_.in_use(), 0U);
}

// The ping of death: beyond 65535.
TEST_F(ReassemblyTest, AFragmentBeyondTheLargestDatagram) {
  EXPECT_EQ(add(Family::ipv4, piece_of(65528, 1400, false)).outcome,
            Outcome::drop_fragment_too_big);
  EXPECT_EQ(arena_.in_use(), 0U);
}

TEST_P(ReassemblyOfEither, FragmentsOfADatagramAreBounded) {
  for (std::size_t i = 0; i < Reassembly::kMaxFragments; ++i) {
    ASSERT_EQ(add(GetParam(), piece_of(16 * i, 8, true)).outcome, Outcome::fragment_kept);
  }
  EXPECT_EQ(add(GetParam(), piece_of(16 * Reassembly::kMaxFragments, 8, true)).outcome,
            Outcome::drop_fragment_too_many);
  EXPECT_EQ(arena_.in_use(), 0U);
}

// ---- Time and room ----

TEST_P(ReassemblyOfEither, TimeIsCountedFromTheFirstToArrive) {
  const std::uint32_t timeout = GetParam() == Family::ipv4 ? 30 * kSecond : 60 * kSecond;
  ASSERT_EQ(add(GetParam(), piece_of(0, 16, true)).outcome, Outcome::fragment_kept);
  now_ += timeout - 1;
  ASSERT_EQ(add(GetParam(), piece_of(16, 16, true)).outcome, Outcome::fragment_kept);
  EXPECT_EQ(expire().size(), 0U);
  now_ += 1;
  EXPECT_EQ(expire().size(), 1U);
  EXPECT_EQ(arena_.in_use(), 0U);
  EXPECT_EQ(add(GetParam(), piece_of(32, 8, false)).outcome, Outcome::fragment_kept);
}

TEST_P(ReassemblyOfEither, OfWhatExpiresTheFirstFragmentIsAsItCame) {
  Piece first = piece_of(0, 24, true);
  first.dont_fragment = true;
  first.options = {0x94, 4, 0, 0};
  if (GetParam() == Family::ipv6) {
    first.options = {kIpv6Fragment, 0, 1, 4, 0, 0, 0, 0};
    first.first_extension = kIpv6HopByHop;
  }
  const Bytes frame = framed(ip_of(GetParam(), first), kVlan);
  ASSERT_EQ(add(GetParam(), piece_of(32, 48, true)).outcome, Outcome::fragment_kept);
  ASSERT_EQ(add_frame(frame, 3).outcome, Outcome::fragment_kept);
  ASSERT_EQ(add(GetParam(), piece_of(80, 5, false)).outcome, Outcome::fragment_kept);
  now_ += 60 * kSecond;
  const std::vector<Got> expired = expire();
  ASSERT_EQ(expired.size(), 1U);
  EXPECT_EQ(to_hex(expired[0].frame), to_hex(frame));
  EXPECT_EQ(expired[0].port, 3);
  EXPECT_GE(expired[0].headroom, Reassembly::kHeadroom);
  EXPECT_NE(expired[0].largest, 0);
  EXPECT_EQ(arena_.in_use(), 0U);
}

TEST_P(ReassemblyOfEither, WhatExpiresWithoutItsFirstFragmentIsEmpty) {
  ASSERT_EQ(add(GetParam(), piece_of(32, 48, true)).outcome, Outcome::fragment_kept);
  now_ += 60 * kSecond;
  const std::vector<Got> expired = expire();
  ASSERT_EQ(expired.size(), 1U);
  EXPECT_EQ(expired[0].frame, Bytes{});
}

TEST_F(ReassemblyTest, ExpiryIsBoundedByItsBudget) {
  for (std::uint32_t id = 0; id < 10; ++id) {
    Piece piece = piece_of(0, 16, true);
    piece.id = id;
    add(Family::ipv4, piece);
    add(Family::ipv6, piece);
  }
  now_ += 60 * kSecond;
  EXPECT_EQ(expire(7).size(), 7U);
  EXPECT_EQ(expire(7).size(), 7U);
  EXPECT_EQ(expire(7).size(), 6U);
  EXPECT_EQ(reassembly_->under_way(), 0U);
}

TEST_F(ReassemblyTest, AFullTableGivesUpTheOldest) {
  const auto first_of = [](std::uint32_t number) {
    Piece piece = piece_of(0, 16, true);
    piece.id = number;
    return piece;
  };
  // Families take turns, so that the oldest is now of one and now of the other.
  const auto family_of = [](std::uint32_t number) {
    return number % 2 == 0 ? Family::ipv4 : Family::ipv6;
  };
  constexpr std::uint32_t kFull = Reassembly::kDatagrams;
  for (std::uint32_t i = 0; i < kFull; ++i, ++now_) {
    ASSERT_FALSE(add(family_of(i), first_of(i)).gave_up_oldest);
  }
  for (std::uint32_t i = kFull; i < kFull + 100; ++i, ++now_) {
    const Got got = add(family_of(i), first_of(i));
    ASSERT_EQ(got.outcome, Outcome::fragment_kept);
    ASSERT_TRUE(got.gave_up_oldest);
  }
  EXPECT_EQ(reassembly_->under_way(), kFull);
  // The oldest 100 are gone, all others can be completed.
  for (std::uint32_t i = 100; i < kFull + 100; ++i) {
    Piece last = piece_of(16, 8, false);
    last.id = i;
    ASSERT_EQ(add(family_of(i), last).outcome, Outcome::undecided) << i;
  }
  EXPECT_EQ(arena_.in_use(), 0U);
}

TEST_F(ReassemblyTest, WithoutABufferTheOldestIsGivenUpOrTheFragment) {
  std::vector<DatagramBuffers::Buffer> taken;
  for (std::size_t i = 0; i + 1 < Reassembly::kDatagrams; ++i) taken.push_back(arena_.get());
  Piece piece = piece_of(0, 16, true);
  EXPECT_FALSE(add(Family::ipv4, piece).gave_up_oldest);
  piece.id = 99;
  const Got got = add(Family::ipv4, piece);
  EXPECT_EQ(got.outcome, Outcome::fragment_kept);
  EXPECT_TRUE(got.gave_up_oldest);
  now_ += 31 * kSecond;
  expire();
  taken.push_back(arena_.get());
  EXPECT_EQ(add(Family::ipv4, piece).outcome, Outcome::drop_fragment_table_full);
  for (const auto& buffer : taken) arena_.put(buffer.handle);
}

TEST_F(ReassemblyTest, TheEndGivesBuffersBack) {
  add(Family::ipv4, piece_of(0, 16, true));
  add(Family::ipv6, piece_of(0, 16, true));
  EXPECT_EQ(arena_.in_use(), 2U);
  reassembly_.reset();
  EXPECT_EQ(arena_.in_use(), 0U);
}

// ---- Parsing ----

TEST_P(ReassemblyOfEither, TruncationAtEveryByteIsHarmless) {
  Piece piece = piece_of(0, 64, true);
  const Bytes frame = framed(ip_of(GetParam(), piece));
  for (std::size_t length = 0; length < frame.size(); ++length) {
    const Outcome got =
        add_frame({frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length)}).outcome;
    EXPECT_TRUE(got == Outcome::drop_truncated || got == Outcome::drop_bad_length)
        << length << ": " << name_of(got);
  }
}

// Headers of any lengths say what they like: no byte beyond the frame is read.
TEST_P(ReassemblyOfEither, RandomBytesAreHarmless) {
  Random random(4);
  for (int round = 0; round < 200'000; ++round) {
    Piece piece = piece_of(8 * (below(random, 4) == 0 ? below(random, 8192) : below(random, 4)),
                           below(random, 40), below(random, 2) == 0);
    piece.id = static_cast<std::uint32_t>(below(random, 300));
    constexpr std::array<std::uint8_t, 6> kProtocols = {kUdp, kTcp, kSctp, 60, 43, 0};
    piece.protocol = kProtocols[below(random, kProtocols.size())];
    for (std::uint8_t& byte : piece.payload) byte = static_cast<std::uint8_t>(random());
    if (GetParam() == Family::ipv6 && below(random, 2) == 0) {
      piece.first_extension = kIpv6HopByHop;
      piece.options.resize(8 * (1 + below(random, 3)));
      piece.options[0] = kIpv6Fragment;
      piece.options[1] = static_cast<std::uint8_t>(below(random, 4));
    }
    add(GetParam(), piece);
    now_ += 4;
    expire(4);
  }
  EXPECT_EQ(arena_.in_use(), reassembly_->under_way());
}

TEST_F(ReassemblyTest, AnAtomicFragmentIsAWholePacket) {
  Piece piece = piece_of(0, 16, false);
  piece.payload = {0, 1, 0, 53, 0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
  EXPECT_EQ(add(Family::ipv6, piece).outcome, Outcome::undecided);
  EXPECT_EQ(reassembly_->under_way(), 0U);
  EXPECT_EQ(arena_.foreign(), 0U);
}

TEST_F(ReassemblyTest, OnlyTheLastFragmentHeaderIsTakenOut) {
  const auto part = [](std::size_t offset, bool more) {
    Piece piece = piece_of(offset, 16, more);
    piece.options = {kIpv6Fragment, 0, 0, 0, 0, 0, 0, 1};  // an atomic one
    return piece;
  };
  EXPECT_EQ(add(Family::ipv6, part(0, true)).outcome, Outcome::fragment_kept);
  const Got whole = add(Family::ipv6, part(16, false));
  ASSERT_EQ(whole.outcome, Outcome::undecided);
  Piece expected = piece_of(0, 32, false);
  expected.id = 1;
  EXPECT_EQ(to_hex(whole.frame), to_hex(framed(ipv6(expected))));
}

}  // namespace
}  // namespace weir::test
