// SPDX-License-Identifier: Apache-2.0
// How a NIC spreads what it receives over its queues (RSS). Where only clients, or only real
// servers, are on a port's side, and the device can hash by one end of a packet alone, it computes
// OwnerMap's function with its key: each packet then arrives at the worker that owns it. Elsewhere
// the device hashes both ends, and packets take the rings. Nothing depends on either.
// Control thread.
#pragma once

#include <cstdint>
#include <vector>

#include "dataplane/io/port_side.h"
#include "dataplane/table/owner.h"

struct rte_eth_conf;
struct rte_eth_dev_info;
struct rte_eth_rss_conf;

namespace weir {

class ReceiveHash {
 public:
  // What a device that offers `info` can do for a port with `queues` queues.
  ReceiveHash(const rte_eth_dev_info& info, PortSide side, const OwnerMap& owners,
              std::uint16_t queues);

  // RTE_ETH_RSS_*; 0: the device does not hash, or has one queue.
  std::uint64_t functions() const noexcept { return functions_; }
  // Whether packets arrive at the workers that own them.
  bool finds_owner() const noexcept { return finds_owner_; }

  // Before the device is configured; `conf` refers to this object.
  void ask_for(rte_eth_conf& conf) noexcept;
  // Once it is started: the key, and which queue each hash value goes to. A device that refuses
  // does not find owners.
  void apply(std::uint16_t port);

 private:
  rte_eth_rss_conf wish() noexcept;

  const OwnerMap& owners_;
  std::uint16_t queues_;
  std::uint16_t table_size_;
  std::vector<std::uint8_t> key_;
  std::uint64_t functions_ = 0;
  bool finds_owner_ = false;
};

}  // namespace weir
