// SPDX-License-Identifier: Apache-2.0
// The steering program's verdicts (run by the kernel's BPF_PROG_TEST_RUN) and the control code
// around it. Needs root; works in a network namespace of its own.
#include "control/host/steering.h"

#include "control/live/claims.h"

#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <net/if.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "control/host/bpf_program.h"
#include "control/host/interface_lock.h"
#include "dataplane/net/addresses.h"
#include "dataplane/net/wire_headers.h"

namespace weir {
namespace {

using Bytes = std::string;
using std::string_literals::operator""s;

const MacAddress kOwnMac = *MacAddress::parse("02:00:00:00:00:01");
const MacAddress kVirtualMac = *MacAddress::parse("00:00:5e:00:01:07");
const MacAddress kForeignMac = *MacAddress::parse("02:00:00:00:00:99");

IpAddress ip(const char* text) { return *IpAddress::parse(text); }

// ---- Frames ----

Bytes be16(unsigned value) {
  return {static_cast<char>(value >> 8), static_cast<char>(value & 0xff)};
}

Bytes raw(const IpAddress& address) {
  const auto* bytes = reinterpret_cast<const char*>(address.bytes().data());
  return Bytes(bytes, address.is_ipv4() ? 4 : 16);
}

Bytes ethernet(const MacAddress& to, const Bytes& tags, unsigned type, const Bytes& payload) {
  return Bytes(to.bytes.begin(), to.bytes.end()) + "\x02\0\0\0\0\x55"s + tags + be16(type) +
         payload;
}

Bytes tag(unsigned type = 0x8100) { return be16(type) + be16(10); }

Bytes l4(unsigned source, unsigned destination) {
  return be16(source) + be16(destination) + Bytes(16, '\0');
}

struct Ipv4 {
  const char* from;
  const char* to;
  unsigned protocol = 6;
  unsigned fragment = 0;  // flags and offset
  Bytes options = {};

  Bytes operator()(const Bytes& payload) const {
    const auto words = static_cast<char>(0x45 + options.size() / 4);
    return words + "\0"s + be16(static_cast<unsigned>(20 + options.size() + payload.size())) +
           be16(1) + be16(fragment) + "\x40"s + static_cast<char>(protocol) + be16(0) +
           raw(ip(from)) + raw(ip(to)) + options + payload;
  }
};

struct Ipv6 {
  const char* from;
  const char* to;
  unsigned next = 6;

  Bytes operator()(const Bytes& payload) const {
    return "\x60\0\0\0"s + be16(static_cast<unsigned>(payload.size())) + static_cast<char>(next) +
           "\x40"s + raw(ip(from)) + raw(ip(to)) + payload;
  }
};

Bytes extension(unsigned next, unsigned eights = 1) {
  return static_cast<char>(next) + Bytes(1, static_cast<char>(eights - 1)) +
         Bytes(eights * 8 - 2, '\0');
}

Bytes extensions(unsigned count, unsigned last) {
  Bytes result;
  for (unsigned i = 1; i < count; ++i) result += extension(60);
  return result + extension(last);
}

Bytes authentication(unsigned next) { return static_cast<char>(next) + "\x04"s + Bytes(22, '\0'); }

Bytes fragment_header(unsigned next, unsigned offset_and_more) {
  return static_cast<char>(next) + "\0"s + be16(offset_and_more) + Bytes(4, '\0');
}

Bytes icmp(unsigned type, const Bytes& quoted) {
  return static_cast<char>(type) + Bytes(7, '\0') + quoted;
}

Bytes v4(const Bytes& packet) { return ethernet(kOwnMac, "", 0x0800, packet); }
Bytes v6(const Bytes& packet) { return ethernet(kOwnMac, "", 0x86dd, packet); }

// ---- The lab ----

constexpr const char* kClient = "198.51.100.7";
constexpr const char* kVip = "10.0.0.100";
constexpr const char* kServer = "10.0.1.1";
constexpr const char* kLocal = "10.0.1.254";
constexpr const char* kClient6 = "2001:db8:c::7";
constexpr const char* kVip6 = "2001:db8::100";
constexpr const char* kFtpVip = "10.0.0.103";
constexpr const char* kAllPortsVip = "10.0.0.104";
constexpr const char* kFullnatServer = "10.0.1.2";
constexpr const char* kWholeServer = "10.0.1.3";  // replies from all of its ports
constexpr const char* kPool = "10.0.1.200";
constexpr const char* kMarked = "203.0.113.5";  // no address of this host
constexpr const char* kServer6 = "2001:db8:1::1";
constexpr const char* kLocal6 = "2001:db8:1::254";

// What the program should know, all at once.
struct SteeringKey {
  Protocol protocol = Protocol::tcp;
  IpAddress address;
  std::uint16_t port = 0;
};
struct SteeringState {
  std::vector<SteeringKey> services;
  std::vector<SteeringKey> servers;
  std::vector<IpAddress> local_addresses;
  std::vector<IpAddress> tunnel_servers;
  std::vector<SteeringKey> fullnat_servers;
  std::vector<IpAddress> fullnat_addresses;
  std::vector<IpAddress> ftp_addresses;
  std::vector<SteeringRule> mark_rules;
};

// From one state to the next, by claims.
class Told {
 public:
  absl::Status update(Steering& steering, const SteeringState& state,
                      std::span<const MacAddress> macs) {
    using ReplyTo = ServiceIndex::ReplyTo;
    ClaimBook next;
    for (const auto& s : state.services) next.claim_service(s.address, s.port, s.protocol, 0);
    for (const auto& s : state.servers) {
      next.claim_replies(s.address, s.port, s.protocol, ReplyTo::client);
    }
    for (const auto& s : state.fullnat_servers) {
      next.claim_replies(s.address, s.port, s.protocol, ReplyTo::local_address);
    }
    for (const auto& address : state.local_addresses) next.claim_host_address(address);
    for (const auto& address : state.tunnel_servers) next.claim_tunnel_server(address);
    for (const auto& address : state.fullnat_addresses) next.claim_local_address(address);
    for (const auto& address : state.ftp_addresses) next.claim_ftp_data(address);
    if (auto status = steering.check_room(next.steering_sizes()); !status.ok()) return status;
    std::vector<SteeringChange> changes = next.take_steering_changes(~std::size_t{0});
    const std::vector<SteeringChange> wanted = changes;
    for (SteeringChange gone : told_) {
      const auto same_key = [&](const SteeringChange& change) {
        return change.map == gone.map && change.address == gone.address &&
               change.port == gone.port && change.protocol == gone.protocol;
      };
      if (std::any_of(wanted.begin(), wanted.end(), same_key)) continue;
      gone.value = 0;
      changes.push_back(gone);
    }
    if (auto status = steering.apply(changes, {next.steering_extras(), state.mark_rules});
        !status.ok()) {
      return status;
    }
    told_ = wanted;
    return steering.set_macs(macs);
  }

