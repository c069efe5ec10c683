// SPDX-License-Identifier: Apache-2.0
// Buffers of DPDK for datagrams under reassembly: large, so that a port never sends one itself.
#pragma once

#include <memory>

#include <absl/status/statusor.h>

#include "dataplane/path/reassembly.h"

struct rte_mempool;

namespace weir {

// One for all workers. Made and destroyed by control, while no worker runs; the rest is any
// worker's.
class DatagramPool final : public DatagramBuffers {
 public:
  // After start_eal().
  static absl::StatusOr<std::unique_ptr<DatagramPool>> make(unsigned workers);
  // What make() takes of EAL's memory.
  static unsigned megabytes(unsigned workers);

  ~DatagramPool();
  DatagramPool(const DatagramPool&) = delete;
  DatagramPool& operator=(const DatagramPool&) = delete;

  Buffer get() noexcept override;
  void put(void* handle) noexcept override;

 private:
  explicit DatagramPool(rte_mempool* pool) : pool_(pool) {}

  rte_mempool* pool_;
};

}  // namespace weir
