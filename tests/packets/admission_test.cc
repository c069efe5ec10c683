// SPDX-License-Identifier: Apache-2.0
// Who may open a connection, to which real server, under whose template; how connections end. What
// the recordings cannot show: several workers, questions between them, edits meanwhile, and what
// weir has beyond IPVS.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "dataplane/path/admission.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

constexpr const char* kClient = "10.1.0.1";
constexpr const char* kVip = "10.9.0.1";
constexpr const char* kOtherVip = "10.9.0.2";
constexpr std::uint16_t kServerSide = 1;
constexpr std::uint8_t kSyn = TcpHeader::kSyn;
constexpr std::uint8_t kAck = TcpHeader::kAck;
constexpr std::uint8_t kFin = TcpHeader::kFin;
constexpr std::uint8_t kRst = TcpHeader::kRst;

const ServiceKey kTcp = service_key(Protocol::tcp, kVip, 80);
const ServiceKey kUdp = service_key(Protocol::udp, kVip, 53);

std::string server_address(unsigned number) { return "10.2.0." + std::to_string(number); }

void add_servers(BurstLab& lab, const ServiceKey& key, unsigned count,
                 ForwardMode mode = ForwardMode::nat, std::uint16_t port = 8080) {
  for (unsigned number = 1; number <= count; ++number) {
    must(lab.services().add_server(key, server_spec(server_address(number), port, mode)));
  }
}

void add_persistent(BurstLab& lab, const ServiceKey& key, std::uint32_t timeout,
                    std::uint32_t mask = 0xffffffffU) {
  ServiceSpec spec;
  spec.key = key;
  spec.scheduler = "rr";
  spec.persistence_timeout = timeout;
  spec.persistence_mask = mask;
  must(lab.services().add_service(spec));
}

Bytes tcp(std::uint16_t port, std::uint8_t flags, const std::string& client = kClient) {
  return client_tcp({client, port, kVip, 80}, flags);
}

Bytes reply(unsigned server, std::uint16_t port, std::uint8_t flags) {
  return server_tcp({server_address(server), 8080, kClient, port}, flags);
}

// The number of the real server that got it, 0: none.
unsigned server_of(const Forwarded& got) {
  const bool to_server = got.outcome == Outcome::nat_to_server ||
                         got.outcome == Outcome::dr_to_server ||
                         got.outcome == Outcome::tun_to_server;
  return to_server ? decode(got.bytes).server : 0;
}

// ---- What the workers have, all together ----

struct Held {
  std::uint64_t connections = 0;
  std::uint64_t templates = 0;
  std::uint64_t controlled = 0;  // connections that the templates say they control

  friend bool operator==(const Held&, const Held&) = default;
};

std::ostream& operator<<(std::ostream& out, const Held& held) {
  return out << held.connections << " connections, " << held.templates << " templates for "
             << held.controlled;
}

template <class Address>
void add_held(Held& sum, const ConnectionTable<Address>& table) {
  for (std::uint32_t i = 0; i < table.high_water(); ++i) {
    const auto record = table.read(i);
    if (!record) continue;
    if (record->has(kTemplate)) {
      ++sum.templates;
      sum.controlled += record->packets_in;
    } else {
      ++sum.connections;
    }
  }
}

Held held(BurstLab& lab, unsigned workers) {
  Held sum;
  Held counted;
  for (unsigned i = 0; i < workers; ++i) {
    WorkerState& worker = lab.worker(i);
    add_held(sum, worker.ipv4);
    add_held(sum, worker.ipv6);
    for (const ServerLoad& load : worker.own().loads) {
      counted.connections += load.connections.read();
      counted.templates += load.templates.read();
    }
  }
  EXPECT_EQ(counted.connections, sum.connections);
  EXPECT_EQ(counted.templates, sum.templates);
  return sum;
}

// ---- Any number of workers ----

class AnyWorkers : public testing::TestWithParam<unsigned> {
 protected:
  unsigned workers() const { return GetParam(); }
  // Frames arrive anywhere.
  Forwarded deliver(const Bytes& frame, std::uint16_t port = 0) {
    return lab_.deliver(frame, port, next_++ % workers());
  }
  unsigned open(std::uint16_t port, const std::string& client = kClient) {
    return server_of(deliver(tcp(port, kSyn, client)));
  }
  Held held() { return weir::test::held(lab_, workers()); }

  BurstLab lab_{{.workers = GetParam(), .server_slots = 64}};

 private:
  unsigned next_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Workers, AnyWorkers, testing::Values(1U, 2U, 4U));

TEST_P(AnyWorkers, APersistentClientHasOneServer) {
  add_persistent(lab_, kTcp, 60, 0xffffff00U);
  add_servers(lab_, kTcp, 7);
  constexpr unsigned kNetworks = 20;
  constexpr unsigned kConnections = 12;
  for (unsigned network = 0; network < kNetworks; ++network) {
    std::set<unsigned> servers;
    for (unsigned i = 0; i < kConnections; ++i) {
      const std::string client = "10.1." + std::to_string(network) + "." + std::to_string(i + 1);
      servers.insert(open(static_cast<std::uint16_t>(30000 + i), client));
    }
    EXPECT_EQ(servers.size(), 1U) << network;
    EXPECT_FALSE(servers.contains(0)) << network;
  }
  constexpr std::uint64_t kAll = std::uint64_t{kNetworks} * kConnections;
  EXPECT_EQ(held(), (Held{kAll, kNetworks, kAll}));
  std::uint32_t persistent = 0;
  const ServiceListing listing = lab_.services().find(kTcp).value();
  for (const ServerListing& server : listing.servers) persistent += server.persistent;
  EXPECT_EQ(persistent, kNetworks);
}

TEST_P(AnyWorkers, TemplatesOutliveTheirConnectionsAndEnd) {
  add_persistent(lab_, kTcp, 30);
  add_servers(lab_, kTcp, 3);
  for (std::uint16_t port = 30000; port < 30020; ++port) ASSERT_NE(open(port), 0U);
  EXPECT_EQ(held(), (Held{20, 1, 20}));
  // In SYN_RECV for 60 seconds; the template looks again 60 seconds after its own 30.
  lab_.pass_seconds(61);
  EXPECT_EQ(held(), (Held{0, 1, 0}));
  lab_.pass_seconds(30);
  EXPECT_EQ(held(), Held{});
  must(lab_.services().flush());
  for (int i = 0; i < 3; ++i) lab_.settle();
  EXPECT_TRUE(lab_.services().steered_services().empty());
}

TEST_P(AnyWorkers, ATemplateThatIsUsedAgainLastsAsLongAsANewOne) {
  add_persistent(lab_, kTcp, 300);
  add_servers(lab_, kTcp, 1);
  ASSERT_EQ(open(30000), 1U);
  deliver(reply(1, 30000, kSyn | kAck), kServerSide);
  deliver(tcp(30000, kAck));
  const auto template_seconds = [this] {
    std::uint32_t seconds = 0;
    ConnectionCursor cursor;
    lab_.services().visit_connections(cursor, 1U << 20, [&](const ConnectionListing& row) {
      if (row.client_port == 0) seconds = row.expires;
    });
    return seconds;
  };
  lab_.pass_seconds(310);
  EXPECT_LE(template_seconds(), 60U);
  ASSERT_EQ(open(30001), 1U);
  EXPECT_EQ(template_seconds(), 300U);
}

