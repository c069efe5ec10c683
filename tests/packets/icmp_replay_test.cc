// SPDX-License-Identifier: Apache-2.0
// Replays the ICMP errors that the kernel's IPVS was recorded with, through a whole director.
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv4 = 20;
constexpr std::size_t kIcmp = 8;
constexpr std::size_t kQuote = kEthernet + kIpv4 + kIcmp;
constexpr std::uint16_t kClientPort = 0;
constexpr std::uint16_t kServerPort = 1;
constexpr std::uint16_t kGuePort = 6080;

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

struct Replay {
  std::string mode;
  std::string label;
  bool from_client;
  Bytes sent;
  const json::array* to_server;
  const json::array* to_client;

  bool tunnel() const { return mode.starts_with("tun-"); }
  // IPVS leaves these to the host's routing, which passes them on.
  bool is_routed() const {
    return (mode == "dr" && !from_client) ||
           (mode == "nat" && contains(label, "parameter problem"));
  }
};

ServerSpec server_of(const std::string& mode, std::uint16_t port) {
  const ForwardMode forward = mode == "nat"  ? ForwardMode::nat
                              : mode == "dr" ? ForwardMode::dr
                                             : ForwardMode::tun;
  ServerSpec spec = server_spec("10.2.0.1", port, forward);
  if (contains(mode, "-gue")) {
    spec.tunnel = TunnelType::gue;
    spec.tunnel_port = kGuePort;
  }
  if (contains(mode, "-gre")) spec.tunnel = TunnelType::gre;
  if (contains(mode, "-csum")) spec.tunnel_checksum = TunnelChecksum::checksum;
  if (contains(mode, "-remcsum")) spec.tunnel_checksum = TunnelChecksum::remote;
  return spec;
}

void set_up_services(BurstLab& lab, const std::string& mode) {
  const std::pair<ServiceKey, std::uint16_t> services[] = {
      {service_key(Protocol::tcp, "10.9.0.1", 80), std::uint16_t{8080}},
      {service_key(Protocol::udp, "10.9.0.1", 53), std::uint16_t{5353}}};
  for (const auto& [key, port] : services) {
    add_service(lab.services(), key);
    must(lab.services().add_server(key, server_of(mode, port)));
  }
}

// Where the client's packet begins in the quote of a tunnel's.
std::size_t inside_tunnel(const Bytes& frame) {
  constexpr std::size_t kProtocol = 9;
  switch (static_cast<Protocol>(frame[kQuote + kProtocol])) {
    case Protocol::ipip:
      return kQuote + kIpv4;
    case Protocol::udp:
      return kQuote + kIpv4 + 8 + 4;
    default:
      return kQuote + kIpv4 + ((frame[kQuote + kIpv4] & 0x80) != 0 ? 8 : 4);
  }
}

// The connection of the quoted packet, if that is quoted far enough to tell.
void open_connection(BurstLab& lab, const Replay& replay) {
  const bool in_tunnel = replay.tunnel() && !replay.from_client;
  const std::size_t at = in_tunnel ? inside_tunnel(replay.sent) : kQuote;
  if (replay.sent.size() < at + kIpv4 + 8 || contains(replay.label, "unknown flow")) return;
  Bytes quoted(kEthernet);
  quoted.insert(quoted.end(), replay.sent.begin() + static_cast<std::ptrdiff_t>(at),
                replay.sent.end());
  quoted.resize(quoted.size() + 64);
  const Flow flow = decode(quoted).flow;
  const bool tcp = static_cast<Protocol>(quoted[kEthernet + 9]) == Protocol::tcp;
  const Flow opener = {replay.from_client ? flow.destination : flow.source,
                       replay.from_client ? flow.destination_port : flow.source_port, "10.9.0.1",
                       static_cast<std::uint16_t>(tcp ? 80 : 53)};
  const Bytes first = tcp ? client_tcp(opener, TcpHeader::kSyn) : client_udp(opener);
  ASSERT_TRUE(is_forwarded(lab.send(first).outcome));
}

// IPVS leaves the quoted checksum as it is, weir restores it (icmp_cases_test).
void blank_checksums(Bytes& frame) {
  frame[kQuote - 6] = frame[kQuote - 5] = 0;
  const bool tcp = static_cast<Protocol>(frame[kQuote + 9]) == Protocol::tcp;
  const std::size_t at = kQuote + kIpv4 + (tcp ? 16 : 6);
  if (at + 2 <= frame.size()) frame[at] = frame[at + 1] = 0;
}

void blank_choices(const Replay& replay, Bytes& frame) {
  constexpr std::size_t kUdp = 17;
  if (replay.mode == "nat") blank_checksums(frame);
  if (!replay.tunnel()) return;
  EXPECT_TRUE(ipv4_checksum_ok(frame, kEthernet));
  blank_ipv4_id(frame, kEthernet);
  if (frame[kEthernet + 9] == kUdp) blank_udp_source_port(frame, kEthernet);
}

void expect_left_to_kernel(const Replay& replay, const Forwarded& got) {
  EXPECT_TRUE(is_for_kernel(got.outcome)) << name_of(got.outcome);
  EXPECT_EQ(to_hex(got.bytes), to_hex(replay.sent));
}

// Not one byte of the real server's address is left.
void expect_translated(const Forwarded& got) {
  ASSERT_EQ(name_of(got.outcome), name_of(Outcome::nat_to_client));
  EXPECT_FALSE(contains(to_hex(got.bytes), "0a020001")) << to_hex(got.bytes);
}

void replay_one(const Replay& replay) {
  SCOPED_TRACE(replay.mode + ": " + replay.label);
  BurstLab lab;
  set_up_services(lab, replay.mode);
  ASSERT_NO_FATAL_FAILURE(open_connection(lab, replay));
  const Forwarded got = lab.send(replay.sent, replay.from_client ? kClientPort : kServerPort);
  if (replay.is_routed() && replay.mode == "nat") return expect_translated(got);
  const std::size_t frames = replay.to_server->size() + replay.to_client->size();
  if (frames == 0 || replay.is_routed()) return expect_left_to_kernel(replay, got);
  ASSERT_EQ(frames, 1U);
  ASSERT_TRUE(is_forwarded(got.outcome)) << name_of(got.outcome);
  const bool to_server = replay.to_client->empty();
  EXPECT_EQ(got.port, to_server ? kServerPort : kClientPort);
  const json::array& out = to_server ? *replay.to_server : *replay.to_client;
  Bytes wanted = whole_frame(out[0].as_object());
  Bytes actual = got.bytes;
  ASSERT_EQ(actual.size(), wanted.size());
  blank_choices(replay, wanted);
  blank_choices(replay, actual);
  EXPECT_EQ(to_hex(actual), to_hex(wanted));
}

TEST(IcmpReplay, AsRecorded) {
  std::size_t replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/packets.jsonl")) {
    const std::string label = text(record.at("case"));
    const bool error = label.starts_with("ICMP ") || label.starts_with("client-side ICMP ");
    if (!error || contains(label, "echo")) continue;
    const Replay replay = {text(record.at("mode")),
                           label,
                           record.at("sent_by") == "client",
                           whole_frame(record.at("sent").as_array()[0].as_object()),
                           &record.at("to_server").as_array(),
                           &record.at("to_client").as_array()};
    replay_one(replay);
    ++replayed;
  }
  EXPECT_EQ(replayed, 141U);
}

}  // namespace
}  // namespace weir::test