 private:
  std::vector<SteeringChange> told_;
};
Told told;  // the one that is under test

SteeringState lab_state() {
  return SteeringState{.services = {{Protocol::tcp, ip(kVip), 80},
                                    {Protocol::udp, ip(kVip), 53},
                                    {Protocol::sctp, ip(kVip), 5000},
                                    {Protocol::tcp, ip(kVip6), 80}},
                       .servers = {{Protocol::tcp, ip(kServer), 8080},
                                   {Protocol::tcp, ip(kServer6), 8080},
                                   {Protocol::tcp, ip(kWholeServer), 0}},
                       .local_addresses = {ip(kLocal), ip(kLocal6), ip(kPool)},
                       .fullnat_servers = {{Protocol::tcp, ip(kFullnatServer), 8080}},
                       .fullnat_addresses = {ip(kPool)}};
}

SteeringState extended_state() {
  SteeringState state = lab_state();
  state.services.push_back({Protocol::tcp, ip(kFtpVip), 21});
  state.services.push_back({Protocol::udp, ip(kAllPortsVip), 0});
  state.ftp_addresses = {ip(kFtpVip)};
  return state;
}

IpPrefix prefix(const char* address, std::uint8_t length) { return {ip(address), length}; }

// Who is exempt, then what is marked, then what is left.
std::vector<SteeringRule> lab_rules() {
  SteeringRule exempt;
  exempt.rule = {.from = prefix("198.51.100.64", 26), .to = prefix("203.0.113.0", 24)};
  SteeringRule web{.rule = {.to = prefix("203.0.113.0", 24),
                            .protocol = Protocol::tcp,
                            .source_ports = {1024, 65535},
                            .ports = {80, 81},
                            .mark = 7},
                   .ipv4 = true};
  SteeringRule six{.rule = {.to = prefix("2001:db8:f::", 48), .mark = 8}, .ipv6 = true};
  SteeringRule odd{.rule = {.from = prefix("198.51.100.9", 32), .ports = {9, 9}, .mark = 9},
                   .ipv4 = true};
  return {exempt, web, six, odd};
}
const std::array kLabMacs{kOwnMac, kVirtualMac};

void run(const std::string& command) { ASSERT_EQ(std::system(command.c_str()), 0) << command; }

// Does what DPDK's AF_XDP driver does with the object, without its sockets.
class FakeDriver {
 public:
  explicit FakeDriver(const char* interface) : index_(static_cast<int>(if_nametoindex(interface))) {
    object_.reset(bpf_object__open_file(steering_object().c_str(), nullptr));
    bpf_program__set_autoload(program("weir_guard"), true);
    EXPECT_EQ(bpf_object__load(object_.get()), 0);
    EXPECT_EQ(bpf_xdp_attach(index_, fd("weir_steer"), XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr), 0);
  }

  int fd(const char* name) const { return bpf_program__fd(program(name)); }

