// SPDX-License-Identifier: Apache-2.0
#include "control/host/network.h"

#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <sys/socket.h>

#include <absl/strings/str_cat.h>
#include <boost/asio/post.hpp>

#include <algorithm>
#include <array>
#include <random>
#include <utility>

namespace weir {

namespace {

using std::chrono::milliseconds;

constexpr std::chrono::microseconds kSlice{200};  // other jobs of the control thread wait this long
constexpr std::chrono::seconds kReleaseInterval{10};
constexpr milliseconds kRetry{1000};
constexpr int kAttempts = 5;
constexpr std::size_t kWaysAtOnce = 64;
constexpr std::size_t kMostRoutesOneByOne = 256;
const IpAddress kLinkLocal = IpAddress::parse("fe80::").value_or(IpAddress());

constexpr std::array<int, 10> kGroups = {
    RTNLGRP_LINK,       RTNLGRP_NEIGH,       RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE,  RTNLGRP_IPV4_RULE,   RTNLGRP_IPV6_RULE,
    RTNLGRP_NEXTHOP,    RTNLGRP_IPV4_NETCONF};

bool is_same(const HostRoutes& a, const HostRoutes& b) {
  return a.entries == b.entries && a.addresses == b.addresses && a.complaints == b.complaints;
}

bool is_table_of_ours(std::uint32_t table) {
  return table == RT_TABLE_LOCAL || table == RT_TABLE_MAIN || table == RT_TABLE_DEFAULT;
}

const Link* find_link(const std::vector<Link>& links, std::uint32_t index) {
  const auto link = std::ranges::find(links, index, &Link::index);
  return link == links.end() ? nullptr : &*link;
}

const Interface* find_interface(const std::vector<Interface>& interfaces, std::uint32_t link) {
  const auto found = std::ranges::find(interfaces, link, &Interface::kernel_index);
  return found == interfaces.end() ? nullptr : &*found;
}

IpAddress source_on(const std::vector<InterfaceAddress>& addresses, std::uint32_t link,
                    Family family) {
  for (const InterfaceAddress& each : addresses) {
    if (each.link == link && each.is_source && each.address.family() == family) {
      return each.address;
    }
  }
  return {};
}

Interface make_interface(const Link& link, std::uint16_t port, std::uint16_t vlan,
                         const std::vector<InterfaceAddress>& addresses) {
  constexpr std::uint32_t kMaxMtu = 65535;
  Interface interface;
  interface.kernel_index = link.index;
  interface.port = port;
  interface.vlan = vlan;
  interface.mtu = static_cast<std::uint16_t>(std::min(link.mtu, kMaxMtu));
  interface.up = link.up;
  interface.mac = link.mac;
  interface.ipv4_source = source_on(addresses, link.index, Family::ipv4);
  interface.ipv6_source = source_on(addresses, link.index, Family::ipv6);
  return interface;
}

bool is_plain_vlan(const Link& link, const Interface& parent) {
  return link.kind == "vlan" && !link.is_provider_vlan && parent.vlan == 0;
}

// What is different about an index into Routes::interfaces().
bool same_places(const std::vector<Interface>& a, const std::vector<Interface>& b) {
  return std::ranges::equal(a, b, [](const Interface& x, const Interface& y) {
    return x.kernel_index == y.kernel_index && x.port == y.port && x.vlan == y.vlan;
  });
}

template <class T>
void append(std::vector<T>& list, const std::vector<T>& more) {
  list.insert(list.end(), more.begin(), more.end());
}

std::uint64_t random_seed() {
  std::random_device random;
  return std::uint64_t{random()} << 32 | random();
}

absl::string_view text_of(Family family) { return family == Family::ipv4 ? "IPv4" : "IPv6"; }

}  // namespace

struct Network::Picture {
  absl::Status status;
  Scope scope = Scope::all;
  bool is_torn = false;  // changed again and again while it was read
  std::vector<Link> links;
  std::vector<InterfaceAddress> addresses;
  std::vector<PolicyRule> rules;
  std::vector<HostNeighbour> neighbours;
  std::shared_ptr<const HostRoutes> routes;
  RouteChanges changes;  // from the former
};

// A handler that does nothing once the Network is gone.
template <class Handler>
auto Network::guarded(Handler handler) {
  return [alive = std::weak_ptr<int>(alive_), handler = std::move(handler)](auto... arguments) {
    if (!alive.expired()) handler(arguments...);
  };
}

absl::StatusOr<std::unique_ptr<Network>> Network::open(boost::asio::io_context& io,
                                                       std::vector<PortBinding> bindings) {
  std::vector<Port> ports;
  for (PortBinding& binding : bindings) {
    const std::uint32_t link = ::if_nametoindex(binding.kernel_interface.c_str());
    if (link == 0) {
      return absl::NotFoundError(absl::StrCat("there is no network interface ",
                                              binding.kernel_interface,
                                              ": choose one that `ip link` shows"));
    }
    ports.push_back({binding.port, std::move(binding.kernel_interface), link});
  }
  auto events = NetlinkSocket::open();
  auto questions = NetlinkSocket::open();
  auto orders = NetlinkSocket::open();
  for (const auto* socket : {&events, &questions, &orders}) {
    if (!socket->ok()) return socket->status();
  }
  if (const absl::Status status = events->subscribe(kGroups); !status.ok()) return status;
  std::unique_ptr<Network> network(new Network(io, std::move(ports), *std::move(events),
                                               *std::move(questions), *std::move(orders)));
  Picture picture = network->read(Scope::all, nullptr);
  if (!picture.status.ok()) return picture.status;
  network->adopt(std::move(picture));
  network->await_events();
  network->tick();
  return network;
}

Network::Network(boost::asio::io_context& io, std::vector<Port> ports, NetlinkSocket events,
                 NetlinkSocket questions, NetlinkSocket orders)
    : io_(io),
      ports_(std::move(ports)),
      events_(std::move(events)),
      questions_(std::move(questions)),
      orders_(std::move(orders)),
      events_readable_(io, events_.fd()),
      reading_timer_(io),
      publishing_timer_(io),
      tick_timer_(io),
      neighbours_([this](std::uint32_t link, const IpAddress& address,
                         Neighbours::Question question) { return ask(link, address, question); }),
      editor_(random_seed()) {}

Network::~Network() {
  alive_.reset();
  helper_.join();
  events_readable_.release();  // the socket owns the descriptor
}

std::vector<MacAddress> Network::macs(std::uint16_t port) const {
  std::vector<MacAddress> result;
  for (const Interface& interface : interfaces_) {
    const bool is_new = std::ranges::find(result, interface.mac) == result.end();
    if (interface.port == port && is_new) result.push_back(interface.mac);
  }
  return result;
}

Network::LinkState Network::link_state(std::uint16_t port) const {
  const auto found = std::ranges::find(ports_, port, &Port::port);
  return found == ports_.end() ? LinkState::deleted : found->state;
}

std::vector<std::string> Network::complaints() const {
  std::vector<std::string> result = complaints_;
  for (const auto& more : {host_routes_->complaints, neighbours_.complaints()}) {
    result.insert(result.end(), more.begin(), more.end());
  }
  return result;
}

void Network::neighbour_missing(std::uint16_t interface, const IpAddress& address) {
  if (interface >= interfaces_.size()) return;
  neighbours_.want({interfaces_[interface].kernel_index, address}, Clock::now());
  if (neighbours_.has_changes()) schedule_publishing();
}

void Network::mark_used(std::span<const NextHopIndex> next_hops) {
  const auto now = Clock::now();
  for (const NextHopIndex index : next_hops) neighbours_.mark_used(index, now);
}

// ---- Listening

void Network::await_events() {
  events_readable_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                              guarded([this](const boost::system::error_code& error) {
                                if (error) return;
                                on_events();
                                await_events();
                              }));
}

