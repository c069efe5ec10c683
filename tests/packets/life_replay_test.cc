// SPDX-License-Identifier: Apache-2.0
// Replays what the kernel's IPVS did with one-packet scheduling and with thresholds.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

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
constexpr std::uint8_t kFin = TcpHeader::kFin | TcpHeader::kAck;

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

std::string server_address(std::int64_t number) { return "10.2.0." + std::to_string(number); }

std::vector<json::object> records_of(const std::string& name) {
  std::vector<json::object> records;
  for (json::object& record : read_json_lines("ipvs/life.jsonl")) {
    if (text(record.at("case")) == name) records.push_back(std::move(record));
  }
  return records;
}

bool is_built(const std::string& scheduler) {
  const auto names = scheduler_names();
  return std::find(names.begin(), names.end(), scheduler) != names.end();
}

json::array counts_of(BurstLab& lab, const ServiceKey& key) {
  std::vector<ServerListing> servers = lab.services().find(key).value().servers;
  std::reverse(servers.begin(), servers.end());
  json::array counts;
  for (const ServerListing& server : servers) {
    counts.push_back(json::array{server.active, server.inactive});
  }
  return counts;
}

void expect_counts(BurstLab& lab, const ServiceKey& key, const json::value& recorded) {
  EXPECT_EQ(json::serialize(counts_of(lab, key)), json::serialize(recorded));
}

// ---- One-packet scheduling ----

const ServiceKey kUdp = service_key(Protocol::udp, kVip, 53);

void set_up_datagrams(BurstLab& lab, const json::object& record) {
  ServiceSpec spec;
  spec.key = kUdp;
  spec.scheduler = text(record.at("sched"));
  spec.one_packet = record.at("one_packet").as_bool();
  must(lab.services().add_service(spec));
  std::int64_t number = 0;
  for (const json::value& weight : record.at("weights").as_array()) {
    must(lab.services().add_server(kUdp,
                                   server_spec(server_address(++number), 5353, ForwardMode::nat,
                                               weight.to_number<std::int32_t>())));
  }
}

std::set<std::string> listed(BurstLab& lab) {
  std::set<std::string> rows;
  ConnectionCursor cursor;
  lab.services().visit_connections(cursor, 1U << 20, [&](const ConnectionListing& row) {
    rows.insert(row.client.to_string() + ":" + std::to_string(row.client_port) + " " +
                row.virtual_address.to_string() + ":" + std::to_string(row.virtual_port) + " " +
                row.server.to_string() + ":" + std::to_string(row.server_port));
  });
  return rows;
}

std::set<std::string> recorded_rows(const json::array& connections) {
  std::set<std::string> rows;
  for (const json::value& row : connections) {
    rows.insert(text(row.at("client")) + " " + text(row.at("virtual")) + " " +
                text(row.at("dest")));
  }
  return rows;
}

// The kernel lets a reply without a connection pass as it is; weir gives it the virtual address.
void expect_reply(const Forwarded& got, const json::value& seen) {
  ASSERT_EQ(got.outcome, Outcome::nat_to_client) << name_of(got.outcome);
  EXPECT_EQ(got.port, 0);
  const Decoded out = decode(got.bytes);
  EXPECT_EQ(out.flow.source, kVip);
  EXPECT_EQ(out.flow.source_port, 53);
  EXPECT_EQ(out.flow.destination, text(seen.at("dst")));
  EXPECT_EQ(out.flow.destination_port, seen.at("udp").at("dport").to_number<std::uint16_t>());
}

void replay_datagrams(const json::object& record) {
  BurstLab lab;
  set_up_datagrams(lab, record);
  constexpr std::array<std::uint16_t, 2> kPorts = {35000, 35001};
  std::size_t sent = 0;
  std::int64_t server = 0;
  for (const json::value& chosen : record.at("dest").as_array()) {
    const Forwarded got = lab.send(client_udp({kClient, kPorts[sent++ % 2], kVip, 53}));
    ASSERT_EQ(got.outcome, Outcome::nat_to_server);
    server = decode(got.bytes).server;
    EXPECT_EQ(server, chosen.as_int64()) << sent;
    EXPECT_EQ(decode(got.bytes).flow.destination_port, 5353);
  }
  EXPECT_EQ(listed(lab), recorded_rows(record.at("conns").as_array()));
  expect_counts(lab, kUdp, record.at("counts"));
  const Bytes reply = server_udp({server_address(server), 5353, kClient, 35001});
  expect_reply(lab.send(reply, kServerSide), record.at("reply_seen_by_client").at(0));
  const Bytes other = server_udp({server_address(server), 4444, kClient, 35001});
  EXPECT_EQ(lab.send(other, kServerSide).outcome, Outcome::kernel_not_a_service);
  // Every datagram of a one-packet service counts as a connection.
  EXPECT_EQ(lab.services().find(kUdp)->totals.connections,
            record.at("one_packet").as_bool() ? sent : 2U);
}

