// SPDX-License-Identifier: Apache-2.0
// Fragments through a director: one datagram, one connection, in every mode, whatever the order of
// arrival and whichever worker gets which. The data are scapy's (make_fragments.py).
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/burst_lab.h"
#include "tests/support/frame_checks.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/random.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::size_t kEthernet = 14;
constexpr std::uint16_t kClientSide = 0;
constexpr std::uint16_t kPort = 53;

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

ForwardMode mode_of(const std::string& name) {
  return name == "nat" ? ForwardMode::nat : name == "dr" ? ForwardMode::dr : ForwardMode::tun;
}

Protocol protocol_of(const std::string& name) {
  return name == "tcp" ? Protocol::tcp : name == "udp" ? Protocol::udp : Protocol::sctp;
}

void set_up(BurstLab& lab, const json::array& services) {
  for (const json::value& service : services) {
    const ServiceKey key =
        service_key(protocol_of(text(service.at("protocol"))), text(service.at("address")),
                    service.at("port").to_number<std::uint16_t>());
    add_service(lab.services(), key);
    for (const json::value& server : service.at("servers").as_array()) {
      must(lab.services().add_server(
          key, server_spec(text(server.at("address")), server.at("port").to_number<std::uint16_t>(),
                           mode_of(text(server.at("mode"))))));
    }
  }
}

std::vector<Bytes> frames_of(const json::value& list) {
  std::vector<Bytes> frames;
  for (const json::value& frame : list.as_array()) frames.push_back(from_hex(text(frame)));
  return frames;
}

// One frame from worker to worker until one decides.
Forwarded deliver(BurstLab& lab, const Bytes& frame, std::uint16_t port, unsigned worker) {
  Forwarded got = lab.send(frame, port, worker);
  for (int hops = 0; got.outcome == Outcome::handed_to_owner && hops < 3; ++hops) {
    got = lab.send(got.bytes, got.port, got.owner, got.largest_fragment);
  }
  return got;
}

// Each to another worker. What becomes of the last; the others are kept.
Forwarded deliver_all(BurstLab& lab, const std::vector<Bytes>& frames, std::uint16_t port,
                      unsigned workers) {
  Forwarded got;
  for (std::size_t i = 0; i < frames.size(); ++i) {
    got = deliver(lab, frames[i], port, static_cast<unsigned>(i % workers));
    if (i + 1 < frames.size()) {
      EXPECT_EQ(got.outcome, Outcome::fragment_kept) << name_of(got.outcome);
    }
  }
  return got;
}

std::vector<Bytes> leaving(const Forwarded& got) {
  return got.pieces.empty() ? std::vector<Bytes>{got.bytes} : got.pieces;
}

// The id that the director chose: the same in every piece.
void blank_ids(std::vector<Bytes>& pieces) {
  const bool v4 = pieces[0][kEthernet] >> 4 == 4;
  const std::size_t at = kEthernet + (v4 ? 4 : 44);
  const std::size_t length = v4 ? 2 : 4;
  const Bytes id(pieces[0].begin() + static_cast<std::ptrdiff_t>(at),
                 pieces[0].begin() + static_cast<std::ptrdiff_t>(at + length));
  for (Bytes& piece : pieces) {
    EXPECT_TRUE(std::equal(id.begin(), id.end(), piece.begin() + static_cast<std::ptrdiff_t>(at)));
    if (v4) {
      EXPECT_TRUE(ipv4_checksum_ok(piece, kEthernet));
      blank_ipv4_id(piece, kEthernet);
    } else {
      std::fill_n(piece.begin() + static_cast<std::ptrdiff_t>(at), length, std::uint8_t{0});
    }
  }
}

void expect_pieces(std::vector<Bytes> actual, std::vector<Bytes> expected, bool free_id) {
  ASSERT_EQ(actual.size(), expected.size());
  if (free_id) {
    blank_ids(actual);
    blank_ids(expected);
  }
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(to_hex(actual[i]), to_hex(expected[i])) << i;
  }
}

class Fragments : public testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Workers, Fragments, testing::Values(1U, 2U, 4U));

