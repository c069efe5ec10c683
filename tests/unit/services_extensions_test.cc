// SPDX-License-Identifier: Apache-2.0
// What services have beyond IPVS, and the part of IPVS that is for many ports, many clients or a
// mark: as control keeps it and as the workers see it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "control/live/services.h"
#include "control/model/text_forms.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"

namespace weir::test {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

const ServiceKey kWeb = service_key(Protocol::tcp, "10.9.0.1", 80);
const ServiceKey kWeb6 = service_key(Protocol::tcp, "2001:db8:9::1", 80);
const ServiceKey kMark7{.protocol = Protocol::ip, .address = {}, .port = 0, .fwmark = 7};

AddressRange range(const std::string& text) { return parse_address_range(text).value(); }

std::vector<std::string> texts(const std::vector<IpAddress>& addresses) {
  std::vector<std::string> list;
  for (const IpAddress& address : addresses) list.push_back(address.to_string());
  return list;
}

std::vector<std::string> texts(const std::vector<SteeringKey>& keys) {
  std::vector<std::string> list;
  for (const SteeringKey& key : keys) {
    list.push_back(std::to_string(static_cast<int>(key.protocol)) + " " + key.address.to_string() +
                   " " + std::to_string(key.port));
  }
  return list;
}

ServiceSpec spec_of(const ServiceKey& key, std::uint32_t persistence = 0) {
  ServiceSpec spec;
  spec.key = key;
  spec.scheduler = "rr";
  spec.persistence_timeout = persistence;
  return spec;
}

class ServicesExtensionsTest : public testing::Test {
 protected:
  LabServices& services() { return lab_.services(); }
  const Service& published(const ServiceKey& key) {
    const Snapshot& snapshot = lab_.snapshot();
    for (std::size_t slot = 0; slot < snapshot.services.size(); ++slot) {
      const Service* const service = snapshot.services[slot];
      if (service != nullptr && service->key == key) return *service;
    }
    throw std::runtime_error("no such service is published");
  }
  const RealServer& published(const std::string& address) {
    const Snapshot& snapshot = lab_.snapshot();
    for (std::size_t slot = 0; slot < snapshot.servers.size(); ++slot) {
      const RealServer* const server = snapshot.servers[slot];
      if (server != nullptr && server->address == address_of(address)) return *server;
    }
    throw std::runtime_error("no such real server is published");
  }
  // What the index says of a packet of the given kind.
  template <class Ask>
  auto ask(const Flow& flow, Protocol protocol, Ask&& ask) {
    const FlowKey<Ipv4Address> key{address_of(flow.source).ipv4(),
                                   address_of(flow.destination).ipv4(),
                                   Be16::from_host(flow.source_port),
                                   Be16::from_host(flow.destination_port),
                                   protocol,
                                   Direction::inbound};
    return ask(*lab_.snapshot().index, key);
  }
  bool is_reply(const Flow& flow, Protocol protocol = Protocol::tcp) {
    return ask(flow, protocol,
               [](const auto& index, const auto& key) { return index.is_reply(key); });
  }
  std::optional<ServiceKey> service_of(const Flow& flow, std::uint32_t mark = 0,
                                       Protocol protocol = Protocol::tcp) {
    const ServiceSlot slot = ask(flow, protocol, [mark](const auto& index, const auto& key) {
      return index.find_service(key, mark);
    });
    if (slot == ServiceIndex::kNoService) return std::nullopt;
    return lab_.snapshot().services[slot]->key;
  }
  // Enough for a walk over all tables and the grace periods around it.
  void settle_for_long() {
    for (int i = 0; i < 20; ++i) lab_.settle();
  }

