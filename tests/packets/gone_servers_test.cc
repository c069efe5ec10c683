// SPDX-License-Identifier: Apache-2.0
// What becomes of the connections of a real server that is gone, by the service's policy: with
// their next packet, and without one.
#include <gtest/gtest.h>

#include <set>

#include "dataplane/path/gone_servers.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

constexpr std::uint16_t kServerSide = 1;
constexpr std::uint8_t kSyn = TcpHeader::kSyn;
constexpr std::uint8_t kAck = TcpHeader::kAck;
constexpr std::uint8_t kFin = TcpHeader::kFin;
constexpr std::uint8_t kRst = TcpHeader::kRst;
constexpr std::uint16_t kClientPort = 40000;

// The ends of one family's connections.
struct Ends {
  const char* client;
  const char* vip;
  const char* server;
  const char* other_server;
  const char* local;
};
constexpr Ends kIpv4 = {"10.1.0.1", "10.9.0.1", "10.2.0.1", "10.2.0.2", "10.2.0.200"};
constexpr Ends kIpv6 = {"2001:db8:1::1", "2001:db8:9::1", "2001:db8:2::1", "2001:db8:2::2",
                        "2001:db8:2::200"};

std::uint32_t number_at(const Bytes& frame, std::size_t at, std::size_t bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < bytes; ++i) value = value << 8 | frame[at + i];
  return value;
}

// The fields of a TCP segment without options in a frame without VLAN.
struct Segment {
  std::uint32_t sequence = 0;
  std::uint32_t acknowledgement = 0;
  std::uint8_t flags = 0;
};

std::size_t ip_header_of(const Bytes& frame) { return frame[12] == 0x08 ? 20 : 40; }

Segment segment_of(const Bytes& frame) {
  const std::size_t at = 14 + ip_header_of(frame);
  return {number_at(frame, at + 4, 4), number_at(frame, at + 8, 4), frame[at + 13]};
}

// Lengths and checksums are judged by the lab.
void expect_bare_header(const Bytes& frame) {
  const std::size_t header = ip_header_of(frame);
  ASSERT_EQ(frame.size(), 14 + header + 20);
  EXPECT_EQ(frame[14 + header + 12], 0x50);
}

void expect_flow(const Bytes& frame, const Flow& wanted) {
  const Flow flow = decode(frame).flow;
  EXPECT_EQ(flow.source, wanted.source);
  EXPECT_EQ(flow.source_port, wanted.source_port);
  EXPECT_EQ(flow.destination, wanted.destination);
  EXPECT_EQ(flow.destination_port, wanted.destination_port);
}

class GoneServers : public testing::Test {
 protected:
  // An established connection, whose real server goes; nobody has looked for such yet.
  void set_up(const char* policy, ForwardMode mode = ForwardMode::nat, const Ends& ends = kIpv4) {
    ends_ = ends;
    key_ = service_key(Protocol::tcp, ends.vip, 80);
    add_service(lab_.services(), key_);
    if (mode == ForwardMode::fullnat) {
      must(lab_.services().add_local_addresses({address_of(ends.local), address_of(ends.local)},
                                               std::nullopt));
    }
    must(lab_.services().set_service_option(key_, {"gone-server", policy}));
    server_port_ = mode == ForwardMode::nat || mode == ForwardMode::fullnat ? 8080 : 80;
    must(lab_.services().add_server(key_, server_spec(ends.server, server_port_, mode)));
    const Forwarded opened = lab_.send(from_client(kSyn));
    ASSERT_TRUE(is_forwarded(opened.outcome)) << name_of(opened.outcome);
    if (server_port_ == 8080) {
      const Flow to_server = decode(opened.bytes).flow;
      server_sees_ = {to_server.source, to_server.source_port};
      ASSERT_TRUE(is_forwarded(lab_.send(from_server(kSyn | kAck), kServerSide).outcome));
    }
    ASSERT_TRUE(is_forwarded(lab_.send(from_client(kAck)).outcome));
    must(lab_.services().delete_server(key_, address_of(ends.server), server_port_));
  }

