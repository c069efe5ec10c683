// SPDX-License-Identifier: Apache-2.0
// The settings file, with its section of what can be changed at run time.
#include "control/options.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <string>

namespace weir {
namespace {

class OptionsTest : public testing::Test {
 protected:
  OptionsTest() : path_(testing::TempDir() + "weir-options-" + std::to_string(getpid()) + ".ini") {}
  ~OptionsTest() override { std::remove(path_.c_str()); }

  absl::StatusOr<std::optional<Options>> parse(const std::string& file) const {
    std::ofstream(path_) << file;
    const std::array arguments = {"weir", "--settings", path_.c_str(), "--workers", "3"};
    return parse_options(static_cast<int>(arguments.size()), arguments.data());
  }

 private:
  std::string path_;
};

TEST_F(OptionsTest, the_file_has_options_and_a_section_of_settings) {
  const auto parsed = parse(
      "# a comment\n"
      "port = eth1\n"
      "port = eth2\n"
      "workers = 2\n"
      "[settings]\n"
      "sloppy_tcp = 1\n"
      "conn_reuse_mode = 0\n"
      "drop_entry = 1\n");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const Options& options = parsed->value();
  EXPECT_EQ(options.ports, (std::vector<std::string>{"eth1", "eth2"}));
  EXPECT_EQ(options.workers, 3U) << "the command line comes first";
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"sloppy_tcp", "1"}, {"conn_reuse_mode", "0"}, {"drop_entry", "1"}};
  EXPECT_EQ(options.changed_settings, expected);
}

TEST_F(OptionsTest, ipv6_has_a_quarter_of_the_connections_or_what_it_is_given) {
  const auto ipv6_of = [this](const std::string& lines) {
    const auto parsed = parse("port = eth1\n" + lines);
    return parsed.ok() ? parsed->value().ipv6_connections_per_worker : 0;
  };
  EXPECT_EQ(ipv6_of(""), 250'000U);
  EXPECT_EQ(ipv6_of("connections-per-worker = 100000\n"), 65'536U);
  EXPECT_EQ(ipv6_of("connections-per-worker = 20000\n"), 20'000U);
  EXPECT_EQ(ipv6_of("ipv6-connections-per-worker = 3000000\n"), 3'000'000U);
  EXPECT_EQ(ipv6_of("connections-per-worker = 20000\nipv6-connections-per-worker = 7\n"), 7U);
}

TEST_F(OptionsTest, mtu_is_that_of_links_and_of_buffers_that_ports_share) {
  EXPECT_TRUE(parse("port = vdev:net_tap0\nmtu = 9000\n").ok());
  EXPECT_TRUE(parse("port = eth0\nmtu = 3438\n").ok());
  EXPECT_FALSE(parse("port = eth0\nport = vdev:net_tap0\nmtu = 9000\n").ok());
  EXPECT_FALSE(parse("port = vdev:net_tap0\nmtu = 1000\n").ok());
}

TEST_F(OptionsTest, what_is_neither_is_named) {
  for (const char* file :
       {"port = eth1\nsloppy_tcp = 1\n", "port = eth1\n[other]\nsloppy_tcp = 1\n",
        "[settings]\n[other]\nport = eth1\n"}) {
    const auto parsed = parse(file);
    ASSERT_FALSE(parsed.ok()) << file;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(parsed.status().message());
    EXPECT_NE(message.find("settings file"), std::string::npos) << message;
    EXPECT_NE(message.find(message.find("other") == std::string::npos ? "sloppy_tcp" : "other."),
              std::string::npos)
        << message;
  }
}

TEST_F(OptionsTest, port_that_is_there_twice_is_named) {
  EXPECT_EQ(parse("port = eth1\nport = eth2\nport = eth1\n").status().message(),
            "--port eth1 is there twice");
}

TEST_F(OptionsTest, end_is_silent_or_a_release) {
  EXPECT_EQ((*parse("port = eth1\n"))->on_exit, OnExit::silent);
  EXPECT_EQ((*parse("port = eth1\non-exit = silent\n"))->on_exit, OnExit::silent);
  EXPECT_EQ((*parse("port = eth1\non-exit = release\n"))->on_exit, OnExit::release);
  EXPECT_NE(parse("port = eth1\non-exit = Release\n").status().message().find("'Release'"),
            absl::string_view::npos);
}

TEST_F(OptionsTest, sides_are_of_ports_that_are_there) {
  const auto parsed = parse(
      "port = eth1\n"
      "port = eth2\n"
      "port = eth3\n"
      "client-side = eth1\n"
      "server-side = eth2\n");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ((*parsed)->side_of("eth1"), PortSide::clients);
  EXPECT_EQ((*parsed)->side_of("eth2"), PortSide::servers);
  EXPECT_EQ((*parsed)->side_of("eth3"), PortSide::both);

  const auto unknown = parse("port = eth1\nclient-side = eth9\n");
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.status().message().find("eth9 needs its --port"), std::string::npos);
  const auto twice = parse("port = eth1\nclient-side = eth1\nserver-side = eth1\n");
  ASSERT_FALSE(twice.ok());
  EXPECT_NE(twice.status().message().find("leave out both for eth1"), std::string::npos);
}

}  // namespace
}  // namespace weir