TEST_P(AnyWorkers, ATemplateIsAssuredByAnyOfItsConnections) {
  add_persistent(lab_, kTcp, 60);
  add_servers(lab_, kTcp, 2);
  const auto states = [this] {
    std::map<std::string, int> templates;
    ConnectionCursor cursor;
    lab_.services().visit_connections(cursor, 1U << 20, [&](const ConnectionListing& row) {
      if (row.client_port == 0) ++templates[row.state];
    });
    return templates;
  };
  for (std::uint16_t port = 30000; port < 30008; ++port) ASSERT_NE(open(port), 0U);
  EXPECT_EQ(states(), (std::map<std::string, int>{{"NONE", 1}}));
  const unsigned server = open(30000);
  deliver(reply(server, 30005, kSyn | kAck), kServerSide);
  deliver(tcp(30005, kAck));
  EXPECT_EQ(states(), (std::map<std::string, int>{{"ASSURED", 1}}));
}

TEST_P(AnyWorkers, ARemovedServersClientsGetAnother) {
  add_persistent(lab_, kTcp, 60);
  add_servers(lab_, kTcp, 2);
  const unsigned first = open(30000);
  must(lab_.services().delete_server(kTcp, address_of(server_address(first)), 8080));
  const unsigned second = open(30001);
  EXPECT_NE(second, 0U);
  EXPECT_NE(second, first);
  EXPECT_EQ(open(30002), second);
  EXPECT_EQ(held(), (Held{3, 2, 3}));
  lab_.pass_seconds(180);
  EXPECT_EQ(held(), Held{});
}

TEST_P(AnyWorkers, AQuiescentServersClientsStayUnlessToldOtherwise) {
  add_persistent(lab_, kTcp, 60);
  add_servers(lab_, kTcp, 2);
  const unsigned first = open(30000);
  must(lab_.services().edit_server(kTcp,
                                   server_spec(server_address(first), 8080, ForwardMode::nat, 0)));
  EXPECT_EQ(open(30001), first);
  must(lab_.services().set_setting("expire_quiescent_template", "1"));
  EXPECT_NE(open(30002), first);
}

TEST_P(AnyWorkers, ASynDoesNotReplaceAConnectionOfATemplate) {
  add_persistent(lab_, kTcp, 60);
  add_servers(lab_, kTcp, 2);
  must(lab_.services().set_setting("conn_reuse_mode", "3"));
  must(lab_.services().set_setting("expire_quiescent_template", "1"));
  const unsigned first = open(30000);
  deliver(tcp(30000, kAck));
  deliver(tcp(30000, kRst));
  must(lab_.services().edit_server(kTcp,
                                   server_spec(server_address(first), 8080, ForwardMode::nat, 0)));
  // With a new one the template would be given up, too.
  EXPECT_EQ(open(30000), first);
  EXPECT_EQ(held(), (Held{1, 1, 1}));
}

TEST_P(AnyWorkers, ExpireNodestConnReplacesAConnectionOfATemplateToo) {
  add_persistent(lab_, kTcp, 60);
  add_servers(lab_, kTcp, 2);
  must(lab_.services().set_setting("expire_nodest_conn", "1"));
  must(lab_.services().set_setting("expire_quiescent_template", "1"));
  const unsigned first = open(30000);
  must(lab_.services().edit_server(kTcp,
                                   server_spec(server_address(first), 8080, ForwardMode::nat, 0)));
  const unsigned second = open(30000);
  EXPECT_NE(second, 0U);
  EXPECT_NE(second, first);
}

TEST_P(AnyWorkers, FtpsControlAndDataShareATemplate) {
  const ServiceKey ftp = service_key(Protocol::tcp, kVip, 21);
  add_persistent(lab_, ftp, 60);
  add_servers(lab_, ftp, 5, ForwardMode::dr, 0);
  for (int i = 1; i <= 10; ++i) {
    const std::string client = "10.1.0." + std::to_string(i);
    const unsigned control = server_of(deliver(client_tcp({client, 30000, kVip, 21}, kSyn)));
    EXPECT_NE(control, 0U);
    EXPECT_EQ(server_of(deliver(client_tcp({client, 30001, kVip, 50000}, kSyn))), control);
    // What the client's side of an active data connection says first.
    EXPECT_EQ(server_of(deliver(client_tcp({client, 30002, kVip, 20}, kSyn | kAck))), control);
  }
  EXPECT_EQ(held(), (Held{30, 10, 30}));
}

TEST_P(AnyWorkers, DataPortsWithoutAServerForFtpAreTheKernels) {
  const ServiceKey ftp = service_key(Protocol::tcp, kVip, 21);
  add_persistent(lab_, ftp, 60);
  EXPECT_EQ(deliver(client_tcp({kClient, 30000, kVip, 21}, kSyn)).outcome,
            Outcome::icmp_error_sent);
  EXPECT_EQ(deliver(client_tcp({kClient, 30000, kVip, 50000}, kSyn)).outcome,
            Outcome::kernel_not_a_service);
}

TEST_P(AnyWorkers, DatagramsOfAPersistentOnePacketService) {
  ServiceSpec spec;
  spec.key = kUdp;
  spec.scheduler = "rr";
  spec.persistence_timeout = 60;
  spec.one_packet = true;
  must(lab_.services().add_service(spec));
  add_servers(lab_, kUdp, 3, ForwardMode::nat, 5353);
  for (int i = 1; i <= 5; ++i) {
    const std::string client = "10.1.0." + std::to_string(i);
    std::set<unsigned> servers;
    for (std::uint16_t port = 30000; port < 30010; ++port) {
      servers.insert(server_of(deliver(client_udp({client, port, kVip, 53}))));
    }
    EXPECT_EQ(servers.size(), 1U);
  }
  EXPECT_EQ(held(), (Held{0, 5, 0}));
}

TEST_P(AnyWorkers, OneWorkerRemembersWhoServesADestination) {
  ServiceSpec spec;
  spec.key = {.protocol = Protocol::ip, .address = IpAddress(Ipv4Address{}), .fwmark = 3};
  spec.scheduler = "lblc";
  must(lab_.services().add_service(spec));
  MarkRuleSpec rule;
  rule.rule.protocol = Protocol::tcp;
  rule.rule.mark = 3;
  must(lab_.services().add_mark_rule(rule, std::nullopt));
  constexpr std::int32_t kNeverTooMuch = 10000;
  for (unsigned number = 1; number <= 4; ++number) {
    must(lab_.services().add_server(
        spec.key, server_spec(server_address(number), 80, ForwardMode::dr, kNeverTooMuch)));
  }
  std::set<unsigned> all;
  for (int destination = 1; destination <= 20; ++destination) {
    const std::string cached = "10.77.0." + std::to_string(destination);
    std::set<unsigned> servers;
    for (std::uint16_t port = 30000; port < 30010; ++port) {
      servers.insert(server_of(deliver(client_tcp({kClient, port, cached, 80}, kSyn))));
    }
    EXPECT_EQ(servers.size(), 1U) << cached;
    all.insert(servers.begin(), servers.end());
  }
  EXPECT_EQ(all, (std::set<unsigned>{1, 2, 3, 4}));
}

TEST_P(AnyWorkers, ThresholdsAreOfAllWorkersTogether) {
  add_service(lab_.services(), kTcp);
  ServerSpec spec = server_spec(server_address(1), 8080, ForwardMode::nat);
  spec.upper_threshold = 20;
  spec.lower_threshold = 5;
  must(lab_.services().add_server(kTcp, spec));
  for (std::uint16_t i = 0; i < 100; ++i) {
    EXPECT_EQ(open(static_cast<std::uint16_t>(30000 + i)), i < 20 ? 1U : 0U) << i;
  }
  EXPECT_EQ(held().connections, 20U);
  lab_.pass_seconds(61);
  EXPECT_EQ(open(31000), 1U);
}

