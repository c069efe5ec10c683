// SPDX-License-Identifier: Apache-2.0
// ICMP errors and packets that change their address family, one function at a time. The data are
// scapy's (make_icmp_cases.py) and the kernel's recordings; mutilated ones are judged by checksums.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <string_view>

#include "dataplane/path/fullnat/translate.h"
#include "dataplane/path/icmp/icmp_quote.h"
#include "dataplane/path/icmp/icmp_rewrite.h"
#include "dataplane/path/parse.h"
#include "dataplane/path/rewrite.h"
#include "dataplane/path/tunnel/tunnel_error.h"
#include "tests/support/random.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIpv4 = 20;
constexpr std::size_t kIpv6 = 40;
constexpr std::size_t kIcmp = 8;
constexpr std::size_t kHeadroom = 128;
constexpr std::uint8_t kUntouched = 0xa5;

const OwnMacs kOwnMacs({*MacAddress::parse("02:00:00:00:0a:fe"),
                        *MacAddress::parse("02:00:00:00:0b:fe")},
                       {7});

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

// A frame that ends where its buffer ends, so that a sanitizer sees a read beyond it.
class Buffer {
 public:
  explicit Buffer(std::span<const std::uint8_t> frame, std::size_t headroom = kHeadroom)
      : bytes_(headroom + frame.size(), kUntouched) {
    std::copy(frame.begin(), frame.end(), bytes_.begin() + static_cast<std::ptrdiff_t>(headroom));
    packet_.frame = bytes_.data() + headroom;
    packet_.length = static_cast<std::uint32_t>(frame.size());
    packet_.headroom = static_cast<std::uint16_t>(headroom);
    parse_frame(packet_, kOwnMacs);
  }

  Packet& packet() { return packet_; }
  const Bytes& bytes() const { return bytes_; }
  Bytes ip() const { return {packet_.ip, packet_.ip + packet_.ip_length}; }
  // What the header promises of the fields, whatever was done.
  void check() const {
    const Packet& p = packet_;
    ASSERT_EQ(p.frame - p.headroom, bytes_.data());
    ASSERT_LE(p.frame, p.ip);
    ASSERT_EQ(p.frame + p.length, p.ip + p.ip_length);
    ASSERT_LE(p.ip + p.ip_length, bytes_.data() + bytes_.size());
    ASSERT_EQ(p.ip[0] >> 4, p.family == Family::ipv4 ? 4 : 6);
    const std::size_t header = p.family == Family::ipv4 ? kIpv4 : kIpv6;
    ASSERT_LE(p.ip + header, p.transport);
    if (p.icmp_error) {
      ASSERT_EQ(p.transport + kIcmp, p.quote);
    }
    if (p.family == Family::ipv4) {
      EXPECT_EQ(p.dont_fragment, (p.ip[6] & 0x40) != 0);
    } else {
      EXPECT_TRUE(p.dont_fragment);
    }
  }

 private:
  Bytes bytes_;
  Packet packet_;
};

// ---- Actions ----

std::uint32_t number(const json::value& action, std::string_view name) {
  const json::value* value = action.as_object().if_contains(json::string_view(name));
  return value == nullptr ? 0 : value->to_number<std::uint32_t>();
}

Be16 port(const json::value& action, std::string_view name) {
  return Be16::from_host(static_cast<std::uint16_t>(number(action, name)));
}

template <class Address>
Address address(const json::value& action, std::string_view name) {
  return address_of<Address>(*IpAddress::parse(text(action.at(json::string_view(name)))));
}

template <class Address>
QuoteRewrite<Address> quote_rewrite(const json::value& action) {
  return {.sender = address<Address>(action, "sender"),
          .receiver = address<Address>(action, "receiver"),
          .peer = address<Address>(action, "peer"),
          .receiver_port = port(action, "receiver_port"),
          .peer_port = port(action, "peer_port"),
          .sequence_change = number(action, "sequence_change"),
          .growth = static_cast<std::uint16_t>(number(action, "growth"))};
}

template <class Address>
Ends<Address> ends(const json::value& action) {
  return {.source = address<Address>(action, "source"),
          .destination = address<Address>(action, "destination"),
          .source_port = port(action, "source_port"),
          .destination_port = port(action, "destination_port")};
}

