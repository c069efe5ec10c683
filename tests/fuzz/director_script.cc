// SPDX-License-Identifier: Apache-2.0
// Any bytes through any service table: the input is a script of control operations, time that
// passes and bursts of frames. Each byte taken below is taken from the input's front; when it is
// used up, zeros follow and the script ends. fuzz_process_burst_seeds.py writes the same format.
//
// Frames lie at the end of a heap block of their own, so that the address sanitizer sees a read
// beyond them. What leaves is checked against what a receiver would check.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "dataplane/fragmentation.h"
#include "dataplane/net/checksum.h"
#include "tests/support/burst_lab.h"

namespace weir::test {
namespace {

constexpr unsigned kWorkers = 2;
constexpr std::uint16_t kMtu = 1500;
constexpr std::size_t kEthernet = sizeof(EthernetHeader);

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::abort();
}

class Input {
 public:
  explicit Input(std::span<const std::uint8_t> bytes) : left_(bytes) {}

  bool empty() const { return left_.empty(); }
  std::uint8_t byte() {
    if (left_.empty()) return 0;
    const std::uint8_t value = left_.front();
    left_ = left_.subspan(1);
    return value;
  }
  std::vector<std::uint8_t> bytes(std::size_t count) {
    const auto taken = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(taken.size());
    return {taken.begin(), taken.end()};
  }

 private:
  std::span<const std::uint8_t> left_;
};

// One input, played on a director of its own.
class Script {
 public:
  explicit Script(std::span<const std::uint8_t> bytes) : input_(bytes) {}

  void play() {
    (void)lab_.services().set_timeouts({20, 5, 10});
    for (const char* local : {"10.2.0.254", "2001:db8:2::254"}) {
      const IpAddress address = *IpAddress::parse(local);
      (void)lab_.services().add_local_addresses({address, address}, std::nullopt);
    }
    while (!input_.empty()) step();
    end();
  }

 private:
  enum Step : std::uint8_t { service, server, time, settings, settle, burst, mark, option, kSteps };

  void step() {
    switch (input_.byte() % kSteps) {
      case service:
        return change_service();
      case server:
        return change_server();
      case time:
        return pass_time();
      case settings:
        return change_settings();
      case settle:
        return lab_.settle();
      case mark:
        return change_mark_rules();
      case option:
        return change_option();
      default:
        return send_burst();
    }
  }

  // ---- Control: what is refused is refused ----

  ServiceKey service_key() {
    const std::uint8_t choice = input_.byte();
    static const IpAddress kVips[] = {*IpAddress::parse("10.9.0.1"),
                                      *IpAddress::parse("2001:db8:9::1"),
                                      *IpAddress::parse("192.0.2.1")};
    ServiceKey key;
    key.protocol = (choice & 1U) == 0 ? Protocol::tcp : Protocol::udp;
    if ((choice & 0x40U) != 0) key.protocol = Protocol::sctp;
    key.address = kVips[((choice >> 1U) & 7U) % std::size(kVips)];
    key.port = static_cast<std::uint16_t>(80 + (choice >> 4U) % 4);
    if (((choice >> 1U) & 7U) >= 6) key.port = 0;
    if ((choice & 0x80U) != 0) {
      key.protocol = Protocol::ip;
      key.address = key.address.is_ipv4() ? IpAddress(Ipv4Address{}) : IpAddress(Ipv6Address{});
      key.port = 0;
      key.fwmark = 1 + (choice >> 4U) % 2;
    }
    return key;
  }

  static void set_options(ServiceSpec& spec, std::uint8_t choice) {
    static constexpr std::uint32_t kSeconds[] = {0, 5, 30, 60};
    spec.one_packet = (choice & 1U) != 0;
    spec.persistence_timeout = kSeconds[(choice >> 1U) % std::size(kSeconds)];
    if ((choice & 8U) != 0) spec.persistence_mask = spec.key.address.is_ipv4() ? 0xffffff00U : 64;
  }

