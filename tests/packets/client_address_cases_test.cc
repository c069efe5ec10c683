// SPDX-License-Identifier: Apache-2.0
// TOA and PROXY headers packet by packet: the bytes are scapy's (make_client_address_cases.py). How
// they fare on a network is in tests/unit/client_address_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "dataplane/net/wire_headers.h"
#include "dataplane/path/fullnat/client_address.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

namespace json = boost::json;

constexpr std::size_t kRoom = 64;  // before the Ethernet header

std::string text(const json::value& value) { return json::value_to<std::string>(value); }

Protocol protocol_of(const json::value& name) {
  return name == "tcp" ? Protocol::tcp : Protocol::udp;
}

std::size_t transport_offset(const Bytes& ip) {
  if (ip[0] >> 4 == 4) return std::size_t{ip[0] & 0xfU} * 4;
  constexpr std::size_t kIpv6 = 40;
  return ip[6] == kIpv6DestinationOptions ? kIpv6 + 8 : kIpv6;
}

// A packet in a buffer of its own, behind an Ethernet header, as the packet path has it.
class Buffer {
 public:
  explicit Buffer(const Bytes& ip) : storage_(kRoom + sizeof(EthernetHeader) + ip.size(), 0xee) {
    std::copy(ip.begin(), ip.end(), storage_.end() - static_cast<std::ptrdiff_t>(ip.size()));
    packet.headroom = kRoom;
    packet.frame = storage_.data() + kRoom;
    packet.ip = packet.frame + sizeof(EthernetHeader);
    packet.transport = packet.ip + transport_offset(ip);
    packet.ip_length = static_cast<std::uint16_t>(ip.size());
    packet.length = static_cast<std::uint16_t>(sizeof(EthernetHeader) + ip.size());
    packet.family = ip[0] >> 4 == 4 ? Family::ipv4 : Family::ipv6;
  }
  Bytes bytes() const {
    EXPECT_EQ(packet.frame, storage_.data() + packet.headroom);
    EXPECT_EQ(packet.ip, packet.frame + sizeof(EthernetHeader));
    EXPECT_EQ(packet.length, sizeof(EthernetHeader) + packet.ip_length);
    const Bytes ip(packet.ip, packet.ip + packet.ip_length);
    EXPECT_EQ(packet.transport, packet.ip + transport_offset(ip));
    return ip;
  }

  Packet packet;

 private:
  Bytes storage_;
};

class Case {
 public:
  explicit Case(const json::object& description)
      : how_(description.at("how") == "toa" ? ClientAddress::toa : ClientAddress::proxy),
        protocol_(protocol_of(description.at("protocol"))),
        mtu_(description.at("mtu").to_number<std::uint16_t>()) {
    std::tie(ends_.client, ends_.client_port) = end_of(description.at("client").as_array());
    std::tie(ends_.virtual_address, ends_.virtual_port) =
        end_of(description.at("service").as_array());
  }

  void run(const json::object& step) {
    const Bytes before = from_hex(text(step.at("in")));
    Buffer buffer(before);
    const std::string outcome = pass(buffer.packet, step.at("to") == "server");
    if (const json::value* named = step.if_contains("outcome")) {
      EXPECT_EQ(outcome, text(*named));
      EXPECT_EQ(to_hex(buffer.bytes()), to_hex(before)) << "changed, though it does not go on";
      return;
    }
    EXPECT_EQ(outcome, "undecided");
    EXPECT_EQ(to_hex(buffer.bytes()), text(step.at("out")));
  }

 private:
  static std::pair<IpAddress, Be16> end_of(const json::array& end) {
    return {IpAddress::parse(text(end[0])).value(),
            Be16::from_host(end[1].to_number<std::uint16_t>())};
  }

  std::string pass(Packet& packet, bool to_server) {
    if (protocol_ == Protocol::udp)
      return std::string(name_of(prepend_proxy_header(packet, ends_)));
    if (to_server) {
      if (!is_active(shift_)) shift_ = begin_shift(packet, how_, ends_.client.family());
      return std::string(name_of(pass_to_server(packet, shift_, ends_, mtu_)));
    }
    if (!pass_to_client(packet, shift_)) return "dropped";
    if (how_ == ClientAddress::proxy) {
      clamp_mss(packet, largest_mss(shift_, packet.family, mtu_));
    }
    return "undecided";
  }

  ClientAddress how_;
  Protocol protocol_;
  std::uint16_t mtu_;
  ClientEnds ends_;
  SequenceShift shift_{};
};

TEST(ClientAddressCases, bytes_are_as_scapy_has_them) {
  const json::value cases = read_json("packets/client_address.json");
  std::size_t steps = 0;
  for (const json::value& description : cases.as_array()) {
    SCOPED_TRACE(text(description.at("name")));
    Case connection(description.as_object());
    std::size_t number = 0;
    for (const json::value& step : description.at("steps").as_array()) {
      SCOPED_TRACE("step " + std::to_string(number++));
      connection.run(step.as_object());
      ++steps;
    }
  }
  EXPECT_GT(steps, 250U);
}

TEST(ClientAddressCases, a_datagram_beyond_65535_bytes_is_refused) {
  const ClientEnds ends{IpAddress::parse("10.1.0.1").value(), IpAddress::parse("10.9.0.1").value(),
                        Be16::from_host(1), Be16::from_host(2)};
  for (const std::size_t size : {65535U - 28U, 65535U - 27U}) {
    Bytes ip(size);
    ip[0] = 0x45;
    ip[20 + 4] = static_cast<std::uint8_t>((size - 20) >> 8);
    ip[20 + 5] = static_cast<std::uint8_t>(size - 20);
    Buffer buffer(ip);
    const Outcome outcome = prepend_proxy_header(buffer.packet, ends);
    EXPECT_EQ(outcome, size == 65535 - 28 ? Outcome::undecided : Outcome::drop_too_big);
  }
}

}  // namespace
}  // namespace weir::test
