// SPDX-License-Identifier: Apache-2.0
// A packet in, its outcome and bytes out. The data are scapy's (make_cases.py); what takes several
// packets, workers or edits of the services is below.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "dataplane/path/parse.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::uint8_t kSyn = TcpHeader::kSyn;
constexpr std::uint8_t kAck = TcpHeader::kAck;
constexpr std::uint8_t kFin = TcpHeader::kFin;
constexpr std::uint8_t kRst = TcpHeader::kRst;
constexpr std::uint16_t kServerSide = 1;

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

// ---- Cases of make_cases.py ----

ForwardMode mode_of(const std::string& name) {
  return name == "nat" ? ForwardMode::nat : name == "dr" ? ForwardMode::dr : ForwardMode::tun;
}

BurstLab::Shape shape_of(const json::object& lab) {
  BurstLab::Shape shape;
  if (const json::value* vlan = lab.if_contains("vlan")) {
    shape.server_vlan = vlan->to_number<std::uint16_t>();
  }
  if (const json::value* mtu = lab.if_contains("mtu")) {
    shape.server_mtu = mtu->to_number<std::uint16_t>();
  }
  return shape;
}

Protocol protocol_of(const std::string& name) {
  return name == "tcp" ? Protocol::tcp : name == "udp" ? Protocol::udp : Protocol::sctp;
}

void set_tunnel(ServerSpec& spec, const json::object& server) {
  spec.tunnel = server.at("tunnel") == "gue" ? TunnelType::gue : TunnelType::gre;
  spec.tunnel_port = server.at("tunnel_port").to_number<std::uint16_t>();
  const std::string checksum = text(server.at("tunnel_checksum"));
  spec.tunnel_checksum = checksum == "none"       ? TunnelChecksum::none
                         : checksum == "checksum" ? TunnelChecksum::checksum
                                                  : TunnelChecksum::remote;
}

void set_up(BurstLab& lab, const json::array& services) {
  for (const json::value& service : services) {
    const ServiceKey key =
        service_key(protocol_of(text(service.at("protocol"))), text(service.at("address")),
                    service.at("port").to_number<std::uint16_t>());
    add_service(lab.services(), key);
    for (const json::value& server : service.at("servers").as_array()) {
      ServerSpec spec =
          server_spec(text(server.at("address")), server.at("port").to_number<std::uint16_t>(),
                      mode_of(text(server.at("mode"))));
      if (server.as_object().contains("tunnel")) set_tunnel(spec, server.as_object());
      must(lab.services().add_server(key, spec));
    }
  }
}

void expect_bytes(const Forwarded& got, const json::object& step) {
  EXPECT_EQ(got.port, step.at("out_port").to_number<std::uint16_t>());
  Bytes expected = from_hex(text(step.at("out")));
  Bytes actual = got.bytes;
  ASSERT_EQ(actual.size(), expected.size());
  if (const json::value* free_id = step.if_contains("free_id")) {
    const auto at = free_id->to_number<std::size_t>();
    EXPECT_TRUE(ipv4_checksum_ok(actual, at));
    blank_ipv4_id(expected, at);
    blank_ipv4_id(actual, at);
  }
  if (const json::value* free_source = step.if_contains("free_udp_source")) {
    const auto at = free_source->to_number<std::size_t>();
    EXPECT_TRUE(udp_checksum_ok(actual, at)) << to_hex(actual);
    blank_udp_source_port(expected, at);
    blank_udp_source_port(actual, at);
  }
  EXPECT_EQ(to_hex(actual), to_hex(expected));
}

// What goes to the kernel is what came, but for padding.
void expect_unchanged(const Forwarded& got, const Bytes& sent) {
  ASSERT_LE(got.bytes.size(), sent.size());
  EXPECT_TRUE(std::equal(got.bytes.begin(), got.bytes.end(), sent.begin()));
}

class PacketCases : public testing::Test {
 protected:
  static void SetUpTestSuite() { cases_ = read_json("packets/cases.json"); }
  static void TearDownTestSuite() { cases_ = nullptr; }
  static const json::array& cases() { return cases_.as_array(); }