Outcome perform(Packet& packet, const json::value& action) {
  const std::string what = text(action.at("do"));
  const auto id = static_cast<std::uint16_t>(number(action, "id"));
  if (what == "unwrap") {
    if (!packet.icmp_error || !unwrap_tunnel_error(packet)) return Outcome::kernel_icmp;
    const auto overhead = static_cast<std::uint16_t>(number(action, "overhead"));
    return become_error_of_tunnelled(packet, overhead, id) ? Outcome::undecided
                                                           : Outcome::kernel_icmp;
  }
  const bool v4 = packet.family == Family::ipv4;
  if (what == "rewrite") {
    if (v4) {
      rewrite_quote(packet, quote_rewrite<Ipv4Address>(action));
    } else {
      rewrite_quote(packet, quote_rewrite<Ipv6Address>(action));
    }
    return Outcome::undecided;
  }
  if (what == "translate") {
    return v4 ? translate_to_ipv6(packet, ends<Ipv6Address>(action))
              : translate_to_ipv4(packet, ends<Ipv4Address>(action), id);
  }
  return v4 ? translate_error_to_ipv6(packet, quote_rewrite<Ipv6Address>(action))
            : translate_error_to_ipv4(packet, quote_rewrite<Ipv4Address>(action), id);
}

// ---- The cases as they are ----

template <class Address>
void expect_key_of(const Packet& packet, const json::value& wanted) {
  const auto& key = packet.key<Address>();
  EXPECT_EQ(IpAddress(key.source).to_string(), text(wanted.at("source")));
  EXPECT_EQ(IpAddress(key.destination).to_string(), text(wanted.at("destination")));
  EXPECT_EQ(key.source_port.host(), number(wanted, "source_port"));
  EXPECT_EQ(key.destination_port.host(), number(wanted, "destination_port"));
  EXPECT_EQ(static_cast<unsigned>(key.protocol), number(wanted, "protocol"));
}

void expect_key(const Packet& packet, const json::value& wanted) {
  if (packet.family == Family::ipv4) {
    expect_key_of<Ipv4Address>(packet, wanted);
  } else {
    expect_key_of<Ipv6Address>(packet, wanted);
  }
}

void expect_parsed(const Packet& packet, const json::object& each) {
  EXPECT_EQ(name_of(packet.outcome), text(each.at("parsed")));
  const json::value* key = each.if_contains("key");
  const json::value* action = each.if_contains("action");
  const bool error = key != nullptr && (action == nullptr || action->at("do") != "translate");
  EXPECT_EQ(packet.icmp_error, error);
  if (key == nullptr) return;
  if (error) {
    EXPECT_EQ(packet.tcp_flags, 0);
  }
  expect_key(packet, *key);
}

// Of a tunnel error, each step by itself.
void run_unwrap(Buffer& buffer, const json::object& each) {
  Packet& packet = buffer.packet();
  const std::string wanted = text(each.at("result"));
  const Bytes before = buffer.bytes();
  const Packet as_parsed = packet;
  ASSERT_EQ(unwrap_tunnel_error(packet), wanted != "not_unwrapped");
  EXPECT_EQ(is_unwrapped(packet), wanted != "not_unwrapped");
  EXPECT_EQ(buffer.bytes(), before);
  if (!is_unwrapped(packet)) {
    EXPECT_EQ(packet.ip, as_parsed.ip);
    EXPECT_EQ(packet.outcome, as_parsed.outcome);
    return;
  }
  EXPECT_EQ(packet.outcome, Outcome::undecided);
  expect_key(packet, each.at("inner_key"));
  const json::value& action = each.at("action");
  const bool told =
      become_error_of_tunnelled(packet, static_cast<std::uint16_t>(number(action, "overhead")),
                                static_cast<std::uint16_t>(number(action, "id")));
  EXPECT_EQ(told, wanted == "undecided");
  if (told) {
    EXPECT_EQ(to_hex(buffer.ip()), text(each.at("out")));
  } else {
    EXPECT_EQ(buffer.bytes(), before);
  }
}

void run_case(const json::object& each) {
  SCOPED_TRACE(text(each.at("name")));
  Buffer buffer(from_hex(text(each.at("frame"))));
  expect_parsed(buffer.packet(), each);
  const json::value* action = each.if_contains("action");
  if (action == nullptr) return;
  if (action->at("do") == "unwrap") return run_unwrap(buffer, each);
  const int length =
      static_cast<int>(buffer.packet().ip_length) + translation_growth(buffer.packet());
  const Bytes before = buffer.bytes();
  const Outcome outcome = perform(buffer.packet(), *action);
  EXPECT_EQ(name_of(outcome), text(each.at("result")));
  ASSERT_NO_FATAL_FAILURE(buffer.check());
  if (outcome == Outcome::undecided) {
    EXPECT_EQ(to_hex(buffer.ip()), text(each.at("out")));
    if (action->at("do") == "translate") {
      EXPECT_EQ(static_cast<int>(buffer.packet().ip_length), length);
    }
  } else {
    EXPECT_EQ(to_hex(buffer.bytes()), to_hex(before));
  }
}

