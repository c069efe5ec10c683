// SPDX-License-Identifier: Apache-2.0
// A worker and its schedulers: what they are asked, the loads that they see, and the thresholds
// that close a real server for new connections (ip_vs_bind_dest and ip_vs_unbind_dest of
// ip_vs_conn.c). Nothing fails but the choice, where there is no real server to choose. All
// functions: worker thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "dataplane/path/worker_state.h"
#include "dataplane/table/flow_key.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// The load of all workers; a real server is closed by its thresholds or because this packet has
// been refused there.
class OpenServers final : public LoadView {
 public:
  OpenServers(std::span<WorkerStatistics* const> statistics, const SharedServers& shared) noexcept
      : statistics_(statistics), shared_(shared) {}
  Load load(ServerSlot slot) const noexcept override {
    Load sum;
    for (const WorkerStatistics* worker : statistics_) {
      const Load load = worker->loads[slot].read();
      sum.active += load.active;
      sum.inactive += load.inactive;
    }
    return sum;
  }
  bool overloaded(ServerSlot slot) const noexcept override {
    if (shared_[slot].overloaded.load(std::memory_order_relaxed)) return true;
    return std::find(refused_.begin(), refused_.begin() + count_, slot) !=
           refused_.begin() + count_;
  }
  // False: too many have refused already.
  bool refuse(ServerSlot slot) noexcept {
    if (static_cast<std::size_t>(count_) == refused_.size()) return false;
    refused_[static_cast<std::size_t>(count_++)] = slot;
    return true;
  }

 private:
  std::span<WorkerStatistics* const> statistics_;
  const SharedServers& shared_;
  std::array<ServerSlot, 8> refused_;
  std::ptrdiff_t count_ = 0;
};

// The scheduler's choice, or null.
template <class Address>
const RealServer* pick_server(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                              const FlowKey<Address>& key, const OpenServers& loads) noexcept;

// Replays edits of `service` that this worker's scheduler has not seen, at most `budget`; returns
// how many.
unsigned replay_edits(WorkerScheduler& state, const Service& service, unsigned budget) noexcept;

// A new connection, inactive as yet.
void count_opened(WorkerState& worker, const Snapshot& snapshot, const RealServer& server) noexcept;

// A connection that ends; its real server may be gone.
template <class Address>
void count_closed(WorkerState& worker, const Snapshot& snapshot,
                  const Connection<Address>& connection) noexcept;

// A connection that has become active or inactive.
template <class Address>
void count_activity(WorkerState& worker, const Snapshot& snapshot,
                    const Connection<Address>& connection) noexcept;

}  // namespace weir
