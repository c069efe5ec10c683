// SPDX-License-Identifier: Apache-2.0
#include "dataplane/net/checksum.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>
#include <vector>

namespace weir {
namespace {

using Bytes = std::vector<std::uint8_t>;

// RFC 1071 as it is written: 16-bit words in network order, carries added back one by one.
std::uint16_t plain_checksum(const Bytes& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    const std::uint32_t low = i + 1 < bytes.size() ? bytes[i + 1] : 0;
    sum += (std::uint32_t{bytes[i]} << 8U) + low;
    if (sum > 0xffff) sum -= 0xffff;
  }
  return static_cast<std::uint16_t>(~sum);
}

// Zero has two forms in one's complement.
bool same_sum(std::uint16_t a, std::uint16_t b) { return a % 0xffff == b % 0xffff; }

// Random bytes with many of the values at which carries go wrong.
class EdgyBytes {
 public:
  explicit EdgyBytes(unsigned seed) : random_(seed) {}

  std::uint8_t byte() {
    static constexpr std::array<std::uint8_t, 6> kEdges = {0x00, 0xff, 0x00, 0xff, 0x01, 0xfe};
    const auto value = random_();
    return (value & 1U) != 0 ? kEdges[(value >> 8U) % kEdges.size()]
                             : static_cast<std::uint8_t>(value >> 8U);
  }
  Bytes bytes(std::size_t count) {
    Bytes result(count);
    for (auto& one : result) one = byte();
    return result;
  }
  std::size_t below(std::size_t end) { return random_() % end; }

