// SPDX-License-Identifier: Apache-2.0
// Hands Snapshots from control to the workers and frees what they replaced once no worker can still
// be looking at it: one atomic exchange, quiescent-state reclamation (rte_rcu_qsbr).
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "dataplane/table/snapshot.h"

struct rte_rcu_qsbr;

namespace weir {

class Publisher {
 public:
  explicit Publisher(unsigned workers);
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;
  // No worker may be running any more.
  ~Publisher();

  // ---- Control thread ----

  // Workers see `next` from their next burst on. `retired` keeps what only the version before
  // referred to; `after` (may be empty) is called by reclaim() when every worker has left that
  // version and adopted `next` or a later one.
  void publish(std::unique_ptr<const Snapshot> next,
               std::vector<std::shared_ptr<const void>> retired, std::function<void()> after);
  // Frees what is safe to free, without waiting. Call it now and then.
  void reclaim();
  const Snapshot& current() const noexcept { return *current_.load(std::memory_order_relaxed); }
  bool anything_retired() const noexcept { return !retired_.empty(); }

  // ---- Worker `index` ----

  void enter(unsigned index) noexcept;
  // The version to use until the next quiescent(); null before the first publish.
  const Snapshot* load() const noexcept {
    // Pairs with the exchange in publish(): the snapshot is complete before it is visible.
    return current_.load(std::memory_order_acquire);
  }
  // The worker holds nothing of any snapshot.
  void quiescent(unsigned index) noexcept;
  void leave(unsigned index) noexcept;

 private:
  struct Retired {
    std::uint64_t token;
    std::unique_ptr<const Snapshot> snapshot;
    std::vector<std::shared_ptr<const void>> parts;
    std::function<void()> after;
  };
  struct FreeQsbr {
    void operator()(rte_rcu_qsbr* qsbr) const noexcept;
  };

  std::atomic<const Snapshot*> current_{nullptr};
  std::unique_ptr<rte_rcu_qsbr, FreeQsbr> qsbr_;
  std::deque<Retired> retired_;
};

}  // namespace weir