TEST_P(AnyWorkers, AnEditOfTheThresholdsCountsAtOnce) {
  add_service(lab_.services(), kTcp);
  ServerSpec spec = server_spec(server_address(1), 8080, ForwardMode::nat);
  must(lab_.services().add_server(kTcp, spec));
  for (std::uint16_t port = 30000; port < 30010; ++port) ASSERT_EQ(open(port), 1U);
  spec.upper_threshold = 10;
  must(lab_.services().edit_server(kTcp, spec));
  EXPECT_EQ(open(31000), 0U);
  spec.upper_threshold = 12;
  must(lab_.services().edit_server(kTcp, spec));
  // 10 is not below 9, three quarters of 12: nothing changes.
  EXPECT_EQ(open(31000), 0U);
  spec.upper_threshold = 0;
  must(lab_.services().edit_server(kTcp, spec));
  EXPECT_EQ(open(31000), 1U);
}

// ---- Questions under way ----

class Questions : public testing::Test {
 protected:
  static constexpr unsigned kWorkers = 4;

  // A SYN at its owner, who has to ask another worker. The next one with every call.
  struct Asked {
    std::uint16_t port = 0;
    unsigned owner = 0;
    Forwarded question;
  };
  Asked ask() {
    const OwnerMap& owners = *lab_.worker().owners;
    const Ipv4Address client = address_of(kClient).ipv4();
    const auto owner_of = [&](std::uint16_t port) {
      return owners.owner(client, Be16::from_host(port));
    };
    while (owner_of(port_) == owner_of(kTcp.port)) ++port_;
    const std::uint16_t port = port_++;
    const unsigned owner = owner_of(port);
    const Forwarded question = lab_.send(tcp(port, kSyn), 0, owner);
    EXPECT_EQ(question.outcome, Outcome::handed_to_chooser);
    return {port, owner, question};
  }
  void set_up(unsigned servers) {
    add_persistent(lab_, kTcp, 30);
    add_servers(lab_, kTcp, servers);
  }
  void expect_all_ends() {
    lab_.deliver_notices();
    lab_.pass_seconds(200);
    EXPECT_EQ(held(lab_, kWorkers), Held{});
  }

  BurstLab lab_{{.workers = kWorkers, .capacity = 64, .server_slots = 64}};

 private:
  std::uint16_t port_ = 30000;
};

TEST_F(Questions, TheQuestionAndTheAnswerCarryThePacketUnchanged) {
  set_up(1);
  const Asked asked = ask();
  EXPECT_EQ(asked.question.bytes, tcp(asked.port, kSyn));
  EXPECT_EQ(asked.question.errand.kind, Errand::Kind::question);
  EXPECT_NE(asked.question.owner, asked.owner);
  const Forwarded answer = lab_.pass_on(asked.question);
  EXPECT_EQ(answer.outcome, Outcome::handed_to_owner);
  EXPECT_EQ(answer.bytes, tcp(asked.port, kSyn));
  EXPECT_EQ(answer.errand.kind, Errand::Kind::answer);
  EXPECT_EQ(answer.owner, asked.owner);
  EXPECT_EQ(lab_.pass_on(answer).outcome, Outcome::nat_to_server);
  expect_all_ends();
}

TEST_F(Questions, ASynThatIsRetransmittedMeanwhileOpensNothingMore) {
  set_up(3);
  const Asked asked = ask();
  const Forwarded again = lab_.send(tcp(asked.port, kSyn), 0, asked.owner);
  ASSERT_EQ(again.outcome, Outcome::handed_to_chooser);
  const Forwarded first = lab_.pass_on(lab_.pass_on(asked.question));
  const Forwarded second = lab_.pass_on(lab_.pass_on(again));
  EXPECT_NE(server_of(first), 0U);
  EXPECT_EQ(server_of(first), server_of(second));
  lab_.deliver_notices();
  EXPECT_EQ(held(lab_, kWorkers).connections, 1U);
  EXPECT_EQ(held(lab_, kWorkers).controlled, 1U);
  expect_all_ends();
}

TEST_F(Questions, AnAnswerThatCannotBeSentIsGivenBack) {
  set_up(1);
  const Asked asked = ask();
  const Forwarded answer = lab_.pass_on(asked.question);
  EXPECT_EQ(held(lab_, kWorkers), (Held{0, 1, 1}));
  Packet packet;
  packet.family = Family::ipv4;
  packet.errand = answer.errand;
  forget_answer(lab_.worker(asked.question.owner), packet);
  EXPECT_EQ(held(lab_, kWorkers), (Held{0, 1, 0}));
  expect_all_ends();
}

TEST_F(Questions, AnAnswerToAFullTableIsGivenBack) {
  set_up(1);
  add_service(lab_.services(), kUdp);
  add_servers(lab_, kUdp, 1, ForwardMode::nat, 5353);
  const Asked asked = ask();
  const Forwarded answer = lab_.pass_on(asked.question);
  const auto& table = lab_.worker(asked.owner).ipv4;
  for (std::uint16_t port = 1000; table.size() < table.capacity(); ++port) {
    const Bytes frame = client_udp({kClient, port, kVip, 53});
    ASSERT_NE(lab_.send(frame, 0, asked.owner).outcome, Outcome::drop_table_full);
  }
  EXPECT_EQ(lab_.pass_on(answer).outcome, Outcome::drop_table_full);
  lab_.deliver_notices();
  EXPECT_EQ(held(lab_, kWorkers).controlled, 0U);
  lab_.pass_seconds(200);
  expect_all_ends();
}

TEST_F(Questions, AServerThatIsRemovedMeanwhileGetsNothing) {
  set_up(2);
  const Asked asked = ask();
  const Forwarded answer = lab_.pass_on(asked.question);
  const RealServer* chosen = lab_.snapshot().servers[answer.errand.server];
  const IpAddress address = chosen->address;
  must(lab_.services().delete_server(kTcp, address, 8080));
  lab_.settle();
  EXPECT_EQ(lab_.pass_on(answer).outcome, Outcome::drop_server_removed);
  lab_.deliver_notices();
  EXPECT_EQ(held(lab_, kWorkers).controlled, 0U);
  const Forwarded next = lab_.deliver(tcp(asked.port, kSyn));
  ASSERT_EQ(next.outcome, Outcome::nat_to_server);
  EXPECT_NE(decode(next.bytes).flow.destination, address.to_string());
  expect_all_ends();
}

TEST_F(Questions, AServiceThatIsRemovedMeanwhileOpensNothing) {
  set_up(2);
  const Asked asked = ask();
  const Asked other = ask();
  const Forwarded answer = lab_.pass_on(asked.question);
  must(lab_.services().delete_service(kTcp));
  EXPECT_EQ(lab_.pass_on(answer).outcome, Outcome::kernel_no_connection);
  // The one that had not been asked about yet returns without an answer.
  const Forwarded back = lab_.pass_on(other.question);
  EXPECT_EQ(back.outcome, Outcome::handed_to_owner);
  EXPECT_EQ(back.errand.kind, Errand::Kind::none);
  EXPECT_EQ(lab_.pass_on(back).outcome, Outcome::kernel_no_connection);
  expect_all_ends();
}

TEST_F(Questions, AVipThatIsLostMeanwhileIsTheKernels) {
  set_up(2);
  const Asked asked = ask();
  const Forwarded answer = lab_.pass_on(asked.question);
  lab_.disown(address_of(kVip));
  EXPECT_EQ(lab_.pass_on(answer).outcome, Outcome::kernel_not_a_service);
  EXPECT_EQ(lab_.pass_on(asked.question).outcome, Outcome::kernel_not_a_service);
  expect_all_ends();
}

