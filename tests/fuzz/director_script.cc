// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/director_script.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "schedulers/scheduler.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frame_checks.h"

namespace weir::test {
namespace {

constexpr unsigned kWorkers = 2;
constexpr std::size_t kMaxFrame = 2048;
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

// ---- Frames about a frame that has left ----

struct Left {
  std::uint8_t port = 0;
  std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(kEthernet);
};

Left left_of(const Packet& packet) {
  return {static_cast<std::uint8_t>(packet.port), {packet.frame, packet.frame + packet.length}};
}

void swap_ranges(std::vector<std::uint8_t>& bytes, std::size_t at, std::size_t length) {
  const auto first = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  const auto second = first + static_cast<std::ptrdiff_t>(length);
  std::swap_ranges(first, second, second);
}

// Addresses and ports turned round; `bytes` are what is behind the ports.
std::vector<std::uint8_t> answer_to(const Left& left, const std::vector<std::uint8_t>& bytes) {
  const bool v4 = left.bytes[12] == 0x08;
  const std::size_t header = v4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
  const std::size_t ports = kEthernet + header;
  if (left.bytes.size() < ports + 2 * sizeof(Be16)) return bytes;
  std::vector<std::uint8_t> frame = left.bytes;
  frame.resize(ports + 2 * sizeof(Be16));
  const std::size_t address = v4 ? sizeof(Ipv4Address) : sizeof(Ipv6Address);
  swap_ranges(frame, ports - 2 * address, address);
  swap_ranges(frame, ports, sizeof(Be16));
  frame.insert(frame.end(), bytes.begin(), bytes.end());
  return frame;
}

// From whom it was for: `bytes` are how much of it is quoted, in units of 8 bytes (0: all), and the
// ICMP header.
std::vector<std::uint8_t> error_about(const Left& left, const std::vector<std::uint8_t>& bytes) {
  const bool v4 = left.bytes[12] == 0x08;
  const std::size_t header = v4 ? sizeof(Ipv4Header) : sizeof(Ipv6Header);
  if (bytes.empty() || left.bytes.size() < kEthernet + header) return bytes;
  std::vector<std::uint8_t> frame = left.bytes;
  frame.resize(kEthernet + header);
  const std::size_t address = v4 ? sizeof(Ipv4Address) : sizeof(Ipv6Address);
  swap_ranges(frame, kEthernet + header - 2 * address, address);
  if (v4) frame[kEthernet] = 0x45;
  frame[kEthernet + (v4 ? offsetof(Ipv4Header, protocol) : offsetof(Ipv6Header, next_header))] =
      static_cast<std::uint8_t>(v4 ? Protocol::icmp : Protocol::icmpv6);
  frame.insert(frame.end(), bytes.begin() + 1, bytes.end());
  const std::size_t whole = left.bytes.size() - kEthernet;
  const std::size_t quoted = bytes[0] == 0 ? whole : std::min<std::size_t>(bytes[0] * 8U, whole);
  const auto quote = left.bytes.begin() + kEthernet;
  frame.insert(frame.end(), quote, quote + static_cast<std::ptrdiff_t>(quoted));
  return frame;
}

// One input, played on a director of its own.
class Script {
 public:
  explicit Script(std::span<const std::uint8_t> bytes) : input_(bytes) {}

  OutcomeCounts play() {
    (void)lab_.services().set_timeouts({20, 5, 10});
    for (std::uint8_t family = 0; family < 2; ++family) {
      const IpAddress address = local_address(family);
      (void)lab_.services().add_local_addresses({address, address}, std::nullopt);
    }
    while (!input_.empty()) step();
    end();
    OutcomeCounts counts;
    for (std::size_t i = 0; i < kOutcomes; ++i) counts[i] = lab_.count(static_cast<Outcome>(i));
    return counts;
  }

 private:
  enum Step : std::uint8_t {
    service,
    server,
    time,
    settings,
    settle,
    burst,
    mark,
    option,
    local,
    kSteps
  };

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
        lab_.settle();
        lab_.look_after_gone_servers();
        return;
      case mark:
        return change_mark_rules();
      case option:
        return change_option();
      case local:
        return change_local_addresses();
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
    if ((choice & 16U) != 0) spec.scheduler_flags.push_back("flag-1");
    if ((choice & 32U) != 0) spec.scheduler_flags.push_back("flag-2");
  }

  // conhash is the first, and seldom taken: its table takes longer than all the rest of an input.
  static std::string scheduler(std::uint8_t choice) {
    constexpr std::uint8_t kConhash = 31;
    const auto names = scheduler_names();
    return std::string(names[choice == kConhash ? 0 : 1 + choice % (names.size() - 1)]);
  }

