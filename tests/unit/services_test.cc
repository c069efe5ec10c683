// SPDX-License-Identifier: Apache-2.0
// The control model against IPVS's rules, with real packets through one worker.
#include "control/live/services.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/random.h"

namespace weir::test {
namespace {

using absl::StatusCode;
using testing::ElementsAre;

const std::string kVip = "10.9.0.1";
constexpr std::uint8_t kSyn = TcpHeader::kSyn;
constexpr std::uint8_t kAck = TcpHeader::kAck;
constexpr std::uint8_t kRst = TcpHeader::kRst;
constexpr std::uint8_t kFin = TcpHeader::kFin;

std::string server_address(unsigned number) { return "10.2.0." + std::to_string(number); }

ServerSpec server(unsigned number, std::int32_t weight = 1, ForwardMode mode = ForwardMode::nat) {
  return server_spec(server_address(number), 8080, mode, weight);
}

Flow flow(std::uint16_t port) { return {"10.1.0.1", port, kVip, 80}; }

class ServicesTest : public testing::Test {
 protected:
  LabServices& services() { return lab_.services(); }
  Outcome send_tcp(std::uint16_t port, std::uint8_t flags) {
    return lab_.send(client_tcp(flow(port), flags)).outcome;
  }
  Outcome reply_tcp(unsigned from, std::uint16_t to_port, std::uint8_t flags) {
    return lab_.send(server_tcp({server_address(from), 8080, "10.1.0.1", to_port}, flags), 1)
        .outcome;
  }
  void establish(unsigned number, std::uint16_t port) {
    ASSERT_EQ(send_tcp(port, kSyn), Outcome::nat_to_server);
    ASSERT_EQ(reply_tcp(number, port, kSyn | kAck), Outcome::nat_to_client);
    ASSERT_EQ(send_tcp(port, kAck), Outcome::nat_to_server);
  }
  // Through a snapshot that is not the newest: a worker in the middle of its burst.
  Outcome send_through(const Snapshot& snapshot, const Bytes& bytes) {
    Frame frame(bytes);
    Packet packet = frame.packet();
    lab_.process_burst({&packet, 1}, 0, snapshot);
    return packet.outcome;
  }

  ServiceListing listed() { return services().find(key_).value(); }
  ServerListing listed_server(unsigned number) {
    for (const ServerListing& server : listed().servers) {
      if (server.spec.address == address_of(server_address(number))) return server;
    }
    ADD_FAILURE() << server_address(number) << " is not listed";
    return {};
  }
  const RealServer* published(unsigned number) {
    const Snapshot& snapshot = lab_.snapshot();
    for (std::size_t slot = 0; slot < snapshot.servers.size(); ++slot) {
      const RealServer* const server = snapshot.servers[slot];
      if (server != nullptr && server->address == address_of(server_address(number))) {
        return server;
      }
    }
    return nullptr;
  }
  void remove(unsigned number) {
    must(services().delete_server(key_, address_of(server_address(number)), 8080));
  }