 private:
  static inline json::value cases_;
};

TEST_F(PacketCases, OutcomeAndBytes) {
  for (const json::value& entry : cases()) {
    SCOPED_TRACE(text(entry.at("name")));
    BurstLab lab(shape_of(entry.at("lab").as_object()));
    set_up(lab, entry.at("services").as_array());
    for (const json::value& value : entry.at("steps").as_array()) {
      const json::object& step = value.as_object();
      const Bytes sent = from_hex(text(step.at("frame")));
      const Forwarded got = lab.send(sent, step.at("port").to_number<std::uint16_t>());
      EXPECT_EQ(name_of(got.outcome), text(step.at("outcome")));
      EXPECT_EQ(lab.count(got.outcome), 1U);
      EXPECT_EQ(is_forwarded(got.outcome), step.contains("out"));
      if (step.contains("out")) expect_bytes(got, step);
      if (is_for_kernel(got.outcome)) expect_unchanged(got, sent);
    }
  }
}

// Outcomes that process_burst gives in tests below or in icmp_cases_test, or that the worker's loop
// gives.
const std::set<Outcome> kElsewhere = {
    Outcome::undecided,
    Outcome::fragment,
    Outcome::reset_sent,
    Outcome::probe_sent,
    Outcome::fullnat_to_server,
    Outcome::fullnat_to_client,
    Outcome::kernel_local,
    Outcome::kernel_cache_bypass,
    Outcome::kernel_icmp_short_quote,
    Outcome::handed_to_owner,
    Outcome::handed_to_chooser,
    Outcome::drop_bad_icmp_checksum,
    Outcome::drop_chained_buffer,
    Outcome::drop_fragment_duplicate,
    Outcome::drop_fragment_overlap,
    Outcome::drop_fragment_too_many,
    Outcome::drop_fragment_timeout,
    Outcome::drop_fragment_table_full,
    Outcome::drop_no_connection_unanswered,
    Outcome::drop_server_removed,
    Outcome::drop_table_full,
    Outcome::drop_no_local_port,
    Outcome::drop_local_other_port,
    Outcome::drop_stray_syn_ack,
    Outcome::drop_no_headroom,
    Outcome::drop_untranslatable,
    Outcome::drop_neighbour_queue_full,
    Outcome::drop_neighbour_unreachable,
    Outcome::drop_owner_ring_full,
    Outcome::drop_transmit_ring_full,
    Outcome::drop_transmit_full,
    Outcome::drop_no_buffer,
    Outcome::drop_exception_ring_full,
    Outcome::drop_link_ring_full,
    Outcome::drop_stray_budget,
};

TEST_F(PacketCases, EveryOutcomeHasACase) {
  std::set<std::string> seen;
  for (const json::value& entry : cases()) {
    for (const json::value& step : entry.at("steps").as_array()) {
      seen.insert(text(step.at("outcome")));
    }
  }
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    EXPECT_NE(seen.contains(std::string(name_of(outcome))), kElsewhere.contains(outcome))
        << name_of(outcome);
  }
}

// ---- Bytes that are missing or wrong; the sanitizer watches ----

// The frames of the cases that reach a real server, one of each length and start.
std::vector<json::object> forwarded_cases(const json::array& cases) {
  std::vector<json::object> chosen;
  for (const json::value& entry : cases) {
    const json::value& step = entry.at("steps").at(0);
    constexpr std::size_t kSmall = 2 * 250;
    const bool small = step.at("frame").as_string().size() < kSmall;
    if (small && text(step.at("outcome")).ends_with("_to_server")) {
      chosen.push_back(entry.as_object());
    }
  }
  return chosen;
}

std::size_t packet_offset(const Bytes& frame) { return frame[12] == 0x81 ? 18 : 14; }

std::size_t packet_length(const Bytes& frame) {
  const std::size_t at = packet_offset(frame);
  const bool v4 = frame[at] >> 4 == 4;
  const std::size_t field = at + (v4 ? 2 : 4);
  return std::size_t{frame[field]} * 256 + frame[field + 1] + (v4 ? 0 : 40);
}

