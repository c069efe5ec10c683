// SPDX-License-Identifier: Apache-2.0
// What a device that DPDK owns lets through: a NIC drops all that is not for its own address unless
// it is told. Multicast (ND, VRRP, OSPF) and the addresses of virtual interfaces on the exception
// interface (macvlan, VRRP's virtual MACs) must pass. Control thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dataplane/io/port.h"
#include "dataplane/net/addresses.h"

namespace weir {

class PortFilter {
 public:
  // Lets all multicast through. `port` is started.
  explicit PortFilter(const Port& port);

  // From now on `macs` pass, and those of earlier calls that are not among them do not any more.
  // Where the device has no room for them, or does not take any, it receives everything.
  void pass(std::span<const MacAddress> macs);

  // What does not pass although it should, or that everything does; nothing when all is well. Not
  // of devices that know no filter at all, as most of those without hardware.
  std::optional<std::string> complaint() const;

 private:
  // Errors are DPDK's, negative; 0: none.
  int add(const MacAddress& mac);
  void remove(const MacAddress& mac);
  void receive_everything();
  void receive_what_is_ours();

  std::uint16_t id_;
  std::string device_;
  MacAddress own_;
  std::vector<MacAddress> passing_;  // beside own_
  int multicast_refusal_ = 0;
  int address_refusal_ = 0;
  int everything_refusal_ = 0;
  bool everything_ = false;
};

}  // namespace weir
