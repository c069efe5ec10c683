// SPDX-License-Identifier: Apache-2.0
// What weir knows of the host's network: interfaces, addresses, routes and neighbours, as the
// kernel tells them over netlink, made into Routes for the workers.
//
// Events only say that something changed; the truth is a fresh list of everything but neighbours,
// read and made into tables on a helper thread, adopted and published by the control thread.
// So no order of events, and no lost one, can leave a wrong picture. A batch of events is published
// about 1 ms after its first; under churn at most every kMinSpacing (longer where the lists are
// long: reading them takes at most a quarter of the time). Neighbours follow their events directly.
//
// Only tables local and main count, as the default policy rules have it; complaints() names what is
// therefore not followed. Thread: the control thread, in the network namespace it was opened in.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <absl/container/flat_hash_map.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>

#include "control/host/host_routes.h"
#include "control/host/neighbours.h"
#include "control/host/netlink_messages.h"
#include "control/host/netlink_socket.h"
#include "dataplane/table/routes.h"

namespace weir {

// A port of weir and the kernel's interface that stands for it: the interface itself with AF_XDP,
// otherwise the exception interface, which holds the addresses.
struct PortBinding {
  std::uint16_t port = 0;
  std::string kernel_interface;
};

class Network {
 public:
  static constexpr std::chrono::milliseconds kGathering{1};
  static constexpr std::chrono::milliseconds kMinSpacing{5};

  // Reads everything once before it returns. The io_context outlives the Network.
  static absl::StatusOr<std::unique_ptr<Network>> open(boost::asio::io_context& io,
                                                       std::vector<PortBinding> ports);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  std::shared_ptr<const Routes> routes() const { return published_; }
  // With all ways that were asked for since.
  std::shared_ptr<const Routes> current_routes();

  // A place among the routes' ways, kept up to date until it is released as often as it was asked
  // for. Its neighbours on link are resolved and kept fresh, whether used or not. 0, which is
  // nobody's way, once all places are taken.
  WayIndex acquire_way(const IpAddress& address);
  void release_way(const IpAddress& address);
  // Whether packets to the address leave through a port of weir, as things are.
  bool reaches(const IpAddress& address) {
    return editor_.way_to(address).state != Way::State::none;
  }
  // Why no real server can be there, if so.
  std::optional<std::string> problem_with(const IpAddress& server) const;

  // Whether packets to the address are for this host, as its routes decide: addresses of any
  // interface, lo included (but not 127.0.0.0/8 and ::1), and prefixes routed `local`. An IPv6
  // address counts once duplicate address detection is through.
  bool owns(const IpAddress& address) const { return host_routes_->owns(address); }
  // All of the former but the prefixes, sorted.
  const std::vector<IpAddress>& addresses() const { return host_routes_->addresses; }
  // Of IPv4, of all networks that the host is on.
  const std::vector<Ipv4Address>& broadcasts() const { return host_routes_->broadcasts; }

  // Destination MACs that make a frame ours on that port: its own, and those of VLAN and macvlan
  // interfaces on it (VRRP's virtual MACs).
  std::vector<MacAddress> macs(std::uint16_t port) const;

  enum class LinkState { up, down, deleted };
  LinkState link_state(std::uint16_t port) const;

  // Called after any of the above may have changed, with what: routes() in any case. Replaces the
  // former.
  struct Change {
    bool ports = false;               // MACs or link states
    std::vector<IpPrefix> addresses;  // whose owner may be another
    std::vector<IpAddress> addresses_in;
    std::vector<IpAddress> addresses_out;
  };
  void on_change(std::function<void(const Change&)> listener) { listener_ = std::move(listener); }

  // What this host has and weir cannot follow, in sentences; also neighbour tables too small.
  std::vector<std::string> complaints() const;

