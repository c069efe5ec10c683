// SPDX-License-Identifier: Apache-2.0
// Pools of local addresses: ranges in, addresses out.
#include "control/model/local_pools.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "control/model/text_forms.h"
#include "tests/support/lab_services.h"

namespace weir::test {
namespace {

using absl::StatusCode;

AddressRange range(const std::string& text) {
  const auto parsed = parse_address_range(text);
  if (!parsed) throw std::runtime_error(text);
  return *parsed;
}

const ServiceKey kWeb = service_key(Protocol::tcp, "10.9.0.1", 80);
const ServiceKey kDns = service_key(Protocol::udp, "10.9.0.1", 53);

std::vector<std::string> texts(const LocalAddresses& pool) {
  std::vector<std::string> list;
  for (const Ipv4Address& address : pool.ipv4) list.push_back(IpAddress(address).to_string());
  for (const Ipv6Address& address : pool.ipv6) list.push_back(IpAddress(address).to_string());
  return list;
}

TEST(LocalPools, a_service_has_its_own_addresses_of_a_family_or_those_for_all) {
  LocalPools pools;
  EXPECT_TRUE(texts(*pools.of(kWeb)).empty());
  must(pools.add(range("10.2.0.255-10.2.1.1"), std::nullopt));
  must(pools.add(range("2001:db8::ff-2001:db8::100"), std::nullopt));
  must(pools.add(range("10.3.0.1"), kWeb));
  EXPECT_EQ(texts(*pools.of(kWeb)),
            (std::vector<std::string>{"10.3.0.1", "2001:db8::ff", "2001:db8::100"}));
  EXPECT_EQ(texts(*pools.of(kDns)), (std::vector<std::string>{"10.2.0.255", "10.2.1.0", "10.2.1.1",
                                                              "2001:db8::ff", "2001:db8::100"}));
  EXPECT_EQ(pools.addresses().size(), 6U);
  pools.forget(kWeb);
  EXPECT_EQ(pools.of(kWeb), pools.of(kDns));
}

TEST(LocalPools, what_does_not_change_is_the_same_object) {
  LocalPools pools;
  must(pools.add(range("10.2.0.1"), std::nullopt));
  must(pools.add(range("10.3.0.1"), kWeb));
  const auto web = pools.of(kWeb);
  const auto dns = pools.of(kDns);
  must(pools.add(range("10.3.0.2"), kDns));
  EXPECT_EQ(pools.of(kWeb), web);
  EXPECT_NE(pools.of(kDns), dns);
  must(pools.remove(range("10.3.0.2"), kDns));
  EXPECT_EQ(pools.of(kDns), dns);
  must(pools.add(range("10.2.0.2"), std::nullopt));
  EXPECT_EQ(pools.of(kWeb), web) << "it has addresses of its own";
}

TEST(LocalPools, impossible_ranges_are_refused_and_leave_nothing_behind) {
  LocalPools pools;
  must(pools.add(range("10.2.0.10-10.2.0.20"), std::nullopt));
  const auto code = [&](const AddressRange& wanted) {
    return pools.add(wanted, std::nullopt).code();
  };
  EXPECT_EQ(code({address_of("10.2.0.9"), address_of("10.2.0.8")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({address_of("10.2.0.9"), address_of("2001:db8::1")}),
            StatusCode::kInvalidArgument);
  for (const char* text :
       {"0.0.0.0", "224.0.0.1", "127.0.0.1", "255.255.255.255", "::1", "ff02::1"})
    EXPECT_EQ(code(range(text)), StatusCode::kInvalidArgument) << text;
  for (const char* text : {"10.2.0.10", "10.2.0.20-10.2.0.30", "10.2.0.0/24", "10.2.0.12"})
    EXPECT_EQ(code(range(text)), StatusCode::kAlreadyExists) << text;
  EXPECT_EQ(code(range("10.4.0.0/20")), StatusCode::kResourceExhausted);
  EXPECT_EQ(code(range("2001:db8::/32")), StatusCode::kResourceExhausted);
  EXPECT_TRUE(pools.add(range("10.2.0.10"), kWeb).ok()) << "another pool";
  EXPECT_EQ(pools.remove(range("10.2.0.10-10.2.0.19"), std::nullopt).code(), StatusCode::kNotFound);
  EXPECT_EQ(pools.remove(range("10.2.0.10-10.2.0.20"), kDns).code(), StatusCode::kNotFound);
  EXPECT_EQ(pools.addresses().size(), 11U);
  must(pools.add(range("10.5.0.0-10.5.15.243"), kDns));
  EXPECT_EQ(pools.addresses().size(), LocalPools::kMaxAddresses - 1) << "10.2.0.10 counts twice";
}

}  // namespace
}  // namespace weir::test