  BurstLab lab_;
};

// ---- Options ----

TEST_F(ServicesExtensionsTest, options_reach_the_workers_and_are_listed_where_not_default) {
  must(services().add_service(spec_of(kWeb)));
  EXPECT_THAT(services().find(kWeb)->options, IsEmpty());
  for (const ServiceOption& option : std::vector<ServiceOption>{
           {"client-address", "toa"}, {"gone-server", "reset"}, {"idle-timeout", "77"}}) {
    EXPECT_EQ(services().set_service_option(kWeb, option), absl::OkStatus()) << option.name;
  }
  const Service& service = published(kWeb);
  EXPECT_EQ(service.client_address, ClientAddress::toa);
  EXPECT_EQ(service.gone_server, GoneServer::reset);
  EXPECT_EQ(service.idle_timeout, 77U);
  must(services().set_service_option(kWeb, {"idle-timeout", "0"}));
  std::vector<std::string> listed;
  const ServiceListing listing = services().find(kWeb).value();
  for (const ServiceOption& option : listing.options) {
    listed.push_back(option.name + "=" + option.value);
  }
  EXPECT_THAT(listed, ElementsAre("client-address=toa", "gone-server=reset"));
}

TEST_F(ServicesExtensionsTest, client_address_that_the_protocol_cannot_carry_is_refused) {
  for (const Protocol protocol : {Protocol::tcp, Protocol::udp, Protocol::sctp}) {
    ServiceKey key = kWeb;
    key.protocol = protocol;
    must(services().add_service(spec_of(key)));
    const auto accepts = [&](const char* value) {
      return services().set_service_option(key, {"client-address", value}).ok();
    };
    EXPECT_EQ(accepts("toa"), protocol == Protocol::tcp);
    EXPECT_EQ(accepts("proxy"), protocol != Protocol::sctp);
    EXPECT_TRUE(accepts("hidden"));
  }
}

TEST_F(ServicesExtensionsTest, a_returning_server_takes_up_its_weight_bit_by_bit) {
  must(services().add_service(spec_of(kWeb)));
  must(services().set_service_option(kWeb, {"slow-start", "100"}));
  ServerSpec server = test::server_spec("10.2.0.1", 8080, ForwardMode::nat, 1000);
  must(services().add_server(kWeb, server));
  EXPECT_EQ(published("10.2.0.1").weight, 1);
  lab_.pass_seconds(50);
  lab_.settle();
  EXPECT_NEAR(published("10.2.0.1").weight, 500, 10);
  EXPECT_EQ(services().find(kWeb)->servers[0].spec.weight, 1000) << "what was asked for is listed";
  lab_.pass_seconds(51);
  lab_.settle();
  EXPECT_EQ(published("10.2.0.1").weight, 1000);
  server.weight = 0;
  must(services().edit_server(kWeb, server));
  EXPECT_EQ(published("10.2.0.1").weight, 0);
  server.weight = 1000;
  must(services().edit_server(kWeb, server));
  EXPECT_EQ(published("10.2.0.1").weight, 1);
  server.weight = 10;
  must(services().edit_server(kWeb, server));
  lab_.pass_seconds(101);
  lab_.settle();
  EXPECT_EQ(published("10.2.0.1").weight, 10);
}

TEST_F(ServicesExtensionsTest, options_survive_an_edit_and_end_with_the_service) {
  must(services().add_service(spec_of(kWeb)));
  must(services().set_service_option(kWeb, {"gone-server", "keep"}));
  must(services().edit_service(spec_of(kWeb, 60)));
  EXPECT_EQ(published(kWeb).gone_server, GoneServer::keep);
  must(services().delete_service(kWeb));
  must(services().add_service(spec_of(kWeb)));
  EXPECT_EQ(published(kWeb).gone_server, GoneServer::drop);
}

TEST_F(ServicesExtensionsTest, unknown_options_and_values_are_named) {
  must(services().add_service(spec_of(kWeb)));
  const auto refused = [&](const ServiceOption& option, StatusCode code, const char* named) {
    const absl::Status status = services().set_service_option(kWeb, option);
    EXPECT_EQ(status.code(), code) << option.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(named));
  };
  refused({"colour", "red"}, StatusCode::kNotFound, "client-address");
  refused({"client-address", "option"}, StatusCode::kInvalidArgument, "hidden, toa, proxy");
  refused({"idle-timeout", "-1"}, StatusCode::kInvalidArgument, "0 to 65535");
  refused({"idle-timeout", "65536"}, StatusCode::kInvalidArgument, "0 to 65535");
  EXPECT_EQ(services().set_service_option(kWeb6, {"idle-timeout", "1"}).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_THAT(services().find(kWeb)->options, IsEmpty());
}

// ---- Local addresses ----

TEST_F(ServicesExtensionsTest, fullnat_needs_local_addresses_of_the_servers_family) {
  must(services().add_service(spec_of(kWeb)));
  const ServerSpec v4 = server_spec("10.2.0.1", 8080, ForwardMode::fullnat);
  const ServerSpec v6 = server_spec("2001:db8:2::1", 8080, ForwardMode::fullnat);
  const absl::Status refused = services().add_server(kWeb, v4);
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("weirctl add local-address"));
  must(services().add_local_addresses(range("10.2.0.200-10.2.0.201"), std::nullopt));
  EXPECT_EQ(services().add_server(kWeb, v4), absl::OkStatus());
  EXPECT_EQ(services().add_server(kWeb, v6).code(), StatusCode::kResourceExhausted);
  must(services().add_local_addresses(range("2001:db8:2::200"), kWeb));
  EXPECT_EQ(services().add_server(kWeb, v6), absl::OkStatus());