  BurstLab lab_;
  const ServiceKey key_ = service_key(Protocol::tcp, kVip, 80);
};

// ---- Errors ----

TEST_F(ServicesTest, services_that_exist_or_do_not_are_told_apart) {
  ServiceSpec spec;
  spec.key = key_;
  EXPECT_EQ(services().edit_service(spec).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(services().delete_service(key_).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(services().find(key_).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(services().zero(key_).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(services().add_server(key_, server(1)).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(services().edit_server(key_, server(1)).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(services().delete_server(key_, server(1).address, 8080).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_TRUE(services().add_service(spec).ok());
  EXPECT_EQ(services().add_service(spec).code(), StatusCode::kAlreadyExists);
  // Only the same protocol, address and port is the same service.
  EXPECT_TRUE(services().zero(key_).ok());
  spec.key.protocol = Protocol::udp;
  EXPECT_TRUE(services().add_service(spec).ok());
  EXPECT_TRUE(services().delete_service(key_).ok());
  EXPECT_EQ(services().delete_service(key_).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(services().list().size(), 1U);
}

TEST_F(ServicesTest, servers_that_exist_or_do_not_are_told_apart) {
  add_service(services(), key_);
  EXPECT_EQ(services().edit_server(key_, server(1)).code(), StatusCode::kNotFound);
  EXPECT_EQ(services().delete_server(key_, server(1).address, 8080).code(), StatusCode::kNotFound);
  EXPECT_TRUE(services().add_server(key_, server(1)).ok());
  EXPECT_EQ(services().add_server(key_, server(1)).code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(services().delete_server(key_, server(1).address, 8081).code(), StatusCode::kNotFound);
  EXPECT_TRUE(services().delete_server(key_, server(1).address, 8080).ok());
  EXPECT_EQ(services().edit_server(key_, server(1)).code(), StatusCode::kNotFound);
}

TEST_F(ServicesTest, impossible_servers_are_refused_and_leave_nothing_behind) {
  add_service(services(), key_);
  struct Case {
    const char* address;
    ForwardMode mode;
    std::int32_t weight;
    std::uint32_t upper;
    std::uint32_t lower;
    StatusCode expected;
  };
  for (const Case& c : {
           Case{"224.0.0.1", ForwardMode::nat, 1, 0, 0, StatusCode::kInvalidArgument},
           Case{"0.0.0.0", ForwardMode::nat, 1, 0, 0, StatusCode::kInvalidArgument},
           Case{"255.255.255.255", ForwardMode::dr, 1, 0, 0, StatusCode::kInvalidArgument},
           Case{"ff02::1", ForwardMode::tun, 1, 0, 0, StatusCode::kInvalidArgument},
           Case{"2001:db8:2::1", ForwardMode::nat, 1, 0, 0, StatusCode::kInvalidArgument},
           Case{"2001:db8:2::1", ForwardMode::dr, 1, 0, 0, StatusCode::kInvalidArgument},
           Case{"10.2.0.1", ForwardMode::nat, -1, 0, 0, StatusCode::kOutOfRange},
           Case{"10.2.0.1", ForwardMode::nat, 1, 5, 6, StatusCode::kOutOfRange},
           Case{"10.2.0.1", ForwardMode::nat, 1, 0, 1, StatusCode::kOutOfRange},
           Case{"10.2.0.1", ForwardMode::fullnat, 1, 0, 0, StatusCode::kResourceExhausted},
           Case{"10.2.0.1", ForwardMode::local, 1, 0, 0, StatusCode::kInvalidArgument},
       }) {
    ServerSpec spec = server_spec(c.address, 8080, c.mode, c.weight);
    spec.upper_threshold = c.upper;
    spec.lower_threshold = c.lower;
    const absl::Status status = services().add_server(key_, spec);
    EXPECT_EQ(status.code(), c.expected) << c.address << " " << status;
  }
  EXPECT_TRUE(listed().servers.empty());
  EXPECT_TRUE(services().add_server(key_, server_spec("2001:db8:2::1", 80, ForwardMode::tun)).ok());
}

TEST_F(ServicesTest, impossible_tunnels_are_refused_and_possible_ones_reach_the_workers) {
  add_service(services(), key_);
  struct Case {
    Tunnel tunnel;
    ForwardMode mode;
    StatusCode expected;
  };
  constexpr auto kGue = TunnelType::gue;
  constexpr auto kGre = TunnelType::gre;
  constexpr auto kIpip = TunnelType::ipip;
  constexpr auto kNone = TunnelChecksum::none;
  constexpr auto kChecksum = TunnelChecksum::checksum;
  constexpr auto kRemote = TunnelChecksum::remote;
  constexpr auto kTun = ForwardMode::tun;
  const Be16 port = Be16::from_host(6080);
  for (const Case& c : {
           Case{{kGue, kNone, {}}, kTun, StatusCode::kInvalidArgument},
           Case{{kGre, kRemote, {}}, kTun, StatusCode::kInvalidArgument},
           Case{{kIpip, kChecksum, {}}, kTun, StatusCode::kInvalidArgument},
           Case{{kGue, kNone, port}, ForwardMode::nat, StatusCode::kInvalidArgument},
           Case{{kGue, kNone, port}, kTun, StatusCode::kOk},
           Case{{kGue, kRemote, port}, kTun, StatusCode::kOk},
           Case{{kGre, kChecksum, {}}, kTun, StatusCode::kOk},
       }) {
    ServerSpec spec = server_spec(server_address(1), 80, c.mode);
    spec.tunnel = c.tunnel.type;
    spec.tunnel_checksum = c.tunnel.checksum;
    spec.tunnel_port = c.tunnel.port.host();
    const absl::Status status = services().add_server(key_, spec);
    EXPECT_EQ(status.code(), c.expected) << status;
    if (!status.ok()) continue;
    const RealServer* const placed = published(1);
    ASSERT_NE(placed, nullptr);
    EXPECT_TRUE(placed->available);
    EXPECT_EQ(placed->tunnel, c.tunnel);
    must(services().delete_server(key_, spec.address, spec.port));
  }
}

TEST_F(ServicesTest, impossible_services_are_refused_and_leave_nothing_behind) {
  const auto refused = [&](auto change) {
    ServiceSpec spec;
    spec.key = key_;
    change(spec);
    return services().add_service(spec).code();
  };
  EXPECT_EQ(refused([](ServiceSpec& s) { s.scheduler = "none"; }), StatusCode::kNotFound);
  EXPECT_EQ(refused([](ServiceSpec& s) { s.persistence_engine = "none"; }), StatusCode::kNotFound);
  EXPECT_EQ(refused([](ServiceSpec& s) { s.persistence_engine = "sip"; }),
            StatusCode::kUnimplemented);
  for (const auto code : {
           refused([](ServiceSpec& s) { s.key.port = 0; }),
           refused([](ServiceSpec& s) { s.persistence_timeout = 31 * 86400 + 1; }),
           refused([](ServiceSpec& s) { s.one_packet = true; }),
           refused([](ServiceSpec& s) {
             s.key.address = address_of("2001:db8:9::1");
             s.persistence_mask = 129;
           }),
       }) {
    EXPECT_EQ(code, StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(services().list().empty());
  add_service(services(), key_, "rr");
  ServiceSpec edit;
  edit.key = key_;
  edit.scheduler = "none";
  EXPECT_EQ(services().edit_service(edit).code(), StatusCode::kNotFound);
  EXPECT_EQ(listed().spec.scheduler, "rr");
}

TEST_F(ServicesTest, server_edited_from_nat_to_dr_keeps_the_replies_of_its_connections) {
  add_service(services(), key_);
  ServerSpec spec = server_spec(server_address(1), 80, ForwardMode::nat, 1);
  must(services().add_server(key_, spec));
  ASSERT_EQ(send_tcp(4000, kSyn), Outcome::nat_to_server);
  spec.mode = ForwardMode::dr;
  must(services().edit_server(key_, spec));
  const Bytes reply = server_tcp({server_address(1), 80, "10.1.0.1", 4000}, kSyn | kAck);
  EXPECT_EQ(lab_.send(reply, 1).outcome, Outcome::nat_to_client);
  EXPECT_EQ(services().steered_servers().size(), 1U);
  EXPECT_EQ(send_tcp(4000, kAck), Outcome::nat_to_server);
  EXPECT_EQ(send_tcp(4001, kSyn), Outcome::dr_to_server);
}

TEST_F(ServicesTest, syn_of_a_drained_connection_starts_anew_whatever_the_reuse_mode) {
  add_service(services(), key_);
  must(services().set_setting("conn_reuse_mode", "0"));
  must(services().set_setting("expire_nodest_conn", "1"));
  must(services().add_server(key_, server(1)));
  establish(1, 4000);
  must(services().edit_server(key_, server(1, 0)));
  must(services().add_server(key_, server(2)));
  ASSERT_EQ(send_tcp(4000, kSyn), Outcome::nat_to_server);
  EXPECT_EQ(listed_server(1).active + listed_server(1).inactive, 0U);
  EXPECT_EQ(listed_server(2).active, 1U);
}

TEST_F(ServicesTest, lists_services_in_order_of_addition_and_servers_newest_first) {
  add_service(services(), service_key(Protocol::udp, kVip, 53));
  add_service(services(), key_);
  add_service(services(), service_key(Protocol::tcp, "10.9.0.0", 80));
  for (unsigned i = 1; i <= 3; ++i) must(services().add_server(key_, server(i)));
  const auto list = services().list();
  ASSERT_EQ(list.size(), 3U);
  EXPECT_EQ(list[0].spec.key.port, 53);
  EXPECT_EQ(list[2].spec.key.address, address_of("10.9.0.0"));
  std::vector<std::string> addresses;
  for (const auto& row : list[1].servers) addresses.push_back(row.spec.address.to_string());
  EXPECT_THAT(addresses, ElementsAre("10.2.0.3", "10.2.0.2", "10.2.0.1"));
}

TEST_F(ServicesTest, dr_and_tun_servers_always_have_the_services_port) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1, 1, ForwardMode::dr)));
  must(services().add_server(key_, server(2, 1, ForwardMode::tun)));
  EXPECT_EQ(listed_server(1).spec.port, 80);
  EXPECT_EQ(listed_server(2).spec.port, 80);
  EXPECT_EQ(services().add_server(key_, server(1, 1, ForwardMode::dr)).code(),
            StatusCode::kAlreadyExists);
}

// ---- Removal, slots, counts ----

TEST_F(ServicesTest, a_removed_server_that_comes_back_takes_its_slot_and_counts_with_it) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5002));
  const RealServer before = *published(1);
  remove(1);
  lab_.settle();
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::drop_server_removed);
  EXPECT_EQ(reply_tcp(1, 5001, kAck), Outcome::nat_to_client);
  EXPECT_TRUE(listed().servers.empty());

  must(services().add_server(key_, server(1, 7)));
  EXPECT_EQ(published(1)->slot, before.slot);
  EXPECT_EQ(published(1)->generation, before.generation);
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::nat_to_server);
  const ServerListing row = listed_server(1);
  EXPECT_EQ(row.spec.weight, 7);
  EXPECT_EQ(row.active, 2U);
  EXPECT_EQ(row.inactive, 0U);
  EXPECT_EQ(row.totals.connections, 2U);
  EXPECT_EQ(row.totals.packets_in, 5U);
  EXPECT_EQ(row.totals.packets_out, 3U);
}

TEST_F(ServicesTest, a_slot_is_free_once_its_last_connection_is_and_comes_back_anew) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  const RealServer before = *published(1);
  remove(1);
  lab_.settle();
  must(services().add_server(key_, server(2)));
  EXPECT_NE(published(2)->slot, before.slot) << "a connection still refers to the slot";
  ASSERT_NE(published(1), nullptr);

  EXPECT_EQ(reply_tcp(1, 5001, kRst), Outcome::nat_to_client);
  lab_.pass_seconds(10);
  lab_.settle();
  EXPECT_EQ(published(1), nullptr);
  must(services().add_server(key_, server(3)));
  EXPECT_EQ(published(3)->slot, before.slot);
  EXPECT_NE(published(3)->generation, before.generation);
  const ServerListing row = listed_server(3);
  EXPECT_EQ(row.totals.connections, 0U);
  EXPECT_EQ(row.totals.bytes_in, 0U);
  EXPECT_EQ(row.active + row.inactive, 0U);
  EXPECT_EQ(listed().totals.connections, 1U) << "what a departed server did stays counted";
  lab_.services().estimate_rates();
  EXPECT_EQ(listed_server(3).rates.packets_in, 0U);
}

TEST_F(ServicesTest, a_slot_stays_while_a_worker_may_still_open_connections_to_it) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  Publisher& publisher = lab_.publisher();
  publisher.enter(0);
  const Snapshot* held = publisher.load();
  const ServerSlot slot = published(1)->slot;
  remove(1);
  services().housekeeping();
  EXPECT_EQ(send_through(*held, client_tcp(flow(5001), kSyn)), Outcome::nat_to_server);
  publisher.quiescent(0);
  services().housekeeping();
  services().housekeeping();
  must(services().add_server(key_, server(2)));
  EXPECT_NE(published(2)->slot, slot);
  publisher.leave(0);
}

// The first removal's grace period ends when the second removal's has only begun.
TEST_F(ServicesTest, a_slot_that_was_removed_twice_waits_for_the_second_grace_period) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  Publisher& publisher = lab_.publisher();
  publisher.enter(0);
  const ServerSlot slot = published(1)->slot;
  remove(1);
  must(services().add_server(key_, server(1)));
  publisher.quiescent(0);
  const Snapshot* held = publisher.load();  // server 1 is available in it
  remove(1);
  services().housekeeping();
  services().housekeeping();
  EXPECT_EQ(send_through(*held, client_tcp(flow(5001), kSyn)), Outcome::nat_to_server);
  for (int i = 0; i < 3; ++i) {
    publisher.quiescent(0);
    services().housekeeping();
  }
  must(services().add_server(key_, server(2)));
  EXPECT_NE(published(2)->slot, slot);
  publisher.leave(0);
}

TEST_F(ServicesTest, a_service_that_comes_back_starts_at_zero_but_takes_its_connections_back) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  must(services().delete_service(key_));
  lab_.settle();
  EXPECT_TRUE(services().list().empty());
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::drop_server_removed);
  EXPECT_EQ(send_tcp(6001, kSyn), Outcome::kernel_no_connection);

  add_service(services(), key_);
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::drop_server_removed) << "its server is not back yet";
  must(services().add_server(key_, server(1)));
  const ServerListing row = listed_server(1);
  EXPECT_EQ(row.active, 1U);
  // IPVS binds the server to a service that is another to it, and zeroes its counters.
  EXPECT_EQ(row.totals.connections, 0U);
  EXPECT_EQ(row.totals.packets_in, 0U);
  EXPECT_EQ(listed().totals.connections, 0U);
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::nat_to_server);
  EXPECT_EQ(listed_server(1).totals.packets_in, 1U);
  EXPECT_EQ(listed().totals.packets_in, 1U);
  services().estimate_rates();
  EXPECT_LE(listed().rates.packets_in, 1U) << "what happened before is no rate of the new service";
}

