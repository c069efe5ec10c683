// SPDX-License-Identifier: Apache-2.0
#include "schedulers/locality_least_connection.h"

namespace weir {

ServerSlot LocalityLeastConnection::pick(const PickInput& input) noexcept {
  const auto forget = [](RememberedServer&) noexcept {};
  const DestinationKey key = destination_key(input.destination_address);
  cache_.pass_time(input.now_ms, input.lblc_expiration, forget);
  RememberedServer* remembered = cache_.find(key, forget);
  if (remembered != nullptr) {
    const RankedServer* server = index_.find(*remembered);
    if (server != nullptr && does(*server, input)) return server->slot;
  }
  const RankedServer* best = index_.best(input);
  if (best == nullptr) return kNoServer;
  if (remembered == nullptr) remembered = cache_.insert(key);
  if (remembered != nullptr) *remembered = index_.remember(*best);
  return best->slot;
}

bool LocalityLeastConnection::does(const RankedServer& server, const PickInput& input) noexcept {
  return server.weight > 0 &&
         !index_.should_give_way(server, input.loads.load(server.slot).active, input);
}

}  // namespace weir