// The chooser's snapshot may be newer than the owner's.
TEST_F(Questions, AServerThatTheOwnerDoesNotKnowYet) {
  set_up(1);
  const Asked asked = ask();
  Forwarded answer = lab_.pass_on(asked.question);
  answer.errand.server = 1000000;
  EXPECT_EQ(lab_.pass_on(answer).outcome, Outcome::drop_server_removed);
  expect_all_ends();
}

TEST_F(Questions, AServiceThatAsksNobodyAnyMore) {
  set_up(2);
  const Asked asked = ask();
  ServiceSpec spec;
  spec.key = kTcp;
  spec.scheduler = "rr";
  must(lab_.services().edit_service(spec));
  const Forwarded back = lab_.pass_on(asked.question);
  EXPECT_EQ(back.outcome, Outcome::handed_to_owner);
  EXPECT_EQ(lab_.pass_on(back).outcome, Outcome::nat_to_server);
  EXPECT_EQ(held(lab_, kWorkers), (Held{1, 0, 0}));
  expect_all_ends();
}

TEST_F(Questions, AnAnswerOnAFrameThatIsNoMoreOursIsGivenBack) {
  constexpr const char* kVip6 = "2001:db8:9::1";
  const ServiceKey key = service_key(Protocol::tcp, kVip6, 80);
  ServiceSpec spec;
  spec.key = key;
  spec.scheduler = "rr";
  spec.persistence_timeout = 30;
  spec.persistence_mask = 128;
  must(lab_.services().add_service(spec));
  must(lab_.services().add_server(key, server_spec("2001:db8:2::1", 80, ForwardMode::nat)));
  Forwarded answer;
  for (std::uint16_t port = 30000; answer.errand.kind != Errand::Kind::answer; ++port) {
    const Bytes syn = client_tcp({"2001:db8:1::1", port, kVip6, 80}, kSyn);
    Forwarded got = lab_.send(syn);
    if (got.outcome == Outcome::handed_to_owner) got = lab_.pass_on(got);
    if (got.outcome == Outcome::handed_to_chooser) answer = lab_.pass_on(got);
  }
  const std::uint64_t others = held(lab_, kWorkers).connections;
  answer.bytes[5] ^= 1;
  EXPECT_EQ(name_of(lab_.pass_on(answer).outcome), "drop_foreign_mac");
  lab_.deliver_notices();
  EXPECT_EQ(held(lab_, kWorkers).controlled, others);
}

// So many answers of one burst that come to nothing as there can be.
TEST_F(Questions, ABurstOfAnswersFindsRoomInTheOutbox) {
  set_up(1);
  std::vector<Forwarded> answers;
  const Asked first = ask();
  answers.push_back(lab_.pass_on(first.question));
  while (answers.size() < kMaxBurst) {
    const Asked asked = ask();
    if (asked.owner == first.owner) answers.push_back(lab_.pass_on(asked.question));
  }
  const std::uint64_t chosen = held(lab_, kWorkers).controlled;
  WorkerState& owner = lab_.worker(first.owner);
  const TemplateNotice about_nothing{TemplateNotice::Kind::assured, Family::ipv6, 0, 0};
  // The worker's loop takes no more of them then.
  while (owner.notices.has_room_for_burst()) owner.notices.put_at_once(about_nothing);
  owner.notices.flush(
      [left = true](const TemplateNotice&) mutable { return std::exchange(left, false); });
  EXPECT_TRUE(owner.notices.has_room_for_burst());
  for (Forwarded& answer : answers) {
    answer.bytes[5] ^= 1;
    lab_.pass_on(answer);
  }
  EXPECT_FALSE(owner.notices.has_room_for_burst());
  lab_.deliver_notices();
  EXPECT_EQ(held(lab_, kWorkers).controlled, chosen - kMaxBurst);
}

// Connections whose end cannot be told stay until it can.
TEST_F(Questions, AFullOutboxKeepsConnectionsOpen) {
  set_up(1);
  const Asked asked = ask();
  ASSERT_NE(server_of(lab_.pass_on(lab_.pass_on(asked.question))), 0U);
  WorkerState& owner = lab_.worker(asked.owner);
  const TemplateNotice about_nothing{TemplateNotice::Kind::assured, Family::ipv6, 0, 0};
  while (owner.notices.put(about_nothing)) continue;
  owner.now += 61 * kTicksPerSecond;
  expire_connections(owner, lab_.snapshot(), 1000);
  EXPECT_EQ(held(lab_, kWorkers), (Held{1, 1, 1}));
  owner.notices.flush([](const TemplateNotice&) { return true; });
  owner.now += kTicksPerSecond + 1;
  expire_connections(owner, lab_.snapshot(), 1000);
  EXPECT_EQ(held(lab_, kWorkers).connections, 0U);
  lab_.deliver_notices();
  EXPECT_EQ(held(lab_, kWorkers).controlled, 0U);
}

// ---- Workers at the same time ----

