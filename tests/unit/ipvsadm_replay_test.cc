// SPDX-License-Identifier: Apache-2.0
// Replays what the real ipvsadm printed (data/ipvs/cli.jsonl) through the client, the socket and a
// ServiceTable: output, messages and exit codes byte for byte.
//
// Not replayed: the records `proc` (weir has no /proc) and `rate-estimator` (no command in it).
// The file holds a part of what was run: the commands in between that changed something are below.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

#include "tests/support/api_lab.h"
#include "tests/support/fake_service_table.h"

namespace weir {
namespace {

struct Record {
  int line = 0;
  std::string group;
  std::string arguments;
  std::string in;
  CommandResult expected;
  std::string text;  // of a /proc file
};

std::string data_directory() {
  const char* directory = std::getenv("WEIR_TEST_DATA");
  return directory != nullptr ? directory : WEIR_TEST_DATA;
}

std::string text_of(const boost::json::object& record, const char* name) {
  const boost::json::value* value = record.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string().c_str()) : "";
}

std::vector<Record> read_records() {
  std::ifstream file(data_directory() + "/ipvs/cli.jsonl");
  std::vector<Record> records;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    const boost::json::object fields = boost::json::parse(line).as_object();
    Record record{.line = ++number,
                  .group = text_of(fields, "group"),
                  .arguments = text_of(fields, "args"),
                  .in = text_of(fields, "stdin"),
                  .text = text_of(fields, "text")};
    if (fields.contains("rc")) {
      record.expected = {.exit_code = static_cast<int>(fields.at("rc").as_int64()),
                         .out = text_of(fields, "out"),
                         .err = text_of(fields, "err")};
    }
    records.push_back(std::move(record));
  }
  return records;
}

// What was run before the record on this line and left a trace in later ones.
const std::multimap<int, std::string> kUnrecorded = {
    {10, "-A -t 10.9.0.1:80 -s wlc"},
    {10, "-A -t 10.9.0.1:8000 -s sh -b sh-fallback,sh-port"},
    {10, "-A -t 10.9.0.1:8001 -s mh -b mh-port"},
    {10, "-A -u 10.9.0.1:53 -s wrr -o"},
    {16, "-A -t 10.9.0.1:443 -s rr"},
    {21, "-a -t 10.9.0.1:80 -r 10.2.0.1:8080 -m -w 5"},
    {29, "-a -t 10.9.0.1:443 -r 10.2.0.8 -i --tun-type gre --tun-csum"},
    {30, "-a -u 10.9.0.1:53 -r 10.2.0.1"},
    {35, "-a -t [2001:db8::100]:80 -r 10.2.0.1 -i"},
    {36, "-a -f 7 -r 10.2.0.1"},
    {36, "-a -f 7 -r 10.2.0.2 -m"},
    {58, "-E -t 10.9.0.1:80 -s rr"},
    {70, "-A -t 10.9.0.1:84 -s rr"},
    {70, "-A -t 10.9.0.1:85 -s rr -p 5 -M 33"},
    {72, "-A -t 10.9.0.1:87 -s rr -p 5 -M 255.0.255.0"},
    {76, "-A -t 255.255.255.255:80 -s rr"},
    {86, "-e -t 10.9.0.1:80 -r 10.2.0.1:8080 -m -w 65535"},
    {90, "-a -t 10.9.0.1:80 -r 10.2.0.13 -i"},
    {90, "-a -t 10.9.0.1:80 -r 10.2.0.14 -m"},
    {90, "-a -t 10.9.0.1:80 -r 10.2.0.15:0 -m"},
    {93, "-a -t 10.9.0.1:80 -r 10.2.0.18:80 -m -x 5"},
    {97, "-a -t 10.9.0.1:80 -r 8.8.8.8"},
};

// Each service's line with those of its real servers, sorted: IPVS keeps services in the order of a
// hash, weir in that of their addition.
std::vector<std::string> service_blocks(const std::string& listing) {
  std::istringstream lines(listing);
  std::vector<std::string> blocks;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("  ->") && !blocks.empty())
      blocks.back() += "\n" + line;
    else
      blocks.push_back(line);
  }
  std::ranges::sort(blocks);
  return blocks;
}

void expect_same(const Record& record, const CommandResult& result) {
  SCOPED_TRACE("line " + std::to_string(record.line) + ": ipvsadm " + record.arguments);
  EXPECT_EQ(result.err, record.expected.err);
  if (record.arguments.find("--nosort") != std::string::npos) {
    EXPECT_EQ(service_blocks(result.out), service_blocks(record.expected.out));
  } else {
    EXPECT_EQ(result.out, record.expected.out);
  }
  // ipvsadm -R forgets that a line failed; weir does not.
  const bool failed_restore = record.arguments == "-R" && !record.expected.err.empty();
  EXPECT_EQ(result.exit_code, failed_restore ? 255 : record.expected.exit_code);
}

// Replays the records of the groups, in order, on `table`, which holds what they begin with.
int replay(ServiceTable& table, const std::vector<std::string_view>& groups) {
  const ApiLab lab(table);
  int replayed = 0;
  for (const Record& record : read_records()) {
    const bool wanted = std::ranges::any_of(
        groups, [&](std::string_view group) { return record.group.starts_with(group); });
    if (!wanted || record.arguments.empty()) continue;
    const auto [first, last] = kUnrecorded.equal_range(record.line);
    for (auto at = first; at != last; ++at) {
      const CommandResult result = lab.run(at->second);
      EXPECT_EQ(result.exit_code, 0) << at->second << ": " << result.err;
    }
    expect_same(record, lab.run(record.arguments, record.in));
    ++replayed;
  }
  return replayed;
}

TEST(IpvsadmReplay, CommandsOnATableThatBeginsEmptyPrintWhatIpvsadmPrinted) {
  FakeServiceTable table;
  EXPECT_EQ(replay(table, {"empty table", "building", "listing", "edits", "wrong"}), 138);
}

void run_all(ServiceTable& table, const std::vector<const char*>& commands) {
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

void prepare_traffic(FakeServiceTable& table) {
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
  for (const Record& record : read_records())
    if (record.text.starts_with("Pro FromIP") && record.text.find("Origin") == std::string::npos)
      table.connections = read_connections(record.text);
}

TEST(IpvsadmReplay, CountersAndConnectionsOfKnownTrafficPrintWhatIpvsadmPrinted) {
  FakeServiceTable table;
  prepare_traffic(table);
  EXPECT_EQ(table.connections.size(), 15U);
  EXPECT_EQ(replay(table, {"traffic"}), 9);
}

TEST(IpvsadmReplay, LargeRatesPrintWhatIpvsadmPrinted) {
  const std::uint64_t rates[3][5] = {
      {0, 200, 0, 12005600, 0}, {0, 122, 0, 7315912, 0}, {0, 2004, 0, 120290000, 0}};
  int replayed = 0;
  for (const Record& record : read_records()) {
    if (record.group != "large counters") continue;
    FakeServiceTable table;
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