const json::array& cases() {
  static const json::value all = read_json("packets/icmp_cases.json");
  return all.as_array();
}

TEST(IcmpCases, AsScapyHasThem) {
  for (const json::value& each : cases()) ASSERT_NO_FATAL_FAILURE(run_case(each.as_object()));
  EXPECT_GT(cases().size(), 700U);
}

// ---- Judging by recomputation ----

std::size_t ip_header(const Bytes& packet) {
  return packet[0] >> 4 == 4 ? std::size_t{packet[0] & 0x0fU} * 4 : kIpv6;
}

std::uint8_t protocol_of(const Bytes& packet) { return packet[packet[0] >> 4 == 4 ? 9 : 6]; }

// The pseudo header and the rest of a packet without extension headers.
Bytes checksummed(const Bytes& packet, std::uint8_t protocol) {
  const std::size_t header = ip_header(packet);
  const bool v4 = packet[0] >> 4 == 4;
  Bytes sum;
  if (!v4 || protocol != 1) {
    const auto addresses = packet.begin() + (v4 ? 12 : 8);
    sum.assign(addresses, addresses + (v4 ? 8 : 32));
    const std::size_t length = packet.size() - header;
    sum.insert(sum.end(), {0, protocol, static_cast<std::uint8_t>(length >> 8),
                           static_cast<std::uint8_t>(length)});
  }
  sum.insert(sum.end(), packet.begin() + static_cast<std::ptrdiff_t>(header), packet.end());
  return sum;
}

// An IP packet whose own header and ICMP checksum are right.
void expect_sound_error(const Bytes& packet) {
  const bool v4 = packet[0] >> 4 == 4;
  if (v4) {
    EXPECT_EQ(internet_checksum({packet.data(), ip_header(packet)}), 0);
    EXPECT_EQ(std::size_t{packet[2]} * 256 + packet[3], packet.size());
  } else {
    EXPECT_EQ(std::size_t{packet[4]} * 256 + packet[5] + kIpv6, packet.size());
  }
  if (v4 || packet[6] == 58) {
    EXPECT_EQ(internet_checksum(checksummed(packet, protocol_of(packet))), 0) << to_hex(packet);
  }
}

// Cut to `length` bytes of IP packet, with the checksums that this needs.
Bytes shortened(const Bytes& frame, std::size_t ip_at, std::size_t length) {
  Bytes cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(ip_at + length));
  std::uint8_t* ip = cut.data() + ip_at;
  const bool v4 = ip[0] >> 4 == 4;
  const std::size_t told = v4 ? length : length - kIpv6;
  ip[v4 ? 2 : 4] = static_cast<std::uint8_t>(told >> 8);
  ip[v4 ? 3 : 5] = static_cast<std::uint8_t>(told);
  const auto put = [](std::uint8_t* at, std::uint16_t value) {
    at[0] = static_cast<std::uint8_t>(value >> 8);
    at[1] = static_cast<std::uint8_t>(value);
  };
  const std::size_t header = ip_header({ip, ip + length});
  if (v4) {
    put(ip + 10, 0);
    put(ip + 10, internet_checksum({ip, header}));
  }
  if (length >= header + kIcmp && (ip[v4 ? 9 : 6] == 1 || ip[v4 ? 9 : 6] == 58)) {
    put(ip + header + 2, 0);
    const Bytes packet(ip, ip + length);
    put(ip + header + 2, internet_checksum(checksummed(packet, protocol_of(packet))));
  }
  return cut;
}

bool may_perform(const Packet& packet, const json::value& action) {
  if (action.at("do") == "unwrap") return packet.icmp_error;
  return packet.outcome == Outcome::undecided;
}

// What weir sends of its own accord has its frame set with its Ethernet header.
void check_after(const Buffer& buffer, const json::value& action) {
  if (action.at("do") != "unwrap") buffer.check();
}