int Network::ask(std::uint32_t link, const IpAddress& address, Neighbours::Question question) {
  // Events may be waiting, and the kernel would make an ordinary neighbour of a permanent one.
  if ((orders_.neighbour_state(link, address) & (NUD_PERMANENT | NUD_NOARP)) != 0) return 0;
  if (question == Neighbours::Question::probe) {
    return orders_.change_neighbour(link, address, NUD_PROBE, 0, 0);
  }
  return orders_.change_neighbour(link, address, NUD_NONE, NTF_USE, NLM_F_CREATE);
}

void Network::on_events() {
  const auto deadline = Clock::now() + kSlice;
  do {
    switch (events_.receive([this](const nlmsghdr& message) { on_event(message); })) {
      case NetlinkSocket::Receipt::nothing:
        if (std::exchange(events_lost_, false)) {
          next_scope_ = Scope::all;
          schedule_reading();
        }
        return;
      case NetlinkSocket::Receipt::lost_messages:
        // The kernel drops, without another word, until the queue has been emptied once.
        events_lost_ = true;
        break;
      case NetlinkSocket::Receipt::messages:
        break;
    }
  } while (Clock::now() < deadline);
}

void Network::on_event(const nlmsghdr& message) {
  switch (message.nlmsg_type) {
    case RTM_NEWNEIGH:
      if (const auto neighbour = parse_neighbour(message)) {
        neighbours_.on_change(*neighbour, Clock::now());
        if (neighbours_.has_changes()) schedule_publishing();
      }
      break;
    case RTM_DELNEIGH:
      if (const auto neighbour = parse_neighbour(message)) neighbours_.on_removal(*neighbour);
      break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      if (const auto route = parse_route(message); route && is_table_of_ours(route->table)) {
        schedule_reading();
      }
      break;
    default:
      schedule_reading();
  }
}

