// SPDX-License-Identifier: Apache-2.0
// The schedulers against recordings of a live IPVS: data/ipvs/sched-?.jsonl (sequences of
// connections), hash.jsonl and ip6.jsonl (mappings), life.jsonl (thresholds).
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <map>
#include <sstream>
#include <string>

#include "tests/support/recordings.h"
#include "tests/support/simulated_service.h"

namespace weir::test {
namespace {

namespace json = boost::json;

std::string text(const json::value& value) { return std::string(value.as_string()); }

// "sh-port,sh-fallback"
std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

AddressBytes ipv4(const std::string& address) {
  AddressBytes bytes;
  std::istringstream stream(address);
  for (std::string part; std::getline(stream, part, '.');) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(part)));
  }
  return bytes;
}

AddressBytes ipv6(const std::string& address) {
  const auto halves_at = address.find("::");
  AddressBytes bytes(16);
  const auto words = [](const std::string& half) {
    AddressBytes out;
    std::istringstream stream(half);
    for (std::string word; std::getline(stream, word, ':');) {
      const auto value = std::stoul(word, nullptr, 16);
      out.push_back(static_cast<std::uint8_t>(value >> 8));
      out.push_back(static_cast<std::uint8_t>(value));
    }
    return out;
  };
  const AddressBytes front = words(address.substr(0, halves_at));
  std::ranges::copy(front, bytes.begin());
  if (halves_at != std::string::npos) {
    const AddressBytes back = words(address.substr(halves_at + 2));
    std::ranges::copy_backward(back, bytes.end());
  }
  return bytes;
}

// What an edit of a recording says: "-e -t 10.9.0.1:9009 -r 10.2.0.2:8080 -m -w 6".
void run_ipvsadm(SimulatedService& service, const std::string& arguments) {
  std::istringstream words(arguments);
  std::string command;
  ServerSlot slot = 0;
  std::int32_t weight = 1;
  words >> command;
  for (std::string word; words >> word;) {
    if (word == "-r" && words >> word) {
      slot = static_cast<ServerSlot>(std::stoul(word.substr(word.rfind('.') + 1)));
    }
    if (word == "-w") words >> weight;
  }
  ASSERT_NE(slot, 0U) << arguments;
  if (command == "-a") return service.add(slot, weight);
  if (command == "-e") return service.change(slot, weight);
  if (command == "-d") return service.remove(slot);
  FAIL() << arguments;
}

void add_all(SimulatedService& service, const json::value& weights) {
  ServerSlot slot = 0;
  for (const auto& weight : weights.as_array()) {
    service.add(++slot, weight.to_number<std::int32_t>());
  }
}

// ---- Sequences of connections ----

class Replay {
 public:
  explicit Replay(const json::object& record)
      : record_(record), protocol_(text(record.at("proto"))), service_(text(record.at("sched"))) {}

  void run() {
    add_all(service_, record_.at("weights"));
    const auto& expected = record_.at("dest").as_array();
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (recorder_gave_up_at(i)) {
        ASSERT_EQ(expected[i].to_number<ServerSlot>(), 0U) << "connection " << i << title();
        continue;
      }
      connect(i, expected[i].to_number<ServerSlot>());
      ASSERT_FALSE(::testing::Test::HasFailure()) << "connection " << i << " of " << title();
      operate_after(i);
      if (const auto* counts = record_.if_contains("counts_after")) compare(counts->at(i));
      ASSERT_FALSE(::testing::Test::HasFailure()) << "after connection " << i << " of " << title();
    }
    compare(record_.at("counts_end"));
    EXPECT_FALSE(::testing::Test::HasFailure()) << "end of " << title();
  }

 private:
  // After five refusals in a row: counts_after says for how many connections it did try.
  bool recorder_gave_up_at(std::size_t connection) const {
    const auto* counts = record_.if_contains("counts_after");
    return counts != nullptr ? connection >= counts->as_array().size() : refusals_ == 5;
  }

  void connect(std::size_t i, ServerSlot expected) {
    service_.client_port = static_cast<std::uint16_t>(20000 + i);
    service_.now_ms += 20;
    const ServerSlot picked = service_.pick();
    EXPECT_EQ(picked, expected);
    refusals_ = picked == 0 ? refusals_ + 1 : 0;
    if (picked != 0) service_.open(picked, protocol_);
    picks_.push_back(picked);
  }

  void operate_after(std::size_t connection) {
    const auto* operations = record_.if_contains("ops_after_conn");
    if (operations == nullptr) return;
    for (const auto& operation : operations->as_array()) {
      if (operation.at(0).to_number<std::size_t>() != connection) continue;
      if (operation.at(1).as_string() == "close") {
        service_.close(picks_.at(operation.at(2).to_number<std::size_t>()));
      } else {
        run_ipvsadm(service_, text(operation.at(1)));
      }
    }
  }

  // Rows in the order of the slots; null is one that is not in the list.
  void compare(const json::value& counts) {
    ServerSlot slot = 0;
    for (const auto& row : counts.as_array()) {
      ++slot;
      if (row.is_null()) continue;
      const Load load = service_.load(slot);
      EXPECT_EQ(load.active, row.at(0).to_number<std::uint32_t>()) << "server " << slot;
      EXPECT_EQ(load.inactive, row.at(1).to_number<std::uint32_t>()) << "server " << slot;
    }
  }

  std::string title() const {
    return json::serialize(record_.at("sched")) + json::serialize(record_.at("weights")) +
           protocol_ + json::serialize(record_.at("series"));
  }

  const json::object& record_;
  const std::string protocol_;
  SimulatedService service_;
  std::vector<ServerSlot> picks_;
  int refusals_ = 0;
};

