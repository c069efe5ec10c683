// SPDX-License-Identifier: Apache-2.0
// SCTP associations through the packet path: state, timer and counts after each packet. The states
// are those of data/ipvs/state_transitions.txt, walked by hand; bytes are in packet_path_test.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/support/burst_lab.h"
#include "tests/support/frame_checks.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"

namespace weir::test {
namespace {

constexpr const char* kClient = "10.1.0.1";
constexpr const char* kVip = "10.9.0.1";
constexpr std::uint16_t kPort = 40000;
constexpr std::uint16_t kServicePort = 3868;
constexpr std::uint16_t kServerPort = 13868;
constexpr std::uint16_t kServerSide = 1;

// RFC 9260 section 3.2.
enum Chunk : std::uint8_t {
  kData = 0,
  kInit = 1,
  kInitAck = 2,
  kSack = 3,
  kAbort = 6,
  kShutdown = 7,
  kShutdownAck = 8,
  kError = 9,
  kCookieEcho = 10,
  kCookieAck = 11,
  kShutdownComplete = 14,
};

using Chunks = std::initializer_list<std::uint8_t>;

class SctpConnections : public testing::Test {
 protected:
  void set_up(ForwardMode mode, int servers = 1) {
    add_service(lab_.services(), key_);
    for (int number = 1; number <= servers; ++number) {
      must(lab_.services().add_server(key_, server(number, mode)));
    }
  }
  static ServerSpec server(int number, ForwardMode mode, std::int32_t weight = 1) {
    return server_spec("10.2.0." + std::to_string(number), kServerPort, mode, weight);
  }
  Forwarded from_client(Chunks chunks) {
    return lab_.send(client_sctp({kClient, kPort, kVip, kServicePort}, chunks));
  }
  Forwarded from_server(Chunks chunks, int number = 1) {
    const std::string address = "10.2.0." + std::to_string(number);
    return lab_.send(server_sctp({address, kServerPort, kClient, kPort}, chunks), kServerSide);
  }
  std::vector<ConnectionListing> connections() {
    std::vector<ConnectionListing> rows;
    ConnectionCursor cursor;
    lab_.services().visit_connections(cursor, 1U << 20,
                                      [&](const ConnectionListing& row) { rows.push_back(row); });
    return rows;
  }
  // Of the only connection, and whether it counts as active.
  void expect_state(const std::string& state, std::uint32_t seconds, bool active) {
    const auto rows = connections();
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].protocol, Protocol::sctp);
    EXPECT_EQ(rows[0].state, state);
    EXPECT_EQ(rows[0].expires, seconds) << state;
    std::uint32_t actives = 0;
    std::uint32_t inactives = 0;
    const auto listing = lab_.services().find(key_);
    ASSERT_TRUE(listing.ok());
    for (const ServerListing& each : listing->servers) {
      actives += static_cast<std::uint32_t>(each.active);
      inactives += static_cast<std::uint32_t>(each.inactive);
    }
    EXPECT_EQ(actives, active ? 1U : 0U) << state;
    EXPECT_EQ(inactives, active ? 0U : 1U) << state;
  }
  void establish_nat() {
    EXPECT_EQ(from_client({kInit}).outcome, Outcome::nat_to_server);
    EXPECT_EQ(from_server({kInitAck}).outcome, Outcome::nat_to_client);
    EXPECT_EQ(from_client({kCookieEcho, kData}).outcome, Outcome::nat_to_server);
    EXPECT_EQ(from_server({kCookieAck}).outcome, Outcome::nat_to_client);
  }

  BurstLab lab_;
  const ServiceKey key_ = service_key(Protocol::sctp, kVip, kServicePort);
};

TEST_F(SctpConnections, NatSeesBothDirections) {
  set_up(ForwardMode::nat);
  from_client({kInit});
  expect_state("INIT1", 4, false);
  from_client({kInit});
  expect_state("INIT", 61, false);
  from_server({kInitAck});
  expect_state("C-SENT", 61, false);
  from_client({kCookieEcho, kData});
  expect_state("C-REPLIED", 61, false);
  from_server({kCookieAck, kSack});
  expect_state("ESTABLISHED", 900, true);
  lab_.pass_seconds(5);
  expect_state("ESTABLISHED", 895, true);
  from_server({kData});
  expect_state("ESTABLISHED", 900, true);
  from_client({kShutdown});
  expect_state("S-RECEIVED", 61, false);
  from_server({kShutdownAck});
  expect_state("S-ACK-SENT", 61, false);
  from_client({kShutdownComplete});
  expect_state("CLOSED", 61, false);
  lab_.pass_seconds(62);
  EXPECT_TRUE(connections().empty());
}

