// SPDX-License-Identifier: Apache-2.0
// Checksums that are the pseudo header's sum alone, as from a veth with its default offloads: in
// every mode and both ways, what leaves has right ones.
#include <gtest/gtest.h>

#include <string>

#include "dataplane/net/checksum.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frame_checks.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"

namespace weir::test {
namespace {

constexpr std::size_t kEthernet = sizeof(EthernetHeader);
constexpr std::uint16_t kPort = 80;
constexpr std::uint16_t kClientPort = 1024;
const std::string kText = "an odd number of bytes, which a sum of words pads.";

struct Case {
  std::string name;
  Family family;
  Protocol protocol;
  ForwardMode mode;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const bool v4 : {true, false}) {
    for (const auto& [protocol, name] :
         {std::pair{Protocol::tcp, "tcp"}, {Protocol::udp, "udp"}, {Protocol::sctp, "sctp"}}) {
      for (const auto& [mode, word] : {std::pair{ForwardMode::nat, "nat"},
                                       {ForwardMode::dr, "dr"},
                                       {ForwardMode::tun, "tun"},
                                       {ForwardMode::fullnat, "fullnat"}}) {
        if (protocol == Protocol::sctp && mode == ForwardMode::fullnat) continue;
        cases.push_back({std::string(name) + "_" + word + (v4 ? "_ipv4" : "_ipv6"),
                         v4 ? Family::ipv4 : Family::ipv6, protocol, mode});
      }
    }
  }
  return cases;
}

std::size_t transport_at(const Bytes& frame) {
  return kEthernet + (frame[kEthernet] >> 4 == 4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header));
}

// As a kernel leaves it that counts on the device.
template <class Address, class Header>
std::uint16_t pseudo_sum(const Bytes& frame, Protocol protocol) {
  const auto header = load<Header>(frame.data() + kEthernet);
  const auto length = static_cast<std::uint32_t>(frame.size() - transport_at(frame));
  return fold_checksum(
      pseudo_header_sum<Address>(header.source, header.destination, protocol, length));
}

Bytes unfinished(Bytes frame, Protocol protocol) {
  std::uint8_t* transport = frame.data() + transport_at(frame);
  if (protocol == Protocol::sctp) {
    std::fill_n(transport + offsetof(SctpHeader, checksum), sizeof(Be32), std::uint8_t{0});
    return frame;
  }
  const bool v4 = frame[kEthernet] >> 4 == 4;
  const std::uint16_t sum = v4 ? pseudo_sum<Ipv4Address, Ipv4Header>(frame, protocol)
                               : pseudo_sum<Ipv6Address, Ipv6Header>(frame, protocol);
  const std::size_t at =
      protocol == Protocol::tcp ? offsetof(TcpHeader, checksum) : offsetof(UdpHeader, checksum);
  std::copy_n(reinterpret_cast<const std::uint8_t*>(&sum), sizeof sum, transport + at);
  return frame;
}

class UnfinishedChecksum : public testing::TestWithParam<Case> {
 protected:
  UnfinishedChecksum() {
    const Case& test = GetParam();
    const bool v4 = test.family == Family::ipv4;
    vip_ = v4 ? "10.9.0.1" : "2001:db8:9::1";
    client_ = v4 ? "10.1.0.1" : "2001:db8:1::1";
    server_ = v4 ? "10.2.0.1" : "2001:db8:2::1";
    local_ = v4 ? "10.2.0.254" : "2001:db8:2::254";
    lab_.worker().unfinished_checksum_ports = 3;
    if (test.mode == ForwardMode::fullnat) {
      lab_.own(address_of(local_));
      must(lab_.services().add_local_addresses({address_of(local_), address_of(local_)}, {}));
    }
    const ServiceKey key = service_key(test.protocol, vip_, kPort);
    add_service(lab_.services(), key);
    must(lab_.services().add_server(key, server_spec(server_, kPort, test.mode)));
  }

  Bytes from_client() const {
    const Flow flow{client_, kClientPort, vip_, kPort};
    if (GetParam().protocol == Protocol::udp) return client_udp(flow, kText);
    if (GetParam().protocol == Protocol::sctp) return client_sctp(flow, {1});
    return client_tcp(flow, TcpHeader::kSyn, kText);
  }
  Bytes from_server(const Flow& flow) const {
    if (GetParam().protocol == Protocol::udp) return server_udp(flow, kText);
    if (GetParam().protocol == Protocol::sctp) return server_sctp(flow, {2});
    return server_tcp(flow, TcpHeader::kSyn | TcpHeader::kAck, kText);
  }

  BurstLab lab_;
  std::string vip_, client_, server_, local_;
};

TEST_P(UnfinishedChecksum, is_right_when_the_packet_leaves) {
  const Protocol protocol = GetParam().protocol;
  const Bytes unfinished_in = unfinished(from_client(), protocol);
  ASSERT_NE(fault_of(unfinished_in), "");
  const Forwarded in = lab_.send(unfinished_in);
  ASSERT_TRUE(is_forwarded(in.outcome)) << name_of(in.outcome);
  EXPECT_EQ(fault_of(in.bytes), "");
  const ForwardMode mode = GetParam().mode;
  if (mode != ForwardMode::nat && mode != ForwardMode::fullnat) return;

  const Flow sent = decode(in.bytes).flow;
  const Bytes answer =
      unfinished(from_server({server_, kPort, sent.source, sent.source_port}), protocol);
  const Forwarded out = lab_.send(answer, 1);
  ASSERT_TRUE(is_forwarded(out.outcome)) << name_of(out.outcome);
  EXPECT_EQ(fault_of(out.bytes), "");
}

TEST_P(UnfinishedChecksum, wrong_one_stays_wrong) {
  Bytes frame = from_client();
  frame[transport_at(frame) + 4] ^= 1;  // a sequence number, a length or a tag
  if (GetParam().protocol == Protocol::udp) return;
  const Forwarded in = lab_.send(frame);
  EXPECT_NE(fault_of(in.bytes), "");
}

TEST_P(UnfinishedChecksum, is_left_alone_on_other_ports) {
  lab_.worker().unfinished_checksum_ports = 2;
  const Forwarded in = lab_.send(unfinished(from_client(), GetParam().protocol));
  EXPECT_NE(fault_of(in.bytes), "");
}

INSTANTIATE_TEST_SUITE_P(Each, UnfinishedChecksum, testing::ValuesIn(all_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace weir::test
