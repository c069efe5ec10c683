// SPDX-License-Identifier: Apache-2.0
// Packets cut, judged by scapy's fragments (make_fragments.py) and by putting the pieces together.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "dataplane/path/fragmentation.h"
#include "tests/support/random.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::size_t kEthernet = 14;
constexpr std::uint32_t kId = 0x01234321;

// Exactly as long as its bytes, so that a sanitizer sees a read beyond them.
struct Whole {
  Whole(const Bytes& ip, std::uint16_t size, std::size_t link = kEthernet) : bytes(link) {
    for (std::size_t i = 0; i < link; ++i) bytes[i] = static_cast<std::uint8_t>(0xa0 + i);
    bytes.insert(bytes.end(), ip.begin(), ip.end());
    bytes.shrink_to_fit();
    packet.frame = bytes.data();
    packet.ip = bytes.data() + link;
    packet.length = static_cast<std::uint16_t>(bytes.size());
    packet.ip_length = static_cast<std::uint16_t>(ip.size());
    packet.family = ip[0] >> 4 == 4 ? Family::ipv4 : Family::ipv6;
    packet.fragment_size = size;
  }
  Bytes bytes;
  Packet packet;
};

std::vector<Bytes> cut(const Whole& whole, std::uint32_t id = kId) {
  std::vector<Bytes> pieces;
  FragmentCutter cutter(whole.packet, id);
  while (const std::size_t length = cutter.next_length()) {
    Bytes piece(length);
    piece.shrink_to_fit();
    cutter.write_next(piece.data());
    pieces.push_back(std::move(piece));
    if (pieces.size() > 70'000) break;
  }
  return pieces;
}

Bytes from_ip(const Bytes& frame, std::size_t link = kEthernet) {
  return {frame.begin() + static_cast<std::ptrdiff_t>(link), frame.end()};
}

std::size_t below(Random& random, std::size_t bound) { return random() % bound; }

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

TEST(Fragmentation, CutsAsScapyDoes) {
  const json::value data = read_json("packets/fragments.json");
  std::size_t checked = 0;
  for (const json::value& entry : data.at("cuts").as_array()) {
    SCOPED_TRACE(text(entry.at("name")));
    const Whole whole(from_hex(text(entry.at("packet"))),
                      entry.at("size").to_number<std::uint16_t>());
    const std::vector<Bytes> pieces = cut(whole, entry.at("id").to_number<std::uint32_t>());
    const json::array& expected = entry.at("pieces").as_array();
    ASSERT_EQ(pieces.size(), expected.size());
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_TRUE(
          std::equal(pieces[i].begin(), pieces[i].begin() + kEthernet, whole.bytes.begin()));
      EXPECT_EQ(to_hex(from_ip(pieces[i])), text(expected[i])) << i;
      ++checked;
    }
  }
  EXPECT_GT(checked, 90U);
}