 private:
  struct Close {
    void operator()(bpf_object* object) const { bpf_object__close(object); }
  };
  bpf_program* program(const char* name) const {
    return bpf_object__find_program_by_name(object_.get(), name);
  }
  int index_;
  std::unique_ptr<bpf_object, Close> object_;
};

std::uint32_t verdict(int program, const Bytes& frame) {
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = frame.data();
  options.data_size_in = static_cast<std::uint32_t>(frame.size());
  EXPECT_EQ(bpf_prog_test_run_opts(program, &options), 0);
  return options.retval;
}

class SteeringTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (geteuid() != 0) return;
    setenv("WEIR_STEER_OBJECT", WEIR_BUILT_STEER_OBJECT, 0);
    ASSERT_EQ(unshare(CLONE_NEWNET), 0);
  }
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root";
    run("ip link add va numrxqueues 2 numtxqueues 2 type veth "
        "peer name vb numrxqueues 2 numtxqueues 2");
    run("ethtool -L va rx 1 tx 1 && ethtool -L vb rx 1 tx 1");
  }
  void TearDown() override {
    if (geteuid() == 0) run("ip link show va >/dev/null 2>&1 && ip link del va || true");
  }

  static std::string xdp_of_va() {
    const auto program = xdp_program_of(static_cast<int>(if_nametoindex("va")));
    return program.ok() && program->has_value() ? (*program)->name : "";
  }
  static bool guard_stands() {
    return std::system("tc filter show dev va ingress | grep -q weir_guard") == 0;
  }
  static std::unique_ptr<Steering> claim() {
    absl::StatusOr<std::unique_ptr<Steering>> steering = Steering::claim("va");
    EXPECT_TRUE(steering.ok()) << steering.status();
    return *std::move(steering);
  }
  // Claimed, with the program attached and the lab's state in its maps.
  static std::unique_ptr<Steering> start(FakeDriver*& driver) {
    std::unique_ptr<Steering> steering = claim();
    EXPECT_TRUE(steering->make_way().ok());
    driver = new FakeDriver("va");
    EXPECT_EQ(steering->attach(), absl::OkStatus());
    told = {};
    EXPECT_EQ(told.update(*steering, lab_state(), kLabMacs), absl::OkStatus());
    return steering;
  }
  static void start_and_kill() {
    const pid_t weir = fork();
    if (weir == 0) {
      FakeDriver* started = nullptr;
      const std::unique_ptr<Steering> steering = start(started);
      raise(SIGKILL);
    }
    int end = 0;
    ASSERT_EQ(waitpid(weir, &end, 0), weir);
    ASSERT_TRUE(WIFSIGNALED(end));
    ASSERT_EQ(xdp_of_va(), "weir_steer");
  }
};

// ---- Verdicts ----

enum class To { workers, kernel };

struct Case {
  const char* name;
  Bytes frame;
  To to;
};

const Bytes kSyn = l4(40000, 80);
const Bytes kReply = l4(8080, 40000);

std::vector<Case> ipv4_cases() {
  const Ipv4 in{kClient, kVip};
  const Ipv4 out{kServer, kClient};
  return {
      {"TCP to a service", v4(in(kSyn)), To::workers},
      {"UDP to a service", v4(Ipv4{kClient, kVip, 17}(l4(1, 53))), To::workers},
      {"SCTP to a service", v4(Ipv4{kClient, kVip, 132}(l4(1, 5000))), To::workers},
      {"IPv4 options", v4(Ipv4{kClient, kVip, 6, 0, Bytes(40, '\1')}(kSyn)), To::workers},
      {"one VLAN tag", ethernet(kOwnMac, tag(), 0x0800, in(kSyn)), To::workers},
      {"virtual MAC", ethernet(kVirtualMac, "", 0x0800, in(kSyn)), To::workers},
      {"two VLAN tags", ethernet(kOwnMac, tag() + tag(), 0x0800, in(kSyn)), To::kernel},
      {"802.1ad tag", ethernet(kOwnMac, tag(0x88a8), 0x0800, in(kSyn)), To::kernel},
      {"foreign MAC", ethernet(kForeignMac, "", 0x0800, in(kSyn)), To::kernel},
      {"another port of the VIP", v4(in(l4(40000, 22))), To::kernel},
      {"another protocol's port", v4(Ipv4{kClient, kVip, 17}(kSyn)), To::kernel},
      {"the director's own address", v4(Ipv4{kClient, kLocal}(kSyn)), To::kernel},
      {"echo request to the VIP", v4(Ipv4{kClient, kVip, 1}(icmp(8, "12345678"))), To::kernel},
      {"VRRP", v4(Ipv4{kClient, "224.0.0.18", 112}(Bytes(20, '\0'))), To::kernel},
      {"ARP", ethernet(kOwnMac, "", 0x0806, Bytes(46, '\0')), To::kernel},
      {"header length 16", v4("\x44" + in(kSyn).substr(1)), To::kernel},
      {"version 6 as IPv4", v4("\x65" + in(kSyn).substr(1)), To::kernel},
      {"cut in the ports", v4(in(kSyn.substr(0, 3))), To::kernel},
      {"reply of a nat real server", v4(out(kReply)), To::workers},
      {"its reply to the director itself", v4(Ipv4{kServer, kLocal}(kReply)), To::kernel},
      {"its reply to a VIP", v4(Ipv4{kServer, kVip}(kReply)), To::workers},
      {"another port of it", v4(out(l4(22, 40000))), To::kernel},
  };
}

std::vector<Case> ipv4_fragment_cases() {
  const unsigned more = 0x2000;
  return {
      {"first to a VIP", v4(Ipv4{kClient, kVip, 17, more}(l4(1, 53))), To::workers},
      {"first to a VIP, other port", v4(Ipv4{kClient, kVip, 17, more}(l4(1, 9))), To::workers},
      {"first to a VIP, no ports", v4(Ipv4{kClient, kVip, 17, more}("ab")), To::workers},
      {"middle to a VIP", v4(Ipv4{kClient, kVip, 17, more | 100}("payload")), To::workers},
      {"last to a VIP", v4(Ipv4{kClient, kVip, 17, 200}("p")), To::workers},
      {"of a ping to a VIP", v4(Ipv4{kClient, kVip, 1, 200}("payload")), To::kernel},
      {"from a real server", v4(Ipv4{kServer, kClient, 17, 200}("payload")), To::workers},
      {"from it to the director", v4(Ipv4{kServer, kLocal, 17, 200}("payload")), To::kernel},
      {"to the director", v4(Ipv4{kClient, kLocal, 17, more}(l4(1, 53))), To::kernel},
      {"do not fragment", v4(Ipv4{kClient, kVip, 17, 0x4000}(l4(1, 9))), To::kernel},
  };
}