TEST_P(Fragments, LeaveAsScapyHasThem) {
  const json::value data = read_json("packets/fragments.json");
  for (const json::value& entry : data.at("paths").as_array()) {
    SCOPED_TRACE(text(entry.at("name")));
    BurstLab lab({.workers = GetParam()});
    set_up(lab, entry.at("services").as_array());
    for (const json::value& step : entry.at("steps").as_array()) {
      const Forwarded got = deliver_all(lab, frames_of(step.at("frames")),
                                        step.at("port").to_number<std::uint16_t>(), GetParam());
      EXPECT_EQ(name_of(got.outcome), text(step.at("outcome")));
      EXPECT_EQ(got.port, step.at("out_port").to_number<std::uint16_t>());
      expect_pieces(leaving(got), frames_of(step.at("outs")), step.at("free_id").as_bool());
    }
    EXPECT_EQ(lab.datagrams().in_use(), 0U);
  }
}

// ---- Cut in the test ----

struct Cut {
  std::size_t size = 576;  // of a fragment's IP packet
  std::uint16_t id = 1;
  bool dont_fragment = false;
};

// An IPv4 frame as fragments, in order.
std::vector<Bytes> cut(const Bytes& frame, const Cut& how) {
  constexpr std::size_t kHeader = 20;
  const std::size_t step = (how.size - kHeader) / 8 * 8;
  std::vector<Bytes> fragments;
  for (std::size_t at = kEthernet + kHeader; at < frame.size(); at += step) {
    const std::size_t length = std::min(step, frame.size() - at);
    const bool more = at + length < frame.size();
    Bytes fragment(frame.begin(), frame.begin() + kEthernet + kHeader);
    fragment.insert(fragment.end(), frame.begin() + static_cast<std::ptrdiff_t>(at),
                    frame.begin() + static_cast<std::ptrdiff_t>(at + length));
    const auto put = [&](std::size_t field, std::size_t value) {
      fragment[kEthernet + field] = static_cast<std::uint8_t>(value >> 8);
      fragment[kEthernet + field + 1] = static_cast<std::uint8_t>(value);
    };
    put(2, kHeader + length);
    put(4, how.id);
    put(6, (at - kEthernet - kHeader) / 8 + (more ? 0x2000 : 0) + (how.dont_fragment ? 0x4000 : 0));
    put(10, 0);
    put(10, internet_checksum({fragment.data() + kEthernet, kHeader}));
    fragments.push_back(std::move(fragment));
  }
  return fragments;
}

Flow flow_of(unsigned client, std::uint16_t port = 4000) {
  return {"10.1.0." + std::to_string(client), port, "10.9.0.1", kPort};
}

ServiceKey udp_service(BurstLab& lab, ForwardMode mode, unsigned servers = 1) {
  const ServiceKey key = service_key(Protocol::udp, "10.9.0.1", kPort);
  add_service(lab.services(), key);
  for (unsigned i = 1; i <= servers; ++i) {
    must(lab.services().add_server(key, server_spec("10.2.0." + std::to_string(i), kPort, mode)));
  }
  return key;
}

// A datagram in fragments and one that is whole belong to one connection.
TEST_P(Fragments, AreOfTheFlowsConnection) {
  BurstLab lab({.workers = GetParam()});
  udp_service(lab, ForwardMode::nat, 5);
  for (unsigned client = 1; client <= 50; ++client) {
    const Flow flow = flow_of(client);
    const Forwarded whole = deliver(lab, client_udp(flow), kClientSide, client % GetParam());
    ASSERT_EQ(whole.outcome, Outcome::nat_to_server);
    const std::vector<Bytes> fragments = cut(client_udp(flow, std::string(2000, 'a')), {});
    const Forwarded got = deliver_all(lab, fragments, kClientSide, GetParam());
    ASSERT_EQ(got.outcome, Outcome::nat_to_server);
    EXPECT_EQ(decode(got.pieces.at(0)).server, decode(whole.bytes).server);
  }
  std::size_t connections = 0;
  for (unsigned i = 0; i < GetParam(); ++i) connections += lab.worker(i).ipv4.size();
  EXPECT_EQ(connections, 50U);
}