void Network::tick() {
  // A slice may have ended with the last message, and nothing more calls on_events().
  if (events_lost_) on_events();
  const auto now = Clock::now();
  neighbours_.tick(now);
  if (now - last_release_ >= kReleaseInterval) {
    last_release_ = now;
    const auto is_ours = [this](std::uint32_t link) { return places_.contains(link); };
    if (neighbours_.release_unused(now, is_ours)) ++generation_;
  }
  if (neighbours_.has_changes()) schedule_publishing();
  tick_timer_.expires_after(Neighbours::kTick);
  tick_timer_.async_wait(guarded([this](const boost::system::error_code& error) {
    if (!error) tick();
  }));
}

// ---- Reading the kernel's lists

Network::Picture Network::read(Scope scope, std::shared_ptr<const HostRoutes> former) {
  struct Question {
    int type;
    int family;
  };
  constexpr std::array<Question, 7> kQuestions = {{{RTM_GETLINK, AF_UNSPEC},
                                                   {RTM_GETADDR, AF_UNSPEC},
                                                   {RTM_GETROUTE, AF_INET},
                                                   {RTM_GETROUTE, AF_INET6},
                                                   {RTM_GETRULE, AF_INET},
                                                   {RTM_GETRULE, AF_INET6},
                                                   {RTM_GETNEIGH, AF_UNSPEC}}};
  Picture picture;
  std::vector<HostRoute> routes;
  const auto take = [&](const nlmsghdr& message) {
    if (auto link = parse_link(message)) picture.links.push_back(*std::move(link));
    if (const auto address = parse_address(message)) picture.addresses.push_back(*address);
    if (const auto rule = parse_rule(message)) picture.rules.push_back(*rule);
    if (const auto neighbour = parse_neighbour(message)) picture.neighbours.push_back(*neighbour);
    auto route = parse_route(message);
    if (route && is_table_of_ours(route->table)) routes.push_back(*std::move(route));
  };
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    picture = Picture{};
    routes.clear();
    for (const Question& question : kQuestions) {
      if (question.type == RTM_GETNEIGH && scope == Scope::without_neighbours) continue;
      const auto listing = questions_.list(question.type, question.family, take);
      if (!listing.ok()) return Picture{.status = listing.status()};
      picture.is_torn |= *listing == NetlinkSocket::Listing::interrupted;
    }
    if (!picture.is_torn) break;
  }
  picture.scope = scope;
  picture.routes = std::make_shared<const HostRoutes>(select_routes(std::move(routes)));
  const HostRoutes none;
  picture.changes = changes_between(former == nullptr ? none : *former, *picture.routes);
  if (former != nullptr && is_same(*former, *picture.routes)) picture.routes = std::move(former);
  return picture;
}

void Network::schedule_reading() {
  again_ = reading_ == Reading::under_way;
  if (reading_ != Reading::idle) return;
  reading_ = Reading::scheduled;
  reading_timer_.expires_at(std::max(Clock::now() + kGathering, not_before_));
  reading_timer_.async_wait(guarded([this](const boost::system::error_code& error) {
    if (!error) start_reading();
  }));
}