TEST_F(PacketCases, TruncatedAtEveryByte) {
  for (const json::object& entry : forwarded_cases(cases())) {
    SCOPED_TRACE(text(entry.at("name")));
    BurstLab lab(shape_of(entry.at("lab").as_object()));
    set_up(lab, entry.at("services").as_array());
    const Bytes frame = from_hex(text(entry.at("steps").at(0).at("frame")));
    const std::size_t whole = packet_offset(frame) + packet_length(frame);
    for (std::size_t length = 0; length < whole; ++length) {
      const Forwarded got = lab.send({frame.data(), length});
      EXPECT_TRUE(got.outcome == Outcome::drop_truncated || got.outcome == Outcome::drop_bad_length)
          << length << ": " << name_of(got.outcome);
    }
    EXPECT_TRUE(is_forwarded(lab.send(frame).outcome));
  }
}

void correct_ipv4_checksum(Bytes& frame) {
  const std::size_t at = packet_offset(frame);
  if (frame[at] >> 4 != 4) return;
  frame[at + 10] = frame[at + 11] = 0;
  const std::size_t header = std::min<std::size_t>((frame[at] & 0xfU) * 4, frame.size() - at);
  const std::uint16_t sum = internet_checksum({&frame[at], header});
  frame[at + 10] = static_cast<std::uint8_t>(sum >> 8);
  frame[at + 11] = static_cast<std::uint8_t>(sum);
}

// The IP header says that the packet is `length` bytes long, as it is.
void shorten(Bytes& frame, std::size_t length) {
  const std::size_t at = packet_offset(frame);
  const bool v4 = frame[at] >> 4 == 4;
  frame.resize(at + length);
  const std::size_t field = at + (v4 ? 2 : 4);
  const std::size_t value = length - (v4 ? 0 : 40);
  frame[field] = static_cast<std::uint8_t>(value >> 8);
  frame[field + 1] = static_cast<std::uint8_t>(value);
  correct_ipv4_checksum(frame);
}

TEST_F(PacketCases, ShorterPackets) {
  for (const json::object& entry : forwarded_cases(cases())) {
    SCOPED_TRACE(text(entry.at("name")));
    BurstLab lab(shape_of(entry.at("lab").as_object()));
    set_up(lab, entry.at("services").as_array());
    const Bytes frame = from_hex(text(entry.at("steps").at(0).at("frame")));
    const std::size_t header = frame[packet_offset(frame)] >> 4 == 4
                                   ? (frame[packet_offset(frame)] & 0xfU) * 4
                                   : std::size_t{40};
    for (std::size_t length = header; length < packet_length(frame); ++length) {
      Bytes shorter = frame;
      shorten(shorter, length);
      const Forwarded got = lab.send(shorter);
      // TCP's payload may end anywhere; UDP has a length of its own.
      EXPECT_TRUE(got.outcome == Outcome::drop_truncated ||
                  got.outcome == Outcome::drop_bad_length || is_forwarded(got.outcome))
          << length << ": " << name_of(got.outcome);
    }
  }
}

TEST_F(PacketCases, EveryByteSpoiled) {
  for (const json::object& entry : forwarded_cases(cases())) {
    SCOPED_TRACE(text(entry.at("name")));
    BurstLab lab(shape_of(entry.at("lab").as_object()));
    set_up(lab, entry.at("services").as_array());
    const Bytes frame = from_hex(text(entry.at("steps").at(0).at("frame")));
    for (std::size_t at = 0; at < frame.size(); ++at) {
      for (const int flip : {0x01, 0x0f, 0x80, 0xff}) {
        Bytes spoiled = frame;
        spoiled[at] = static_cast<std::uint8_t>(spoiled[at] ^ flip);
        // Behind a right checksum, so that the spoiled fields are read.
        if (at >= packet_offset(frame)) correct_ipv4_checksum(spoiled);
        EXPECT_NE(lab.send(spoiled).outcome, Outcome::undecided);
      }
    }
  }
}