 private:
  std::mt19937 random_;
};

template <class Field>
Field field_at(const Bytes& bytes, std::size_t at) {
  return load<Field>(bytes.data() + at);
}

// Replaces a Field of a random message and compares the updated checksum with a new one.
template <class Field>
void check_replacement(EdgyBytes& source) {
  Bytes message = source.bytes(64);
  message[63] = 1;  // a sum of nothing but zeros has the other form of zero
  const std::size_t at = source.below((62 - sizeof(Field)) / 2 + 1) * 2;
  const Bytes replacement = source.bytes(sizeof(Field));

  Be16 checksum = Be16::from_host(plain_checksum(message));
  ChecksumDelta delta;
  delta.replace(field_at<Field>(message, at), field_at<Field>(replacement, 0));
  delta.apply(checksum);

  std::ranges::copy(replacement, message.begin() + static_cast<std::ptrdiff_t>(at));
  ASSERT_EQ(checksum.host(), plain_checksum(message));
}

TEST(Checksum, IsThatOfTheExamplesOfTheRfcs) {
  const Bytes rfc1071 = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(checksum_finish(checksum_add(rfc1071.data(), rfc1071.size())).host(), 0x220d);
  // RFC 1624 section 4, where equation 2 fails.
  Be16 checksum = Be16::from_host(0xdd2f);
  ChecksumDelta delta;
  delta.replace(Be16::from_host(0x5555), Be16::from_host(0x3285));
  delta.apply(checksum);
  EXPECT_EQ(checksum.host(), 0x0000);
}

TEST(Checksum, EqualsThePlainSumAtEveryLength) {
  EdgyBytes source(1);
  for (std::size_t length = 0; length < 200; ++length) {
    for (int i = 0; i < 20; ++i) {
      const Bytes bytes = source.bytes(length);
      ASSERT_EQ(checksum_finish(checksum_add(bytes.data(), length)).host(), plain_checksum(bytes))
          << length;
    }
  }
}

TEST(Checksum, AddsUpPieceByPiece) {
  EdgyBytes source(2);
  for (int i = 0; i < 2000; ++i) {
    const Bytes bytes = source.bytes(2 + source.below(100));
    const std::size_t cut = source.below(bytes.size() / 2 + 1) * 2;
    const auto sum = checksum_add(bytes.data(), cut);
    const auto whole = checksum_add(bytes.data() + cut, bytes.size() - cut, sum);
    ASSERT_EQ(checksum_finish(whole).host(), plain_checksum(bytes));
  }
}

TEST(Checksum, FoldsTheLargestSums) {
  const Bytes ones(65536, 0xff);
  EXPECT_EQ(checksum_finish(checksum_add(ones.data(), ones.size())).host(), 0x0000);
  EXPECT_EQ(fold_checksum(~std::uint64_t{0}), 0xffff);
}

TEST(ChecksumDelta, EqualsRecomputation) {
  EdgyBytes source(3);
  for (int i = 0; i < 50'000; ++i) {
    check_replacement<Be16>(source);
    check_replacement<Be32>(source);
    check_replacement<Ipv4Address>(source);
    check_replacement<Ipv6Address>(source);
    if (HasFatalFailure()) return;
  }
}

TEST(ChecksumDelta, TakesSeveralFieldsAtOnce) {
  EdgyBytes source(4);
  for (int i = 0; i < 20'000; ++i) {
    Bytes message = source.bytes(40);
    message[39] = 1;
    const Bytes replacement = source.bytes(26);
    Be16 checksum = Be16::from_host(plain_checksum(message));
    ChecksumDelta delta;
    delta.replace(field_at<Ipv6Address>(message, 0), field_at<Ipv6Address>(replacement, 0));
    delta.replace(field_at<Ipv4Address>(message, 16), field_at<Ipv4Address>(replacement, 16));
    delta.replace(field_at<Be32>(message, 20), field_at<Be32>(replacement, 20));
    delta.replace(field_at<Be16>(message, 24), field_at<Be16>(replacement, 24));
    delta.apply(checksum);
    std::ranges::copy(replacement, message.begin());
    ASSERT_EQ(checksum.host(), plain_checksum(message));
  }
}

// All 16-bit edges, also with a checksum of 0xffff, which only UDP sends.
TEST(ChecksumDelta, IsRightAtBothFormsOfZero) {
  constexpr std::array<std::uint16_t, 6> kEdges = {0x0000, 0x0001, 0x7fff, 0x8000, 0xfffe, 0xffff};
  for (const auto before : kEdges) {
    for (const auto from : kEdges) {
      for (const auto to : kEdges) {
        Be16 checksum = Be16::from_host(before);
        ChecksumDelta delta;
        delta.replace(Be16::from_host(from), Be16::from_host(to));
        delta.apply(checksum);
        // before - (to - from), in one's complement.
        const auto expected =
            static_cast<std::uint16_t>((before + from + 2 * 0xffffU - to) % 0xffffU);
        EXPECT_TRUE(same_sum(checksum.host(), expected))
            << std::hex << before << " " << from << " " << to << " " << checksum.host();
      }
    }
  }
}

TEST(ChecksumDelta, LeavesAWrongChecksumAsWrongAsItWas) {
  EdgyBytes source(5);
  for (int i = 0; i < 20'000; ++i) {
    Bytes message = source.bytes(20);
    message[19] = 1;
    const auto error = static_cast<std::uint16_t>(1 + source.below(0xfffe));
    const auto wrong = static_cast<std::uint16_t>(plain_checksum(message) + error);
    if (same_sum(wrong, plain_checksum(message))) continue;
    Be16 checksum = Be16::from_host(wrong);
    const Bytes replacement = source.bytes(4);
    ChecksumDelta delta;
    delta.replace(field_at<Be32>(message, 4), field_at<Be32>(replacement, 0));
    delta.apply(checksum);
    std::ranges::copy(replacement, message.begin() + 4);
    ASSERT_FALSE(same_sum(checksum.host(), plain_checksum(message)));
  }
}

TEST(PseudoHeader, IsSummedAsItsBytes) {
  const auto source = *IpAddress::parse("192.0.2.1");
  const auto destination = *IpAddress::parse("198.51.100.255");
  const Bytes ipv4 = {192, 0, 2, 1, 198, 51, 100, 255, 0, 6, 0x12, 0x34};
  EXPECT_EQ(
      checksum_finish(pseudo_header_sum(source.ipv4(), destination.ipv4(), Protocol::tcp, 0x1234))
          .host(),
      plain_checksum(ipv4));

  const auto source6 = *IpAddress::parse("2001:db8::1");
  const auto destination6 = *IpAddress::parse("2001:db8:ffff::ff");
  Bytes ipv6(source6.bytes().begin(), source6.bytes().end());
  ipv6.insert(ipv6.end(), destination6.bytes().begin(), destination6.bytes().end());
  const Bytes rest = {0x00, 0x01, 0x23, 0x45, 0, 0, 0, 17};
  ipv6.insert(ipv6.end(), rest.begin(), rest.end());
  EXPECT_EQ(checksum_finish(
                pseudo_header_sum(source6.ipv6(), destination6.ipv6(), Protocol::udp, 0x12345))
                .host(),
            plain_checksum(ipv6));
}

}  // namespace
}  // namespace weir