  void change_service() {
    const std::uint8_t choice = input_.byte();
    ServiceSpec spec;
    spec.key = service_key();
    spec.scheduler = scheduler(choice / 8);
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
        (void)lab_.services().set_service_option(spec.key, {"table-size", "251"});
        break;
    }
  }

  // Of either family: the host itself, one without a route, and those of BurstLab, of which numbers
  // above kServers have no next hop yet.
  static IpAddress server_address(std::uint8_t choice) {
    constexpr std::uint8_t kNumbers = 80;
    static const IpAddress kOwn[] = {*IpAddress::parse("10.2.0.254"),
                                     *IpAddress::parse("2001:db8:9::1")};
    static const IpAddress kFar[] = {*IpAddress::parse("192.0.2.9"),
                                     *IpAddress::parse("2001:db8:ffff::9")};
    const std::size_t family = choice < 2 * kNumbers ? 0 : 1;
    const auto number = static_cast<std::uint8_t>(choice % kNumbers);
    if (number == 0) return kOwn[family];
    if (number == kNumbers - 1) return kFar[family];
    const std::string prefix = family == 0 ? "10.2.0." : "2001:db8:2::";
    return *IpAddress::parse(prefix + std::to_string(number));
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
    static const ServiceOption kOptions[] = {
        {"gone-server", "drop"},      {"gone-server", "keep"},   {"gone-server", "reset"},
        {"client-address", "hidden"}, {"client-address", "toa"}, {"client-address", "proxy"},
        {"table-size", "257"},        {"slow-start", "0"},       {"slow-start", "5"},
        {"idle-timeout", "0"},        {"idle-timeout", "1"},     {"idle-timeout", "100"}};
    const ServiceKey key = service_key();
    (void)lab_.services().set_service_option(key, kOptions[input_.byte() % std::size(kOptions)]);
  }

  static IpAddress local_address(std::uint8_t choice) {
    static const IpAddress kAddresses[] = {
        *IpAddress::parse("10.2.0.254"), *IpAddress::parse("2001:db8:2::254"),
        *IpAddress::parse("10.2.0.253"), *IpAddress::parse("2001:db8:2::253")};
    return kAddresses[choice % std::size(kAddresses)];
  }

  void change_local_addresses() {
    const std::uint8_t choice = input_.byte();
    const IpAddress address = local_address(choice);
    std::optional<ServiceKey> key;
    if ((choice & 8U) != 0) key = service_key();
    if ((choice & 4U) != 0) {
      (void)lab_.services().add_local_addresses({address, address}, key);
    } else {
      (void)lab_.services().delete_local_addresses({address, address}, key);
    }
  }

  void pass_time() {
    constexpr unsigned kMostSeconds = 150;  // in all, to bound the time that an input takes
    const unsigned seconds = std::min<unsigned>(input_.byte(), kMostSeconds - seconds_);
    seconds_ += seconds;
    lab_.pass_seconds(seconds, kTicksPerSecond / 4);
  }

  void change_settings() {
    static constexpr const char* kNames[] = {
        "conn_reuse_mode", "expire_nodest_conn", "sloppy_tcp",    "expire_quiescent_template",
        "drop_entry",      "cache_bypass",       "nat_icmp_send", "pmtu_disc"};
    const std::uint8_t choice = input_.byte();
    if (choice < 128) {
      (void)lab_.services().set_setting(kNames[choice % std::size(kNames)],
                                        std::to_string(choice / 8 % 4));
    } else {
      const std::uint32_t seconds = choice % 16;
      (void)lab_.services().set_timeouts({seconds, seconds / 2, seconds + 1});
    }
  }

  // ---- Frames ----

  enum FrameOption : std::uint8_t {
    kPort = 1,            // 0 or 1
    kWorker = 2,          // 0 or 1
    kToUs = 4,            // the destination MAC becomes the port's
    kRightChecksums = 8,  // of IPv4 and of what is behind the IP header
    kWrongEnd = 16,       // then the last byte is changed
    kRightLength = 32,    // the IP packet is as long as the frame
    // It turns up where the last frame left, and is about that one (Left).
    kAnswer = 64,
    kError = 128,
  };
  static constexpr std::uint8_t kChained = 128;  // of a burst: its first frame is

  struct Sent {
    std::uint8_t options;
    std::vector<std::uint8_t> bytes;
    bool chained = false;
    std::uint16_t largest_fragment = 0;  // of a datagram that another worker has put together
    Errand errand = {};                  // of a packet that another worker has handed over
    unsigned hops = 0;
  };

