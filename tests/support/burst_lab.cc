// SPDX-License-Identifier: Apache-2.0
#include "tests/support/burst_lab.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "dataplane/path/fragmentation.h"
#include "dataplane/path/persistence.h"
#include "tests/support/frame_checks.h"
#include "tests/support/recordings.h"

namespace weir::test {
namespace {

constexpr std::uint32_t kFirstTick = 1000;
std::uint32_t fake_now = kFirstTick;

std::uint32_t fake_clock() { return fake_now; }

IpAddress ip(const std::string& text) {
  const auto address = IpAddress::parse(text);
  if (!address) std::abort();
  return *address;
}

IpPrefix prefix(const std::string& text, std::uint8_t length) { return {ip(text), length}; }

MacAddress mac(const std::string& text) {
  const auto address = MacAddress::parse(text);
  if (!address) std::abort();
  return *address;
}

// They take long to make, so all labs share them.
struct Owners {
  OwnerMap map;
  std::shared_ptr<const PortGroups> ports;
};

const Owners& owners_of(unsigned workers, std::uint16_t local_ports) {
  static constexpr OwnerMap::Key kKey = {
      0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
      0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
      0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
  static std::map<std::pair<unsigned, unsigned>, Owners> made;
  const auto known = made.find({workers, local_ports});
  if (known != made.end()) return known->second;
  const OwnerMap map(kKey, workers);
  const auto last = static_cast<std::uint16_t>(kFirstLocalPort + local_ports - 1);
  auto ports = std::make_shared<const PortGroups>(map, kFirstLocalPort, last, 0);
  const std::pair key(workers, local_ports);
  return made.emplace(key, Owners{map, std::move(ports)}).first->second;
}

NextHop next_hop(const IpAddress& address, const MacAddress& destination, std::uint16_t port,
                 const Interface& interface) {
  NextHop hop;
  hop.address = address;
  hop.destination = destination;
  hop.source = interface.mac;
  hop.interface = port;
  hop.port = port;
  hop.vlan = interface.vlan;
  hop.mtu = interface.mtu;
  hop.resolved = true;
  hop.used = true;
  return hop;
}

// The frames that leave of a forwarded packet.
std::vector<Bytes> frames_of(const Packet& packet, std::uint32_t fragment_id) {
  std::vector<Bytes> frames;
  FragmentCutter cutter(packet, fragment_id);
  while (const std::size_t length = cutter.next_length()) {
    cutter.write_next(frames.emplace_back(length).data());
  }
  return frames;
}

}  // namespace

const MacAddress BurstLab::kClientSideMac = mac("02:00:00:00:0a:fe");
const MacAddress BurstLab::kServerSideMac = mac("02:00:00:00:0b:fe");

Frame::Frame(std::span<const std::uint8_t> bytes, std::uint16_t on_port)
    : port(on_port), storage_(kHeadroom + bytes.size()) {
  storage_.shrink_to_fit();
  std::copy(bytes.begin(), bytes.end(), storage_.begin() + kHeadroom);
}

Packet Frame::packet() {
  Packet packet;
  packet.frame = storage_.data() + kHeadroom;
  packet.buffer = this;
  packet.length = static_cast<std::uint32_t>(storage_.size() - kHeadroom);
  packet.headroom = kHeadroom;
  packet.port = port;
  return packet;
}

// Ways are what the routes say when a real server comes: they never change.
class BurstLab::Host final : public HostNetwork {
 public:
  std::shared_ptr<const Routes> routes() override {
    if (std::exchange(is_stale_, false)) routes_ = editor.publish();
    return routes_;
  }
  bool owns(const IpAddress& address) const override { return own.contains(address); }
  WayIndex acquire_way(const IpAddress& address) override {
    const auto [known, is_new] = ways_.emplace(address, static_cast<WayIndex>(ways_.size() + 1));
    if (is_new) editor.way(known->second, editor.way_to(address));
    is_stale_ = is_stale_ || is_new;
    return known->second;
  }
  void release_way(const IpAddress&) override {}
  bool reaches(const IpAddress& address) override {
    return editor.way_to(address).state != Way::State::none;
  }
  std::optional<std::string> problem_with(const IpAddress&) const override { return {}; }

  RoutesEditor editor{7};
  std::set<IpAddress> own;