// ---- What parse_frame leaves ----

// A packet that another one has been in before, whose fields say what no frame says.
Packet used_packet(Frame& frame) {
  Packet packet;
  std::memset(static_cast<void*>(&packet), 0xa5, sizeof packet);
  static_cast<Arrival&>(packet) = frame.packet();
  return packet;
}

void expect_same_parsed(std::span<const std::uint8_t> bytes, const OwnMacs& macs) {
  Frame frame(bytes);
  Packet fresh = frame.packet();
  Packet used = used_packet(frame);
  parse_frame(fresh, macs);
  parse_frame(used, macs);
  EXPECT_EQ(used.outcome, fresh.outcome);
  const Parsed& of_fresh = fresh;
  const Parsed& of_used = used;
  EXPECT_EQ(std::memcmp(&of_used, &of_fresh, sizeof(Parsed)), 0);
}

TEST_F(PacketCases, NothingIsLeftOfAnEarlierPacket) {
  const OwnMacs macs({BurstLab::kClientSideMac, BurstLab::kServerSideMac});
  for (const json::value& entry : cases()) {
    SCOPED_TRACE(text(entry.at("name")));
    for (const json::value& step : entry.at("steps").as_array()) {
      const Bytes frame = from_hex(text(step.at("frame")));
      for (std::size_t length = 0; length <= frame.size(); ++length) {
        expect_same_parsed(std::span(frame).first(length), macs);
      }
    }
  }
}

// Whole bursts in packets that were in other bursts before, as a worker's are.
TEST_F(PacketCases, AUsedPacketGoesWhereAFreshOneGoes) {
  for (const json::object& entry : forwarded_cases(cases())) {
    SCOPED_TRACE(text(entry.at("name")));
    BurstLab lab(shape_of(entry.at("lab").as_object()));
    set_up(lab, entry.at("services").as_array());
    Frame frame(from_hex(text(entry.at("steps").at(0).at("frame"))));
    Packet packet = used_packet(frame);
    lab.process_burst({&packet, 1});
    EXPECT_TRUE(is_forwarded(packet.outcome)) << name_of(packet.outcome);
    EXPECT_EQ(packet.fragment_size, 0);
  }
}

// ---- Buffers ----

constexpr const char* kClient = "10.1.0.1";
constexpr const char* kVip = "10.9.0.1";
const ServiceKey kTcp = service_key(Protocol::tcp, kVip, 80);
const ServiceKey kUdp = service_key(Protocol::udp, kVip, 53);

std::string server_address(unsigned number) { return "10.2.0." + std::to_string(number); }

void add_tcp_servers(BurstLab& lab, ForwardMode mode, unsigned count) {
  add_service(lab.services(), kTcp);
  for (unsigned number = 1; number <= count; ++number) {
    must(lab.services().add_server(kTcp, server_spec(server_address(number), 8080, mode)));
  }
}

Bytes tcp(std::uint16_t port, std::uint8_t flags) {
  return client_tcp({kClient, port, kVip, 80}, flags);
}

Bytes tcp_reply(unsigned server, std::uint16_t port, std::uint8_t flags) {
  return server_tcp({server_address(server), 8080, kClient, port}, flags);
}

Outcome process(BurstLab& lab, Packet& packet) {
  lab.process_burst({&packet, 1});
  return packet.outcome;
}

TEST(PacketPath, ChainedBufferIsDropped) {
  BurstLab lab;
  add_tcp_servers(lab, ForwardMode::nat, 1);
  Frame frame(tcp(40000, kSyn));
  Packet packet = frame.packet();
  packet.chained = true;
  EXPECT_EQ(process(lab, packet), Outcome::drop_chained_buffer);
}

