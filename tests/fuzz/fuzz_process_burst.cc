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
#include <span>
#include <string>
#include <vector>

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
    while (!input_.empty()) step();
    end();
  }

 private:
  enum Step : std::uint8_t { service, server, time, settings, settle, burst, kSteps };

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
    key.address = kVips[(choice >> 1U) % std::size(kVips)];
    key.port = static_cast<std::uint16_t>(80 + (choice >> 4U) % 4);
    return key;
  }

  void change_service() {
    static constexpr const char* kSchedulers[] = {"rr", "wrr", "wlc"};
    const std::uint8_t choice = input_.byte();
    ServiceSpec spec;
    spec.key = service_key();
    spec.scheduler = kSchedulers[choice / 8 % std::size(kSchedulers)];
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
    spec.port = static_cast<std::uint16_t>(80 + input_.byte() % 4);
    spec.mode = static_cast<ForwardMode>(choice / 4 % 5);
    spec.weight = choice / 32;
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

  void pass_time() {
    constexpr unsigned kMostSeconds = 150;  // in all, to bound the time that an input takes
    const unsigned seconds = std::min<unsigned>(input_.byte(), kMostSeconds - seconds_);
    seconds_ += seconds;
    lab_.pass_seconds(seconds);
  }

  void change_settings() {
    static constexpr const char* kNames[] = {"conn_reuse_mode", "expire_nodest_conn", "sloppy_tcp"};
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
    check_counts();
  }

  void process(unsigned worker, const std::vector<const Sent*>& received) {
    std::vector<Frame> frames;
    for (const Sent* sent : received) frames.emplace_back(sent->bytes, sent->options & kPort);
    std::vector<Packet> packets;
    for (std::size_t i = 0; i < frames.size(); ++i) {
      packets.push_back(frames[i].packet());
      packets.back().chained = (received[i]->options & kChained) != 0;
    }
    const std::vector<Packet> before = packets;
    process_burst(lab_.worker(worker), lab_.snapshot(), packets);
    for (std::size_t i = 0; i < packets.size(); ++i) {
      check(packets[i], before[i], received[i]->bytes);
      if (packets[i].outcome != Outcome::handed_to_owner) continue;
      require(packets[i].owner < kWorkers && packets[i].owner != worker, "the owner is another");
      process(packets[i].owner, {received[i]});
    }
  }

  // ---- What must hold ----

  static void check(const Packet& packet, const Packet& before,
                    const std::vector<std::uint8_t>& bytes) {
    require(packet.outcome != Outcome::undecided, "every packet is decided");
    if (is_for_kernel(packet.outcome) || packet.outcome == Outcome::handed_to_owner) {
      require(packet.frame == before.frame && packet.port == before.port &&
                  packet.length <= before.length &&
                  std::equal(packet.frame, packet.frame + packet.length, bytes.begin()),
              "what weir does not forward is unchanged");
    } else if (is_forwarded(packet.outcome)) {
      const std::uint8_t* const block = before.frame - before.headroom;
      require(packet.frame == block + packet.headroom, "headroom is what lies before the frame");
      require(packet.frame + packet.length <= before.frame + before.length,
              "a frame ends where its buffer ends");
      check_frame({packet.frame, packet.length}, packet.port);
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
        connections += load.connections.read();
      }
      require(connections == worker.ipv4.size() + worker.ipv6.size(),
              "servers have the connections that the tables have");
    }
  }

  // All services go, all connections expire: then nothing is left.
  void end() {
    (void)lab_.services().flush();
    for (unsigned i = 0; i < kWorkers; ++i) {
      WorkerState& worker = lab_.worker(i);
      worker.now += 121 * kTicksPerSecond;  // longer than any state's time here
      expire_connections(worker, ~0U);
      require(worker.ipv4.size() + worker.ipv6.size() == 0, "every connection expires");
    }
    check_counts();
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
