// SPDX-License-Identifier: Apache-2.0
// What ipvsadm 1.31 made of these command lines, on a machine of its own: error texts, exit codes,
// and what it asked of the kernel.
#include "control/cli/ipvsadm_arguments.h"

#include <gtest/gtest.h>

#include <ostream>
#include <sstream>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tests/support/fake_name_lookup.h"

namespace weir {
namespace {

std::variant<IpvsadmRequest, IpvsadmUsageError> parse(const std::vector<std::string>& arguments) {
  FakeNameLookup names;
  return parse_ipvsadm_arguments(arguments, names);
}

std::variant<IpvsadmRequest, IpvsadmUsageError> parse(const char* line) {
  std::istringstream words(line);
  std::vector<std::string> arguments;
  for (std::string word; words >> word;) arguments.push_back(word);
  return parse(arguments);
}

IpvsadmRequest request(const char* line) {
  const auto parsed = parse(line);
  const auto* error = std::get_if<IpvsadmUsageError>(&parsed);
  EXPECT_EQ(error, nullptr) << line << ": " << error->message;
  return error == nullptr ? std::get<IpvsadmRequest>(parsed) : IpvsadmRequest{};
}

struct Wrong {
  const char* line;
  const char* message;
  int exit_code = 2;
};

std::ostream& operator<<(std::ostream& out, const Wrong& wrong) { return out << wrong.line; }

class IpvsadmArgumentsWrong : public testing::TestWithParam<Wrong> {};

TEST_P(IpvsadmArgumentsWrong, LineGetsIpvsadmsMessage) {
  const auto parsed = parse(GetParam().line);
  const auto* error = std::get_if<IpvsadmUsageError>(&parsed);
  ASSERT_NE(error, nullptr);
  EXPECT_EQ(error->message, GetParam().message);
  EXPECT_EQ(error->exit_code, GetParam().exit_code);
}

constexpr const char* kTryHelp = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.";
constexpr const char* kIllegalService = "illegal virtual server address[:port] specified";

INSTANTIATE_TEST_SUITE_P(
    Scanning, IpvsadmArgumentsWrong,
    testing::Values(
        Wrong{"x", kTryHelp, 255}, Wrong{"-", kTryHelp, 255}, Wrong{"--", kTryHelp, 255},
        Wrong{"-n -L", kTryHelp, 255}, Wrong{"--set=1 2 3", kTryHelp, 255},
        Wrong{"--start-daemon", kTryHelp, 255}, Wrong{"x -C", "unexpected argument x"},
        Wrong{"-A -t", "-t: missing argument", 255}, Wrong{"-Lnct", "-Lnct: missing argument", 255},
        Wrong{"-A --tcp-service", "--tcp-service: missing argument", 255},
        Wrong{"-A --tcp 1.1.1.1:80", "--tcp: unknown option", 255},
        Wrong{"-L -nQ", "-nQ: unknown option", 255}, Wrong{"-A --=", "--=: unknown option", 255},
        Wrong{"-A ---", "---: unknown option", 255},
        Wrong{"-L --nope=3", "--nope=3: unknown option", 255},
        Wrong{"-L -n=", "-n=: option does not take an argument", 255},
        Wrong{"-L --numeric=5", "--numeric=5: option does not take an argument", 255},
        Wrong{"-A -t 1.1.1.1:80 -p -5", "-5: unknown option", 255},
        Wrong{"-A -t 1.1.1.1:80 -nD", "invalid option `-nD'"},
        Wrong{"-C --list", "invalid option `--list'"}, Wrong{"-L -- -n", "unexpected argument -n"},
        Wrong{"-L -", "unexpected argument -"}));

INSTANTIATE_TEST_SUITE_P(
    Values, IpvsadmArgumentsWrong,
    testing::Values(
        Wrong{"-A -t [::1]", kIllegalService}, Wrong{"-A -t [::1:80", kIllegalService},
        Wrong{"-A -t [::1]80", kIllegalService}, Wrong{"-A -t 1.1.1.1:", kIllegalService},
        Wrong{"-A -t 1.1.1.1:65536", kIllegalService}, Wrong{"-A -t :80", kIllegalService},
        Wrong{"-A -t 1.1.1.1:tftp", kIllegalService}, Wrong{"-A -t 600", kIllegalService},
        Wrong{"-A -t 1.1.1.1:80:80", kIllegalService},
        Wrong{"-A -t nosuch.example:80", kIllegalService},
        Wrong{"-a -r 1.1.1.1:http -t 1.1.1.1:80", "illegal real server address[:port] specified"},
        Wrong{"-A -f 0x10", "invalid fwmark value `0x10' specified"},
        Wrong{"-A -f -1", "invalid fwmark value `-1' specified"},
        Wrong{"-A -6 -f 1", "-6 used before -f\n"},
        Wrong{"-A -t 1.1.1.1:80 -p=", "invalid timeout value `' specified"},
        Wrong{"-A -u 1.1.1.1:80 -po5", "invalid timeout value `o5' specified"},
        Wrong{"-C -M bogus", "illegal virtual server persistent mask specified"},
        Wrong{"-A -t [::1]:80 -p -M 0", "illegal ipv6 netmask specified"},
        Wrong{"-A -t 1.1.1.1:80 -s mh -b bogus", "invalid scheduler flag `bogus'"},
        Wrong{"-A -t 1.1.1.1:80 -s mh -b sh-port", "incompatible scheduler flag `sh-port'"},
        Wrong{"-A -t 1.1.1.1:80 -b sh-port", "incompatible scheduler flag `sh-port'"},
        Wrong{"-a -f 1 -r 1.1.1.1 -i --tun-port 0", "illegal tunnel port specified"},
        Wrong{"-a -f 1 -r 1.1.1.1 -i --tun-type GUE", "illegal tunnel type specified"},
        Wrong{"-a -f 1 -r 1.1.1.1 -y 2147483648", "illegal l_threshold specified"},
        Wrong{"--set 1 2 x", "invalid timeout value `x' specified"},
        Wrong{"--set 1 2 2678401", "invalid timeout value `2678401' specified"},
        Wrong{"--set 1 2 3 4", "unexpected argument 4"},
        Wrong{"--stop-daemon x", "illegal start_daemon specified"},
        Wrong{"--start-daemon master --mcast-group 1.2.3.4", "invalid IPv4 mcast-group `1.2.3.4'"},
        Wrong{"--start-daemon master --mcast-group fe80::1", "invalid IPv6 mcast-group `fe80::1'"},
        Wrong{"--start-daemon master --mcast-port 0", "illegal mcast-port specified"},
        Wrong{"--start-daemon master --mcast-ttl 256", "illegal mcast-ttl specified"},
        Wrong{"--start-daemon master --sync-maxlen 65508", "illegal sync-maxlen specified"},
        Wrong{"-L --syncid 256", "illegal syncid specified"}));

INSTANTIATE_TEST_SUITE_P(
    Rules, IpvsadmArgumentsWrong,
    testing::Values(
        Wrong{"-A -t 1.1.1.1:80 -u 1.1.1.1:81", "multiple 'service-address' options specified"},
        Wrong{"-a -t 1.1.1.1:80 -r 2.2.2.2 -i -m",
              "multiple 'forwarding-method' options specified"},
        Wrong{"-A -n", "Illegal 'numeric' option with the 'add-service' command"},
        Wrong{"-A -m",
              "You need to supply the 'service-address' option for the 'add-service' "
              "command"},
        Wrong{"-L -c -t 1.1.1.1:80",
              "The option 'service-address' conflicts with the 'connection' option in the 'list' "
              "command"},
        Wrong{"-L --timeout --daemon",
              "The option 'daemon' conflicts with the 'timeout' option in the 'list' command"},
        Wrong{"-Lc --rate", "options conflicts in the list command"},
        Wrong{"-L --daemon --persistent-conn", "options conflicts in the list command"},
        Wrong{"-S --stats", "Illegal 'stats' option with the 'save' command"},
        Wrong{"-A -u 1.1.1.1:0 -o", "Zero port specified for non-persistent service"},
        Wrong{"-A --sctp-service 1.1.1.1:80 -o",
              "One-Packet Scheduling is only for UDP virtual services"},
        Wrong{"-a -f 1 -6 -r 2.2.2.2 -m",
              "Different address family is allowed only for tunneling servers"},
        Wrong{"-a -t 1.1.1.1:80 -r 2.2.2.2 --tun-csum",
              "Tunnel options conflict with forward method"},
        Wrong{"-a -t 1.1.1.1:80 -r 2.2.2.2 -i --tun-csum",
              "Illegal 'tun-csum' option with the 'ipip' tunnel type"},
        Wrong{"-a -t 1.1.1.1:80 -r 2.2.2.2 -i --tun-type gue --tun-port 1 --tun-csum --tun-remcsum",
              "The option 'tun-remcsum' conflicts with the 'tun-csum' option in the 'gue' tunnel "
              "type"},
        Wrong{"-A -b bogus x", "unexpected argument x"},
        Wrong{"--set 1 2 3 -b bogus", "invalid scheduler flag `bogus'"}));

TEST(IpvsadmArguments, WhatPoptFindsWrongDoesNotEndARestoreOtherUsageErrorsDo) {
  using Severity = IpvsadmUsageError::Severity;
  EXPECT_EQ(std::get<IpvsadmUsageError>(parse("-A -Q")).severity, Severity::skips_line);
  EXPECT_EQ(std::get<IpvsadmUsageError>(parse("-A")).severity, Severity::ends_restore);
  EXPECT_EQ(std::get<IpvsadmUsageError>(parse("garbage")).severity, Severity::ends_restore);
}

TEST(IpvsadmArguments, EverySpellingOfAServiceIsTheSameService) {
  for (const char* line : {"-A -t 1.1.1.1:80", "-At 1.1.1.1:80", "-At1.1.1.1:80", "-At=1.1.1.1:80",
                           "--add-service --tcp-service=1.1.1.1:80", "-A -t 1.1.1.1:http",
                           "-A -t 0x01010101:080", "-A -t 1.1.1.1:+80"}) {
    const IpvsadmRequest parsed = request(line);
    ASSERT_TRUE(parsed.service) << line;
    const ServiceKey key{
        .protocol = Protocol::tcp, .address = *IpAddress::parse("1.1.1.1"), .port = 80};
    EXPECT_EQ(parsed.service->key, key) << line;
    EXPECT_EQ(parsed.service->scheduler, "wlc") << line;
  }
}

TEST(IpvsadmArguments, AnEmptyArgumentIsUnexpectedAndAnEmptySchedulerIsTheDefault) {
  EXPECT_EQ(std::get<IpvsadmUsageError>(parse({"-L", ""})).message, "unexpected argument ");
  const auto parsed = parse({"-A", "-t", "1.1.1.1:80", "-s", ""});
  EXPECT_EQ(std::get<IpvsadmRequest>(parsed).service->scheduler, "wlc");
}

TEST(IpvsadmArguments, OnlyAnIpv6AddressInBracketsKeepsItsPort) {
  EXPECT_EQ(request("-D -t [2001:db8::1]:80").service->key.port, 80);
  EXPECT_EQ(request("-D -t [1.1.1.1]:80").service->key.port, 0);
  EXPECT_EQ(request("-D -t 2001:db8::1").service->key.address, *IpAddress::parse("2001:db8::1"));
}

TEST(IpvsadmArguments, PersistenceTakesTheNextArgumentUnlessItIsAnOption) {
  EXPECT_EQ(request("-A -u 1.1.1.1:80 -p -o").service->persistence_timeout, 360U);
  EXPECT_EQ(request("-A -u 1.1.1.1:80 -p 5 -o").service->persistence_timeout, 5U);
  EXPECT_EQ(request("-A -u 1.1.1.1:80 -op5").service->persistence_timeout, 5U);
  EXPECT_EQ(request("-A -u 1.1.1.1:80 --persistent=5").service->persistence_timeout, 5U);
}

TEST(IpvsadmArguments, MaskIsReadInTheFamilyThatIsKnownSoFar) {
  EXPECT_EQ(request("-A -t 1.1.1.1:80 -p -M 24").service->persistence_mask, 24U);
  EXPECT_EQ(request("-A -t [::1]:80 -p -M 64x").service->persistence_mask, 64U);
  EXPECT_EQ(request("-A -t [::1]:80 -p -M 128").service->persistence_mask, kEachClientAlone);
  EXPECT_EQ(request("-A -f 1 -p -M 255.0.0.0").service->persistence_mask, 0xff000000U);
  EXPECT_EQ(request("-A -f 1 -p -M 255.0.0.0 -6").service->persistence_mask, kEachClientAlone);
}

TEST(IpvsadmArguments, SchedulerFlagsHaveOneNameEach) {
  using Flags = std::vector<std::string>;
  EXPECT_EQ(request("-A -t 1.1.1.1:80 -b sh-port,flag-1,,sh-port -s sh").service->scheduler_flags,
            (Flags{"sh-fallback", "sh-port"}));
  EXPECT_EQ(request("-A -t 1.1.1.1:80 -s rr -b flag-3,flag-1").service->scheduler_flags,
            (Flags{"flag-1", "flag-3"}));
  EXPECT_EQ(request("-A -t 1.1.1.1:80 -s mh -b flag-3").service->scheduler_flags, Flags{});
}

TEST(IpvsadmArguments, RealServersPortIsTheServicesUnlessModeAndOrderSayOtherwise) {
  EXPECT_EQ(request("-a -t 1.1.1.1:80 -r 2.2.2.2:90 -g").server.port, 80);
  EXPECT_EQ(request("-a -t 1.1.1.1:80 -r 2.2.2.2:90 -m").server.port, 90);
  EXPECT_EQ(request("-a -t 1.1.1.1:80 -r 2.2.2.2 -m").server.port, 80);
  EXPECT_EQ(request("-a -r 2.2.2.2 -t 1.1.1.1:80 -m").server.port, 0);
  EXPECT_EQ(request("-a -f 1 -r 2.2.2.2:90 -g").server.port, 90);
  EXPECT_EQ(request("-a -f 1 -r 2.2.2.2:http -m").server.port, 80);
  EXPECT_EQ(request("-d -t 1.1.1.1:80 -r 2.2.2.2:90").server.port, 90);
}

TEST(IpvsadmArguments, ColumnsFollowIpvsadmsPrecedence) {
  EXPECT_EQ(request("-L --rate --stats").columns, IpvsadmColumns::statistics);
  EXPECT_EQ(request("-L --thresholds --rate").columns, IpvsadmColumns::rates);
  EXPECT_EQ(request("-L --tun-info --persistent-conn").columns,
            IpvsadmColumns::persistent_connections);
  EXPECT_EQ(request("-Lnc --tun-info").list, IpvsadmList::connections);
}

// Not of ipvsadm 1.31: as the ipvsadm of FullNAT balancers has it.
TEST(IpvsadmArguments, FullNatKeepsItsPortAndMayCrossFamilies) {
  const IpvsadmRequest same = request("-a -t 10.9.0.1:80 -r 10.2.0.1:8080 --fullnat -w 3");
  EXPECT_EQ(same.server.mode, ForwardMode::fullnat);
  EXPECT_EQ(same.server.port, 8080);
  const IpvsadmRequest across = request("-a -t [2001:db8::1]:80 -r 10.2.0.1 --fullnat");
  EXPECT_EQ(across.server.port, 80);
  EXPECT_TRUE(across.server.address.is_ipv4());
  for (const char* line :
       {"-a -t 10.9.0.1:80 -r 10.2.0.1 --fullnat -m",
        "-a -t 10.9.0.1:80 -r 10.2.0.1 --fullnat --tun-type ipip", "-A -t 10.9.0.1:80 --fullnat"}) {
    EXPECT_TRUE(std::holds_alternative<IpvsadmUsageError>(parse(line))) << line;
  }
}

}  // namespace
}  // namespace weir
