// SPDX-License-Identifier: Apache-2.0
// TOA and PROXY headers between two TCP ends of the test's own, over a network that loses, delays
// and doubles packets: each end must get the other's bytes, whole and nothing else, with honest
// acknowledgements, SACK blocks and windows. Checksums are computed here. Single packets, byte by
// byte, are judged by scapy in tests/packets/client_address_cases_test.cc.
#include "dataplane/path/fullnat/client_address.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/net/wire_headers.h"
#include "tests/support/random.h"

namespace weir {
namespace {

using Bytes = std::vector<std::uint8_t>;
using test::Random;

constexpr std::uint8_t kFin = TcpHeader::kFin;
constexpr std::uint8_t kSyn = TcpHeader::kSyn;
constexpr std::uint8_t kRst = TcpHeader::kRst;
constexpr std::uint8_t kAck = TcpHeader::kAck;
constexpr std::size_t kEthernet = 14;
constexpr std::size_t kHeadroom = 56;

// ---- Segments as bytes ----

struct Segment {
  std::uint32_t sequence = 0;
  std::uint32_t acknowledgement = 0;
  std::uint8_t flags = 0;
  std::uint16_t window = 0;
  Bytes options;  // without padding
  Bytes payload;
};

struct Path {
  Family family = Family::ipv4;
  IpAddress client = *IpAddress::parse("10.1.0.1");
  IpAddress service = *IpAddress::parse("10.9.0.1");
  std::uint16_t client_port = 40001;
  std::uint16_t service_port = 80;