  void change_service() {
    static constexpr const char* kSchedulers[] = {"rr", "wrr", "wlc"};
    const std::uint8_t choice = input_.byte();
    ServiceSpec spec;
    spec.key = service_key();
    spec.scheduler = kSchedulers[choice / 8 % std::size(kSchedulers)];
    set_options(spec, input_.byte());
    switch (choice % 8) {
      case 0:
        (void)lab_.services().delete_service(spec.key);
        break;
      case 1:
        (void)lab_.services().edit_service(spec);
        break;
      case 2:
        (void)lab_.services().flush();
        break;
      case 3:
        lab_.own(spec.key.address);
        break;
      case 4:
        lab_.disown(spec.key.address);
        break;
      default:
        (void)lab_.services().add_service(spec);
        break;
    }
  }

  // Numbers above BurstLab::kServers have no next hop yet.
  IpAddress server_address(std::uint8_t choice) {
    static const Ipv4Address kFirst4 = IpAddress::parse("10.2.0.0")->ipv4();
    const auto number = static_cast<std::uint8_t>(choice % 80);
    if (choice < 160) return Ipv4Address{Be32::from_host(kFirst4.value.host() + number)};
    Ipv6Address six = IpAddress::parse("2001:db8:2::")->ipv6();
    six.bytes[15] = number;
    return six;
  }

  void change_server() {
    const std::uint8_t choice = input_.byte();
    const ServiceKey key = service_key();
    ServerSpec spec;
    spec.address = server_address(input_.byte());
    const std::uint8_t port = input_.byte();
    spec.port = static_cast<std::uint16_t>(80 + port % 4);
    spec.mode = static_cast<ForwardMode>(choice / 4 % 5);
    spec.weight = choice / 32;
    const std::uint8_t thresholds = input_.byte();
    spec.upper_threshold = thresholds % 8;
    spec.lower_threshold = thresholds / 8 % 8;
    if (spec.mode == ForwardMode::tun) {
      spec.tunnel = static_cast<TunnelType>(port / 4 % 4 % 3);
      spec.tunnel_port = static_cast<std::uint16_t>(6080 - port % 2);
      spec.tunnel_checksum = static_cast<TunnelChecksum>(port / 16 % 4 % 3);
    }
    switch (choice % 4) {
      case 0:
        (void)lab_.services().delete_server(key, spec.address, spec.port);
        break;
      case 1:
        (void)lab_.services().edit_server(key, spec);
        break;
      default:
        (void)lab_.services().add_server(key, spec);
        break;
    }
  }

  void change_mark_rules() {
    const std::uint8_t choice = input_.byte();
    if (choice % 4 == 0) {
      (void)lab_.services().delete_mark_rule(1);
      return;
    }
    MarkRuleSpec rule;
    rule.rule.mark = choice % 4 - 1U;
    if ((choice & 4U) != 0) rule.rule.protocol = Protocol::udp;
    if ((choice & 8U) != 0) rule.rule.ports = {80, 81};
    (void)lab_.services().add_mark_rule(rule, std::nullopt);
  }

  void change_option() {
    static constexpr const char* kPolicies[] = {"drop", "keep", "reset"};
    const ServiceKey key = service_key();
    const std::uint8_t choice = input_.byte();
    if (choice % 2 == 0) {
      (void)lab_.services().set_service_option(
          key, {"gone-server", kPolicies[choice / 2 % std::size(kPolicies)]});
    } else {
      (void)lab_.services().set_service_option(key, {"idle-timeout", std::to_string(choice / 2)});
    }
  }

  void pass_time() {
    constexpr unsigned kMostSeconds = 150;  // in all, to bound the time that an input takes
    const unsigned seconds = std::min<unsigned>(input_.byte(), kMostSeconds - seconds_);
    seconds_ += seconds;
    lab_.pass_seconds(seconds);
  }