// The most that a UDP datagram of IPv4 can carry; in a tunnel it is too long.
TEST_P(Fragments, TheLargestDatagram) {
  const Bytes whole = client_udp(flow_of(1), std::string(65507, 'a'));
  const std::vector<Bytes> fragments = cut(whole, {.size = 1500});
  for (const ForwardMode mode : {ForwardMode::nat, ForwardMode::dr, ForwardMode::tun}) {
    BurstLab lab({.workers = GetParam()});
    udp_service(lab, mode);
    const Forwarded got = deliver_all(lab, fragments, kClientSide, GetParam());
    EXPECT_EQ(lab.datagrams().in_use(), 0U);
    if (mode == ForwardMode::tun) {
      EXPECT_EQ(name_of(got.outcome), "drop_too_big");
      continue;
    }
    ASSERT_TRUE(is_forwarded(got.outcome)) << name_of(got.outcome);
    ASSERT_EQ(got.pieces.size(), fragments.size());
    Bytes payload;
    for (const Bytes& piece : got.pieces) {
      payload.insert(payload.end(), piece.begin() + kEthernet + 20, piece.end());
    }
    // Behind the UDP header, which nat changes.
    EXPECT_TRUE(std::equal(payload.begin() + 8, payload.end(), whole.begin() + kEthernet + 28,
                           whole.end()));
  }
}

// Clients' datagrams interleaved, in random order, over all workers.
TEST_P(Fragments, OfManyClientsAtOnce) {
  BurstLab lab({.workers = GetParam()});
  udp_service(lab, ForwardMode::dr, 3);
  Random random(5);
  struct Sent {
    Bytes frame;
    std::string payload;
  };
  std::vector<Bytes> frames;
  constexpr unsigned kClients = 100;
  for (unsigned client = 1; client <= kClients; ++client) {
    const std::string payload(1000 + random() % 3000, static_cast<char>(client));
    for (Bytes& fragment : cut(client_udp(flow_of(client), payload), {})) {
      frames.push_back(std::move(fragment));
    }
  }
  for (std::size_t i = frames.size(); i > 1; --i) {
    std::swap(frames[i - 1], frames[random() % i]);
  }
  std::size_t forwarded = 0;
  for (const Bytes& frame : frames) {
    const Forwarded got = deliver(lab, frame, kClientSide, random() % GetParam());
    if (got.outcome == Outcome::fragment_kept) continue;
    ASSERT_EQ(got.outcome, Outcome::dr_to_server) << name_of(got.outcome);
    const Decoded decoded = decode(got.pieces.at(0));
    const auto client = static_cast<std::uint8_t>(got.bytes[kEthernet + 15]);
    EXPECT_EQ(decoded.flow.source, flow_of(client).source);
    for (std::size_t i = kEthernet + 28; i < got.bytes.size(); ++i) {
      ASSERT_EQ(got.bytes[i], client);
    }
    ++forwarded;
  }
  EXPECT_EQ(forwarded, kClients);
  EXPECT_EQ(lab.count(Outcome::dr_to_server), kClients);
  EXPECT_EQ(lab.datagrams().in_use(), 0U);
}

// ---- The way out ----

TEST(FragmentsOut, ASmallerMtuCutsWhatMayBeCut) {
  for (const ForwardMode mode : {ForwardMode::nat, ForwardMode::dr, ForwardMode::tun}) {
    BurstLab lab({.server_mtu = 1000});
    udp_service(lab, mode);
    const Bytes frame = client_udp(flow_of(1), std::string(1400, 'a'));
    const Forwarded got = lab.send(frame);
    ASSERT_TRUE(is_forwarded(got.outcome)) << name_of(got.outcome);
    ASSERT_EQ(got.pieces.size(), 2U);
    for (const Bytes& piece : got.pieces) EXPECT_LE(piece.size(), kEthernet + 1000);
    EXPECT_EQ(got.pieces[0].size(), kEthernet + 20 + 976);
  }
}

