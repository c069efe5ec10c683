// SPDX-License-Identifier: Apache-2.0
#include "schedulers/maglev_hash.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "schedulers/modulus.h"

namespace weir {
namespace {

constexpr std::uint32_t kLooks = 8;

// A real server's walk through its permutation: place + skip, place + 2 skip, ... modulo the
// places.
struct Walk {
  std::uint32_t position;                    // in the list
  std::uint32_t turns;                       // places in a row
  std::uint32_t place;                       // taken last, or the one before it begins
  std::uint32_t inverse = 0;                 // of the skip, modulo the places; 0: not yet known
  std::array<std::uint32_t, kLooks> skip{};  // once, twice, ... modulo the places
};

// Of a < places and b <= places.
std::uint32_t sum_modulo(std::uint32_t a, std::uint32_t b, std::uint32_t places) {
  return std::min(a + b, a + b - places);  // the latter wraps where it is too much
}

Walk make_walk(std::uint32_t position, std::uint32_t turns, std::uint32_t name,
               std::uint32_t places) {
  const std::uint32_t begin = siphash_1_3(name, kMaglevOffsetKey) % places;
  const std::uint32_t skip = siphash_1_3(name, kMaglevSkipKey) % (places - 1) + 1;
  Walk walk{
      .position = position, .turns = turns, .place = sum_modulo(begin, places - skip, places)};
  std::uint32_t distance = 0;
  for (std::uint32_t& far : walk.skip) far = distance = sum_modulo(distance, skip, places);
  return walk;
}

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
    walks.push_back(make_walk(at, std::max(weight / divisor >> shift, 1U), name, places));
  }
  return walks;
}

// The table while it is filled. While many places are free, the next free one of a permutation is
// soon found by going along it, looking at several at a time. The last ones would take most of the
// time so; for these it is asked of each free place how far along the permutation it lies.
class Filling {
 public:
  Filling(std::vector<std::uint32_t>& positions, std::uint32_t places)
      : positions_(positions), places_(places), modulus_(places), taken_(places), free_(places) {}

  bool full() const { return free_ == 0; }

  void take_turns(Walk& walk) {
    std::uint32_t turns = std::min(walk.turns, free_);
    if (turns == 1 && many_free()) return take(walk, next_free(walk));
    while (turns > 0 && many_free()) turns -= take_next(walk, turns);
    for (; turns > 0; --turns) take(walk, nearest_free(walk));
  }

 private:
  // The next places of a permutation.
  struct Next {
    std::array<std::uint32_t, kLooks> places;
    std::uint32_t free;  // bit i: places[i] is free
    std::uint32_t first_free() const {
      return places[static_cast<std::size_t>(std::countr_zero(free))];
    }
  };

  bool many_free() const { return 2 * std::uint64_t{free_} * free_ > places_; }

  void take(Walk& walk, std::uint32_t place) {
    taken_[place] = 1;
    positions_[place] = walk.position;
    walk.place = place;
    --free_;
  }

  // Looks at all before anybody branches: what the next look finds is hard to predict.
  Next look_on(const Walk& walk, std::uint32_t from) const {
    Next next{.free = 0};
    for (std::size_t look = 0; look < kLooks; ++look) {
      next.places[look] = sum_modulo(from, walk.skip[look], places_);
    }
    for (std::size_t look = 0; look < kLooks; ++look) {
      next.free |= static_cast<std::uint32_t>(taken_[next.places[look]] ^ 1) << look;
    }
    return next;
  }

  std::uint32_t next_free(const Walk& walk) const {
    Next next = look_on(walk, walk.place);
    while (next.free == 0) next = look_on(walk, next.places.back());
    return next.first_free();
  }
  // `most` at most, from one look on; how many these were.
  std::uint32_t take_next(Walk& walk, std::uint32_t most) {
    Next next = look_on(walk, walk.place);
    for (std::uint32_t count = 0;; next.free &= next.free - 1) {
      if (next.free == 0) {
        walk.place = next.places.back();
        return count;
      }
      take(walk, next.first_free());
      if (++count == most) return count;
    }
  }

  std::uint32_t nearest_free(Walk& walk) {
    if (last_.empty()) list_last();
    if (walk.inverse == 0) walk.inverse = modulus_.inverse(walk.skip[0]);
    const std::uint32_t next = sum_modulo(walk.place, walk.skip[0], places_);
    std::size_t nearest = 0;
    std::uint32_t least = places_;
    for (std::size_t i = 0; i < last_.size(); ++i) {
      const std::uint32_t distance = sum_modulo(last_[i], places_ - next, places_);
      const std::uint32_t steps = modulus_.product(distance, walk.inverse);
      if (steps >= least) continue;
      least = steps;
      nearest = i;
    }
    const std::uint32_t place = last_[nearest];
    last_[nearest] = last_.back();
    last_.pop_back();
    return place;
  }

  void list_last() {
    for (std::uint32_t place = 0; place < places_; ++place) {
      if (taken_[place] == 0) last_.push_back(place);
    }
  }

  std::vector<std::uint32_t>& positions_;
  const std::uint32_t places_;
  const Modulus modulus_;
  std::vector<std::uint8_t> taken_;  // 1: the place has been taken
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
    for (Walk& walk : walks) filling.take_turns(walk);
  }
  return table;
}

}  // namespace weir