TEST_F(ServicesTest, a_service_slot_is_free_when_its_servers_are) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  const std::uint32_t generation = lab_.snapshot().services[0]->generation;
  must(services().flush());
  lab_.settle();
  add_service(services(), service_key(Protocol::tcp, kVip, 81));
  EXPECT_EQ(lab_.snapshot().services[0]->key.port, 80) << "a connection still refers to it";
  EXPECT_EQ(reply_tcp(1, 5001, kRst), Outcome::nat_to_client);
  lab_.pass_seconds(10);
  lab_.settle();
  lab_.settle();
  add_service(services(), service_key(Protocol::tcp, kVip, 82));
  ASSERT_NE(lab_.snapshot().services[0], nullptr);
  EXPECT_EQ(lab_.snapshot().services[0]->key.port, 82);
  EXPECT_NE(lab_.snapshot().services[0]->generation, generation);
}

TEST_F(ServicesTest, zero_hides_what_was_counted_and_restarts_the_rates) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  for (int i = 0; i < 1000; ++i) send_tcp(5001, kAck);
  services().estimate_rates();
  EXPECT_EQ(listed_server(1).totals.packets_in, 1002U);
  EXPECT_EQ(listed().totals.packets_out, 1U);
  EXPECT_GT(listed_server(1).rates.packets_in, 100U);

  must(services().zero(key_));
  EXPECT_EQ(listed().totals.packets_in, 0U);
  EXPECT_EQ(listed_server(1).totals.packets_in, 0U);
  EXPECT_EQ(listed_server(1).totals.bytes_out, 0U);
  EXPECT_EQ(listed_server(1).rates.packets_in, 0U);
  EXPECT_EQ(listed().rates.bytes_in, 0U);
  EXPECT_EQ(listed_server(1).active, 1U) << "connections are not statistics";
  send_tcp(5001, kAck);
  EXPECT_EQ(listed().totals.packets_in, 1U);
  must(services().zero(std::nullopt));
  EXPECT_EQ(listed_server(1).totals.packets_in, 0U);
}