TEST_F(SctpConnections, TheServerMayEndIt) {
  set_up(ForwardMode::nat);
  establish_nat();
  from_server({kShutdown});
  expect_state("S-SENT", 61, false);
  from_client({kShutdownAck});
  expect_state("CLOSED", 61, false);
}

TEST_F(SctpConnections, DrAndTunSeeTheClientOnly) {
  for (const ForwardMode mode : {ForwardMode::dr, ForwardMode::tun}) {
    must(lab_.services().flush());
    lab_.pass_seconds(1000);
    set_up(mode);
    from_client({kInit});
    expect_state("INIT1", 4, false);
    from_client({kCookieEcho});
    expect_state("ESTABLISHED", 900, true);
    from_client({kSack});
    expect_state("ESTABLISHED", 900, true);
    from_client({kShutdown});
    expect_state("S-RECEIVED", 61, false);
    from_client({kShutdownComplete});
    expect_state("CLOSED", 61, false);
  }
}

TEST_F(SctpConnections, AnUnansweredInitLastsFourSeconds) {
  set_up(ForwardMode::nat);
  from_client({kInit});
  lab_.pass_seconds(5);
  EXPECT_TRUE(connections().empty());
}

TEST_F(SctpConnections, AnAbortEndsItAtOnce) {
  set_up(ForwardMode::nat);
  from_client({kInit});
  from_server({kAbort});
  expect_state("REJECTED", 4, false);
  lab_.pass_seconds(5);
  establish_nat();
  expect_state("ESTABLISHED", 900, true);
  from_client({kAbort});
  expect_state("CLOSED", 61, false);
}

TEST_F(SctpConnections, AnAbortBehindACookieCounts) {
  set_up(ForwardMode::nat);
  from_client({kInit});
  from_server({kInitAck});
  from_client({kCookieEcho, kAbort});
  expect_state("CLOSED", 61, false);
}

TEST_F(SctpConnections, AnAbortBehindOtherChunksDoesNot) {
  set_up(ForwardMode::nat);
  establish_nat();
  from_client({kSack, kAbort});
  expect_state("ESTABLISHED", 900, true);
  from_client({kCookieEcho, kData, kAbort});
  expect_state("ESTABLISHED", 900, true);
}

TEST_F(SctpConnections, OnlyAnInitOpens) {
  set_up(ForwardMode::nat);
  for (const std::uint8_t type : {kData, kInitAck, kSack, kAbort, kShutdown, kShutdownAck, kError,
                                  kCookieEcho, kCookieAck, kShutdownComplete}) {
    EXPECT_EQ(from_client({type}).outcome, Outcome::kernel_no_connection) << int{type};
  }
  EXPECT_TRUE(connections().empty());
}

TEST_F(SctpConnections, SloppyAnythingButAnAbortOpens) {
  must(lab_.services().set_setting("sloppy_sctp", "1"));
  set_up(ForwardMode::nat);
  EXPECT_EQ(from_client({kAbort}).outcome, Outcome::kernel_no_connection);
  EXPECT_EQ(from_client({kData}).outcome, Outcome::nat_to_server);
  expect_state("ESTABLISHED", 900, true);
}

TEST_F(SctpConnections, SloppyTcpIsNotSloppySctp) {
  must(lab_.services().set_setting("sloppy_tcp", "1"));
  set_up(ForwardMode::nat);
  EXPECT_EQ(from_client({kData}).outcome, Outcome::kernel_no_connection);
}

// rr gives the second connection to the other real server.
TEST_F(SctpConnections, AnInitOnAClosedConnectionStartsAnew) {
  set_up(ForwardMode::nat, 2);
  const unsigned first = decode(from_client({kInit}).bytes).server;
  EXPECT_EQ(decode(from_client({kInit}).bytes).server, first);
  from_client({kAbort});
  expect_state("CLOSED", 61, false);
  EXPECT_NE(decode(from_client({kInit}).bytes).server, first);
  expect_state("INIT1", 4, false);
}

TEST_F(SctpConnections, WithoutReuseAnInitOnAClosedConnectionReopensIt) {
  must(lab_.services().set_setting("conn_reuse_mode", "0"));
  set_up(ForwardMode::nat, 2);
  const unsigned first = decode(from_client({kInit}).bytes).server;
  from_client({kAbort});
  EXPECT_EQ(decode(from_client({kInit}).bytes).server, first);
  expect_state("INIT", 61, false);
}

TEST_F(SctpConnections, AnInitToADrainedServerStartsAnewIfSoSet) {
  must(lab_.services().set_setting("expire_nodest_conn", "1"));
  set_up(ForwardMode::nat, 2);
  const auto first = static_cast<int>(decode(from_client({kInit}).bytes).server);
  must(lab_.services().edit_server(key_, server(first, ForwardMode::nat, 0)));
  EXPECT_NE(decode(from_client({kInit}).bytes).server, static_cast<unsigned>(first));
  expect_state("INIT1", 4, false);
}

