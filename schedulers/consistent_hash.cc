// SPDX-License-Identifier: Apache-2.0
#include "schedulers/consistent_hash.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

namespace weir {
namespace {

__extension__ using Wide = unsigned __int128;

// A claim to a place: in the upper half its time, whose bits order as times do, in the lower half
// the position of whoever makes it. Of two claims the lesser one came first.
constexpr std::uint64_t make_claim(float time, std::uint32_t position) {
  return std::uint64_t{std::bit_cast<std::uint32_t>(time)} << 32 | position;
}
constexpr std::uint32_t position_of(std::uint64_t claim) {
  return static_cast<std::uint32_t>(claim);
}
constexpr std::uint32_t time_bits_of(std::uint64_t claim) {
  return static_cast<std::uint32_t>(claim >> 32);
}
constexpr float kNever = std::numeric_limits<float>::infinity();
constexpr std::uint64_t kUnclaimed = make_claim(kNever, LookupTable::kNobody);

// Of the whole name, unlike IPVS's folding, in which neighbours with neighbouring ports are one.
std::uint32_t hash_of(const ServerName& name, std::uint64_t key) {
  std::uint32_t hash = siphash_1_3(name.port, key);
  for (std::size_t at = 0; at < name.address.size(); at += 4) {
    const std::uint32_t word = fold_address(std::span(name.address).subspan(at, 4));
    hash = siphash_1_3(word, key + hash);
  }
  return hash;
}

}  // namespace

ConsistentTables::ConsistentTables(std::uint32_t places)
    : places_(places), modulus_(places), mean_times_(places), claims_(places, kUnclaimed) {
  double sum = 0;
  for (std::uint32_t rank = 1; rank < places; ++rank) {
    sum += 1.0 / (places - rank);
    mean_times_[rank] = static_cast<float>(sum);
  }
}

LookupTable ConsistentTables::operator()(std::span<const Candidate> candidates,
                                         std::span<const ServerName> names) {
  const bool had_claims = weights_ != 0;
  const Changes changes = adopt(candidates, names);
  const Released released = had_claims ? release(changes) : Released{};
  const std::uint64_t questions = std::uint64_t{released.places.size()} * claimants_.size();
  if (!had_claims || questions > 4ULL * places_ || 2 * changes.claiming_weight > weights_) {
    claim_all();
  } else {
    give(released.places);
    // Those were given with all claims in view; the others are lost to earlier claims only.
    const float horizon = released.latest_left;
    for (const std::uint32_t position : changes.claiming) claim_until(horizon, position);
  }
  LookupTable table = make_empty_table(places_);
  table.falls_back = true;
  std::ranges::transform(claims_, table.positions.begin(), position_of);
  return table;
}

// ---- The list ----

ConsistentTables::Claimant ConsistentTables::make_claimant(ServerSlot slot,
                                                           const ServerName& name) const {
  constexpr std::uint64_t kFractionKey = 0x66726163;
  const std::uint32_t skip = hash_of(name, kMaglevSkipKey) % (places_ - 1) + 1;
  return {.slot = slot,
          .name = name,
          .first = hash_of(name, kMaglevOffsetKey) % places_,
          .skip = skip,
          .turn = static_cast<std::uint64_t>((Wide{modulus_.inverse(skip)} << 64) / places_ + 1),
          .fraction = (hash_of(name, kFractionKey) + 1.0) / 4294967296.0 / places_};
}

ConsistentTables::Changes ConsistentTables::adopt(std::span<const Candidate> candidates,
                                                  std::span<const ServerName> names) {
  const std::vector<Claimant> before = std::exchange(claimants_, {});
  std::unordered_map<ServerSlot, std::uint32_t> positions_before;
  for (std::uint32_t at = 0; at < before.size(); ++at) positions_before[before[at].slot] = at;
  Changes changes;
  changes.positions.assign(before.size(), LookupTable::kNobody);
  claimants_.reserve(candidates.size());
  weights_ = 0;
  for (std::uint32_t at = 0; at < candidates.size(); ++at) {
    const auto found = positions_before.find(candidates[at].slot);
    const bool known = found != positions_before.end() && before[found->second].name == names[at];
    Claimant claimant =
        known ? before[found->second] : make_claimant(candidates[at].slot, names[at]);
    const auto weight = static_cast<std::uint32_t>(std::max(candidates[at].weight, 0));
    const std::uint32_t weight_before = std::exchange(claimant.weight, weight);
    claimant.pace = 1.0 / weight;
    weights_ += weight;
    if (known && weight >= weight_before) changes.positions[found->second] = at;
    if (weight != 0 && weight != weight_before) {
      changes.claiming.push_back(at);
      changes.claiming_weight += weight;
    }
    claimants_.push_back(claimant);
  }
  return changes;
}

ConsistentTables::Released ConsistentTables::release(const Changes& changes) {
  const std::span<const std::uint32_t> positions(changes.positions);
  const std::span<std::uint64_t> claims(claims_);
  Released released;
  std::uint32_t latest = 0;
  for (std::size_t place = 0; place < claims.size(); ++place) {
    const std::uint64_t claim = claims[place];
    const std::uint32_t position = positions[position_of(claim)];
    if (position == LookupTable::kNobody) {
      claims[place] = kUnclaimed;
      released.places.push_back(static_cast<std::uint32_t>(place));
    } else {
      claims[place] = claim >> 32 << 32 | position;
      latest = std::max(latest, time_bits_of(claim));
    }
  }
  released.latest_left = std::bit_cast<float>(latest);
  return released;
}

// ---- Claims ----

inline float ConsistentTables::time_of_rank(const Claimant& claimant, std::uint32_t rank) const {
  return static_cast<float>((mean_times_[rank] + claimant.fraction) * claimant.pace);
}

// Without a branch on who is first, which nothing can predict.
inline void ConsistentTables::lay_claim(std::uint32_t place, std::uint64_t claim) {
  const std::uint64_t before = claims_[place];
  if (time_bits_of(claim) == time_bits_of(before)) [[unlikely]] {
    claims_[place] = one_of_two_at_once(claim, before);
  } else {
    claims_[place] = std::min(claim, before);
  }
}

std::uint64_t ConsistentTables::one_of_two_at_once(std::uint64_t a, std::uint64_t b) const {
  return claimants_[position_of(a)].name < claimants_[position_of(b)].name ? a : b;
}

void ConsistentTables::claim_until(float horizon, std::uint32_t position) {
  const Claimant claimant = claimants_[position];
  std::uint32_t place = claimant.first;
  for (std::uint32_t rank = 0; rank < places_; ++rank) {
    const float time = time_of_rank(claimant, rank);
    if (time > horizon) return;
    lay_claim(place, make_claim(time, position));
    place += claimant.skip;
    if (place >= places_) place -= places_;
  }
}

void ConsistentTables::give(std::span<const std::uint32_t> places) {
  std::vector<float> times(places.size(), kNever);
  const std::span<float> earliest(times);
  for (std::uint32_t position = 0; position < claimants_.size(); ++position) {
    const Claimant claimant = claimants_[position];
    if (claimant.weight == 0) continue;
    const std::uint32_t before_first = places_ - claimant.first;
    for (std::size_t i = 0; i < places.size(); ++i) {
      const std::uint32_t place = places[i];
      const std::uint32_t distance =
          place >= claimant.first ? place - claimant.first : place + before_first;
      // rank / places_ in units of 2^-64, a bit more where it is not 0; no time is less than that.
      const std::uint64_t part = distance * claimant.turn;
      if (static_cast<double>(part >> 1) * 0x1p-63 * claimant.pace > earliest[i]) continue;
      const auto rank = static_cast<std::uint32_t>(Wide{part} * places_ >> 64);
      const float time = time_of_rank(claimant, rank);
      lay_claim(place, make_claim(time, position));
      earliest[i] = std::min(earliest[i], time);
    }
  }
}

void ConsistentTables::claim_all() {
  std::ranges::fill(claims_, kUnclaimed);
  if (weights_ == 0) return;
  // By then one of n places is still unclaimed, and each of n can be asked about those.
  const double horizon =
      std::log(static_cast<double>(claimants_.size())) / static_cast<double>(weights_);
  for (std::uint32_t position = 0; position < claimants_.size(); ++position) {
    if (claimants_[position].weight == 0) continue;
    claim_until(static_cast<float>(horizon), position);
  }
  std::vector<std::uint32_t> unclaimed;
  for (std::uint32_t place = 0; place < places_; ++place) {
    if (claims_[place] == kUnclaimed) unclaimed.push_back(place);
  }
  give(unclaimed);
}

}  // namespace weir