  Bytes from_client(std::uint8_t flags, std::string_view data = "",
                    std::uint16_t port = kClientPort) const {
    return client_tcp({ends_.client, port, ends_.vip, 80}, flags, data);
  }
  Bytes from_server(std::uint8_t flags) const {
    return server_tcp({ends_.server, 8080, server_sees_.address, server_sees_.port}, flags);
  }
  std::size_t connections() {
    std::size_t count = 0;
    ConnectionCursor cursor;
    lab_.services().visit_connections(cursor, 1U << 20, [&](const ConnectionListing&) { ++count; });
    return count;
  }
  void expect_reset_of_client(const Bytes& sent) {
    const Forwarded got = lab_.send(sent);
    ASSERT_EQ(got.outcome, Outcome::reset_sent) << name_of(got.outcome);
    EXPECT_EQ(got.port, 0);
    expect_bare_header(got.bytes);
    expect_flow(got.bytes, {ends_.vip, 80, ends_.client, kClientPort});
    EXPECT_EQ(segment_of(got.bytes).flags, kRst);
    EXPECT_EQ(segment_of(got.bytes).sequence, segment_of(sent).acknowledgement);
  }
  void expect_reset_of_server() {
    const Forwarded got = lab_.send(from_server(kAck), kServerSide);
    ASSERT_EQ(got.outcome, Outcome::reset_sent) << name_of(got.outcome);
    EXPECT_EQ(got.port, kServerSide);
    expect_bare_header(got.bytes);
    expect_flow(got.bytes, {server_sees_.address, server_sees_.port, ends_.server, 8080});
    EXPECT_EQ(decode(got.bytes).server, 1U);
  }

  struct End {
    std::string address;
    std::uint16_t port = 0;
  };
  BurstLab lab_{{.server_slots = 64}};
  Ends ends_ = kIpv4;
  ServiceKey key_;
  std::uint16_t server_port_ = 0;
  End server_sees_;  // the other end of the connection, as the real server has it
};

// ---- At their next packet ----

TEST_F(GoneServers, Keep) {
  set_up("keep");
  EXPECT_TRUE(lab_.look_after_gone_servers().empty());
  EXPECT_EQ(lab_.send(from_client(kAck)).outcome, Outcome::nat_to_server);
  EXPECT_EQ(lab_.send(from_server(kAck), kServerSide).outcome, Outcome::nat_to_client);
  EXPECT_EQ(lab_.send(from_client(kSyn, "", 40001)).outcome, Outcome::icmp_error_sent);
  // Whatever the settings say for the others.
  must(lab_.services().set_setting("expire_nodest_conn", "1"));
  EXPECT_EQ(lab_.send(from_client(kAck)).outcome, Outcome::nat_to_server);
}

TEST_F(GoneServers, Drop) {
  set_up("drop");
  EXPECT_TRUE(lab_.look_after_gone_servers().empty());
  EXPECT_EQ(connections(), 1U);
  EXPECT_EQ(lab_.send(from_client(kAck)).outcome, Outcome::drop_server_removed);
  EXPECT_EQ(lab_.send(from_server(kAck), kServerSide).outcome, Outcome::nat_to_client);
}

TEST_F(GoneServers, Reset) {
  set_up("reset");
  // Until the client speaks, the server may.
  EXPECT_EQ(lab_.send(from_server(kAck), kServerSide).outcome, Outcome::nat_to_client);
  expect_reset_of_client(from_client(kAck, "data"));
  expect_reset_of_server();
}

TEST_F(GoneServers, ResetIpv6) {
  set_up("reset", ForwardMode::nat, kIpv6);
  expect_reset_of_client(from_client(kAck));
  expect_reset_of_server();
}

TEST_F(GoneServers, AResetAnswersWhatHasNoAcknowledgementByTheNextSequenceNumber) {
  set_up("reset");
  const Bytes sent = from_client(kFin, "data");
  const Forwarded got = lab_.send(sent);
  ASSERT_EQ(got.outcome, Outcome::reset_sent);
  expect_bare_header(got.bytes);
  const Segment reset = segment_of(got.bytes);
  EXPECT_EQ(reset.flags, kRst | kAck);
  EXPECT_EQ(reset.sequence, 0U);
  EXPECT_EQ(reset.acknowledgement, segment_of(sent).sequence + 4 + 1);  // data, FIN
}

TEST_F(GoneServers, AResetIsNotAnsweredByAReset) {
  set_up("reset");
  EXPECT_EQ(lab_.send(from_client(kRst)).outcome, Outcome::drop_server_removed);
}

// ---- Without one ----

TEST_F(GoneServers, ExpireNodestConnClosesAtOnce) {
  must(lab_.services().set_setting("expire_nodest_conn", "1"));
  set_up("drop");
  EXPECT_TRUE(lab_.look_after_gone_servers().empty());
  EXPECT_EQ(connections(), 0U);
}