TEST(Thresholds, WorkersAtTheSameTimeExceedThemByOneEachAtMost) {
  constexpr unsigned kWorkers = 4;
  constexpr std::uint32_t kThreshold = 200;
  BurstLab lab({.workers = kWorkers, .server_slots = 64});
  add_service(lab.services(), kTcp);
  ServerSpec spec = server_spec(server_address(1), 8080, ForwardMode::nat);
  spec.upper_threshold = kThreshold;
  must(lab.services().add_server(kTcp, spec));
  std::vector<std::thread> threads;
  for (unsigned worker = 0; worker < kWorkers; ++worker) {
    threads.emplace_back([&lab, worker] {
      for (std::uint16_t port = 30000; port < 32000; ++port) lab.send(tcp(port, kSyn), 0, worker);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(held(lab, kWorkers).connections, kThreshold);
  EXPECT_LT(held(lab, kWorkers).connections, kThreshold + kWorkers);
}

// ---- Replies that would look alike ----

class Ambiguity : public testing::Test {
 protected:
  static Bytes syn_to(const char* vip) { return client_tcp({kClient, 40000, vip, 80}, kSyn); }
  void add_both(unsigned servers, ForwardMode mode = ForwardMode::nat) {
    lab_.own(address_of(kOtherVip));
    for (const ServiceKey& key : {kTcp, other_}) {
      add_service(lab_.services(), key);
      add_servers(lab_, key, servers, mode);
    }
  }
  const ServiceKey other_ = service_key(Protocol::tcp, kOtherVip, 80);
  BurstLab lab_{{.server_slots = 64}};
};

TEST_F(Ambiguity, OneClientPortToTwoVipsGoesToTwoServers) {
  add_both(3);
  EXPECT_EQ(server_of(lab_.send(syn_to(kVip))), 3U);
  // Round robin says 3, too.
  EXPECT_EQ(server_of(lab_.send(syn_to(kOtherVip))), 2U);
  const Forwarded first = lab_.send(reply(3, 40000, kSyn | kAck), kServerSide);
  const Forwarded second = lab_.send(reply(2, 40000, kSyn | kAck), kServerSide);
  EXPECT_EQ(decode(first.bytes).flow.source, kVip);
  EXPECT_EQ(decode(second.bytes).flow.source, kOtherVip);
}

TEST_F(Ambiguity, WithoutAnotherServerTheSecondIsDropped) {
  add_both(1);
  EXPECT_EQ(server_of(lab_.send(syn_to(kVip))), 1U);
  EXPECT_EQ(lab_.send(syn_to(kOtherVip)).outcome, Outcome::drop_reply_ambiguous);
  EXPECT_EQ(held(lab_, 1), (Held{1, 0, 0}));
  // Until the first is over.
  lab_.pass_seconds(61);
  EXPECT_EQ(server_of(lab_.send(syn_to(kOtherVip))), 1U);
}

TEST_F(Ambiguity, WhatIsOfARemovedServiceGivesWay) {
  add_both(1);
  EXPECT_EQ(server_of(lab_.send(syn_to(kVip))), 1U);
  must(lab_.services().delete_service(kTcp));
  EXPECT_EQ(server_of(lab_.send(syn_to(kOtherVip))), 1U);
  EXPECT_EQ(held(lab_, 1), (Held{1, 0, 0}));
}

TEST_F(Ambiguity, WhatIsOfAGoneServerGivesWayUnlessItIsKept) {
  for (const char* policy : {"drop", "reset", "keep"}) {
    BurstLab lab{{.server_slots = 64}};
    lab.own(address_of(kOtherVip));
    for (const ServiceKey& key : {kTcp, other_}) {
      add_service(lab.services(), key);
      add_servers(lab, key, 1);
    }
    must(lab.services().set_service_option(kTcp, {"gone-server", policy}));
    EXPECT_EQ(server_of(lab.send(syn_to(kVip))), 1U);
    must(lab.services().delete_server(kTcp, address_of(server_address(1)), 8080));
    const bool kept = std::string(policy) == "keep";
    EXPECT_EQ(name_of(lab.send(syn_to(kOtherVip)).outcome),
              name_of(kept ? Outcome::drop_reply_ambiguous : Outcome::nat_to_server))
        << policy;
    EXPECT_EQ(held(lab, 1), (Held{1, 0, 0}));
  }
}

// As IPVS's newer one has the replies.
TEST_F(Ambiguity, TheIdlestUdpConnectionGivesWay) {
  const char* vips[] = {"10.9.1.1", "10.9.1.2", "10.9.1.3"};
  for (const char* vip : vips) {
    lab_.own(address_of(vip));
    const ServiceKey key = service_key(Protocol::udp, vip, 53);
    add_service(lab_.services(), key);
    add_servers(lab_, key, 2, ForwardMode::nat, 5353);
  }
  const auto ask = [&](const char* vip) {
    return server_of(lab_.send(client_udp({kClient, 40000, vip, 53})));
  };
  const auto answers = [&](unsigned server) {
    const Flow flow{server_address(server), 5353, kClient, 40000};
    return decode(lab_.send(server_udp(flow), kServerSide).bytes).flow.source;
  };
  EXPECT_EQ(ask(vips[0]), 2U);
  EXPECT_EQ(ask(vips[1]), 1U);
  // The first has been answered, so that it lasts longer, and is idler all the same.
  EXPECT_EQ(answers(2), vips[0]);
  lab_.pass_seconds(5);
  EXPECT_EQ(ask(vips[1]), 1U);
  EXPECT_EQ(ask(vips[2]), 2U);
  EXPECT_EQ(answers(2), vips[2]);
  EXPECT_EQ(answers(1), vips[1]);
  EXPECT_EQ(held(lab_, 1), (Held{2, 0, 0}));
  lab_.pass_seconds(1);
  EXPECT_EQ(ask(vips[2]), 2U);
  EXPECT_EQ(ask(vips[0]), 1U);
}

TEST_F(Ambiguity, APersistentUdpClientsConnectionGivesWay) {
  for (const char* vip : {kVip, kOtherVip}) {
    lab_.own(address_of(vip));
    const ServiceKey key = service_key(Protocol::udp, vip, 53);
    add_persistent(lab_, key, 30);
    add_servers(lab_, key, 1, ForwardMode::nat, 5353);
  }
  for (const char* vip : {kVip, kOtherVip, kVip}) {
    EXPECT_EQ(server_of(lab_.send(client_udp({kClient, 40000, vip, 53}))), 1U);
    EXPECT_EQ(held(lab_, 1).connections, 1U);
    EXPECT_EQ(held(lab_, 1).controlled, 1U);
  }
}

TEST_F(Ambiguity, APersistentClientsServerIsItsServer) {
  lab_.own(address_of(kOtherVip));
  for (const ServiceKey& key : {kTcp, other_}) {
    add_persistent(lab_, key, 30);
    add_servers(lab_, key, 2);
  }
  EXPECT_EQ(server_of(lab_.send(syn_to(kVip))), 2U);
  EXPECT_EQ(lab_.send(syn_to(kOtherVip)).outcome, Outcome::drop_reply_ambiguous);
  EXPECT_EQ(held(lab_, 1), (Held{1, 2, 1}));
}

TEST_F(Ambiguity, WhereNoRepliesPassNothingIsAmbiguous) {
  add_both(1, ForwardMode::dr);
  EXPECT_EQ(server_of(lab_.send(syn_to(kVip))), 1U);
  EXPECT_EQ(server_of(lab_.send(syn_to(kOtherVip))), 1U);
}

TEST_F(Ambiguity, ARealServerIsAClient) {
  add_service(lab_.services(), kTcp);
  add_servers(lab_, kTcp, 2);
  // Even from the port that it serves at.
  for (const std::uint16_t port : {std::uint16_t{40000}, std::uint16_t{8080}}) {
    const Forwarded got =
        lab_.send(server_tcp({server_address(2), port, kVip, 80}, kSyn), kServerSide);
    EXPECT_EQ(got.outcome, Outcome::nat_to_server);
    EXPECT_EQ(got.port, kServerSide);
  }
  // To server 2, its own client, and to server 1, whose reply comes back through here.
  const Flow back = {server_address(1), 8080, server_address(2), 8080};
  const Forwarded answer = lab_.send(server_tcp(back, kSyn | kAck), kServerSide);
  EXPECT_EQ(answer.outcome, Outcome::nat_to_client);
  EXPECT_EQ(decode(answer.bytes).flow.source, kVip);
  EXPECT_EQ(answer.port, kServerSide);
}

TEST_F(Ambiguity, AOnePacketReplyOfOneService) {
  ServiceSpec spec;
  spec.key = kUdp;
  spec.scheduler = "rr";
  spec.one_packet = true;
  must(lab_.services().add_service(spec));
  add_servers(lab_, kUdp, 2, ForwardMode::nat, 5353);
  const Bytes answer = server_udp({server_address(1), 5353, kClient, 40000});
  EXPECT_EQ(lab_.send(answer, kServerSide).outcome, Outcome::nat_to_client);
  EXPECT_EQ(lab_.services().find(kUdp)->totals.packets_out, 1U);
  // A second service with the same real server, at any port of it: now nobody can tell.
  lab_.own(address_of(kOtherVip));
  spec.key = service_key(Protocol::udp, kOtherVip, 53);
  must(lab_.services().add_service(spec));
  must(
      lab_.services().add_server(spec.key, server_spec(server_address(1), 5353, ForwardMode::nat)));
  EXPECT_EQ(lab_.send(answer, kServerSide).outcome, Outcome::kernel_reply_unmatched);
  const Bytes other = server_udp({server_address(2), 5353, kClient, 40000});
  EXPECT_EQ(lab_.send(other, kServerSide).outcome, Outcome::nat_to_client);
  must(lab_.services().delete_service(spec.key));
  for (int i = 0; i < 3; ++i) lab_.settle();
  EXPECT_EQ(lab_.send(answer, kServerSide).outcome, Outcome::nat_to_client);
}

TEST_F(Ambiguity, FullnatsDatagramsHaveConnections) {
  ServiceSpec spec;
  spec.key = kUdp;
  spec.scheduler = "rr";
  spec.one_packet = true;
  must(lab_.services().add_service(spec));
  const IpAddress local = address_of("10.2.0.254");
  must(lab_.services().add_local_addresses({local, local}, std::nullopt));
  add_servers(lab_, kUdp, 2, ForwardMode::fullnat, 5353);
  for (int i = 0; i < 2; ++i) {
    const Forwarded got = lab_.send(client_udp({kClient, 40000, kVip, 53}));
    EXPECT_EQ(got.outcome, Outcome::fullnat_to_server);
    EXPECT_EQ(decode(got.bytes).flow.source, "10.2.0.254");
  }
  EXPECT_EQ(held(lab_, 1).connections, 1U);
}

TEST_F(Ambiguity, AOnePacketServiceForAllPortsAnswersFromThePortAsked) {
  ServiceSpec spec;
  spec.key = service_key(Protocol::udp, kVip, 0);
  spec.scheduler = "rr";
  spec.one_packet = true;
  spec.persistence_timeout = 60;
  must(lab_.services().add_service(spec));
  must(lab_.services().add_server(spec.key, server_spec(server_address(1), 0, ForwardMode::nat)));
  const Forwarded asked = lab_.send(client_udp({kClient, 40000, kVip, 777}));
  EXPECT_EQ(decode(asked.bytes).flow.destination_port, 777);
  const Forwarded answer =
      lab_.send(server_udp({server_address(1), 777, kClient, 40000}), kServerSide);
  EXPECT_EQ(answer.outcome, Outcome::nat_to_client);
  EXPECT_EQ(decode(answer.bytes).flow.source, kVip);
  EXPECT_EQ(decode(answer.bytes).flow.source_port, 777);
}

// ---- Timeouts and settings ----

std::uint32_t seconds_left(BurstLab& lab) {
  std::uint32_t seconds = 0;
  ConnectionCursor cursor;
  lab.services().visit_connections(cursor, 1U << 20,
                                   [&](const ConnectionListing& row) { seconds = row.expires; });
  return seconds;
}

TEST(ServiceTimeouts, AnIdleTimeoutIsOfEstablishedConnections) {
  BurstLab lab({.server_slots = 64});
  add_service(lab.services(), kTcp);
  add_servers(lab, kTcp, 1);
  must(lab.services().set_service_option(kTcp, {"idle-timeout", "20"}));
  lab.send(tcp(40000, kSyn));
  EXPECT_EQ(seconds_left(lab), 60U);
  lab.send(reply(1, 40000, kSyn | kAck), kServerSide);
  lab.send(tcp(40000, kAck));
  EXPECT_EQ(seconds_left(lab), 20U);
  lab.pass_seconds(15);
  lab.send(reply(1, 40000, kAck), kServerSide);
  lab.pass_seconds(15);
  EXPECT_EQ(seconds_left(lab), 5U);
  lab.send(tcp(40000, kFin | kAck));
  EXPECT_EQ(seconds_left(lab), 60U);  // CLOSE_WAIT
}

TEST(ServiceTimeouts, AndOfDatagrams) {
  BurstLab lab({.server_slots = 64});
  add_service(lab.services(), kUdp);
  add_servers(lab, kUdp, 1);
  must(lab.services().set_service_option(kUdp, {"idle-timeout", "20"}));
  lab.send(client_udp({kClient, 40000, kVip, 53}));
  EXPECT_EQ(seconds_left(lab), 20U);
  lab.pass_seconds(21);
  EXPECT_EQ(held(lab, 1), Held{});
}

TEST(ServiceTimeouts, DatagramsWithoutAnAnswerLastABriefTime) {
  const auto seconds = [](ForwardMode mode, const char* setting, bool answered) {
    BurstLab lab({.server_slots = 64});
    if (setting != nullptr) {
      must(lab.services().set_setting("udp_unanswered_timeout", setting));
    }
    add_service(lab.services(), kUdp);
    add_servers(lab, kUdp, 1, mode, 5353);
    lab.send(client_udp({kClient, 40000, kVip, 53}));
    if (answered) {
      lab.send(server_udp({server_address(1), 5353, kClient, 40000}), kServerSide);
      lab.send(client_udp({kClient, 40000, kVip, 53}));
    }
    return seconds_left(lab);
  };
  EXPECT_EQ(seconds(ForwardMode::nat, nullptr, false), 30U);
  EXPECT_EQ(seconds(ForwardMode::nat, nullptr, true), 300U);
  EXPECT_EQ(seconds(ForwardMode::nat, "5", false), 5U);
  EXPECT_EQ(seconds(ForwardMode::nat, "900", false), 300U);
  EXPECT_EQ(seconds(ForwardMode::nat, "0", false), 300U);
  EXPECT_EQ(seconds(ForwardMode::dr, nullptr, false), 300U);
}

// ---- Directors that are each other's real servers ----

class Directors : public testing::Test {
 protected:
  Directors() { add_service(lab_.services(), kTcp); }
  // As the real server `number` sends on what it has got as a director.
  Forwarded send_from(unsigned number, Bytes frame) {
    const Bytes ends = server_tcp({server_address(number), 1, kVip, 80}, kSyn);
    std::copy_n(ends.begin(), 12, frame.begin());
    return lab_.send(frame, kServerSide);
  }
  static Bytes syn(const char* client = kClient) { return tcp(40000, kSyn, client); }

  BurstLab lab_{{.server_slots = 64}};
};

TEST_F(Directors, WhatComesFromARealServerGoesToAnother) {
  add_servers(lab_, kTcp, 2, ForwardMode::dr, 80);
  // Round robin says 2.
  EXPECT_EQ(server_of(send_from(2, syn())), 1U);
  EXPECT_EQ(server_of(send_from(2, tcp(40000, kAck))), 1U);
}

TEST_F(Directors, WhereThereIsNoOtherThisHostIsMeant) {
  add_servers(lab_, kTcp, 1, ForwardMode::dr, 80);
  EXPECT_EQ(name_of(send_from(1, syn()).outcome), "kernel_local");
  EXPECT_EQ(name_of(send_from(1, tcp(40000, kAck)).outcome), "kernel_no_connection");
  EXPECT_EQ(held(lab_, 1), Held{});
}

TEST_F(Directors, WithBackupOnlyThisHostIsMeantAtOnce) {
  must(lab_.services().set_setting("backup_only", "1"));
  add_servers(lab_, kTcp, 2, ForwardMode::dr, 80);
  EXPECT_EQ(name_of(send_from(2, syn()).outcome), "kernel_local");
  EXPECT_EQ(held(lab_, 1), Held{});
}

// It was this host's turn before, and the client's port is the same.
TEST_F(Directors, AConnectionToTheSenderIsNoWayBack) {
  add_servers(lab_, kTcp, 2, ForwardMode::dr, 80);
  EXPECT_EQ(server_of(lab_.send(syn())), 2U);
  EXPECT_EQ(server_of(send_from(2, syn())), 1U);
  EXPECT_EQ(held(lab_, 1), (Held{1, 0, 0}));
}

TEST_F(Directors, AndNeitherIsATemplate) {
  must(lab_.services().delete_service(kTcp));
  add_persistent(lab_, kTcp, 30);
  add_servers(lab_, kTcp, 2, ForwardMode::dr, 80);
  EXPECT_EQ(server_of(lab_.send(syn())), 2U);
  EXPECT_EQ(name_of(send_from(2, tcp(40001, kSyn)).outcome), "kernel_local");
  EXPECT_EQ(held(lab_, 1), (Held{1, 1, 1}));
}

TEST_F(Directors, ARealServerMayBeItsOwnClient) {
  add_servers(lab_, kTcp, 1, ForwardMode::dr, 80);
  EXPECT_EQ(server_of(send_from(1, syn("10.2.0.1"))), 1U);
}

TEST(Opening, WithSloppyTcpAnySegmentButAReset) {
  BurstLab lab({.server_slots = 64});
  add_service(lab.services(), kTcp);
  add_servers(lab, kTcp, 1);
  EXPECT_EQ(lab.send(tcp(40000, kAck)).outcome, Outcome::kernel_no_connection);
  must(lab.services().set_setting("sloppy_tcp", "1"));
  EXPECT_EQ(lab.send(tcp(40000, kRst)).outcome, Outcome::kernel_no_connection);
  EXPECT_EQ(server_of(lab.send(tcp(40000, kAck))), 1U);
  EXPECT_EQ(server_of(lab.send(tcp(40001, kFin | kAck))), 1U);
}

TEST(Opening, NothingFromWhereNoClientIs) {
  BurstLab lab({.server_slots = 64});
  add_service(lab.services(), kTcp);
  add_servers(lab, kTcp, 1);
  for (const char* source :
       {"0.0.0.0", "0.255.255.255", "127.0.0.1", "127.255.255.255", "224.0.0.1", "239.255.255.255",
        "255.255.255.255", kVip, "10.8.255.255", "10.2.0.255"}) {
    EXPECT_EQ(lab.send(tcp(40000, kSyn, source)).outcome, Outcome::drop_martian_source) << source;
  }
  EXPECT_EQ(held(lab, 1), Held{});
  // Their neighbours; 240.0.0.0/4 is private to some networks, and Linux routes it.
  for (const char* source : {"1.0.0.0", "126.255.255.255", "128.0.0.0", "223.255.255.255",
                             "240.0.0.1", "255.255.255.254", kOtherVip}) {
    EXPECT_EQ(lab.send(tcp(40000, kSyn, source)).outcome, Outcome::nat_to_server) << source;
  }
}

TEST(Opening, NothingFromWhereNoIpv6ClientIs) {
  constexpr const char* kVip6 = "2001:db8:9::1";
  BurstLab lab({.server_slots = 64});
  const ServiceKey key = service_key(Protocol::udp, kVip6, 53);
  add_service(lab.services(), key);
  must(lab.services().add_server(key, server_spec("2001:db8:2::1", 53, ForwardMode::dr)));
  const auto outcome_from = [&](const char* source) {
    return lab.send(client_udp({source, 40000, kVip6, 53})).outcome;
  };
  for (const char* source : {"::", "::1", "ff02::1", "ff00::", "::ffff:10.1.0.1", kVip6}) {
    EXPECT_EQ(outcome_from(source), Outcome::drop_martian_source) << source;
  }
  EXPECT_EQ(held(lab, 1), Held{});
  for (const char* source : {"::2", "fe80::1", "feff:ffff::", "::fffe:10.1.0.1"}) {
    EXPECT_EQ(outcome_from(source), Outcome::dr_to_server) << source;
  }
}

TEST(Opening, ARealServerOnTheDirectorItselfHasTheServicesPort) {
  BurstLab lab({.server_slots = 64});
  lab.own(address_of("10.2.0.9"));
  must(lab.services().add_local_addresses({address_of("10.2.0.9"), address_of("10.2.0.9")},
                                          std::nullopt));
  add_service(lab.services(), kTcp);
  add_service(lab.services(), kUdp);
  for (const ForwardMode mode : {ForwardMode::nat, ForwardMode::fullnat}) {
    must(lab.services().add_server(kTcp, server_spec("10.2.0.9", 8080, mode)));
    EXPECT_EQ(lab.send(tcp(40000, kSyn)).outcome, Outcome::drop_local_other_port);
    EXPECT_EQ(held(lab, 1), Held{});
    must(lab.services().delete_server(kTcp, address_of("10.2.0.9"), 8080));
  }
  must(lab.services().add_server(kTcp, server_spec("10.2.0.9", 80, ForwardMode::nat)));
  EXPECT_EQ(lab.send(tcp(40000, kSyn)).outcome, Outcome::kernel_local);
  must(lab.services().add_server(kUdp, server_spec("10.2.0.9", 53, ForwardMode::tun)));
  EXPECT_EQ(lab.send(client_udp({kClient, 40000, kVip, 53})).outcome, Outcome::kernel_local);
}

TEST(Opening, NothingFromFtpsDataPort) {
  BurstLab lab({.server_slots = 64});
  add_service(lab.services(), kTcp);
  add_servers(lab, kTcp, 1);
  EXPECT_EQ(lab.send(tcp(20, kSyn)).outcome, Outcome::kernel_no_connection);
}

TEST(Opening, ConnReuseModeDecidesWhenASynStartsAnew) {
  struct Case {
    const char* mode;
    bool server_spoke;
    std::uint8_t last;
    bool anew;
  };
  // After a FIN of the client that nobody answered: FIN_WAIT; after a RST: CLOSE.
  constexpr Case kCases[] = {{"0", true, kRst, false},  {"1", true, kRst, true},
                             {"2", true, kRst, true},   {"0", false, kFin, false},
                             {"1", false, kFin, false}, {"2", false, kFin, true}};
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.mode);
    SCOPED_TRACE(int{each.last});
    BurstLab lab({.server_slots = 64});
    add_service(lab.services(), kTcp);
    add_servers(lab, kTcp, 2, ForwardMode::dr);
    must(lab.services().set_setting("conn_reuse_mode", each.mode));
    ASSERT_EQ(server_of(lab.send(tcp(40000, kSyn))), 2U);
    lab.send(tcp(40000, kAck));
    lab.send(tcp(40000, each.last));
    EXPECT_EQ(server_of(lab.send(tcp(40000, kSyn))), each.anew ? 1U : 2U);
    EXPECT_EQ(held(lab, 1).connections, 1U);
  }
}

class Marked : public testing::Test {
 protected:
  Marked() {
    ServiceSpec spec;
    spec.key = key_;
    spec.scheduler = "rr";
    must(lab_.services().add_service(spec));
    MarkRuleSpec rule;
    rule.rule.protocol = Protocol::tcp;
    rule.rule.mark = 3;
    must(lab_.services().add_mark_rule(rule, std::nullopt));
  }
  // Not to an address of this host.
  static Bytes transparent(std::uint8_t flags) {
    return client_tcp({kClient, 40000, "10.77.0.1", 80}, flags);
  }
  const ServiceKey key_{.protocol = Protocol::ip, .address = IpAddress(Ipv4Address{}), .fwmark = 3};
  BurstLab lab_{{.server_slots = 64}};
};

TEST_F(Marked, CacheBypassLetsThePacketsOfAServiceWithoutServersPass) {
  EXPECT_EQ(lab_.send(transparent(kSyn)).outcome, Outcome::icmp_error_sent);
  must(lab_.services().set_setting("cache_bypass", "1"));
  const Forwarded got = lab_.send(transparent(kSyn));
  EXPECT_EQ(got.outcome, Outcome::kernel_cache_bypass);
  EXPECT_EQ(got.bytes, transparent(kSyn));
  // Not those of other services.
  add_service(lab_.services(), kUdp);
  EXPECT_EQ(lab_.send(client_udp({kClient, 40000, kVip, 53})).outcome, Outcome::icmp_error_sent);
}

TEST_F(Marked, TheRepliesOfATransparentService) {
  add_servers(lab_, key_, 1, ForwardMode::nat, 80);
  EXPECT_EQ(server_of(lab_.send(transparent(kSyn))), 1U);
  const Flow back = {server_address(1), 80, kClient, 40000};
  const Forwarded got = lab_.send(server_tcp(back, kSyn | kAck), kServerSide);
  EXPECT_EQ(got.outcome, Outcome::nat_to_client);
  EXPECT_EQ(decode(got.bytes).flow.source, "10.77.0.1");
}

// ---- drop_entry ----

class DropEntry : public testing::Test {
 protected:
  static constexpr std::uint32_t kCapacity = 100;

  DropEntry() {
    add_service(lab_.services(), kTcp);
    add_servers(lab_, kTcp, 1);
  }
  void set(const char* mode) { must(lab_.services().set_setting("drop_entry", mode)); }
  void open_half(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      ASSERT_EQ(lab_.send(tcp(next_++, kSyn)).outcome, Outcome::nat_to_server);
    }
  }
  void establish(unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      ASSERT_EQ(lab_.send(tcp(next_, kSyn)).outcome, Outcome::nat_to_server);
      lab_.send(reply(1, next_, kSyn | kAck), kServerSide);
      lab_.send(tcp(next_++, kAck));
    }
  }
  std::map<std::string, int> states() {
    std::map<std::string, int> states;
    ConnectionCursor cursor;
    lab_.services().visit_connections(cursor, 1U << 20,
                                      [&](const ConnectionListing& row) { ++states[row.state]; });
    return states;
  }
  std::uint64_t given_up() { return lab_.worker().own().given_up.read(); }

  using States = std::map<std::string, int>;
  BurstLab lab_{{.capacity = kCapacity, .server_slots = 64}};

 private:
  std::uint16_t next_ = 30000;
};

