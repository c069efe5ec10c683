// SPDX-License-Identifier: Apache-2.0
// Replays packets that the kernel's IPVS was recorded with, and compares what leaves byte for byte.
#include <gtest/gtest.h>

#include <array>
#include <string_view>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::size_t kEthernet = 14;
constexpr std::uint16_t kClientPort = 0;
constexpr std::uint16_t kServerPort = 1;

// Records that weir does not answer for (yet). `mode` is a prefix, `label` a part; the first row
// that fits counts. `records` keeps the list honest.
struct Exclusion {
  std::string_view mode;
  std::string_view label;
  std::size_t records;
  std::string_view reason;
};

constexpr Exclusion kIpv4Exclusions[] = {
    {"", "route cache and stats", 5, "no packet"},
    {"local", "", 3, "no packet"},
    {"", "server is the director itself", 2, "real servers on the director itself"},
    {"", "unreachable", 56, "ICMP errors: icmp_replay_test"},
    {"", "frag needed", 35, "ICMP errors: icmp_replay_test"},
    {"", "time exceeded", 34, "ICMP errors: icmp_replay_test"},
    {"", "source quench", 8, "ICMP errors: icmp_replay_test"},
    {"", "parameter problem", 8, "ICMP errors: icmp_replay_test"},
    {"tun-", "then: same flow", 8, "path MTU told by ICMP errors"},
};

constexpr Exclusion kIpv6Exclusions[] = {
    {"", "no packet", 21, "no packet"},
    {"", "ICMPv6 port unreachable", 1, "ICMP errors: icmp_cases_test"},
    {"", "ICMPv6 packet too big", 2, "ICMP errors: icmp_cases_test"},
};