// Every length of every error: what is still an error leaves as a sound one.
TEST(IcmpCases, CutAtEveryByte) {
  std::size_t followed = 0;
  for (const json::value& value : cases()) {
    const json::object& each = value.as_object();
    const json::value* action = each.if_contains("action");
    if (action == nullptr) continue;
    const Bytes frame = from_hex(text(each.at("frame")));
    if (frame.size() > 400) continue;
    SCOPED_TRACE(text(each.at("name")));
    const std::size_t ip_at = frame[12] == 0x81 ? kEthernet + 4 : kEthernet;
    const std::size_t header =
        ip_header({frame.begin() + static_cast<std::ptrdiff_t>(ip_at), frame.end()});
    for (std::size_t length = header; ip_at + length < frame.size(); ++length) {
      Buffer buffer(shortened(frame, ip_at, length));
      if (!may_perform(buffer.packet(), *action)) continue;
      if (perform(buffer.packet(), *action) != Outcome::undecided) continue;
      ASSERT_NO_FATAL_FAILURE(check_after(buffer, *action));
      if (!buffer.packet().icmp_error) continue;
      ++followed;
      ASSERT_NO_FATAL_FAILURE(expect_sound_error(buffer.ip()));
    }
  }
  EXPECT_GT(followed, 9000U);
}

// Anything in the quote, with an ICMP checksum that is right.
TEST(IcmpCases, RandomQuotes) {
  Random random(20260711);
  std::size_t followed = 0;
  for (const json::value& value : cases()) {
    const json::object& each = value.as_object();
    const json::value* action = each.if_contains("action");
    if (action == nullptr || action->at("do") == "translate") continue;
    const Bytes frame = from_hex(text(each.at("frame")));
    if (frame.size() > 400) continue;
    SCOPED_TRACE(text(each.at("name")));
    const std::size_t quote_at = kEthernet + (frame[kEthernet] >> 4 == 4 ? kIpv4 : kIpv6) + kIcmp;
    for (int trial = 0; trial < 40; ++trial) {
      Bytes mutated = frame;
      for (unsigned changes = 1 + random() % 4; changes != 0; --changes) {
        // Mostly where the lengths and header chains are.
        const std::size_t reach = random() % 2 == 0 ? 12 : mutated.size() - quote_at;
        mutated[quote_at + random() % std::min(reach, mutated.size() - quote_at)] =
            static_cast<std::uint8_t>(random());
      }
      Buffer buffer(shortened(mutated, kEthernet, mutated.size() - kEthernet));
      if (!may_perform(buffer.packet(), *action)) continue;
      if (perform(buffer.packet(), *action) != Outcome::undecided) continue;
      ++followed;
      ASSERT_NO_FATAL_FAILURE(check_after(buffer, *action));
      ASSERT_NO_FATAL_FAILURE(expect_sound_error(buffer.ip()));
    }
  }
  EXPECT_GT(followed, 5000U);
}

// ---- Room ----

const json::object& named(std::string_view name) {
  for (const json::value& each : cases()) {
    if (text(each.at("name")) == name) return each.as_object();
  }
  throw std::runtime_error("no such case: " + std::string(name));
}

// Bytes that must be free before the frame for what the case does.
void expect_room(std::string_view name, std::size_t needed) {
  SCOPED_TRACE(name);
  const json::object& each = named(name);
  const Bytes frame = from_hex(text(each.at("frame")));
  for (std::size_t room = 0; room < needed; ++room) {
    Buffer buffer(frame, room);
    const Bytes before = buffer.bytes();
    EXPECT_EQ(perform(buffer.packet(), each.at("action")), Outcome::drop_no_headroom) << room;
    EXPECT_EQ(buffer.bytes(), before);
    ASSERT_NO_FATAL_FAILURE(buffer.check());
  }
  Buffer buffer(frame, needed);
  EXPECT_EQ(perform(buffer.packet(), each.at("action")), Outcome::undecided);
  EXPECT_EQ(to_hex(buffer.ip()), text(each.at("out")));
  ASSERT_NO_FATAL_FAILURE(buffer.check());
}

TEST(Translate, NeedsHeadroomTowardsIpv6) {
  expect_room("plain, ipv4 tcp to the server", kIpv6 - kIpv4 - kEthernet);
  expect_room("a vlan tag, ipv4 tcp to the server", kIpv6 - kIpv4 - kEthernet - 4);
  expect_room("plain, ipv6 tcp to the server", 0);
  expect_room("8 bytes quoted, from ipv4 to the client, tcp", 2 * (kIpv6 - kIpv4) - kEthernet);
  expect_room("8 bytes quoted, from ipv6 to the client, tcp", 0);
}

