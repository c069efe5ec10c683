// SPDX-License-Identifier: Apache-2.0
// Connections given up for room, which is IPVS's drop_entry: half-open ones (of UDP those that the
// real server has not answered), idle ones of few packets, and templates that no real server has
// assured. Nothing else ever goes.
//
// Mode 1 (2 is the same): while a table is nearly full, a piece of it with each call. What is idle
// goes only once all of it has been looked at and it is still nearly full. Mode 3: always, a
// thirty-second of the table each second.
// Source: ip_vs_random_dropentry and todrop_entry of ip_vs_conn.c, which walk as in mode 3 while
// the host is short of memory. Errors: none. Thread: worker.
#pragma once

#include <array>
#include <cstdint>

namespace weir {

// Of one table of one worker.
struct DropEntryWalk {
  std::uint32_t position = 0;
  std::uint32_t looked_at = 0;  // since the table became nearly full
  std::uint32_t last_tick = 0;  // of mode 3
  // Idle connections to let pass before the next one goes, by the packets that they have had.
  std::array<std::uint8_t, 9> countdown{};
};

struct Snapshot;
struct WorkerState;

// A bounded piece of work on both tables; nearly none while there is room. Once per loop.
void drop_entries(WorkerState& worker, const Snapshot& snapshot) noexcept;

}  // namespace weir