 private:
  std::map<IpAddress, WayIndex> ways_;
  std::shared_ptr<const Routes> routes_;
  bool is_stale_ = true;
};

BurstLab::BurstLab(const Shape& shape)
    : shape_(shape),
      datagrams_(std::make_unique<DatagramArena>(shape.workers * (shape.datagrams + 1))),
      owners_(owners_of(shape.workers, shape.local_ports).map),
      publisher_(std::make_unique<Publisher>(shape.workers)),
      host_(std::make_unique<Host>()) {
  using Table4 = ConnectionTable<Ipv4Address>;
  using Table6 = ConnectionTable<Ipv6Address>;
  const Services::Clock clock = shape.clock == nullptr ? fake_clock : shape.clock;
  const std::uint32_t now = clock();
  const std::array<std::uint64_t, 2> seed = {0x243f6a8885a308d3ULL, 0x13198a2e03707344ULL};
  const std::size_t ipv4_bytes = (Table4::bytes_for(shape.capacity) + 63) / 64 * 64;
  for (unsigned i = 0; i < shape.workers; ++i) {
    auto memory = TableMemory::map(ipv4_bytes + Table6::bytes_for(shape.capacity), shape.pages);
    if (!memory) std::abort();
    std::byte* base = memory->data();
    memories_.push_back(std::make_unique<TableMemory>(std::move(*memory)));
    statistics_.push_back(std::make_unique<WorkerStatistics>(shape.server_slots));
    statistics_view_.push_back(statistics_.back().get());
    owned_states_.push_back(std::unique_ptr<WorkerState>(
        new WorkerState{.index = i,
                        .workers = shape.workers,
                        .owners = &owners_,
                        .ipv4 = Table4(base, shape.capacity, seed, now),
                        .ipv6 = Table6(base + ipv4_bytes, shape.capacity, seed, now),
                        .own_statistics = statistics_view_.back(),
                        .statistics = {},
                        .now = now,
                        .reassembly = Reassembly(*datagrams_, seed[0], shape.datagrams)}));
    states_.push_back(owned_states_.back().get());
  }
  for (WorkerState* state : states_) state->statistics = statistics_view_;
  services_ = std::make_unique<LabServices>(*publisher_, states_, clock);
  services_->set_local_ports(owners_of(shape.workers, shape.local_ports).ports, seed[0]);
  host_->own = {ip("10.9.0.1"), ip("2001:db8:9::1"), ip("10.8.0.254"), ip("10.2.0.254")};
  build_network();
}

BurstLab::~BurstLab() {
  services_.reset();
  publisher_.reset();
}

void BurstLab::build_network() {
  std::vector<Interface> interfaces(2);
  interfaces[0] = {
      10, 0, 0, shape_.client_mtu, true, kClientSideMac, ip("10.8.0.254"), ip("2001:db8:8::fe")};
  interfaces[1] = {11,
                   1,
                   shape_.server_vlan,
                   shape_.server_mtu,
                   true,
                   kServerSideMac,
                   ip("10.2.0.254"),
                   ip("2001:db8:2::254")};
  const MacAddress client = mac("02:00:00:00:0c:01");
  std::vector<NextHop> hops = {next_hop(ip("10.8.0.1"), client, 0, interfaces[0]),
                               next_hop(ip("2001:db8:8::1"), client, 0, interfaces[0])};
  for (unsigned i = 1; i <= kServers; ++i) {
    MacAddress server = mac("02:00:00:00:0d:00");
    server.bytes[5] = static_cast<std::uint8_t>(i);
    const std::string number = std::to_string(i);
    hops.push_back(next_hop(ip("10.2.0." + number), server, 1, interfaces[1]));
    hops.push_back(next_hop(ip("2001:db8:2::" + number), server, 1, interfaces[1]));
  }
  const std::vector<RouteEntry> table = {
      {prefix("0.0.0.0", 0), {{10, ip("10.8.0.1"), 1}}},
      {prefix("::", 0), {{10, ip("2001:db8:8::1"), 1}}},
      {prefix("10.2.0.0", 24), {{11, ip("0.0.0.0"), 1}}},
      {prefix("2001:db8:2::", 64), {{11, ip("::"), 1}}},
      {prefix("192.0.2.0", 24), {}},
      {prefix("2001:db8:ffff::", 64), {}},
  };
  host_->editor.interfaces(interfaces).routes(table).generation(1);
  for (NextHopIndex i = 0; i < hops.size(); ++i) host_->editor.next_hop(i, hops[i]);
  auto ports = std::make_shared<PortAddresses>();
  ports->macs[0] = OwnMacs({kClientSideMac}, {kClientVlan});
  ports->macs[1] = OwnMacs({kServerSideMac}, {shape_.server_vlan});
  ports->broadcasts = {ip("10.2.0.255").ipv4(), ip("10.8.255.255").ipv4()};
  services_->set_host(*host_);
  services_->ports_changed(std::move(ports));
}

void BurstLab::own(const IpAddress& address) {
  host_->own.insert(address);
  const IpPrefix changed{address, static_cast<std::uint8_t>(address.bit_width())};
  services_->addresses_changed({&changed, 1});
}

void BurstLab::disown(const IpAddress& address) {
  host_->own.erase(address);
  const IpPrefix changed{address, static_cast<std::uint8_t>(address.bit_width())};
  services_->addresses_changed({&changed, 1});
}

std::uint64_t BurstLab::count(Outcome outcome) const {
  std::uint64_t sum = 0;
  for (const auto& worker : statistics_) {
    sum += worker->outcomes[static_cast<std::size_t>(outcome)].read();
  }
  return sum;
}

void BurstLab::restart_clock() { fake_now = kFirstTick; }

void BurstLab::pass_seconds(unsigned seconds, unsigned step) {
  constexpr unsigned kEnough = 1U << 30;
  for (unsigned tick = 0; tick < seconds * kTicksPerSecond; tick += step) {
    fake_now += step;
    for (WorkerState* state : states_) {
      state->now = fake_now;
      state->now_ms = fake_now * 1000 / kTicksPerSecond;
      expire_connections(*state, snapshot(), kEnough);
      expire_fragments(state->index);
    }
    deliver_notices();
  }
}

std::vector<Forwarded> BurstLab::look_after_gone_servers() {
  std::vector<Forwarded> sent;
  for (WorkerState* state : states_) {
    adopt_whole(*state, snapshot());
    while (state->gone_servers.is_under_way()) {
      for (Forwarded& probe : walk_gone_servers(*state)) sent.push_back(std::move(probe));
      ++state->now;
    }
    state->now = fake_now;
  }
  return sent;
}

std::vector<Forwarded> BurstLab::walk_gone_servers(WorkerState& state) {
  constexpr std::size_t kBlank = 8;
  const Bytes room(kProbeBytes);
  std::vector<Frame> frames(kBlank, Frame(room));
  std::vector<Packet> blank;
  for (Frame& frame : frames) blank.push_back(frame.packet());
  const std::size_t used = weir::walk_gone_servers(state, snapshot(), blank);
  std::vector<Forwarded> sent;
  for (const Packet& packet : std::span(blank).first(used)) {
    if (is_forwarded(packet.outcome)) judge(packet, {});
    sent.push_back({.outcome = packet.outcome,
                    .port = packet.port,
                    .bytes = {packet.frame, packet.frame + packet.length}});
  }
  return sent;
}

void BurstLab::expire_fragments(unsigned worker) {
  WorkerState& state = *states_[worker];
  std::vector<Packet> packets(state.reassembly.under_way());
  const std::size_t expired = weir::expire_fragments(state, snapshot(), packets);
  for (const Packet& packet : std::span(packets).first(expired)) {
    if (is_forwarded(packet.outcome)) judge(packet, {});
    overdue_.push_back(leaving(state, packet));
    datagrams_->put(packet.buffer);
  }
}

std::vector<Forwarded> BurstLab::take_overdue() { return std::exchange(overdue_, {}); }

void BurstLab::adopt_whole(WorkerState& worker, const Snapshot& snapshot) {
  adopt_snapshot(worker, snapshot);
  while (worker.edits.left != 0) replay_some_edits(worker, snapshot);
}

void BurstLab::settle() {
  for (WorkerState* state : states_) adopt_whole(*state, snapshot());
  // No thread is registered, so every grace period is over at once.
  for (int i = 0; i < 2; ++i) {
    while (services_->housekeeping()) continue;
  }
}

Forwarded BurstLab::send(std::span<const std::uint8_t> bytes, std::uint16_t port, unsigned worker,
                         std::uint16_t largest_fragment) {
  return process(
      bytes, {.port = port, .worker = worker, .largest_fragment = largest_fragment, .errand = {}});
}

Forwarded BurstLab::pass_on(const Forwarded& handed) {
  return process(handed.bytes, {.port = handed.port,
                                .worker = handed.owner,
                                .largest_fragment = handed.largest_fragment,
                                .errand = handed.errand});
}

Forwarded BurstLab::deliver(std::span<const std::uint8_t> bytes, std::uint16_t port,
                            unsigned worker) {
  constexpr int kMostHops = 4;  // to the owner, to who chooses, and back
  Forwarded forwarded = send(bytes, port, worker);
  for (int hop = 0; forwarded.outcome == Outcome::handed_to_owner ||
                    forwarded.outcome == Outcome::handed_to_chooser;
       ++hop) {
    if (hop == kMostHops) std::abort();
    forwarded = pass_on(forwarded);
  }
  deliver_notices();
  return forwarded;
}

void BurstLab::deliver_notices() {
  for (WorkerState* state : states_) {
    state->notices.flush([this](const TemplateNotice& notice) {
      take_notice(*states_[notice.owner], notice);
      return true;
    });
  }
}

Forwarded BurstLab::process(std::span<const std::uint8_t> bytes, const Arrival& arrival) {
  WorkerState& state = *states_[arrival.worker];
  state.now = fake_now;
  Frame frame(bytes, arrival.port);
  Packet packet = frame.packet();
  packet.largest_fragment = arrival.largest_fragment;
  packet.errand = arrival.errand;
  process_burst({&packet, 1}, arrival.worker);
  Forwarded forwarded = leaving(state, packet);
  if (packet.buffer != &frame) datagrams_->put(packet.buffer);
  return forwarded;
}

Forwarded BurstLab::leaving(WorkerState& state, const Packet& packet) {
  Forwarded forwarded;
  forwarded.outcome = packet.outcome;
  forwarded.port = packet.port;
  forwarded.owner = packet.owner;
  forwarded.bytes.assign(packet.frame, packet.frame + packet.length);
  forwarded.largest_fragment = packet.largest_fragment;
  forwarded.errand = packet.errand;
  if (is_forwarded(packet.outcome) && is_to_be_cut(packet)) {
    forwarded.pieces = frames_of(packet, state.take_fragment_id());
  }
  return forwarded;
}

void BurstLab::process_burst(std::span<Packet> burst, unsigned worker, const Snapshot& snapshot) {
  const std::vector<Packet> before(burst.begin(), burst.end());
  std::vector<Bytes> received;
  for (const Packet& packet : burst) {
    received.emplace_back(packet.frame, packet.frame + packet.length);
  }
  weir::process_burst(*states_[worker], snapshot, burst);
  for (std::size_t i = 0; i < burst.size(); ++i) {
    if (!is_forwarded(burst[i].outcome)) continue;
    const bool datagram = burst[i].buffer != before[i].buffer;
    if (datagram && !shape_.right_datagrams) received[i].clear();
    judge(burst[i], received[i]);
  }
}

void BurstLab::judge(const Packet& packet, std::span<const std::uint8_t> received) const {
  const Bytes whole(packet.frame, packet.frame + packet.length);
  std::string fault = fault_of_sent(whole, packet.outcome, received);
  const std::vector<Bytes> frames = frames_of(packet, 1);
  if (frames.empty()) fault = "nothing";
  for (const Bytes& frame : frames) {
    if (fault.empty()) fault = fault_on_link(frame, packet.port);
    if (fault.empty() && is_to_be_cut(packet)) fault = fault_of(frame);
  }
  if (fault.empty()) return;
  ADD_FAILURE() << "a frame leaves with a fault: " << fault << "\nsent as "
                << name_of(packet.outcome) << ":\n"
                << to_hex(whole) << "\nreceived:\n"
                << to_hex(received);
}

std::string BurstLab::fault_on_link(std::span<const std::uint8_t> frame, std::uint16_t port) const {
  constexpr std::size_t kTagged = sizeof(EthernetHeader) + sizeof(VlanTag);
  constexpr std::size_t kLeastIpv6Mtu = 1280;
  if (port > 1) return "port";
  if (frame.size() < kTagged) return "frame is cut off";
  const auto ethernet = load<EthernetHeader>(frame.data());
  if (ethernet.source != (port == 0 ? kClientSideMac : kServerSideMac)) return "source MAC";
  const std::uint16_t vlan = port == 0 ? std::uint16_t{0} : shape_.server_vlan;
  const bool tagged = ethernet.ether_type.host() == kEtherTypeVlan;
  const auto tag = load<VlanTag>(frame.data() + sizeof ethernet);
  if (tagged != (vlan != 0) || (tagged && tag.control.host() != vlan)) return "VLAN tag";
  const std::size_t ip = tagged ? kTagged : sizeof ethernet;
  const std::size_t mtu = port == 0 ? shape_.client_mtu : shape_.server_mtu;
  const bool v6 = frame[ip] >> 4U == 6;
  // Pieces of IPv6 are no smaller than every link takes.
  return frame.size() - ip <= std::max(mtu, v6 ? kLeastIpv6Mtu : 0U) ? "" : "longer than the MTU";
}

}  // namespace weir::test
