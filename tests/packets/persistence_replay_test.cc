// SPDX-License-Identifier: Apache-2.0
// Replays what the kernel's IPVS did for persistent services and those of a firewall mark: who got
// which connection, the counts, and every connection and template that was listed.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>
#include <sstream>
#include <tuple>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr const char* kVip = "10.9.0.1";
constexpr std::uint16_t kServerSide = 1;
constexpr std::uint8_t kData = TcpHeader::kAck | 0x08;

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

std::uint16_t port_in(const json::value& value) { return value.to_number<std::uint16_t>(); }

std::vector<json::object> records_of(const std::string& name) {
  std::vector<json::object> records;
  for (json::object& record : read_json_lines("ipvs/persist.jsonl")) {
    if (text(record.at("case")) == name) records.push_back(std::move(record));
  }
  return records;
}

// ---- The recorded director ----

// The mask as `ipvsadm -M` takes it; nothing: without -M.
ServiceSpec persistent(const ServiceKey& key, const std::string& scheduler, std::uint32_t timeout,
                       const std::optional<std::string>& mask = std::nullopt) {
  ServiceSpec spec;
  spec.key = key;
  spec.scheduler = scheduler;
  spec.persistence_timeout = timeout;
  if (mask && key.address.is_ipv4()) {
    spec.persistence_mask = address_of(*mask).ipv4().value.host();
  } else if (mask) {
    spec.persistence_mask = static_cast<std::uint32_t>(std::stoul(*mask));
  }
  return spec;
}

void add_servers(BurstLab& lab, const ServiceKey& key, std::uint16_t port,
                 std::initializer_list<int> weights = {1, 1, 1}) {
  const std::string network = key.address.is_ipv4() ? "10.2.0." : "2001:db8:2::";
  int number = 0;
  for (const int weight : weights) {
    must(lab.services().add_server(
        key, server_spec(network + std::to_string(++number), port, ForwardMode::nat, weight)));
  }
}

// ---- Packets: who got it, and at which port ----

struct Chosen {
  unsigned server = 0;
  std::uint16_t port = 0;
};

Chosen send_of_client(BurstLab& lab, const Flow& flow, std::uint8_t flags) {
  const Forwarded got = lab.deliver(client_tcp(flow, flags));
  if (got.outcome != Outcome::nat_to_server) return {};
  const Decoded out = decode(got.bytes);
  return {out.server, out.flow.destination_port};
}

// The whole handshake.
unsigned connect(BurstLab& lab, const Flow& flow) {
  const Chosen chosen = send_of_client(lab, flow, TcpHeader::kSyn);
  if (chosen.server == 0) return 0;
  const Flow back = {"10.2.0." + std::to_string(chosen.server), chosen.port, flow.source,
                     flow.source_port};
  lab.deliver(server_tcp(back, TcpHeader::kSyn | TcpHeader::kAck), kServerSide);
  EXPECT_EQ(send_of_client(lab, flow, TcpHeader::kAck).server, chosen.server);
  return chosen.server;
}

// ---- What is compared ----

// A row of `ipvsadm -Lnc`. The kernel's seconds are truncated, and real time passed before they
// were read, so they are not part of its identity.
struct Row {
  std::string protocol;
  std::string state;
  std::string client;
  std::string virtual_end;
  std::string server;
  std::uint32_t seconds = 0;

  auto identity() const { return std::tie(protocol, state, client, virtual_end, server); }
  friend bool operator<(const Row& a, const Row& b) { return a.identity() < b.identity(); }
};

std::string protocol_name(Protocol protocol) {
  switch (protocol) {
    case Protocol::tcp:
      return "TCP";
    case Protocol::udp:
      return "UDP";
    default:
      return "IP";
  }
}

std::string end_text(const IpAddress& address, std::uint16_t port) {
  const std::string text = address.to_string();
  return (address.is_ipv4() ? text : "[" + text + "]") + ":" + std::to_string(port);
}

std::vector<Row> listed(BurstLab& lab) {
  std::vector<Row> rows;
  ConnectionCursor cursor;
  lab.services().visit_connections(cursor, 1U << 20, [&](const ConnectionListing& row) {
    rows.push_back({protocol_name(row.protocol), row.state, end_text(row.client, row.client_port),
                    end_text(row.virtual_address, row.virtual_port),
                    end_text(row.server, row.server_port), row.expires});
  });
  std::sort(rows.begin(), rows.end());
  return rows;
}

