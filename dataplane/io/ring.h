// SPDX-License-Identifier: Apache-2.0
// A bounded queue between two threads: one puts, one takes (rte_ring, C11 memory model).
#pragma once

#include <rte_errno.h>
#include <rte_ring.h>
#include <rte_ring_elem.h>

#include <cstdlib>
#include <memory>
#include <span>
#include <type_traits>

namespace weir {

template <class T>
class Ring {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);

 public:
  // `capacity` is a power of two; one place of it stays empty. Control thread.
  explicit Ring(unsigned capacity) {
    const auto bytes = static_cast<std::size_t>(rte_ring_get_memsize_elem(sizeof(T), capacity));
    const std::size_t rounded =
        (bytes + RTE_CACHE_LINE_SIZE - 1) / RTE_CACHE_LINE_SIZE * RTE_CACHE_LINE_SIZE;
    ring_.reset(static_cast<rte_ring*>(std::aligned_alloc(RTE_CACHE_LINE_SIZE, rounded)));
    if (ring_ == nullptr ||
        rte_ring_init(ring_.get(), "", capacity, RING_F_SP_ENQ | RING_F_SC_DEQ) != 0) {
      std::abort();
    }
  }

  // How many of `items` found room, from the first on. The putting thread.
  unsigned put(std::span<const T> items) noexcept {
    return rte_ring_sp_enqueue_burst_elem(ring_.get(), items.data(), sizeof(T),
                                          static_cast<unsigned>(items.size()), nullptr);
  }
  // How many of `items` were filled. The taking thread.
  unsigned take(std::span<T> items) noexcept {
    return rte_ring_sc_dequeue_burst_elem(ring_.get(), items.data(), sizeof(T),
                                          static_cast<unsigned>(items.size()), nullptr);
  }

 private:
  struct Free {
    void operator()(rte_ring* ring) const noexcept { std::free(ring); }
  };
  std::unique_ptr<rte_ring, Free> ring_;
};

}  // namespace weir