TEST(RecordedSequences, AreRepeatedPickByPick) {
  std::map<std::string, int> replayed;
  for (const char* name : {"ipvs/sched-a.jsonl", "ipvs/sched-b.jsonl"}) {
    for (const json::object& record : read_json_lines(name)) {
      Replay(record).run();
      if (HasFailure()) return;
      ++replayed[text(record.at("sched"))];
    }
  }
  EXPECT_EQ(replayed.size(), 13U);  // all but twos, which no kernel of Debian has
  for (const auto& [scheduler, records] : replayed) EXPECT_EQ(records, 24) << scheduler;
}

// ---- Mappings ----

class Mapping {
 public:
  // "10.1.0.1-64" (IPv6: hexadecimal) or the name of a group of addresses.
  static void compare(SimulatedService& service, const json::object& record) {
    if (const auto* sport = record.if_contains("sport")) {
      service.client_port = sport->to_number<std::uint16_t>();
    }
    for (const auto& [range, expected] : record.at("by_ip").as_object()) {
      if (expected.is_object()) {
        for (const auto& [address, server] : expected.as_object()) {
          service.client = parse(std::string(address));
          expect(service, server, address);
        }
      } else {
        compare_addresses(service, std::string(range), expected.as_array());
      }
    }
    for (const auto& [key, group] : record) {
      if (key.starts_with("by_port")) compare_ports(service, std::string(key), group.as_object());
    }
  }

 private:
  static AddressBytes parse(const std::string& address) {
    return address.find(':') == std::string::npos ? ipv4(address) : ipv6(address);
  }
  static void expect(const SimulatedService& service, const json::value& server,
                     std::string_view what) {
    EXPECT_EQ(service.pick(), server.to_number<ServerSlot>()) << what;
  }
  static void compare_addresses(SimulatedService& service, const std::string& range,
                                const json::array& expected) {
    AddressBytes address = parse(range.substr(0, range.rfind('-')));
    for (const auto& server : expected) {
      service.client = address;
      expect(service, server, range);
      ++address.back();
    }
  }
  // "by_port_10.1.0.100": {"40000-40063": [...]}; without an address: 2001:db8:1::100.
  static void compare_ports(SimulatedService& service, const std::string& key,
                            const json::object& group) {
    constexpr std::size_t kPrefix = sizeof("by_port_") - 1;
    service.client = key.size() > kPrefix ? ipv4(key.substr(kPrefix)) : ipv6("2001:db8:1::100");
    for (const auto& [range, expected] : group) {
      auto port = static_cast<std::uint16_t>(std::stoul(std::string(range)));
      for (const auto& server : expected.as_array()) {
        service.client_port = port++;
        expect(service, server, range);
      }
    }
  }
};

SchedulerOptions options_of(const json::object& record) {
  SchedulerOptions options{.name = text(record.at("sched"))};
  if (const auto* flags = record.if_contains("flags")) options.flags = split(text(*flags));
  EXPECT_EQ(check_options(options), std::nullopt);
  return options;
}

TEST(RecordedMappings, Ipv4AreRepeated) {
  int replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/hash.jsonl")) {
    if (record.contains("series")) continue;
    SCOPED_TRACE(json::serialize(record.at("sched")) + json::serialize(record.at("flags")) +
                 json::serialize(record.at("weights")));
    SimulatedService service(options_of(record));
    service.server_port = record.at("rports").to_number<std::uint16_t>();
    add_all(service, record.at("weights"));
    Mapping::compare(service, record);
    if (HasFailure()) return;
    ++replayed;
  }
  EXPECT_EQ(replayed, 40);
}