std::vector<Row> recorded_rows(const json::array& connections) {
  std::vector<Row> rows;
  for (const json::value& row : connections) {
    rows.push_back({text(row.at("proto")), text(row.at("state")), text(row.at("client")),
                    text(row.at("virtual")), text(row.at("dest")),
                    row.at("expires").to_number<std::uint32_t>()});
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

// A second for the truncation, one for the time that the recording took.
void expect_same_rows(const std::vector<Row>& ours, const std::vector<Row>& recorded,
                      std::uint32_t tolerance = 2) {
  ASSERT_EQ(ours.size(), recorded.size());
  for (std::size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].identity(), recorded[i].identity());
    EXPECT_GE(ours[i].seconds, recorded[i].seconds) << ours[i].client;
    EXPECT_LE(ours[i].seconds, recorded[i].seconds + tolerance) << ours[i].client;
  }
}

// `recorded`: [[active, inactive], ...], in the order of addition.
void expect_counts(BurstLab& lab, const ServiceKey& key, const json::value& recorded) {
  std::vector<ServerListing> servers = lab.services().find(key).value().servers;
  std::reverse(servers.begin(), servers.end());
  json::array ours;
  for (const ServerListing& server : servers) {
    ours.push_back(json::array{server.active, server.inactive});
  }
  EXPECT_EQ(json::serialize(ours), json::serialize(recorded));
}

// ---- One service for one port ----

TEST(PersistenceReplay, OneServerForEachMaskedClient) {
  const auto records = records_of("tcp");
  EXPECT_EQ(records.size(), 4U);
  for (const json::object& record : records) {
    const std::string mask = text(record.at("netmask"));
    SCOPED_TRACE(mask);
    ASSERT_EQ(json::serialize(record.at("weights")), "[1,2,1]");
    BurstLab lab;
    const ServiceKey key = service_key(Protocol::tcp, kVip, 80);
    must(lab.services().add_service(
        persistent(key, text(record.at("sched")), 60,
                   mask == "default" ? std::nullopt : std::optional(mask))));
    add_servers(lab, key, 8080, {1, 2, 1});
    for (const json::value& row : record.at("assigned").as_array()) {
      EXPECT_EQ(connect(lab, {text(row.at(0)), port_in(row.at(1)), kVip, 80}),
                row.at(2).as_int64());
    }
    expect_counts(lab, key, record.at("counts"));
    std::vector<Row> templates = listed(lab);
    std::erase_if(templates, [](const Row& row) { return !row.client.ends_with(":0"); });
    expect_same_rows(templates, recorded_rows(record.at("templates").as_array()));
  }
}

// ---- All ports ----

TEST(PersistenceReplay, AServiceForAllPorts) {
  const auto records = records_of("port0");
  ASSERT_EQ(records.size(), 1U);
  const json::object& record = records[0];
  BurstLab lab;
  const ServiceKey key = service_key(Protocol::tcp, kVip, 0);
  must(lab.services().add_service(persistent(key, "rr", 60)));
  add_servers(lab, key, 0);
  for (const json::value& row : record.at("assigned_src_vport_server_rport").as_array()) {
    const std::uint16_t port = port_in(row.at(1));
    const auto client_port = static_cast<std::uint16_t>(port == 80    ? 31000
                                                        : port == 443 ? 31001
                                                                      : 31002);
    const Chosen chosen =
        send_of_client(lab, {text(row.at(0)), client_port, kVip, port}, TcpHeader::kSyn);
    EXPECT_EQ(chosen.server, row.at(2).as_int64());
    EXPECT_EQ(chosen.port, port_in(row.at(3)));
  }
  expect_same_rows(listed(lab), recorded_rows(record.at("conns").as_array()));
  expect_counts(lab, key, record.at("counts"));
}

// ---- Marks ----

ServiceSpec marked_service(const std::string& options) {
  const ServiceKey key{.protocol = Protocol::ip, .address = IpAddress(Ipv4Address{}), .fwmark = 7};
  ServiceSpec spec = persistent(key, "rr", 0);
  if (options.starts_with("-p 60")) spec.persistence_timeout = 60;
  if (options.ends_with("-M 255.255.255.0")) spec.persistence_mask = 0xffffff00U;
  return spec;
}

void mark_web(BurstLab& lab) {
  for (const std::uint16_t port : {std::uint16_t{80}, std::uint16_t{443}}) {
    MarkRuleSpec rule;
    rule.rule.to = IpPrefix{address_of("10.9.0.0"), 24};
    rule.rule.protocol = Protocol::tcp;
    rule.rule.ports = {port, port};
    rule.rule.mark = 7;
    must(lab.services().add_mark_rule(rule, std::nullopt));
  }
}

