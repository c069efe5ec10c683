// SPDX-License-Identifier: Apache-2.0
#include "schedulers/locality_replication.h"

namespace weir {

LocalityReplication::LocalityReplication(LoadWriters writers, unsigned workers, std::uint64_t seed)
    : index_(writers),
      cache_(workers, seed),
      members_(2 * ((DestinationCache<Set>::kFull + workers - 1) / workers)) {
  for (std::uint32_t at = 0; at + 1 < members_.size(); ++at) members_[at].next = at + 1;
}

ServerSlot LocalityReplication::pick(const PickInput& input) noexcept {
  const auto forget = [this](Set& set) noexcept { release(set); };
  const DestinationKey key = destination_key(input.destination_address);
  cache_.pass_time(input.now_ms, input.lblcr_expiration, forget);
  Set* set = cache_.find(key, forget);
  if (set != nullptr) {
    const Least least = least_loaded(*set, input);
    const bool settled = cache_.now() > std::uint64_t{set->last_change} + input.lblcr_expiration;
    if (set->size > 1 && settled) drop_most_loaded(*set, input);
    if (least.server != nullptr &&
        !index_.should_give_way(*least.server, least.load.active, input)) {
      return least.server->slot;
    }
  }
  const RankedServer* best = index_.best(input);
  if (best == nullptr) return kNoServer;
  if (set == nullptr) set = cache_.insert(key);
  if (set != nullptr) join(*set, *best);
  return best->slot;
}

void LocalityReplication::join(Set& set, const RankedServer& server) noexcept {
  const RememberedServer remembered = index_.remember(server);
  for (std::uint32_t at = set.first; at != kNone; at = members_[at].next) {
    const RememberedServer& member = members_[at].server;
    if (member.slot == remembered.slot && member.generation == remembered.generation) return;
  }
  if (free_member_ == kNone) return;
  const std::uint32_t at = free_member_;
  free_member_ = members_[at].next;
  members_[at] = {remembered, server.weight, set.first};
  set.first = at;
  ++set.size;
  set.last_change = cache_.now();
}

void LocalityReplication::release(Set& set) noexcept {
  while (set.first != kNone) {
    const std::uint32_t at = set.first;
    set.first = members_[at].next;
    members_[at].next = free_member_;
    free_member_ = at;
  }
  set.size = 0;
}

LocalityReplication::Least LocalityReplication::least_loaded(Set& set,
                                                             const PickInput& input) noexcept {
  Least least;
  for (std::uint32_t at = set.first; at != kNone; at = members_[at].next) {
    const RankedServer* server = index_.find(members_[at].server);
    if (server == nullptr) continue;
    members_[at].weight = server->weight;
    if (server->weight <= 0 || input.loads.overloaded(server->slot)) continue;
    const Load load = input.loads.load(server->slot);
    if (least.server != nullptr && LoadRule::compare_shares(overhead(least.load), *least.server,
                                                            overhead(load), *server) <= 0) {
      continue;
    }
    least = {server, load};
  }
  return least;
}

// The first of equals. Members that are gone count, as long as they have a weight.
void LocalityReplication::drop_most_loaded(Set& set, const PickInput& input) noexcept {
  std::uint32_t* most = nullptr;
  std::uint64_t most_cost = 0;
  std::uint64_t most_weight = 0;
  for (std::uint32_t* link = &set.first; *link != kNone; link = &members_[*link].next) {
    const Member& member = members_[*link];
    if (member.weight <= 0) continue;
    const std::uint64_t cost = overhead(input.loads.load(member.server.slot));
    const auto weight = static_cast<std::uint64_t>(member.weight);
    if (most != nullptr && most_cost * weight >= cost * most_weight) continue;
    most = link;
    most_cost = cost;
    most_weight = weight;
  }
  if (most == nullptr) return;
  const std::uint32_t at = *most;
  *most = members_[at].next;
  members_[at].next = free_member_;
  free_member_ = at;
  --set.size;
  set.last_change = cache_.now();
}

}  // namespace weir