Bytes ipv4_packet(std::size_t length, std::uint16_t id, std::uint16_t flags) {
  Bytes ip(length);
  for (std::size_t i = 20; i < length; ++i) ip[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
  ip[0] = 0x45;
  ip[2] = static_cast<std::uint8_t>(length >> 8);
  ip[3] = static_cast<std::uint8_t>(length);
  ip[4] = static_cast<std::uint8_t>(id >> 8);
  ip[5] = static_cast<std::uint8_t>(id);
  ip[6] = static_cast<std::uint8_t>(flags >> 8);
  ip[8] = 64;
  ip[9] = 17;
  return ip;
}

Bytes ipv6_packet(std::size_t length) {
  Bytes ip(length);
  for (std::size_t i = 40; i < length; ++i) ip[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
  ip[0] = 0x60;
  ip[4] = static_cast<std::uint8_t>((length - 40) >> 8);
  ip[5] = static_cast<std::uint8_t>(length - 40);
  ip[6] = 17;
  ip[7] = 64;
  return ip;
}

unsigned be16(const Bytes& bytes, std::size_t at) { return bytes[at] * 256U + bytes[at + 1]; }

// Every byte of the payload once and in its place; lengths, offsets, flags as RFC 791 and RFC 8200
// say; no piece but the last smaller than it may be.
void check_pieces(const Bytes& ip, const std::vector<Bytes>& pieces, std::size_t size) {
  const bool v4 = ip[0] >> 4 == 4;
  const std::size_t header = v4 ? 20 : 40;
  const std::size_t headers = v4 ? 20 : 48;
  Bytes payload;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Bytes piece = from_ip(pieces[i]);
    const bool last = i + 1 == pieces.size();
    ASSERT_LE(piece.size(), size);
    if (!last) {
      ASSERT_GT(piece.size() + 8, size);
    }
    ASSERT_EQ(v4 ? be16(piece, 2) : be16(piece, 4) + 40U, piece.size());
    if (v4) {
      ASSERT_EQ(be16(piece, 6) & 0x2000U, last ? 0U : 0x2000U);
      ASSERT_EQ((be16(piece, 6) & 0x1fffU) * 8, payload.size());
      ASSERT_EQ(internet_checksum({piece.data(), 20}), 0U);
    } else {
      ASSERT_EQ(piece[6], 44);
      ASSERT_EQ(piece[40], 17);
      ASSERT_EQ(be16(piece, 42), payload.size() + (last ? 0 : 1));
      ASSERT_EQ(be16(piece, 44) << 16 | be16(piece, 46), kId);
    }
    payload.insert(payload.end(), piece.begin() + static_cast<std::ptrdiff_t>(headers),
                   piece.end());
  }
  EXPECT_TRUE(std::equal(payload.begin(), payload.end(),
                         ip.begin() + static_cast<std::ptrdiff_t>(header), ip.end()));
}

TEST(Fragmentation, PiecesOfRandomSizesAreThePacket) {
  Random random(7);
  for (int round = 0; round < 400; ++round) {
    const std::size_t size = (round % 2 == 0 ? 68 : 1280) + below(random, 1500);
    const std::size_t length = size + 1 + below(random, round % 10 == 0 ? 60'000 : 5'000);
    const Bytes ip = round % 2 == 0 ? ipv4_packet(length, 77, 0) : ipv6_packet(length);
    SCOPED_TRACE(std::to_string(length) + " by " + std::to_string(size));
    check_pieces(ip, cut(Whole(ip, static_cast<std::uint16_t>(size))), size);
    if (HasFatalFailure()) return;
  }
}

TEST(Fragmentation, APacketThatFitsIsOnePieceUnchanged) {
  for (const std::uint16_t size : {std::uint16_t{0}, std::uint16_t{300}}) {
    const Whole whole(ipv4_packet(300, 1, 0x4000), size);
    EXPECT_FALSE(is_to_be_cut(whole.packet));
    const std::vector<Bytes> pieces = cut(whole);
    ASSERT_EQ(pieces.size(), 1U);
    EXPECT_EQ(pieces[0], whole.bytes);
  }
}

TEST(Fragmentation, TheVlanTagIsRepeated) {
  const Whole whole(ipv4_packet(300, 1, 0), 200, kEthernet + 4);
  const std::vector<Bytes> pieces = cut(whole);
  ASSERT_EQ(pieces.size(), 2U);
  for (const Bytes& piece : pieces) {
    EXPECT_TRUE(std::equal(piece.begin(), piece.begin() + 18, whole.bytes.begin()));
  }
  EXPECT_EQ(pieces[0].size(), 18U + 196U);
}

TEST(Fragmentation, DfWithoutIdGetsAFreshIdAndKeepsDf) {
  for (const Bytes& piece : cut(Whole(ipv4_packet(300, 0, 0x4000), 200))) {
    EXPECT_EQ(be16(piece, kEthernet + 4), kId & 0xffffU);
    EXPECT_EQ(be16(piece, kEthernet + 6) & 0x4000U, 0x4000U);
    EXPECT_TRUE(ipv4_checksum_ok(piece, kEthernet));
  }
  for (const Bytes& piece : cut(Whole(ipv4_packet(300, 5, 0x4000), 200))) {
    EXPECT_EQ(be16(piece, kEthernet + 4), 5U);
  }
  for (const Bytes& piece : cut(Whole(ipv4_packet(300, 0, 0), 200))) {
    EXPECT_EQ(be16(piece, kEthernet + 4), 0U);
  }
}

TEST(Fragmentation, NoRoomForPayloadIsNoPieces) {
  for (const std::uint16_t size : std::array<std::uint16_t, 3>{1, 20, 27}) {
    EXPECT_TRUE(cut(Whole(ipv4_packet(300, 1, 0), size)).empty()) << size;
  }
}

TEST(Fragmentation, PiecesOfIpv6AreNotSmallerThanEveryLinkTakes) {
  EXPECT_EQ(cut(Whole(ipv6_packet(1280), 100)).size(), 1U);
  const Bytes ip = ipv6_packet(1281);
  check_pieces(ip, cut(Whole(ip, 100)), 1280);
}

// Options that the sender made up: nothing is read or written beyond the header.
TEST(Fragmentation, BadOptionsStayWithinTheHeader) {
  Random random(3);
  for (int round = 0; round < 2000; ++round) {
    Bytes ip = ipv4_packet(200, 1, 0);
    const std::size_t header = 24 + 4 * below(random, 10);
    ip[0] = static_cast<std::uint8_t>(0x40 + header / 4);
    for (std::size_t i = 20; i < header; ++i) ip[i] = static_cast<std::uint8_t>(below(random, 256));
    Bytes payload;
    for (const Bytes& frame : cut(Whole(ip, 100))) {
      ASSERT_EQ(internet_checksum({frame.data() + kEthernet, header}), 0U);
      payload.insert(payload.end(), frame.begin() + static_cast<std::ptrdiff_t>(kEthernet + header),
                     frame.end());
    }
    ASSERT_TRUE(std::equal(payload.begin(), payload.end(),
                           ip.begin() + static_cast<std::ptrdiff_t>(header), ip.end()));
  }
}

}  // namespace
}  // namespace weir::test
