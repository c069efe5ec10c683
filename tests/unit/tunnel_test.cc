// SPDX-License-Identifier: Apache-2.0
// What the packet cases and the recordings do not show of tunnels: quotes, limits, source ports.
#include "dataplane/path/tunnel/tunnel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "dataplane/path/parse.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"

namespace weir::test {
namespace {

constexpr std::uint16_t kGuePort = 6080;
const Tunnel kTunnels[] = {
    {TunnelType::ipip, TunnelChecksum::none, {}},
    {TunnelType::gue, TunnelChecksum::none, Be16::from_host(kGuePort)},
    {TunnelType::gue, TunnelChecksum::checksum, Be16::from_host(kGuePort)},
    {TunnelType::gre, TunnelChecksum::none, {}},
    {TunnelType::gre, TunnelChecksum::checksum, {}},
};

struct Ends {
  IpAddress from;
  IpAddress to;
};
const Ends kIpv4Ends = {address_of("10.2.0.254"), address_of("10.2.0.1")};
const Ends kIpv6Ends = {address_of("2001:db8:2::254"), address_of("2001:db8:2::1")};

Bytes client_packet(Family family, std::uint16_t port = 40000) {
  return family == Family::ipv4 ? client_udp({"10.1.0.1", port, "10.9.0.1", 53}, "hello")
                                : client_udp({"2001:db8:1::1", port, "2001:db8:9::1", 53}, "hello");
}

Packet parsed(Frame& frame) {
  Packet packet = frame.packet();
  const OwnMacs macs({BurstLab::kClientSideMac});
  parse_frame(packet, macs);
  EXPECT_EQ(packet.outcome, Outcome::undecided);
  return packet;
}

// The tunnelled IP packet.
Bytes tunnelled(Family inner, const Tunnel& tunnel, const Ends& ends, std::uint16_t port = 40000) {
  Frame frame(client_packet(inner, port));
  Packet packet = parsed(frame);
  EXPECT_EQ(encapsulate(packet, tunnel, ends.from, ends.to, 1), Outcome::undecided);
  return {packet.ip, packet.ip + packet.ip_length};
}

template <class Check>
void for_each_tunnel(Check&& check) {
  for (const Tunnel& tunnel : kTunnels) {
    for (const Family inner : {Family::ipv4, Family::ipv6}) {
      for (const Ends& ends : {kIpv4Ends, kIpv6Ends}) {
        SCOPED_TRACE(std::to_string(static_cast<int>(tunnel.type)) + " " +
                     std::to_string(static_cast<int>(tunnel.checksum)) + " from " +
                     std::to_string(static_cast<int>(inner)) + " to " + ends.to.to_string());
        check(tunnel, inner, ends);
      }
    }
  }
}

TEST(Tunnel, OverheadIsWhatIsPutInFront) {
  for_each_tunnel([](const Tunnel& tunnel, Family inner, const Ends& ends) {
    EXPECT_EQ(tunnelled(inner, tunnel, ends).size(),
              client_packet(inner).size() - 14 + tunnel_overhead(tunnel, ends.to.family()));
  });
}

TEST(Tunnel, NeedsHeadroomForItsHeaders) {
  for_each_tunnel([](const Tunnel& tunnel, Family inner, const Ends& ends) {
    const std::uint16_t needed = tunnel_overhead(tunnel, ends.to.family()) - 14;
    for (const int missing : {0, 1}) {
      Frame frame(client_packet(inner));
      Packet packet = parsed(frame);
      packet.headroom = static_cast<std::uint16_t>(needed - missing);
      const std::uint8_t* const before = packet.ip;
      EXPECT_EQ(encapsulate(packet, tunnel, ends.from, ends.to, 1),
                missing == 0 ? Outcome::undecided : Outcome::drop_no_headroom);
      EXPECT_EQ(packet.ip == before, missing != 0);
    }
  });
}

TEST(Tunnel, ADatagramTooLongForAnotherHeaderIsRefused) {
  for_each_tunnel([](const Tunnel& tunnel, Family inner, const Ends& ends) {
    const std::uint32_t most = ends.to.is_ipv4() ? 65535 : 40 + 65535;
    const std::uint16_t overhead = tunnel_overhead(tunnel, ends.to.family());
    for (const int over : {0, 1}) {
      Bytes bytes = client_packet(inner);
      bytes.resize(most + 14U);
      Frame frame(client_packet(inner));
      Packet packet = parsed(frame);
      // The bytes of a reassembled datagram.
      Frame large(bytes);
      Packet whole = large.packet();
      whole.family = packet.family;
      whole.ip = whole.frame + 14;
      whole.dont_fragment = false;
      if (inner == Family::ipv4) {
        whole.ipv4 = packet.ipv4;
      } else {
        whole.ipv6 = packet.ipv6;
      }
      whole.ip_length = most - overhead + static_cast<std::uint32_t>(over);
      EXPECT_EQ(encapsulate(whole, tunnel, ends.from, ends.to, 1),
                over == 0 ? Outcome::undecided : Outcome::drop_too_big);
    }
  });
}

// ---- GUE's source port ----

unsigned source_port(const Bytes& tunnelled) { return tunnelled[20] * 256U + tunnelled[21]; }

TEST(Tunnel, AFlowKeepsItsSourcePortAndFlowsSpread) {
  std::map<unsigned, unsigned> by_eighth;
  std::set<unsigned> ports;
  for (std::uint16_t port = 40000; port < 44000; ++port) {
    for (const Family inner : {Family::ipv4, Family::ipv6}) {
      const unsigned chosen = source_port(tunnelled(inner, kTunnels[1], kIpv4Ends, port));
      EXPECT_EQ(source_port(tunnelled(inner, kTunnels[2], kIpv4Ends, port)), chosen);
      ASSERT_GE(chosen, 32768U);
      ASSERT_LE(chosen, 60999U);
      ++by_eighth[(chosen - 32768) / ((60999 - 32768) / 8 + 1)];
      ports.insert(chosen);
    }
  }
  // 8000 flows: 1000 in each eighth, standard deviation 30; 7000 distinct ports are expected.
  ASSERT_EQ(by_eighth.size(), 8U);
  for (const auto& [eighth, flows] : by_eighth) EXPECT_NEAR(flows, 1000, 180) << eighth;
  EXPECT_GT(ports.size(), 6500U);
}

// ---- Quotes ----

std::size_t outer_header(const Ends& ends) { return ends.to.is_ipv4() ? 20 : 40; }

TEST(TunnelQuote, TellsWhereThePacketWasGoingAndWhatWasInIt) {
  for_each_tunnel([](const Tunnel& tunnel, Family inner, const Ends& ends) {
    const Bytes packet = tunnelled(inner, tunnel, ends);
    const auto quote = parse_tunnel_quote(packet);
    ASSERT_TRUE(quote);
    EXPECT_EQ(quote->to, ends.to);
    EXPECT_EQ(quote->tunnel, tunnel);
    EXPECT_EQ(quote->inner, tunnel_overhead(tunnel, ends.to.family()));
  });
}

// RFC 792 promises no more.
TEST(TunnelQuote, EightBytesAfterTheOuterHeaderAreEnough) {
  for_each_tunnel([](const Tunnel& tunnel, Family inner, const Ends& ends) {
    Bytes packet = tunnelled(inner, tunnel, ends);
    packet.resize(outer_header(ends) + 8);
    const auto quote = parse_tunnel_quote(packet);
    ASSERT_TRUE(quote);
    EXPECT_EQ(quote->to, ends.to);
    EXPECT_EQ(quote->tunnel, tunnel);
    const std::size_t at = tunnel_overhead(tunnel, ends.to.family());
    EXPECT_EQ(quote->inner, at < packet.size() ? at : 0);
  });
}

// Each quote in memory of exactly its size, for the sanitizer.
TEST(TunnelQuote, ShorterOnesAreReadNoFurtherThanTheyGo) {
  for_each_tunnel([](const Tunnel& tunnel, Family inner, const Ends& ends) {
    const Bytes whole = tunnelled(inner, tunnel, ends);
    for (std::size_t length = 0; length <= whole.size(); ++length) {
      const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
      const auto quote = parse_tunnel_quote(cut);
      EXPECT_FALSE(length < outer_header(ends) && quote) << length;
      if (!quote) continue;
      EXPECT_EQ(quote->to, ends.to) << length;
      EXPECT_LT(quote->inner, std::max<std::size_t>(length, 1)) << length;
    }
  });
}

TEST(TunnelQuote, AnIpv4HeaderWithOptionsIsSkippedWhole) {
  Bytes packet = tunnelled(Family::ipv4, kTunnels[1], kIpv4Ends);
  packet[0] = 0x46;
  packet.insert(packet.begin() + 20, {1, 1, 1, 1});
  const auto quote = parse_tunnel_quote(packet);
  ASSERT_TRUE(quote);
  EXPECT_EQ(quote->tunnel, kTunnels[1]);
  EXPECT_EQ(quote->inner, 36U);
}

TEST(TunnelQuote, WhatIsNoTunnelIsNotTakenForOne) {
  struct Change {
    std::string what;
    Tunnel tunnel;
    std::size_t at;
    std::uint8_t value;
  };
  const Change changes[] = {
      {"another version", kTunnels[0], 0, 0x55},
      {"a header of 16 bytes", kTunnels[0], 0, 0x44},
      {"a later fragment", kTunnels[0], 7, 1},
      {"TCP", kTunnels[0], 9, 6},
      {"a GUE control message", kTunnels[1], 28, 0x20},
      {"GUE version 1", kTunnels[1], 28, 0x45},
      {"TCP in GUE", kTunnels[1], 29, 6},
      {"GRE with a key", kTunnels[3], 20, 0x20},
      {"GRE version 1", kTunnels[3], 21, 0x01},
      {"Ethernet in GRE", kTunnels[3], 22, 0x65},
  };
  for (const Change& change : changes) {
    Bytes packet = tunnelled(Family::ipv4, change.tunnel, kIpv4Ends);
    packet[change.at] = change.value;
    EXPECT_FALSE(parse_tunnel_quote(packet)) << change.what;
  }
  EXPECT_FALSE(parse_tunnel_quote({}));
}

TEST(TunnelQuote, ThePlaceOfThePacketFollowsGueOptions) {
  Bytes packet = tunnelled(Family::ipv4, kTunnels[1], kIpv4Ends);
  packet[28] = 2;
  const auto quote = parse_tunnel_quote(packet);
  ASSERT_TRUE(quote);
  EXPECT_EQ(quote->inner, 40U);
}

}  // namespace
}  // namespace weir::test