  Sent next_frame() {
    Sent sent;
    sent.options = input_.byte();
    const std::size_t length = input_.byte() * 256U + input_.byte();
    sent.bytes = input_.bytes(length % kMaxFrame);
    if ((sent.options & (kAnswer | kError)) != 0) {
      sent.bytes = (sent.options & kAnswer) != 0 ? answer_to(left_, sent.bytes)
                                                 : error_about(left_, sent.bytes);
      sent.options = static_cast<std::uint8_t>((sent.options & ~kPort) | left_.port);
    }
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
    if ((sent.options & kRightLength) != 0) {
      const bool v4 = bytes[12] == 0x08;
      const std::size_t header = v4 ? kEthernet : kEthernet + sizeof(Ipv6Header);
      const std::size_t length = bytes.size() < header ? 0 : bytes.size() - header;
      const std::size_t at = kEthernet + (v4 ? 2 : 4);
      bytes[at] = static_cast<std::uint8_t>(length >> 8U);
      bytes[at + 1] = static_cast<std::uint8_t>(length);
    }
    if ((sent.options & kRightChecksums) != 0) write_checksums(bytes);
    if ((sent.options & kWrongEnd) != 0) bytes.back() ^= 1U;
  }

  void send_burst() {
    const std::uint8_t choice = input_.byte();
    std::vector<Sent> sent;
    for (std::size_t i = 0; i < 1U + choice % 4; ++i) sent.push_back(next_frame());
    sent.front().chained = (choice & kChained) != 0;
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
      packets.back().chained = received[i]->chained;
      packets.back().largest_fragment = received[i]->largest_fragment;
      packets.back().errand = received[i]->errand;
    }
    const std::vector<Packet> before = packets;
    lab_.process_burst(packets, worker);
    for (std::size_t i = 0; i < packets.size(); ++i) {
      if (packets[i].buffer != before[i].buffer) {
        settle_datagram(worker, packets[i]);
        continue;
      }
      check(packets[i], before[i], received[i]->bytes);
      if (is_forwarded(packets[i].outcome)) left_ = left_of(packets[i]);
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
    if (is_forwarded(packet.outcome)) left_ = left_of(packet);
    const Sent whole{.options = static_cast<std::uint8_t>(packet.port == 0 ? 0 : kPort),
                     .bytes = {packet.frame, packet.frame + packet.length},
                     .largest_fragment = packet.largest_fragment};
    lab_.datagrams().put(packet.buffer);
    if (is_handed_over(packet.outcome)) hand_over(worker, packet, whole);
  }

  // ---- What must hold ----

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
    } else if (packet.outcome == Outcome::waiting_for_neighbour) {
      require(!packet.neighbour.is_unspecified() && packet.out_interface < 2,
              "a packet that waits says for whom");
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

  // To wait for it tick by tick would take most of an input's time.
  template <class Address>
  static void end_the_time_of(ConnectionTable<Address>& table, std::uint32_t now) {
    for (std::uint32_t index = 0; index < table.high_water(); ++index) {
      const auto record = table.read(index);
      if (record && !record->has(kCompanion)) table.set_deadline(index, now);
    }
  }

  // All services go, all connections expire: then nothing is left.
  void end() {
    (void)lab_.services().flush();
    // Templates end after their connections.
    for (int round = 0; round < 2; ++round) {
      for (unsigned i = 0; i < kWorkers; ++i) {
        WorkerState& worker = lab_.worker(i);
        end_the_time_of(worker.ipv4, worker.now);
        end_the_time_of(worker.ipv6, worker.now);
        worker.now += kTicksPerSecond;
        expire_connections(worker, lab_.snapshot(), ~0U);
      }
      lab_.deliver_notices();
      check_counts();
    }
    for (unsigned i = 0; i < kWorkers; ++i) {
      WorkerState& worker = lab_.worker(i);
      require(worker.ipv4.size() + worker.ipv6.size() == 0, "every connection expires");
      worker.now += Reassembly::kTimeout6;
      lab_.expire_fragments(i);
    }
    require(lab_.datagrams().in_use() == 0, "every datagram's buffer is given back");
    constexpr std::size_t kSlots = 4096;  // more than a script can take
    for (int i = 0; i < 4; ++i) lab_.settle();
    const Snapshot& snapshot = lab_.snapshot();
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      require(snapshot.services[slot] == nullptr, "every service's slot is freed");
      require(snapshot.servers[slot] == nullptr, "every real server's slot is freed");
    }
  }

  Input input_;
  // Small, so that an input fills its tables, and takes little time to make them.
  BurstLab lab_{{.workers = kWorkers,
                 .capacity = 16,
                 .local_ports = 16,
                 .datagrams = 4,
                 .server_slots = 32,
                 .right_datagrams = false}};
  unsigned seconds_ = 0;
  Left left_;
};

}  // namespace

OutcomeCounts play_script(std::span<const std::uint8_t> input) {
  BurstLab::restart_clock();
  return Script(input).play();
}

}  // namespace weir::test