void Network::start_reading() {
  reading_ = Reading::under_way;
  reading_began_ = Clock::now();
  boost::asio::post(helper_, [this, scope = std::exchange(next_scope_, Scope::without_neighbours),
                              former = host_routes_, alive = std::weak_ptr<int>(alive_)] {
    boost::asio::post(io_, [this, picture = read(scope, former), alive]() mutable {
      if (!alive.expired()) on_read(std::move(picture));
    });
  });
}

void Network::on_read(Picture picture) {
  reading_ = Reading::idle;
  // Reading takes at most a quarter of the time.
  const auto now = Clock::now();
  not_before_ = now + std::max<Clock::duration>(kMinSpacing, 3 * (now - reading_began_));
  if (!picture.status.ok()) {
    // Out of memory, at worst: the former picture stays until the next attempt.
    not_before_ = now + kRetry;
    next_scope_ = Scope::all;
    again_ = true;
  }
  // What is missing of a torn list may be a neighbour.
  if (picture.is_torn && picture.scope == Scope::all) next_scope_ = Scope::all;
  if (std::exchange(again_, false) || picture.is_torn) schedule_reading();
  if (picture.status.ok()) adopt(std::move(picture));
}

void Network::adopt(Picture picture) {
  const auto now = Clock::now();
  std::vector<Interface> interfaces = interfaces_of(picture);
  const bool new_places = !same_places(interfaces, interfaces_);
  const bool new_interfaces = interfaces != interfaces_;
  change_.ports |= update_link_states(picture) || new_interfaces;
  const bool is_first = host_routes_ == nullptr;
  const bool new_routes = picture.routes != host_routes_;
  // What ports take for a broadcast goes with their addresses.
  change_.ports |= is_first || host_routes_->broadcasts != picture.routes->broadcasts;
  host_routes_.swap(picture.routes);
  // A large table takes long to take apart.
  boost::asio::post(helper_, [former = std::move(picture.routes)] {});
  std::vector<std::string> complaints = complaints_about(picture, interfaces);
  const bool new_complaints = complaints != complaints_;
  complaints_ = std::move(complaints);
  if (new_interfaces) adopt_interfaces(std::move(interfaces));
  if (picture.scope == Scope::all) {
    neighbours_.forget_states();
    for (const HostNeighbour& each : picture.neighbours) neighbours_.on_change(each, now);
  }
  if (new_routes) {
    editor_.table(host_routes_->table);
    append(change_.addresses, picture.changes.local);
    append(change_.addresses_in, picture.changes.addresses_in);
    append(change_.addresses_out, picture.changes.addresses_out);
  }
  if (new_routes || new_places || is_first) {
    ++generation_;
    neighbours_.release_unused(now, [this](std::uint32_t link) { return places_.contains(link); });
    pin_gateways();
    new_places ? mark_all_dirty() : mark_dirty(picture.changes.routes);
    is_stale_ = true;
  }
  const bool news = change_.ports || new_routes || new_complaints || is_first;
  if (news || neighbours_.has_changes()) publish();
}

void Network::adopt_interfaces(std::vector<Interface> interfaces) {
  interfaces_ = std::move(interfaces);
  places_.clear();
  for (std::size_t i = 0; i < interfaces_.size(); ++i) {
    places_.emplace(interfaces_[i].kernel_index, static_cast<std::uint16_t>(i));
  }
  editor_.interfaces(interfaces_);
  is_stale_ = true;
  // Next hops say what their interface is like.
  for (NextHopIndex index = 0; index < next_hop_end(); ++index) {
    editor_.next_hop(index, next_hop_of(neighbours_.slots()[index]));
  }
}

// ---- Making Routes

std::vector<Interface> Network::interfaces_of(const Picture& picture) const {
  std::vector<Interface> result;
  for (const Port& port : ports_) {
    const Link* link = find_link(picture.links, port.link);
    if (link != nullptr) result.push_back(make_interface(*link, port.port, 0, picture.addresses));
  }
  for (const Link& link : picture.links) {
    const Interface* parent = find_interface(result, link.parent);
    if (parent == nullptr || !is_plain_vlan(link, *parent)) continue;
    result.push_back(make_interface(link, parent->port, link.vlan, picture.addresses));
  }
  for (const Link& link : picture.links) {
    const Interface* parent = find_interface(result, link.parent);
    if (parent == nullptr || link.kind != "macvlan") continue;
    result.push_back(make_interface(link, parent->port, parent->vlan, picture.addresses));
  }
  return result;
}