TEST_F(ServicesTest, service_totals_include_servers_that_are_removed) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  remove(1);
  EXPECT_EQ(listed().totals.connections, 1U);
  EXPECT_EQ(listed().totals.packets_in, 2U);
}

TEST_F(ServicesTest, weight_zero_drains) {
  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  must(services().edit_server(key_, server(1, 0)));
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::nat_to_server);
  EXPECT_NE(send_tcp(5002, kSyn), Outcome::nat_to_server);
}

// ---- The host's addresses ----

TEST_F(ServicesTest, a_service_takes_traffic_only_while_its_address_is_local) {
  std::vector<std::string> notices;
  services().on_notice([&](const std::string& notice) { notices.push_back(notice); });
  const ServiceKey elsewhere = service_key(Protocol::tcp, "10.9.0.2", 80);
  add_service(services(), elsewhere);
  must(services().add_server(elsewhere, server(1)));
  const Flow there{"10.1.0.1", 5001, "10.9.0.2", 80};
  EXPECT_FALSE(services().find(elsewhere).value().address_is_local);
  EXPECT_TRUE(services().steered_services().empty());
  EXPECT_TRUE(services().steered_servers().empty());
  EXPECT_EQ(lab_.send(client_tcp(there, kSyn)).outcome, Outcome::kernel_not_a_service);

  lab_.own(address_of("10.9.0.2"));
  EXPECT_TRUE(services().find(elsewhere).value().address_is_local);
  EXPECT_EQ(services().steered_services().size(), 1U);
  EXPECT_EQ(services().steered_servers().size(), 1U);
  EXPECT_EQ(lab_.send(client_tcp(there, kSyn)).outcome, Outcome::nat_to_server);

  lab_.disown(address_of("10.9.0.2"));
  EXPECT_FALSE(services().find(elsewhere).value().address_is_local);
  EXPECT_EQ(lab_.send(client_tcp(there, kAck)).outcome, Outcome::kernel_not_a_service);
  EXPECT_EQ(notices.size(), 3U);
}