// The ports of the clients are in the listings only.
std::string client_port_of(const json::object& record, const json::array& assigned,
                           std::set<std::string>& used) {
  const std::string virtual_end = text(assigned[1]) + ":" + json::serialize(assigned[2]);
  const std::string server = "10.2.0." + json::serialize(assigned[3]) + ":";
  for (const Row& row : recorded_rows(record.at("conns").as_array())) {
    const bool fits = row.client.starts_with(text(assigned[0]) + ":") &&
                      row.virtual_end == virtual_end && row.server.starts_with(server);
    if (fits && used.insert(row.client + " " + virtual_end).second) {
      return row.client.substr(row.client.find(':') + 1);
    }
  }
  throw std::runtime_error("no connection listed for " + json::serialize(assigned));
}

TEST(PersistenceReplay, ServicesOfAMark) {
  const auto records = records_of("fwmark");
  EXPECT_EQ(records.size(), 3U);
  for (const json::object& record : records) {
    SCOPED_TRACE(json::serialize(record.at("opts")));
    BurstLab lab;
    const ServiceSpec service = marked_service(text(record.at("opts")));
    must(lab.services().add_service(service));
    add_servers(lab, service.key, 0);
    mark_web(lab);
    std::set<std::string> used;
    for (const json::value& row : record.at("assigned_src_vip_vport_server_rport").as_array()) {
      const json::array& assigned = row.as_array();
      const auto client_port =
          static_cast<std::uint16_t>(std::stoul(client_port_of(record, assigned, used)));
      const Chosen chosen = send_of_client(
          lab, {text(assigned[0]), client_port, text(assigned[1]), port_in(assigned[2])},
          TcpHeader::kSyn);
      EXPECT_EQ(chosen.server, assigned[3].as_int64());
      EXPECT_EQ(chosen.port, port_in(assigned[4]));
    }
    expect_same_rows(listed(lab), recorded_rows(record.at("conns").as_array()));
  }
}

// ---- Templates whose real server is drained or deleted ----

struct LifeStep {
  const char* label;
  void (*before)(LabServices&, const ServiceKey&);
  std::uint16_t port;
  bool opens;
};

void set_weight_of_server3(LabServices& services, const ServiceKey& key, std::int32_t weight) {
  must(services.edit_server(key, server_spec("10.2.0.3", 8080, ForwardMode::nat, weight)));
}

constexpr LifeStep kLifeSteps[] = {
    {"first", nullptr, 33000, true},
    {"data on open conn after weight 0",
     [](LabServices& s, const ServiceKey& k) { set_weight_of_server3(s, k, 0); }, 33000, false},
    {"new conn, same source, after weight 0", nullptr, 33001, true},
    {"data on open conn again", nullptr, 33000, false},
    {"new conn after weight back to 1",
     [](LabServices& s, const ServiceKey& k) { set_weight_of_server3(s, k, 1); }, 33002, true},
    {"data on open conn after its server is deleted", nullptr, 33002, false},
    {"new conn after delete", nullptr, 33003, true},
};

void replay_template_life(const json::object& record) {
  BurstLab lab;
  const ServiceKey key = service_key(Protocol::tcp, kVip, 80);
  must(lab.services().add_service(persistent(key, "rr", 60)));
  add_servers(lab, key, 8080);
  must(lab.services().set_setting("expire_quiescent_template",
                                  json::serialize(record.at("expire_quiescent_template"))));
  const json::array& events = record.at("events").as_array();
  ASSERT_EQ(events.size(), std::size(kLifeSteps));
  unsigned last_opened = 0;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const LifeStep& step = kLifeSteps[i];
    SCOPED_TRACE(step.label);
    ASSERT_EQ(text(events[i].at(0)), step.label);
    if (step.before != nullptr) step.before(lab.services(), key);
    if (std::string_view(step.label).ends_with("is deleted")) {
      const std::string server = "10.2.0." + std::to_string(last_opened);
      must(lab.services().delete_server(key, address_of(server), 8080));
    }
    const Flow flow = {"10.1.0.1", step.port, kVip, 80};
    const unsigned server =
        step.opens ? connect(lab, flow) : send_of_client(lab, flow, kData).server;
    EXPECT_EQ(server, events[i].at(1).as_int64());
    if (step.opens) last_opened = server;
  }
  expect_same_rows(listed(lab), recorded_rows(record.at("conns").as_array()));
}

