// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/publisher.h"

#include <rte_rcu_qsbr.h>

#include <cstdlib>
#include <utility>

namespace weir {

void Publisher::FreeQsbr::operator()(rte_rcu_qsbr* qsbr) const noexcept { std::free(qsbr); }

Publisher::Publisher(unsigned workers) {
  const std::size_t bytes = rte_rcu_qsbr_get_memsize(workers);
  const std::size_t rounded =
      (bytes + RTE_CACHE_LINE_SIZE - 1) / RTE_CACHE_LINE_SIZE * RTE_CACHE_LINE_SIZE;
  qsbr_.reset(static_cast<rte_rcu_qsbr*>(std::aligned_alloc(RTE_CACHE_LINE_SIZE, rounded)));
  if (qsbr_ == nullptr || rte_rcu_qsbr_init(qsbr_.get(), workers) != 0) std::abort();
}

Publisher::~Publisher() { delete current_.load(std::memory_order_relaxed); }

void Publisher::publish(std::unique_ptr<const Snapshot> next,
                        std::vector<std::shared_ptr<const void>> retired,
                        std::function<void()> after) {
  // Pairs with the acquire in load().
  std::unique_ptr<const Snapshot> before(
      current_.exchange(next.release(), std::memory_order_acq_rel));
  retired_.push_back(
      {rte_rcu_qsbr_start(qsbr_.get()), std::move(before), std::move(retired), std::move(after)});
}

void Publisher::reclaim() {
  while (!retired_.empty() && rte_rcu_qsbr_check(qsbr_.get(), retired_.front().token, false) == 1) {
    const Retired oldest = std::move(retired_.front());
    retired_.pop_front();
    if (oldest.after) oldest.after();
  }
}

void Publisher::enter(unsigned index) noexcept {
  rte_rcu_qsbr_thread_register(qsbr_.get(), index);
  rte_rcu_qsbr_thread_online(qsbr_.get(), index);
}

void Publisher::quiescent(unsigned index) noexcept { rte_rcu_qsbr_quiescent(qsbr_.get(), index); }

void Publisher::leave(unsigned index) noexcept {
  rte_rcu_qsbr_thread_offline(qsbr_.get(), index);
  rte_rcu_qsbr_thread_unregister(qsbr_.get(), index);
}

}  // namespace weir