// The sender of fragments with DF is told when the largest does not fit, not when the whole does
// not.
TEST(FragmentsOut, FragmentsWithDf) {
  for (const std::uint16_t mtu : {std::uint16_t{600}, std::uint16_t{575}}) {
    BurstLab lab({.server_mtu = mtu});
    udp_service(lab, ForwardMode::nat);
    const std::vector<Bytes> fragments = cut(client_udp(flow_of(1), std::string(1400, 'a')),
                                             {.size = 576, .id = 9, .dont_fragment = true});
    const Forwarded got = deliver_all(lab, fragments, kClientSide, 1);
    if (mtu >= 576) {
      ASSERT_EQ(got.outcome, Outcome::nat_to_server);
      ASSERT_EQ(got.pieces.size(), fragments.size());
      for (std::size_t i = 0; i < fragments.size(); ++i) {
        EXPECT_EQ(got.pieces[i].size(), fragments[i].size());
        EXPECT_EQ(got.pieces[i][kEthernet + 6] & 0x40, 0x40);
      }
    } else {
      ASSERT_EQ(mtu, 575);
      // 572 bytes is the largest: a multiple of 8 and the header.
      EXPECT_EQ(got.outcome, Outcome::nat_to_server);
    }
  }
  BurstLab lab({.server_mtu = 571});
  udp_service(lab, ForwardMode::nat);
  const std::vector<Bytes> fragments = cut(client_udp(flow_of(1), std::string(1400, 'a')),
                                           {.size = 576, .id = 9, .dont_fragment = true});
  const Forwarded got = deliver_all(lab, fragments, kClientSide, 1);
  ASSERT_EQ(got.outcome, Outcome::icmp_error_sent);
  EXPECT_TRUE(got.pieces.empty());
  EXPECT_EQ(got.bytes[kEthernet + 20], 3);  // fragmentation needed
  EXPECT_EQ(got.bytes[kEthernet + 21], 4);
  EXPECT_EQ(got.bytes[kEthernet + 26] * 256 + got.bytes[kEthernet + 27], 571);
}

TEST(FragmentsOut, ANextHopThatIsNotKnownYetKeepsTheWholeDatagram) {
  BurstLab lab;
  const ServiceKey key = service_key(Protocol::udp, "10.9.0.1", kPort);
  add_service(lab.services(), key);
  must(lab.services().add_server(key, server_spec("10.2.0.200", kPort, ForwardMode::nat)));
  const Forwarded got =
      deliver_all(lab, cut(client_udp(flow_of(1), std::string(1400, 'a')), {}), kClientSide, 1);
  EXPECT_EQ(got.outcome, Outcome::waiting_for_neighbour);
}

// ---- Whose they are ----

TEST(FragmentsIn, OfNoServiceAreTheKernels) {
  BurstLab lab;
  udp_service(lab, ForwardMode::nat);
  Flow flow = flow_of(1);
  flow.destination = "10.8.0.254";
  for (const Bytes& fragment : cut(client_udp(flow, std::string(1400, 'a')), {})) {
    const Forwarded got = lab.send(fragment);
    EXPECT_EQ(got.outcome, Outcome::kernel_not_a_service);
    EXPECT_EQ(got.bytes, fragment);
  }
}

// Only the whole shows that its port is not a service's.
TEST(FragmentsIn, ToAnotherPortAreTheKernelsOnceWhole) {
  BurstLab lab;
  udp_service(lab, ForwardMode::nat);
  Flow flow = flow_of(1);
  flow.destination_port = 54;
  const Bytes whole = client_udp(flow, std::string(1400, 'a'));
  const Forwarded got = deliver_all(lab, cut(whole, {}), kClientSide, 1);
  EXPECT_EQ(got.outcome, Outcome::kernel_not_a_service);
  EXPECT_EQ(got.largest_fragment, 572);
  EXPECT_TRUE(std::equal(got.bytes.begin() + kEthernet + 20, got.bytes.end(),
                         whole.begin() + kEthernet + 20, whole.end()));
}

// ---- Those that do not come ----

// Without the first fragment nobody knows what to tell the sender.
TEST(FragmentsMissing, TheFirst) {
  BurstLab lab;
  udp_service(lab, ForwardMode::nat);
  const std::vector<Bytes> fragments = cut(client_udp(flow_of(1), std::string(1400, 'a')), {});
  EXPECT_EQ(lab.send(fragments[1]).outcome, Outcome::fragment_kept);
  lab.pass_seconds(29);
  EXPECT_EQ(lab.count(Outcome::drop_fragment_timeout), 0U);
  lab.pass_seconds(2);
  EXPECT_EQ(lab.count(Outcome::drop_fragment_timeout), 1U);
  EXPECT_EQ(lab.count(Outcome::icmp_error_sent), 0U);
  EXPECT_EQ(lab.datagrams().in_use(), 0U);
}

