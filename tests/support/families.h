// SPDX-License-Identifier: Apache-2.0
// The four ways of fullnat in the network of burst_lab.h: within a family and to the other one.
#pragma once

#include <string>

namespace weir::test {

struct Families {
  std::string name;
  std::string client;
  std::string vip;
  std::string server;
  std::string first_local;
  std::string last_local;
};

inline const Families kIpv4 = {"ipv4",     "10.1.0.1",   "10.9.0.1",
                               "10.2.0.1", "10.2.0.200", "10.2.0.203"};
inline const Families kIpv6 = {"ipv6",          "2001:db8:1::1",  "2001:db8:9::1",
                               "2001:db8:2::1", "2001:db8:2::c8", "2001:db8:2::cb"};
inline const Families kNat64 = {"nat64",    "2001:db8:1::1", "2001:db8:9::1",
                                "10.2.0.1", "10.2.0.200",    "10.2.0.203"};
inline const Families kNat46 = {"nat46",         "10.1.0.1",       "10.9.0.1",
                                "2001:db8:2::1", "2001:db8:2::c8", "2001:db8:2::cb"};

// The last argument of INSTANTIATE_TEST_SUITE_P.
inline constexpr auto kNameOfFamilies = [](const auto& each) { return each.param.name; };

}  // namespace weir::test