std::vector<Case> ipv4_error_cases() {
  const Bytes of_service = Ipv4{kVip, kClient}(l4(80, 40000)).substr(0, 28);
  const Bytes to_server = Ipv4{kClient, kServer}(l4(40000, 8080)).substr(0, 28);
  const Bytes own = Ipv4{kLocal, kServer}(l4(40000, 8080)).substr(0, 28);
  const Ipv4 in{"203.0.113.1", kVip, 1};
  const Ipv4 back{kServer, kClient, 1};
  return {
      {"unreachable, of a service", v4(in(icmp(3, of_service))), To::workers},
      {"source quench", v4(in(icmp(4, of_service))), To::workers},
      {"time exceeded", v4(in(icmp(11, of_service))), To::workers},
      {"parameter problem", v4(in(icmp(12, of_service))), To::workers},
      {"redirect", v4(in(icmp(5, of_service))), To::kernel},
      {"echo reply with such bytes", v4(in(icmp(0, of_service))), To::kernel},
      {"quotes another port", v4(in(icmp(3, Ipv4{kVip, kClient}(l4(22, 1))))), To::kernel},
      {"quotes options", v4(in(icmp(3, Ipv4{kVip, kClient, 6, 0, Bytes(8, '\1')}(l4(80, 1))))),
       To::workers},
      {"quotes a first fragment", v4(in(icmp(11, Ipv4{kVip, kClient, 6, 0x2000}(l4(80, 1))))),
       To::workers},
      {"quotes a later fragment", v4(in(icmp(11, Ipv4{kVip, kClient, 6, 10}(l4(80, 1))))),
       To::kernel},
      {"quotes an ICMP error", v4(in(icmp(3, Ipv4{kVip, kClient, 1}(icmp(3, of_service))))),
       To::kernel},
      {"quotation cut", v4(in(icmp(3, of_service.substr(0, 23)))), To::kernel},
      {"to a real server", v4(back(icmp(3, to_server))), To::workers},
      {"of the director's own to it", v4(Ipv4{kServer, kLocal, 1}(icmp(3, own))), To::kernel},
      {"quotes the client's packet to a service", v4(in(icmp(3, Ipv4{kClient, kVip}(l4(1, 80))))),
       To::kernel},
  };
}

std::vector<Case> ipv6_cases() {
  const auto to_vip = [](unsigned next, const Bytes& payload) {
    return v6(Ipv6{kClient6, kVip6, next}(payload));
  };
  const Bytes of_service = Ipv6{kVip6, kClient6}(l4(80, 40000));
  const Bytes own = Ipv6{kLocal6, kServer6}(l4(40000, 8080));
  return {
      {"TCP to a service", to_vip(6, kSyn), To::workers},
      {"VLAN", ethernet(kOwnMac, tag(), 0x86dd, Ipv6{kClient6, kVip6}(kSyn)), To::workers},
      {"other port", to_vip(6, l4(1, 22)), To::kernel},
      {"hop-by-hop", to_vip(0, extension(6) + kSyn), To::workers},
      {"routing, 40 bytes", to_vip(43, extension(6, 5) + kSyn), To::workers},
      {"authentication", to_vip(51, authentication(6) + kSyn), To::workers},
      {"8 headers", to_vip(60, extensions(8, 6) + kSyn), To::workers},
      {"9 headers", to_vip(60, extensions(9, 6) + kSyn), To::kernel},
      {"header beyond the end", to_vip(60, extension(6, 1).replace(1, 1, "\x7f") + kSyn),
       To::kernel},
      {"no next header", to_vip(59, kSyn), To::kernel},
      {"ESP", to_vip(50, kSyn), To::kernel},
      {"version 4 as IPv6", v6(Ipv4{kClient, kVip}(kSyn) + Bytes(40, '\0')), To::kernel},
      {"first fragment", to_vip(44, fragment_header(6, 1) + kSyn), To::workers},
      {"first fragment, other port", to_vip(44, fragment_header(6, 1) + l4(1, 9)), To::workers},
      {"later fragment", to_vip(44, fragment_header(6, 80) + "payload"), To::workers},
      {"later fragment of options", to_vip(44, fragment_header(60, 80) + "payload"), To::workers},
      {"atomic fragment", to_vip(44, fragment_header(6, 0) + kSyn), To::workers},
      {"atomic fragment, other port", to_vip(44, fragment_header(6, 0) + l4(1, 9)), To::kernel},
      {"fragment of a ping", to_vip(44, fragment_header(58, 1) + icmp(128, "12345678")),
       To::kernel},
      {"echo request", to_vip(58, icmp(128, "12345678")), To::kernel},
      {"neighbour solicitation", to_vip(58, icmp(135, Bytes(16, '\0'))), To::kernel},
      {"unreachable", to_vip(58, icmp(1, of_service)), To::workers},
      {"too big", to_vip(58, icmp(2, of_service)), To::workers},
      {"time exceeded", to_vip(58, icmp(3, of_service)), To::workers},
      {"parameter problem", to_vip(58, icmp(4, of_service)), To::workers},
      {"unreachable behind options", to_vip(60, extension(58) + icmp(1, of_service)), To::workers},
      {"quotes options", to_vip(58, icmp(1, Ipv6{kVip6, kClient6, 60}(extension(6) + l4(80, 1)))),
       To::workers},
      {"reply of a nat real server", v6(Ipv6{kServer6, kClient6}(kReply)), To::workers},
      {"its reply to the director itself", v6(Ipv6{kServer6, kLocal6}(kReply)), To::kernel},
      {"error of the director's own to it", v6(Ipv6{kServer6, kLocal6, 58}(icmp(1, own))),
       To::kernel},
      {"an IPv4 VIP's bytes as IPv6", v6(Ipv6{kClient6, "0a00:64::"}(kSyn)), To::kernel},
  };
}

