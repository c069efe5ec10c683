// SPDX-License-Identifier: Apache-2.0
// What a router says about the size of a tunnel's packets, and what anybody may pretend it said.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::uint16_t kServerSide = 1;
constexpr std::uint16_t kPort = 40000;
constexpr std::uint16_t kGuePort = 6080;
constexpr std::size_t kWhole = 1500;

std::size_t ip_header(Family family) { return family == Family::ipv4 ? 20 : 40; }

void put16(Bytes& bytes, std::size_t at, std::size_t value) {
  bytes[at] = static_cast<std::uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<std::uint8_t>(value);
}

Bytes part(const Bytes& bytes, std::size_t from, std::size_t length) {
  const std::size_t first = std::min(from, bytes.size());
  const std::size_t last = std::min(bytes.size(), first + length);
  return {bytes.begin() + static_cast<std::ptrdiff_t>(first),
          bytes.begin() + static_cast<std::ptrdiff_t>(last)};
}

void append(Bytes& to, const Bytes& bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

// What a router on the way says of `packet`, of which it quotes no more than `quoted` bytes.
Bytes too_big(const Bytes& packet, std::uint16_t mtu, std::size_t quoted = 548) {
  const bool v4 = packet[0] >> 4 == 4;
  const std::size_t address = v4 ? 4 : 16;
  const Bytes router = v4 ? from_hex("0a020063") : from_hex("20010db8000200000000000000000063");
  const Bytes director = part(packet, v4 ? 12 : 8, address);
  Bytes icmp(8);
  icmp[0] = v4 ? 3 : 2;
  icmp[1] = v4 ? 4 : 0;
  put16(icmp, 6, mtu);
  append(icmp, part(packet, 0, quoted));
  Bytes summed = icmp;
  if (!v4) {
    append(summed, router);
    append(summed, director);
    append(summed, {0, 0, static_cast<std::uint8_t>(icmp.size() >> 8),
                    static_cast<std::uint8_t>(icmp.size()), 0, 0, 0, 58});
  }
  // An odd length would shift what follows it.
  EXPECT_TRUE(v4 || icmp.size() % 2 == 0);
  put16(icmp, 2, internet_checksum(summed));
  Bytes ip = v4 ? from_hex("4500000000010000ff010000") : from_hex("6000000000003aff");
  put16(ip, v4 ? 2 : 4, icmp.size() + (v4 ? 20 : 0));
  append(ip, router);
  append(ip, director);
  if (v4) put16(ip, 10, internet_checksum(ip));
  Bytes frame = from_hex(v4 ? "020000000bfe020000000d630800" : "020000000bfe020000000d6386dd");
  append(frame, ip);
  append(frame, icmp);
  return frame;
}

// A TCP service whose real servers 1, 2, ... are behind tunnels.
class TunnelLab {
 public:
  TunnelLab(Family inner, Family outer, unsigned workers = 1, unsigned servers = 1,
            TunnelType type = TunnelType::ipip)
      : inner_(inner), lab({.workers = workers}) {
    const ServiceKey key = service_key(Protocol::tcp, vip(), 80);
    add_service(lab.services(), key);
    for (unsigned i = 1; i <= servers; ++i) {
      const std::string net = outer == Family::ipv4 ? "10.2.0." : "2001:db8:2::";
      ServerSpec spec = server_spec(net + std::to_string(i), 80, ForwardMode::tun);
      spec.tunnel = type;
      if (type == TunnelType::gue) spec.tunnel_port = kGuePort;
      must(lab.services().add_server(key, spec));
    }
    overhead_ = ip_header(outer) + (type == TunnelType::gue ? 12U : 0U);
  }

  // A packet that the tunnel makes `outer_bytes` long.
  Bytes packet(std::size_t outer_bytes, std::uint16_t port = kPort) const {
    const std::size_t headers = overhead_ + ip_header(inner_) + 20;
    const std::string payload(outer_bytes - headers, 'x');
    const Flow flow{inner_ == Family::ipv4 ? "10.1.0.1" : "2001:db8:1::1", port, vip(), 80};
    return client_tcp(flow, TcpHeader::kSyn, payload);
  }
  // The tunnel's IP packet.
  Bytes tunnelled(std::size_t outer_bytes, std::uint16_t port = kPort) {
    const Forwarded got = lab.deliver(packet(outer_bytes, port));
    EXPECT_EQ(name_of(got.outcome), "tun_to_server");
    return part(got.bytes, kEthernet, got.bytes.size());
  }
  bool passes_whole(std::size_t outer_bytes, std::uint16_t port = kPort) {
    const Forwarded got = lab.deliver(packet(outer_bytes, port));
    return got.outcome == Outcome::tun_to_server && got.pieces.empty();
  }

 private:
  std::string vip() const { return inner_ == Family::ipv4 ? "10.9.0.1" : "2001:db8:9::1"; }

  Family inner_;
  std::size_t overhead_ = 0;

 public:
  BurstLab lab;
};

using Families = std::tuple<Family, Family>;  // of the client, of the tunnel
class PathMtu : public testing::TestWithParam<Families> {
 protected:
  static Family inner() { return std::get<0>(GetParam()); }
  static Family outer() { return std::get<1>(GetParam()); }
};

TEST_P(PathMtu, IsLearntFromAnErrorAboutAConnection) {
  for (const TunnelType type : {TunnelType::ipip, TunnelType::gue}) {
    TunnelLab tunnel(inner(), outer(), 1, 1, type);
    const Bytes error = too_big(tunnel.tunnelled(kWhole), 1400);
    EXPECT_TRUE(tunnel.passes_whole(kWhole));
    tunnel.lab.send(error, kServerSide);
    EXPECT_TRUE(tunnel.passes_whole(1400));
    EXPECT_FALSE(tunnel.passes_whole(1401));
  }
}

TEST_P(PathMtu, OnlyThatConnectionsServerLearns) {
  TunnelLab tunnel(inner(), outer(), 1, 2);
  const std::uint16_t other = kPort + 1;  // rr: another real server's
  const Bytes error = too_big(tunnel.tunnelled(kWhole), 1400);
  tunnel.tunnelled(kWhole, other);
  tunnel.lab.send(error, kServerSide);
  EXPECT_FALSE(tunnel.passes_whole(kWhole));
  EXPECT_TRUE(tunnel.passes_whole(kWhole, other));
}

TEST_P(PathMtu, NobodyIsBelievedWhoKnowsNoConnection) {
  TunnelLab tunnel(inner(), outer());
  const Bytes sent = tunnel.tunnelled(kWhole);
  const auto changed = [&](std::size_t at) {
    Bytes forged = sent;
    forged[at] ^= 1;
    return forged;
  };
  const std::size_t address = outer() == Family::ipv4 ? 4 : 16;
  const std::size_t source = outer() == Family::ipv4 ? 12 : 8;
  const std::size_t client_port = ip_header(outer()) + ip_header(inner()) + 1;
  tunnel.lab.send(too_big(changed(client_port), 1400), kServerSide);
  tunnel.lab.send(too_big(changed(source + address - 1), 1400), kServerSide);
  tunnel.lab.send(too_big(changed(source + 2 * address - 1), 1400), kServerSide);
  EXPECT_TRUE(tunnel.passes_whole(kWhole));
}

TEST_P(PathMtu, WhatQuotesTooLittleIsCounted) {
  TunnelLab tunnel(inner(), outer());
  const Bytes sent = tunnel.tunnelled(kWhole);
  const std::size_t headers = ip_header(outer()) + ip_header(inner());
  std::uint64_t count = 0;
  for (const std::size_t quoted : {ip_header(outer()) + 8, headers, headers + 6}) {
    tunnel.lab.send(too_big(sent, 1400, quoted), kServerSide);
    EXPECT_EQ(tunnel.lab.count(Outcome::kernel_icmp_short_quote), ++count) << quoted;
  }
  EXPECT_TRUE(tunnel.passes_whole(kWhole));
  tunnel.lab.send(too_big(sent, 1400, headers + 8), kServerSide);
  EXPECT_FALSE(tunnel.passes_whole(kWhole));
}

TEST_P(PathMtu, NeverLessThanEveryLinkTakes) {
  TunnelLab tunnel(inner(), outer());
  const Bytes error = too_big(tunnel.tunnelled(kWhole), 100);
  tunnel.lab.send(error, kServerSide);
  const std::size_t least = outer() == Family::ipv4 ? 576 : 1280;
  EXPECT_TRUE(tunnel.passes_whole(least));
  EXPECT_FALSE(tunnel.passes_whole(least + 1));
}

TEST_P(PathMtu, TheErrorFindsTheConnectionsWorker) {
  for (unsigned receiver = 0; receiver < 4; ++receiver) {
    TunnelLab tunnel(inner(), outer(), 4);
    const Bytes error = too_big(tunnel.tunnelled(kWhole), 1400);
    tunnel.lab.deliver(error, kServerSide, receiver);
    EXPECT_FALSE(tunnel.passes_whole(kWhole)) << receiver;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, PathMtu,
                         testing::Combine(testing::Values(Family::ipv4, Family::ipv6),
                                          testing::Values(Family::ipv4, Family::ipv6)),
                         [](const auto& families) {
                           const auto name = [](Family family) {
                             return family == Family::ipv4 ? "4" : "6";
                           };
                           return std::string(name(std::get<0>(families.param))) + "in" +
                                  name(std::get<1>(families.param));
                         });

}  // namespace
}  // namespace weir::test
