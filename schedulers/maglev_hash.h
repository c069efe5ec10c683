// SPDX-License-Identifier: Apache-2.0
// mh, Maglev hashing: one client, one real server, and few clients move when the list changes.
//
// Rule: each real server has its own permutation of the table's places, by a hash of its address
// and port. In list order they take turns, in each of which one takes the next free places of its
// permutation, as many as its weight divided by the weights' greatest common divisor (coarser where
// that is big), until the table is full. The client's address is hashed to a place. A real server
// that is drained to weight 0 keeps its places, by its last weight, so that its clients come back;
// meanwhile it refuses them, unless `mh-fallback` hashes again and again until another one is
// found. With `mh-port` the client's port is hashed as well.
// Cost: O(1) a pick; a fallback may try every place. A table of m places takes O(m log m), control
// thread. State: none; a table of the default 4093 places is 16 KiB.
// Good for: many clients, and several directors that choose alike without talking. Not for: more
// real servers than a hundredth of the places, whose shares are uneven (option table-size), nor
// where each client that moves hurts (conhash).
// Source: net/netfilter/ipvs/ip_vs_mh.c; Eisenbud et al., "Maglev: A Fast and Reliable Software
// Network Load Balancer", NSDI 2016.
//
// IPVS's size is a compile-time option (CONFIG_IP_VS_MH_TAB_INDEX): 251, 509, 1021, 2039, 4093,
// 8191, 16381, 32749, 65521 or 131071. Here it is an option of the service, any prime from 251 to
// 131071, because shares are only as even as there are places per real server.
#pragma once

#include "schedulers/by_table.h"

namespace weir {

inline constexpr std::uint32_t kDefaultMaglevPlaces = 4093;
inline constexpr std::uint32_t kLeastMaglevPlaces = 251;
inline constexpr std::uint32_t kMostMaglevPlaces = 131071;

inline constexpr std::uint64_t kMaglevOffsetKey = 2654435761;
inline constexpr std::uint64_t kMaglevSkipKey = 2654446892;

struct MaglevPlace {
  static std::uint32_t place(std::uint32_t value, std::uint32_t offset,
                             const LookupTable& table) noexcept {
    // The remainder without a division (Lemire, Kaser, Kurz: "Faster Remainder by Direct
    // Computation").
    __extension__ using Wide = unsigned __int128;
    const std::uint64_t fraction = table.reciprocal * siphash_1_3(value + offset, kMaglevOffsetKey);
    return static_cast<std::uint32_t>(Wide{fraction} * table.positions.size() >> 64);
  }
};

// An empty table for MaglevPlace.
LookupTable make_empty_table(std::uint32_t places);

using MaglevHash = ByTable<MaglevPlace>;

// `places` is a prime in the range above. Of more real servers than places the first get one each.
LookupTable make_maglev_table(std::span<const Candidate> candidates,
                              std::span<const ServerName> names, std::uint32_t places);

}  // namespace weir