  // A worker met an on-link destination with Answer::missing, or an unresolved next hop.
  // `interface`: index into routes()->interfaces(). Has the kernel resolve it, at most twice a
  // second for one address.
  void neighbour_missing(std::uint16_t interface, const IpAddress& address);
  // Next hops that workers used since the last call; others than gateways and real servers are
  // given up after Neighbours::kIdleTime without a use.
  void mark_used(std::span<const NextHopIndex> next_hops);
  // Above all indices that are in use.
  NextHopIndex next_hop_end() const {
    return static_cast<NextHopIndex>(neighbours_.slots().size());
  }

 private:
  using Clock = Neighbours::Clock;
  enum class Scope { all, without_neighbours };
  struct Picture;  // all that one reading found
  struct Port {
    std::uint16_t port;
    std::string name;
    std::uint32_t link;
    LinkState state = LinkState::down;
  };

  Network(boost::asio::io_context& io, std::vector<Port> ports, NetlinkSocket events,
          NetlinkSocket questions, NetlinkSocket orders);

  // Listening.
  void await_events();
  void on_events();
  void on_event(const nlmsghdr& message);
  int ask(std::uint32_t link, const IpAddress& address, Neighbours::Question question);
  void tick();

  // Reading the kernel's lists.
  // On the helper thread. `former`: taken over where nothing changed.
  Picture read(Scope scope, std::shared_ptr<const HostRoutes> former);
  void schedule_reading();
  void start_reading();
  void on_read(Picture picture);
  void adopt(Picture picture);
  void adopt_interfaces(std::vector<Interface> interfaces);

  // Making Routes.
  std::vector<Interface> interfaces_of(const Picture& picture) const;
  std::vector<std::string> complaints_about(const Picture& picture,
                                            const std::vector<Interface>& interfaces) const;
  bool update_link_states(const Picture& picture);
  void pin_gateways();
  void mark_dirty(WayIndex index);
  void mark_dirty(const std::vector<IpPrefix>& routes);
  void mark_all_dirty();
  void follow_way(WayIndex index);
  void follow_next_hops();
  void refresh();
  NextHop next_hop_of(const Neighbours::Slot& slot) const;
  void schedule_publishing();
  void publish();

  template <class Handler>
  auto guarded(Handler handler);

  boost::asio::io_context& io_;
  std::vector<Port> ports_;
  NetlinkSocket events_;
  NetlinkSocket questions_;  // the helper thread's
  NetlinkSocket orders_;     // changes of neighbours
  boost::asio::posix::stream_descriptor events_readable_;
  boost::asio::steady_timer reading_timer_;
  boost::asio::steady_timer publishing_timer_;
  boost::asio::steady_timer tick_timer_;
  boost::asio::thread_pool helper_{1};
  std::shared_ptr<int> alive_ = std::make_shared<int>();  // handlers outlive the Network

  enum class Reading { idle, scheduled, under_way };
  Reading reading_ = Reading::idle;
  bool again_ = false;  // something changed since the reading began
  bool events_lost_ = false;
  Scope next_scope_ = Scope::without_neighbours;
  Clock::time_point reading_began_{};
  Clock::time_point not_before_{};

  Neighbours neighbours_;
  std::shared_ptr<const HostRoutes> host_routes_;
  std::vector<Interface> interfaces_;
  absl::flat_hash_map<std::uint32_t, std::uint16_t> places_;  // link: index into interfaces_
  // A real server's, by WayIndex.
  struct WayRecord {
    IpAddress address;
    std::uint32_t users = 0;
    bool is_dirty = false;
    std::vector<std::uint32_t> pinned_on;  // links
  };
  std::vector<WayRecord> ways_ = std::vector<WayRecord>(1);
  std::vector<WayIndex> free_ways_;
  std::map<IpAddress, WayIndex> way_by_address_;
  std::vector<WayIndex> dirty_ways_;
  std::vector<Neighbours::Key> gateways_;
  RoutesEditor editor_;
  Change change_;  // since the listener was called
  std::vector<std::string> complaints_;
  std::uint16_t generation_ = 0;
  bool is_stale_ = true;  // published_
  bool publishing_ = false;
  Clock::time_point last_publication_{};
  Clock::time_point last_release_{};
  std::shared_ptr<const Routes> published_;
  std::function<void(const Change&)> listener_;
};

}  // namespace weir
