// SPDX-License-Identifier: Apache-2.0
// The exception interface against the real kernel: does it take what is written as received?
#include "dataplane/io/exception_interface.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <vector>

#include "tests/support/network_namespace.h"

namespace weir {
namespace {

using testing::HasSubstr;
using Bytes = std::vector<std::uint8_t>;
using Transfer = ExceptionInterface::Transfer;
using Use = ExceptionInterface::Use;

const MacAddress kPortMac = *MacAddress::parse("02:00:00:00:00:01");
const MacAddress kClientMac = *MacAddress::parse("02:00:00:00:00:02");
const IpAddress kClient4 = *IpAddress::parse("10.1.0.2");
const IpAddress kHost4 = *IpAddress::parse("10.1.0.1");
const IpAddress kClient6 = *IpAddress::parse("fd01::2");
const IpAddress kHost6 = *IpAddress::parse("fd01::1");
constexpr std::uint16_t kClientPort = 4000;
constexpr std::uint16_t kPort = 5000;

void append(Bytes& to, const void* from, std::size_t length) {
  const auto* bytes = static_cast<const std::uint8_t*>(from);
  to.insert(to.end(), bytes, bytes + length);
}

void append_address(Bytes& to, const IpAddress& address) {
  append(to, address.bytes().data(), static_cast<std::size_t>(address.bit_width() / 8));
}

std::uint16_t checksum(const Bytes& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += static_cast<std::uint32_t>(bytes[i] << (i % 2 == 0 ? 8 : 0));
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<std::uint16_t>(~sum));
}

// An IP packet from the client to the host; `checksum_at`: of the L4 checksum, in `payload`.
Bytes packet(std::uint8_t protocol, Bytes payload, std::size_t checksum_at,
             const IpAddress& from = kClient4, const IpAddress& to = kHost4) {
  const auto length = static_cast<std::uint16_t>(payload.size());
  Bytes pseudo;
  append_address(pseudo, from);
  append_address(pseudo, to);
  const std::uint8_t rest[] = {0, protocol, static_cast<std::uint8_t>(length >> 8),
                               static_cast<std::uint8_t>(length)};
  append(pseudo, rest, sizeof rest);
  append(pseudo, payload.data(), payload.size());
  const std::uint16_t sum = checksum(pseudo);
  std::memcpy(payload.data() + checksum_at, &sum, sizeof sum);

  Bytes result;
  if (from.is_ipv4()) {
    iphdr header{};
    header.version = 4;
    header.ihl = 5;
    header.tot_len = htons(static_cast<std::uint16_t>(sizeof header + length));
    header.ttl = 64;
    header.protocol = protocol;
    header.saddr = load<std::uint32_t>(from.bytes().data());
    header.daddr = load<std::uint32_t>(to.bytes().data());
    Bytes raw;
    append(raw, &header, sizeof header);
    header.check = checksum(raw);
    append(result, &header, sizeof header);
  } else {
    ip6_hdr header{};
    header.ip6_flow = htonl(0x60000000);
    header.ip6_plen = htons(length);
    header.ip6_nxt = protocol;
    header.ip6_hlim = 64;
    std::memcpy(&header.ip6_src, from.bytes().data(), 16);
    std::memcpy(&header.ip6_dst, to.bytes().data(), 16);
    append(result, &header, sizeof header);
  }
  append(result, payload.data(), payload.size());
  return result;
}

Bytes udp(std::string_view text, const IpAddress& from = kClient4, const IpAddress& to = kHost4) {
  udphdr header{};
  header.source = htons(kClientPort);
  header.dest = htons(kPort);
  header.len = htons(static_cast<std::uint16_t>(sizeof header + text.size()));
  Bytes datagram;
  append(datagram, &header, sizeof header);
  append(datagram, text.data(), text.size());
  return packet(IPPROTO_UDP, datagram, offsetof(udphdr, check), from, to);
}

Bytes tcp_ack() {
  tcphdr header{};
  header.source = htons(kClientPort);
  header.dest = htons(kPort);
  header.seq = htonl(1000);
  header.ack_seq = htonl(2000);
  header.doff = 5;
  header.ack = 1;
  header.window = htons(1000);
  Bytes segment;
  append(segment, &header, sizeof header);
  return packet(IPPROTO_TCP, segment, offsetof(tcphdr, check));
}

Bytes frame(const MacAddress& to, const Bytes& ip, bool tagged = false) {
  Bytes result;
  append(result, to.bytes.data(), to.bytes.size());
  append(result, kClientMac.bytes.data(), kClientMac.bytes.size());
  const std::uint8_t tag[] = {0x81, 0x00, 0x00, 0x64};
  if (tagged) append(result, tag, sizeof tag);
  const std::uint16_t type = htons((ip[0] >> 4) == 4 ? ETH_P_IP : ETH_P_IPV6);
  append(result, &type, sizeof type);
  append(result, ip.data(), ip.size());
  return result;
}

bool is_readable(int fd, int milliseconds) {
  pollfd readable{fd, POLLIN, 0};
  return ::poll(&readable, 1, milliseconds) == 1;
}

// The director: eth0 with the host's addresses, its far end in a namespace of the client's.
class ExceptionInterfaceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!director_.exists()) GTEST_SKIP() << "network namespaces need root";
    director_.enter();
    sh("sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=0");
    sh("ip link add eth0 address 02:00:00:00:00:01 type veth peer name far0 netns " + far_.path());
    sh("ip link set lo up && ip link set eth0 up && ip addr add 10.1.0.1/24 dev eth0 && "
       "ip -6 addr add fd01::1/64 dev eth0");
    sh("ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev eth0");
    ASSERT_EQ(far_.run("ip link set far0 address 02:00:00:00:00:02 up"), 0);
  }

  void create(Use use) {
    auto created = ExceptionInterface::create({use, kPortMac, 1500});
    ASSERT_TRUE(created.ok()) << created.status();
    tap_ = *std::move(created);
  }
  void sh(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

  // A UDP socket of the host on every address.
  int listen() {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(kPort);
    EXPECT_EQ(::bind(fd, std::bit_cast<sockaddr*>(&any), sizeof any), 0);
    return fd;
  }
  std::string received(int fd, int milliseconds = 2000) {
    char text[100];
    if (!is_readable(fd, milliseconds)) return "nothing";
    return {text, static_cast<std::size_t>(std::max<ssize_t>(::recv(fd, text, sizeof text, 0), 0))};
  }

  NetworkNamespace director_;
  NetworkNamespace far_;
  std::unique_ptr<ExceptionInterface> tap_;
};