  void change_settings() {
    static constexpr const char* kNames[] = {
        "conn_reuse_mode", "expire_nodest_conn", "sloppy_tcp",    "expire_quiescent_template",
        "drop_entry",      "cache_bypass",       "nat_icmp_send", "pmtu_disc"};
    const std::uint8_t choice = input_.byte();
    if (choice < 128) {
      (void)lab_.services().set_setting(kNames[choice % std::size(kNames)],
                                        std::to_string(choice / 4 % 4));
    } else {
      const std::uint32_t seconds = choice % 16;
      (void)lab_.services().set_timeouts({seconds, seconds / 2, seconds + 1});
    }
  }

  // ---- Frames ----

  enum FrameOption : std::uint8_t {
    kPort = 1,           // 0 or 1
    kWorker = 2,         // 0 or 1
    kToUs = 4,           // the destination MAC becomes the port's
    kRightChecksum = 8,  // the IPv4 header's is made right
    kRightLength = 16,   // the IP packet is as long as the frame
    kChained = 32,
  };

  struct Sent {
    std::uint8_t options;
    std::vector<std::uint8_t> bytes;
    std::uint16_t largest_fragment = 0;  // of a datagram that another worker has put together
    Errand errand = {};                  // of a packet that another worker has handed over
    unsigned hops = 0;
  };

  Sent next_frame() {
    Sent sent;
    sent.options = input_.byte();
    const std::size_t length = input_.byte() + (sent.options >> 6U) * 512U;
    sent.bytes = input_.bytes(length);
    repair(sent);
    return sent;
  }

  // Without help few inputs would come through the first checks.
  static void repair(Sent& sent) {
    std::vector<std::uint8_t>& bytes = sent.bytes;
    if (bytes.size() < kEthernet + sizeof(Ipv4Header)) return;
    const bool client_side = (sent.options & kPort) == 0;
    const MacAddress& mac = client_side ? BurstLab::kClientSideMac : BurstLab::kServerSideMac;
    if ((sent.options & kToUs) != 0) std::copy(mac.bytes.begin(), mac.bytes.end(), bytes.begin());
    const bool v4 = bytes[12] == 0x08;
    if ((sent.options & kRightLength) != 0) {
      const std::size_t header = v4 ? kEthernet : kEthernet + sizeof(Ipv6Header);
      const std::size_t length = bytes.size() < header ? 0 : bytes.size() - header;
      const std::size_t at = kEthernet + (v4 ? 2 : 4);
      bytes[at] = static_cast<std::uint8_t>(length >> 8U);
      bytes[at + 1] = static_cast<std::uint8_t>(length);
    }
    if (v4 && (sent.options & kRightChecksum) != 0) repair_checksum(bytes);
  }

  static void repair_checksum(std::vector<std::uint8_t>& bytes) {
    auto& ip = *reinterpret_cast<Ipv4Header*>(bytes.data() + kEthernet);
    const std::size_t header = ip.header_bytes();
    if (bytes.size() < kEthernet + header) return;
    ip.checksum = Be16{};
    ip.checksum = checksum_finish(checksum_add(&ip, header));
  }

  void send_burst() {
    const std::size_t count = 1 + input_.byte() % 4;
    std::vector<Sent> sent;
    for (std::size_t i = 0; i < count; ++i) sent.push_back(next_frame());
    for (unsigned worker = 0; worker < kWorkers; ++worker) {
      std::vector<const Sent*> received;
      for (const Sent& frame : sent) {
        if ((frame.options & kWorker) == worker * kWorker) received.push_back(&frame);
      }
      if (!received.empty()) process(worker, received);
    }
    lab_.deliver_notices();
    check_counts();
  }

  void process(unsigned worker, const std::vector<const Sent*>& received) {
    std::vector<Frame> frames;
    for (const Sent* sent : received) frames.emplace_back(sent->bytes, sent->options & kPort);
    std::vector<Packet> packets;
    for (std::size_t i = 0; i < frames.size(); ++i) {
      packets.push_back(frames[i].packet());
      packets.back().chained = (received[i]->options & kChained) != 0;
      packets.back().largest_fragment = received[i]->largest_fragment;
      packets.back().errand = received[i]->errand;
    }
    const std::vector<Packet> before = packets;
    process_burst(lab_.worker(worker), lab_.snapshot(), packets);
    for (std::size_t i = 0; i < packets.size(); ++i) {
      if (packets[i].buffer != before[i].buffer) {
        settle_datagram(worker, packets[i]);
        continue;
      }
      check(packets[i], before[i], received[i]->bytes);
      if (is_handed_over(packets[i].outcome)) hand_over(worker, packets[i], *received[i]);
    }
  }

