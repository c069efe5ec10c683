// SPDX-License-Identifier: Apache-2.0
// ICMP errors about connections: they go where the packet that they quote came from, and the quote
// becomes what was sent there (ip_vs_in_icmp, handle_response_icmp). Worker thread.
#pragma once

#include "dataplane/path/packet.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// An ICMP error about packet.connection, counted with it: any of nat and fullnat; of dr and tun one
// that comes from the real server's side.
template <class Address>
void forward_error(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

}  // namespace weir