TEST_F(GoneServers, ExpireNodestConnLeavesConnectionsOfTheOthers) {
  must(lab_.services().set_setting("expire_nodest_conn", "1"));
  set_up("drop");
  must(lab_.services().add_server(key_, server_spec(kIpv4.other_server, 8080, ForwardMode::nat)));
  ASSERT_EQ(lab_.send(from_client(kSyn, "", 40001)).outcome, Outcome::nat_to_server);
  lab_.look_after_gone_servers();
  EXPECT_EQ(connections(), 1U);
  EXPECT_EQ(lab_.send(from_client(kAck, "", 40001)).outcome, Outcome::nat_to_server);
}

struct Case {
  ForwardMode mode;
  const Ends* ends;
};

class Probes : public GoneServers, public testing::WithParamInterface<Case> {};

INSTANTIATE_TEST_SUITE_P(
    Modes, Probes,
    testing::Values(Case{ForwardMode::nat, &kIpv4}, Case{ForwardMode::nat, &kIpv6},
                    Case{ForwardMode::fullnat, &kIpv4}, Case{ForwardMode::fullnat, &kIpv6},
                    Case{ForwardMode::dr, &kIpv4}, Case{ForwardMode::dr, &kIpv6},
                    Case{ForwardMode::tun, &kIpv4}));

TEST_P(Probes, AskBothEndsAndResetWhatAnswers) {
  set_up("reset", GetParam().mode, *GetParam().ends);
  const std::vector<Forwarded> sent = lab_.look_after_gone_servers();
  const bool heard = server_port_ == 8080;
  ASSERT_EQ(sent.size(), heard ? 2U : 1U);
  for (const Forwarded& probe : sent) {
    EXPECT_EQ(probe.outcome, Outcome::probe_sent) << name_of(probe.outcome);
    expect_bare_header(probe.bytes);
    EXPECT_EQ(segment_of(probe.bytes).flags, kAck);
  }
  EXPECT_EQ(sent[0].port, 0);
  expect_flow(sent[0].bytes, {ends_.vip, 80, ends_.client, kClientPort});
  if (heard) {
    EXPECT_EQ(sent[1].port, kServerSide);
    EXPECT_EQ(decode(sent[1].bytes).server, 1U);
    expect_flow(sent[1].bytes, {server_sees_.address, server_sees_.port, ends_.server, 8080});
    expect_reset_of_server();
  }
  expect_reset_of_client(from_client(kAck));
  EXPECT_EQ(lab_.count(Outcome::probe_sent), sent.size());
  EXPECT_TRUE(lab_.look_after_gone_servers().empty()) << "once is enough";
}

// Its client has been told, or is about to be.
TEST_F(GoneServers, AConnectionThatIsBeingResetStaysSoWhenItsServerReturns) {
  set_up("reset");
  lab_.look_after_gone_servers();
  must(lab_.services().add_server(key_, server_spec(kIpv4.server, 8080, ForwardMode::nat)));
  expect_reset_of_client(from_client(kAck));
  expect_reset_of_server();
}

TEST_F(GoneServers, AClientsNextConnectionFromThatPortIsANewOne) {
  set_up("reset");
  lab_.look_after_gone_servers();
  must(lab_.services().add_server(key_, server_spec(kIpv4.other_server, 8080, ForwardMode::nat)));
  const Forwarded opened = lab_.send(from_client(kSyn));
  ASSERT_EQ(opened.outcome, Outcome::nat_to_server);
  EXPECT_EQ(decode(opened.bytes).server, 2U);
  EXPECT_EQ(lab_.send(from_client(kAck)).outcome, Outcome::nat_to_server);
}

// A policy that is set later is for those that have gone before, too.
TEST_F(GoneServers, ThePolicyMayComeAfterwards) {
  set_up("drop");
  EXPECT_TRUE(lab_.look_after_gone_servers().empty());
  must(lab_.services().set_service_option(key_, {"gone-server", "reset"}));
  EXPECT_EQ(lab_.look_after_gone_servers().size(), 2U);
}

TEST_F(GoneServers, AllOfARemovedServiceAreAsked) {
  key_ = service_key(Protocol::tcp, kIpv4.vip, 80);
  add_service(lab_.services(), key_);
  must(lab_.services().set_service_option(key_, {"gone-server", "reset"}));
  must(lab_.services().add_server(key_, server_spec(kIpv4.server, 80, ForwardMode::dr)));
  constexpr std::uint16_t kClients = 1000;
  for (std::uint16_t i = 0; i < kClients; ++i) {
    const auto port = static_cast<std::uint16_t>(kClientPort + i);
    ASSERT_EQ(lab_.send(from_client(kSyn, "", port)).outcome, Outcome::dr_to_server);
  }
  must(lab_.services().delete_service(key_));
  EXPECT_EQ(lab_.look_after_gone_servers().size(), kClients);
}