// One port number, three protocols.
TEST_F(SctpConnections, ItsPortsAreItsOwn) {
  set_up(ForwardMode::nat);
  EXPECT_EQ(lab_.send(client_tcp({kClient, kPort, kVip, kServicePort}, TcpHeader::kSyn)).outcome,
            Outcome::kernel_not_a_service);
  from_client({kInit});
  EXPECT_EQ(lab_.send(server_udp({"10.2.0.1", kServerPort, kClient, kPort}), kServerSide).outcome,
            Outcome::kernel_not_a_service);
  expect_state("INIT1", 4, false);
}

// ---- A real server that is gone: RFC 9260 section 8.4, point 8, and for an INIT 8.5.1 ----

class SctpGoneServer : public SctpConnections {
 protected:
  SctpGoneServer() {
    set_up(ForwardMode::nat);
    must(lab_.services().set_service_option(key_, {"gone-server", "reset"}));
  }
  void remove_server() {
    must(lab_.services().delete_server(key_, *IpAddress::parse("10.2.0.1"), kServerPort));
  }
  // The last 16 bytes are the SCTP packet; its checksum is judged with the whole frame.
  static void expect_abort(const Forwarded& got, std::uint8_t flags, const Bytes& tag) {
    ASSERT_EQ(got.outcome, Outcome::reset_sent);
    ASSERT_EQ(got.bytes.size(), 14U + 20U + 16U);
    EXPECT_EQ(fault_of(got.bytes), "");
    EXPECT_EQ(got.bytes[14 + 9], 132);
    const auto sctp = got.bytes.end() - 16;
    EXPECT_EQ(Bytes(sctp + 4, sctp + 8), tag);
    EXPECT_EQ(Bytes(sctp + 12, sctp + 16), Bytes({kAbort, flags, 0, 4}));
  }
  static constexpr std::uint8_t kTagReflected = 1;
  const Bytes kTag = {1, 2, 3, 4};  // of every packet here
};

TEST_F(SctpGoneServer, EachEndIsSentAnAbort) {
  establish_nat();
  remove_server();
  const Forwarded to_client = from_client({kData});
  expect_abort(to_client, kTagReflected, kTag);
  EXPECT_EQ(to_client.port, 0);
  const Flow back = decode(to_client.bytes).flow;
  EXPECT_EQ(back.source, kVip);
  EXPECT_EQ(back.source_port, kServicePort);
  EXPECT_EQ(back.destination, kClient);
  EXPECT_EQ(back.destination_port, kPort);
  const Forwarded to_server = from_server({kSack, kData});
  expect_abort(to_server, kTagReflected, kTag);
  EXPECT_EQ(to_server.port, kServerSide);
  EXPECT_EQ(decode(to_server.bytes).flow.destination, "10.2.0.1");
  EXPECT_EQ(decode(to_server.bytes).flow.source, kClient);
}

TEST_F(SctpGoneServer, AnInitIsAnsweredByTheTagThatItAsksFor) {
  from_client({kInit});
  remove_server();
  expect_abort(from_client({kInit}), 0, {'a', 'b', 'c', 0});
}

TEST_F(SctpGoneServer, WhatEndsTheAssociationIsNotAnswered) {
  establish_nat();
  remove_server();
  EXPECT_EQ(from_client({kAbort}).outcome, Outcome::drop_server_removed);
  EXPECT_EQ(from_client({kShutdownComplete}).outcome, Outcome::drop_server_removed);
}

TEST(SctpGoneServerIpv6, ItIsSentAnAbort) {
  BurstLab lab;
  const ServiceKey key = service_key(Protocol::sctp, "2001:db8:9::1", kServicePort);
  add_service(lab.services(), key);
  must(lab.services().set_service_option(key, {"gone-server", "reset"}));
  must(lab.services().add_server(key, server_spec("2001:db8:2::1", kServerPort, ForwardMode::nat)));
  const Flow flow = {"2001:db8:1::1", kPort, "2001:db8:9::1", kServicePort};
  EXPECT_EQ(lab.send(client_sctp(flow, {kInit})).outcome, Outcome::nat_to_server);
  must(lab.services().delete_server(key, *IpAddress::parse("2001:db8:2::1"), kServerPort));
  const Forwarded got = lab.send(client_sctp(flow, {kData}));
  ASSERT_EQ(got.outcome, Outcome::reset_sent);
  EXPECT_EQ(fault_of(got.bytes), "");
  EXPECT_EQ(got.bytes.size(), 14U + 40U + 16U);
  EXPECT_EQ(decode(got.bytes).flow.destination, "2001:db8:1::1");
}

}  // namespace
}  // namespace weir::test