// What the kernel's own stack did with a packet that IPVS left to it: weir hands it over unchanged.
constexpr std::string_view kLeftToTheKernel[] = {
    "no connection",
    "port without service",
    "ACK to a service without servers",
    "echo",
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string_view text_of(const json::object& record, std::string_view key) {
  const json::value* value = record.if_contains(json::string_view(key.data(), key.size()));
  if (value == nullptr) return {};
  return {value->as_string().data(), value->as_string().size()};
}

// One packet of a recording, whatever file it is from.
struct Replay {
  std::string_view mode;
  std::string_view label;
  std::uint16_t port = kClientPort;  // where the packet arrives
  Bytes sent;                        // of fragments the first of the datagram
  std::vector<Bytes> fragments;      // all, in the order of arrival; of what is whole none
  const json::array* to_server = nullptr;
  const json::array* to_client = nullptr;
  BurstLab::Shape shape;

  bool ipv6() const { return sent[kEthernet] >> 4 == 6; }
  // The sender is a real server that nobody has asked.
  bool unasked() const { return contains(label, "nat_icmp_send=1"); }
  bool left_to_the_kernel() const {
    if (unasked()) return contains(label, "from another port");
    return std::any_of(std::begin(kLeftToTheKernel), std::end(kLeftToTheKernel),
                       [&](std::string_view part) { return contains(label, part); });
  }
};

template <std::size_t kRows>
class Exclusions {
 public:
  explicit Exclusions(const Exclusion (&rows)[kRows]) : rows_(rows) {}
  bool exclude(std::string_view mode, std::string_view label) {
    for (std::size_t i = 0; i < kRows; ++i) {
      if (!mode.starts_with(rows_[i].mode) || !contains(label, rows_[i].label)) continue;
      ++seen_[i];
      return true;
    }
    return false;
  }
  void check() const {
    for (std::size_t i = 0; i < kRows; ++i) {
      EXPECT_EQ(seen_[i], rows_[i].records)
          << rows_[i].mode << " '" << rows_[i].label << "' (" << rows_[i].reason << ")";
    }
  }

 private:
  const Exclusion (&rows_)[kRows];
  std::array<std::size_t, kRows> seen_{};
};

// ---- The recorded director ----

ForwardMode mode_of(std::string_view mode) {
  if (mode == "nat") return ForwardMode::nat;
  if (mode == "dr") return ForwardMode::dr;
  if (mode.starts_with("tun-")) return ForwardMode::tun;
  throw std::runtime_error("a mode that the recordings do not have");
}

constexpr std::uint16_t kGuePort = 6080;

// "tun-gue-csum"
void set_tunnel(ServerSpec& spec, std::string_view mode) {
  if (contains(mode, "-gue")) {
    spec.tunnel = TunnelType::gue;
    spec.tunnel_port = kGuePort;
  }
  if (contains(mode, "-gre")) spec.tunnel = TunnelType::gre;
  if (contains(mode, "-csum")) spec.tunnel_checksum = TunnelChecksum::checksum;
  if (contains(mode, "-remcsum")) spec.tunnel_checksum = TunnelChecksum::remote;
}

void set_up_services(BurstLab& lab, const Replay& replay) {
  const std::string vip = replay.ipv6() ? "2001:db8:9::1" : "10.9.0.1";
  const bool server6 =
      replay.mode == "tun-6in4" ? false : replay.mode == "tun-4in6" || replay.ipv6();
  const std::string server = server6 ? "2001:db8:2::1" : "10.2.0.1";
  const ServiceKey tcp = service_key(Protocol::tcp, vip, 80);
  const ServiceKey udp = service_key(Protocol::udp, vip, 53);
  add_service(lab.services(), tcp);
  add_service(lab.services(), udp);
  if (contains(replay.label, "service without servers")) return;
  const ForwardMode mode = mode_of(replay.mode);
  for (const auto& [key, port] : {std::pair(tcp, 8080), std::pair(udp, 5353)}) {
    ServerSpec spec = server_spec(server, static_cast<std::uint16_t>(port), mode);
    set_tunnel(spec, replay.mode);
    must(lab.services().add_server(key, spec));
  }
}

// The recording's packets of one flow follow each other; here each record has a director of its
// own, and a packet that needs a connection gets one.
void open_connection(BurstLab& lab, const Replay& replay) {
  const Decoded sent = decode(replay.sent);
  const bool reply = replay.port == kServerPort;
  const bool tcp = replay.sent[kEthernet + (replay.ipv6() ? 6 : 9)] == 6;
  if (!reply && (!tcp || (sent.tcp_flags & TcpHeader::kSyn) != 0)) return;
  Flow flow = sent.flow;
  if (reply) {
    flow = {sent.flow.destination, sent.flow.destination_port,
            replay.ipv6() ? "2001:db8:9::1" : "10.9.0.1",
            static_cast<std::uint16_t>(tcp ? 80 : 53)};
  }
  const Bytes first = tcp ? client_tcp(flow, TcpHeader::kSyn) : client_udp(flow);
  ASSERT_TRUE(is_forwarded(lab.send(first).outcome));
}

// ---- Comparing ----

// The source port of GUE is the kernel's secret hash of the flow, in its range of local ports.
void blank_gue_source_port(Bytes& frame) {
  const bool v4 = frame[kEthernet] >> 4 == 4;
  if (static_cast<Protocol>(frame[kEthernet + (v4 ? 9 : 6)]) != Protocol::udp) return;
  const unsigned offset = v4 ? frame[kEthernet + 6] % 32 * 256U + frame[kEthernet + 7] : 0;
  if (offset != 0) return;
  const std::size_t udp = kEthernet + (v4 ? 20 : 40);
  const unsigned port = frame[udp] * 256U + frame[udp + 1];
  EXPECT_GE(port, 32768U);
  EXPECT_LE(port, 60999U);
  // A first fragment's checksum is that of the whole.
  const bool whole = !v4 || (frame[kEthernet + 6] & 0x20) == 0;
  EXPECT_TRUE(!whole || udp_checksum_ok(frame, kEthernet)) << to_hex(frame);
  blank_udp_source_port(frame, kEthernet);
}

// Clears what senders choose for themselves: the id of a packet that may be fragmented or of an
// ICMP error, the flow label of an ICMPv6 error. `origin`: the director made this header itself.
void blank_choices(Bytes& frame, bool tunnelled, bool error) {
  const bool v4 = frame[kEthernet] >> 4 == 4;
  const bool may_fragment = v4 && (frame[kEthernet + 6] & 0x40) == 0;
  if (v4 && (error || (tunnelled && may_fragment))) {
    EXPECT_TRUE(ipv4_checksum_ok(frame, kEthernet)) << to_hex(frame);
    blank_ipv4_id(frame, kEthernet);
  }
  if (!v4 && error) blank_flow_label(frame, kEthernet);
  if (tunnelled) blank_gue_source_port(frame);
}

// 0 of IPv6.
unsigned ipv4_id(const Bytes& frame) {
  const bool v4 = frame[kEthernet] >> 4 == 4;
  return v4 ? frame[kEthernet + 4] * 256U + frame[kEthernet + 5] : 0;
}

// RFC 4443: the checksum of an ICMPv6 error covers no flow label, so it stays comparable.
void compare(const Replay& replay, const Forwarded& got, std::uint16_t port,
             const json::array& frames) {
  ASSERT_TRUE(is_forwarded(got.outcome)) << name_of(got.outcome);
  EXPECT_EQ(got.port, port);
  const bool error = got.outcome == Outcome::icmp_error_sent;
  const bool tunnelled = got.outcome == Outcome::tun_to_server;
  EXPECT_EQ(tunnelled, replay.mode.starts_with("tun-") && !error);
  const std::vector<Bytes> leaving =
      got.pieces.empty() ? std::vector<Bytes>{got.bytes} : got.pieces;
  ASSERT_EQ(leaving.size(), frames.size());
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    Bytes expected = whole_frame(frames[i].as_object());
    Bytes actual = leaving[i];
    ASSERT_EQ(actual.size(), expected.size());
    EXPECT_EQ(ipv4_id(actual), ipv4_id(leaving[0]));
    blank_choices(expected, tunnelled, error);
    blank_choices(actual, tunnelled, error);
    EXPECT_EQ(to_hex(actual), to_hex(expected));
  }
  if (got.pieces.empty() || !tunnelled) return;
  Bytes whole = got.bytes;
  blank_choices(whole, tunnelled, error);
}

