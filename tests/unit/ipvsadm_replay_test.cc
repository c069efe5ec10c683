// SPDX-License-Identifier: Apache-2.0
// Replays what the real ipvsadm printed (data/ipvs/cli.jsonl) through the client, the socket and a
// LiveModel: output, messages and exit codes byte for byte.
//
// Not replayed: the records `proc` (weir has no /proc) and `rate-estimator` (no command in it).
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "tests/support/api_lab.h"
#include "tests/support/fake_live_model.h"
#include "tests/support/ipvsadm_recordings.h"

namespace weir {
namespace {

TEST(IpvsadmReplay, CommandsOnATableThatBeginsEmptyPrintWhatIpvsadmPrinted) {
  FakeLiveModel table;
  EXPECT_EQ(replay_ipvsadm_records(table, {"empty table", "building", "listing", "edits", "wrong"}),
            138);
}

void run_all(LiveModel& table, const std::vector<const char*>& commands) {
  const ApiLab lab(table);
  for (const char* command : commands) ASSERT_EQ(lab.run(command).exit_code, 0) << command;
}

template <class Into>
void fill(Into& into, const std::uint64_t (&values)[5]) {
  into = {values[0], values[1], values[2], values[3], values[4]};
}

// /proc/net/ip_vs_conn, whose numbers are hexadecimal.
std::vector<ConnectionListing> read_connections(const std::string& text) {
  std::istringstream lines(text);
  std::vector<ConnectionListing> connections;
  std::string line;
  std::getline(lines, line);
  const auto address = [](std::uint32_t value) {
    return IpAddress(Ipv4Address{Be32::from_host(value)});
  };
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string protocol;
    std::uint32_t client = 0, client_port = 0, vip = 0, vip_port = 0, server = 0, server_port = 0;
    ConnectionListing connection;
    fields >> protocol >> std::hex >> client >> client_port >> vip >> vip_port >> server >>
        server_port >> connection.state >> std::dec >> connection.expires;
    connection.protocol = protocol == "TCP" ? Protocol::tcp : Protocol::udp;
    connection.client = address(client);
    connection.client_port = static_cast<std::uint16_t>(client_port);
    connection.virtual_address = address(vip);
    connection.virtual_port = static_cast<std::uint16_t>(vip_port);
    connection.server = address(server);
    connection.server_port = static_cast<std::uint16_t>(server_port);
    connections.push_back(connection);
  }
  return connections;
}

void prepare_traffic(FakeLiveModel& table) {
  run_all(table, {"-A -t 10.9.0.1:80 -s rr", "-a -t 10.9.0.1:80 -r 10.2.0.1:8080 -m",
                  "-a -t 10.9.0.1:80 -r 10.2.0.2:8080 -m", "-A -u 10.9.0.1:53 -s wrr",
                  "-a -u 10.9.0.1:53 -r 10.2.0.3 -w 2", "-a -u 10.9.0.1:53 -r 10.2.0.4 -i"});
  fill(table.services[0].totals, {6, 34, 26, 19360, 26240});
  fill(table.services[0].rates, {1, 3, 2, 1815, 2460});
  for (ServerListing& server : table.services[0].servers) {
    server.active = 2;
    server.inactive = 1;
    fill(server.totals, {3, 17, 13, 9680, 13120});
    fill(server.rates, {0, 2, 1, 907, 1230});
  }
  fill(table.services[1].totals, {9, 9, 0, 1152, 0});
  fill(table.services[1].rates, {1, 1, 0, 108, 0});
  ServerListing& dr = table.services[1].servers[1];
  ServerListing& tun = table.services[1].servers[0];
  dr.inactive = 6;
  tun.inactive = 3;
  fill(dr.totals, {6, 6, 0, 768, 0});
  fill(tun.totals, {3, 3, 0, 384, 0});
  fill(dr.rates, {1, 1, 0, 72, 0});
  fill(tun.rates, {0, 0, 0, 36, 0});
  for (const IpvsadmRecord& record : read_ipvsadm_records())
    if (record.text.starts_with("Pro FromIP") && record.text.find("Origin") == std::string::npos)
      table.connections = read_connections(record.text);
}

TEST(IpvsadmReplay, CountersAndConnectionsOfKnownTrafficPrintWhatIpvsadmPrinted) {
  FakeLiveModel table;
  prepare_traffic(table);
  EXPECT_EQ(table.connections.size(), 15U);
  EXPECT_EQ(replay_ipvsadm_records(table, {"traffic"}), 9);
}

TEST(IpvsadmReplay, LargeRatesPrintWhatIpvsadmPrinted) {
  const std::uint64_t rates[3][5] = {
      {0, 200, 0, 12005600, 0}, {0, 122, 0, 7315912, 0}, {0, 2004, 0, 120290000, 0}};
  int replayed = 0;
  for (const IpvsadmRecord& record : read_ipvsadm_records()) {
    if (record.group != "large counters") continue;
    FakeLiveModel table;
    run_all(table, {"-A -u 10.9.0.1:53", "-a -u 10.9.0.1:53 -r 10.2.0.1"});
    fill(table.services[0].rates, rates[replayed]);
    fill(table.services[0].servers[0].rates, rates[replayed]);
    const ApiLab lab(table);
    expect_same(record, lab.run(record.arguments));
    ++replayed;
  }
  EXPECT_EQ(replayed, 3);
}

}  // namespace
}  // namespace weir
