// SPDX-License-Identifier: Apache-2.0
#include "tests/support/ipvsadm_recordings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <sstream>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

#include "tests/support/test_data.h"

namespace weir {
namespace {

std::string text_of(const boost::json::object& record, const char* name) {
  const boost::json::value* value = record.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string().c_str()) : "";
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

// Without the lines that name one of the refused services, which had no real servers.
std::string without_refused(const std::string& text, const std::vector<RefusedCommand>& refused) {
  std::istringstream lines(text);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    const bool named = std::ranges::any_of(refused, [&](const RefusedCommand& command) {
      return std::ranges::any_of(command.service, [&](std::string_view name) {
        const std::size_t at = line.find(name);
        return at != std::string::npos && line.substr(at + name.size()).starts_with(' ');
      });
    });
    if (!named) kept += line + "\n";
  }
  return kept;
}

void expect_refused(const RefusedCommand& command, const CommandResult& result) {
  SCOPED_TRACE("line " + std::to_string(command.line));
  EXPECT_EQ(result.exit_code, 255);
  EXPECT_NE(result.err.find(command.error), std::string::npos) << result.err;
}

}  // namespace

std::vector<IpvsadmRecord> read_ipvsadm_records() {
  std::ifstream file = test::open_data("ipvs/cli.jsonl");
  std::vector<IpvsadmRecord> records;
  int number = 0;
  for (std::string line; std::getline(file, line);) {
    const boost::json::object fields = boost::json::parse(line).as_object();
    IpvsadmRecord record{.line = ++number,
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

void expect_same(const IpvsadmRecord& record, const CommandResult& result) {
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

int replay_ipvsadm_records(LiveModel& table, const std::vector<std::string_view>& groups,
                           const std::vector<RefusedCommand>& refused) {
  const ApiLab lab(table);
  int replayed = 0;
  for (IpvsadmRecord& record : read_ipvsadm_records()) {
    const bool wanted = std::ranges::any_of(
        groups, [&](std::string_view group) { return record.group.starts_with(group); });
    if (!wanted || record.arguments.empty()) continue;
    const auto [first, last] = kUnrecorded.equal_range(record.line);
    for (auto at = first; at != last; ++at) {
      const CommandResult result = lab.run(at->second);
      EXPECT_EQ(result.exit_code, 0) << at->second << ": " << result.err;
    }
    const CommandResult result = lab.run(record.arguments, record.in);
    const auto refusal = std::ranges::find(refused, record.line, &RefusedCommand::line);
    if (refusal != refused.end()) {
      expect_refused(*refusal, result);
      continue;
    }
    record.expected.out = without_refused(record.expected.out, refused);
    expect_same(record, result);
    ++replayed;
  }
  return replayed;
}

}  // namespace weir
