// SPDX-License-Identifier: Apache-2.0
// Which class a frame for the kernel is of.
#include "dataplane/path/urgency.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/raw_frames.h"

namespace weir {

void PrintTo(Urgency urgency, std::ostream* out) {
  *out << std::array{"link", "host", "stray"}[static_cast<std::size_t>(urgency)];
}

namespace test {
namespace {

const std::string kVip4 = "10.9.0.1";
const std::string kVip6 = "2001:db8:9::1";
const MacAddress kAll = *MacAddress::parse("ff:ff:ff:ff:ff:ff");
const MacAddress kVrrpGroup = *MacAddress::parse("01:00:5e:00:00:12");
const MacAddress kSomeGroup = *MacAddress::parse("33:33:00:00:00:12");
constexpr std::uint16_t kArp = 0x0806;
constexpr std::uint16_t kLldp = 0x88cc;

Bytes tcp(std::uint16_t source, std::uint16_t destination) {
  TcpHeader header{};
  header.source_port = Be16::from_host(source);
  header.destination_port = Be16::from_host(destination);
  header.data_offset = 0x50;
  header.flags = TcpHeader::kAck;
  return in_front_of(header, {});
}

Bytes udp(std::uint16_t destination) {
  return in_front_of(UdpHeader{Be16::from_host(50000), Be16::from_host(destination),
                               Be16::from_host(sizeof(UdpHeader)), Be16{}},
                     {});
}

Bytes icmp(std::uint8_t type, const Bytes& quoted = {}) {
  return icmp_message({type, 0, Be16{}, Be16{}, Be16{}}, quoted);
}

Bytes group4(std::uint8_t protocol, const std::string& to, const Bytes& payload) {
  return ethernet_frame(kVrrpGroup, kEtherTypeIpv4,
                        ipv4_packet(protocol, kNeighbour4, to, payload));
}
Bytes group6(std::uint8_t next, const std::string& to, const Bytes& payload) {
  return ethernet_frame(kSomeGroup, kEtherTypeIpv6, ipv6_packet(next, kNeighbour6, to, payload));
}
Bytes to_us4(std::uint8_t protocol, const Bytes& payload, std::uint16_t fragment = 0,
             const std::string& to = "10.8.0.254") {
  return ethernet_frame(BurstLab::kClientSideMac, kEtherTypeIpv4,
                        ipv4_packet(protocol, kNeighbour4, to, payload, fragment));
}
Bytes to_us6(std::uint8_t next, const Bytes& payload) {
  return ethernet_frame(BurstLab::kClientSideMac, kEtherTypeIpv6,
                        ipv6_packet(next, kNeighbour6, "2001:db8:8::fe", payload));
}

// An error about a packet that `from` has sent.
Bytes error_about(const std::string& from) {
  const Bytes quoted = ipv4_packet(6, from, kNeighbour4, tcp(80, 40000));
  return to_us4(1, icmp(3, quoted), 0, from);
}

struct Case {
  const char* name;
  Urgency urgency;
  Bytes frame;
};

const std::vector<Case>& cases() {
  constexpr std::uint16_t kMore = Ipv4Header::kMoreFragments;
  const Bytes advert = ipv4_packet(112, kNeighbour4, "224.0.0.18", Bytes(20));
  static const std::vector<Case> all = {
      {"ARP", Urgency::link, ethernet_frame(kAll, kArp, Bytes(28))},
      {"ARP to us alone", Urgency::link, ethernet_frame(BurstLab::kClientSideMac, kArp, Bytes(28))},
      {"LLDP", Urgency::link, ethernet_frame(kVrrpGroup, kLldp, Bytes(28))},
      {"VRRP", Urgency::link, ethernet_frame(kVrrpGroup, kEtherTypeIpv4, advert)},
      {"VRRP, tagged", Urgency::link, tagged_frame(kVrrpGroup, 10, kEtherTypeIpv4, advert)},
      {"VRRP to us alone", Urgency::link, to_us4(112, Bytes(20))},
      {"VRRP over IPv6", Urgency::link, group6(112, "ff02::12", Bytes(24))},
      {"neighbour solicitation", Urgency::link, group6(58, "ff02::1:ff00:fe", icmp(135))},
      {"neighbour advertisement to us", Urgency::link, to_us6(58, icmp(136))},
      {"group that is routed", Urgency::host, group4(17, "239.1.2.3", udp(5000))},
      {"IPv6 group that is routed", Urgency::host, group6(17, "ff05::1:203", udp(5000))},
      {"broadcast", Urgency::host, group4(17, "10.8.255.255", udp(138))},
      {"broadcast, cut short", Urgency::host, ethernet_frame(kAll, kEtherTypeIpv4, Bytes(19))},
      {"BGP", Urgency::link, to_us4(6, tcp(40000, 179))},
      {"BGP that we asked for", Urgency::link, to_us6(6, tcp(179, 40000))},
      {"BFD", Urgency::link, to_us4(17, udp(3784))},
      {"OSPF", Urgency::link, to_us4(89, Bytes(24))},
      {"fragment, whose ports are not read", Urgency::host, to_us4(6, tcp(179, 179), kMore)},
      {"SSH", Urgency::host, to_us4(6, tcp(40000, 22))},
      {"echo request", Urgency::host, to_us4(1, icmp(8))},
      {"another protocol", Urgency::host, to_us4(47, Bytes(8))},
      {"ACK of no connection", Urgency::stray, to_us4(6, tcp(1024, 80), 0, kVip4)},
      {"ACK of no connection, IPv6", Urgency::stray,
       client_tcp({"2001:db8:1::1", 1024, kVip6, 80}, TcpHeader::kAck)},
      {"from BGP's port, but to a service", Urgency::stray, to_us4(6, tcp(179, 80), 0, kVip4)},
      {"error about a service, of no connection", Urgency::stray, error_about(kVip4)},
      {"error about the host's own", Urgency::host, error_about("10.8.0.254")},
  };
  return all;
}

TEST(Urgency, is_that_of_the_class) {
  BurstLab lab;
  for (const std::string& vip : {kVip4, kVip6}) {
    const ServiceKey key = service_key(Protocol::tcp, vip, 80);
    add_service(lab.services(), key);
    must(lab.services().add_server(
        key, server_spec(vip == kVip4 ? "10.2.0.1" : "2001:db8:2::1", 80, ForwardMode::nat)));
  }
  for (const Case& each : cases()) {
    SCOPED_TRACE(each.name);
    Frame frame(each.frame);
    Packet packet = frame.packet();
    lab.process_burst({&packet, 1});
    ASSERT_TRUE(is_for_kernel(packet.outcome)) << name_of(packet.outcome);
    EXPECT_EQ(urgency_of(packet, *lab.snapshot().index), each.urgency);
  }
}

TEST(Urgency, reply_of_no_connection_is_a_stray) {
  BurstLab lab;
  const ServiceKey key = service_key(Protocol::tcp, kVip4, 80);
  add_service(lab.services(), key);
  must(lab.services().add_server(key, server_spec("10.2.0.1", 80, ForwardMode::nat)));
  Frame frame(server_tcp({"10.2.0.1", 80, "10.1.0.1", 1024}, TcpHeader::kAck), 1);
  Packet packet = frame.packet();
  lab.process_burst({&packet, 1});
  EXPECT_EQ(packet.outcome, Outcome::kernel_reply_unmatched);
  EXPECT_EQ(urgency_of(packet, *lab.snapshot().index), Urgency::stray);
}

}  // namespace
}  // namespace test
}  // namespace weir
