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
// somebody is found. With the flag `flag-2` the client's port is hashed as well.
// Cost: O(1) a pick. Of the table, control thread, with n real servers and m places: an addition
// O(m) of the cheapest kind (the list's positions shift) and O(m / n log m) claims; a removal asks
// all for each place that became free, O(m) questions; all anew O(m log n).
// State: none on workers; a table of the default 262,139 places is 1 MiB, and control keeps three
// times that to change it.
// Good for: clients whose real server remembers them. Not for: the most even shares (mh): of n real
// servers each has m / n places give or take two thirds of the root of that, 4 % at the default
// size for a thousand (option table-size). Source: Thaler and Ravishankar, "Using Name-Based
// Mappings to Increase Hit Rates"; for the weights Efraimidis and Spirakis, "Weighted random
// sampling with a reservoir": times of exponential distribution whose rate is the weight.
//
// Why not mh with repair: a table that is repaired remembers its past, so that two directors, or
// one after a restart, would choose differently. Here the repaired table is the one that would be
// built anew, because the earliest claim to a place is the same in whichever order claims are made.
// mh's own places are even, but losing one of a thousand real servers moves five times its share of
// the other clients as well. Why not fewer places: with a quarter of them, of a thousand real
// servers fourteen have more than 1.2 times their share, now none has.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "schedulers/maglev_hash.h"
#include "schedulers/modulus.h"

namespace weir {

inline constexpr std::uint32_t kDefaultConsistentPlaces = 262139;
inline constexpr std::uint32_t kLeastConsistentPlaces = 251;
inline constexpr std::uint32_t kMostConsistentPlaces = 524287;

using ConsistentHash = ByTable<MaglevPlace>;

// The tables of one service, each made of the one before. Control thread.
class ConsistentTables {
 public:
  explicit ConsistentTables(std::uint32_t places);  // a prime in the range above

  // The table of a list, whatever lists came before. `names` are those of `candidates`, one by one.
  LookupTable operator()(std::span<const Candidate> candidates, std::span<const ServerName> names);

 private:
  // A real server claims the places of a permutation, one after the other: first, first + skip, ...
  // modulo the places.
  struct Claimant {
    ServerSlot slot;
    ServerName name;
    std::uint32_t weight = 0;
    double pace = 0;  // 1 / weight
    std::uint32_t first;
    std::uint32_t skip;
    std::uint64_t turn;  // the inverse of skip modulo the places, over the places, times 2^64
    double fraction;     // of its own, so that no two of the same weight come at once
  };
  struct Changes {
    // By position in the list before: that in the list now, or kNobody for who has to give up its
    // places, because it is gone or lighter.
    std::vector<std::uint32_t> positions;
    // Positions of who has claims to make, because it is new or has another weight.
    std::vector<std::uint32_t> claiming;
    std::uint64_t claiming_weight = 0;
  };
  struct Released {
    std::vector<std::uint32_t> places;  // nobody's now
    float latest_left = 0;              // of the times of the claims to the others
  };

  Claimant make_claimant(ServerSlot slot, const ServerName& name) const;
  // Makes the list the present one.
  Changes adopt(std::span<const Candidate> candidates, std::span<const ServerName> names);
  // Lets the claims that stay name positions in the present list, and takes back the others.
  Released release(const Changes& changes);

  // Of the claim with this rank: the mean time of that rank among as many exponentially distributed
  // times as there are places, and a bit later.
  float time_of_rank(const Claimant& claimant, std::uint32_t rank) const;
  // Who is first has the place; of two at once the one with the lesser name.
  void lay_claim(std::uint32_t place, std::uint64_t claim);
  std::uint64_t one_of_two_at_once(std::uint64_t a, std::uint64_t b) const;
  // All claims of one real server up to a time.
  void claim_until(float horizon, std::uint32_t position);
  // Asks everybody for the time of its claim to each of these places.
  void give(std::span<const std::uint32_t> places);
  void claim_all();

  const std::uint32_t places_;
  const Modulus modulus_;
  std::vector<float> mean_times_;      // by rank: 1 / (places - 1) + 1 / (places - 2) + ...
  std::vector<Claimant> claimants_;    // by position in the list
  std::uint64_t weights_ = 0;          // their sum
  std::vector<std::uint64_t> claims_;  // to each place the first one
};

}  // namespace weir
