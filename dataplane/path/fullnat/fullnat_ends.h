// SPDX-License-Identifier: Apache-2.0
// The director's own end of a fullnat connection, from which the real server is spoken to and by
// which its replies are found: chosen before the connection is opened, free again as soon as it is
// closed. Where the real server is of the other family (NAT64), a companion has it: a record in
// that family's table that names the connection. IPVS has nothing like it; the ports are those of
// local_ports.h. Errors: outcomes. Thread: worker.
#pragma once

#include <cstdint>

#include "dataplane/path/packet.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// A companion does not end by itself.
inline constexpr std::uint32_t kCompanionTicks = 1U << 30U;

// For a connection that is to be opened. Decided: drop_no_local_port, or drop_table_full for want
// of a companion.
template <class Address>
Outcome give_local_end(WorkerState& worker, const Service& service, const RealServer& server,
                       Connection<Address>& connection) noexcept;

// For the connection `index`, which `packet` has just opened: what its replies and its TCP sequence
// numbers go by.
template <class Address>
void settle_fullnat(WorkerState& worker, const Service& service, const Packet& packet,
                    std::uint32_t index) noexcept;

// For a connection that ends, or could not be opened after all.
template <class Address>
void close_companion(WorkerState& worker, const Connection<Address>& connection) noexcept;

}  // namespace weir
