// SPDX-License-Identifier: Apache-2.0
#include "schedulers/consistent_hash.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "schedulers/modulus.h"

namespace weir {
namespace {

// Of the whole name, unlike IPVS's folding, in which neighbours with neighbouring ports are one.
std::uint32_t hash_of(const ServerName& name, std::uint64_t key) {
  std::uint32_t hash = siphash_1_3(name.port, key);
  for (std::size_t at = 0; at < name.address.size(); at += 4) {
    const std::uint32_t word = fold_address(std::span(name.address).subspan(at, 4));
    hash = siphash_1_3(word, key + hash);
  }
  return hash;
}

// A real server's claims in the order of their times: to the places of its permutation, one after
// the other.
struct Claims {
  std::uint32_t position;  // in the list
  double pace;             // 1 / weight
  std::uint32_t first;     // place
  std::uint32_t skip;      // from place to place, modulo the places
  double fraction;         // of its own, so that no two of the same weight come at once
  std::uint32_t made = 0;
  std::uint32_t place = 0;  // of the next claim
};

std::vector<Claims> make_claims(std::span<const Candidate> candidates,
                                std::span<const ServerName> names, std::uint32_t places) {
  constexpr std::uint64_t kFractionKey = 0x66726163;
  std::vector<Claims> all;
  for (std::uint32_t at = 0; at < candidates.size(); ++at) {
    if (candidates[at].weight <= 0) continue;
    const std::uint32_t first = hash_of(names[at], kMaglevOffsetKey) % places;
    const double fraction = (hash_of(names[at], kFractionKey) + 1.0) / 4294967296.0;
    all.push_back({.position = at,
                   .pace = 1.0 / candidates[at].weight,
                   .first = first,
                   .skip = hash_of(names[at], kMaglevSkipKey) % (places - 1) + 1,
                   .fraction = fraction / places,
                   .place = first});
  }
  return all;
}

// The table while claims are made. It takes rounds: all claims up to some time, then those up to
// twice that time. For the last few places it is asked of everybody when they would come.
class Claiming {
 public:
  explicit Claiming(std::uint32_t places)
      : places_(places), unclaimed_(places), earliest_(places, kUnclaimed), sums_(places) {
    for (std::uint32_t rank = 1; rank < places; ++rank) {
      sums_[rank] = sums_[rank - 1] + 1.0 / (places - rank);
    }
  }

  std::uint32_t unclaimed() const { return unclaimed_; }

  // The claims up to `horizon`; those of the rounds before have been made.
  void make(Claims& claims, double horizon) {
    std::uint32_t place = claims.place;
    for (; claims.made < places_; ++claims.made) {
      const double time = time_of(claims, claims.made);
      if (time > horizon) break;
      claim(place, time, claims.position);
      place += claims.skip;
      if (place >= places_) place -= places_;
    }
    claims.place = place;
  }
  void end_round() {
    unclaimed_ = static_cast<std::uint32_t>(std::ranges::count(earliest_, kUnclaimed));
  }
  void give_the_rest(std::span<const Claims> all) {
    const Modulus modulus(places_);
    std::vector<std::uint32_t> rest;
    for (std::uint32_t place = 0; place < places_; ++place) {
      if (earliest_[place] == kUnclaimed) rest.push_back(place);
    }
    for (const Claims& claims : all) {
      const std::uint32_t inverse = modulus.inverse(claims.skip);
      for (const std::uint32_t place : rest) {
        const std::uint32_t distance =
            place >= claims.first ? place - claims.first : place + places_ - claims.first;
        claim(place, time_of(claims, modulus.product(distance, inverse)), claims.position);
      }
    }
  }
  void tell(std::vector<std::uint32_t>& positions) const {
    std::ranges::transform(earliest_, positions.begin(), [](std::uint64_t claim) {
      return static_cast<std::uint32_t>(claim & kPosition);
    });
  }

 private:
  // A claim is a number: the upper bits those of the time, which order as times do, the lower ones
  // the position in the list.
  static constexpr std::uint64_t kPosition = (1U << 20) - 1;
  static constexpr std::uint64_t kUnclaimed = ~std::uint64_t{0};

  // The mean time of the one with this rank among as many exponentially distributed times as there
  // are places, and a bit later.
  double time_of(const Claims& claims, std::uint32_t rank) const {
    return (sums_[rank] + claims.fraction) * claims.pace;
  }
  void claim(std::uint32_t place, double time, std::uint32_t position) {
    const std::uint64_t claim = (std::bit_cast<std::uint64_t>(time) & ~kPosition) | position;
    earliest_[place] = std::min(earliest_[place], claim);
  }

  const std::uint32_t places_;
  std::uint32_t unclaimed_;
  std::vector<std::uint64_t> earliest_;  // claim to each place
  std::vector<double> sums_;             // by rank: 1 / (places - 1) + 1 / (places - 2) + ...
};

}  // namespace

LookupTable make_consistent_table(std::span<const Candidate> candidates,
                                  std::span<const ServerName> names, std::uint32_t places) {
  LookupTable table = make_empty_table(places);
  table.falls_back = true;
  std::vector<Claims> all = make_claims(candidates, names, places);
  if (all.empty()) return table;
  double weights = 0;
  for (const Claims& claims : all) weights += 1.0 / claims.pace;
  Claiming claiming(places);
  // In the first round a place is claimed once on average.
  double horizon = 1.0 / weights;
  for (; std::uint64_t{claiming.unclaimed()} * all.size() > places; horizon *= 2) {
    for (Claims& claims : all) claiming.make(claims, horizon);
    claiming.end_round();
  }
  claiming.give_the_rest(all);
  claiming.tell(table.positions);
  return table;
}

}  // namespace weir
