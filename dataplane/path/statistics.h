// SPDX-License-Identifier: Apache-2.0
// Counters of one worker. Written by: that worker. Read by: any thread, without stopping it.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "dataplane/path/verdict.h"
#include "dataplane/table/counter.h"
#include "schedulers/scheduler.h"

namespace weir {

// Of one real server on one worker. Bytes are of the IP packet, as IPVS counts them.
struct alignas(64) ServerCounters {
  Counter<std::uint64_t> connections;
  Counter<std::uint64_t> packets_in;
  Counter<std::uint64_t> packets_out;
  Counter<std::uint64_t> bytes_in;
  Counter<std::uint64_t> bytes_out;
};

// Apart from ServerCounters, because schedulers of other workers read it. One counter alone says
// whether there are any connections, so that no reader is fooled by one that changes its state.
struct ServerLoad {
  Counter<std::uint32_t> connections;
  Counter<std::uint32_t> active;     // of these
  Counter<std::uint32_t> templates;  // persistent ones, not counted in `connections`

  Load read() const noexcept {
    const std::uint32_t busy = active.read();
    const std::uint32_t all = connections.read();
    return {busy, all > busy ? all - busy : 0};
  }
};

struct WorkerStatistics {
  explicit WorkerStatistics(std::uint32_t server_slots)
      : servers(server_slots), loads(server_slots) {}

  std::array<Counter<std::uint64_t>, kOutcomes> outcomes;
  // Of the worker's loop: those with packets, and all. The TSC's.
  Counter<std::uint64_t> busy_cycles;
  Counter<std::uint64_t> cycles;
  // Times that a local address of fullnat had no port left for a real server.
  Counter<std::uint64_t> local_address_exhausted;
  Counter<std::uint64_t> given_up;      // connections, by drop_entry
  std::vector<ServerCounters> servers;  // by ServerSlot
  std::vector<ServerLoad> loads;        // by ServerSlot
};

}  // namespace weir
