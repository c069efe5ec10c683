// SPDX-License-Identifier: Apache-2.0
// Devices that filter as a NIC does, though they are none: what DPDK is told about addresses,
// multicast and MTU is noted here, and frames that a NIC would drop are dropped before anybody
// receives them. In a program of its own, or preloaded into weir (LD_PRELOAD), because Debian has
// no headers to write a driver with. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "dataplane/net/addresses.h"

namespace weir::test {

class FilteringNic {
 public:
  // Of one port of DPDK's.
  static FilteringNic& of(std::uint16_t port);

  struct Abilities {
    std::size_t addresses = 16;  // beside its own
    int multicast_error = 0;     // what the device answers
    int promiscuous_error = 0;
    std::uint16_t max_mtu = 9000;
  };
  // Those that ports have from now on; from the environment at first: WEIR_NIC_ADDRESSES,
  // WEIR_NIC_MAX_MTU.
  static Abilities& abilities();

  int add(const MacAddress& mac);
  int remove(const MacAddress& mac);
  int set_multicast();
  int set_promiscuous(int on);
  bool passes(const MacAddress& own, const MacAddress& destination) const;

  std::vector<MacAddress> addresses() const;
  bool is_promiscuous() const;

 private:
  mutable std::mutex mutex_;
  std::vector<MacAddress> addresses_;
  bool multicast_ = false;
  bool promiscuous_ = false;
};

}  // namespace weir::test