void check(const FakeDriver& driver, const std::vector<Case>& cases) {
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    const bool steered = test.to == To::workers;
    // No socket listens: what is for the workers takes the fallback.
    EXPECT_EQ(verdict(driver.fd("weir_steer"), test.frame), steered ? XDP_DROP : XDP_PASS);
    EXPECT_EQ(static_cast<int>(verdict(driver.fd("weir_guard"), test.frame)),
              steered ? TC_ACT_SHOT : TC_ACT_UNSPEC);
  }
}

// The one on the interface va.
void check_guard(const std::vector<Case>& cases) {
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = static_cast<int>(if_nametoindex("va"));
  hook.attach_point = BPF_TC_INGRESS;
  bpf_tc_opts found{};
  found.sz = sizeof found;
  found.handle = 1;
  found.priority = 17;
  ASSERT_EQ(bpf_tc_query(&hook, &found), 0);
  const absl::StatusOr<Descriptor> guard = open_program(found.prog_id);
  ASSERT_TRUE(guard.ok());
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    EXPECT_EQ(static_cast<int>(verdict(guard->get(), test.frame)),
              test.to == To::workers ? TC_ACT_SHOT : TC_ACT_UNSPEC);
  }
}

TEST_F(SteeringTest, EveryKindOfPacketGoesWhereItBelongs) {
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  check(*driver, ipv4_cases());
  check(*driver, ipv4_fragment_cases());
  check(*driver, ipv4_error_cases());
  check(*driver, ipv6_cases());
}

std::vector<Case> many_port_cases() {
  const auto udp = [](const Bytes& ports) { return v4(Ipv4{kClient, kAllPortsVip, 17}(ports)); };
  const auto ftp = [](unsigned port) { return v4(Ipv4{kClient, kFtpVip}(l4(40000, port))); };
  const Ipv4 out{kWholeServer, kClient};
  const Bytes quoted = Ipv4{kAllPortsVip, kClient, 17}(l4(777, 1)).substr(0, 28);
  return {
      {"any port of a service for all", udp(l4(1, 777)), To::workers},
      {"port 0 of it", udp(l4(1, 0)), To::workers},
      {"another protocol", v4(Ipv4{kClient, kAllPortsVip}(l4(1, 777))), To::kernel},
      {"no ports in it", udp("abc"), To::kernel},
      {"unreachable from it", v4(Ipv4{kClient, kAllPortsVip, 1}(icmp(3, quoted))), To::workers},
      {"FTP itself", ftp(21), To::workers},
      {"FTP's active data", ftp(20), To::workers},
      {"FTP's passive data", ftp(1024), To::workers},
      {"privileged port beside FTP", ftp(1023), To::kernel},
      {"UDP beside FTP", v4(Ipv4{kClient, kFtpVip, 17}(l4(1, 5000))), To::kernel},
      {"high port of a VIP without FTP", v4(Ipv4{kClient, kVip}(l4(1, 5000))), To::kernel},
      {"any port of a server", v4(out(l4(22, 1))), To::workers},
      {"of a server to the director", v4(Ipv4{kWholeServer, kLocal}(l4(22, 1))), To::kernel},
      {"UDP of that server", v4(Ipv4{kWholeServer, kClient, 17}(l4(22, 1))), To::kernel},
  };
}

std::vector<Case> fullnat_cases() {
  const Ipv4 back{kFullnatServer, kPool};
  const Bytes sent = Ipv4{kPool, kFullnatServer}(l4(5000, 8080)).substr(0, 28);
  const Bytes own = Ipv4{kPool, kFullnatServer}(l4(900, 8080)).substr(0, 28);
  const Ipv4 router{"10.0.1.9", kPool, 1};
  return {
      {"reply to a local address", v4(back(l4(8080, 5000))), To::workers},
      {"lowest port", v4(back(l4(8080, 1024))), To::workers},
      {"below the ports of fullnat", v4(back(l4(8080, 1023))), To::kernel},
      {"another port of the server", v4(back(l4(22, 5000))), To::kernel},
      {"to a client", v4(Ipv4{kFullnatServer, kClient}(l4(8080, 5000))), To::kernel},
      {"to the director", v4(Ipv4{kFullnatServer, kLocal}(l4(8080, 5000))), To::kernel},
      {"of somebody else", v4(Ipv4{kClient, kPool}(l4(8080, 5000))), To::kernel},
      {"of a nat server", v4(Ipv4{kServer, kPool}(l4(8080, 5000))), To::kernel},
      {"fragment", v4(Ipv4{kFullnatServer, kPool, 6, 100}("payload")), To::workers},
      {"fragment to a client", v4(Ipv4{kFullnatServer, kClient, 6, 100}("payload")), To::kernel},
      {"ICMP error", v4(router(icmp(3, sent))), To::workers},
      {"ICMP error of the director's own", v4(router(icmp(3, own))), To::kernel},
  };
}