  static bool is_handed_over(Outcome outcome) {
    return outcome == Outcome::handed_to_owner || outcome == Outcome::handed_to_chooser;
  }

  void hand_over(unsigned worker, const Packet& packet, Sent sent) {
    constexpr unsigned kMostHops = 4;  // to the collector, the owner, who chooses, and back
    require(packet.owner < kWorkers && packet.owner != worker, "the owner is another");
    require((packet.outcome == Outcome::handed_to_chooser) ==
                (packet.errand.kind == Errand::Kind::question),
            "who chooses is asked");
    sent.errand = packet.errand;
    require(++sent.hops <= kMostHops, "a packet arrives");
    process(packet.owner, {&sent});
  }

  // A fragment was the last missing one, so that the packet is a datagram now.
  void settle_datagram(unsigned worker, const Packet& packet) {
    require(packet.frame - packet.headroom == packet.buffer, "headroom lies before a datagram");
    require(packet.outcome != Outcome::undecided, "every packet is decided");
    if (is_forwarded(packet.outcome)) check_leaving(packet);
    const Sent whole{static_cast<std::uint8_t>(packet.port == 0 ? 0 : kPort),
                     {packet.frame, packet.frame + packet.length},
                     packet.largest_fragment};
    lab_.datagrams().put(packet.buffer);
    if (is_handed_over(packet.outcome)) hand_over(worker, packet, whole);
  }

  // ---- What must hold ----

  static void check_leaving(const Packet& packet) {
    FragmentCutter cutter(packet, 1);
    require(cutter.next_length() != 0, "what leaves has bytes");
    while (const std::size_t length = cutter.next_length()) {
      std::vector<std::uint8_t> piece(length);
      cutter.write_next(piece.data());
      check_frame(piece, packet.port);
    }
  }

  static void check(const Packet& packet, const Packet& before,
                    const std::vector<std::uint8_t>& bytes) {
    require(packet.outcome != Outcome::undecided, "every packet is decided");
    if (is_for_kernel(packet.outcome) || is_handed_over(packet.outcome)) {
      require(packet.frame == before.frame && packet.port == before.port &&
                  packet.length <= before.length &&
                  std::equal(packet.frame, packet.frame + packet.length, bytes.begin()),
              "what weir does not forward is unchanged");
    } else if (is_forwarded(packet.outcome)) {
      const std::uint8_t* const block = before.frame - before.headroom;
      require(packet.frame == block + packet.headroom, "headroom is what lies before the frame");
      require(packet.frame + packet.length <= before.frame + before.length,
              "a frame ends where its buffer ends");
      check_leaving(packet);
    } else if (packet.outcome == Outcome::waiting_for_neighbour) {
      require(!packet.neighbour.is_unspecified() && packet.out_interface < 2,
              "a packet that waits says for whom");
    }
  }