TEST_F(DropEntry, InMode0AFullTableStaysFull) {
  set("0");
  open_half(kCapacity);
  lab_.pass_seconds(5);
  EXPECT_EQ(states(), (States{{"SYN_RECV", 100}}));
  EXPECT_EQ(given_up(), 0U);
}

TEST_F(DropEntry, ByDefaultHalfOpenConnectionsGoWhileTheTableIsNearlyFull) {
  establish(50);
  open_half(39);
  lab_.pass_seconds(5);
  EXPECT_EQ(states(), (States{{"ESTABLISHED", 50}, {"SYN_RECV", 39}}));
  open_half(10);
  lab_.pass_seconds(1);
  EXPECT_EQ(states(), (States{{"ESTABLISHED", 50}, {"SYN_RECV", 39}}));
  EXPECT_EQ(given_up(), 10U);
  EXPECT_EQ(held(lab_, 1).connections, 89U);
}

TEST_F(DropEntry, EstablishedConnectionsStayUnlessTheyAreIdle) {
  set("1");
  establish(95);
  lab_.pass_seconds(59);
  EXPECT_EQ(states(), (States{{"ESTABLISHED", 95}}));
  lab_.pass_seconds(2);
  // After two packets each of the client, every second one goes.
  EXPECT_EQ(states(), (States{{"ESTABLISHED", 89}}));
}

