// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/icmp/path_mtu.h"

#include <algorithm>
#include <optional>

#include "dataplane/path/router.h"
#include "dataplane/path/tunnel/tunnel.h"

namespace weir {
namespace {

// As long as Linux believes what a router has said of a path (net.ipv4.route.mtu_expires).
constexpr std::uint32_t kPathMtuTicks = 600 * kTicksPerSecond;

Family outer_family(const Packet& packet) noexcept {
  return *packet.quote >> 4U == 4 ? Family::ipv4 : Family::ipv6;
}

// The size that the ICMP error asks for, 0 for any other error. Routers of before RFC 1191 say 0:
// then what every IPv4 path must carry.
std::uint16_t asked_mtu(const Packet& packet) noexcept {
  constexpr std::uint16_t kLeastIpv4 = 576;
  constexpr std::uint16_t kLeastIpv6 = 1280;
  const auto icmp = load<IcmpHeader>(packet.quote - sizeof(IcmpHeader));
  if (outer_family(packet) == Family::ipv6) {
    if (icmp.type != kIcmpv6PacketTooBig || icmp.unused != Be16{}) return 0;
    return std::max(icmp.mtu.host(), kLeastIpv6);
  }
  const bool too_big =
      icmp.type == kIcmpDestinationUnreachable && icmp.code == kIcmpCodeFragmentationNeeded;
  return too_big ? std::max(icmp.mtu.host(), kLeastIpv4) : std::uint16_t{0};
}

std::optional<TunnelQuote> tunnel_quote(const Packet& packet) noexcept {
  const std::uint8_t* const end = packet.ip + packet.ip_length;
  return parse_tunnel_quote({packet.quote, static_cast<std::size_t>(end - packet.quote)});
}

IpAddress quoted_source(const Packet& packet) noexcept {
  if (outer_family(packet) == Family::ipv4) {
    return reinterpret_cast<const Ipv4Header*>(packet.quote)->source;
  }
  return reinterpret_cast<const Ipv6Header*>(packet.quote)->source;
}

bool is_quoted_tunnel(const Snapshot& snapshot, const RealServer& server, const TunnelQuote& quote,
                      const IpAddress& source) noexcept {
  if (server.mode != ForwardMode::tun || server.address != quote.to) return false;
  if (server.tunnel.type != quote.tunnel.type || tunnel_source(snapshot, server) != source)
    return false;
  return server.tunnel.type != TunnelType::gue || server.tunnel.port == quote.tunnel.port;
}

}  // namespace

std::uint16_t tunnel_mtu(const WorkerState& worker, const Snapshot& snapshot, const Packet& packet,
                         ServerSlot slot) noexcept {
  const std::uint16_t link = mtu_of(snapshot, packet);
  const SharedServer& shared = (*snapshot.shared)[slot];
  const std::uint16_t path = shared.path_mtu.load(std::memory_order_relaxed);
  if (path == 0) return link;
  const std::uint32_t age = worker.now - shared.path_mtu_since.load(std::memory_order_relaxed);
  return age < kPathMtuTicks ? std::min(link, path) : link;
}

void learn_path_mtu(const WorkerState& worker, const Snapshot& snapshot, const Packet& packet,
                    const RealServer& server) noexcept {
  if (!snapshot.settings->pmtu_disc) return;
  const std::uint16_t mtu = asked_mtu(packet);
  if (mtu == 0) return;
  const auto quote = tunnel_quote(packet);
  if (!quote || !is_quoted_tunnel(snapshot, server, *quote, quoted_source(packet))) return;
  SharedServer& shared = (*snapshot.shared)[server.slot];
  shared.path_mtu_since.store(worker.now, std::memory_order_relaxed);
  shared.path_mtu.store(mtu, std::memory_order_relaxed);
}

bool lacks_tunnelled_packet(const Packet& packet) noexcept {
  return asked_mtu(packet) != 0 && tunnel_quote(packet).has_value();
}

}  // namespace weir
