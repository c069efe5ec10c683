// SPDX-License-Identifier: Apache-2.0
// Replays connections that the kernel's IPVS was recorded with: state, timer, counts and way of
// every packet; draining and deletion.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr const char* kClient = "10.1.0.1";
constexpr const char* kVip = "10.9.0.1";
constexpr std::uint16_t kServerSide = 1;

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

std::string server_address(std::int64_t number) { return "10.2.0." + std::to_string(number); }

// ---- The recorded director: two services, two real servers each ----

ForwardMode mode_of(const std::string& name) {
  if (name == "nat" || name == "-m") return ForwardMode::nat;
  if (name == "dr") return ForwardMode::dr;
  if (name == "tun") return ForwardMode::tun;
  throw std::runtime_error("a forwarding method that the recordings do not have");
}

const ServiceKey kTcp = service_key(Protocol::tcp, kVip, 80);
const ServiceKey kUdp = service_key(Protocol::udp, kVip, 53);

void set_up_services(BurstLab& lab, ForwardMode mode) {
  // As IPVS has it.
  must(lab.services().set_setting("udp_unanswered_timeout", "0"));
  for (const ServiceKey& key : {kTcp, kUdp}) {
    add_service(lab.services(), key);
    for (const int number : {1, 2}) {
      const std::uint16_t port = key == kTcp ? 8080 : 5353;
      must(lab.services().add_server(key, server_spec(server_address(number), port, mode)));
    }
  }
}

void apply_settings(BurstLab& lab, const json::object& settings) {
  for (const auto& [name, value] : settings) {
    must(lab.services().set_setting(std::string(name.data(), name.size()),
                                    std::to_string(value.to_number<std::uint32_t>())));
  }
}

// ---- What is compared ----

// Rows of `ipvsadm -Lnc`.
struct Row {
  std::string client;
  std::string state;
  std::string server;
  std::uint32_t seconds = 0;
};

std::vector<Row> listed(BurstLab& lab) {
  std::vector<Row> rows;
  ConnectionCursor cursor;
  lab.services().visit_connections(cursor, 1U << 20, [&](const ConnectionListing& connection) {
    rows.push_back({connection.client.to_string() + ":" + std::to_string(connection.client_port),
                    connection.state,
                    connection.server.to_string() + ":" + std::to_string(connection.server_port),
                    connection.expires});
  });
  return rows;
}

// The kernel's seconds are truncated, and real time passed before they were read.
constexpr std::uint32_t kTruncated = 1;
// The steps of the drain-delete record took a second more.
constexpr std::uint32_t kTruncatedAndLate = 2;

void expect_same_row(const Row& ours, const std::string& state, const json::value& seconds,
                     const std::string& server, std::uint32_t tolerance) {
  EXPECT_EQ(ours.state, state);
  EXPECT_EQ(ours.server, server);
  EXPECT_GE(ours.seconds, seconds.to_number<std::uint32_t>());
  EXPECT_LE(ours.seconds, seconds.to_number<std::uint32_t>() + tolerance);
}

// `recorded`: [[state, seconds left, server], ...] of one client port.
void expect_connections(BurstLab& lab, const std::string& client, const json::array& recorded) {
  std::vector<Row> ours = listed(lab);
  std::erase_if(ours, [&](const Row& row) { return row.client != client; });
  ASSERT_EQ(ours.size(), recorded.size());
  if (ours.empty()) return;
  const json::array& row = recorded.at(0).as_array();
  expect_same_row(ours[0], text(row.at(0)), row.at(1), text(row.at(2)), kTruncated);
}

// `recorded`: [[active, inactive], ...], in the order of addition.
void expect_counts(BurstLab& lab, const ServiceKey& key, const json::value& recorded) {
  const auto listing = lab.services().find(key);
  ASSERT_TRUE(listing.ok());
  auto servers = listing->servers;
  std::sort(servers.begin(), servers.end(), [](const ServerListing& a, const ServerListing& b) {
    return a.spec.address < b.spec.address;
  });
  json::array ours;
  for (const ServerListing& server : servers) {
    ours.push_back(json::array{server.active, server.inactive});
  }
  const auto as_text = [](const json::value& value) { return json::serialize(value); };
  EXPECT_EQ(as_text(ours), as_text(recorded));
}

// ---- TCP sequences ----