// Its packets reach the kernel as they came: drop_local_other_port.
TEST_F(ServicesTest, a_local_server_with_another_port_is_warned_of_once) {
  std::vector<std::string> notices;
  services().on_notice([&](const std::string& notice) { notices.push_back(notice); });
  add_service(services(), key_);
  lab_.own(address_of("10.2.0.7"));
  must(services().add_server(key_, server_spec("10.2.0.7", 80, ForwardMode::nat)));
  EXPECT_TRUE(notices.empty()) << notices.front();
  must(services().add_server(key_, server_spec("10.2.0.7", 8080, ForwardMode::nat)));
  must(services().edit_server(key_, server_spec("10.2.0.7", 8080, ForwardMode::nat, 5)));
  ASSERT_EQ(notices.size(), 1U);
  EXPECT_NE(notices[0].find("10.2.0.7 port 8080"), std::string::npos) << notices[0];
  // An address may become the host's own afterwards.
  must(services().add_server(key_, server_spec("10.2.0.8", 8080, ForwardMode::nat)));
  EXPECT_EQ(notices.size(), 1U);
  lab_.own(address_of("10.2.0.8"));
  EXPECT_EQ(notices.size(), 2U);
}

// ---- Edits ----

// Two workers that are given the same edits and clients, one of which looks at every version, the
// other only when a client comes, however often it has reported that it holds nothing.
class Follower {
 public:
  enum class Habit { eager, lazy };
  Follower(Habit habit, const std::string& scheduler) : habit_(habit) {
    add_service(lab_.services(), key_, scheduler);
    lab_.publisher().enter(0);
  }
  ~Follower() { lab_.publisher().leave(0); }