std::vector<Case> mark_cases() {
  const Ipv4 in{kClient, kMarked};
  const Bytes quoted = Ipv4{kMarked, kClient}(l4(80, 40000)).substr(0, 28);
  const Ipv6 six{kClient6, "2001:db8:f:1::5", 17};
  return {
      {"marked", v4(in(l4(40000, 80))), To::workers},
      {"last port", v4(in(l4(40000, 81))), To::workers},
      {"beyond the ports", v4(in(l4(40000, 82))), To::kernel},
      {"below the source ports", v4(in(l4(1023, 80))), To::kernel},
      {"another protocol", v4(Ipv4{kClient, kMarked, 17}(l4(40000, 80))), To::kernel},
      {"another destination", v4(Ipv4{kClient, "203.0.114.5"}(l4(40000, 80))), To::kernel},
      {"exempt by an earlier rule", v4(Ipv4{"198.51.100.70", kMarked}(l4(40000, 80))), To::kernel},
      {"by the last rule", v4(Ipv4{"198.51.100.9", kClient, 17}(l4(1, 9))), To::workers},
      {"not by the last rule", v4(Ipv4{"198.51.100.8", kClient, 17}(l4(1, 9))), To::kernel},
      {"fragment", v4(Ipv4{kClient, kMarked, 6, 100}("payload")), To::workers},
      {"first fragment, other port", v4(Ipv4{kClient, kMarked, 6, 0x2000}(l4(1, 9))), To::workers},
      {"fragment of another protocol", v4(Ipv4{kClient, kMarked, 17, 100}("x")), To::kernel},
      {"IPv6", v6(six(l4(1, 2))), To::workers},
      {"another prefix", v6(Ipv6{kClient6, "2001:db8:e::5", 17}(l4(1, 2))), To::kernel},
      {"IPv6 fragment", v6(Ipv6{kClient6, "2001:db8:f::5", 44}(fragment_header(17, 80) + "x")),
       To::workers},
      {"error that quotes an answer", v4(Ipv4{kClient, kMarked, 1}(icmp(3, quoted))), To::workers},
      {"a service all the same", v4(Ipv4{kClient, kVip}(kSyn)), To::workers},
  };
}

TEST_F(SteeringTest, ServicesAndServersWithManyPorts) {
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  ASSERT_EQ(told.update(*steering, extended_state(), kLabMacs), absl::OkStatus());
  check(*driver, many_port_cases());
  check(*driver, fullnat_cases());
  check(*driver, ipv4_error_cases());
  // And when these are gone again, the look-ups for them are.
  SteeringState state = lab_state();
  state.servers.pop_back();
  ASSERT_EQ(told.update(*steering, state, kLabMacs), absl::OkStatus());
  check(*driver, ipv4_cases());
  EXPECT_EQ(verdict(driver->fd("weir_steer"), v4(Ipv4{kClient, kFtpVip}(l4(1, 5000)))), XDP_PASS);
}