  const LocalAddresses& pool = *published(kWeb).local_addresses;
  EXPECT_EQ(pool.ipv4.size(), 2U);
  EXPECT_EQ(pool.ipv6.size(), 1U);
  EXPECT_EQ(published("10.2.0.1").mode, ForwardMode::fullnat);
  EXPECT_EQ(services().find(kWeb)->servers[1].spec.port, 8080);

  // From another mode as well.
  must(services().add_service(spec_of(kWeb6)));
  ServerSpec nat = server_spec("2001:db8:2::7", 80, ForwardMode::nat);
  must(services().add_server(kWeb6, nat));
  nat.mode = ForwardMode::fullnat;
  EXPECT_EQ(services().edit_server(kWeb6, nat).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(services().find(kWeb6)->servers[0].spec.mode, ForwardMode::nat);
}

TEST_F(ServicesExtensionsTest, the_last_local_address_of_a_fullnat_server_stays) {
  must(services().add_service(spec_of(kWeb)));
  must(services().add_local_addresses(range("10.2.0.200"), std::nullopt));
  must(services().add_server(kWeb, server_spec("10.2.0.1", 80, ForwardMode::fullnat)));
  EXPECT_EQ(services().delete_local_addresses(range("10.2.0.200"), std::nullopt).code(),
            StatusCode::kFailedPrecondition);
  must(services().add_local_addresses(range("10.2.0.201"), kWeb));
  EXPECT_EQ(services().delete_local_addresses(range("10.2.0.200"), std::nullopt), absl::OkStatus());
  EXPECT_EQ(services().delete_local_addresses(range("10.2.0.201"), kWeb).code(),
            StatusCode::kFailedPrecondition);
  EXPECT_EQ(published(kWeb).local_addresses->ipv4.size(), 1U);
  EXPECT_EQ(services().delete_local_addresses(range("10.2.0.9"), kWeb).code(),
            StatusCode::kNotFound);
  EXPECT_EQ(services().add_local_addresses(range("10.2.0.9"), kWeb6).code(),
            StatusCode::kFailedPrecondition);
}

TEST_F(ServicesExtensionsTest, replies_of_fullnat_servers_are_those_to_local_addresses) {
  must(services().add_service(spec_of(kWeb)));
  must(services().add_local_addresses(range("10.2.0.200"), kWeb));
  must(services().add_server(kWeb, server_spec("10.2.0.1", 8080, ForwardMode::fullnat)));
  EXPECT_TRUE(is_reply({"10.2.0.1", 8080, "10.2.0.200", 1024}));
  EXPECT_FALSE(is_reply({"10.2.0.1", 8080, "10.2.0.200", 1023}));
  EXPECT_FALSE(is_reply({"10.2.0.1", 8080, "10.1.0.1", 5000}));
  EXPECT_THAT(services().steered_servers(), IsEmpty());
  EXPECT_THAT(texts(services().steered_fullnat_servers()), ElementsAre("6 10.2.0.1 8080"));
  EXPECT_THAT(texts(services().steered_local_addresses()), ElementsAre("10.2.0.200"));
}

TEST_F(ServicesExtensionsTest, an_address_taken_away_stays_ours_while_a_connection_has_it) {
  must(services().add_service(spec_of(kWeb)));
  must(services().add_local_addresses(range("10.2.0.200-10.2.0.202"), std::nullopt));
  must(services().add_server(kWeb, server_spec("10.2.0.1", 8080, ForwardMode::fullnat)));
  Connection<Ipv4Address> connection{};
  connection.client = address_of("10.1.0.1").ipv4();
  connection.virtual_address = address_of("10.9.0.1").ipv4();
  connection.server = address_of("10.2.0.1").ipv4();
  connection.local = address_of("10.2.0.201").ipv4();
  connection.local_port = Be16::from_host(5000);
  connection.protocol = Protocol::tcp;
  connection.flags = static_cast<std::uint16_t>(ForwardMode::fullnat) | kReplyIndexed;
  connection.deadline = lab_.worker().now + 1000 * kTicksPerSecond;
  const auto index = lab_.worker().ipv4.open(connection);
  ASSERT_TRUE(index);

  must(services().add_local_addresses(range("10.2.0.210"), std::nullopt));
  must(services().delete_local_addresses(range("10.2.0.200-10.2.0.202"), std::nullopt));
  EXPECT_THAT(services().local_addresses(), testing::SizeIs(1));
  EXPECT_EQ(services().steered_local_addresses().size(), 4U) << "not looked at yet";
  settle_for_long();
  EXPECT_THAT(texts(services().steered_local_addresses()),
              UnorderedElementsAre("10.2.0.210", "10.2.0.201"));
  EXPECT_TRUE(is_reply({"10.2.0.1", 8080, "10.2.0.201", 5000}));
  EXPECT_FALSE(is_reply({"10.2.0.1", 8080, "10.2.0.200", 5000}));
  lab_.worker().ipv4.close(*index);
  settle_for_long();
  EXPECT_THAT(texts(services().steered_local_addresses()), ElementsAre("10.2.0.210"));
  EXPECT_FALSE(is_reply({"10.2.0.1", 8080, "10.2.0.201", 5000}));
}

TEST_F(ServicesExtensionsTest, a_services_own_addresses_go_with_it) {
  must(services().add_service(spec_of(kWeb)));
  must(services().add_local_addresses(range("10.2.0.200"), kWeb));
  must(services().flush());
  EXPECT_THAT(services().local_addresses(), IsEmpty());
  settle_for_long();
  EXPECT_THAT(services().steered_local_addresses(), IsEmpty());
}

TEST_F(ServicesExtensionsTest, listings_tell_which_local_addresses_are_not_the_hosts) {
  lab_.own(address_of("10.2.0.200"));
  must(services().add_local_addresses(range("10.2.0.200-10.2.0.203"), std::nullopt));
  const auto listed = services().local_addresses();
  ASSERT_EQ(listed.size(), 1U);
  EXPECT_EQ(listed[0].count, 4U);
  EXPECT_EQ(listed[0].not_owned, 3U);
}

TEST_F(ServicesExtensionsTest, an_address_is_not_both_a_services_high_port_and_local) {
  const ServiceKey high = service_key(Protocol::tcp, "10.9.0.1", 8080);
  must(services().add_service(spec_of(kWeb)));
  EXPECT_EQ(services().add_local_addresses(range("10.9.0.1"), std::nullopt), absl::OkStatus())
      << "port 80 is none of fullnat's";
  EXPECT_EQ(services().add_service(spec_of(high)).code(), StatusCode::kFailedPrecondition);
  must(services().delete_local_addresses(range("10.9.0.1"), std::nullopt));
  must(services().add_service(spec_of(high)));
  EXPECT_EQ(services().add_local_addresses(range("10.9.0.0/30"), kWeb).code(),
            StatusCode::kFailedPrecondition);
}

// ---- Marks ----

MarkRuleSpec rule_to(const std::string& prefix, std::uint32_t mark) {
  MarkRuleSpec spec;
  spec.rule.to = parse_prefix(prefix).value();
  spec.rule.mark = mark;
  return spec;
}

std::vector<std::uint32_t> marks_of(const LabServices& services) {
  std::vector<std::uint32_t> marks;
  for (const MarkRuleSpec& spec : services.mark_rules()) marks.push_back(spec.rule.mark);
  return marks;
}

TEST_F(ServicesExtensionsTest, rules_are_kept_in_the_order_in_which_they_decide) {
  must(services().add_mark_rule(rule_to("203.0.113.0/24", 1), std::nullopt));
  must(services().add_mark_rule(rule_to("203.0.113.0/24", 2), std::nullopt));
  must(services().add_mark_rule(rule_to("203.0.113.0/24", 3), 1));
  must(services().add_mark_rule(rule_to("203.0.113.0/24", 4), 3));
  EXPECT_THAT(marks_of(services()), ElementsAre(3, 1, 4, 2));
  EXPECT_EQ(services().add_mark_rule(rule_to("203.0.113.0/24", 5), 6).code(),
            StatusCode::kInvalidArgument);
  const FlowKey<Ipv4Address> key{address_of("10.1.0.1").ipv4(),
                                 address_of("203.0.113.9").ipv4(),
                                 Be16{},
                                 Be16{},
                                 Protocol::tcp,
                                 Direction::inbound};
  EXPECT_EQ(lab_.snapshot().marks->mark_of(key, 0), 3U);
  must(services().delete_mark_rule(1));
  EXPECT_EQ(lab_.snapshot().marks->mark_of(key, 0), 1U);
  EXPECT_EQ(services().delete_mark_rule(4).code(), StatusCode::kNotFound);
  EXPECT_EQ(services().delete_mark_rule(0).code(), StatusCode::kNotFound);
  EXPECT_THAT(marks_of(services()), ElementsAre(1, 4, 2));
}

TEST_F(ServicesExtensionsTest, impossible_rules_are_refused) {
  services().set_ports({"eth1", "0000:3b:00.0"}, 2);
  MarkRuleSpec mixed = rule_to("203.0.113.0/24", 1);
  mixed.rule.from = parse_prefix("2001:db8::/32");
  EXPECT_EQ(services().add_mark_rule(mixed, std::nullopt).code(), StatusCode::kInvalidArgument);
  MarkRuleSpec ping = rule_to("203.0.113.0/24", 1);
  ping.rule.protocol = Protocol::icmp;
  EXPECT_EQ(services().add_mark_rule(ping, std::nullopt).code(), StatusCode::kInvalidArgument);
  MarkRuleSpec elsewhere = rule_to("203.0.113.0/24", 1);
  elsewhere.on = "eth9";
  EXPECT_EQ(services().add_mark_rule(elsewhere, std::nullopt).code(), StatusCode::kInvalidArgument);
  elsewhere.on = "0000:3b:00.0";
  must(services().add_mark_rule(elsewhere, std::nullopt));
  EXPECT_EQ(services().mark_rules()[0].rule.on_port, 1);
  must(services().add_mark_rule(rule_to("203.0.113.0/24", 1), std::nullopt));
  EXPECT_EQ(services().add_mark_rule(rule_to("203.0.113.0/24", 1), std::nullopt).code(),
            StatusCode::kResourceExhausted);
}

TEST_F(ServicesExtensionsTest, a_mark_is_steered_while_a_service_of_the_family_has_it) {
  must(services().add_mark_rule(rule_to("203.0.113.0/24", 7), std::nullopt));
  MarkRuleSpec both;
  both.rule.mark = 7;
  must(services().add_mark_rule(both, std::nullopt));
  must(services().add_mark_rule(rule_to("203.0.113.0/24", 8), std::nullopt));
  const auto steered = [&] {
    std::string text;
    for (const SteeringRule& rule : services().steered_mark_rules()) {
      text += rule.ipv4 ? "4" : "-";
      text += rule.ipv6 ? "6" : "-";
      text += " ";
    }
    return text;
  };
  EXPECT_EQ(steered(), "-- -- -- ");
  must(services().add_service(spec_of(kMark7)));
  EXPECT_EQ(steered(), "4- 4- -- ");
  ServiceKey six = kMark7;
  six.address = IpAddress(Ipv6Address{});
  must(services().add_service(spec_of(six)));
  EXPECT_EQ(steered(), "46 46 -- ");
}

TEST_F(ServicesExtensionsTest, a_fwmark_service_needs_no_address_of_this_host) {
  must(services().add_service(spec_of(kMark7)));
  EXPECT_TRUE(services().find(kMark7)->address_is_local);
  EXPECT_EQ(service_of({"10.1.0.1", 1, "203.0.113.9", 80}, 7), kMark7);
  EXPECT_EQ(service_of({"10.1.0.1", 1, "203.0.113.9", 80}, 8), std::nullopt);
  EXPECT_THAT(services().steered_services(), IsEmpty());
}

TEST_F(ServicesExtensionsTest, a_rule_for_everything_takes_no_replies_from_its_own_service) {
  must(services().add_service(spec_of(kMark7)));
  must(services().add_server(kMark7, server_spec("10.2.0.1", 8080, ForwardMode::nat)));
  MarkRuleSpec everything;
  everything.rule.mark = 7;
  must(services().add_mark_rule(everything, std::nullopt));
  const Bytes syn = client_tcp({"10.1.0.1", 5000, "203.0.113.9", 80}, TcpHeader::kSyn);
  const Forwarded sent = lab_.send(syn);
  ASSERT_EQ(sent.outcome, Outcome::nat_to_server);
  EXPECT_EQ(decode(sent.bytes).flow.destination, "10.2.0.1");
  const Bytes answer =
      server_tcp({"10.2.0.1", 8080, "10.1.0.1", 5000}, TcpHeader::kSyn | TcpHeader::kAck);
  const Forwarded reply = lab_.send(answer, 1);
  ASSERT_EQ(reply.outcome, Outcome::nat_to_client);
  EXPECT_EQ(decode(reply.bytes).flow.source, "203.0.113.9");
  EXPECT_EQ(decode(reply.bytes).flow.source_port, 80);
  must(services().delete_mark_rule(1));
  EXPECT_EQ(lab_.send(client_tcp({"10.1.0.1", 5001, "203.0.113.9", 80}, TcpHeader::kSyn)).outcome,
            Outcome::kernel_not_a_service);
}

// ---- Where replies come from ----

TEST_F(ServicesExtensionsTest, replies_come_from_the_ports_that_connections_can_have) {
  const ServiceKey all = service_key(Protocol::tcp, "10.9.0.1", 0);
  const ServiceKey ftp = service_key(Protocol::tcp, "10.9.0.1", 21);
  must(services().add_service(spec_of(all, 60)));
  must(services().add_server(all, server_spec("10.2.0.1", 0, ForwardMode::nat)));
  must(services().add_service(spec_of(kWeb)));
  must(services().add_server(kWeb, server_spec("10.2.0.2", 0, ForwardMode::nat)));
  must(services().add_service(spec_of(kMark7)));
  must(services().add_server(kMark7, server_spec("10.2.0.3", 0, ForwardMode::nat)));
  must(services().add_server(kMark7, server_spec("10.2.0.4", 8080, ForwardMode::nat)));
  must(services().add_service(spec_of(ftp, 60)));
  must(services().add_server(ftp, server_spec("10.2.0.5", 21, ForwardMode::dr)));
  EXPECT_THAT(texts(services().steered_servers()),
              UnorderedElementsAre("6 10.2.0.1 0", "6 10.2.0.2 80", "6 10.2.0.3 0", "17 10.2.0.3 0",
                                   "132 10.2.0.3 0", "6 10.2.0.4 8080", "17 10.2.0.4 8080",
                                   "132 10.2.0.4 8080"));
  EXPECT_TRUE(is_reply({"10.2.0.1", 22, "10.1.0.1", 5000}));
  EXPECT_TRUE(is_reply({"10.2.0.3", 22, "10.1.0.1", 5000}, Protocol::sctp));
  EXPECT_FALSE(is_reply({"10.2.0.2", 22, "10.1.0.1", 5000}));
  EXPECT_FALSE(is_reply({"10.2.0.4", 22, "10.1.0.1", 5000}));
  EXPECT_FALSE(is_reply({"10.2.0.5", 21, "10.1.0.1", 5000}));
  EXPECT_THAT(texts(services().steered_ftp_addresses()), ElementsAre("10.9.0.1"));

  EXPECT_EQ(service_of({"10.1.0.1", 1, "10.9.0.1", 20}), ftp);
  EXPECT_EQ(service_of({"10.1.0.1", 1, "10.9.0.1", 2000}), ftp);
  EXPECT_EQ(service_of({"10.1.0.1", 1, "10.9.0.1", 22}), all);
  EXPECT_EQ(service_of({"10.1.0.1", 1, "10.9.0.1", 80}), kWeb);

  // Connections to other ports remain when a fwmark service is no longer persistent.
  must(services().edit_service(spec_of(kMark7, 60)));
  EXPECT_TRUE(is_reply({"10.2.0.4", 22, "10.1.0.1", 5000}));
  must(services().edit_service(spec_of(kMark7)));
  EXPECT_TRUE(is_reply({"10.2.0.4", 22, "10.1.0.1", 5000}));
}

// ---- What of IPVS the workers see ----

TEST_F(ServicesExtensionsTest, the_mask_of_clients_that_count_as_one) {
  const auto mask_of = [&](const ServiceKey& key, std::uint32_t mask) {
    ServiceSpec spec = spec_of(key, 60);
    spec.persistence_mask = mask;
    must(services().add_service(spec));
    const auto bytes = published(key).persistence.mask;
    EXPECT_EQ(published(key).persistence.timeout, 60U);
    must(services().delete_service(key));
    lab_.settle();
    lab_.settle();
    return IpAddress(Ipv6Address{bytes}).to_string();
  };
  EXPECT_EQ(mask_of(kWeb, kEachClientAlone).substr(0, 10), "ffff:ffff:");
  EXPECT_EQ(mask_of(kWeb, 0xffffff00), "ffff:ff00::");
  EXPECT_EQ(mask_of(kWeb, 0xff00ff00), "ff00:ff00::");
  EXPECT_EQ(mask_of(kWeb, 0), "::");
  EXPECT_EQ(mask_of(kWeb6, kEachClientAlone), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
  EXPECT_EQ(mask_of(kWeb6, 64), "ffff:ffff:ffff:ffff::");
  EXPECT_EQ(mask_of(kWeb6, 1), "8000::");
}

TEST_F(ServicesExtensionsTest, a_real_server_on_the_director_is_local_whatever_its_mode) {
  must(services().add_service(spec_of(kWeb)));
  must(services().add_server(kWeb, server_spec("127.0.0.1", 8080, ForwardMode::nat)));
  must(services().add_server(kWeb, server_spec("10.2.0.7", 80, ForwardMode::dr)));
  EXPECT_EQ(published("127.0.0.1").mode, ForwardMode::local);
  EXPECT_EQ(published("10.2.0.7").mode, ForwardMode::dr);
  lab_.own(address_of("10.2.0.7"));
  EXPECT_EQ(published("10.2.0.7").mode, ForwardMode::local);
  const ServerListing listed = services().find(kWeb)->servers[0];
  EXPECT_TRUE(listed.is_local);
  EXPECT_EQ(listed.spec.mode, ForwardMode::dr) << "as configured, for ipvsadm -S";
  lab_.disown(address_of("10.2.0.7"));
  EXPECT_EQ(published("10.2.0.7").mode, ForwardMode::dr);
}

TEST_F(ServicesExtensionsTest, thresholds_reach_the_workers_and_count_at_once_when_changed) {
  must(services().add_service(spec_of(kWeb)));
  ServerSpec spec = server_spec("10.2.0.1", 8080, ForwardMode::nat);
  must(services().add_server(kWeb, spec));
  for (std::uint16_t port = 5001; port <= 5004; ++port) {
    ASSERT_EQ(lab_.send(client_tcp({"10.1.0.1", port, "10.9.0.1", 80}, TcpHeader::kSyn)).outcome,
              Outcome::nat_to_server);
  }
  const auto overloaded = [&] {
    return (*lab_.snapshot().shared)[published("10.2.0.1").slot].overloaded.load();
  };
  const auto change = [&](std::uint32_t upper, std::uint32_t lower) {
    spec.upper_threshold = upper;
    spec.lower_threshold = lower;
    must(services().edit_server(kWeb, spec));
  };
  EXPECT_FALSE(overloaded());
  change(4, 2);
  EXPECT_EQ(published("10.2.0.1").upper_threshold, 4U);
  EXPECT_EQ(published("10.2.0.1").lower_threshold, 2U);
  EXPECT_TRUE(overloaded());
  change(5, 2);
  EXPECT_TRUE(overloaded()) << "between the thresholds nothing changes";
  change(8, 5);
  EXPECT_FALSE(overloaded());
  change(5, 1);
  EXPECT_FALSE(overloaded());
  change(2, 1);
  EXPECT_TRUE(overloaded());
  change(0, 0);
  EXPECT_FALSE(overloaded());
}

}  // namespace
}  // namespace weir::test