TEST(PacketPath, HeadroomIsNeededForWhatIsAdded) {
  const auto outcome = [](ForwardMode mode, std::uint16_t headroom, std::uint16_t vlan) {
    BurstLab lab({.server_vlan = vlan});
    add_tcp_servers(lab, mode, 1);
    Frame frame(tcp(40000, kSyn));
    Packet packet = frame.packet();
    packet.headroom = headroom;
    return process(lab, packet);
  };
  EXPECT_EQ(outcome(ForwardMode::nat, 0, 0), Outcome::nat_to_server);
  EXPECT_EQ(outcome(ForwardMode::nat, 3, 7), Outcome::drop_no_headroom);
  EXPECT_EQ(outcome(ForwardMode::nat, 4, 7), Outcome::nat_to_server);
  EXPECT_EQ(outcome(ForwardMode::tun, 19, 0), Outcome::drop_no_headroom);
  EXPECT_EQ(outcome(ForwardMode::tun, 20, 0), Outcome::tun_to_server);
}

TEST(PacketPath, TheKernelGetsNoPadding) {
  BurstLab lab;
  add_tcp_servers(lab, ForwardMode::nat, 1);
  const Bytes frame = tcp(40000, kAck);
  Bytes padded = frame;
  padded.resize(frame.size() + 6, 0xee);
  const Forwarded got = lab.send(padded);
  EXPECT_EQ(got.outcome, Outcome::kernel_no_connection);
  EXPECT_EQ(got.bytes, frame);
}

// ---- Bursts ----

struct Arrival {
  Bytes frame;
  std::uint16_t port = 0;
};

// The packets in one burst and one by one, after `before`.
void expect_same_in_a_burst(const std::vector<Arrival>& before,
                            const std::vector<Arrival>& arrivals) {
  BurstLab one_by_one;
  BurstLab at_once;
  for (BurstLab* lab : {&one_by_one, &at_once}) {
    add_tcp_servers(*lab, ForwardMode::nat, 3);
    for (const Arrival& arrival : before) lab->send(arrival.frame, arrival.port);
  }
  std::vector<Frame> frames;
  for (const Arrival& arrival : arrivals) frames.emplace_back(arrival.frame, arrival.port);
  std::vector<Packet> burst;
  for (Frame& frame : frames) burst.push_back(frame.packet());
  at_once.process_burst(burst);
  for (std::size_t i = 0; i < arrivals.size(); ++i) {
    const Forwarded alone = one_by_one.send(arrivals[i].frame, arrivals[i].port);
    EXPECT_EQ(name_of(burst[i].outcome), name_of(alone.outcome)) << i;
    const Bytes together(burst[i].frame, burst[i].frame + burst[i].length);
    EXPECT_EQ(to_hex(together), to_hex(alone.bytes)) << i;
  }
  EXPECT_EQ(at_once.worker().ipv4.size(), one_by_one.worker().ipv4.size());
}

Arrival client(std::uint16_t port, std::uint8_t flags) { return {tcp(port, flags), 0}; }

Arrival server(unsigned number, std::uint16_t port, std::uint8_t flags) {
  return {tcp_reply(number, port, flags), kServerSide};
}

TEST(PacketPath, PacketsOfABurstSeeWhatThoseBeforeThemChanged) {
  // A connection from its SYN to its end and its reuse, others between.
  expect_same_in_a_burst({}, {client(40000, kSyn), client(40000, kSyn), client(40001, kSyn),
                              server(3, 40000, kSyn | kAck), client(40000, kAck),
                              server(3, 40000, kRst), client(40000, kSyn), client(40002, kSyn),
                              client(40001, kAck), server(2, 40001, kAck), client(40000, kAck),
                              client(40003, kAck), server(3, 40000, kAck), server(1, 40000, kAck)});
}

TEST(PacketPath, APlaceThatChangesHandsInABurst) {
  // The SYN with RST closes what is over and opens nothing; another client gets the place.
  expect_same_in_a_burst({client(40000, kSyn), client(40000, kAck), client(40000, kRst)},
                         {client(40000, kSyn | kRst), client(40001, kSyn), client(40000, kAck),
                          server(3, 40000, kAck), client(40001, kAck)});
}

TEST(PacketPath, AWholeBurst) {
  std::vector<Arrival> arrivals;
  for (std::size_t i = 0; i < kMaxBurst; ++i) {
    arrivals.push_back(client(static_cast<std::uint16_t>(40000 + i % 20), kSyn));
  }
  expect_same_in_a_burst({}, arrivals);
}

