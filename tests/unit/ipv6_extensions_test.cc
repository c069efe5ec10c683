// SPDX-License-Identifier: Apache-2.0
// The walk over IPv6 extension headers, behind a field that says what comes first.
#include "dataplane/net/ipv6_extensions.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace weir {
namespace {

constexpr std::uint8_t kTcp = 6;

// The chain as it lies in a packet: what the first header is, then the headers.
class Chain {
 public:
  void add(std::uint8_t kind, std::size_t units = 1) {
    bytes_[last_] = kind;
    last_ = bytes_.size();
    bytes_.resize(bytes_.size() + units * 8, 0xee);
    bytes_[last_ + 1] = static_cast<std::uint8_t>(units - 1);
  }
  void end(std::uint8_t transport, std::size_t bytes) {
    bytes_[last_] = transport;
    bytes_.resize(bytes_.size() + bytes, 0xcc);
  }
  Ipv6Extensions walk(std::size_t cut = 0) {
    return {bytes_.data(), Reader(bytes_.data() + 1, bytes_.size() - 1 - cut)};
  }
  std::uint8_t* last() { return bytes_.data() + last_; }

 private:
  std::vector<std::uint8_t> bytes_ = std::vector<std::uint8_t>(1);
  std::size_t last_ = 0;
};

Chain one_of_each() {
  Chain chain;
  chain.add(kIpv6HopByHop);
  chain.add(kIpv6DestinationOptions, 3);
  chain.add(kIpv6Routing, 2);
  chain.add(kIpv6Fragment);
  chain.last()[1] = 0xff;  // reserved, not a length
  chain.add(kIpv6DestinationOptions);
  chain.end(kTcp, 20);
  return chain;
}

TEST(Ipv6Extensions, EndsAtWhatIsNone) {
  Chain chain = one_of_each();
  Ipv6Extensions walk = chain.walk();
  std::vector<std::uint8_t> kinds;
  while (walk.at_extension()) {
    kinds.push_back(walk.next());
    ASSERT_TRUE(walk.pass());
  }
  EXPECT_EQ(kinds, (std::vector<std::uint8_t>{kIpv6HopByHop, kIpv6DestinationOptions, kIpv6Routing,
                                              kIpv6Fragment, kIpv6DestinationOptions}));
  EXPECT_EQ(walk.next(), kTcp);
  EXPECT_EQ(walk.next_field(), chain.last());
  EXPECT_EQ(walk.reader().left(), 20U);
}

TEST(Ipv6Extensions, StopsWhereAHeaderIsCutOff) {
  Chain chain = one_of_each();
  constexpr std::size_t kExtensions = 64;
  for (std::size_t left = 0; left < kExtensions; ++left) {
    Ipv6Extensions walk = chain.walk(kExtensions + 20 - left);
    while (walk.at_extension() && walk.pass()) {
    }
    EXPECT_TRUE(walk.at_extension()) << left;
    EXPECT_LE(walk.reader().left(), left);
  }
}

TEST(Ipv6Extensions, PassesSoManyAndNoMore) {
  Chain chain;
  for (int i = 0; i <= Ipv6Extensions::kMost; ++i) chain.add(kIpv6DestinationOptions);
  Ipv6Extensions walk = chain.walk();
  int passed = 0;
  while (walk.pass()) ++passed;
  EXPECT_EQ(passed, Ipv6Extensions::kMost);
  EXPECT_TRUE(walk.has_passed_most());
  EXPECT_EQ(walk.reader().left(), 8U);
}

}  // namespace
}  // namespace weir