TEST_F(SteeringTest, RulesForMarksAreReplacedWhole) {
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  SteeringState state = lab_state();
  for (int round = 0; round < 3; ++round) {
    state.mark_rules = lab_rules();
    ASSERT_EQ(told.update(*steering, state, kLabMacs), absl::OkStatus());
    check(*driver, mark_cases());
    check(*driver, ipv6_cases());
    state.mark_rules.clear();
    ASSERT_EQ(told.update(*steering, state, kLabMacs), absl::OkStatus());
    EXPECT_EQ(verdict(driver->fd("weir_steer"), v4(Ipv4{kClient, kMarked}(l4(40000, 80)))),
              XDP_PASS);
  }
  state.mark_rules.assign(Steering::kMaxMarkRules, lab_rules().front());
  state.mark_rules.back() = lab_rules()[1];
  ASSERT_EQ(told.update(*steering, state, kLabMacs), absl::OkStatus());
  EXPECT_EQ(verdict(driver->fd("weir_steer"), v4(Ipv4{kClient, kMarked}(l4(40000, 80)))), XDP_DROP);
  state.mark_rules.push_back(lab_rules()[1]);
  EXPECT_EQ(told.update(*steering, state, kLabMacs).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(SteeringTest, TruncatedFramesGoToTheKernel) {
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  const Bytes quoted = Ipv4{kVip, kClient}(l4(80, 40000));
  const std::array<std::pair<Bytes, std::size_t>, 3> frames{{
      {v4(Ipv4{kClient, kVip}(kSyn)), 14 + 20 + 4},
      {v6(Ipv6{kClient6, kVip6, 60}(extension(6) + kSyn)), 14 + 40 + 8 + 4},
      {v4(Ipv4{kClient, kVip, 1}(icmp(3, quoted))), 14 + 20 + 8 + 20 + 4},
  }};
  for (const auto& [frame, needed] : frames) {
    for (std::size_t length = 14; length <= frame.size(); ++length) {
      SCOPED_TRACE(length);
      EXPECT_EQ(verdict(driver->fd("weir_steer"), frame.substr(0, length)),
                length < needed ? XDP_PASS : XDP_DROP);
    }
  }
}

TEST_F(SteeringTest, UpdateAddsAndRemoves) {
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  const Bytes old_service = v4(Ipv4{kClient, kVip}(kSyn));
  const Bytes new_service = v4(Ipv4{kClient, "10.0.0.101"}(kSyn));
  const Bytes old_fragment = v4(Ipv4{kClient, kVip, 17, 200}("p"));

  SteeringState state;
  state.services = {{Protocol::tcp, ip("10.0.0.101"), 80}};
  ASSERT_TRUE(told.update(*steering, state, kLabMacs).ok());
  EXPECT_EQ(verdict(driver->fd("weir_steer"), new_service), XDP_DROP);
  EXPECT_EQ(verdict(driver->fd("weir_steer"), old_service), XDP_PASS);
  EXPECT_EQ(verdict(driver->fd("weir_steer"), old_fragment), XDP_PASS);

  ASSERT_TRUE(told.update(*steering, state, std::span(&kForeignMac, 1)).ok());
  EXPECT_EQ(verdict(driver->fd("weir_steer"), new_service), XDP_PASS) << "its MAC is not ours now";
}

TEST_F(SteeringTest, AnAddressThatBecomesAVipIsNoLongerLocal) {
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  SteeringState state = lab_state();
  state.services.push_back({Protocol::tcp, ip(kLocal), 443});
  ASSERT_TRUE(told.update(*steering, state, kLabMacs).ok());
  EXPECT_EQ(verdict(driver->fd("weir_steer"), v4(Ipv4{kClient, kLocal, 6, 200}("p"))), XDP_DROP);
  ASSERT_TRUE(told.update(*steering, lab_state(), kLabMacs).ok());
  EXPECT_EQ(verdict(driver->fd("weir_steer"), v4(Ipv4{kClient, kLocal, 6, 200}("p"))), XDP_PASS);
}

TEST_F(SteeringTest, WhatDoesNotFitIsRefusedWhole) {
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  SteeringState state = lab_state();
  for (unsigned port = 0; port < 65536; ++port) {
    state.services.push_back({Protocol::udp, ip("10.0.0.102"), static_cast<std::uint16_t>(port)});
  }
  const absl::Status status = told.update(*steering, state, kLabMacs);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(verdict(driver->fd("weir_steer"), v4(Ipv4{kClient, "10.0.0.102", 17}(l4(1, 7)))),
            XDP_PASS);
  EXPECT_EQ(verdict(driver->fd("weir_steer"), v4(Ipv4{kClient, kVip}(kSyn))), XDP_DROP);
}

// ---- Claiming, taking over, leaving ----

TEST_F(SteeringTest, SecondClaimIsRefusedAndDisturbsNothing) {
  FakeDriver* started = nullptr;
  std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  EXPECT_EQ(Steering::claim("va").status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(steering->still_there().ok());
  EXPECT_TRUE(steering->release().ok());
  EXPECT_EQ(xdp_of_va(), "");
  EXPECT_TRUE(Steering::claim("va").ok());
}

// Anybody may bind a name of the abstract namespace of UNIX sockets, which was the lock once.
TEST_F(SteeringTest, LockIsAFileThatOnlyItsOwnerCanOpen) {
  const std::string directory = "/tmp/weir-lock-test-" + std::to_string(getpid());
  const auto take = [&] { return InterfaceLock::take("va", 7, directory); };
  {
    const auto lock = take();
    ASSERT_TRUE(lock.ok()) << lock.status();
    EXPECT_EQ(take().status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_TRUE(InterfaceLock::take("vb", 8, directory).ok());
    struct stat status {};
    ASSERT_EQ(stat(directory.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0700U);
    // The same number is another interface elsewhere.
    std::thread([&] {
      ASSERT_EQ(unshare(CLONE_NEWNET), 0);
      EXPECT_TRUE(take().ok());
    }).join();
  }
  EXPECT_TRUE(take().ok());
  EXPECT_TRUE(std::filesystem::is_empty(directory));
  for (const mode_t open_to_others : {0777U, 01777U}) {
    ASSERT_EQ(chmod(directory.c_str(), open_to_others), 0);
    EXPECT_EQ(take().status().code(), absl::StatusCode::kFailedPrecondition);
  }
  std::filesystem::remove_all(directory);
}

TEST_F(SteeringTest, InterfacesThatCannotCarryItAreRefused) {
  EXPECT_EQ(Steering::claim("nowhere").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Steering::claim("va", "/nowhere.o").status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(Steering::claim("lo").status().message().find("no Ethernet"), std::string::npos);
  run("ip link set va mtu 3439");
  EXPECT_NE(Steering::claim("va").status().message().find("3438"), std::string::npos);
  run("ip link set va mtu 3438 && ethtool -L va rx 2 tx 1");
  EXPECT_NE(Steering::claim("va").status().message().find("2 receive queues"), std::string::npos);
  run("ethtool -L va rx 1");
  EXPECT_EQ(claim()->queues(), 1U);
}

TEST_F(SteeringTest, ForeignProgramIsRefusedByName) {
  const std::array<bpf_insn, 2> pass{
      {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = XDP_PASS}, {.code = BPF_JMP | BPF_EXIT}}};
  const Descriptor program(
      bpf_prog_load(BPF_PROG_TYPE_XDP, "firewall", "GPL", pass.data(), pass.size(), nullptr));
  ASSERT_EQ(bpf_xdp_attach(static_cast<int>(if_nametoindex("va")), program.get(), 0, nullptr), 0);
  EXPECT_NE(Steering::claim("va").status().message().find("firewall"), std::string::npos);
  EXPECT_EQ(xdp_of_va(), "firewall");
}

TEST_F(SteeringTest, KilledWeirIsReplacedBehindTheGuard) {
  start_and_kill();
  const std::unique_ptr<Steering> steering = claim();
  const absl::StatusOr<Steering::Handover> handover = steering->make_way();
  ASSERT_TRUE(handover.ok()) << handover.status();
  EXPECT_TRUE(handover->silent) << handover->reason;
  EXPECT_EQ(xdp_of_va(), "");
  EXPECT_TRUE(guard_stands());

  const FakeDriver next("va");
  ASSERT_EQ(steering->attach(), absl::OkStatus());
  EXPECT_TRUE(guard_stands()) << "the new program's maps are still empty";
  ASSERT_TRUE(told.update(*steering, lab_state(), kLabMacs).ok());
  EXPECT_TRUE(guard_stands()) << "it is not said that these are all services";
  EXPECT_TRUE(steering->is_guarded());
  EXPECT_TRUE(steering->lift_guard().ok());
  EXPECT_FALSE(guard_stands());
  EXPECT_FALSE(steering->is_guarded());
  run("! tc qdisc show dev va | grep clsact");
  EXPECT_TRUE(steering->release().ok());
  EXPECT_EQ(xdp_of_va(), "");
}

TEST_F(SteeringTest, FailedStartAfterAKilledWeirLeavesTheGuard) {
  start_and_kill();
  {
    const std::unique_ptr<Steering> steering = claim();
    ASSERT_TRUE(steering->make_way().ok());
    const FakeDriver driver("va");
    ASSERT_EQ(steering->attach(), absl::OkStatus());
    EXPECT_NE(steering->release().message().find("tc filter delete dev va"), std::string::npos);
  }
  EXPECT_EQ(xdp_of_va(), "");
  EXPECT_TRUE(guard_stands());
  FakeDriver* started = nullptr;
  const std::unique_ptr<Steering> next = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  EXPECT_TRUE(next->is_guarded());
  EXPECT_TRUE(next->lift_guard().ok());
  EXPECT_FALSE(guard_stands());
  EXPECT_TRUE(next->release().ok());
}

TEST_F(SteeringTest, EndInSilenceLeavesAGuardThatTheNextOneLifts) {
  FakeDriver* started = nullptr;
  std::unique_ptr<Steering> steering = start(started);
  std::unique_ptr<FakeDriver> driver(started);
  EXPECT_TRUE(steering->keep_silence().ok());
  EXPECT_TRUE(guard_stands());
  check_guard(ipv4_cases());
  EXPECT_EQ(steering->release().code(), absl::StatusCode::kUnavailable);
  steering.reset();
  driver.reset();
  EXPECT_EQ(xdp_of_va(), "");
  EXPECT_TRUE(guard_stands());
  check_guard(ipv4_cases());
  const std::unique_ptr<Steering> next = start(started);
  driver.reset(started);
  EXPECT_TRUE(next->is_guarded());
  EXPECT_TRUE(next->lift_guard().ok());
  EXPECT_FALSE(guard_stands());
}

TEST_F(SteeringTest, FailedStartLeavesNothing) {
  claim().reset();
  EXPECT_EQ(xdp_of_va(), "");
  {
    const std::unique_ptr<Steering> steering = claim();
    ASSERT_TRUE(steering->make_way().ok());
    const FakeDriver driver("va");
  }
  EXPECT_EQ(xdp_of_va(), "");
}

TEST_F(SteeringTest, KernelsReasonIsReported) {
  run("ip link set vb mtu 9000");
  const std::unique_ptr<Steering> steering = claim();
  EXPECT_NE(steering->explain_failure().message().find("MTU"), std::string::npos)
      << steering->explain_failure();
}

TEST_F(SteeringTest, VanishedInterfaceIsNoticed) {
  FakeDriver* started = nullptr;
  std::unique_ptr<Steering> steering = start(started);
  const std::unique_ptr<FakeDriver> driver(started);
  EXPECT_TRUE(steering->still_there().ok());
  run("ip link set va xdp off");
  EXPECT_EQ(steering->still_there().code(), absl::StatusCode::kFailedPrecondition);
  run("ip link del va");
  EXPECT_EQ(steering->still_there().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(steering->release().ok());
}

TEST_F(SteeringTest, DriverArgumentsNameEveryQueueAndTheProgram) {
  const std::unique_ptr<Steering> steering = claim();
  EXPECT_EQ(
      steering->vdev_arguments(3),
      "--vdev=net_af_xdp3,iface=va,start_queue=0,queue_count=1,xdp_prog=" + steering_object());
}

}  // namespace
}  // namespace weir
