// SPDX-License-Identifier: Apache-2.0
// An Ethernet device of DPDK, opened with the queues that the workers share.
#pragma once

#include <cstdint>
#include <string>

#include <absl/status/statusor.h>

#include "dataplane/io/receive_hash.h"
#include "dataplane/net/addresses.h"

struct rte_mempool;

namespace weir {

struct PortPlan {
  std::string device;  // DPDK's name: "net_af_xdp0", "0000:3b:00.0"
  unsigned workers = 1;
  unsigned fixed_queues = 0;  // 0: as many as there are workers and the device has
  PortSide side = PortSide::both;
  std::uint16_t mtu = 0;  // bytes of the IP packet; 0: the device's is not weir's to choose
};

class Port {
 public:
  // Opens and starts the device. Control thread, after start_eal().
  static absl::StatusOr<Port> open(const PortPlan& plan, const OwnerMap& owners, rte_mempool* pool);
  // Stops and closes it; no worker may use it any more.
  void close();

  std::uint16_t id() const noexcept { return id_; }  // DPDK's
  // Each queue is received from, and transmitted on, by one worker: number queue % workers.
  std::uint16_t queues() const noexcept { return queues_; }
  const MacAddress& mac() const noexcept { return mac_; }
  rte_mempool* pool() const noexcept { return pool_; }  // of the frames that it receives
  std::uint16_t mtu() const noexcept { return mtu_; }
  // Packets that the device has lost: no buffer was free, or they were too large for one.
  std::uint64_t missed() const;
  const std::string& device() const noexcept { return device_; }
  // Whether the device itself gives packets to the workers that own them.
  bool finds_owner() const noexcept { return finds_owner_; }

 private:
  std::string device_;
  std::uint16_t id_ = 0;
  std::uint16_t queues_ = 1;
  bool finds_owner_ = false;
  MacAddress mac_;
  std::uint16_t mtu_ = 1500;
  rte_mempool* pool_ = nullptr;
};

// The largest IP packet in a buffer of a pool that was made for `mtu`.
std::uint16_t largest_packet(std::uint16_t mtu);
// Bytes of a buffer that holds a frame of `mtu` and a tunnel's headers in one piece.
unsigned buffer_room(std::uint16_t mtu);
// One pool of such for all ports.
absl::StatusOr<rte_mempool*> make_buffer_pool(unsigned buffers, std::uint16_t mtu);

}  // namespace weir
