// SPDX-License-Identifier: Apache-2.0
#include "dataplane/net/addresses.h"

#include <gtest/gtest.h>

#include <string>
#include <unordered_set>

namespace weir {
namespace {

IpAddress ip(std::string_view text) {
  const auto address = IpAddress::parse(text);
  EXPECT_TRUE(address) << text;
  return address.value_or(IpAddress());
}

TEST(BigEndian, HoldsItsBytesInNetworkOrder) {
  const auto value = Be32::from_host(0x01020304);
  const auto bytes = std::bit_cast<std::array<std::uint8_t, 4>>(value);
  EXPECT_EQ(bytes, (std::array<std::uint8_t, 4>{1, 2, 3, 4}));
  EXPECT_EQ(value.host(), 0x01020304U);
  EXPECT_EQ(Be16::from_host(0xabcd).raw(), 0xcdab);
  EXPECT_EQ(Be64::from_raw(Be64::from_host(0x0102030405060708).raw()).host(), 0x0102030405060708U);
}

TEST(IpAddress, ReadsAndWritesBothFamilies) {
  for (const auto* text : {"0.0.0.0", "10.9.0.1", "255.255.255.255", "::", "::1", "2001:db8::1",
                           "2001:db8:1:2:3:4:5:6", "fe80::1", "::ffff:192.0.2.1"}) {
    EXPECT_EQ(ip(text).to_string(), text);
  }
  EXPECT_EQ(ip("2001:DB8:0:0::01").to_string(), "2001:db8::1");
  EXPECT_TRUE(ip("10.0.0.1").is_ipv4());
  EXPECT_EQ(ip("2001:db8::1").family(), Family::ipv6);
  EXPECT_EQ(ip("10.0.0.1").bit_width(), 32);
  EXPECT_EQ(ip("::").bit_width(), 128);
}

TEST(IpAddress, RefusesWhatIsNoAddress) {
  for (const auto text : {"",
                          " ",
                          "10",
                          "10.0.0",
                          "10.0.0.256",
                          "10.0.0.1.2",
                          "10.0.0.1 ",
                          " 10.0.0.1",
                          "10.0.0.1/24",
                          "10.0.0.1:80",
                          "010.0.0.1x",
                          "-1.0.0.0",
                          "1.2.3.4e",
                          "[::1]",
                          "::1::",
                          ":",
                          ":::",
                          "2001:db8",
                          "12345::",
                          "1:2:3:4:5:6:7:8:9",
                          "fe80::1%eth0",
                          "::1/128",
                          "www.example.org"}) {
    EXPECT_FALSE(IpAddress::parse(text)) << text;
  }
}

TEST(IpAddress, KeepsTheFamiliesApart) {
  EXPECT_NE(ip("0.0.0.0"), ip("::"));
  EXPECT_NE(ip("10.0.0.1"), ip("::ffff:10.0.0.1"));
  EXPECT_NE(ip("10.0.0.1"), ip("a00:1::"));  // the same leading bytes
  EXPECT_EQ(ip("10.0.0.1"), IpAddress(Ipv4Address{Be32::from_host(0x0a000001)}));
  EXPECT_EQ(ip("10.0.0.1").ipv4().value.host(), 0x0a000001U);
  EXPECT_EQ(IpAddress(ip("2001:db8::5").ipv6()), ip("2001:db8::5"));
}

TEST(IpAddress, OrdersIpv4Numerically) {
  EXPECT_LT(ip("9.255.255.255"), ip("10.0.0.0"));
  EXPECT_LT(ip("10.0.0.2"), ip("10.0.0.10"));
  EXPECT_LT(ip("2001:db8::2"), ip("2001:db8::10"));
}

TEST(IpAddress, KnowsSpecialAddresses) {
  EXPECT_TRUE(ip("0.0.0.0").is_unspecified());
  EXPECT_TRUE(ip("::").is_unspecified());
  EXPECT_FALSE(ip("0.0.0.1").is_unspecified());

  for (const auto* text : {"224.0.0.18", "239.255.255.255", "ff02::12"}) {
    EXPECT_TRUE(ip(text).is_multicast()) << text;
  }
  for (const auto* text : {"223.255.255.255", "240.0.0.0", "fe80::1", "e000::"}) {
    EXPECT_FALSE(ip(text).is_multicast()) << text;
  }

  for (const auto* text : {"127.0.0.1", "127.255.0.9", "::1"}) {
    EXPECT_TRUE(ip(text).is_loopback()) << text;
  }
  for (const auto* text : {"128.0.0.1", "::", "::2", "1::1", "7f00::1"}) {
    EXPECT_FALSE(ip(text).is_loopback()) << text;
  }

  for (const auto* text : {"10.0.0.1", "127.0.0.1", "255.255.255.254", "fe80::1"}) {
    EXPECT_TRUE(ip(text).is_unicast()) << text;
  }
  for (const auto* text : {"0.0.0.0", "::", "224.0.0.18", "ff02::12", "255.255.255.255"}) {
    EXPECT_FALSE(ip(text).is_unicast()) << text;
  }
}

TEST(IpAddress, MasksBitByBit) {
  EXPECT_EQ(ip("255.255.255.255").masked(0), ip("0.0.0.0"));
  EXPECT_EQ(ip("255.255.255.255").masked(1), ip("128.0.0.0"));
  EXPECT_EQ(ip("10.1.2.3").masked(23), ip("10.1.2.0"));
  EXPECT_EQ(ip("10.1.3.3").masked(23), ip("10.1.2.0"));
  EXPECT_EQ(ip("10.1.2.3").masked(32), ip("10.1.2.3"));
  EXPECT_EQ(ip("2001:db8:ffff::1").masked(33), ip("2001:db8:8000::"));
  EXPECT_EQ(ip("2001:db8::1").masked(128), ip("2001:db8::1"));
  EXPECT_EQ(ip("2001:db8::1").masked(0), ip("::"));
  for (int length = 0; length <= 32; ++length) {
    const std::uint32_t mask = length == 0 ? 0 : ~std::uint32_t{0} << (32 - length);
    EXPECT_EQ(ip("203.0.113.199").masked(length).ipv4().value.host(), 0xcb0071c7U & mask);
  }
}

TEST(IpPrefix, ContainsItsOwnFamilyOnly) {
  const IpPrefix ten{ip("10.0.0.0"), 8};
  EXPECT_TRUE(ten.contains(ip("10.255.255.255")));
  EXPECT_FALSE(ten.contains(ip("11.0.0.0")));
  EXPECT_FALSE(ten.contains(ip("a00::")));
  const IpPrefix all{ip("::"), 0};
  EXPECT_TRUE(all.contains(ip("ffff::")));
  EXPECT_FALSE(all.contains(ip("0.0.0.0")));
}

TEST(IpAddress, HashesSpread) {
  std::unordered_set<std::size_t> hashes;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    hashes.insert(std::hash<IpAddress>{}(Ipv4Address{Be32::from_host(0x0a000000 + i)}));
  }
  EXPECT_EQ(hashes.size(), 65536U);
}

TEST(MacAddress, ReadsAndWrites) {
  const auto mac = MacAddress::parse("02:00:5E:00:aB:ff");
  ASSERT_TRUE(mac);
  EXPECT_EQ(mac->bytes, (std::array<std::uint8_t, 6>{0x02, 0x00, 0x5e, 0x00, 0xab, 0xff}));
  EXPECT_EQ(mac->to_string(), "02:00:5e:00:ab:ff");
  for (const auto* text :
       {"", "02:00:5e:00:ab", "02:00:5e:00:ab:f", "02:00:5e:00:ab:fg", "02-00-5e-00-ab-ff",
        "02:00:5e:00:ab:ff:", "0200:5e:00:ab:ff0", "02:00:5e:00:ab:@f", "02:00:5e:00:ab: f"}) {
    EXPECT_FALSE(MacAddress::parse(text)) << text;
  }
}

}  // namespace
}  // namespace weir