const std::map<std::string, std::uint8_t> kFlags = {
    {"SYN", TcpHeader::kSyn},
    {"SYN+ACK", TcpHeader::kSyn | TcpHeader::kAck},
    {"SYN+FIN", TcpHeader::kSyn | TcpHeader::kFin},
    {"SYN+RST", TcpHeader::kSyn | TcpHeader::kRst},
    {"ACK", TcpHeader::kAck},
    {"data", TcpHeader::kAck | 0x08},
    {"FIN", TcpHeader::kFin | TcpHeader::kAck},
    {"RST", TcpHeader::kRst},
    {"no", 0},
};

// "client SYN, same port" is a packet of the client with SYN.
struct TcpStep {
  bool from_client = true;
  std::uint8_t flags = 0;
};

TcpStep tcp_step(const std::string& label) {
  const std::size_t space = label.find(' ');
  const std::string kind =
      label.substr(space + 1, label.find_first_of(" ,", space + 1) - space - 1);
  return {label.starts_with("client"), kFlags.at(kind)};
}

std::string flag_letters(std::uint8_t flags) {
  std::string letters;
  const std::string_view names = "FSRPAUEC";
  for (std::size_t bit = 0; bit < names.size(); ++bit) {
    if ((flags & (1U << bit)) != 0) letters += names[bit];
  }
  return letters;
}

// `seen`: {"to_server": [[number, flags], ...], "to_client": [flags, ...]}. What the client saw of
// its own packet is the answer of the kernel's stack.
void expect_seen(const Forwarded& got, const TcpStep& step, const json::object& seen) {
  const json::array& to_server = seen.at("to_server").as_array();
  if (step.from_client && to_server.empty()) {
    EXPECT_TRUE(is_for_kernel(got.outcome)) << name_of(got.outcome);
    return;
  }
  ASSERT_TRUE(is_forwarded(got.outcome)) << name_of(got.outcome);
  const Decoded out = decode(got.bytes);
  if (step.from_client) {
    EXPECT_EQ(out.server, to_server.at(0).at(0).as_int64());
    EXPECT_EQ(flag_letters(out.tcp_flags), text(to_server.at(0).at(1)));
  } else {
    EXPECT_EQ(flag_letters(out.tcp_flags), text(seen.at("to_client").at(0)));
    EXPECT_EQ(out.flow.source, kVip);
    EXPECT_EQ(out.flow.source_port, 80);
  }
}

void replay_tcp(BurstLab& lab, std::uint16_t client_port, const json::array& rows) {
  const std::string client = std::string(kClient) + ":" + std::to_string(client_port);
  std::string server;
  for (const json::value& row : rows) {
    const std::string label = text(row.at(0));
    SCOPED_TRACE(label);
    const TcpStep step = tcp_step(label);
    const Forwarded got =
        step.from_client
            ? lab.send(client_tcp({kClient, client_port, kVip, 80}, step.flags))
            : lab.send(server_tcp({server, 8080, kClient, client_port}, step.flags), kServerSide);
    expect_seen(got, step, row.at(3).as_object());
    const json::array& connections = row.at(1).as_array();
    expect_connections(lab, client, connections);
    expect_counts(lab, kTcp, row.at(2));
    if (connections.empty()) continue;
    const std::string end = text(connections.at(0).at(2));
    server = end.substr(0, end.find(':'));
  }
}

TEST(TcpStatesReplay, SequencesInEveryMode) {
  constexpr std::uint16_t kPort = 40000;
  int replayed = 0;
  int secure_tcp = 0;  // the defence modes are not there yet
  for (const json::object& record : read_json_lines("ipvs/tcpstate.jsonl")) {
    if (record.at("case") != "tcp") continue;
    const json::object& settings = record.at("sysctls").as_object();
    if (settings.contains("secure_tcp")) {
      ++secure_tcp;
      continue;
    }
    SCOPED_TRACE(text(record.at("forward")) + " " + text(record.at("sequence")) + " " +
                 json::serialize(settings));
    BurstLab lab;
    set_up_services(lab, mode_of(text(record.at("forward"))));
    apply_settings(lab, settings);
    replay_tcp(lab, kPort, record.at("rows_packet_conns_counts_seen").as_array());
    ++replayed;
  }
  EXPECT_EQ(replayed, 49);
  EXPECT_EQ(secure_tcp, 2);
}

json::object record_of(const std::string& name) {
  for (const json::object& record : read_json_lines("ipvs/tcpstate.jsonl")) {
    if (text(record.at("case")) == name) return record;
  }
  throw std::runtime_error("no record " + name);
}