// ---- A full table ----

TEST(PacketPath, AFullTableKeepsItsConnections) {
  constexpr std::uint16_t kCapacity = 8;
  BurstLab lab({.capacity = kCapacity});
  add_tcp_servers(lab, ForwardMode::nat, 1);
  for (std::uint16_t i = 0; i < kCapacity; ++i) {
    ASSERT_EQ(lab.send(tcp(static_cast<std::uint16_t>(40000 + i), kSyn)).outcome,
              Outcome::nat_to_server);
  }
  EXPECT_EQ(lab.send(tcp(50000, kSyn)).outcome, Outcome::drop_table_full);
  for (std::uint16_t i = 0; i < kCapacity; ++i) {
    const auto port = static_cast<std::uint16_t>(40000 + i);
    EXPECT_EQ(lab.send(tcp_reply(1, port, kSyn | kAck), kServerSide).outcome,
              Outcome::nat_to_client);
    EXPECT_EQ(lab.send(tcp(port, kAck)).outcome, Outcome::nat_to_server);
  }
  EXPECT_EQ(lab.send(tcp(50000, kSyn)).outcome, Outcome::drop_table_full);
  EXPECT_EQ(lab.count(Outcome::drop_table_full), 2U);
  // One ends, and there is room for one.
  EXPECT_EQ(lab.send(tcp(40000, kRst)).outcome, Outcome::nat_to_server);
  lab.pass_seconds(11);
  EXPECT_EQ(lab.send(tcp(50000, kSyn)).outcome, Outcome::nat_to_server);
  EXPECT_EQ(lab.send(tcp(50001, kSyn)).outcome, Outcome::drop_table_full);
}

// ---- Several workers ----

TEST(PacketPath, AConnectionHasOneOwnerBothWays) {
  constexpr unsigned kWorkers = 4;
  BurstLab lab({.workers = kWorkers});
  add_tcp_servers(lab, ForwardMode::nat, 1);
  std::set<unsigned> owners;
  for (std::uint16_t port = 40000; port < 40064; ++port) {
    const Forwarded first = lab.send(tcp(port, kSyn), 0, 0);
    const unsigned owner = first.outcome == Outcome::handed_to_owner ? first.owner : 0U;
    owners.insert(owner);
    const Bytes inbound = tcp(port, kSyn);
    const Bytes reply = tcp_reply(1, port, kSyn | kAck);
    for (unsigned worker = 0; worker < kWorkers; ++worker) {
      const Forwarded in = lab.send(inbound, 0, worker);
      const Forwarded back = lab.send(reply, kServerSide, worker);
      if (worker != owner) {
        EXPECT_EQ(in.outcome, Outcome::handed_to_owner);
        EXPECT_EQ(in.owner, owner);
        EXPECT_EQ(in.bytes, inbound);
        EXPECT_EQ(back.outcome, Outcome::handed_to_owner);
        EXPECT_EQ(back.owner, owner);
        EXPECT_EQ(back.bytes, reply);
      } else {
        EXPECT_EQ(in.outcome, Outcome::nat_to_server);
      }
    }
    EXPECT_EQ(lab.send(reply, kServerSide, owner).outcome, Outcome::nat_to_client);
  }
  EXPECT_EQ(owners.size(), kWorkers);
  EXPECT_EQ(lab.services().find(kTcp)->servers[0].active, 64U);
}

// ---- Edits of services and real servers ----

// [active, inactive] of a real server by its number.
Load load_of(BurstLab& lab, unsigned number) {
  const auto listing = lab.services().find(kTcp);
  if (listing.ok()) {
    for (const ServerListing& server : listing->servers) {
      if (server.spec.address == address_of(server_address(number))) {
        return {server.active, server.inactive};
      }
    }
  }
  ADD_FAILURE() << "no real server " << number;
  return {};
}

void delete_server(BurstLab& lab, unsigned number) {
  must(lab.services().delete_server(kTcp, address_of(server_address(number)), 8080));
}

