// SPDX-License-Identifier: Apache-2.0
#include "schedulers/maglev_hash.h"

#include <algorithm>
#include <bit>
#include <numeric>

#include "schedulers/modulus.h"

namespace weir {
namespace {

// A real server's walk through its permutation: place, place + skip, ... modulo the places.
struct Walk {
  std::uint32_t position;  // in the list
  std::uint32_t turns;     // places in a row
  std::uint32_t place;     // taken last, or where it begins
  std::uint32_t skip;
  std::uint32_t inverse = 0;  // of skip, modulo the places; 0: not yet known
};

// ip_vs_mh_shift_weight(): the highest bits of the weights count, fewer in a smaller table.
int turns_shift(std::uint32_t greatest, std::uint32_t places) {
  const int most_bits = std::bit_width(places) / 2;
  return std::max(static_cast<int>(std::bit_width(greatest)) - most_bits, 0);
}

// Of real servers that ever had a weight.
std::vector<Walk> make_walks(std::span<const Candidate> candidates,
                             std::span<const ServerName> names, std::uint32_t places) {
  std::uint32_t divisor = 0;
  std::uint32_t greatest = 0;
  for (const Candidate& candidate : candidates) {
    const auto weight = static_cast<std::uint32_t>(std::max(candidate.last_weight, 0));
    divisor = std::gcd(divisor, weight);
    greatest = std::max(greatest, weight);
  }
  std::vector<Walk> walks;
  if (divisor == 0) return walks;
  walks.reserve(candidates.size());
  const int shift = turns_shift(greatest / divisor, places);
  for (std::uint32_t at = 0; at < candidates.size(); ++at) {
    if (candidates[at].last_weight <= 0) continue;
    const auto weight = static_cast<std::uint32_t>(candidates[at].last_weight);
    const std::uint32_t name =
        fold_address(std::span(names[at].address).first(names[at].service_bytes)) + names[at].port;
    walks.push_back({.position = at,
                     .turns = std::max(weight / divisor >> shift, 1U),
                     .place = siphash_1_3(name, kMaglevOffsetKey) % places,
                     .skip = siphash_1_3(name, kMaglevSkipKey) % (places - 1) + 1});
  }
  return walks;
}

// The table while it is filled. While many places are free, the next free one of a permutation is
// soon found by going along it. The last ones would take most of the time so; for these it is asked
// of each free place how far along the permutation it lies.
class Filling {
 public:
  Filling(std::vector<std::uint32_t>& positions, std::uint32_t places)
      : positions_(positions),
        places_(places),
        modulus_(places),
        taken_(places / 64 + 1),
        free_(places) {}

  bool full() const { return free_ == 0; }

  void take_next(Walk& walk) {
    if (std::uint64_t{free_} * free_ > places_) {
      walk_on(walk);
    } else {
      take_nearest(walk);
    }
    positions_[walk.place] = walk.position;
    --free_;
  }

 private:
  bool is_taken(std::uint32_t place) const { return (taken_[place / 64] >> place % 64 & 1) != 0; }

  void walk_on(Walk& walk) {
    std::uint32_t place = walk.place;
    while (is_taken(place)) {
      place += walk.skip;
      if (place >= places_) place -= places_;
    }
    taken_[place / 64] |= std::uint64_t{1} << place % 64;
    walk.place = place;
  }

  void take_nearest(Walk& walk) {
    if (last_.empty()) list_last();
    if (walk.inverse == 0) walk.inverse = modulus_.inverse(walk.skip);
    std::size_t nearest = 0;
    std::uint32_t least = places_;
    for (std::size_t i = 0; i < last_.size(); ++i) {
      const std::uint32_t steps = steps_to(last_[i], walk);
      if (steps >= least) continue;
      least = steps;
      nearest = i;
    }
    walk.place = last_[nearest];
    last_[nearest] = last_.back();
    last_.pop_back();
  }

  std::uint32_t steps_to(std::uint32_t place, const Walk& walk) const {
    const std::uint32_t distance =
        place >= walk.place ? place - walk.place : place + places_ - walk.place;
    return modulus_.product(distance, walk.inverse);
  }

  void list_last() {
    for (std::uint32_t place = 0; place < places_; ++place) {
      if (!is_taken(place)) last_.push_back(place);
    }
  }

  std::vector<std::uint32_t>& positions_;
  const std::uint32_t places_;
  const Modulus modulus_;
  std::vector<std::uint64_t> taken_;  // a bit for each place
  std::uint32_t free_;
  std::vector<std::uint32_t> last_;  // the free places, once they are few
};

}  // namespace

LookupTable make_empty_table(std::uint32_t places) {
  LookupTable table;
  table.positions.assign(places, LookupTable::kNobody);
  table.reciprocal = ~std::uint64_t{0} / places + 1;
  return table;
}

LookupTable make_maglev_table(std::span<const Candidate> candidates,
                              std::span<const ServerName> names, std::uint32_t places) {
  LookupTable table = make_empty_table(places);
  std::vector<Walk> walks = make_walks(candidates, names, places);
  if (walks.empty()) return table;
  Filling filling(table.positions, places);
  while (!filling.full()) {
    for (Walk& walk : walks) {
      for (std::uint32_t turn = 0; turn < walk.turns && !filling.full(); ++turn) {
        filling.take_next(walk);
      }
    }
  }
  return table;
}

}  // namespace weir