  template <class Change>
  void change(const Change& change) {
    change(lab_.services(), key_);
    if (habit_ == Habit::eager) BurstLab::adopt_whole(lab_.worker(), *lab_.publisher().load());
    lab_.publisher().quiescent(0);
    lab_.services().housekeeping();
  }
  // The number of the server that gets the next client, 0 for none.
  unsigned next_client() {
    const Forwarded forwarded = lab_.send(client_tcp(flow(++port_), kSyn));
    lab_.publisher().quiescent(0);
    return forwarded.outcome == Outcome::nat_to_server ? decode(forwarded.bytes).server : 0;
  }

 private:
  Habit habit_;
  BurstLab lab_{{.capacity = 65536}};
  const ServiceKey key_ = service_key(Protocol::tcp, kVip, 80);
  std::uint16_t port_ = 1024;
};

// One random edit; some are refused, by both.
auto random_edit(Random& random) {
  const unsigned number = 1 + random() % 8;
  const auto weight = static_cast<std::int32_t>(random() % 5);
  const unsigned dice = random() % 100;
  static constexpr const char* kSchedulers[] = {"rr", "wrr", "wlc"};
  const std::string scheduler = kSchedulers[random() % 3];
  return [=](LabServices& services, const ServiceKey& key) {
    if (dice < 35) {
      (void)services.add_server(key, server(number, weight));
    } else if (dice < 60) {
      (void)services.edit_server(key, server(number, weight));
    } else if (dice < 90) {
      (void)services.delete_server(key, server(number).address, 8080);
    } else if (dice < 97) {
      ServiceSpec spec;
      spec.key = key;
      spec.scheduler = scheduler;
      must(services.edit_service(spec));
    } else {
      must(services.delete_service(key));
      add_service(services, key, scheduler);
    }
  };
}

TEST(ServicesEdits, a_worker_that_looks_seldom_ends_where_step_by_step_ends) {
  for (const char* scheduler : {"rr", "wrr"}) {
    Random random(std::string_view(scheduler) == "rr" ? 1 : 2);
    Follower eager(Follower::Habit::eager, scheduler);
    Follower lazy(Follower::Habit::lazy, scheduler);
    for (int round = 0; round < 1500; ++round) {
      const unsigned edits = random() % 6;
      for (unsigned i = 0; i < edits; ++i) {
        const auto edit = random_edit(random);
        eager.change(edit);
        lazy.change(edit);
      }
      const unsigned clients = random() % 7;
      for (unsigned i = 0; i < clients; ++i) {
        ASSERT_EQ(eager.next_client(), lazy.next_client()) << scheduler << " round " << round;
      }
    }
  }
}

TEST_F(ServicesTest, edits_are_forgotten_once_every_worker_has_replayed_them) {
  add_service(services(), key_);
  for (unsigned i = 1; i <= 5; ++i) must(services().add_server(key_, server(i)));
  EXPECT_EQ(lab_.snapshot().services[0]->edits.size(), 5U);
  lab_.settle();
  must(services().edit_server(key_, server(1)));
  EXPECT_EQ(lab_.snapshot().services[0]->edits.size(), 1U);
  lab_.settle();
  must(services().set_setting("sloppy_tcp", "0"));
  EXPECT_TRUE(lab_.snapshot().edited.empty());
}

// ---- Timeouts and settings ----