void add_server(BurstLab& lab, unsigned number, ForwardMode mode, std::int32_t weight = 1) {
  must(lab.services().add_server(kTcp, server_spec(server_address(number), 8080, mode, weight)));
}

class Edits : public testing::TestWithParam<ForwardMode> {
 protected:
  // The data of an established connection arrive at the server; with `open`, after its SYN.
  Outcome data(std::uint16_t port) { return lab_.send(tcp(port, kAck)).outcome; }
  unsigned open(std::uint16_t port) {
    const Forwarded got = lab_.send(tcp(port, kSyn));
    EXPECT_TRUE(is_forwarded(got.outcome)) << name_of(got.outcome);
    EXPECT_TRUE(is_forwarded(data(port)));
    return decode(got.bytes).server;
  }
  BurstLab lab_;
};

INSTANTIATE_TEST_SUITE_P(Modes, Edits,
                         testing::Values(ForwardMode::nat, ForwardMode::dr, ForwardMode::tun),
                         [](const auto& parameter) {
                           return parameter.param == ForwardMode::nat  ? "nat"
                                  : parameter.param == ForwardMode::dr ? "dr"
                                                                       : "tun";
                         });

std::uint16_t port_of(ForwardMode mode) { return mode == ForwardMode::nat ? 8080 : 80; }

TEST_P(Edits, WeightZeroDrains) {
  add_tcp_servers(lab_, GetParam(), 2);
  EXPECT_EQ(open(40000), 2U);
  must(lab_.services().edit_server(
      kTcp, server_spec(server_address(2), port_of(GetParam()), GetParam(), 0)));
  for (std::uint16_t port = 40001; port < 40005; ++port) EXPECT_EQ(open(port), 1U);
  EXPECT_TRUE(is_forwarded(data(40000)));
  EXPECT_EQ(load_of(lab_, 2).active, 1U);
  EXPECT_EQ(load_of(lab_, 1).active, 4U);
}

TEST_P(Edits, ARemovedServersConnectionsAreSilentUntilItIsBack) {
  add_tcp_servers(lab_, GetParam(), 2);
  EXPECT_EQ(open(40000), 2U);
  EXPECT_EQ(open(40001), 1U);
  delete_server(lab_, 2);
  EXPECT_EQ(data(40000), Outcome::drop_server_removed);
  EXPECT_TRUE(is_forwarded(data(40001)));
  EXPECT_EQ(open(40002), 1U);
  lab_.settle();
  EXPECT_EQ(data(40000), Outcome::drop_server_removed);
  add_server(lab_, 2, GetParam());
  EXPECT_EQ(load_of(lab_, 2).active, 1U);
  EXPECT_TRUE(is_forwarded(data(40000)));
  EXPECT_EQ(lab_.services().find(kTcp)->servers[0].totals.connections, 1U);
}

TEST_P(Edits, ARemovedServerIsForgottenWithItsLastConnection) {
  add_tcp_servers(lab_, GetParam(), 2);
  EXPECT_EQ(open(40000), 2U);
  delete_server(lab_, 2);
  lab_.settle();
  const auto known = [&] {
    const auto& servers = lab_.snapshot().servers;
    int count = 0;
    for (std::size_t slot = 0; slot < servers.size(); ++slot) count += servers[slot] != nullptr;
    return count;
  };
  EXPECT_EQ(known(), 2);
  lab_.pass_seconds(901);
  lab_.settle();
  EXPECT_EQ(known(), 1);
  add_server(lab_, 2, GetParam());
  EXPECT_EQ(load_of(lab_, 2).active, 0U);
  EXPECT_EQ(lab_.services().find(kTcp)->servers[0].totals.connections, 0U);
  EXPECT_EQ(open(40000), 2U);
}

TEST_P(Edits, WithExpireNodestConnARemovedServersConnectionsAreOver) {
  add_tcp_servers(lab_, GetParam(), 2);
  must(lab_.services().set_setting("expire_nodest_conn", "1"));
  EXPECT_EQ(open(40000), 2U);
  delete_server(lab_, 2);
  EXPECT_EQ(data(40000), Outcome::kernel_no_connection);
  EXPECT_EQ(open(40000), 1U);
}