TEST_F(ExceptionInterfaceTest, InjectedDatagramReachesALocalSocket) {
  create(Use::injection_only);
  const int fd = listen();
  EXPECT_EQ(tap_->write(frame(kPortMac, udp("four"))), Transfer::done);
  EXPECT_EQ(received(fd), "four");
  EXPECT_EQ(tap_->write(frame(kPortMac, udp("six", kClient6, kHost6))), Transfer::done);
  EXPECT_EQ(received(fd), "six");
  ::close(fd);
}

TEST_F(ExceptionInterfaceTest, InjectedFrameToAVirtualMacOrWithAVlanTagIsReceivedToo) {
  create(Use::injection_only);
  const int fd = listen();
  tap_->write(frame(*MacAddress::parse("00:00:5e:00:01:33"), udp("virtual")));
  EXPECT_EQ(received(fd), "virtual");
  tap_->write(frame(kPortMac, udp("tagged"), true));
  EXPECT_EQ(received(fd), "tagged");
  ::close(fd);
}

TEST_F(ExceptionInterfaceTest, InjectedFrameThatKeepsItsVlanTagIsNotTheHosts) {
  create(Use::injection_only);
  const int fd = listen();
  EXPECT_EQ(tap_->write(frame(kPortMac, udp("tagged"), true), ExceptionInterface::Tag::kept),
            Transfer::done);
  tap_->write(frame(kPortMac, udp("untagged")));
  EXPECT_EQ(received(fd), "untagged");
  ::close(fd);
}

TEST_F(ExceptionInterfaceTest, InjectedAckIsAnsweredByResetOnTheOrdinaryWay) {
  create(Use::injection_only);
  int wire = -1;
  std::thread([&] {
    far_.enter();
    wire = ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(ETH_P_IP));
  }).join();
  ASSERT_GE(wire, 0);
  // A link that has just come up may drop what it is given first.
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    EXPECT_EQ(tap_->write(frame(kPortMac, tcp_ack())), Transfer::done);
    if (is_readable(wire, 200)) break;
  }
  std::array<std::uint8_t, 100> answer{};
  ASSERT_TRUE(is_readable(wire, 0));
  ASSERT_GE(::recv(wire, answer.data(), answer.size(), 0),
            static_cast<ssize_t>(sizeof(iphdr) + sizeof(tcphdr)));
  const auto ip = load<iphdr>(answer.data());
  const auto tcp = load<tcphdr>(answer.data() + sizeof(iphdr));
  EXPECT_EQ(ip.daddr, load<std::uint32_t>(kClient4.bytes().data()));
  EXPECT_EQ(tcp.rst, 1);
  EXPECT_EQ(ntohl(tcp.seq), 2000U);
  ::close(wire);
}