// The last to arrive decides, once the others are there.
Forwarded send_all(BurstLab& lab, const Replay& replay) {
  if (replay.fragments.empty()) return lab.send(replay.sent, replay.port);
  Forwarded got;
  for (const Bytes& fragment : replay.fragments) {
    EXPECT_TRUE(got.outcome == Outcome::undecided || got.outcome == Outcome::fragment_kept);
    got = lab.send(fragment, replay.port);
  }
  return got;
}

void replay_one(const Replay& replay) {
  SCOPED_TRACE(std::string(replay.mode) + ": " + std::string(replay.label));
  BurstLab lab(replay.shape);
  set_up_services(lab, replay);
  if (replay.unasked()) must(lab.services().set_setting("nat_icmp_send", "1"));
  if (contains(replay.label, "pmtu_disc=0")) must(lab.services().set_setting("pmtu_disc", "0"));
  if (replay.left_to_the_kernel()) {
    const Forwarded got = lab.send(replay.sent, replay.port);
    EXPECT_TRUE(is_for_kernel(got.outcome)) << name_of(got.outcome);
    EXPECT_EQ(to_hex(got.bytes), to_hex(replay.sent));
    return;
  }
  if (!replay.unasked()) {
    ASSERT_NO_FATAL_FAILURE(open_connection(lab, replay));
  }
  const Forwarded got = send_all(lab, replay);
  if (contains(replay.label, "first fragment")) {
    EXPECT_EQ(got.outcome, Outcome::fragment_kept);
    EXPECT_EQ(replay.to_server->size() + replay.to_client->size(), 0U);
    return;
  }
  ASSERT_NE(replay.to_server->empty(), replay.to_client->empty());
  const bool to_server = !replay.to_server->empty();
  compare(replay, got, to_server ? kServerPort : kClientPort,
          to_server ? *replay.to_server : *replay.to_client);
}

// ---- packets.jsonl ----

void read_sent(Replay& replay, const json::array& frames) {
  for (const json::value& frame : frames) {
    const json::object& ip = frame.as_object().at("ip").as_object();
    const Bytes bytes = whole_frame(frame.as_object());
    const bool first = ip.at("off").to_number<int>() == 0;
    if (first) replay.sent = bytes;
    if (!first || ip.at("mf").to_number<int>() != 0) replay.fragments.push_back(bytes);
  }
}