TEST(PersistenceReplay, TemplatesOfServersThatAreDrainedOrDeleted) {
  const auto records = records_of("template-vs-drain/delete");
  EXPECT_EQ(records.size(), 2U);
  for (const json::object& record : records) {
    SCOPED_TRACE(json::serialize(record.at("expire_quiescent_template")));
    replay_template_life(record);
  }
}

// ---- Time ----

// `recorded`: [[client, state, seconds], ...].
void expect_timeline(BurstLab& lab, const json::array& recorded) {
  const std::vector<Row> ours = listed(lab);
  for (const json::value& row : recorded) {
    const auto seconds = row.at(2).to_number<std::uint32_t>();
    const auto same = std::find_if(ours.begin(), ours.end(), [&](const Row& candidate) {
      return candidate.client == text(row.at(0));
    });
    if (same == ours.end()) {
      // The kernel's timers run a little late.
      EXPECT_EQ(seconds, 0U) << json::serialize(row);
      continue;
    }
    EXPECT_EQ(same->state, text(row.at(1)));
    EXPECT_GE(same->seconds + 1, seconds) << json::serialize(row);
    EXPECT_LE(same->seconds, seconds + 2) << json::serialize(row);
  }
  for (const Row& row : ours) {
    const bool known = std::any_of(recorded.begin(), recorded.end(), [&](const json::value& other) {
      return text(other.at(0)) == row.client;
    });
    EXPECT_TRUE(known) << row.client;
  }
}

TEST(PersistenceReplay, HowLongTemplatesLast) {
  constexpr std::uint16_t kPort = 34000;
  const auto records = records_of("template-timeline");
  EXPECT_EQ(records.size(), 2U);
  for (const json::object& record : records) {
    BurstLab lab;
    const ServiceKey key = service_key(Protocol::udp, kVip, 53);
    must(lab.services().add_service(
        persistent(key, "rr", record.at("persist_timeout").to_number<std::uint32_t>())));
    add_servers(lab, key, 5353);
    must(lab.services().set_timeouts(
        {.tcp = 0, .tcp_fin = 0, .udp = record.at("udp_timeout").to_number<std::uint32_t>()}));
    ASSERT_EQ(lab.deliver(client_udp({"10.1.0.1", kPort, kVip, 53})).outcome,
              Outcome::nat_to_server);
    unsigned now = 0;
    for (const json::value& row : record.at("seconds_and_conns").as_array()) {
      const auto then = static_cast<unsigned>(row.at(0).to_number<double>());
      SCOPED_TRACE(then);
      lab.pass_seconds(then - now);
      now = then;
      expect_timeline(lab, row.at(1).as_array());
    }
    EXPECT_EQ(lab.worker().ipv4.size(), 0U);
  }
}

// ---- IPv6 ----

std::uint32_t seconds_of(const std::string& clock) {
  return static_cast<std::uint32_t>(std::stoul(clock) * 60 + std::stoul(clock.substr(3)));
}

// The text of `ipvsadm -Lnc`.
std::vector<Row> rows_of_text(const std::string& listing) {
  std::vector<Row> rows;
  std::istringstream lines(listing);
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  while (std::getline(lines, line)) {
    Row row;
    std::string clock;
    std::istringstream(line) >> row.protocol >> clock >> row.state >> row.client >>
        row.virtual_end >> row.server;
    row.seconds = seconds_of(clock);
    rows.push_back(row);
  }
  std::sort(rows.begin(), rows.end());
  return rows;
}

TEST(PersistenceReplay, Ipv6) {
  constexpr const char* kVip6 = "2001:db8:9::1";
  int replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/ip6.jsonl")) {
    if (record.at("case") != "persistence") continue;
    const std::string mask = text(record.at("mask"));
    SCOPED_TRACE(mask);
    BurstLab lab;
    const ServiceKey key = service_key(Protocol::tcp, kVip6, 80);
    must(lab.services().add_service(
        persistent(key, "rr", 60, mask == "default" ? std::nullopt : std::optional(mask))));
    add_servers(lab, key, 80);
    std::uint16_t client_port = 30000;
    for (const json::value& row : record.at("assigned").as_array()) {
      const Flow flow = {text(row.at(0)), client_port++, kVip6, 80};
      EXPECT_EQ(send_of_client(lab, flow, TcpHeader::kSyn).server, row.at(1).as_int64());
    }
    expect_same_rows(listed(lab), rows_of_text(text(record.at("Lnc"))));
    ++replayed;
  }
  EXPECT_EQ(replayed, 4);
}

}  // namespace
}  // namespace weir::test