TEST_F(ExceptionInterfaceTest, InjectionInterfaceStaysSilent) {
  create(Use::injection_only);
  Bytes request(42, 0);  // who has 10.1.0.1?
  std::ranges::fill_n(request.begin(), 6, 0xff);
  std::ranges::copy(kClientMac.bytes, request.begin() + 6);
  const std::uint8_t fixed[] = {0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1};
  std::ranges::copy(fixed, request.begin() + 12);
  std::ranges::copy(kClientMac.bytes, request.begin() + 22);
  std::ranges::copy_n(kClient4.bytes().begin(), 4, request.begin() + 28);
  std::ranges::copy_n(kHost4.bytes().begin(), 4, request.begin() + 38);
  EXPECT_EQ(tap_->write(request), Transfer::done);
  std::array<std::uint8_t, 2000> buffer;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  while (std::chrono::steady_clock::now() < end) {
    if (!is_readable(tap_->fd(), 50)) continue;
    ASSERT_EQ(tap_->read(buffer).result, Transfer::done);
    EXPECT_NE(buffer[13], 0x06) << "it answers ARP";
  }
  EXPECT_NE(std::system(("ip -6 addr show dev " + tap_->name() + " | grep -q inet6").c_str()), 0);
}

TEST_F(ExceptionInterfaceTest, FullInterfaceIsTheHostsOwn) {
  sh("ip link del eth0");
  create(Use::full);
  sh("ip addr add 10.1.0.1/24 dev " + tap_->name());
  sh("ip neigh add 10.1.0.2 lladdr 02:00:00:00:00:02 dev " + tap_->name());
  const int fd = listen();
  tap_->write(frame(kPortMac, udp("in")));
  EXPECT_EQ(received(fd), "in");
  sockaddr_in6 client{};
  client.sin6_family = AF_INET6;
  client.sin6_port = htons(kClientPort);
  ASSERT_EQ(::inet_pton(AF_INET6, "::ffff:10.1.0.2", &client.sin6_addr), 1);
  ASSERT_EQ(::sendto(fd, "out", 3, 0, std::bit_cast<sockaddr*>(&client), sizeof client), 3);
  std::array<std::uint8_t, 2000> buffer;
  // The kernel says other things on a new interface too (IPv6).
  const auto is_ours = [&](std::size_t length) {
    return length > 3 && std::equal(buffer.begin() + static_cast<std::ptrdiff_t>(length) - 3,
                                    buffer.begin() + static_cast<std::ptrdiff_t>(length), "out");
  };
  bool found = false;
  while (!found && is_readable(tap_->fd(), 2000)) {
    const ExceptionInterface::Received result = tap_->read(buffer);
    ASSERT_EQ(result.result, Transfer::done);
    found = is_ours(result.length);
  }
  EXPECT_TRUE(found);
  EXPECT_TRUE(std::ranges::equal(std::span(buffer).first(6), kClientMac.bytes));
  EXPECT_TRUE(std::ranges::equal(std::span(buffer).subspan(6, 6), kPortMac.bytes));
  ::close(fd);
}

TEST_F(ExceptionInterfaceTest, BadLengthsAreRefused) {
  create(Use::injection_only);
  EXPECT_EQ(tap_->write(Bytes(13, 0)), Transfer::bad_length);
  EXPECT_EQ(tap_->write(Bytes(1500 + 19, 0)), Transfer::bad_length);
  Bytes cut = frame(kPortMac, udp("x"), true);
  for (std::size_t length = 14; length < 18; ++length) {
    EXPECT_EQ(tap_->write(std::span(cut).first(length)), Transfer::bad_length) << length;
  }
}

TEST_F(ExceptionInterfaceTest, DownAndDeletedInterfacesAreTold) {
  create(Use::full);
  sh("ip link set " + tap_->name() + " down");
  EXPECT_EQ(tap_->write(frame(kPortMac, udp("x"))), Transfer::down);
  sh("ip link del " + tap_->name());
  EXPECT_EQ(tap_->write(frame(kPortMac, udp("x"))), Transfer::gone);
  std::array<std::uint8_t, 2000> buffer;
  EXPECT_EQ(tap_->read(buffer).result, Transfer::gone);
}

TEST_F(ExceptionInterfaceTest, InterfaceGoesAwayWithTheObject) {
  create(Use::full);
  const std::string name = tap_->name();
  EXPECT_NE(::if_nametoindex(name.c_str()), 0U);
  tap_.reset();
  EXPECT_EQ(::if_nametoindex(name.c_str()), 0U);
}

TEST_F(ExceptionInterfaceTest, SettingThatPreventsInjectionIsNamed) {
  EXPECT_EQ(injection_complaint(), std::nullopt);
  sh("sysctl -qw net.ipv4.conf.all.rp_filter=1");
  ASSERT_TRUE(injection_complaint());
  EXPECT_THAT(*injection_complaint(), HasSubstr("rp_filter"));
}

}  // namespace
}  // namespace weir
