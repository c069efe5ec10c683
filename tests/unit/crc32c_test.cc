// SPDX-License-Identifier: Apache-2.0
// CRC32c against the vectors of RFC 3720 appendix B.4 and against its definition, bit by bit.
#include "dataplane/net/crc32c.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string_view>
#include <vector>

#include "tests/support/random.h"

namespace weir {
namespace {

using Bytes = std::vector<std::uint8_t>;

std::uint32_t crc32c(const Bytes& bytes) {
  return ~crc32c_add(0xffffffffU, bytes.data(), bytes.size());
}

// The polynomial of RFC 3720 section 12.1, reflected.
std::uint32_t crc32c_by_bits(const Bytes& bytes) {
  std::uint32_t state = 0xffffffffU;
  for (const std::uint8_t byte : bytes) {
    state ^= byte;
    for (int bit = 0; bit < 8; ++bit) {
      state = (state >> 1) ^ ((state & 1U) != 0 ? 0x82f63b78U : 0U);
    }
  }
  return ~state;
}

Bytes random_bytes(test::Random& random, std::size_t length) {
  Bytes bytes(length);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

// The RFC lists the bytes as they are sent, least significant first.
TEST(Crc32c, VectorsOfRfc3720) {
  EXPECT_EQ(crc32c(Bytes(32, 0)), 0x8a9136aaU);
  EXPECT_EQ(crc32c(Bytes(32, 0xff)), 0x62a8ab43U);
  Bytes counting(32);
  std::iota(counting.begin(), counting.end(), std::uint8_t{0});
  EXPECT_EQ(crc32c(counting), 0x46dd794eU);
  std::reverse(counting.begin(), counting.end());
  EXPECT_EQ(crc32c(counting), 0x113fdb5cU);
  const Bytes scsi_read = {0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0,    0, 0, 0, 0,
                           0x14, 0,    0, 0, 0, 0, 4, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
                           0x28, 0,    0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0,    0, 0, 0, 0};
  EXPECT_EQ(crc32c(scsi_read), 0xd9963a56U);
}

TEST(Crc32c, EveryLengthAndAlignment) {
  test::Random random(1);
  for (std::size_t length = 0; length < 100; ++length) {
    const Bytes bytes = random_bytes(random, length);
    EXPECT_EQ(crc32c(bytes), crc32c_by_bits(bytes)) << length;
    for (std::size_t cut = 0; cut <= length; cut += 3) {
      const std::uint32_t first = crc32c_add(0xffffffffU, bytes.data(), cut);
      EXPECT_EQ(~crc32c_add(first, bytes.data() + cut, length - cut), crc32c(bytes)) << cut;
    }
  }
}

TEST(Crc32c, ZerosAreBytesThatAreZero) {
  test::Random random(2);
  for (std::size_t length = 0; length < 100; ++length) {
    const auto state = static_cast<std::uint32_t>(random());
    const Bytes zeros(length, 0);
    EXPECT_EQ(crc32c_add_zeros(state, length), crc32c_add(state, zeros.data(), length)) << length;
  }
}

TEST(Crc32c, AChangeAddsItsOwnRegister) {
  test::Random random(3);
  for (std::size_t length = 4; length < 2000; length += 37) {
    const Bytes before = random_bytes(random, length);
    Bytes after = before;
    Bytes change(4);
    for (std::size_t i = 0; i < change.size(); ++i) {
      after[i] = static_cast<std::uint8_t>(random());
      change[i] = before[i] ^ after[i];
    }
    const std::uint32_t of_change =
        crc32c_add_zeros(crc32c_add(0, change.data(), change.size()), length - change.size());
    EXPECT_EQ(crc32c(before) ^ of_change, crc32c_by_bits(after)) << length;
  }
}

}  // namespace
}  // namespace weir