TEST(RecordedMappings, FollowEdits) {
  std::unique_ptr<SimulatedService> service;
  int replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/hash.jsonl")) {
    const auto* series = record.if_contains("series");
    if (series == nullptr || text(*series) != "edit") continue;
    SCOPED_TRACE(json::serialize(record.at("sched")) + json::serialize(record.at("op")));
    if (record.at("op").is_null()) {
      service = std::make_unique<SimulatedService>(options_of(record));
      for (const ServerSlot slot : {1U, 2U, 3U}) service->add(slot, 1);
    } else {
      run_ipvsadm(*service, text(record.at("op")));
    }
    Mapping::compare(*service, record);
    if (HasFailure()) return;
    ++replayed;
  }
  EXPECT_EQ(replayed, 10);
}

TEST(RecordedMappings, Ipv6AreRepeated) {
  int replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/ip6.jsonl")) {
    if (text(record.at("case")) != "hash") continue;
    SCOPED_TRACE(json::serialize(record.at("sched")) + json::serialize(record.at("flags")) +
                 json::serialize(record.at("weights")));
    SimulatedService service(options_of(record), 1, true);
    service.destination = ipv6("2001:db8:9::1");
    add_all(service, record.at("weights"));
    // What the connections before have left behind does not matter here, except that rr goes on.
    Mapping::compare(service, record);
    if (HasFailure()) return;
    ++replayed;
  }
  EXPECT_EQ(replayed, 12);
}

// UDP to 68 destinations of one fwmark service, from two clients; then TCP to four destinations.
TEST(RecordedMappings, ByDestinationAreRepeated) {
  int replayed = 0;
  std::vector<std::string> destinations;
  for (const json::object& record : read_json_lines("ipvs/hash.jsonl")) {
    const auto* series = record.if_contains("series");
    if (series == nullptr || text(*series) != "fwmark7-udp") continue;
    SCOPED_TRACE(json::serialize(record.at("sched")) + json::serialize(record.at("weights")));
    if (destinations.empty()) {
      // A list in the notation of Python.
      std::string list = record.at("dests_of_packets").is_string()
                             ? text(record.at("dests_of_packets"))
                             : json::serialize(record.at("dests_of_packets"));
      std::erase_if(list,
                    [](char c) { return std::string_view("[]'\" ").find(c) != std::string::npos; });
      destinations = split(list);
      ASSERT_EQ(destinations.size(), 68U);
    }
    SimulatedService service(options_of(record));
    add_all(service, record.at("weights"));
    for (const char* client : {"10.1.0.1", "10.1.0.2"}) {
      service.client = ipv4(client);
      for (std::size_t i = 0; i < destinations.size(); ++i) {
        service.destination = ipv4(destinations[i]);
        const ServerSlot picked = service.pick();
        ASSERT_EQ(picked, record.at("server").at(i).to_number<ServerSlot>())
            << client << " to " << destinations[i];
        if (picked != 0) service.open(picked, "udp");
      }
    }
    if (const auto* tcp = record.if_contains("tcp_60conns_to_10.9.3.1-4_roundrobin")) {
      for (std::size_t i = 0; i < tcp->as_array().size(); ++i) {
        service.destination = {10, 9, 3, static_cast<std::uint8_t>(1 + i % 4)};
        const ServerSlot picked = service.pick();
        ASSERT_EQ(picked, tcp->at(i).to_number<ServerSlot>()) << "TCP " << i;
        service.open(picked, "tcp");
      }
    }
    ++replayed;
  }
  EXPECT_EQ(replayed, 14);
}

// ---- Thresholds ----

// ip_vs_bind_dest: the test plays the packet path, which closes a real server that is full.
TEST(RecordedThresholds, AreRepeated) {
  int replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/life.jsonl")) {
    if (text(record.at("case")) != "threshold") continue;
    SCOPED_TRACE(json::serialize(record.at("sched")) + json::serialize(record.at("u_threshold")));
    const auto upper = record.at("u_threshold").to_number<std::uint32_t>();
    SimulatedService service(text(record.at("sched")));
    service.add(1, 1);
    service.add(2, 1);
    for (const auto& event : record.at("events_op_sport_server_counts").as_array()) {
      const auto server = event.at(2).to_number<ServerSlot>();
      if (event.at(0).as_string() == "close") {
        service.close(server);
        continue;
      }
      service.client_port = event.at(1).to_number<std::uint16_t>();
      const ServerSlot picked = service.pick();
      ASSERT_EQ(picked, server) << json::serialize(event);
      if (picked == 0) continue;
      service.open(picked, "tcp");
      const Load load = service.load(picked);
      if (load.active + load.inactive >= upper) service.set_overloaded(picked, true);
    }
    ++replayed;
  }
  EXPECT_EQ(replayed, 14);
}

}  // namespace
}  // namespace weir::test