// RFC 792 and RFC 4443 section 3.3, from `source` back to the sender of `fragment`, quoting it.
void expect_time_exceeded(const Forwarded& told, const Bytes& fragment, const IpAddress& source) {
  ASSERT_EQ(name_of(told.outcome), "icmp_error_sent");
  EXPECT_EQ(fault_of(told.bytes), "");
  const bool v4 = source.is_ipv4();
  const std::size_t header = v4 ? 20 : 40;
  const auto part = [](const Bytes& frame, std::size_t from, std::size_t length) {
    return to_hex({frame.data() + kEthernet + from, length});
  };
  const std::size_t address = v4 ? 4 : 16;
  const std::size_t addresses = header - 2 * address;
  EXPECT_EQ(part(told.bytes, addresses, address), to_hex({source.bytes().data(), address}));
  EXPECT_EQ(part(told.bytes, addresses + address, address), part(fragment, addresses, address));
  EXPECT_EQ(part(told.bytes, header, 2), v4 ? "0b01" : "0301");
  EXPECT_EQ(part(told.bytes, header + 4, 4), "00000000");
  const std::size_t quoted = told.bytes.size() - kEthernet - header - 8;
  EXPECT_EQ(quoted, std::min<std::size_t>(fragment.size() - kEthernet, v4 ? 548 : 1232));
  EXPECT_EQ(part(told.bytes, header + 8, quoted), part(fragment, 0, quoted));
}

TEST_P(Fragments, MissingTheSenderIsTold) {
  for (const std::size_t size : {std::size_t{100}, std::size_t{1500}}) {
    BurstLab lab({.workers = GetParam()});
    udp_service(lab, ForwardMode::nat);
    const std::vector<Bytes> fragments =
        cut(client_udp(flow_of(1), std::string(4000, 'a')), {.size = size});
    for (const std::size_t i : {std::size_t{1}, std::size_t{0}}) {
      EXPECT_EQ(deliver(lab, fragments[i], kClientSide, GetParam() - 1).outcome,
                Outcome::fragment_kept);
    }
    lab.pass_seconds(31);
    const std::vector<Forwarded> told = lab.take_overdue();
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].port, kClientSide);
    expect_time_exceeded(told[0], fragments[0], *IpAddress::parse("10.9.0.1"));
    EXPECT_EQ(lab.count(Outcome::icmp_error_sent), 1U);
    EXPECT_EQ(lab.count(Outcome::drop_fragment_timeout), 0U);
    EXPECT_EQ(lab.datagrams().in_use(), 0U);
  }
}

TEST(FragmentsMissing, ARealServerIsToldByTheInterfaceThatFacesIt) {
  constexpr std::uint16_t kServerSide = 1;
  BurstLab lab;
  udp_service(lab, ForwardMode::nat);
  const Flow flow = {"10.2.0.1", kPort, "10.1.0.1", 4000};
  const Bytes first = cut(server_udp(flow, std::string(1400, 'a')), {})[0];
  ASSERT_EQ(lab.send(first, kServerSide).outcome, Outcome::fragment_kept);
  lab.pass_seconds(31);
  const std::vector<Forwarded> told = lab.take_overdue();
  ASSERT_EQ(told.size(), 1U);
  EXPECT_EQ(told[0].port, kServerSide);
  expect_time_exceeded(told[0], first, *IpAddress::parse("10.2.0.254"));
}

TEST(FragmentsMissing, TheSenderIsToldOverIpv6) {
  const json::value data = read_json("packets/fragments.json");
  for (const json::value& entry : data.at("paths").as_array()) {
    const std::vector<Bytes> fragments = frames_of(entry.at("steps").at(0).at("frames"));
    if (fragments.size() < 2 || fragments[0][kEthernet] >> 4 != 6) continue;
    SCOPED_TRACE(text(entry.at("name")));
    BurstLab lab;
    set_up(lab, entry.at("services").as_array());
    const auto port = entry.at("steps").at(0).at("port").to_number<std::uint16_t>();
    std::size_t first = 0;
    // Offset and more fragments, behind the IPv6 header.
    while (fragments[first][kEthernet + 42] != 0 || fragments[first][kEthernet + 43] != 1) ++first;
    ASSERT_EQ(lab.send(fragments[first], port).outcome, Outcome::fragment_kept);
    lab.pass_seconds(61);
    const std::vector<Forwarded> told = lab.take_overdue();
    ASSERT_EQ(told.size(), 1U);
    expect_time_exceeded(
        told[0], fragments[first],
        *IpAddress::parse(port == kClientSide ? "2001:db8:9::1" : "2001:db8:2::254"));
    return;
  }
  FAIL() << "no fragments of IPv6";
}