TEST_F(DropEntry, NotThoseOfManyPackets) {
  set("1");
  establish(95);
  for (std::uint16_t port = 30000; port < 30095; ++port) {
    for (int i = 0; i < 7; ++i) lab_.send(tcp(port, kAck));
  }
  lab_.pass_seconds(300);
  EXPECT_EQ(states(), (States{{"ESTABLISHED", 95}}));
}

// A flood of datagrams from any address leaves room for those who get answers.
TEST_F(DropEntry, UnansweredDatagramsGoFirst) {
  for (const ForwardMode mode : {ForwardMode::nat, ForwardMode::dr}) {
    BurstLab lab({.capacity = kCapacity, .server_slots = 64});
    add_service(lab.services(), kUdp);
    add_servers(lab, kUdp, 1, mode, 5353);
    for (std::uint16_t port = 30000; port < 30050; ++port) {
      lab.send(client_udp({kClient, port, kVip, 53}));
      lab.send(server_udp({server_address(1), 5353, kClient, port}), kServerSide);
    }
    for (std::uint16_t port = 31000; port < 31050; ++port) {
      lab.send(client_udp({kClient, port, kVip, 53}));
    }
    lab.pass_seconds(1);
    // In dr nobody sees whether there are answers.
    EXPECT_EQ(held(lab, 1).connections, mode == ForwardMode::nat ? 89U : 100U);
    for (std::uint16_t port = 30000; port < 30050; ++port) {
      lab.send(client_udp({kClient, port, kVip, 53}));
    }
    // Those that were answered are still there.
    EXPECT_EQ(held(lab, 1).connections, mode == ForwardMode::nat ? 89U : 100U);
  }
}

