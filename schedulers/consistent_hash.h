// SPDX-License-Identifier: Apache-2.0
// conhash, weighted consistent hashing: one client, one real server, and only clients that must
// move do. Not in IPVS.
//
// Rule: weighted rendezvous hashing over the places of a table. Every real server with a weight
// lays claim to every place at a time of its own, early for a few places and late for most, the
// sooner the greater its weight; a place belongs to whoever came first. The client's address is
// hashed to a place. The times of one real server do not depend on the others. So when one goes,
// or its weight sinks, only places of its own change hands, to the others in proportion to their
// weights; when one comes, or its weight rises, it only takes places; and the table is a function
// of the list alone, the same on every director, whatever happened before and in which order. A
// real server of weight 0 has no places. An overloaded one's clients are hashed again until
// somebody is found. With the flag `flag-2` the client's port is hashed as well. Cost: O(1) a pick.
// A table of m places takes O(m log m) whatever the number of real servers, control thread. State:
// none; a table of the default 262,139 places is 1 MiB. Good for: clients whose real server
// remembers them. Not for: the most even shares (mh): of n real servers each has m / n places give
// or take the root of that, 6 % at the default size for a thousand (option table-size). Source:
// Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates"; for the weights
// Efraimidis and Spirakis, "Weighted random sampling with a reservoir": times of exponential
// distribution whose rate is the weight.
//
// Why not mh with repair: a table that is repaired remembers its past, so that two directors, or
// one after a restart, would choose differently. mh's own places are even, but losing one of a
// thousand real servers moves five times its share of the other clients as well.
#pragma once

#include "schedulers/maglev_hash.h"

namespace weir {

inline constexpr std::uint32_t kDefaultConsistentPlaces = 262139;
inline constexpr std::uint32_t kLeastConsistentPlaces = 251;
inline constexpr std::uint32_t kMostConsistentPlaces = 524287;

using ConsistentHash = ByTable<MaglevPlace>;

// `places` is a prime in the range above.
LookupTable make_consistent_table(std::span<const Candidate> candidates,
                                  std::span<const ServerName> names, std::uint32_t places);

}  // namespace weir