// Datagrams have no way to say that a connection is over: the next one goes to another server.
TEST_F(GoneServers, ResetOfUdpIsANewChoice) {
  const ServiceKey udp = service_key(Protocol::udp, kIpv4.vip, 53);
  add_service(lab_.services(), udp);
  must(lab_.services().set_service_option(udp, {"gone-server", "reset"}));
  must(lab_.services().add_server(udp, server_spec(kIpv4.server, 53, ForwardMode::nat)));
  const Bytes datagram = client_udp({kIpv4.client, kClientPort, kIpv4.vip, 53});
  ASSERT_EQ(decode(lab_.send(datagram).bytes).server, 1U);
  must(lab_.services().add_server(udp, server_spec(kIpv4.other_server, 53, ForwardMode::nat)));
  must(lab_.services().delete_server(udp, address_of(kIpv4.server), 53));
  EXPECT_TRUE(lab_.look_after_gone_servers().empty());
  EXPECT_EQ(connections(), 0U);
  const Forwarded got = lab_.send(datagram);
  ASSERT_EQ(got.outcome, Outcome::nat_to_server);
  EXPECT_EQ(decode(got.bytes).server, 2U);
}

// A departure with each step of the walk: it goes on, not back.
TEST_F(GoneServers, DeparturesThatFollowEachOtherKeepItFromNobody) {
  set_up("reset");
  must(lab_.services().add_server(key_, server_spec(kIpv4.other_server, 8080, ForwardMode::nat)));
  constexpr std::uint16_t kClients = 1000;
  for (std::uint16_t i = 1; i <= kClients; ++i) {
    const auto port = static_cast<std::uint16_t>(kClientPort + i);
    ASSERT_EQ(lab_.send(from_client(kSyn, "", port)).outcome, Outcome::nat_to_server);
  }
  WorkerState& worker = lab_.worker();
  must(lab_.services().delete_server(key_, address_of(kIpv4.other_server), 8080));
  std::set<std::uint16_t> asked;
  for (unsigned step = 0; step < kClients; ++step) {
    const bool reset = step % 2 != 0;
    must(lab_.services().set_service_option(key_, {"gone-server", reset ? "reset" : "drop"}));
    if (!reset) continue;
    BurstLab::adopt_whole(worker, lab_.snapshot());
    for (const Forwarded& probe : lab_.one_step_of_gone_servers()) {
      if (probe.port == 0) asked.insert(decode(probe.bytes).flow.destination_port);
    }
  }
  EXPECT_EQ(asked.size(), kClients + 1U);
}

// Their time may be days; what they hold is a slot of a server that is gone.
TEST_F(GoneServers, TemplatesEndSoon) {
  ServiceSpec spec;
  spec.key = service_key(Protocol::tcp, kIpv4.vip, 80);
  spec.scheduler = "rr";
  spec.persistence_timeout = 86400;
  must(lab_.services().add_service(spec));
  must(lab_.services().add_server(spec.key, server_spec(kIpv4.server, 8080, ForwardMode::nat)));
  must(lab_.services().add_server(spec.key,
                                  server_spec(kIpv4.other_server, 8080, ForwardMode::nat)));
  for (const char* client : {"10.1.0.1", "10.1.0.2"}) {
    const Bytes syn = client_tcp({client, kClientPort, kIpv4.vip, 80}, kSyn);
    ASSERT_TRUE(is_forwarded(lab_.send(syn).outcome));
  }
  must(lab_.services().delete_server(spec.key, address_of(kIpv4.server), 8080));
  lab_.look_after_gone_servers();
  // Half-open connections last a minute.
  lab_.pass_seconds(60 + 61, kTicksPerSecond);
  // The other server's.
  EXPECT_EQ(connections(), 1U);
}

TEST_F(GoneServers, TheWalkWaitsForRoom) {
  set_up("reset");
  WorkerState& worker = lab_.worker();
  BurstLab::adopt_whole(worker, lab_.snapshot());
  ASSERT_TRUE(worker.gone_servers.is_under_way());
  std::vector<Packet> none;
  EXPECT_EQ(walk_gone_servers(worker, lab_.snapshot(), none), 0U);
  EXPECT_TRUE(worker.gone_servers.is_under_way()) << "without room for probes it waits";
}

}  // namespace
}  // namespace weir::test
