// SPDX-License-Identifier: Apache-2.0
// What judges the frames that leave in all other tests: that it finds every flipped bit and every
// byte too many or too few, and forgives nothing but what was wrong before.
#include "tests/support/frame_checks.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"

namespace weir::test {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv4 = 20;
constexpr const char* kVip = "10.9.0.1";
const Flow kFlow = {"10.1.0.1", 4000, kVip, 80};

Bytes one_hop_left(Bytes frame) {
  frame[kEthernet + 8] = 1;
  write_checksums(frame);
  return frame;
}

// A UDP service with one real server behind a tunnel of this kind, or behind nat.
class Director {
 public:
  explicit Director(ForwardMode mode, TunnelType type = TunnelType::ipip) {
    ServerSpec spec = server_spec("10.2.0.1", mode == ForwardMode::nat ? 8080 : 80, mode);
    spec.tunnel = type;
    spec.tunnel_port = 6080;
    spec.tunnel_checksum =
        type == TunnelType::ipip ? TunnelChecksum::none : TunnelChecksum::checksum;
    for (const Protocol protocol : {Protocol::tcp, Protocol::udp, Protocol::sctp}) {
      const ServiceKey key = service_key(protocol, kVip, 80);
      add_service(lab.services(), key);
      must(lab.services().add_server(key, spec));
    }
  }
  BurstLab lab;
};

struct Sample {
  std::string name;
  Bytes received;
  Forwarded sent;
};

std::vector<Sample> samples() {
  std::vector<Sample> all;
  const auto add = [&](const std::string& name, Director director, const Bytes& received) {
    all.push_back({name, received, director.lab.send(received)});
    EXPECT_TRUE(is_forwarded(all.back().sent.outcome)) << name;
  };
  add("tcp", Director(ForwardMode::nat), client_tcp(kFlow, TcpHeader::kSyn));
  add("udp", Director(ForwardMode::nat), client_udp(kFlow, "odd"));
  add("sctp", Director(ForwardMode::nat), client_sctp(kFlow, {1}));
  add("icmp", Director(ForwardMode::nat), one_hop_left(client_udp(kFlow, "expires")));
  add("ipip", Director(ForwardMode::tun), client_udp(kFlow));
  add("gue", Director(ForwardMode::tun, TunnelType::gue), client_udp(kFlow));
  add("gre", Director(ForwardMode::tun, TunnelType::gre), client_tcp(kFlow, TcpHeader::kSyn));
  return all;
}

TEST(FrameChecks, every_bit_of_a_packet_counts) {
  for (Sample& sample : samples()) {
    Bytes& frame = sample.sent.bytes;
    ASSERT_EQ(fault_of_sent(frame, sample.sent.outcome, sample.received), "") << sample.name;
    for (std::size_t bit = 8 * (kEthernet - 2); bit < 8 * frame.size(); ++bit) {
      const auto mask = static_cast<std::uint8_t>(1U << bit % 8);
      frame[bit / 8] ^= mask;
      EXPECT_NE(fault_of_sent(frame, sample.sent.outcome, sample.received), "")
          << sample.name << ": byte " << bit / 8 << ", mask " << int{mask};
      frame[bit / 8] ^= mask;
    }
  }
}

TEST(FrameChecks, a_packet_is_as_long_as_its_frame) {
  for (const Sample& sample : samples()) {
    Bytes longer = sample.sent.bytes;
    longer.push_back(0);
    EXPECT_NE(fault_of_sent(longer, sample.sent.outcome, sample.received), "") << sample.name;
    for (std::size_t length = 0; length < sample.sent.bytes.size(); ++length) {
      const std::span shorter(sample.sent.bytes.data(), length);
      EXPECT_NE(fault_of_sent(shorter, sample.sent.outcome, sample.received), "")
          << sample.name << ": " << length;
    }
  }
}

TEST(FrameChecks, what_was_wrong_before_may_stay_wrong) {
  const Bytes right = client_tcp(kFlow, TcpHeader::kAck);
  Bytes wrong = right;
  wrong.back() ^= 1U;
  EXPECT_EQ(fault_of(wrong), "TCP checksum");
  EXPECT_EQ(fault_of_sent(wrong, Outcome::dr_to_server, wrong), "");
  EXPECT_EQ(fault_of_sent(wrong, Outcome::dr_to_server, right), "TCP checksum");
  EXPECT_EQ(fault_of_sent(wrong, Outcome::reset_sent, wrong), "TCP checksum");
  Bytes too_short = right;
  too_short[kEthernet + kIpv4 + 12] = 0x40;
  EXPECT_EQ(fault_of_sent(too_short, Outcome::dr_to_server, wrong), "TCP header");
  EXPECT_EQ(fault_of_sent(too_short, Outcome::dr_to_server, too_short), "");
  wrong[kEthernet + 9] ^= 1U;
  EXPECT_EQ(fault_of_sent(wrong, Outcome::dr_to_server, wrong), "IPv4 header checksum");
}

TEST(FrameChecks, padding_of_what_was_received_forgives_nothing) {
  Bytes received = client_tcp(kFlow, TcpHeader::kAck);
  Bytes wrong = received;
  wrong.back() ^= 1U;
  received.resize(received.size() + 6, 0xee);
  EXPECT_EQ(fault_of_sent(wrong, Outcome::dr_to_server, received), "TCP checksum");
}

TEST(FrameChecks, extension_headers_are_followed) {
  Bytes frame = client_tcp({"2001:db8:1::1", 4000, "2001:db8:9::1", 80}, TcpHeader::kAck);
  constexpr std::size_t kLength = kEthernet + 4;
  constexpr std::size_t kNextHeader = kEthernet + 6;
  constexpr std::size_t kIpv6 = 40;
  // Destination options, then the header of a fragment that is the whole packet.
  const Bytes headers = {44, 0, 1, 4, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 7};
  frame.insert(frame.begin() + kEthernet + kIpv6, headers.begin(), headers.end());
  frame[kLength + 1] = static_cast<std::uint8_t>(frame[kLength + 1] + headers.size());
  frame[kNextHeader] = 60;
  EXPECT_EQ(fault_of(frame), "");
  frame.back() ^= 1U;
  EXPECT_EQ(fault_of(frame), "TCP checksum");
  write_checksums(frame);
  EXPECT_EQ(fault_of(frame), "");
}

// Of an IPv4 packet with a header of 20 bytes.
Bytes fragment_of(const Bytes& whole, std::size_t offset, std::size_t length, bool more) {
  const auto payload = whole.begin() + kEthernet + kIpv4 + static_cast<std::ptrdiff_t>(offset);
  Bytes frame(whole.begin(), whole.begin() + kEthernet + kIpv4);
  frame.insert(frame.end(), payload, payload + static_cast<std::ptrdiff_t>(length));
  frame[kEthernet + 3] = static_cast<std::uint8_t>(kIpv4 + length);
  frame[kEthernet + 6] = more ? 0x20 : 0;
  frame[kEthernet + 7] = static_cast<std::uint8_t>(offset / 8);
  write_checksums(frame);
  return frame;
}

TEST(FrameChecks, a_wrong_frame_fails_the_test_that_sends_it) {
  Director director(ForwardMode::nat);
  Bytes whole = client_udp(kFlow, "12345678");
  whole.back() ^= 1U;
  EXPECT_EQ(director.lab.send(fragment_of(whole, 0, 8, true)).outcome, Outcome::fragment_kept);
  Forwarded sent;
  // The datagram's checksum is wrong, of which no fragment could tell.
  EXPECT_NONFATAL_FAILURE(sent = director.lab.send(fragment_of(whole, 8, 8, false)),
                          "UDP checksum");
  EXPECT_EQ(sent.outcome, Outcome::nat_to_server);
}

}  // namespace
}  // namespace weir::test
