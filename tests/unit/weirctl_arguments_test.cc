// SPDX-License-Identifier: Apache-2.0
// weirctl's own arguments: every form that --help names, and what is not understood.
#include "control/cli/weirctl_arguments.h"

#include <gtest/gtest.h>

#include <sstream>
#include <vector>

#include "control/model/text_forms.h"

namespace weir {
namespace {

std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> list;
  for (std::string word; stream >> word;) list.push_back(word);
  return list;
}

std::string error_of(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(WeirctlArguments, ranges_of_local_addresses) {
  struct Case {
    const char* text;
    const char* first;
    const char* last;
  };
  for (const Case& c : {
           Case{"10.2.0.1", "10.2.0.1", "10.2.0.1"},
           Case{"10.2.0.250-10.2.1.3", "10.2.0.250", "10.2.1.3"},
           Case{"10.2.0.9/29", "10.2.0.8", "10.2.0.15"},
           Case{"10.2.0.9/32", "10.2.0.9", "10.2.0.9"},
           Case{"2001:db8::1-2001:db8::2", "2001:db8::1", "2001:db8::2"},
           Case{"2001:db8::5/126", "2001:db8::4", "2001:db8::7"},
       }) {
    const auto command = parse_local_address(words(c.text));
    ASSERT_TRUE(command.ok()) << c.text << command.status();
    EXPECT_EQ(command->range.first.to_string(), c.first);
    EXPECT_EQ(command->range.last.to_string(), c.last);
    EXPECT_FALSE(command->service);
  }
  for (const char* text : {"", "10.2.0", "10.2.0.1-", "-10.2.0.1", "10.2.0.1/33", "10.2.0.1/",
                           "10.2.0.1 tcp", "10.2.0.1 tcp 10.9.0.1:80 more"}) {
    EXPECT_NE(error_of(parse_local_address(words(text)).status()), "") << text;
  }
}

TEST(WeirctlArguments, services_read_back_as_they_are_written) {
  for (const char* text : {"tcp 10.9.0.1:80", "udp [2001:db8::1]:53", "sctp 10.9.0.1:0", "fwmark 7",
                           "fwmark 4294967295 ipv6"}) {
    const auto command = parse_local_address(words("10.2.0.1 " + std::string(text)));
    ASSERT_TRUE(command.ok()) << text << command.status();
    EXPECT_EQ(service_text(command->service.value()), text);
  }
  for (const char* text : {"tcp 10.9.0.1:65536", "tcp 2001:db8::1:80:", "tcp [10.9.0.1]:80",
                           "icmp 10.9.0.1:80", "fwmark 0", "fwmark x", "fwmark 4294967296"}) {
    EXPECT_NE(error_of(parse_local_address(words("10.2.0.1 " + std::string(text))).status()), "");
  }
}

TEST(WeirctlArguments, an_option_of_a_service) {
  const auto command = parse_service_option(words("fwmark 7 ipv6 idle-timeout 60"));
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(service_text(command->service), "fwmark 7 ipv6");
  EXPECT_EQ(command->option.name, "idle-timeout");
  EXPECT_EQ(command->option.value, "60");
  EXPECT_NE(error_of(parse_service_option(words("tcp 10.9.0.1:80 idle-timeout")).status()), "");
  EXPECT_NE(error_of(parse_service_option({}).status()), "");
}

TEST(WeirctlArguments, a_rule_reads_back_as_it_is_written) {
  for (const char* text : {
           "mark 0",
           "to 203.0.113.0/24 protocol tcp port 80 mark 7",
           "from 10.0.0.0/8 to 0.0.0.0/0 protocol udp source-port 1024-65535 port 53-54 on eth1 "
           "mark 4294967295",
           "from 2001:db8::/32 protocol sctp mark 1",
       }) {
    const auto command = parse_mark_rule(words(text));
    ASSERT_TRUE(command.ok()) << text << command.status();
    EXPECT_EQ(mark_rule_text(command->rule), text);
    EXPECT_FALSE(command->at);
  }
  const auto placed = parse_mark_rule(words("mark 7 at 3 to 203.0.113.7"));
  ASSERT_TRUE(placed.ok()) << placed.status();
  EXPECT_EQ(placed->at, 3U);
  EXPECT_EQ(mark_rule_text(placed->rule), "to 203.0.113.7/32 mark 7");
}

TEST(WeirctlArguments, what_is_no_rule_is_named) {
  struct Case {
    const char* text;
    const char* named;
  };
  for (const Case& c : {
           Case{"", "mark N"},
           Case{"to 10.0.0.0/8", "mark N"},
           Case{"to 10.0.0.0/33 mark 1", "`to` takes"},
           Case{"port 81-80 mark 1", "`port` takes"},
           Case{"source-port 65536 mark 1", "`source-port` takes"},
           Case{"protocol icmp mark 1", "`protocol` takes"},
           Case{"at 0 mark 1", "`at` takes"},
           Case{"mark", "`mark` takes"},
           Case{"mark 1 mark 2", "`mark` is there twice"},
           Case{"colour red mark 1", "no `colour`"},
       }) {
    EXPECT_NE(error_of(parse_mark_rule(words(c.text)).status()).find(c.named), std::string::npos)
        << c.text;
  }
}

}  // namespace
}  // namespace weir