  static void check_frame(std::span<const std::uint8_t> frame, std::uint16_t port) {
    require(port < 2, "a frame leaves by a port");
    require(frame.size() > kEthernet + sizeof(Ipv4Header), "a frame has headers");
    require(frame.size() <= kEthernet + kMtu, "a frame is no longer than the MTU");
    const MacAddress& own = port == 0 ? BurstLab::kClientSideMac : BurstLab::kServerSideMac;
    require(load<EthernetHeader>(frame.data()).source == own, "a frame has its port's MAC");
    const auto type = load<EthernetHeader>(frame.data()).ether_type.host();
    const auto packet = frame.subspan(kEthernet);
    if (packet[0] >> 4U == 4) {
      require(type == kEtherTypeIpv4, "an IPv4 packet is called so");
      const auto ip = load<Ipv4Header>(packet.data());
      require(ip.total_length.host() == packet.size(), "the IPv4 length is the frame's");
      require(ip.header_bytes() <= packet.size(), "the IPv4 header is within the frame");
      require(fold_checksum(checksum_add(packet.data(), ip.header_bytes())) == 0xffff,
              "the IPv4 checksum is right");
      require(ip.ttl != 0, "a TTL of zero does not leave");
    } else {
      require(type == kEtherTypeIpv6 && packet[0] >> 4U == 6, "an IPv6 packet is called so");
      const auto ip = load<Ipv6Header>(packet.data());
      require(ip.payload_length.host() + sizeof ip == packet.size(),
              "the IPv6 length is the frame's");
      require(ip.hop_limit != 0, "a hop limit of zero does not leave");
    }
  }

  void check_counts() {
    for (unsigned i = 0; i < kWorkers; ++i) {
      WorkerState& worker = lab_.worker(i);
      std::uint64_t connections = 0;
      for (const ServerLoad& load : worker.own().loads) {
        require(load.active.read() <= load.connections.read(), "active are some of all");
        connections += load.connections.read() + load.templates.read();
      }
      connections += companions(worker.ipv4) + companions(worker.ipv6);
      require(connections == worker.ipv4.size() + worker.ipv6.size(),
              "servers have the connections and templates that the tables have");
    }
    check_templates<Ipv4Address>();
    check_templates<Ipv6Address>();
  }

  template <class Address>
  static std::uint64_t companions(const ConnectionTable<Address>& table) {
    std::uint64_t count = 0;
    for (std::uint32_t index = 0; index < table.high_water(); ++index) {
      const auto record = table.read(index);
      count += record && record->has(kCompanion) ? 1U : 0U;
    }
    return count;
  }

  // Each template controls the connections that say so. No notice is under way.
  template <class Address>
  void check_templates() {
    std::map<std::uint32_t, std::uint32_t> controlled;
    std::map<std::uint32_t, std::uint32_t> said;
    for (unsigned i = 0; i < kWorkers; ++i) {
      const auto& table = lab_.worker(i).table<Address>();
      for (std::uint32_t index = 0; index < table.high_water(); ++index) {
        const auto record = table.read(index);
        if (!record) continue;
        if (record->has(kCompanion)) continue;
        if (record->has(kTemplate)) {
          if (record->packets_in != 0) said[i << 24U | index] = record->packets_in;
        } else if (record->controller != kNoController) {
          ++controlled[record->controller];
        }
      }
    }
    require(said == controlled, "templates know how many connections they control");
  }

  // All services go, all connections expire: then nothing is left.
  void end() {
    (void)lab_.services().flush();
    // Longer than any state's time here; templates end after their connections.
    for (int round = 0; round < 2; ++round) {
      for (unsigned i = 0; i < kWorkers; ++i) {
        WorkerState& worker = lab_.worker(i);
        worker.now += 901 * kTicksPerSecond;
        expire_connections(worker, lab_.snapshot(), ~0U);
        expire_fragments(worker, ~0U);
      }
      lab_.deliver_notices();
      check_counts();
    }
    for (unsigned i = 0; i < kWorkers; ++i) {
      WorkerState& worker = lab_.worker(i);
      require(worker.ipv4.size() + worker.ipv6.size() == 0, "every connection expires");
    }
    require(lab_.datagrams().in_use() == 0, "every datagram's buffer is given back");
    for (int i = 0; i < 4; ++i) lab_.settle();
    for (const Service* left : lab_.snapshot().services) {
      require(left == nullptr, "every service's slot is freed");
    }
    for (const RealServer* left : lab_.snapshot().servers) {
      require(left == nullptr, "every real server's slot is freed");
    }
  }

  Input input_;
  BurstLab lab_{{.workers = kWorkers, .capacity = 32, .server_slots = 1024}};
  unsigned seconds_ = 0;
};

}  // namespace
}  // namespace weir::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  weir::test::Script({data, size}).play();
  return 0;
}