TEST(TcpStatesReplay, TimeoutsSetByTheUser) {
  const json::object record = record_of("tcp --set 77 33 11");
  BurstLab lab;
  set_up_services(lab, ForwardMode::nat);
  must(lab.services().set_timeouts({.tcp = 77, .tcp_fin = 33, .udp = 11}));
  replay_tcp(lab, 40000, record.at("server_close").as_array());
  replay_tcp(lab, 40001, record.at("client_close").as_array());
}

TEST(TcpStatesReplay, Udp) {
  constexpr std::uint16_t kPort = 41000;
  const json::object record = record_of("udp");
  BurstLab lab;
  set_up_services(lab, ForwardMode::nat);
  for (const json::value& row : record.at("rows_packet_conns_counts").as_array()) {
    const std::string label = text(row.at(0));
    SCOPED_TRACE(label);
    if (label == "client datagram") {
      EXPECT_EQ(lab.send(client_udp({kClient, kPort, kVip, 53})).outcome, Outcome::nat_to_server);
    } else if (label == "server datagram") {
      const Bytes reply = server_udp({server_address(2), 5353, kClient, kPort});
      EXPECT_EQ(lab.send(reply, kServerSide).outcome, Outcome::nat_to_client);
    } else if (label == "after ipvsadm --set 0 0 20") {
      must(lab.services().set_timeouts({.tcp = 0, .tcp_fin = 0, .udp = 20}));
    } else {
      ASSERT_TRUE(label.ends_with(" s later"));
      lab.pass_seconds(static_cast<unsigned>(std::stoul(label)));
    }
    expect_connections(lab, std::string(kClient) + ":" + std::to_string(kPort),
                       row.at(1).as_array());
    expect_counts(lab, kUdp, row.at(2));
  }
}

// ---- Draining, deletion, addition again ----

constexpr std::uint8_t kData = TcpHeader::kAck | 0x08;

Bytes tcp_of_client(std::uint16_t port, std::uint8_t flags) {
  return client_tcp({kClient, port, kVip, 80}, flags, flags == kData ? "data" : "");
}

Bytes udp_of_client(std::uint16_t port) { return client_udp({kClient, port, kVip, 53}); }

void set_weight_of_server2(LabServices& services, std::int32_t weight) {
  const std::string server = server_address(2);
  must(services.edit_server(kTcp, server_spec(server, 8080, ForwardMode::nat, weight)));
  must(services.edit_server(kUdp, server_spec(server, 5353, ForwardMode::nat, weight)));
}

void drain(LabServices& services) { set_weight_of_server2(services, 0); }

void delete_server2(LabServices& services) {
  must(services.delete_server(kTcp, address_of(server_address(2)), 8080));
  must(services.delete_server(kUdp, address_of(server_address(2)), 5353));
}

void add_server2(LabServices& services) {
  must(services.add_server(kTcp, server_spec(server_address(2), 8080, ForwardMode::nat)));
  must(services.add_server(kUdp, server_spec(server_address(2), 5353, ForwardMode::nat)));
}

void delete_services(LabServices& services) {
  must(services.delete_service(kTcp));
  must(services.delete_service(kUdp));
}

void create_again(LabServices& services) {
  add_service(services, kTcp);
  must(services.add_server(kTcp, server_spec(server_address(3), 8080, ForwardMode::nat)));
}

struct DrainStep {
  const char* label;
  void (*before)(LabServices&);  // what the operator did, if anything
  Bytes frame;
  std::uint16_t port = 0;
};

const std::vector<DrainStep>& drain_steps() {
  static const std::vector<DrainStep> steps = {
      {"tcp SYN 37000", nullptr, tcp_of_client(37000, TcpHeader::kSyn)},
      {"tcp data", nullptr, tcp_of_client(37000, kData)},
      {"udp 38000", nullptr, udp_of_client(38000)},
      {"tcp data after weight 0", drain, tcp_of_client(37000, kData)},
      {"udp 38000 after weight 0", nullptr, udp_of_client(38000)},
      {"tcp new SYN 37001", nullptr, tcp_of_client(37001, TcpHeader::kSyn)},
      {"udp new 38001", nullptr, udp_of_client(38001)},
      {"tcp data after delete", delete_server2, tcp_of_client(37000, kData)},
      {"tcp data after delete, 2nd", nullptr, tcp_of_client(37000, kData)},
      {"udp 38000 after delete", nullptr, udp_of_client(38000)},
      {"udp 38000 after delete, 2nd", nullptr, udp_of_client(38000)},
      {"server->client data of the deleted server", nullptr,
       server_tcp({server_address(2), 8080, kClient, 37000}, kData, "data"), kServerSide},
      {"tcp SYN 37000 again (same tuple) after delete", nullptr,
       tcp_of_client(37000, TcpHeader::kSyn)},
      {"tcp data after re-adding the server", add_server2, tcp_of_client(37000, kData)},
      {"udp 38000 after re-adding", nullptr, udp_of_client(38000)},
      {"tcp data after deleting the service", delete_services, tcp_of_client(37001, kData)},
      {"udp 38001 after deleting the service", nullptr, udp_of_client(38001)},
      {"new SYN after deleting the service", nullptr, tcp_of_client(37009, TcpHeader::kSyn)},
      {"new udp after deleting the service", nullptr, udp_of_client(38009)},
      {"tcp data 37001 after re-creating the service with another server", create_again,
       tcp_of_client(37001, kData)},
  };
  return steps;
}

