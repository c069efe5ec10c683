// SPDX-License-Identifier: Apache-2.0
// FullNAT and NAT64 through the whole packet path: local ends, ownership of replies, what real
// servers learn of the client, and that nothing is left behind.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "tests/support/burst_lab.h"
#include "tests/support/families.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"

namespace weir::test {
namespace {

constexpr std::uint16_t kServerSide = 1;
constexpr std::uint8_t kSyn = TcpHeader::kSyn;
constexpr std::uint8_t kAck = TcpHeader::kAck;
constexpr std::uint8_t kRst = TcpHeader::kRst;

class FullNat : public testing::TestWithParam<Families> {
 protected:
  void set_up(BurstLab& lab, Protocol protocol = Protocol::tcp, unsigned servers = 1) const {
    const ServiceKey key = service_key(protocol, GetParam().vip, 80);
    must(lab.services().add_local_addresses(
        {address_of(GetParam().first_local), address_of(GetParam().last_local)}, std::nullopt));
    add_service(lab.services(), key);
    for (unsigned i = 0; i < servers; ++i) {
      std::string server = GetParam().server;
      server.back() = static_cast<char>('1' + i);
      must(lab.services().add_server(key, server_spec(server, 8080, ForwardMode::fullnat)));
    }
  }
  Flow from_client(std::uint16_t port) const {
    return {GetParam().client, port, GetParam().vip, 80};
  }
};

Flow answer_to(const Decoded& sent) {
  return {sent.flow.destination, sent.flow.destination_port, sent.flow.source,
          sent.flow.source_port};
}

std::uint32_t connections(BurstLab& lab, unsigned workers) {
  std::uint32_t sum = 0;
  for (unsigned i = 0; i < workers; ++i) {
    sum += lab.worker(i).ipv4.size() + lab.worker(i).ipv6.size();
  }
  return sum;
}

TEST_P(FullNat, both_ends_are_rewritten_and_the_reply_finds_its_way_back) {
  BurstLab lab;
  set_up(lab);
  const Forwarded syn = lab.send(client_tcp(from_client(4000), kSyn));
  ASSERT_EQ(syn.outcome, Outcome::fullnat_to_server);
  const Decoded at_server = decode(syn.bytes);
  EXPECT_EQ(at_server.flow.destination, GetParam().server);
  EXPECT_EQ(at_server.flow.destination_port, 8080);
  EXPECT_GE(address_of(at_server.flow.source), address_of(GetParam().first_local));
  EXPECT_LE(address_of(at_server.flow.source), address_of(GetParam().last_local));
  EXPECT_GE(at_server.flow.source_port, 1024);

  const Forwarded reply = lab.send(server_tcp(answer_to(at_server), kSyn | kAck), kServerSide);
  ASSERT_EQ(reply.outcome, Outcome::fullnat_to_client);
  const Decoded at_client = decode(reply.bytes);
  EXPECT_EQ(at_client.flow.source, GetParam().vip);
  EXPECT_EQ(at_client.flow.source_port, 80);
  EXPECT_EQ(at_client.flow.destination, GetParam().client);
  EXPECT_EQ(at_client.flow.destination_port, 4000);

  const Forwarded data = lab.send(client_tcp(from_client(4000), kAck, "GET /"));
  ASSERT_EQ(data.outcome, Outcome::fullnat_to_server);
  EXPECT_EQ(decode(data.bytes).flow.source_port, at_server.flow.source_port);
}

TEST_P(FullNat, replies_belong_to_the_worker_that_opened_the_connection) {
  constexpr unsigned kWorkers = 4;
  BurstLab lab({.workers = kWorkers});
  set_up(lab, Protocol::udp);
  std::set<std::pair<std::string, std::uint16_t>> ends;
  for (std::uint16_t port = 2000; port < 2400; ++port) {
    const Forwarded out = lab.deliver(client_udp(from_client(port)), 0, port % kWorkers);
    ASSERT_EQ(out.outcome, Outcome::fullnat_to_server);
    const Decoded at_server = decode(out.bytes);
    EXPECT_TRUE(ends.emplace(at_server.flow.source, at_server.flow.source_port).second);
    const Forwarded back =
        lab.deliver(server_udp(answer_to(at_server)), kServerSide, (port + 1U) % kWorkers);
    ASSERT_EQ(back.outcome, Outcome::fullnat_to_client);
    EXPECT_EQ(decode(back.bytes).flow.destination_port, port);
  }
}

TEST_P(FullNat, nothing_is_left_when_connections_end) {
  BurstLab lab;
  set_up(lab, Protocol::tcp, 3);
  for (std::uint16_t port = 2000; port < 2300; ++port) {
    const Forwarded syn = lab.send(client_tcp(from_client(port), kSyn));
    ASSERT_EQ(syn.outcome, Outcome::fullnat_to_server);
    if (port % 2 == 0) continue;
    const Forwarded reset =
        lab.send(server_tcp(answer_to(decode(syn.bytes)), kRst | kAck), kServerSide);
    ASSERT_EQ(reset.outcome, Outcome::fullnat_to_client);
  }
  EXPECT_GE(connections(lab, 1), 300U);
  lab.pass_seconds(130);
  EXPECT_EQ(connections(lab, 1), 0U);
  for (const ServerLoad& load : lab.worker().own().loads) {
    ASSERT_EQ(load.connections.read(), 0U);
    ASSERT_EQ(load.active.read(), 0U);
  }
}

TEST_P(FullNat, without_a_free_local_port_the_packet_is_dropped_by_name) {
  BurstLab lab({.capacity = 80000, .server_slots = 64});
  const ServiceKey key = service_key(Protocol::udp, GetParam().vip, 80);
  const IpAddress local = address_of(GetParam().first_local);
  must(lab.services().add_local_addresses({local, local}, std::nullopt));
  add_service(lab.services(), key);
  must(lab.services().add_server(key, server_spec(GetParam().server, 8080, ForwardMode::fullnat)));
  std::uint32_t opened = 0;
  for (std::uint32_t i = 0; i < 64000; ++i) {
    const bool v4 = GetParam().vip == kIpv4.vip;
    const std::string host =
        v4 ? "10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1)
           : "2001:db8:1::" + std::to_string(i / 250 + 1) + ":" + std::to_string(i % 250 + 1);
    const Forwarded sent = lab.send(client_udp({host, 5000, GetParam().vip, 80}));
    opened += sent.outcome == Outcome::fullnat_to_server ? 1U : 0U;
    if (sent.outcome != Outcome::fullnat_to_server) {
      ASSERT_EQ(sent.outcome, Outcome::drop_no_local_port);
    }
  }
  EXPECT_GE(opened, 60000U);
  EXPECT_LT(opened, 64000U);
  EXPECT_GE(lab.worker().own().local_address_exhausted.read(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Families, FullNat, testing::Values(kIpv4, kIpv6, kNat64, kNat46),
                         kNameOfFamilies);

// ---- What the real server learns of the client ----

class ClientAddressPassed : public testing::Test {
 protected:
  void set_up(Protocol protocol, const std::string& how) {
    const ServiceKey key = service_key(protocol, kIpv4.vip, 80);
    must(lab_.services().add_local_addresses(
        {address_of(kIpv4.first_local), address_of(kIpv4.last_local)}, std::nullopt));
    add_service(lab_.services(), key);
    must(lab_.services().add_server(key, server_spec(kIpv4.server, 8080, ForwardMode::fullnat)));
    must(lab_.services().set_service_option(key, {"client-address", how}));
  }
  Forwarded from_client(std::uint8_t flags, std::string_view payload = "") {
    return lab_.send(client_tcp({kIpv4.client, 4000, kIpv4.vip, 80}, flags, payload));
  }
  BurstLab lab_;
};

// proxy-protocol.txt, section 2.2: signature, version 2 and command PROXY, TCP or UDP over IPv4, 12
// bytes: addresses and ports.
const Bytes kProxyV2 = from_hex("0d0a0d0a000d0a515549540a2111000c0a0100010a0900010fa00050");

bool ends_with(const Bytes& all, const Bytes& tail) {
  return all.size() >= tail.size() && std::equal(tail.rbegin(), tail.rend(), all.rbegin());
}

TEST_F(ClientAddressPassed, toa_is_in_the_options_of_the_syn) {
  set_up(Protocol::tcp, "toa");
  const Forwarded syn = from_client(kSyn);
  ASSERT_EQ(syn.outcome, Outcome::fullnat_to_server);
  const Bytes option = from_hex("fe080fa00a010001");
  EXPECT_NE(std::search(syn.bytes.begin() + 54, syn.bytes.end(), option.begin(), option.end()),
            syn.bytes.end());
}

TEST_F(ClientAddressPassed, proxy_is_in_front_of_the_first_byte) {
  set_up(Protocol::tcp, "proxy");
  const Forwarded syn = from_client(kSyn);
  EXPECT_EQ(syn.bytes.size(), 54U);
  const Forwarded reply =
      lab_.send(server_tcp(answer_to(decode(syn.bytes)), kSyn | kAck), kServerSide);
  ASSERT_EQ(reply.outcome, Outcome::fullnat_to_client);
}

TEST_F(ClientAddressPassed, proxy_is_in_each_datagram) {
  set_up(Protocol::udp, "proxy");
  for (int i = 0; i < 2; ++i) {
    const Forwarded out = lab_.send(client_udp({kIpv4.client, 4000, kIpv4.vip, 80}, "hello"));
    ASSERT_EQ(out.outcome, Outcome::fullnat_to_server);
    Bytes expected = kProxyV2;
    expected[13] = 0x12;
    for (const char c : std::string("hello")) expected.push_back(static_cast<std::uint8_t>(c));
    EXPECT_TRUE(ends_with(out.bytes, expected)) << to_hex(out.bytes);
  }
}

}  // namespace
}  // namespace weir::test