TEST(LifeReplay, OnePacketScheduling) {
  std::size_t replayed = 0;
  std::size_t not_built = 0;
  for (const json::object& record : records_of("ops")) {
    SCOPED_TRACE(text(record.at("sched")) + " " + json::serialize(record.at("one_packet")));
    if (!is_built(text(record.at("sched")))) {
      ++not_built;
      continue;
    }
    replay_datagrams(record);
    ++replayed;
  }
  EXPECT_EQ(replayed, 12U);
  EXPECT_EQ(not_built, 0U);
}

// ---- Thresholds ----

const ServiceKey kTcp = service_key(Protocol::tcp, kVip, 80);

class Thresholds {
 public:
  Thresholds(const std::string& scheduler, const json::object& record, int servers) {
    add_service(lab_.services(), kTcp, scheduler);
    for (int number = 1; number <= servers; ++number) {
      ServerSpec spec = server_spec(server_address(number), 8080, ForwardMode::nat);
      spec.upper_threshold = record.at("u_threshold").to_number<std::uint32_t>();
      spec.lower_threshold = record.at("l_threshold").to_number<std::uint32_t>();
      must(lab_.services().add_server(kTcp, spec));
    }
    // What is over is gone soon.
    must(lab_.services().set_timeouts({.tcp = 0, .tcp_fin = 2, .udp = 0}));
  }

  BurstLab& lab() { return lab_; }

  std::int64_t open(std::uint16_t port) {
    const Forwarded got = of_client(port, TcpHeader::kSyn);
    if (got.outcome != Outcome::nat_to_server) {
      // The answer to the client, as recorded elsewhere for a service without servers.
      EXPECT_EQ(got.outcome, Outcome::icmp_error_sent);
      return 0;
    }
    const std::int64_t server = decode(got.bytes).server;
    servers_[port] = server;
    of_server(port, TcpHeader::kSyn | TcpHeader::kAck);
    of_client(port, TcpHeader::kAck);
    return server;
  }
  Forwarded of_client(std::uint16_t port, std::uint8_t flags) {
    return lab_.send(client_tcp({kClient, port, kVip, 80}, flags));
  }
  void of_server(std::uint16_t port, std::uint8_t flags) {
    const Flow flow = {server_address(servers_.at(port)), 8080, kClient, port};
    EXPECT_EQ(lab_.send(server_tcp(flow, flags), kServerSide).outcome, Outcome::nat_to_client);
  }
  std::int64_t server_of(std::uint16_t port) const { return servers_.at(port); }

 private:
  BurstLab lab_;
  std::map<std::uint16_t, std::int64_t> servers_;
};

void replay_threshold(const json::object& record) {
  Thresholds lab(text(record.at("sched")), record, 2);
  for (const json::value& event : record.at("events_op_sport_server_counts").as_array()) {
    SCOPED_TRACE(json::serialize(event));
    const auto port = event.at(1).to_number<std::uint16_t>();
    if (text(event.at(0)) == "open") {
      EXPECT_EQ(lab.open(port), event.at(2).as_int64());
    } else {
      ASSERT_EQ(text(event.at(0)), "close");
      EXPECT_EQ(lab.server_of(port), event.at(2).as_int64());
      lab.of_client(port, kFin);
      lab.of_server(port, kFin);
    }
    expect_counts(lab.lab(), kTcp, event.at(3));
  }
}

TEST(LifeReplay, Thresholds) {
  std::size_t replayed = 0;
  std::size_t not_built = 0;
  for (const json::object& record : records_of("threshold")) {
    SCOPED_TRACE(text(record.at("sched")) + " " + json::serialize(record.at("u_threshold")));
    if (!is_built(text(record.at("sched")))) {
      ++not_built;
      continue;
    }
    replay_threshold(record);
    ++replayed;
  }
  EXPECT_EQ(replayed, 14U);
  EXPECT_EQ(not_built, 0U);
}

void replay_hysteresis(const json::object& record) {
  Thresholds lab("rr", record, 1);
  for (const json::value& event : record.at("events").as_array()) {
    SCOPED_TRACE(json::serialize(event));
    if (event.is_string()) continue;  // a remark
    const std::string what = text(event.at(0));
    const auto port = event.at(1).to_number<std::uint16_t>();
    if (what == "open") {
      EXPECT_EQ(lab.open(port), event.at(2).as_int64());
    } else if (what == "server FIN") {
      lab.of_server(port, kFin);
    } else {
      ASSERT_EQ(what, "expired");
      lab.lab().pass_seconds(3);
    }
    expect_counts(lab.lab(), kTcp, event.at(3));
  }
}

TEST(LifeReplay, AServerOpensAgainBelowItsLowerThreshold) {
  const auto records = records_of("threshold-hysteresis");
  EXPECT_EQ(records.size(), 9U);
  for (const json::object& record : records) {
    SCOPED_TRACE(json::serialize(record.at("u_threshold")) + " " +
                 json::serialize(record.at("l_threshold")));
    replay_hysteresis(record);
  }
}

}  // namespace
}  // namespace weir::test