// With the last service gone the kernel's IPVS stops looking at packets, so that its stack answers
// those of connections that still exist. weir goes on dropping them, as both do while any other
// service is left.
bool kernel_had_no_service_left(const std::string& label, bool expire_nodest_conn) {
  return !expire_nodest_conn && (label == "tcp data after deleting the service" ||
                                 label == "udp 38001 after deleting the service");
}

void expect_drained(const Forwarded& got, const json::object& result) {
  const json::array& to_server = result.at("to_server").as_array();
  const json::array& to_client = result.at("to_client").as_array();
  if (!to_server.empty()) {
    EXPECT_EQ(got.outcome, Outcome::nat_to_server) << name_of(got.outcome);
    EXPECT_EQ(decode(got.bytes).server, result.at("server").as_int64());
  } else if (to_client.empty()) {
    EXPECT_EQ(got.outcome, Outcome::drop_server_removed) << name_of(got.outcome);
  } else if (got.port == kServerSide || to_client.at(0).at("src") != kVip) {
    EXPECT_TRUE(is_for_kernel(got.outcome)) << name_of(got.outcome);
  } else if (got.outcome == Outcome::nat_to_client) {
    EXPECT_EQ(decode(got.bytes).flow.source, text(to_client.at(0).at("src")));
  } else {
    EXPECT_TRUE(is_for_kernel(got.outcome)) << name_of(got.outcome);
  }
}

// `recorded`: [[protocol, client, server, state, seconds left], ...].
void expect_listed(BurstLab& lab, const json::array& recorded) {
  const std::vector<Row> ours = listed(lab);
  EXPECT_EQ(ours.size(), recorded.size());
  for (const json::value& row : recorded) {
    const std::string client = text(row.at(1));
    const auto same = std::find_if(
        ours.begin(), ours.end(), [&](const Row& candidate) { return candidate.client == client; });
    ASSERT_NE(same, ours.end()) << client;
    expect_same_row(*same, text(row.at(3)), row.at(4), text(row.at(2)), kTruncatedAndLate);
  }
}

void replay_drain(const json::object& record) {
  const bool expire = record.at("expire_nodest_conn") == 1;
  BurstLab lab;
  set_up_services(lab, mode_of(text(record.at("forward"))));
  must(lab.services().set_setting("expire_nodest_conn", expire ? "1" : "0"));
  auto step = drain_steps().begin();
  for (const json::value& event : record.at("events_label_result_conns").as_array()) {
    const std::string label = text(event.at(0));
    SCOPED_TRACE(label);
    if (label == "counts") {
      expect_counts(lab, kUdp, event.at(1));
      expect_counts(lab, kTcp, event.at(2));
      continue;
    }
    ASSERT_NE(step, drain_steps().end());
    ASSERT_EQ(step->label, label);
    if (step->before != nullptr) step->before(lab.services());
    lab.look_after_gone_servers();
    const Forwarded got = lab.send(step->frame, step->port);
    if (kernel_had_no_service_left(label, expire)) {
      EXPECT_EQ(got.outcome, Outcome::drop_server_removed) << name_of(got.outcome);
    } else {
      expect_drained(got, event.at(1).as_object());
    }
    expect_listed(lab, event.at(2).as_array());
    ++step;
  }
  EXPECT_EQ(step, drain_steps().end());
}

TEST(LifeReplay, DrainAndDelete) {
  int replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/life.jsonl")) {
    if (record.at("case") != "drain-delete") continue;
    SCOPED_TRACE(json::serialize(record.at("expire_nodest_conn")));
    replay_drain(record);
    ++replayed;
  }
  EXPECT_EQ(replayed, 2);
}

}  // namespace
}  // namespace weir::test
