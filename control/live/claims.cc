// SPDX-License-Identifier: Apache-2.0
#include "control/live/claims.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "dataplane/xdp/steer_maps.h"

namespace weir {
namespace {

using Role = ServiceIndex::Role;
using Map = SteeringChange::Map;

std::size_t place_of(Family family) { return family == Family::ipv4 ? 0 : 1; }

void add_to(std::uint32_t& count, int by) {
  count = static_cast<std::uint32_t>(static_cast<std::int64_t>(count) + by);
}

bool is_ftp(std::uint16_t port, Protocol protocol) {
  return port == kFtp && protocol == Protocol::tcp;
}

}  // namespace

ClaimBook::ClaimBook() {
  for (auto& family : segments_) family = std::vector<Segment>(ServiceIndex::kSegments);
}

// ---- Keys ----

ClaimBook::Key ClaimBook::of(const IpAddress& address, std::uint16_t port, Protocol protocol,
                             Role role, Extra extra) {
  return {{address, Be16::from_host(port), protocol, role}, extra};
}

ClaimBook::Key ClaimBook::of_address(const IpAddress& address, Role role, Extra extra) {
  return of(address, 0, ServiceIndex::kAnyPort, role, extra);
}

ClaimBook::Key ClaimBook::ftp_data(const IpAddress& address) {
  return of(address, kFtp, Protocol::tcp, Role::none, Extra::ftp_data);
}

ClaimBook::Key ClaimBook::local_address(const IpAddress& address) {
  return of_address(address, Role::local_address);
}

ClaimBook::Key ClaimBook::tunnel_server(const IpAddress& address) {
  return of_address(address, Role::none, Extra::tunnel_server);
}

ClaimBook::Key ClaimBook::host_address(const IpAddress& address) {
  return of_address(address, Role::none, Extra::host_address);
}

// ---- Claims ----

ClaimBook::Segment& ClaimBook::segment_at(const SegmentName& name) {
  return segments_[place_of(name.family)][name.index];
}

ClaimBook::Segment& ClaimBook::segment_of(const Key& key, SegmentName& name) {
  name = {key.key.address.family(), ServiceIndex::segment_of(key.key)};
  return segment_at(name);
}

ClaimBook::Claims* ClaimBook::find(const Key& key) {
  SegmentName name{};
  auto& claims = segment_of(key, name).claims;
  const auto found = claims.find(key);
  return found == claims.end() ? nullptr : &found->second;
}

template <class Edit>
void ClaimBook::edit(const Key& key, Edit&& edit) {
  SegmentName name{};
  Segment& segment = segment_of(key, name);
  const auto [at, is_new] = segment.claims.try_emplace(key);
  if (is_new) count_sizes(key, +1);
  edit(at->second);
  if (at->second.none()) {
    segment.claims.erase(at);
    count_sizes(key, -1);
  }
  if (key.key.role != Role::fwmark) {
    if (segment.untold.empty()) untold_.push_back(name);
    segment.untold.push_back(key);
  }
  if (key.extra != Extra::none) return;
  is_changed_ = true;
  if (std::exchange(segment.is_stale, true)) return;
  stale_.push_back(name);
}

void ClaimBook::change(const Key& key, int by) {
  if (key.extra == Extra::ftp_data) add_to(ftp_data_, by);
  edit(key, [by](Claims& claims) { add_to(claims.plain, by); });
}

void ClaimBook::change_replies(const Key& key, ReplyTo to, int by) {
  edit(key, [to, by](Claims& claims) {
    add_to(to == ReplyTo::client ? claims.to_client : claims.to_local_address, by);
  });
}

void ClaimBook::claim_service(const IpAddress& address, std::uint16_t port, Protocol protocol,
                              ServiceSlot slot) {
  if (port == 0) ++services_for_all_ports_;
  if (is_ftp(port, protocol)) ++ftp_services_;
  edit(of(address, port, protocol, Role::service), [slot](Claims& claims) {
    ++claims.plain;
    claims.slot = slot;
  });
  change(of_address(address, Role::service), +1);
}

void ClaimBook::release_service(const IpAddress& address, std::uint16_t port, Protocol protocol) {
  if (port == 0) --services_for_all_ports_;
  if (is_ftp(port, protocol)) --ftp_services_;
  change(of(address, port, protocol, Role::service), -1);
  change(of_address(address, Role::service), -1);
}

namespace {

IpAddress address_for(std::uint32_t mark, Family family) {
  if (family == Family::ipv4) return address_of_mark<Ipv4Address>(mark);
  return address_of_mark<Ipv6Address>(mark);
}

}  // namespace

void ClaimBook::claim_mark(std::uint32_t mark, Family family, ServiceSlot slot) {
  edit(of_address(address_for(mark, family), Role::fwmark), [slot](Claims& claims) {
    ++claims.plain;
    claims.slot = slot;
  });
}

void ClaimBook::release_mark(std::uint32_t mark, Family family) {
  change(of_address(address_for(mark, family), Role::fwmark), -1);
}

void ClaimBook::claim_replies(const IpAddress& address, std::uint16_t port, Protocol protocol,
                              ReplyTo to) {
  if (port == 0) ++sources_of_all_ports_;
  change_replies(of(address, port, protocol, Role::reply_source), to, +1);
  change_replies(of_address(address, Role::reply_source), to, +1);
}

void ClaimBook::release_replies(const IpAddress& address, std::uint16_t port, Protocol protocol,
                                ReplyTo to) {
  if (port == 0) --sources_of_all_ports_;
  change_replies(of(address, port, protocol, Role::reply_source), to, -1);
  change_replies(of_address(address, Role::reply_source), to, -1);
}

void ClaimBook::claim_one_packet(const IpAddress& address, std::uint16_t port, ServerSlot slot) {
  ++one_packet_servers_;
  edit(of(address, port, Protocol::udp, Role::reply_source),
       [slot](Claims& claims) { claims.one_packet.push_back(slot); });
}

void ClaimBook::release_one_packet(const IpAddress& address, std::uint16_t port, ServerSlot slot) {
  --one_packet_servers_;
  edit(of(address, port, Protocol::udp, Role::reply_source), [slot](Claims& claims) {
    claims.one_packet.erase(std::find(claims.one_packet.begin(), claims.one_packet.end(), slot));
  });
}

// ---- The workers' index ----

namespace {

ServerSlot the_one_of(const std::vector<ServerSlot>& slots) {
  if (slots.empty()) return kNoServer;
  const bool same = std::all_of(slots.begin(), slots.end(),
                                [&](ServerSlot slot) { return slot == slots.front(); });
  return same ? slots.front() : ServiceIndex::kSeveralServers;
}

}  // namespace

void ClaimBook::make_segment(const SegmentName& name) {
  Segment& segment = segment_at(name);
  std::vector<ServiceIndex::Item> items;
  items.reserve(segment.claims.size());
  for (const auto& [key, claims] : segment.claims) {
    if (key.extra != Extra::none) continue;
    const bool reply = key.key.role == Role::reply_source;
    const int replies =
        (claims.to_client != 0 ? static_cast<int>(ReplyTo::client) : 0) |
        (claims.to_local_address != 0 ? static_cast<int>(ReplyTo::local_address) : 0);
    items.push_back({key.key, reply ? the_one_of(claims.one_packet) : claims.slot,
                     static_cast<std::uint8_t>(replies)});
  }
  if (segment.memory != nullptr) replaced_.push_back(std::move(segment.memory));
  segment.memory = draft_.set_segment(name.family, name.index, items);
  segment.is_stale = false;
}

bool ClaimBook::make_segments(std::size_t at_most) {
  for (; at_most != 0 && !stale_.empty(); --at_most) {
    make_segment(stale_.back());
    stale_.pop_back();
  }
  return !stale_.empty();
}

std::shared_ptr<const ServiceIndex> ClaimBook::publish() {
  while (make_segments(ServiceIndex::kSegments)) continue;
  if (std::exchange(is_changed_, false) || published_ == nullptr) {
    draft_.set_extras({.loose_services = services_for_all_ports_ + ftp_services_ != 0,
                       .replies_of_all_ports = sources_of_all_ports_ != 0,
                       .one_packet_servers = one_packet_servers_ != 0});
    losses_ = losses_->follow(std::exchange(replaced_, {}));
    published_ = std::make_shared<const Version>(Version{draft_, losses_});
  }
  return {published_, &published_->index};
}

// ---- The steering program's maps ----

void ClaimBook::count_sizes(const Key& key, int by) {
  const auto add = [by](std::size_t& size) { size += static_cast<std::size_t>(by); };
  const bool exact = key.key.protocol != ServiceIndex::kAnyPort;
  if (!exact) {
    if (key.key.role != Role::fwmark) add(sizes_.addresses);
  } else if (key.key.role == Role::service) {
    add(sizes_.services);
  } else if (key.key.role == Role::reply_source) {
    add(sizes_.servers);
  }
}

SteeringChange ClaimBook::steering_of_address(const IpAddress& address) {
  SteeringChange change{.map = Map::addresses, .address = address};
  const Claims* replies = find(of_address(address, Role::reply_source));
  if (find(of_address(address, Role::service)) != nullptr) {
    change.value |= WEIR_VIRTUAL;
  } else if (find(host_address(address)) != nullptr) {
    change.value |= WEIR_LOCAL;
  }
  if (replies != nullptr && replies->to_client != 0) change.value |= WEIR_SERVER;
  if (replies != nullptr && replies->to_local_address != 0) change.value |= WEIR_FULLNAT_SERVER;
  if (find(local_address(address)) != nullptr) change.value |= WEIR_POOL;
  if (find(tunnel_server(address)) != nullptr) change.value |= WEIR_TUNNEL_SERVER;
  return change;
}

SteeringChange ClaimBook::steering_of(const Key& key) {
  const ServiceIndex::Key& end = key.key;
  if (end.protocol == ServiceIndex::kAnyPort) return steering_of_address(end.address);
  SteeringChange change{.address = end.address, .port = end.port.host(), .protocol = end.protocol};
  if (end.role == Role::reply_source) {
    change.map = Map::servers;
    const Claims* replies = find(key);
    if (replies != nullptr && replies->to_client != 0) change.value |= WEIR_TO_CLIENTS;
    if (replies != nullptr && replies->to_local_address != 0) change.value |= WEIR_TO_POOL;
    return change;
  }
  const bool is_service =
      find(of(end.address, change.port, end.protocol, Role::service)) != nullptr;
  if (is_service) change.value |= WEIR_SERVICE;
  const bool carries_data =
      is_ftp(change.port, end.protocol) && find(ftp_data(end.address)) != nullptr;
  if (carries_data) change.value |= WEIR_FTP;
  return change;
}

std::vector<SteeringChange> ClaimBook::take_steering_changes(std::size_t at_most) {
  std::vector<SteeringChange> changes;
  for (; at_most != 0 && !untold_.empty(); --at_most) {
    std::vector<Key>& keys = segment_at(untold_.back()).untold;
    changes.push_back(steering_of(keys.back()));
    keys.pop_back();
    if (keys.empty()) untold_.pop_back();
  }
  return changes;
}

void ClaimBook::drop_steering_changes() {
  for (const SegmentName& name : untold_) segment_at(name).untold.clear();
  untold_.clear();
}

std::uint32_t ClaimBook::steering_extras() const {
  return (services_for_all_ports_ != 0 ? std::uint32_t{WEIR_ALL_PORTS} : 0U) |
         (ftp_data_ != 0 ? std::uint32_t{WEIR_FTP_DATA} : 0U) |
         (sources_of_all_ports_ != 0 ? std::uint32_t{WEIR_ALL_SERVER_PORTS} : 0U);
}

}  // namespace weir