// ---- Sizes ----

Bytes udp_over_ipv4(std::size_t total) {
  Bytes frame = from_hex("020000000afe020000000c010800");
  Bytes ip = from_hex("4500000012340000401100000a0100010a090001");
  ip.resize(total, 'x');
  const std::size_t udp = total - kIpv4;
  const Bytes ports = from_hex("9c410050");
  std::copy(ports.begin(), ports.end(), ip.begin() + kIpv4);
  ip[kIpv4 + 4] = static_cast<std::uint8_t>(udp >> 8);
  ip[kIpv4 + 5] = static_cast<std::uint8_t>(udp);
  ip[kIpv4 + 6] = ip[kIpv4 + 7] = 0;
  frame.insert(frame.end(), ip.begin(), ip.end());
  return shortened(frame, kEthernet, total);
}

// Without a checksum, so that translation computes one.
Bytes udp_over_ipv6(std::size_t udp) {
  Bytes frame = from_hex(
      "020000000afe020000000c0186dd60000000000011402001"
      "0db800010000000000000000000120010db80009000000000000000000019c41005000000000");
  frame.resize(kEthernet + kIpv6 + udp, 'x');
  for (const std::size_t at : {kEthernet + 4, kEthernet + kIpv6 + 4}) {
    frame[at] = static_cast<std::uint8_t>(udp >> 8);
    frame[at + 1] = static_cast<std::uint8_t>(udp);
  }
  return frame;
}

TEST(Translate, ReassembledDatagrams) {
  const Ends<Ipv6Address> to = {IpAddress::parse("2001:db8::1")->ipv6(),
                                IpAddress::parse("2001:db8::2")->ipv6(), Be16::from_host(1),
                                Be16::from_host(2)};
  constexpr std::size_t kLongest = 65535;
  Buffer largest(udp_over_ipv4(kLongest));
  ASSERT_EQ(largest.packet().outcome, Outcome::undecided);
  EXPECT_EQ(translate_to_ipv6(largest.packet(), to), Outcome::undecided);
  ASSERT_NO_FATAL_FAILURE(largest.check());
  EXPECT_EQ(largest.ip().size(), kLongest - kIpv4 + kIpv6);
  EXPECT_EQ(internet_checksum(checksummed(largest.ip(), 17)), 0);
}

// What IPv6 carries may be too long for IPv4.
TEST(Translate, DatagramsTooLongForIpv4) {
  const Ends<Ipv4Address> to = {IpAddress::parse("10.2.0.200")->ipv4(),
                                IpAddress::parse("10.2.0.1")->ipv4(), Be16::from_host(1),
                                Be16::from_host(2)};
  constexpr std::size_t kLongest = 65535 - kIpv4;
  for (const std::size_t udp : {kLongest, kLongest + 1}) {
    Buffer buffer(udp_over_ipv6(udp));
    ASSERT_EQ(buffer.packet().outcome, Outcome::undecided);
    const Bytes before = buffer.bytes();
    const Outcome outcome = translate_to_ipv4(buffer.packet(), to, 1);
    if (udp == kLongest) {
      EXPECT_EQ(outcome, Outcome::undecided);
      EXPECT_EQ(internet_checksum(checksummed(buffer.ip(), 17)), 0);
    } else {
      EXPECT_EQ(outcome, Outcome::drop_too_big);
      EXPECT_EQ(buffer.bytes(), before);
    }
  }
}

// Reassembly made one packet of several, which leaves as fragments again.
TEST(Translate, WhatCameInFragmentsMayLeaveSo) {
  const json::object& each = named("1500 bytes, ipv6 udp to the server");
  for (const bool came_so : {true, false}) {
    Buffer buffer(from_hex(text(each.at("frame"))));
    buffer.packet().largest_fragment = came_so ? 1280 : 0;
    buffer.packet().fragment_size = came_so ? 0 : 1400;
    EXPECT_EQ(perform(buffer.packet(), each.at("action")), Outcome::undecided);
    EXPECT_FALSE(buffer.packet().dont_fragment);
    ASSERT_NO_FATAL_FAILURE(buffer.check());
    EXPECT_TRUE(ipv4_checksum_ok(buffer.ip(), 0));
  }
}

