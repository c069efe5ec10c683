// SPDX-License-Identifier: Apache-2.0
// ICMP errors through fullnat and NAT64, in both directions: whoever sent the packet that is quoted
// gets back what it sent, transport checksum included.
#include <gtest/gtest.h>

#include <string>

#include "tests/support/burst_lab.h"
#include "tests/support/families.h"
#include "tests/support/frame_checks.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIcmp = 8;
constexpr std::size_t kLeastQuoted = 8;
constexpr std::uint16_t kClientSide = 0;
constexpr std::uint16_t kServerSide = 1;
constexpr std::uint8_t kSyn = TcpHeader::kSyn;
constexpr std::uint8_t kAck = TcpHeader::kAck;

bool is_ipv4(const Bytes& packet) { return packet[0] >> 4 == 4; }
std::size_t header_of(const Bytes& packet) { return is_ipv4(packet) ? 20 : 40; }

Bytes after(const Bytes& bytes, std::size_t count) {
  return {bytes.begin() + static_cast<std::ptrdiff_t>(count), bytes.end()};
}

Bytes raw(const std::string& address) {
  const IpAddress ip = address_of(address);
  return {ip.bytes().begin(), ip.bytes().begin() + (ip.is_ipv4() ? 4 : 16)};
}

void append(Bytes& to, const Bytes& bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

void put(Bytes& at, std::size_t offset, std::size_t value) {
  at[offset] = static_cast<std::uint8_t>(value >> 8);
  at[offset + 1] = static_cast<std::uint8_t>(value);
}

struct Kind {
  std::uint8_t type;
  std::uint8_t code;
};
constexpr Kind kUnreachable[] = {{3, 3}, {1, 4}};  // IPv4, IPv6
constexpr Kind kTooBig[] = {{3, 4}, {2, 0}};

// A router's error to the sender of `quoted`, of which it quotes `bytes`.
Bytes error_about(const Bytes& quoted, std::size_t bytes, const Kind (&kinds)[2], std::uint16_t mtu,
                  std::uint16_t side) {
  const bool v4 = is_ipv4(quoted);
  const Kind kind = kinds[v4 ? 0 : 1];
  Bytes icmp = {kind.type, kind.code, 0, 0, 0, 0, 0, 0};
  put(icmp, 6, mtu);
  append(icmp, Bytes(quoted.begin(), quoted.begin() + static_cast<std::ptrdiff_t>(bytes)));
  const Bytes sender(quoted.begin() + (v4 ? 12 : 8), quoted.begin() + (v4 ? 16 : 24));
  Bytes addresses = raw(v4 ? "10.3.0.9" : "2001:db8:3::9");
  append(addresses, sender);
  Bytes summed = v4 ? Bytes{} : addresses;
  if (!v4) append(summed, {0, 0, 0, 0, 0, 0, 0, 58});
  if (!v4) put(summed, 34, icmp.size());
  append(summed, icmp);
  put(icmp, 2, internet_checksum(summed));
  Bytes ip = v4 ? from_hex("4500000012340000400100000000") : from_hex("6000000000003a40");
  if (v4) ip.resize(12);
  put(ip, v4 ? 2 : 4, icmp.size() + (v4 ? 20 : 0));
  append(ip, addresses);
  if (v4) put(ip, 10, internet_checksum(ip));
  Bytes frame =
      from_hex(side == kClientSide ? "020000000afe020000000c01" : "020000000bfe020000000d01");
  append(frame, v4 ? Bytes{8, 0} : Bytes{0x86, 0xdd});
  append(frame, ip);
  append(frame, icmp);
  return frame;
}

// Of a frame with an ICMP error.
Bytes quoted_in(const Bytes& frame) {
  const Bytes packet = after(frame, kEthernet);
  return after(packet, header_of(packet) + kIcmp);
}

std::uint16_t mtu_in(const Bytes& frame) {
  const Bytes packet = after(frame, kEthernet);
  const std::size_t at = header_of(packet) + 6;
  return static_cast<std::uint16_t>(packet[at] * 256 + packet[at + 1]);
}

class IcmpFullnat : public testing::TestWithParam<Families> {
 protected:
  explicit IcmpFullnat() : lab_({.workers = kWorkers}) {
    const IpAddress local = address_of(GetParam().first_local);
    must(lab_.services().add_local_addresses({local, local}, std::nullopt));
    for (const Protocol protocol : {Protocol::tcp, Protocol::udp}) {
      const ServiceKey key = service_key(protocol, GetParam().vip, 80);
      add_service(lab_.services(), key);
      must(lab_.services().add_server(key,
                                      server_spec(GetParam().server, 8080, ForwardMode::fullnat)));
    }
    const ServiceKey proxied = service_key(Protocol::udp, GetParam().vip, kProxied);
    add_service(lab_.services(), proxied);
    must(lab_.services().add_server(proxied,
                                    server_spec(GetParam().server, 8081, ForwardMode::fullnat)));
    must(lab_.services().set_service_option(proxied, {"client-address", "proxy"}));
  }

  // A packet there and one back, as they came and as they left, without Ethernet header.
  struct Exchange {
    Bytes client_sent;
    Bytes server_got;
    Bytes server_sent;
    Bytes client_got;
  };
  Exchange exchange(Protocol protocol, std::uint16_t port) {
    const Flow flow = {GetParam().client, port, GetParam().vip, 80};
    const bool tcp = protocol == Protocol::tcp;
    const Bytes there = tcp ? client_tcp(flow, kSyn) : client_udp(flow, "there");
    const Forwarded at_server = lab_.deliver(there, kClientSide, 0);
    EXPECT_EQ(name_of(at_server.outcome), "fullnat_to_server");
    const Flow seen = decode(at_server.bytes).flow;
    const Flow answer = {seen.destination, seen.destination_port, seen.source, seen.source_port};
    const Bytes back = tcp ? server_tcp(answer, kSyn | kAck) : server_udp(answer, "back");
    const Forwarded at_client = lab_.deliver(back, kServerSide, 0);
    EXPECT_EQ(name_of(at_client.outcome), "fullnat_to_client");
    return {after(there, kEthernet), after(at_server.bytes, kEthernet), after(back, kEthernet),
            after(at_client.bytes, kEthernet)};
  }

  // A datagram with a PROXY header, as it came and as it left.
  Exchange proxied(const std::string& payload) {
    const Bytes there = client_udp({GetParam().client, 4000, GetParam().vip, kProxied}, payload);
    const Forwarded at_server = lab_.deliver(there, kClientSide, 0);
    EXPECT_EQ(name_of(at_server.outcome), "fullnat_to_server");
    const Exchange sent{after(there, kEthernet), after(at_server.bytes, kEthernet), {}, {}};
    EXPECT_EQ(sent.server_got.size() - header_of(sent.server_got),
              sent.client_sent.size() - header_of(sent.client_sent) + proxy_header());
    return sent;
  }
  // proxy-protocol.txt, section 2.2: 16 bytes, addresses and ports of the client's family.
  std::size_t proxy_header() const { return address_of(GetParam().client).is_ipv4() ? 28 : 52; }
  // The first `bytes` of the client's datagram, behind the IP header, are what `got` quotes.
  void expect_quoted(const Forwarded& got, const Bytes& sent, std::size_t bytes) {
    ASSERT_EQ(name_of(got.outcome), "fullnat_to_client");
    EXPECT_EQ(fault_of(got.bytes), "");
    const Bytes told = quoted_in(got.bytes);
    const std::size_t own = header_of(sent);
    ASSERT_EQ(header_of(told), own);
    const std::size_t length = is_ipv4(sent) ? 2 : 4;
    EXPECT_EQ(to_hex({told.data() + length, 2}), to_hex({sent.data() + length, 2}));
    EXPECT_EQ(to_hex(after(told, own)), to_hex({sent.data() + own, bytes}));
  }

  // `quoted` left the director; who had sent `original` is told with it.
  void expect_told(const Bytes& quoted, const Bytes& original, std::uint16_t side) {
    const std::size_t header = header_of(quoted);
    for (const std::size_t bytes : {header + kLeastQuoted, quoted.size()}) {
      for (unsigned worker = 0; worker < kWorkers; ++worker) {
        const Forwarded got =
            lab_.deliver(error_about(quoted, bytes, kUnreachable, 0, side), side, worker);
        ASSERT_EQ(name_of(got.outcome),
                  side == kServerSide ? "fullnat_to_client" : "fullnat_to_server");
        EXPECT_EQ(got.port, side == kServerSide ? kClientSide : kServerSide);
        const Bytes told = quoted_in(got.bytes);
        ASSERT_EQ(is_ipv4(told), is_ipv4(original));
        const std::size_t own = header_of(original);
        // Addresses, and all of the transport header that is quoted.
        const std::size_t at = is_ipv4(original) ? 12 : 8;
        EXPECT_EQ(to_hex({told.data() + at, own - at}), to_hex({original.data() + at, own - at}));
        EXPECT_EQ(to_hex(after(told, own)), to_hex({original.data() + own, bytes - header}));
      }
    }
  }

  static constexpr std::uint16_t kProxied = 81;
  static constexpr unsigned kWorkers = 3;
  BurstLab lab_;
};

TEST_P(IcmpFullnat, whoever_sent_a_packet_is_told_of_it) {
  for (const Protocol protocol : {Protocol::tcp, Protocol::udp}) {
    for (std::uint16_t port = 4000; port < 4008; ++port) {
      const Exchange sent = exchange(protocol, port);
      expect_told(sent.server_got, sent.client_sent, kServerSide);
      expect_told(sent.client_got, sent.server_sent, kClientSide);
    }
  }
}

TEST_P(IcmpFullnat, a_reported_mtu_is_that_of_the_senders_packets) {
  const Exchange sent = exchange(Protocol::udp, 4000);
  const auto reported = [&](const Bytes& quoted, std::uint16_t side) {
    const Bytes error = error_about(quoted, quoted.size(), kTooBig, 1400, side);
    return mtu_in(lab_.deliver(error, side, 0).bytes);
  };
  const int longer =
      static_cast<int>(header_of(sent.client_sent)) - static_cast<int>(header_of(sent.server_got));
  EXPECT_EQ(reported(sent.server_got, kServerSide), 1400 + longer);
  EXPECT_EQ(reported(sent.client_got, kClientSide), 1400 - longer);
}

// However much of it is quoted.
TEST_P(IcmpFullnat, a_client_is_told_of_its_datagram_without_the_proxy_header) {
  const Exchange sent = proxied("an odd number of bytes.");
  const std::size_t header = header_of(sent.server_got);
  for (std::size_t bytes = kLeastQuoted; header + bytes <= sent.server_got.size(); ++bytes) {
    SCOPED_TRACE(bytes);
    const Bytes error = error_about(sent.server_got, header + bytes, kUnreachable, 0, kServerSide);
    const std::size_t most = kLeastQuoted + proxy_header();
    expect_quoted(lab_.deliver(error, kServerSide, 0), sent.client_sent,
                  bytes < most ? kLeastQuoted : bytes - proxy_header());
  }
}

// RFC 4884: what follows 128 bytes of quote is not the datagram's.
TEST_P(IcmpFullnat, extensions_do_not_become_a_part_of_the_datagram) {
  constexpr std::size_t kQuoted = 128;
  const Exchange sent = proxied(std::string(300, 'x'));
  const bool v4 = is_ipv4(sent.server_got);
  const std::size_t header = header_of(sent.server_got);
  Bytes error = error_about(sent.server_got, kQuoted, kUnreachable, 0, kServerSide);
  append(error, {0x20, 0, 0, 0, 0, 0, 0, 0});
  const std::size_t packet = error.size() - kEthernet;
  put(error, kEthernet + (v4 ? 2 : 4), v4 ? packet : packet - header);
  error[kEthernet + header + (v4 ? 5U : 4U)] = v4 ? kQuoted / 4 : kQuoted / 8;
  write_checksums(error);
  const Forwarded got = lab_.deliver(error, kServerSide, 0);
  expect_quoted(got, sent.client_sent, kQuoted - header - proxy_header());
  const std::size_t unused = kEthernet + header_of(sent.client_sent) + 4;
  EXPECT_EQ(to_hex({got.bytes.data() + unused, 4}), "00000000");
}

TEST_P(IcmpFullnat, an_error_about_no_connection_is_left_to_the_kernel) {
  const Exchange sent = exchange(Protocol::udp, 4000);
  Bytes other = sent.server_got;
  other[header_of(other) + 1] ^= 1;  // the local port
  const Bytes error = error_about(other, other.size(), kUnreachable, 0, kServerSide);
  const Forwarded got = lab_.deliver(error, kServerSide, 0);
  EXPECT_EQ(name_of(got.outcome), "kernel_icmp");
  EXPECT_EQ(to_hex(got.bytes), to_hex(error));
}

INSTANTIATE_TEST_SUITE_P(Families, IcmpFullnat, testing::Values(kIpv4, kIpv6, kNat64, kNat46),
                         kNameOfFamilies);

}  // namespace
}  // namespace weir::test
