// SPDX-License-Identifier: Apache-2.0
// Which port of which local address a new fullnat connection sends from, chosen so that the replies
// of the real server belong to the worker that opens the connection (owner.h).
//
// Toeplitz is linear: hash(address, port) = H(address) ^ P(port). So the ports of a range are put
// into groups once, by the residue of P(port); a worker's ports of an address are whole groups:
//
//   PortGroups   residue of P  ->  ports, in a secret order      one per process and range, shared
//   LocalPorts   addresses with H's residue and a cursor each    one per pool and worker
//
// A port is in use when the connection table holds its reply key, and nothing else says so: memory
// does not depend on real servers or connections, a connection in TIME_WAIT keeps its port, and
// nothing is lost when a pool changes and its LocalPorts is made anew.
//
// A cursor advances by a few ports at random (RFC 6056, algorithm 5), so that a port comes back
// late and the next one cannot be told from outside. It leaps elsewhere when it meets a stretch of
// used ports.
// Cost of choose(): 1 / (1 - used) probes on average, at most kMaxProbes, fewer while they keep
// failing; after the first one they are looked up in batches, which hides the cache misses. Above
// 97 % in use an address may be called exhausted with ports left.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/net/mix.h"
#include "dataplane/table/connection_table.h"
#include "dataplane/table/counter.h"
#include "dataplane/table/flow_key.h"
#include "dataplane/table/local_addresses.h"
#include "dataplane/table/owner.h"