std::vector<std::string> Network::complaints_about(const Picture& picture,
                                                   const std::vector<Interface>& interfaces) const {
  std::vector<std::string> result;
  for (const PolicyRule& rule : picture.rules) {
    if (rule.is_plain_lookup && is_table_of_ours(rule.table)) continue;
    result.push_back(absl::StrCat("the ", text_of(rule.family), " policy rule of priority ",
                                  rule.priority,
                                  " is not followed: weir knows only table main; "
                                  "delete the rule (ip rule) or move its routes"));
  }
  for (const Link& link : picture.links) {
    const bool is_ours = find_interface(interfaces, link.index) != nullptr;
    if (const Link* master = find_link(picture.links, link.master); is_ours && master != nullptr) {
      result.push_back(absl::StrCat(link.name, " belongs to ", master->name, " (", master->kind,
                                    "), whose routes weir does not know: take it out (ip link set ",
                                    link.name, " nomaster)"));
    }
    const Interface* parent = find_interface(interfaces, link.parent);
    if (parent != nullptr && link.kind == "vlan" && !is_plain_vlan(link, *parent)) {
      result.push_back(absl::StrCat(link.name,
                                    " has more than one 802.1Q tag, or an 802.1ad one: "
                                    "weir does not forward through it"));
    }
  }
  return result;
}

bool Network::update_link_states(const Picture& picture) {
  bool is_changed = false;
  for (Port& port : ports_) {
    const Link* link = find_link(picture.links, port.link);
    const LinkState state = link == nullptr ? LinkState::deleted
                            : link->up      ? LinkState::up
                                            : LinkState::down;
    is_changed |= std::exchange(port.state, state) != state;
  }
  return is_changed;
}

void Network::pin_gateways() {
  const auto now = Clock::now();
  std::vector<Neighbours::Key> gateways;
  for (const RouteEntry::Hop& hop : host_routes_->table->hops()) {
    if (!hop.gateway.is_unspecified() && places_.contains(hop.kernel_interface)) {
      gateways.push_back({hop.kernel_interface, hop.gateway});
    }
  }
  for (const Neighbours::Key& key : gateways) neighbours_.pin(key, now);
  for (const Neighbours::Key& key : gateways_) neighbours_.unpin(key);
  gateways_ = std::move(gateways);
}

// ---- Ways to real servers

WayIndex Network::acquire_way(const IpAddress& address) {
  const auto [known, is_new] = way_by_address_.try_emplace(address);
  if (is_new) {
    if (free_ways_.empty() && ways_.size() == Routes::kMaxWays) {
      way_by_address_.erase(known);
      return 0;
    }
    if (free_ways_.empty()) {
      free_ways_.push_back(static_cast<WayIndex>(ways_.size()));
      ways_.emplace_back();
    }
    known->second = free_ways_.back();
    free_ways_.pop_back();
    ways_[known->second] = WayRecord{.address = address};
    follow_way(known->second);
    is_stale_ = true;
    schedule_publishing();
  }
  ++ways_[known->second].users;
  return known->second;
}

void Network::release_way(const IpAddress& address) {
  const auto known = way_by_address_.find(address);
  if (known == way_by_address_.end()) return;
  WayRecord& way = ways_[known->second];
  if (--way.users != 0) return;
  for (const std::uint32_t link : way.pinned_on) neighbours_.unpin({link, address});
  editor_.way(known->second, Way{});
  is_stale_ = true;
  // One that is in the list of dirty ways is freed when its turn comes.
  if (!way.is_dirty) free_ways_.push_back(known->second);
  way_by_address_.erase(known);
}

std::optional<std::string> Network::problem_with(const IpAddress& server) const {
  const bool link_local = !server.is_ipv4() && IpPrefix{kLinkLocal, 10}.contains(server);
  if (link_local) {
    return absl::StrCat(server.to_string(),
                        " is a link-local address, which says nothing without an interface: give "
                        "the real server's global or unique local one");
  }
  if (!host_routes_->groups.contains(server)) return std::nullopt;
  return absl::StrCat(server.to_string(),
                      " is the broadcast, multicast or anycast address of a network of this host "
                      "(`ip route show table local`): no real server can be there");
}