TEST_F(DropEntry, HalfOpenOnesGoBeforeIdleOnes) {
  set("1");
  establish(60);
  lab_.pass_seconds(100);
  open_half(40);
  lab_.pass_seconds(1);
  EXPECT_EQ(states(), (States{{"ESTABLISHED", 60}, {"SYN_RECV", 29}}));
}

TEST_F(DropEntry, InMode3AThirtySecondOfTheTableIsLookedAtEachSecond) {
  set("3");
  establish(10);
  open_half(60);
  lab_.pass_seconds(1);
  // One place a tick at least, so a table as small as this goes round in two seconds.
  EXPECT_GT(given_up(), 0U);
  lab_.pass_seconds(2);
  EXPECT_EQ(states(), (States{{"ESTABLISHED", 10}}));
}

TEST_F(DropEntry, ATemplateThatNobodyAssuredGoesWithItsLastConnection) {
  set("3");
  const ServiceKey key = service_key(Protocol::tcp, kVip, 81);
  add_persistent(lab_, key, 600);
  add_servers(lab_, key, 1, ForwardMode::nat, 8081);
  const auto connect = [&](std::uint16_t port) {
    ASSERT_EQ(server_of(lab_.send(client_tcp({"10.1.0.9", port, kVip, 81}, kSyn))), 1U);
  };
  connect(1000);
  connect(1001);
  EXPECT_EQ(held(lab_, 1), (Held{2, 1, 2}));
  lab_.pass_seconds(3);
  EXPECT_EQ(held(lab_, 1), Held{});
}

TEST_F(DropEntry, AnAssuredTemplateStays) {
  const ServiceKey key = service_key(Protocol::tcp, kVip, 81);
  add_persistent(lab_, key, 600);
  add_servers(lab_, key, 1, ForwardMode::nat, 8081);
  lab_.send(client_tcp({kClient, 1000, kVip, 81}, kSyn));
  lab_.send(server_tcp({server_address(1), 8081, kClient, 1000}, kSyn | kAck), kServerSide);
  lab_.send(client_tcp({kClient, 1000, kVip, 81}, kAck));
  lab_.send(client_tcp({kClient, 1001, kVip, 81}, kSyn));
  set("3");
  lab_.pass_seconds(3);
  EXPECT_EQ(held(lab_, 1), (Held{1, 1, 1}));
}

TEST(DropEntryOfWorkers, ATemplateOfAnotherWorkerGoes) {
  constexpr unsigned kWorkers = 4;
  BurstLab lab({.workers = kWorkers, .server_slots = 64});
  add_persistent(lab, kTcp, 600);
  add_servers(lab, kTcp, 1);
  for (std::uint16_t port = 30000; port < 30020; ++port) lab.deliver(tcp(port, kSyn));
  EXPECT_EQ(held(lab, kWorkers), (Held{20, 1, 20}));
  must(lab.services().set_setting("drop_entry", "3"));
  lab.pass_seconds(3);
  EXPECT_EQ(held(lab, kWorkers), Held{});
}

}  // namespace
}  // namespace weir::test
