// SPDX-License-Identifier: Apache-2.0
// Keeping the kernel's own sockets off the ports of local addresses, judged by the kernel: which
// ports and addresses it really gives to sockets in a namespace of the test's own.
#include "control/host/reserved_ports.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/network_namespace.h"

namespace weir {
namespace {

using testing::HasSubstr;

constexpr const char* kReserved = "/proc/sys/net/ipv4/ip_local_reserved_ports";
constexpr const char* kRange = "/proc/sys/net/ipv4/ip_local_port_range";

PortSet set_of(std::string_view text) { return parse_port_set(text).value(); }

// ---- Sets and ranges ----

TEST(PortSet, is_read_and_written_as_the_kernel_writes_it) {
  for (const char* text : {"", "0", "65535", "1-2", "8080,9000-9009", "0-65535", "1,3,5-7,65535"}) {
    EXPECT_EQ(to_string(set_of(text)), text);
  }
  EXPECT_EQ(to_string(set_of("7,5-6")), "5-7");
  for (const char* text : {"x", "1-", "-1", "5-4", "65536", "1,,2", "1-2-3"}) {
    EXPECT_FALSE(parse_port_set(text).ok()) << text;
  }
}

TEST(WidenForKernel, keeps_the_range_while_enough_is_left_of_it) {
  const PortRange range{32768, 60999};
  EXPECT_EQ(widen_for_kernel(range, PortSet{}).value(), range);
  EXPECT_EQ(widen_for_kernel(range, set_of("1024-58951")).value(), range) << "2048 are left";
}

TEST(WidenForKernel, takes_the_nearest_ports_that_are_free) {
  const PortRange range{32768, 60999};
  EXPECT_EQ(widen_for_kernel(range, set_of("1024-63487")).value(), (PortRange{32768, 65535}));
  EXPECT_EQ(widen_for_kernel(range, set_of("30000-65535")).value(), (PortRange{27952, 60999}));
  EXPECT_EQ(widen_for_kernel(range, set_of("32768-60999")).value().last - 60999 +
                (32768 - widen_for_kernel(range, set_of("32768-60999")).value().first),
            2048);
  const PortRange both = widen_for_kernel(range, set_of("2500-64000")).value();
  EXPECT_EQ(both.last, 65535);
  EXPECT_EQ(both.first, 2500 - (2048 - 1535));
}

TEST(WidenForKernel, says_what_to_do_where_nothing_is_left) {
  for (const char* reserved : {"1024-65535", "1024-63488"}) {
    const auto range = widen_for_kernel({32768, 60999}, set_of(reserved));
    ASSERT_FALSE(range.ok());
    EXPECT_THAT(std::string(range.status().message()), HasSubstr("1024-63487"));
  }
}

// ---- The kernel ----

class ReservedPortsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!namespace_.exists()) GTEST_SKIP() << "network namespaces need root";
    namespace_.enter();
    std::string name = testing::TempDir() + "reserved-ports-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    memory_ = folder_ + "/reserved-ports";
    sh("ip link set lo up");
  }
  void TearDown() override {
    if (folder_.empty()) return;
    ::unlink(memory_.c_str());
    ::rmdir(folder_.c_str());
  }

  void sh(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }
  // At once: the kernel says a long list to a long read only.
  static std::string read(const char* file) {
    std::string text(1 << 20, '\0');
    const int fd = ::open(file, O_RDONLY);
    const ssize_t length = ::read(fd, text.data(), text.size());
    ::close(fd);
    return text.substr(0, length < 1 ? 0 : static_cast<std::size_t>(length - 1));
  }
  static void write(const char* file, const std::string& text) {
    std::ofstream to(file);
    to << text << std::endl;
    ASSERT_TRUE(to) << file;
  }

  // The ports that the kernel chooses for `count` sockets that are open at once.
  static std::vector<std::uint16_t> chosen_ports(int count) {
    std::vector<int> sockets;
    std::vector<std::uint16_t> ports;
    for (int i = 0; i < count; ++i) {
      const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      socklen_t length = sizeof address;
      if (::bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0) {
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
        ports.push_back(ntohs(address.sin_port));
      }
      sockets.push_back(fd);
    }
    for (const int fd : sockets) ::close(fd);
    return ports;
  }

  NetworkNamespace namespace_;
  std::string folder_;
  std::string memory_;
};

TEST_F(ReservedPortsTest, the_kernel_chooses_among_what_is_left) {
  ReservedPorts reserved(memory_);
  const absl::Status status = reserved.reserve(set_of("1024-63487"));
  ASSERT_TRUE(status.ok()) << status;
  const auto ports = chosen_ports(500);
  ASSERT_EQ(ports.size(), 500U);
  for (const std::uint16_t port : ports) ASSERT_GE(port, 63488);
  ASSERT_TRUE(reserved.restore().ok());
  EXPECT_EQ(read(kReserved), "");
  EXPECT_EQ(read(kRange), "32768\t60999");
  EXPECT_NE(::access(memory_.c_str(), F_OK), 0) << "nothing to remember";
}