void Network::mark_dirty(WayIndex index) {
  if (!std::exchange(ways_[index].is_dirty, true)) dirty_ways_.push_back(index);
}

void Network::mark_all_dirty() {
  for (const auto& [address, index] : way_by_address_) mark_dirty(index);
}

void Network::mark_dirty(const std::vector<IpPrefix>& routes) {
  if (routes.size() > kMostRoutesOneByOne) return mark_all_dirty();
  for (const IpPrefix& prefix : routes) {
    for (auto at = way_by_address_.lower_bound(prefix.address);
         at != way_by_address_.end() && at->first <= prefix.last(); ++at) {
      mark_dirty(at->second);
    }
  }
}

void Network::follow_way(WayIndex index) {
  const auto now = Clock::now();
  WayRecord& way = ways_[index];
  std::vector<std::uint32_t> links;
  const RouteTable& table = *host_routes_->table;
  if (const RouteTable::Group* group = table.find(way.address)) {
    for (const RouteEntry::Hop& hop : table.hops().subspan(group->first, group->count)) {
      const bool ours = places_.contains(hop.kernel_interface);
      if (hop.gateway.is_unspecified() && ours) links.push_back(hop.kernel_interface);
    }
  }
  for (const std::uint32_t link : links) neighbours_.pin({link, way.address}, now);
  for (const std::uint32_t link : way.pinned_on) neighbours_.unpin({link, way.address});
  way.pinned_on = std::move(links);
  follow_next_hops();
  editor_.way(index, editor_.way_to(way.address));
}

NextHop Network::next_hop_of(const Neighbours::Slot& slot) const {
  NextHop next_hop;
  const auto place = places_.find(slot.key.link);
  if (!slot.used || place == places_.end()) return next_hop;
  const Interface& interface = interfaces_[place->second];
  next_hop.used = true;
  next_hop.address = slot.key.address;
  next_hop.destination = slot.mac;
  next_hop.resolved = slot.resolved;
  next_hop.source = interface.mac;
  next_hop.interface = place->second;
  next_hop.port = interface.port;
  next_hop.vlan = interface.vlan;
  next_hop.mtu = interface.mtu;
  return next_hop;
}

// Where a neighbour comes or goes, the way to it changes too.
void Network::follow_next_hops() {
  for (const NextHopIndex index : neighbours_.take_changes()) {
    const NextHop before = editor_.next_hop_at(index);
    const NextHop after = next_hop_of(neighbours_.slots()[index]);
    editor_.next_hop(index, after);
    is_stale_ = true;
    if (before.used == after.used && before.address == after.address) continue;
    for (const NextHop& hop : {before, after}) {
      const auto way = hop.used ? way_by_address_.find(hop.address) : way_by_address_.end();
      if (way != way_by_address_.end()) mark_dirty(way->second);
    }
  }
}

// A piece of what is dirty, and a new version if anything has changed.
void Network::refresh() {
  follow_next_hops();
  for (std::size_t i = 0; i < kWaysAtOnce && !dirty_ways_.empty(); ++i) {
    const WayIndex index = dirty_ways_.back();
    dirty_ways_.pop_back();
    ways_[index].is_dirty = false;
    if (ways_[index].users == 0) {
      free_ways_.push_back(index);
    } else {
      follow_way(index);
    }
    is_stale_ = true;
  }
  if (!std::exchange(is_stale_, false)) return;
  published_ = editor_.generation(generation_).publish();
}

std::shared_ptr<const Routes> Network::current_routes() {
  if (is_stale_ || neighbours_.has_changes()) refresh();
  return published_;
}

void Network::schedule_publishing() {
  if (std::exchange(publishing_, true)) return;
  publishing_timer_.expires_at(
      std::max(Clock::now() + kGathering, last_publication_ + kMinSpacing));
  publishing_timer_.async_wait(guarded([this](const boost::system::error_code& error) {
    if (!error) publish();
  }));
}

void Network::publish() {
  publishing_ = false;
  last_publication_ = Clock::now();
  refresh();
  if (listener_) listener_(std::exchange(change_, {}));
  if (!dirty_ways_.empty() && !std::exchange(publishing_, true)) {
    boost::asio::post(io_, guarded([this] { publish(); }));
  }
}

}  // namespace weir
