// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/local_ports.h"

#include <limits>
#include <utility>

namespace weir {
namespace {

template <class Address>
std::size_t group_of(const OwnerMap& owners, const Address& address, std::uint16_t port) noexcept {
  return owners.hash(address, Be16::from_host(port)) % OwnerMap::kGroups;
}

void shuffle(std::span<std::uint16_t> ports, std::uint64_t& random) noexcept {
  for (std::size_t left = ports.size(); left > 1; --left) {
    std::swap(ports[left - 1], ports[reduce_range(next_random(random), left)]);
  }
}

}  // namespace

template <class Address>
auto PortGroups::make_side(const OwnerMap& owners, std::uint16_t first, std::uint16_t last,
                           std::uint64_t seed) -> Side {
  // The address of zeros contributes nothing: this is P alone.
  std::array<std::vector<std::uint16_t>, OwnerMap::kGroups> groups;
  for (std::uint32_t port = first; port <= last; ++port) {
    groups[group_of(owners, Address{}, static_cast<std::uint16_t>(port))].push_back(
        static_cast<std::uint16_t>(port));
  }
  Side side;
  for (std::size_t residue = 0; residue < groups.size(); ++residue) {
    shuffle(groups[residue], seed);
    side.all.insert(side.all.end(), groups[residue].begin(), groups[residue].end());
    side.begin[residue + 1] = static_cast<std::uint32_t>(side.all.size());
  }
  return side;
}

std::size_t PortGroups::fewest(const OwnerMap& owners, const Side& side) {
  std::size_t fewest = std::numeric_limits<std::size_t>::max();
  for (std::size_t address_group = 0; address_group < OwnerMap::kGroups; ++address_group) {
    std::array<std::size_t, OwnerMap::kGroups> of_worker{};
    unsigned workers = 0;
    for (std::size_t group = 0; group < OwnerMap::kGroups; ++group) {
      const unsigned worker = owners.worker_of_group(group);
      of_worker[worker] += side.ports(address_group ^ group).size();
      workers = std::max(workers, worker + 1);
    }
    fewest = std::min(fewest, *std::min_element(of_worker.begin(), of_worker.begin() + workers));
  }
  return fewest;
}

PortGroups::PortGroups(const OwnerMap& owners, std::uint16_t first, std::uint16_t last,
                       std::uint64_t seed)
    : ipv4_(make_side<Ipv4Address>(owners, first, last, seed)),
      ipv6_(make_side<Ipv6Address>(owners, first, last, seed ^ 1)),
      fewest_(std::min(fewest(owners, ipv4_), fewest(owners, ipv6_))) {}

template <class Address>
auto LocalPorts::make_places(const OwnerMap& owners, const std::vector<Address>& addresses,
                             std::uint64_t& random) -> std::vector<Place<Address>> {
  std::vector<Place<Address>> places;
  places.reserve(addresses.size());
  for (const Address& address : addresses) {
    const std::uint64_t start = next_random(random);
    places.push_back({.address = address,
                      .address_group = static_cast<std::uint16_t>(group_of(owners, address, 0)),
                      .patience = kMaxProbes,
                      .cursor = {.round = static_cast<std::uint32_t>(start >> 48), .group = 0}});
  }
  return places;
}

LocalPorts::LocalPorts(const OwnerMap& owners, std::shared_ptr<const PortGroups> groups,
                       const LocalAddresses& pool, unsigned worker, std::uint64_t seed)
    : groups_(std::move(groups)), address_seed_(next_random(seed)), random_(seed ^ worker) {
  for (std::size_t group = 0; group < OwnerMap::kGroups; ++group) {
    if (owners.worker_of_group(group) == worker) {
      groups_of_worker_.push_back(static_cast<std::uint16_t>(group));
    }
  }
  ipv4_ = make_places(owners, pool.ipv4, random_);
  ipv6_ = make_places(owners, pool.ipv6, random_);
}

LocalPortsSet make_local_ports(const OwnerMap& owners,
                               const std::shared_ptr<const PortGroups>& groups,
                               const LocalAddresses& pool, unsigned workers, std::uint64_t seed) {
  LocalPortsSet set;
  set.reserve(workers);
  for (unsigned worker = 0; worker < workers; ++worker) {
    set.emplace_back(owners, groups, pool, worker, seed);
  }
  return set;
}

}  // namespace weir