// ---- What the kernel's IPVS does with errors in nat mode ----

constexpr std::uint16_t kTcpPort = 80;
constexpr std::uint16_t kTcpServerPort = 8080;
constexpr std::uint16_t kUdpPort = 53;
constexpr std::uint16_t kUdpServerPort = 5353;

// The connection that the recording's director had for this key.
template <class Address>
Connection<Address> recorded_connection(const FlowKey<Address>& key, bool from_server) {
  Connection<Address> connection{};
  const bool tcp = key.protocol == Protocol::tcp;
  constexpr bool kV4 = sizeof(Address) == sizeof(Ipv4Address);
  const auto known = [](const char* v4, const char* v6) {
    return address_of<Address>(*IpAddress::parse(kV4 ? v4 : v6));
  };
  connection.flags = static_cast<std::uint16_t>(ForwardMode::nat);
  connection.client = from_server ? key.destination : key.source;
  connection.client_port = from_server ? key.destination_port : key.source_port;
  connection.virtual_address = known("10.9.0.1", "2001:db8:9::1");
  connection.virtual_port = Be16::from_host(tcp ? kTcpPort : kUdpPort);
  connection.server = known("10.2.0.1", "2001:db8:2::1");
  connection.server_port = Be16::from_host(tcp ? kTcpServerPort : kUdpServerPort);
  // The key is that of the error's direction.
  EXPECT_EQ(from_server ? key.source : key.destination,
            from_server ? connection.server : connection.virtual_address);
  EXPECT_EQ(from_server ? key.source_port : key.destination_port,
            from_server ? connection.server_port : connection.virtual_port);
  return connection;
}

template <class Address>
Bytes forwarded(const Bytes& frame, bool from_server) {
  Buffer buffer(frame);
  Packet& packet = buffer.packet();
  EXPECT_EQ(name_of(packet.outcome), "undecided");
  EXPECT_TRUE(packet.icmp_error);
  if (packet.decided() || !packet.icmp_error) return {};
  const auto connection = recorded_connection(packet.key<Address>(), from_server);
  decrement_hops<Address>(packet);
  rewrite_quote(packet, from_server ? error_to_client(connection)
                                    : error_to_server(connection, error_sender<Address>(packet)));
  return buffer.ip();
}

// Clears the quoted transport checksum, which IPVS leaves wrong, and with it ICMP's.
void blank_checksums(Bytes& packet) {
  const std::size_t icmp = ip_header(packet);
  packet[icmp + 2] = packet[icmp + 3] = 0;
  const std::size_t quote = icmp + kIcmp;
  const bool v4 = packet[quote] >> 4 == 4;
  const std::size_t at = quote + (v4 ? kIpv4 + (packet[quote + 9] == 6 ? 16 : 6)
                                     : kIpv6 + (packet[quote + 6] == 6 ? 16 : 6));
  if (at + 2 <= packet.size()) packet[at] = packet[at + 1] = 0;
}

// Of an error that quotes the whole packet, the quoted checksum is right after all.
void expect_quoted_checksum(const Bytes& packet) {
  const Bytes quote(packet.begin() + static_cast<std::ptrdiff_t>(ip_header(packet) + kIcmp),
                    packet.end());
  const bool v4 = quote[0] >> 4 == 4;
  const std::size_t told = std::size_t{quote[v4 ? 2 : 4]} * 256 + quote[v4 ? 3 : 5];
  if (told + (v4 ? 0 : kIpv6) != quote.size()) return;
  EXPECT_EQ(internet_checksum(checksummed(quote, protocol_of(quote))), 0) << to_hex(quote);
}

void expect_as_recorded(const Bytes& sent, bool from_server, Bytes wanted) {
  Bytes got = sent[kEthernet] >> 4 == 4 ? forwarded<Ipv4Address>(sent, from_server)
                                        : forwarded<Ipv6Address>(sent, from_server);
  ASSERT_FALSE(got.empty());
  wanted.erase(wanted.begin(), wanted.begin() + kEthernet);
  expect_sound_error(got);
  expect_quoted_checksum(got);
  blank_checksums(got);
  blank_checksums(wanted);
  EXPECT_EQ(to_hex(got), to_hex(wanted));
}