namespace weir {

// Numbers that nobody without the state can tell (splitmix64).
inline std::uint64_t next_random(std::uint64_t& state) noexcept {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Immutable; any thread.
class PortGroups {
 public:
  // Ports `first` to `last`, both included. `seed` is secret.
  PortGroups(const OwnerMap& owners, std::uint16_t first, std::uint16_t last, std::uint64_t seed);

  // The ports whose hash with `address_group` (OwnerMap's group of address and port 0) is in
  // `group`.
  template <class Address>
  std::span<const std::uint16_t> ports(std::size_t address_group,
                                       std::size_t group) const noexcept {
    return side<Address>().ports(address_group ^ group);
  }

  // The fewest ports of this range that a worker can have of an address, in either family. With
  // about two random keys of 65,536 per worker it is zero for some: control draws another key then.
  std::size_t fewest_of_any_worker() const noexcept { return fewest_; }

 private:
  // Of one family: a port lies elsewhere in the hash's input.
  struct Side {
    std::vector<std::uint16_t> all;
    std::array<std::uint32_t, OwnerMap::kGroups + 1> begin{};
    std::span<const std::uint16_t> ports(std::size_t residue) const noexcept {
      return std::span(all).subspan(begin[residue], begin[residue + 1] - begin[residue]);
    }
  };
  template <class Address>
  static Side make_side(const OwnerMap& owners, std::uint16_t first, std::uint16_t last,
                        std::uint64_t seed);
  static std::size_t fewest(const OwnerMap& owners, const Side& side);
  template <class Address>
  const Side& side() const noexcept {
    if constexpr (std::is_same_v<Address, Ipv4Address>) {
      return ipv4_;
    } else {
      return ipv6_;
    }
  }

  Side ipv4_;
  Side ipv6_;
  std::size_t fewest_;
};

// The director's own end of a fullnat connection, towards the real server.
template <class Address>
struct LocalEnd {
  Address address;
  Be16 port;
};

// Made by control, then the worker's alone.
class alignas(64) LocalPorts {
 public:
  static constexpr unsigned kMaxProbes = 256;    // of one choose()
  static constexpr unsigned kMaxAddresses = 16;  // that one choose() looks at

  // `groups` are those of the pool's ports. `seed` is secret, and the same for all workers, so that
  // a client has one local address.
  LocalPorts(const OwnerMap& owners, std::shared_ptr<const PortGroups> groups,
             const LocalAddresses& pool, unsigned worker, std::uint64_t seed);

  static constexpr unsigned kMaxBatch = 8;

  // An end that is not in use, or nothing. Address is of the real server's family. `client_hash`
  // decides which local address is asked first; `exhausted` counts each that had no port to give.
  // first_free(std::span<const LocalEnd<Address>>), of at most kMaxBatch, returns the index of the
  // first that is not in use, or their number (see first_free below).
  template <class Address, class FirstFree>
  std::optional<LocalEnd<Address>> choose(std::uint64_t client_hash,
                                          Counter<std::uint64_t>& exhausted,
                                          FirstFree&& first_free) noexcept;

  template <class Address>
  bool has_addresses() const noexcept {
    return !places<Address>().empty();
  }

 private:
  // Steps that a cursor takes among used ports before it leaps.
  static constexpr unsigned kSteps = 4;
  static constexpr std::uint32_t kLongestStep = 16;

  // Ports are walked across the worker's groups first: port number `round` of each, in turn.
  struct Cursor {
    std::uint32_t round;
    std::uint16_t group;  // index into groups_of_worker_
  };
  template <class Address>
  struct Place {
    Address address;
    std::uint16_t address_group;
    std::uint16_t patience;  // probes that it gets: fewer after a failure, more after a success
    Cursor cursor;
  };

  template <class Address>
  static std::vector<Place<Address>> make_places(const OwnerMap& owners,
                                                 const std::vector<Address>& addresses,
                                                 std::uint64_t& random);
  template <class Address, class FirstFree>
  std::optional<LocalEnd<Address>> probe(Place<Address>& place, unsigned probes,
                                         FirstFree&& first_free) noexcept;
  template <class Address>
  std::optional<Be16> port_at(const Place<Address>& place) const noexcept;
  template <class Address>
  std::vector<Place<Address>>& places() noexcept {
    if constexpr (std::is_same_v<Address, Ipv4Address>) {
      return ipv4_;
    } else {
      return ipv6_;
    }
  }
  template <class Address>
  const std::vector<Place<Address>>& places() const noexcept {
    return const_cast<LocalPorts*>(this)->places<Address>();
  }

  void step(Cursor& cursor) noexcept;
  void leap(Cursor& cursor) noexcept;

  std::shared_ptr<const PortGroups> groups_;
  std::vector<std::uint16_t> groups_of_worker_;
  std::vector<Place<Ipv4Address>> ipv4_;
  std::vector<Place<Ipv6Address>> ipv6_;
  std::uint64_t address_seed_;
  std::uint64_t random_;
};

// One for each worker, by index.
using LocalPortsSet = std::vector<LocalPorts>;
LocalPortsSet make_local_ports(const OwnerMap& owners,
                               const std::shared_ptr<const PortGroups>& groups,
                               const LocalAddresses& pool, unsigned workers, std::uint64_t seed);

// ---- Implementation ----

inline void LocalPorts::step(Cursor& cursor) noexcept {
  std::uint32_t group =
      cursor.group + 1 + static_cast<std::uint32_t>(next_random(random_) % kLongestStep);
  const auto count = static_cast<std::uint32_t>(groups_of_worker_.size());
  for (; group >= count; group -= count) ++cursor.round;
  cursor.group = static_cast<std::uint16_t>(group);
}

inline void LocalPorts::leap(Cursor& cursor) noexcept {
  const std::uint64_t random = next_random(random_);
  cursor.round = static_cast<std::uint32_t>(random >> 48);
  cursor.group = static_cast<std::uint16_t>(reduce_range(random << 16, groups_of_worker_.size()));
}

template <class Address>
std::optional<Be16> LocalPorts::port_at(const Place<Address>& place) const noexcept {
  const auto ports =
      groups_->ports<Address>(place.address_group, groups_of_worker_[place.cursor.group]);
  if (ports.empty()) return std::nullopt;
  return Be16::from_host(ports[place.cursor.round % ports.size()]);
}

template <class Address, class FirstFree>
std::optional<LocalEnd<Address>> LocalPorts::probe(Place<Address>& place, unsigned probes,
                                                   FirstFree&& first_free) noexcept {
  std::array<LocalEnd<Address>, kMaxBatch> batch;
  // 1, then the other steps, then whole batches: at moderate use the first is free.
  unsigned until = 1;
  for (unsigned probe = 0; probe < probes;) {
    std::size_t count = 0;
    for (; probe < std::min(until, probes); ++probe) {
      if (probe < kSteps) {
        step(place.cursor);
      } else {
        leap(place.cursor);
      }
      if (const auto port = port_at(place)) batch[count++] = {place.address, *port};
    }
    const std::span<const LocalEnd<Address>> ends(batch.data(), count);
    const std::size_t free = first_free(ends);
    if (free < count) return ends[free];
    until = probe < kSteps ? kSteps : probe + kMaxBatch;
  }
  return std::nullopt;
}

template <class Address, class FirstFree>
std::optional<LocalEnd<Address>> LocalPorts::choose(std::uint64_t client_hash,
                                                    Counter<std::uint64_t>& exhausted,
                                                    FirstFree&& first_free) noexcept {
  auto& all = places<Address>();
  if (all.empty() || groups_of_worker_.empty()) return std::nullopt;
  const auto asked = static_cast<unsigned>(std::min<std::size_t>(all.size(), kMaxAddresses));
  const unsigned most = kMaxProbes / asked;
  const unsigned fewest = most / 8;
  std::size_t at =
      reduce_range(multiply_mix(client_hash ^ address_seed_, address_seed_), all.size());
  for (unsigned i = 0; i < asked; ++i) {
    Place<Address>& place = all[at];
    const unsigned probes = std::clamp<unsigned>(place.patience, fewest, most);
    const auto end = probe(place, probes, first_free);
    place.patience = static_cast<std::uint16_t>(end ? std::min(probes * 2, most) : probes / 2);
    if (end) return end;
    exhausted.add(1);
    at = at + 1 == all.size() ? 0 : at + 1;
  }
  return std::nullopt;
}

// The first end that makes of `reply`, the real server's key but for its destination, one that the
// table does not hold.
template <class Address>
std::size_t first_free(const ConnectionTable<Address>& table, const FlowKey<Address>& reply,
                       std::span<const LocalEnd<Address>> ends) noexcept {
  std::array<FlowKey<Address>, LocalPorts::kMaxBatch> keys;
  std::array<Lookup, LocalPorts::kMaxBatch> lookups;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    keys[i] = reply;
    keys[i].destination = ends[i].address;
    keys[i].destination_port = ends[i].port;
    lookups[i] = table.start(keys[i]);
  }
  for (std::size_t i = 0; i < ends.size(); ++i) table.fetch(lookups[i]);
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (table.find(lookups[i], keys[i]) == kNoConnection) return i;
  }
  return ends.size();
}

}  // namespace weir
