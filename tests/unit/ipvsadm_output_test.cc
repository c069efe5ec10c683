// SPDX-License-Identifier: Apache-2.0
// The parts of ipvsadm's output that the recordings do not reach; the expected texts are what
// ipvsadm 1.31 printed for these numbers.
#include "control/cli/ipvsadm_output.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/fake_name_lookup.h"

namespace weir {
namespace {

ServiceListing service(const char* address, std::uint16_t port) {
  return {
      .spec = {
          .key = {.protocol = Protocol::tcp, .address = *IpAddress::parse(address), .port = port},
          .scheduler = "rr"}};
}

ServerListing server(const char* address, ForwardMode mode) {
  return {.spec = {.address = *IpAddress::parse(address), .port = 80, .mode = mode}};
}

std::string statistics_of(std::uint64_t connections, NumberStyle numbers) {
  ServiceListing listing = service("1.1.1.1", 80);
  listing.totals.connections = connections;
  const std::string line =
      service_lines(listing, {.columns = IpvsadmColumns::statistics, .numbers = numbers});
  const std::string rest = "        0        0        0        0\n";
  EXPECT_TRUE(line.ends_with(rest)) << line;
  return line.substr(33, line.size() - 33 - rest.size());
}

TEST(IpvsadmOutput, LargeNumbersGetAUnit) {
  const auto shown = [](std::uint64_t number) {
    return statistics_of(number, NumberStyle::short_units);
  };
  EXPECT_EQ(shown(99'999'999), " 99999999");
  EXPECT_EQ(shown(100'000'000), "  100000K");
  EXPECT_EQ(shown(999'999'999), "  999999K");
  EXPECT_EQ(shown(1'000'000'000), "    1000M");
  EXPECT_EQ(shown(99'999'999'999), "   99999M");
  EXPECT_EQ(shown(100'000'000'000), "     100G");
  EXPECT_EQ(shown(99'999'999'999'999), "   99999G");
  EXPECT_EQ(shown(100'000'000'000'000), "     100T");
  EXPECT_EQ(shown(18'446'744'073'709'551'615ULL), "18446744T");
}

TEST(IpvsadmOutput, ExactNumbersTakeTheRoomThatTheyNeed) {
  EXPECT_EQ(statistics_of(5, NumberStyle::exact), "        5");
  EXPECT_EQ(statistics_of(18'446'744'073'709'551'615ULL, NumberStyle::exact),
            " 18446744073709551615");
}

TEST(IpvsadmOutput, OnlyBytesOfARealServersRatesAreShortened) {
  ServiceListing listing = service("1.1.1.1", 80);
  listing.servers = {server("2.2.2.2", ForwardMode::nat)};
  listing.servers[0].rates = {123'456'789, 123'456'789, 123'456'789, 123'456'789, 123'456'789};
  EXPECT_EQ(service_lines(listing, {.columns = IpvsadmColumns::rates}),
            "TCP  1.1.1.1:80                          0        0        0        0        0\n"
            "  -> 2.2.2.2:80                   123456789 123456789 123456789  123456K  123456K\n");
}

TEST(IpvsadmOutput, AddressesSortByTheirSignedDifference) {
  ServiceListing listing = service("10.9.0.1", 80);
  // Newest first; ipvsadm on this list gives the order below.
  for (const char* address : {"::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "255.1.1.1",
                              "127.0.0.1", "192.168.0.1", "10.0.0.1"})
    listing.servers.push_back(server(address, ForwardMode::tun));
  std::vector<ServiceListing> services = {listing};
  sort_services(services);
  std::vector<std::string> order;
  for (const ServerListing& entry : services[0].servers)
    order.push_back(entry.spec.address.to_string());
  EXPECT_EQ(order,
            (std::vector<std::string>{"255.1.1.1", "::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                                      "127.0.0.1", "192.168.0.1", "10.0.0.1"}));
}

TEST(IpvsadmOutput, ServicesSortByMarkFamilyProtocolAddressAndPort) {
  const auto mark = [](std::uint32_t value, const IpAddress& family) {
    return ServiceListing{
        .spec = {.key = {.protocol = Protocol::ip, .address = family, .fwmark = value}}};
  };
  ServiceListing udp = service("1.1.1.1", 80);
  udp.spec.key.protocol = Protocol::udp;
  std::vector<ServiceListing> services = {
      mark(7, IpAddress(Ipv6Address{})), mark(7, IpAddress()),    service("1::1", 80),       udp,
      service("10.0.0.1", 81),           service("10.0.0.1", 80), service("192.168.0.1", 80)};
  sort_services(services);
  std::string order;
  for (const ServiceListing& entry : services) {
    const std::string lines = service_lines(entry, {});
    order += lines.substr(0, lines.find(' ', 5)) + ";";
  }
  EXPECT_EQ(order,
            "TCP  192.168.0.1:80;TCP  10.0.0.1:80;TCP  10.0.0.1:81;UDP  1.1.1.1:80;"
            "TCP  [1::1]:80;FWM  7;FWM  7;");
  EXPECT_NE(service_lines(services.back(), {}).find("FWM  7 IPv6"), std::string::npos);
}

TEST(IpvsadmOutput, LongIpv4NamesAreCutAndIpv6NamesAreNot) {
  FakeNameLookup names;
  ServiceListing listing = service("10.2.0.2", 80);
  listing.servers = {server("2001:db8:5::1", ForwardMode::tun)};
  EXPECT_EQ(service_lines(listing, {.names = &names}),
            "TCP  real-server-with-a-very-long rr\n"
            "  -> [ipv6-server-with-a-very-long-name.example.org]:http Tunnel  1      0          "
            "0         \n");
}

TEST(IpvsadmOutput, TunnelsShowTypePortAndChecksum) {
  ServiceListing listing = service("1.1.1.1", 80);
  ServerListing tunnel = server("2.2.2.2", ForwardMode::tun);
  tunnel.spec.tunnel = TunnelType::gue;
  tunnel.spec.tunnel_port = 65535;
  tunnel.spec.tunnel_checksum = TunnelChecksum::remote;
  listing.servers = {tunnel};
  EXPECT_EQ(
      service_lines(listing, {.columns = IpvsadmColumns::tunnels}),
      "TCP  1.1.1.1:80 rr\n"
      "  -> 2.2.2.2:80                   Tunnel  gue:65535:r+c 1      0          0         \n");
}

TEST(IpvsadmOutput, PersistentConnectionsHaveTheirColumns) {
  ServiceListing listing = service("1.1.1.1", 80);
  listing.servers = {server("2.2.2.2", ForwardMode::nat)};
  listing.servers[0].persistent = 4294967295;
  listing.servers[0].active = 276447231;
  const ListingStyle style{.columns = IpvsadmColumns::persistent_connections};
  EXPECT_EQ(column_titles(style),
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n"
            "  -> RemoteAddress:Port\n");
  EXPECT_EQ(service_lines(listing, style),
            "TCP  1.1.1.1:80 rr\n"
            "  -> 2.2.2.2:80                   1         4294967295  276447231  0         \n");
}

TEST(IpvsadmOutput, ConnectionsShowMinutesBeyondAnHour) {
  const ConnectionListing connection{.protocol = Protocol::tcp,
                                     .state = "ESTABLISHED",
                                     .expires = 89600,
                                     .client = *IpAddress::parse("2001:db8::1"),
                                     .client_port = 46000,
                                     .virtual_address = *IpAddress::parse("2001:db8::100"),
                                     .virtual_port = 80,
                                     .server = *IpAddress::parse("10.2.0.4"),
                                     .server_port = 80};
  EXPECT_EQ(connection_line(connection, nullptr),
            "TCP 1493:20 ESTABLISHED [2001:db8::1]:46000 [2001:db8::100]:80 10.2.0.4:80\n");
}

TEST(IpvsadmOutput, DaemonsShowWhatIsSet) {
  EXPECT_EQ(daemon_line({.sync_id = 7}), "master sync daemon (mcast=eth0, syncid=7)\n");
  EXPECT_EQ(
      daemon_line({.role = SyncDaemonSpec::Role::backup,
                   .interface = "eth1",
                   .max_length = 100,
                   .group = IpAddress::parse("ff02::1"),
                   .port = 9,
                   .ttl = 3}),
      "backup sync daemon (mcast=eth1, syncid=0, maxlen=100, group=ff02::1, port=9, ttl=3)\n");
}

TEST(IpvsadmOutput, SavedRulesKeepEveryOption) {
  ServiceListing listing = service("2001:db8::1", 80);
  listing.spec.persistence_timeout = 30;
  listing.spec.persistence_mask = 64;
  listing.spec.persistence_engine = "sip";
  listing.spec.one_packet = true;
  listing.spec.scheduler_flags = {"flag-1", "flag-3"};
  ServerListing tunnel = server("10.2.0.1", ForwardMode::tun);
  tunnel.spec.tunnel = TunnelType::gre;
  listing.servers = {tunnel};
  EXPECT_EQ(saved_lines(listing, nullptr),
            "-A -t [2001:db8::1]:80 -s rr -p 30 -M 64 --pe sip -o -b flag-1,flag-3\n"
            "-a -t [2001:db8::1]:80 -r 10.2.0.1:80 -i -w 1 --tun-type gre --tun-nocsum\n");
}

TEST(IpvsadmOutput, RealServersOnTheDirectorAreLocalWhereThatIsAsked) {
  ServiceListing listing = service("10.9.0.1", 80);
  listing.servers = {server("127.0.0.1", ForwardMode::nat)};
  listing.servers[0].is_local = true;
  EXPECT_NE(service_lines(listing, {}).find(" Masq "), std::string::npos) << "as IPVS shows it";
  const ListingStyle style{.modes = ServerModes::in_effect};
  EXPECT_NE(service_lines(listing, style).find(" Local "), std::string::npos);
  EXPECT_NE(saved_lines(listing, nullptr).find(" -m "), std::string::npos);
}

// ipvsadm -Lc --persistent-conn.
TEST(IpvsadmOutput, PersistentConnectionsHaveTitlesForTheirEngines) {
  EXPECT_EQ(connection_titles(IpvsadmColumns::persistent_connections),
            "IPVS connection entries\npro expire state       source             virtual            "
            "destination        pe name          pe_data\n");
}

TEST(IpvsadmOutput, FullNatIsShownAndSaved) {
  ServiceListing listing = service("10.9.0.1", 80);
  listing.servers = {server("10.2.0.1", ForwardMode::fullnat)};
  EXPECT_NE(service_lines(listing, {}).find(" FullNAT "), std::string::npos);
  EXPECT_NE(saved_lines(listing, nullptr).find("--fullnat -w 1\n"), std::string::npos);
}

// ipvsadm writes marks above 2^31 as negative numbers, which it does not read again.
TEST(IpvsadmOutput, LargeMarksStayPositive) {
  const ServiceListing listing{
      .spec = {.key = {.protocol = Protocol::ip, .fwmark = 4294967295U}, .scheduler = "rr"}};
  EXPECT_EQ(saved_lines(listing, nullptr), "-A -f 4294967295 -s rr\n");
  EXPECT_EQ(service_lines(listing, {}), "FWM  4294967295 rr\n");
}

}  // namespace
}  // namespace weir