TEST(IcmpRecordings, Ipv4Nat) {
  std::size_t replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/packets.jsonl")) {
    const std::string label = text(record.at("case"));
    const bool about_a_connection =
        (label.starts_with("ICMP ") || label.starts_with("client-side ICMP ")) &&
        label.find("about a ") != std::string::npos;
    if (record.at("mode") != "nat" || !about_a_connection) continue;
    // IPVS does not follow these: it leaks the real server's address.
    if (label.find("parameter problem") != std::string::npos) continue;
    SCOPED_TRACE(label);
    const bool from_server = record.at("sent_by") != "client";
    const json::array& out = record.at(from_server ? "to_client" : "to_server").as_array();
    ASSERT_EQ(out.size(), 1U);
    ASSERT_NO_FATAL_FAILURE(
        expect_as_recorded(whole_frame(record.at("sent").as_array()[0].as_object()), from_server,
                           whole_frame(out[0].as_object())));
    ++replayed;
  }
  EXPECT_EQ(replayed, 25U);
}

// A tunnel packet's error, quoted far enough, is told to the client; one that is not, is not.
TEST(IcmpRecordings, Ipv4Tunnels) {
  std::size_t told = 0;
  std::size_t not_told = 0;
  for (const json::object& record : read_json_lines("ipvs/packets.jsonl")) {
    const std::string label = text(record.at("case"));
    if (!text(record.at("mode")).starts_with("tun-") || !label.starts_with("ICMP ")) continue;
    if (record.at("sent_by") == "client") continue;
    SCOPED_TRACE(text(record.at("mode")) + ": " + label);
    Buffer buffer(whole_frame(record.at("sent").as_array()[0].as_object()));
    ASSERT_TRUE(buffer.packet().icmp_error);
    const bool done =
        unwrap_tunnel_error(buffer.packet()) && become_error_of_tunnelled(buffer.packet(), 0, 0);
    const json::array& out = record.at("to_client").as_array();
    ASSERT_EQ(done, out.size() == 1);
    if (!done) {
      ++not_told;
      continue;
    }
    Bytes wanted = whole_frame(out[0].as_object());
    wanted.erase(wanted.begin(), wanted.begin() + kEthernet);
    blank_ipv4_id(wanted, 0);
    Bytes got = buffer.ip();
    EXPECT_TRUE(ipv4_checksum_ok(got, 0));
    blank_ipv4_id(got, 0);
    EXPECT_EQ(to_hex(got), to_hex(wanted));
    ++told;
  }
  EXPECT_EQ(told, 21U);
  EXPECT_EQ(not_told, 42U);
}

// The first 80 bytes of what was sent are recorded; the rest is what came out at the end.
TEST(IcmpRecordings, Ipv6Nat) {
  std::size_t replayed = 0;
  for (const json::object& record : read_json_lines("ipvs/ip6.jsonl")) {
    if (record.at("case") != "packet" || record.at("mode") != "nat") continue;
    const std::string label = text(record.at("label"));
    if (label.find("ICMPv6 p") == std::string::npos) continue;
    SCOPED_TRACE(label);
    const bool from_server = !label.starts_with("client-side");
    const json::array& out = record.at(from_server ? "to_client" : "to_server").as_array();
    ASSERT_EQ(out.size(), 1U);
    const Bytes wanted = whole_frame(out[0].as_object());
    Bytes sent = from_hex("020000000afe020000000c0186dd" + text(record.at("sent")));
    // Quoted destination (its last bytes), ports and checksum as before the rewriting.
    const std::size_t recorded = sent.size();
    sent.insert(sent.end(), wanted.begin() + static_cast<std::ptrdiff_t>(recorded), wanted.end());
    const std::size_t quote = kEthernet + kIpv6 + kIcmp;
    const std::string peer = from_server ? "2001:db8:2::1" : "2001:db8:1::1";
    const auto address = IpAddress::parse(peer)->ipv6();
    std::copy(address.bytes.begin(), address.bytes.end(),
              sent.begin() + static_cast<std::ptrdiff_t>(quote + 24));
    const std::size_t changed = quote + kIpv6 + (from_server ? 2 : 0);
    const std::uint16_t old_port = from_server ? kUdpServerPort : kUdpPort;
    sent[changed] = static_cast<std::uint8_t>(old_port >> 8);
    sent[changed + 1] = static_cast<std::uint8_t>(old_port);
    ASSERT_NO_FATAL_FAILURE(expect_as_recorded(sent, from_server, wanted));
    ++replayed;
  }
  EXPECT_EQ(replayed, 3U);
}

}  // namespace
}  // namespace weir::test