TEST_F(ReservedPortsTest, what_the_user_has_reserved_stays) {
  write(kReserved, "8080,40000-40010");
  ReservedPorts reserved(memory_);
  ASSERT_TRUE(reserved.reserve(set_of("40005-40020")).ok());
  EXPECT_EQ(read(kReserved), "8080,40000-40020");
  // Another pool in its place.
  ASSERT_TRUE(reserved.reserve(set_of("50000-50010")).ok());
  EXPECT_EQ(read(kReserved), "8080,40000-40010,50000-50010");
  // The user changes it meanwhile.
  write(kReserved, "8081,40000-40010,50000-50010");
  ASSERT_TRUE(reserved.restore().ok());
  EXPECT_EQ(read(kReserved), "8081,40000-40010");
  EXPECT_EQ(read(kRange), "32768\t60999") << "never touched";
}

TEST_F(ReservedPortsTest, a_range_that_the_user_sets_meanwhile_stays) {
  ReservedPorts reserved(memory_);
  ASSERT_TRUE(reserved.reserve(set_of("1024-63487")).ok());
  EXPECT_EQ(read(kRange), "32768\t65535");
  write(kRange, "20000 65535");
  ASSERT_TRUE(reserved.reserve(set_of("1024-61438")).ok());
  ASSERT_TRUE(reserved.restore().ok());
  EXPECT_EQ(read(kRange), "20000\t65535");
}

TEST_F(ReservedPortsTest, one_that_was_killed_is_taken_over) {
  write(kReserved, "8080");
  {
    ReservedPorts killed(memory_);
    ASSERT_TRUE(killed.reserve(set_of("1024-63487")).ok());
  }
  ReservedPorts next(memory_);
  EXPECT_EQ(to_string(next.reserved()), "1024-8079,8081-63487");
  ASSERT_TRUE(next.reserve(set_of("2000-3000")).ok());
  EXPECT_EQ(read(kReserved), "2000-3000,8080");
  EXPECT_EQ(read(kRange), "32768\t60999");
  ASSERT_TRUE(next.restore().ok());
  EXPECT_EQ(read(kReserved), "8080");
}

TEST_F(ReservedPortsTest, what_one_in_another_namespace_left_is_none_of_ours) {
  {
    ReservedPorts killed(memory_);
    ASSERT_TRUE(killed.reserve(set_of("1024-63487")).ok());
  }
  NetworkNamespace other;
  other.enter();
  write(kReserved, "1024-2000");
  ReservedPorts next(memory_);
  EXPECT_TRUE(next.reserved().none());
  ASSERT_TRUE(next.restore().ok());
  EXPECT_EQ(read(kReserved), "1024-2000");
}

TEST_F(ReservedPortsTest, too_many_ports_are_refused_and_nothing_changes) {
  ReservedPorts reserved(memory_);
  ASSERT_TRUE(reserved.reserve(set_of("2000-3000")).ok());
  EXPECT_FALSE(reserved.reserve(set_of("1024-65535")).ok());
  EXPECT_EQ(read(kReserved), "2000-3000");
  EXPECT_EQ(read(kRange), "32768\t60999");
  ASSERT_TRUE(reserved.restore().ok());
}

TEST_F(ReservedPortsTest, without_a_place_to_remember_nothing_changes) {
  ReservedPorts reserved(folder_ + "/none/reserved-ports");
  EXPECT_FALSE(reserved.reserve(set_of("2000-3000")).ok());
  EXPECT_EQ(read(kReserved), "");
  EXPECT_TRUE(reserved.reserved().none());
}

TEST_F(ReservedPortsTest, a_list_longer_than_a_page_is_written_whole) {
  PortSet every_other;
  for (std::size_t port = 10'000; port < 20'000; port += 2) every_other.set(port);
  ReservedPorts reserved(memory_);
  const absl::Status status = reserved.reserve(every_other);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(read(kReserved), to_string(every_other));
  ASSERT_TRUE(reserved.restore().ok());
  EXPECT_EQ(read(kReserved), "");
}

TEST_F(ReservedPortsTest, only_an_address_that_the_kernel_would_send_from_matters) {
  sh("sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
  sh("ip link add eth1 type veth peer name vips && ip link set eth1 up && ip link set vips up");
  sh("ip addr add 10.2.0.254/24 dev eth1 && ip addr add 10.2.0.201/24 dev eth1");
  sh("ip addr add 10.3.0.1/32 dev vips");
  sh("ip -6 addr add fd02::fe/64 dev eth1 nodad");
  sh("ip -6 addr add fd02::201/128 dev vips nodad");
  const auto sends = [](std::vector<std::string> addresses, std::vector<std::string> servers) {
    const auto parsed = [](const std::vector<std::string>& texts) {
      std::vector<IpAddress> result;
      for (const std::string& text : texts) result.push_back(IpAddress::parse(text).value());
      return result;
    };
    return kernel_sends_from(parsed(addresses), parsed(servers));
  };
  EXPECT_TRUE(sends({"10.2.0.254"}, {"10.2.0.1"}));
  EXPECT_FALSE(sends({"10.2.0.201", "10.3.0.1", "10.99.0.1"}, {"10.2.0.1", "10.2.0.2"}));
  EXPECT_FALSE(sends({"10.2.0.254"}, {"192.0.2.1"})) << "no route";
  EXPECT_FALSE(sends({"10.2.0.254"}, {}));
  EXPECT_TRUE(sends({"fd02::fe"}, {"10.2.0.1", "fd02::1"}));
  EXPECT_FALSE(sends({"fd02::201"}, {"fd02::1"}));
  sh("ip route add 192.0.2.0/24 dev eth1 src 10.2.0.201");
  EXPECT_TRUE(sends({"10.2.0.201"}, {"10.2.0.1", "192.0.2.1"}));
}

}  // namespace
}  // namespace weir