  std::size_t ip_header() const { return family == Family::ipv4 ? 20 : 40; }
};

Path ipv6_path() {
  return {.family = Family::ipv6,
          .client = *IpAddress::parse("2001:db8:1::1"),
          .service = *IpAddress::parse("2001:db8:9::1")};
}

void put16(Bytes& to, std::size_t value) {
  to.push_back(static_cast<std::uint8_t>(value >> 8));
  to.push_back(static_cast<std::uint8_t>(value));
}
void put32(Bytes& to, std::uint32_t value) {
  put16(to, value >> 16);
  put16(to, value & 0xffff);
}
std::uint32_t get16(const Bytes& from, std::size_t at) {
  return static_cast<std::uint32_t>(from.at(at) << 8 | from.at(at + 1));
}
std::uint32_t get32(const Bytes& from, std::size_t at) {
  return get16(from, at) << 16 | get16(from, at + 2);
}

void put_address(Bytes& to, const IpAddress& address) {
  to.insert(to.end(), address.bytes().begin(),
            address.bytes().begin() + (address.is_ipv4() ? 4 : 16));
}

std::uint16_t sum_of(const Bytes& bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += static_cast<std::uint32_t>(i % 2 == 0 ? bytes[i] << 8 : bytes[i]);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

// Of pseudo header and segment.
std::uint16_t tcp_sum(const Path& path, const Bytes& transport) {
  Bytes all;
  put_address(all, path.client);
  put_address(all, path.service);
  put32(all, static_cast<std::uint32_t>(transport.size()));
  put32(all, 6);
  all.insert(all.end(), transport.begin(), transport.end());
  return sum_of(all);
}

Bytes ip_header(const Path& path, bool from_client, std::size_t payload) {
  Bytes ip;
  const auto ends =
      from_client ? std::pair(path.client, path.service) : std::pair(path.service, path.client);
  if (path.family == Family::ipv4) {
    ip = {0x45, 0};
    put16(ip, 20 + payload);
    ip.insert(ip.end(), {0, 1, 0x40, 0, 64, 6, 0, 0});
  } else {
    ip = {0x60, 0, 0, 0};
    put16(ip, payload);
    ip.insert(ip.end(), {6, 64});
  }
  put_address(ip, ends.first);
  put_address(ip, ends.second);
  if (path.family == Family::ipv4) {
    const auto checksum = static_cast<std::uint16_t>(~sum_of(ip));
    ip[10] = static_cast<std::uint8_t>(checksum >> 8);
    ip[11] = static_cast<std::uint8_t>(checksum);
  }
  return ip;
}

Bytes encode(const Path& path, bool from_client, const Segment& segment) {
  Bytes tcp;
  put16(tcp, from_client ? path.client_port : path.service_port);
  put16(tcp, from_client ? path.service_port : path.client_port);
  put32(tcp, segment.sequence);
  put32(tcp, segment.acknowledgement);
  Bytes options = segment.options;
  while (options.size() % 4 != 0) options.push_back(0);
  tcp.push_back(static_cast<std::uint8_t>((20 + options.size()) / 4 << 4));
  tcp.push_back(segment.flags);
  put16(tcp, segment.window);
  put32(tcp, 0);
  tcp.insert(tcp.end(), options.begin(), options.end());
  tcp.insert(tcp.end(), segment.payload.begin(), segment.payload.end());
  const auto checksum = static_cast<std::uint16_t>(~tcp_sum(path, tcp));
  tcp[16] = static_cast<std::uint8_t>(checksum >> 8);
  tcp[17] = static_cast<std::uint8_t>(checksum);
  Bytes packet = ip_header(path, from_client, tcp.size());
  packet.insert(packet.end(), tcp.begin(), tcp.end());
  return packet;
}

Segment decode(const Path& path, const Bytes& packet) {
  const std::size_t header = path.ip_header();
  if (path.family == Family::ipv4) {
    EXPECT_EQ(get16(packet, 2), packet.size());
    EXPECT_EQ(sum_of(Bytes(packet.begin(), packet.begin() + 20)), 0xffff);
  } else {
    EXPECT_EQ(get16(packet, 4), packet.size() - header);
  }
  const Bytes tcp(packet.begin() + static_cast<std::ptrdiff_t>(header), packet.end());
  EXPECT_EQ(tcp_sum(path, tcp), 0xffff) << "checksum";
  const auto length = static_cast<std::ptrdiff_t>((tcp.at(12) >> 4) * 4);
  Segment segment{
      get32(tcp, 4), get32(tcp, 8), tcp.at(13), static_cast<std::uint16_t>(get16(tcp, 14)), {}, {}};
  segment.options.assign(tcp.begin() + 20, tcp.begin() + length);
  segment.payload.assign(tcp.begin() + length, tcp.end());
  return segment;
}

// Option kind -> what follows kind and length.
std::multimap<int, Bytes> options_of(const Segment& segment) {
  std::multimap<int, Bytes> found;
  const Bytes& all = segment.options;
  for (std::size_t at = 0; at < all.size() && all[at] != 0;) {
    if (all[at] == 1) {
      ++at;
      continue;
    }
    const std::size_t length = all.at(at + 1);
    EXPECT_GE(length, 2U);
    EXPECT_LE(at + length, all.size());
    found.emplace(all[at], Bytes(all.begin() + static_cast<std::ptrdiff_t>(at + 2),
                                 all.begin() + static_cast<std::ptrdiff_t>(at + length)));
    at += length;
  }
  return found;
}

// ---- What is tested, between the two ends ----

class Middle {
 public:
  Middle(const Path& path, ClientAddress how, std::uint16_t mtu)
      : path_(path),
        how_(how),
        mtu_(mtu),
        ends_{path.client, path.service, Be16::from_host(path.client_port),
              Be16::from_host(path.service_port)} {}

  std::optional<Bytes> to_server(const Bytes& bytes) {
    Packet packet = lay_out(bytes);
    const auto& tcp = *reinterpret_cast<const TcpHeader*>(packet.transport);
    if ((tcp.flags & kSyn) != 0 && (!is_active(shift_) || starts_anew(packet, shift_))) {
      shift_ = begin_shift(packet, how_, path_.family);
    }
    EXPECT_EQ(pass_to_server(packet, shift_, ends_, mtu_), Outcome::undecided);
    EXPECT_LE(packet.ip_length, std::max<std::size_t>(mtu_, bytes.size()));
    return result(packet);
  }
  std::optional<Bytes> to_client(const Bytes& bytes) {
    Packet packet = lay_out(bytes);
    if (!pass_to_client(packet, shift_)) return std::nullopt;
    clamp_mss(packet, largest_mss(shift_, path_.family, mtu_));
    return result(packet);
  }
  const SequenceShift& shift() const { return shift_; }

 private:
  Packet lay_out(const Bytes& bytes) {
    storage_.assign(kHeadroom, 0xaa);
    for (std::uint8_t i = 0; i < kEthernet; ++i) storage_.push_back(i);
    storage_.insert(storage_.end(), bytes.begin(), bytes.end());
    storage_.shrink_to_fit();
    Packet packet;
    packet.frame = storage_.data() + kHeadroom;
    packet.headroom = kHeadroom;
    packet.length = static_cast<std::uint16_t>(kEthernet + bytes.size());
    packet.ip = packet.frame + kEthernet;
    packet.transport = packet.ip + path_.ip_header();
    packet.ip_length = static_cast<std::uint16_t>(bytes.size());
    packet.family = path_.family;
    packet.tcp_flags = packet.transport[13];
    return packet;
  }
  Bytes result(const Packet& packet) const {
    EXPECT_EQ(packet.frame, storage_.data() + packet.headroom);
    EXPECT_EQ(packet.ip, packet.frame + kEthernet);
    EXPECT_EQ(packet.transport, packet.ip + path_.ip_header());
    EXPECT_EQ(packet.length, kEthernet + packet.ip_length);
    for (std::uint8_t i = 0; i < kEthernet; ++i) EXPECT_EQ(packet.frame[i], i);
    EXPECT_LE(packet.ip + packet.ip_length, storage_.data() + storage_.size());
    return {packet.ip, packet.ip + packet.ip_length};
  }

  Path path_;
  ClientAddress how_;
  std::uint16_t mtu_;
  ClientEnds ends_;
  SequenceShift shift_{};
  Bytes storage_;
};

// proxy-protocol.txt section 2.2, for TCP.
Bytes proxy_header(const Path& path) {
  Bytes header = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n', 0x21};
  header.push_back(path.family == Family::ipv4 ? 0x11 : 0x21);
  put16(header, path.family == Family::ipv4 ? 12 : 36);
  put_address(header, path.client);
  put_address(header, path.service);
  put16(header, path.client_port);
  put16(header, path.service_port);
  return header;
}

Bytes toa_option(const Path& path) {
  Bytes option;
  put16(option, path.client_port);
  put_address(option, path.client);
  return option;
}

// ---- A TCP end ----

// Offsets count from the ISN: 0 is the SYN, the stream begins at 1, the FIN follows it.
class Peer {
 public:
  struct Shape {
    bool is_client = true;
    std::uint32_t isn = 0;
    Bytes stream;
    std::uint32_t buffer = 4000;
    unsigned scale = 0;
    std::size_t mss = 1400;
    bool obeys_mss = true;
    bool fast_open = false;  // data on the SYN
    Bytes extra_options;     // on every segment
  };
  Peer(Shape shape, Random& random) : shape_(std::move(shape)), random_(random) {}

  std::vector<Segment> take_output() { return std::exchange(output_, {}); }
  void expect(std::size_t bytes) { have_.resize(bytes + 1); }
  const Bytes& received() const { return received_; }
  bool is_established() const { return established_; }
  bool is_reset() const { return reset_; }
  bool is_done() const {
    return established_ && una_ == end_of_stream() + 1 && peer_fin_ && got_ > *peer_fin_;
  }
  // Whether the stream's byte at `offset` has arrived.
  bool has(std::uint32_t offset) const { return offset < have_.size() && have_[offset]; }
  void judge_sack_by(std::function<bool(std::uint32_t)> judge) { judge_ = std::move(judge); }
  void watch(std::function<void(const Segment&)> watcher) { watcher_ = std::move(watcher); }
  void abort() {
    aborted_ = true;
    Segment reset = make(highest_, {});
    reset.flags = kRst | kAck;
    output_.push_back(reset);
  }

  void tick() {
    ++now_;
    if (reset_ || aborted_) return;
    if (!established_) {
      if (shape_.is_client && now_ % kTimeout == 1) send_syn();
      if (!shape_.is_client && syn_seen_ && now_ - progress_ > kTimeout) send_syn();
      return;
    }
    consumed_ += std::min(got_ - consumed_, random_() % 400);
    if (random_() % 4 == 0) send_new();
    if (una_ < highest_ && now_ - progress_ > kTimeout) resend();
    if (now_ % 97 == 0) probe();
  }

  void receive(const Segment& segment) {
    if (watcher_) watcher_(segment);
    if (reset_) return;
    if (aborted_) {
      answer_when_closed(segment);
    } else if ((segment.flags & kSyn) != 0) {
      receive_syn(segment);
    } else if (syn_seen_) {
      receive_segment(segment);
    }
  }

 private:
  static constexpr unsigned kTimeout = 60;

  std::uint32_t end_of_stream() const {
    return static_cast<std::uint32_t>(shape_.stream.size()) + 1;
  }
  std::uint32_t edge() const { return consumed_ + shape_.buffer; }

  Segment make(std::uint32_t from, Bytes payload) {
    Segment segment{shape_.isn + from,    peer_isn_ + got_,  syn_seen_ ? kAck : std::uint8_t{0}, 0,
                    shape_.extra_options, std::move(payload)};
    const std::uint32_t window = edge() - got_;
    segment.window = static_cast<std::uint16_t>(std::min(window >> shape_.scale, 0xffffU));
    advertised_ = std::max(advertised_, got_ + (std::uint32_t{segment.window} << shape_.scale));
    return segment;
  }

  void send_syn() {
    Segment syn = make(0, {});
    syn.flags |= kSyn;
    const std::uint32_t window = std::min(edge() - got_, 0xffffU);
    syn.window = static_cast<std::uint16_t>(window);
    advertised_ = std::max(advertised_, got_ + window);
    syn.options.insert(syn.options.end(), {2, 4});
    put16(syn.options, 1460);
    syn.options.insert(syn.options.end(), {1, 3, 3, static_cast<std::uint8_t>(shape_.scale), 4, 2});
    if (shape_.fast_open) syn.payload = {'t', 'f', 'o'};
    output_.push_back(syn);
    highest_ = std::max(highest_, 1U);
    progress_ = now_;
  }

  // Up to `most` bytes from `from` on, and the FIN behind the last one.
  void send(std::uint32_t from, std::size_t most) {
    const std::uint32_t end = end_of_stream();
    const auto length =
        static_cast<std::uint32_t>(std::min<std::size_t>(most, end - std::min(from, end)));
    const auto begin = shape_.stream.begin() + (from - 1);
    Segment segment = make(from, Bytes(begin, begin + length));
    std::uint32_t after = from + length;
    if (after == end && (length == 0 || random_() % 2 == 0)) {
      segment.flags |= kFin;
      ++after;
    }
    highest_ = std::max(highest_, after);
    output_.push_back(segment);
  }

  void send_new() {
    const std::uint32_t end = end_of_stream();
    if (highest_ > end) return;
    const std::uint32_t room = peer_edge_ > highest_ ? peer_edge_ - highest_ : 0;
    const std::size_t wish = random_() % 2 == 0 ? mss() : 1 + random_() % mss();
    const std::size_t most = std::min<std::size_t>({wish, room, end - highest_});
    if (most != 0 || highest_ == end) send(highest_, most);
  }

  void resend() {
    progress_ = now_;
    const std::uint32_t room = peer_edge_ > una_ ? peer_edge_ - una_ : 0;
    const std::size_t sent = std::min(highest_, end_of_stream()) - std::min(una_, end_of_stream());
    const std::size_t most = std::min<std::size_t>({1 + random_() % mss(), room, sent});
    if (most != 0 || una_ == end_of_stream()) send(una_, most);
  }

  // As keep-alives are: the byte before the first unacknowledged one, or nothing.
  void probe() {
    Segment segment = make(una_ - 1, {});
    if (random_() % 2 == 0) segment.payload.push_back('?');
    output_.push_back(segment);
  }

  std::size_t mss() const { return std::max<std::size_t>(mss_, 1); }

  void receive_syn(const Segment& segment) {
    if (established_) {
      output_.push_back(make(highest_, {}));
      return;
    }
    if (shape_.is_client && segment.acknowledgement != shape_.isn + 1) return;
    syn_seen_ = true;
    peer_isn_ = segment.sequence;
    got_ = consumed_ = 1;
    const auto options = options_of(segment);
    peer_scale_ = options.find(3)->second.at(0);
    const std::size_t said = get16(options.find(2)->second, 0);
    mss_ = shape_.obeys_mss ? std::min(said, shape_.mss) : shape_.mss;
    if (!shape_.is_client) {
      EXPECT_TRUE(segment.payload.empty());
      send_syn();
      return;
    }
    established_ = true;
    una_ = 1;
    peer_edge_ = 1U + segment.window;
    progress_ = now_;
    output_.push_back(make(1, {}));
  }

  void receive_segment(const Segment& segment) {
    const std::uint32_t at = segment.sequence - peer_isn_;
    if ((segment.flags & kRst) != 0) {
      receive_reset(segment, at);
      return;
    }
    if (!receive_acknowledgement(segment)) return;
    check_sack(segment);
    // Old or beyond the window: only an acknowledgement.
    const auto length = static_cast<std::uint32_t>(segment.payload.size());
    if (static_cast<std::int32_t>(at) < 0 || at == 0 || at > advertised_) {
      if (at == 0 || length != 0 || static_cast<std::int32_t>(at) < 0) acknowledge(std::nullopt);
      return;
    }
    EXPECT_LE(at + length, advertised_) << "beyond the window";
    const bool known = length != 0 && at < got_;
    for (std::uint32_t i = 0; i < length; ++i) take(at + i, segment.payload[i]);
    if ((segment.flags & kFin) != 0) peer_fin_ = at + length;
    while (has(got_)) ++got_;
    if (peer_fin_ && got_ == *peer_fin_) ++got_;
    if (length != 0 || (segment.flags & kFin) != 0) {
      acknowledge(known ? std::optional(std::pair(at, std::min(at + length, got_))) : std::nullopt);
    }
  }

  void take(std::uint32_t offset, std::uint8_t byte) {
    if (offset < got_) return;
    if (offset >= have_.size()) have_.resize(offset + 1);
    if (received_.size() < offset) received_.resize(offset);
    if (have_[offset]) {
      EXPECT_EQ(received_[offset - 1], byte) << "changed at " << offset;
    }
    have_[offset] = true;
    received_[offset - 1] = byte;
  }

  bool receive_acknowledgement(const Segment& segment) {
    const std::uint32_t acknowledged = segment.acknowledgement - shape_.isn;
    EXPECT_LE(acknowledged, highest_) << "acknowledges what was not sent";
    EXPECT_GE(acknowledged, 1U);
    if (!established_) {
      if (acknowledged != 1) return false;
      established_ = true;
      una_ = 1;
      progress_ = now_;
    }
    if (acknowledged > una_) {
      una_ = acknowledged;
      progress_ = now_;
    }
    peer_edge_ =
        std::max(peer_edge_, acknowledged + (std::uint32_t{segment.window} << peer_scale_));
    return true;
  }

  void check_sack(const Segment& segment) {
    for (const auto& [kind, blocks] : options_of(segment)) {
      if (kind != 5) continue;
      EXPECT_EQ(blocks.size() % 8, 0U);
      EXPECT_GT(blocks.size(), 0U);
      for (std::size_t at = 0; at < blocks.size(); at += 8) {
        const std::uint32_t left = get32(blocks, at) - shape_.isn;
        const std::uint32_t right = get32(blocks, at + 4) - shape_.isn;
        EXPECT_LT(left, right);
        EXPECT_GE(left, 1U);
        EXPECT_LE(right, highest_);
        for (std::uint32_t i = left; i < std::min(right, end_of_stream()); ++i) {
          EXPECT_TRUE(judge_(i)) << "SACK of what has not arrived";
        }
      }
    }
  }

  void acknowledge(std::optional<std::pair<std::uint32_t, std::uint32_t>> duplicate) {
    Segment segment = make(highest_, {});
    std::vector<std::pair<std::uint32_t, std::uint32_t>> blocks;
    if (duplicate) blocks.push_back(*duplicate);
    for (std::uint32_t i = got_; i < have_.size() && blocks.size() < 3; ++i) {
      if (!have_[i]) continue;
      const std::uint32_t left = i;
      while (has(i)) ++i;
      blocks.emplace_back(left, i);
    }
    if (!blocks.empty()) {
      // Aligned or not.
      for (unsigned i = random_() % 3; i != 0; --i) segment.options.push_back(1);
      segment.options.push_back(5);
      segment.options.push_back(static_cast<std::uint8_t>(2 + 8 * blocks.size()));
      for (const auto& [left, right] : blocks) {
        put32(segment.options, peer_isn_ + left);
        put32(segment.options, peer_isn_ + right);
      }
    }
    output_.push_back(segment);
  }

  // RFC 5961 section 3, as Linux has it: by the end of the segment.
  void receive_reset(const Segment& segment, std::uint32_t at) {
    const auto length = static_cast<std::uint32_t>(segment.payload.size());
    if (at + length < got_ || at > edge()) return;
    if (at == got_) {
      reset_ = true;
    } else {
      acknowledge(std::nullopt);
    }
  }

  void answer_when_closed(const Segment& segment) {
    if ((segment.flags & kRst) != 0) return;
    output_.push_back({segment.acknowledgement, 0, kRst, 0, {}, {}});
  }

  Shape shape_;
  Random& random_;
  std::vector<Segment> output_;
  std::function<bool(std::uint32_t)> judge_ = [](std::uint32_t) { return true; };
  std::function<void(const Segment&)> watcher_;
  unsigned now_ = 0;
  unsigned progress_ = 0;
  bool established_ = false;
  bool syn_seen_ = false;
  bool aborted_ = false;
  bool reset_ = false;
  // Sending.
  std::uint32_t una_ = 0;
  std::uint32_t highest_ = 0;
  std::uint32_t peer_edge_ = 0;
  unsigned peer_scale_ = 0;
  std::size_t mss_ = 536;
  // Receiving.
  std::uint32_t peer_isn_ = 0;
  std::uint32_t got_ = 0;  // next offset wanted
  std::uint32_t consumed_ = 0;
  std::uint32_t advertised_ = 0;
  std::optional<std::uint32_t> peer_fin_;
  std::vector<bool> have_;
  Bytes received_;
};

// ---- The network ----

struct Weather {
  unsigned lost = 10;  // per cent
  unsigned doubled = 5;
  unsigned longest_delay = 20;  // ticks
};

struct World {
  Path path;
  ClientAddress how = ClientAddress::proxy;
  std::uint16_t mtu = 1500;
  Weather weather;
  Peer::Shape client;
  Peer::Shape server;
};

class Simulation {
 public:
  static constexpr unsigned kTicks = 60'000;

  Simulation(const World& world, Random& random)
      : world_(world),
        random_(random),
        middle_(world.path, world.how, world.mtu),
        client_(world.client, random),
        server_(world.server, random),
        header_(world.how == ClientAddress::proxy ? proxy_header(world.path) : Bytes{}) {
    const auto shift = static_cast<std::uint32_t>(header_.size());
    client_.judge_sack_by([this, shift](std::uint32_t at) { return server_.has(at + shift); });
    server_.judge_sack_by([this](std::uint32_t at) { return client_.has(at); });
  }

  Peer& client() { return client_; }
  Peer& server() { return server_; }
  Middle& middle() { return middle_; }

  void tick() {
    ++now_;
    client_.tick();
    server_.tick();
    for (auto at = wire_.begin(); at != wire_.end() && at->first <= now_; at = wire_.erase(at)) {
      arrive(at->second.first, at->second.second);
    }
    for (const Segment& segment : client_.take_output()) send(true, segment);
    for (const Segment& segment : server_.take_output()) send(false, segment);
  }
  void run_until_done() {
    for (unsigned i = 0; i < kTicks && !(client_.is_done() && server_.is_done()); ++i) {
      tick();
      if (testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(client_.is_done());
    EXPECT_TRUE(server_.is_done());
    Bytes wanted = header_;
    wanted.insert(wanted.end(), world_.client.stream.begin(), world_.client.stream.end());
    EXPECT_EQ(server_.received(), wanted);
    EXPECT_EQ(client_.received(), world_.server.stream);
  }

 private:
  // Each half of the way is as bad as the other.
  void send(bool from_client, const Segment& segment) {
    const bool doubled = random_() % 100 < world_.weather.doubled;
    for (int copy = 0; copy < (doubled ? 2 : 1); ++copy) {
      if (random_() % 100 < world_.weather.lost) continue;
      wire_.emplace(now_ + 1 + random_() % world_.weather.longest_delay,
                    std::pair(from_client, encode(world_.path, from_client, segment)));
    }
  }
  void arrive(bool from_client, const Bytes& bytes) {
    const auto passed = from_client ? middle_.to_server(bytes) : middle_.to_client(bytes);
    if (!passed || random_() % 100 < world_.weather.lost) return;
    (from_client ? server_ : client_).receive(decode(world_.path, *passed));
  }

  World world_;
  Random& random_;
  Middle middle_;
  Peer client_;
  Peer server_;
  Bytes header_;
  unsigned now_ = 0;
  std::multimap<unsigned, std::pair<bool, Bytes>> wire_;
};

Bytes random_stream(Random& random, std::size_t most) {
  Bytes stream(random() % 8 == 0 ? 0 : random() % most);
  for (std::uint8_t& byte : stream) byte = static_cast<std::uint8_t>(random());
  return stream;
}

World random_world(Random& random) {
  World world;
  if (random() % 2 == 0) world.path = ipv6_path();
  world.weather = {random() % 25, random() % 10, 1 + random() % 25};
  const bool obeys = random() % 3 != 0;
  // Sometimes about to wrap.
  const auto isn = [&] { return random() % 2 == 0 ? 0xffffff00U + random() % 512 : random(); };
  const std::uint32_t buffers[] = {150, 600, 5000, 60'000};
  world.client = {.is_client = true,
                  .isn = isn(),
                  .stream = random_stream(random, 8000),
                  .buffer = buffers[random() % 4],
                  .scale = random() % 8,
                  .mss = 1400,
                  .obeys_mss = obeys,
                  .extra_options = {}};
  world.client.fast_open = random() % 2 == 0;
  if (!obeys) world.client.mss = world.mtu - world.path.ip_header() - 20;
  world.server = {.is_client = false,
                  .isn = isn(),
                  .stream = random_stream(random, 8000),
                  .buffer = buffers[random() % 4],
                  .scale = random() % 4,
                  .mss = 1400,
                  .obeys_mss = true,
                  .extra_options = {}};
  return world;
}

// ---- Tests ----

TEST(ProxyHeader, streams_are_whole_behind_it_whatever_the_network_does) {
  for (unsigned seed = 0; seed < 800; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    Simulation simulation(random_world(random), random);
    simulation.run_until_done();
    EXPECT_NE(simulation.middle().shift().told, Told::no);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(ProxyHeader, a_client_that_aborts_takes_the_server_with_it) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    World world = random_world(random);
    world.weather.lost /= 2;
    Simulation simulation(world, random);
    unsigned ticks = 0;
    while (!simulation.client().is_established() && ++ticks < Simulation::kTicks) simulation.tick();
    for (unsigned wait = random() % 200; wait != 0; --wait) simulation.tick();
    if (simulation.client().is_done()) continue;
    simulation.client().abort();
    for (ticks = 0; !simulation.server().is_reset() && !simulation.server().is_done() &&
                    ticks < Simulation::kTicks;
         ++ticks) {
      simulation.tick();
    }
    EXPECT_LT(ticks, Simulation::kTicks) << "the server never learned";
    if (testing::Test::HasFailure()) return;
  }
}

// Whatever a client sends, in the header's place the server gets the header.
TEST(ProxyHeader, nothing_of_the_client_reaches_its_place) {
  for (unsigned seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    const Path path = seed % 2 == 0 ? Path{} : ipv6_path();
    const Bytes header = proxy_header(path);
    Middle middle(path, ClientAddress::proxy, 1500);
    const std::uint32_t isn = random();
    Segment syn{isn, 0, kSyn, 1000, {}, Bytes(random() % 100, 'X')};
    const Segment first = decode(path, *middle.to_server(encode(path, true, syn)));
    EXPECT_TRUE(first.payload.empty());
    for (int i = 0; i < 500; ++i) {
      Segment evil{isn + 1 + random() % 200 - 100, 77, kAck, 1000, {}, Bytes(random() % 300, 'X')};
      const std::uint8_t flags[] = {kAck, kAck | kFin, kAck | kRst, kSyn, kRst, kFin, 0, 0x28};
      evil.flags = flags[random() % 8];
      // Another ISN is another connection.
      if (evil.flags == kSyn) evil.sequence = isn;
      const Segment seen = decode(path, *middle.to_server(encode(path, true, evil)));
      for (std::size_t at = 0; at < seen.payload.size(); ++at) {
        const auto offset = static_cast<std::uint32_t>(seen.sequence + at - (isn + 1)) -
                            ((seen.flags & kSyn) != 0 ? 0xffffffffU : 0);
        if (offset < header.size()) {
          ASSERT_EQ(seen.payload[at], header[offset]) << offset;
        }
      }
    }
  }
}

TEST(ProxyHeader, a_second_isn_gets_no_answer_or_a_connection_of_its_own) {
  const Path path;
  Middle middle(path, ClientAddress::proxy, 1500);
  const auto pass = [&](const Segment& segment) {
    return middle.to_server(encode(path, true, segment));
  };
  ASSERT_TRUE(pass({1000, 0, kSyn, 1000, {}, {}}));
  // Middle does as the packet path does: it begins anew.
  ASSERT_TRUE(pass({5000, 0, kSyn, 1000, {}, {}}));
  EXPECT_EQ(middle.shift().client_first, 5001U);
  const auto answer = [&](std::uint32_t acknowledgement) {
    return middle.to_client(
        encode(path, false, {9000, acknowledgement, kSyn | kAck, 1000, {}, {}}));
  };
  EXPECT_FALSE(answer(1001)) << "a SYN cookie of the first";
  EXPECT_TRUE(answer(5001));
}

TEST(ProxyHeader, sequence_numbers_that_an_icmp_error_quotes_are_the_clients) {
  SequenceShift shift{.client_first = 0xfffffff0U, .how = ClientAddress::proxy, .bytes = 28};
  EXPECT_EQ(client_sequence(shift, 0xffffffefU), 0xffffffefU) << "the SYN";
  EXPECT_EQ(client_sequence(shift, 0xfffffff0U), 0xfffffff0U);
  EXPECT_EQ(client_sequence(shift, 0xfffffff0U + 27), 0xfffffff0U);
  EXPECT_EQ(client_sequence(shift, 0xfffffff0U + 28 + 100), 0xfffffff0U + 100);
  shift.how = ClientAddress::toa;
  EXPECT_EQ(client_sequence(shift, 12345U), 12345U);
}

// One upload of twice all sequence numbers, by steps as long as a window may be.
class LongUpload {
 public:
  LongUpload(const Path& path, std::uint32_t isn)
      : path_(path),
        bytes_(proxy_header_bytes(path.family)),
        first_(isn + 1),
        middle_(path, kHow, 1500) {
    pass_to_server({isn, 0, kSyn, 1000, {}, {}});
    pass_to_client({0, first_, kSyn | kAck, 1000, {3, 3, 14}, {}});
    pass_to_server({first_, 1, kAck, 1000, {}, {}});
    pass_to_client({1, first_ + bytes_, kAck, 1000, {}, {}});
  }

  // The client sends what is `ahead` of what the server has, the server acknowledges `step` more.
  void advance(std::uint32_t step, std::uint32_t ahead) {
    const std::uint32_t sent = first_ + static_cast<std::uint32_t>(stream_ + ahead);
    EXPECT_EQ(pass_to_server({sent, 1, kAck, 1000, {}, {'x'}}).sequence, sent + bytes_);
    EXPECT_EQ(client_sequence(middle_.shift(), sent + bytes_), sent) << "quoted";
    stream_ += step;
    const std::uint32_t client = first_ + static_cast<std::uint32_t>(stream_);
    Bytes sack = {5, 10};
    put32(sack, client + bytes_ + ahead / 2);
    put32(sack, client + bytes_ + ahead / 2 + 1);
    const Segment seen = pass_to_client({1, client + bytes_, kAck, 1000, sack, {}});
    EXPECT_EQ(seen.acknowledgement, client);
    EXPECT_EQ(get32(seen.options, 2), client + ahead / 2);
    EXPECT_EQ(get32(seen.options, 6), client + ahead / 2 + 1);
    EXPECT_EQ(seen.window, 1000);
  }
  std::uint64_t stream() const { return stream_; }

 private:
  static constexpr ClientAddress kHow = ClientAddress::proxy;

  Segment pass_to_server(const Segment& segment) {
    return decode(path_, *middle_.to_server(encode(path_, true, segment)));
  }
  Segment pass_to_client(const Segment& segment) {
    return decode(path_, *middle_.to_client(encode(path_, false, segment)));
  }

  Path path_;
  std::uint32_t bytes_;
  std::uint32_t first_;  // sequence number of the stream's first byte
  Middle middle_;
  std::uint64_t stream_ = 0;  // bytes that the server has acknowledged
};

TEST(ProxyHeader, the_shift_is_the_same_however_far_the_stream_has_come) {
  constexpr std::uint64_t kFar = std::uint64_t{1} << 33;
  constexpr std::uint32_t kWindow = 0xffffU << 14;
  for (unsigned seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    LongUpload upload(seed % 2 == 0 ? Path{} : ipv6_path(), random());
    while (upload.stream() < kFar) {
      const std::uint32_t ahead = random() % 4 == 0 ? kWindow : random() % kWindow;
      upload.advance(random() % 3 == 0 ? ahead : random() % (ahead + 1), ahead);
      if (testing::Test::HasFailure()) {
        FAIL() << upload.stream() << " bytes after the first";
      }
    }
  }
}

TEST(ProxyHeader, no_headroom_and_no_room_are_named_and_change_nothing) {
  const Path path;
  Bytes storage = encode(path, true, {1001, 1, kAck, 1000, {}, {'a', 'b', 'c'}});
  const Bytes before = storage;
  Packet packet;
  packet.frame = packet.ip = storage.data();
  packet.headroom = 27;
  packet.length = packet.ip_length = static_cast<std::uint16_t>(storage.size());
  packet.transport = packet.ip + 20;
  packet.family = Family::ipv4;
  packet.tcp_flags = kAck;
  const ClientEnds ends{path.client, path.service, Be16::from_host(1), Be16::from_host(2)};
  SequenceShift shift{.client_first = 1001, .how = ClientAddress::proxy, .bytes = 28};
  EXPECT_EQ(pass_to_server(packet, shift, ends, 1500), Outcome::drop_no_headroom);
  packet.headroom = 28;
  EXPECT_EQ(pass_to_server(packet, shift, ends, 67), Outcome::drop_too_big);
  EXPECT_EQ(storage, before);
  EXPECT_EQ(packet.ip, storage.data());
}

TEST(Toa, the_segment_that_establishes_the_servers_socket_tells_the_client) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Random random(seed);
    World world = random_world(random);
    world.how = ClientAddress::toa;
    world.mtu = 9000;
    world.client.fast_open = false;
    // A client that poses as another in every segment.
    if (seed % 3 != 0) {
      world.client.extra_options = {254, 8, 1, 2, 3, 4, 5, 6};
      if (seed % 3 == 1) world.client.extra_options = {1, 254, 6, 9, 9, 9, 9, 254, 3, 7};
    }
    Simulation simulation(world, random);
    bool told = false;
    simulation.server().watch([&](const Segment& segment) {
      if (simulation.server().is_established() || (segment.flags & kRst) != 0) return;
      const auto options = options_of(segment);
      ASSERT_EQ(options.count(254), 1U);
      EXPECT_EQ(options.find(254)->second, toa_option(world.path));
      told = true;
    });
    simulation.run_until_done();
    EXPECT_TRUE(told);
    EXPECT_NE(simulation.middle().shift().told, Told::no);
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Toa, a_client_cannot_make_it_stop_before_the_server_is_established) {
  const Path path;
  Middle middle(path, ClientAddress::toa, 1500);
  const auto options = [&](const Segment& segment) {
    return options_of(decode(path, *middle.to_server(encode(path, true, segment))));
  };
  EXPECT_EQ(options({1000, 0, kSyn, 1000, {}, {}}).count(254), 1U);
  const auto answer = [&](const Segment& segment) {
    EXPECT_TRUE(middle.to_client(encode(path, false, segment)));
  };
  answer({5000, 1001, kSyn | kAck, 1000, {2, 4, 5, 180, 3, 3, 0}, {}});
  // Acknowledges what the server has not sent; another SYN; a challenge ACK of the server.
  EXPECT_EQ(options({1001, 6000, kAck, 1000, {}, {}}).count(254), 1U);
  EXPECT_EQ(options({10, 0, kSyn, 1000, {}, {}}).count(254), 1U);
  answer({5001, 1001, kAck, 1000, {}, {}});
  const Bytes forged = {254, 8, 1, 2, 3, 4, 5, 6};
  const auto seen = options({1001, 5001, kAck, 1000, forged, {'x'}});
  ASSERT_EQ(seen.count(254), 1U);
  EXPECT_EQ(seen.find(254)->second, toa_option(path));
  answer({5001, 1002, kAck, 1000, {}, {}});
  EXPECT_EQ(options({1002, 5001, kAck, 1000, {}, {'y'}}).count(254), 0U);
}

}  // namespace
}  // namespace weir