TEST_F(ServicesTest, timeouts_change_alone_and_count_for_packets_from_then_on) {
  must(services().set_timeouts({.tcp = 0, .tcp_fin = 0, .udp = 7}));
  EXPECT_EQ(services().timeouts().tcp, 900U);
  EXPECT_EQ(services().timeouts().tcp_fin, 120U);
  EXPECT_EQ(services().timeouts().udp, 7U);
  must(services().set_timeouts({.tcp = 20, .tcp_fin = 5, .udp = 0}));
  EXPECT_EQ(services().timeouts().udp, 7U);

  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5001));
  ASSERT_NO_FATAL_FAILURE(establish(1, 5002));
  EXPECT_EQ(send_tcp(5002, kFin | kAck), Outcome::nat_to_server);
  EXPECT_EQ(reply_tcp(1, 5002, kFin | kAck), Outcome::nat_to_client);
  lab_.pass_seconds(19);
  EXPECT_EQ(listed_server(1).active, 1U);
  lab_.pass_seconds(1);
  EXPECT_EQ(listed_server(1).active, 0U);
}

TEST_F(ServicesTest, settings_are_listed_and_take_only_numbers_in_range) {
  std::map<std::string, std::string> defaults;
  for (const auto& row : services().settings()) {
    defaults[row.name] = row.value;
    EXPECT_FALSE(row.help.empty()) << row.name;
    EXPECT_TRUE(services().set_setting(row.name, row.value).ok()) << row.name;
    EXPECT_EQ(services().set_setting(row.name, "-1").code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(services().set_setting(row.name, "yes").code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(services().set_setting(row.name, "4294967295").code(), StatusCode::kInvalidArgument);
  }
  // IPVS's names (Documentation/networking/ipvs-sysctl.rst), but for drop_entry its defaults.
  for (const auto& [name, value] : std::map<std::string, std::string>{
           {"conn_reuse_mode", "1"},
           {"expire_nodest_conn", "0"},
           {"sloppy_tcp", "0"},
           {"expire_quiescent_template", "0"},
           {"drop_entry", "1"},
           {"lblc_expiration", "86400"},
           {"lblcr_expiration", "86400"},
           {"cache_bypass", "0"},
           {"pmtu_disc", "1"},
           {"nat_icmp_send", "0"},
           {"udp_unanswered_timeout", "30"},
       }) {
    EXPECT_EQ(defaults[name], value) << name;
  }
  EXPECT_EQ(services().set_setting("no_such_thing", "1").code(), StatusCode::kNotFound);

  add_service(services(), key_);
  must(services().add_server(key_, server(1)));
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::kernel_no_connection);
  must(services().set_setting("sloppy_tcp", "1"));
  EXPECT_EQ(send_tcp(5001, kAck), Outcome::nat_to_server);
}

TEST_F(ServicesTest, counters_name_every_way_out) {
  const auto counters = services().counters();
  EXPECT_EQ(counters.size(), kOutcomes) << "every outcome, and connections_given_up";
  std::set<std::string> names;
  for (const auto& [name, count] : counters) {
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_EQ(count, 0U) << name;
  }
}

TEST(ServicesWorkers, each_has_what_it_did_itself) {
  constexpr unsigned kWorkers = 2;
  BurstLab lab({.workers = kWorkers});
  const ServiceKey key = service_key(Protocol::tcp, kVip, 80);
  add_service(lab.services(), key);
  must(lab.services().add_server(key, server(1)));
  constexpr std::uint16_t kClients = 100;
  for (std::uint16_t i = 0; i < kClients; ++i) {
    lab.deliver(client_tcp({"10.1.0.1", static_cast<std::uint16_t>(5000 + i), kVip, 80}, kSyn));
  }
  lab.send(Bytes{1, 2, 3}, 0, 1);
  std::vector<WorkerListing> workers = lab.services().workers();
  ASSERT_EQ(workers.size(), kWorkers);
  // All arrived at the first one.
  EXPECT_EQ(workers[0].handed_over, workers[1].totals.connections);
  EXPECT_EQ(workers[1].handed_over, 0U);
  EXPECT_EQ(workers[0].dropped, 0U);
  EXPECT_EQ(workers[1].dropped, 1U);
  std::uint64_t connections = 0;
  for (const WorkerListing& worker : workers) {
    EXPECT_GT(worker.open, 0U);
    EXPECT_EQ(worker.open, worker.totals.connections);
    EXPECT_EQ(worker.totals.packets_in, worker.totals.connections);
    connections += worker.totals.connections;
  }
  EXPECT_EQ(connections, kClients);
  EXPECT_EQ(workers[0].capacity, 2 * lab.worker().ipv4.capacity());

  lab.worker(1).own().cycles.add(1000);
  lab.worker(1).own().busy_cycles.add(250);
  lab.services().estimate_rates();
  EXPECT_EQ(lab.services().workers()[1].busy, 25U);
  lab.worker(1).own().cycles.add(1000);
  lab.services().estimate_rates();
  EXPECT_EQ(lab.services().workers()[1].busy, 0U);
}

// ---- Listings of connections ----

TEST(ServicesConnections, a_sliced_walk_sees_every_connection_of_every_worker_once) {
  constexpr unsigned kWorkers = 3;
  BurstLab lab({.workers = kWorkers});
  const ServiceKey v4 = service_key(Protocol::tcp, kVip, 80);
  const ServiceKey v6 = service_key(Protocol::udp, "2001:db8:9::1", 53);
  add_service(lab.services(), v4);
  add_service(lab.services(), v6);
  must(lab.services().add_server(v4, server(1)));
  must(lab.services().add_server(v6, server_spec("2001:db8:2::1", 53, ForwardMode::nat)));
  std::set<std::pair<std::string, unsigned>> opened;
  for (std::uint16_t port = 2000; port < 2100; ++port) {
    for (unsigned worker = 0; worker < kWorkers; ++worker) {
      const Flow six{"2001:db8:1::1", port, "2001:db8:9::1", 53};
      if (lab.send(client_tcp(flow(port), kSyn), 0, worker).outcome == Outcome::nat_to_server) {
        opened.emplace("10.1.0.1", port);
      }
      if (lab.send(client_udp(six), 0, worker).outcome == Outcome::nat_to_server) {
        opened.emplace(six.source, port);
      }
    }
  }
  EXPECT_EQ(opened.size(), 200U);
  for (const std::uint32_t slice : {1U, 3U, 64U, 100000U}) {
    std::set<std::pair<std::string, unsigned>> seen;
    ConnectionCursor cursor;
    const auto visit = [&](const ConnectionListing& row) {
      EXPECT_TRUE(seen.emplace(row.client.to_string(), row.client_port).second);
      EXPECT_EQ(row.state, row.protocol == Protocol::tcp ? "SYN_RECV" : "UDP");
      EXPECT_EQ(row.server_port, row.protocol == Protocol::tcp ? 8080 : 53);
    };
    while (lab.services().visit_connections(cursor, slice, visit)) {
    }
    EXPECT_EQ(seen, opened) << "slices of " << slice;
  }
}

// ---- Rates ----

// 128-byte packets of five clients, 50 a second, then none. What the kernel's estimator counted in
// each of its two seconds follows from the byte rates that it showed (data of cli.jsonl,
// "rate-estimator").
TEST(RateEstimator, shows_what_the_kernel_showed) {
  struct Row {
    std::uint64_t packets;
    std::uint64_t connections_shown;
    std::uint64_t packets_shown;
    std::uint64_t bytes_shown;
  };
  constexpr Row kRows[] = {
      {75, 1, 9, 1200},   {101, 0, 20, 2516}, {101, 0, 27, 3503}, {101, 0, 33, 4243},
      {100, 0, 37, 4782}, {101, 0, 41, 5203}, {101, 0, 43, 5518}, {101, 0, 45, 5755},
      {18, 0, 36, 4604},  {0, 0, 27, 3453},   {0, 0, 20, 2590},   {0, 0, 15, 1942},
      {0, 0, 11, 1457},   {0, 0, 9, 1092},    {0, 0, 6, 819},     {0, 0, 5, 614}};
  RateEstimator estimator;
  Totals totals;
  totals.connections = 5;
  for (const Row& row : kRows) {
    totals.packets_in += row.packets;
    totals.bytes_in += row.packets * 128;
    estimator.sample(totals);
    EXPECT_EQ(estimator.rates().connections, row.connections_shown);
    EXPECT_EQ(estimator.rates().packets_in, row.packets_shown);
    EXPECT_EQ(estimator.rates().bytes_in, row.bytes_shown);
    EXPECT_EQ(estimator.rates().packets_out, 0U);
  }
}

TEST(RateEstimator, comes_to_the_true_rate_and_back_to_zero) {
  RateEstimator estimator;
  Totals totals;
  for (int i = 0; i < 200; ++i) {
    totals.connections += 2 * 1000;
    totals.packets_out += 2 * 3'000'000;
    totals.bytes_out += 2 * 4'000'000'000ULL;
    estimator.sample(totals);
  }
  EXPECT_EQ(estimator.rates().connections, 1000U);
  EXPECT_EQ(estimator.rates().packets_out, 3'000'000U);
  EXPECT_EQ(estimator.rates().bytes_out, 4'000'000'000U);
  for (int i = 0; i < 200; ++i) estimator.sample(totals);
  EXPECT_EQ(estimator.rates().packets_out, 0U);
  EXPECT_EQ(estimator.rates().bytes_out, 0U);
}

}  // namespace
}  // namespace weir::test