TEST(Recordings, Ipv4Packets) {
  Exclusions exclusions(kIpv4Exclusions);
  const auto records = read_json_lines("ipvs/packets.jsonl");
  std::size_t replayed = 0;
  for (const json::object& record : records) {
    Replay replay;
    replay.mode = text_of(record, "mode");
    replay.label = text_of(record, "case");
    if (exclusions.exclude(replay.mode, replay.label)) continue;
    read_sent(replay, record.at("sent").as_array());
    replay.port = text_of(record, "sent_by") == "client" ? kClientPort : kServerPort;
    replay.to_server = &record.at("to_server").as_array();
    replay.to_client = &record.at("to_client").as_array();
    if (const json::value* mtu = record.at("lab").as_object().if_contains("mtu1")) {
      replay.shape.server_mtu = mtu->to_number<std::uint16_t>();
    }
    if (contains(replay.label, "client side mtu 1400")) replay.shape.client_mtu = 1400;
    replay_one(replay);
    ++replayed;
  }
  exclusions.check();
  EXPECT_EQ(replayed, 264U);
}

// ---- ip6.jsonl ----

Bytes with_ethernet(bool to_client_side, std::uint16_t ether_type, const Bytes& packet) {
  Bytes frame =
      to_client_side ? from_hex("020000000afe020000000c01") : from_hex("020000000bfe020000000d01");
  frame.push_back(static_cast<std::uint8_t>(ether_type >> 8));
  frame.push_back(static_cast<std::uint8_t>(ether_type));
  frame.insert(frame.end(), packet.begin(), packet.end());
  return frame;
}

// Recorded are the first 80 bytes of the packet; the rest is its payload, one byte repeated.
Bytes sent_ipv6(const json::object& record, std::uint16_t port) {
  Bytes packet = from_hex(text_of(record, "sent"));
  const std::size_t length = 40 + std::size_t{packet[4]} * 256 + packet[5];
  packet.resize(length, packet.back());
  return with_ethernet(port == kClientPort, kEtherTypeIpv6, packet);
}

// The 4in6 records lack what was sent: it is inside what came out.
Bytes sent_ipv4(const json::object& record) {
  constexpr std::size_t kIpv4 = 20;
  constexpr std::size_t kIpv6 = 40;
  constexpr std::size_t kIcmp = 8;
  constexpr std::size_t kTtl = 8;
  constexpr std::size_t kChecksum = 10;
  const json::array& to_server = record.at("to_server").as_array();
  const bool tunnelled = !to_server.empty();
  const Bytes frame =
      whole_frame((tunnelled ? to_server : record.at("to_client").as_array())[0].as_object());
  const std::size_t at = kEthernet + (tunnelled ? kIpv6 : kIpv4 + kIcmp);
  Bytes packet(frame.begin() + static_cast<std::ptrdiff_t>(at), frame.end());
  packet.resize(std::size_t{packet[2]} * 256 + packet[3], packet.back());
  // Quoted and tunnelled packets have been decremented, except for the one that expired.
  if (packet[kTtl] != 1) ++packet[kTtl];
  packet[kChecksum] = packet[kChecksum + 1] = 0;
  const std::uint16_t checksum = internet_checksum({packet.data(), kIpv4});
  packet[kChecksum] = static_cast<std::uint8_t>(checksum >> 8);
  packet[kChecksum + 1] = static_cast<std::uint8_t>(checksum);
  return with_ethernet(true, kEtherTypeIpv4, packet);
}

TEST(Recordings, Ipv6Packets) {
  Exclusions exclusions(kIpv6Exclusions);
  const auto records = read_json_lines("ipvs/ip6.jsonl");
  std::size_t replayed = 0;
  for (const json::object& record : records) {
    Replay replay;
    const bool packet = text_of(record, "case") == "packet";
    replay.mode = text_of(record, "mode");
    replay.label = packet ? text_of(record, "label") : "no packet";
    if (exclusions.exclude(replay.mode, replay.label)) continue;
    replay.port = replay.label.starts_with("reply") ? kServerPort : kClientPort;
    replay.sent = record.contains("sent") ? sent_ipv6(record, replay.port) : sent_ipv4(record);
    replay.to_server = &record.at("to_server").as_array();
    replay.to_client = &record.at("to_client").as_array();
    replay_one(replay);
    ++replayed;
  }
  exclusions.check();
  EXPECT_EQ(replayed, 60U);
}

}  // namespace
}  // namespace weir::test