// As of all other errors, the table's 256 datagrams are more than one worker may tell of at once.
TEST(FragmentsMissing, ErrorsAreLimited) {
  BurstLab lab;
  udp_service(lab, ForwardMode::nat);
  for (std::uint16_t id = 0; id < Reassembly::kDatagrams; ++id) {
    const Bytes first = cut(client_udp(flow_of(1), std::string(1400, 'a')), {.id = id})[0];
    ASSERT_EQ(lab.send(first).outcome, Outcome::fragment_kept);
  }
  lab.pass_seconds(31);
  EXPECT_EQ(lab.count(Outcome::icmp_error_sent), 200U);
  EXPECT_EQ(lab.count(Outcome::drop_fragment_timeout), Reassembly::kDatagrams - 200);
  EXPECT_EQ(lab.datagrams().in_use(), 0U);
}

TEST(FragmentsMissing, NobodyIsToldOfAServiceThatIsGone) {
  BurstLab lab;
  const ServiceKey key = udp_service(lab, ForwardMode::nat);
  const Bytes first = cut(client_udp(flow_of(1), std::string(1400, 'a')), {})[0];
  ASSERT_EQ(lab.send(first).outcome, Outcome::fragment_kept);
  must(lab.services().delete_service(key));
  lab.settle();
  lab.pass_seconds(31);
  EXPECT_EQ(lab.count(Outcome::drop_fragment_timeout), 1U);
}

// ---- Too many ----

TEST(FragmentsIn, AFullTableIsCounted) {
  BurstLab lab;
  udp_service(lab, ForwardMode::nat);
  for (std::uint16_t id = 0; id < Reassembly::kDatagrams + 5; ++id) {
    const Bytes first = cut(client_udp(flow_of(1), std::string(1400, 'a')), {.id = id})[0];
    ASSERT_EQ(lab.send(first).outcome, Outcome::fragment_kept);
  }
  EXPECT_EQ(lab.count(Outcome::drop_fragment_table_full), 5U);
  EXPECT_EQ(lab.count(Outcome::icmp_error_sent), 0U);
}

// A fragment inside a reassembled datagram is not collected again.
TEST(FragmentsIn, AFragmentOfAFragmentIsRefused) {
  BurstLab lab;
  const ServiceKey key = service_key(Protocol::udp, "2001:db8:9::1", kPort);
  add_service(lab.services(), key);
  must(lab.services().add_server(key, server_spec("2001:db8:2::1", kPort, ForwardMode::nat)));
  // Destination options, then another fragment header, which only the whole shows.
  const std::string head =
      "020000000afe020000000c0186dd6000000000283c40"
      "20010db800010000000000000000000120010db8000900000000000000000001";
  Bytes inner = from_hex(
      "2c00010400000000"
      "1100000100000009"
      "0001003500100000"
      "0102030405060708");
  const auto fragment = [&](std::size_t from, std::size_t length, bool more) {
    Bytes frame = from_hex(head);
    frame[kEthernet + 6] = 44;
    frame[kEthernet + 5] = static_cast<std::uint8_t>(8 + length);
    Bytes header = {60, 0, 0, static_cast<std::uint8_t>(from + (more ? 1 : 0)), 0, 0, 0, 1};
    frame.insert(frame.end(), header.begin(), header.end());
    frame.insert(frame.end(), inner.begin() + static_cast<std::ptrdiff_t>(from),
                 inner.begin() + static_cast<std::ptrdiff_t>(from + length));
    return frame;
  };
  EXPECT_EQ(lab.send(fragment(16, 16, false)).outcome, Outcome::fragment_kept);
  EXPECT_EQ(lab.send(fragment(0, 16, true)).outcome, Outcome::drop_fragment_malformed);
  EXPECT_EQ(lab.datagrams().in_use(), 0U);
}

}  // namespace
}  // namespace weir::test