TEST_P(Edits, WithExpireNodestConnASynLeavesADrainedServer) {
  add_tcp_servers(lab_, GetParam(), 2);
  EXPECT_EQ(open(40000), 2U);
  must(lab_.services().edit_server(
      kTcp, server_spec(server_address(2), port_of(GetParam()), GetParam(), 0)));
  EXPECT_EQ(open(40000), 2U);
  must(lab_.services().set_setting("expire_nodest_conn", "1"));
  EXPECT_TRUE(is_forwarded(data(40000)));
  EXPECT_EQ(open(40000), 1U);
  EXPECT_EQ(load_of(lab_, 2).active, 0U);
}

TEST_P(Edits, ARemovedServiceIsSilentUntilItsConnectionsAreOver) {
  add_tcp_servers(lab_, GetParam(), 1);
  EXPECT_EQ(open(40000), 1U);
  must(lab_.services().delete_service(kTcp));
  lab_.settle();
  EXPECT_EQ(data(40000), Outcome::drop_server_removed);
  EXPECT_EQ(lab_.send(tcp(40001, kSyn)).outcome, Outcome::kernel_no_connection);
  EXPECT_EQ(lab_.services().steered_services().size(), 1U);
  lab_.pass_seconds(901);
  lab_.settle();
  EXPECT_TRUE(lab_.services().steered_services().empty());
  EXPECT_TRUE(lab_.services().steered_servers().empty());
  EXPECT_EQ(data(40000), Outcome::kernel_not_a_service);
}

TEST_P(Edits, ARemovedServiceWithoutConnectionsIsForgottenAtOnce) {
  add_tcp_servers(lab_, GetParam(), 2);
  must(lab_.services().delete_service(kTcp));
  lab_.settle();
  EXPECT_TRUE(lab_.services().steered_services().empty());
  EXPECT_EQ(lab_.send(tcp(40000, kSyn)).outcome, Outcome::kernel_not_a_service);
}

TEST_P(Edits, AVipThatThisHostLosesIsTheKernels) {
  add_tcp_servers(lab_, GetParam(), 1);
  EXPECT_EQ(open(40000), 1U);
  lab_.disown(address_of(kVip));
  EXPECT_EQ(data(40000), Outcome::kernel_not_a_service);
  lab_.own(address_of(kVip));
  EXPECT_TRUE(is_forwarded(data(40000)));
}

TEST(PacketPath, RepliesOfARemovedServerStillReachTheClient) {
  BurstLab lab;
  add_tcp_servers(lab, ForwardMode::nat, 1);
  ASSERT_EQ(lab.send(tcp(40000, kSyn)).outcome, Outcome::nat_to_server);
  delete_server(lab, 1);
  lab.settle();
  EXPECT_EQ(lab.send(tcp_reply(1, 40000, kAck), kServerSide).outcome, Outcome::nat_to_client);
}

// ---- Counters ----

TEST(PacketPath, CountersAreOfTheIpPacketAsItArrived) {
  BurstLab lab;
  add_tcp_servers(lab, ForwardMode::nat, 1);
  constexpr std::size_t kEthernet = 14;
  const Bytes in = client_tcp({kClient, 40000, kVip, 80}, kSyn, "four");
  const Bytes out = server_tcp({server_address(1), 8080, kClient, 40000}, kFin, "seven..");
  lab.send(in);
  lab.send(in);
  lab.send(out, kServerSide);
  const Totals totals = lab.services().find(kTcp)->servers[0].totals;
  EXPECT_EQ(totals.connections, 1U);
  EXPECT_EQ(totals.packets_in, 2U);
  EXPECT_EQ(totals.bytes_in, 2 * (in.size() - kEthernet));
  EXPECT_EQ(totals.packets_out, 1U);
  EXPECT_EQ(totals.bytes_out, out.size() - kEthernet);
}

}  // namespace
}  // namespace weir::test
