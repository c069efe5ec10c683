// SPDX-License-Identifier: Apache-2.0
#include "tests/support/filtering_nic.h"

#include <dlfcn.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>

namespace weir::test {
namespace {

std::size_t number_in(const char* variable, std::size_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::stoul(text);
}

// DPDK's own function of that name.
template <class Function>
Function* original(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

MacAddress own_mac(std::uint16_t port) {
  rte_ether_addr address;
  rte_eth_macaddr_get(port, &address);
  return load<MacAddress>(address.addr_bytes);
}

std::uint16_t filter(std::uint16_t port, std::uint16_t, rte_mbuf** frames, std::uint16_t count,
                     std::uint16_t, void*) {
  const MacAddress own = own_mac(port);
  const FilteringNic& nic = FilteringNic::of(port);
  std::uint16_t kept = 0;
  for (std::uint16_t i = 0; i < count; ++i) {
    if (nic.passes(own, load<MacAddress>(rte_pktmbuf_mtod(frames[i], const std::uint8_t*)))) {
      frames[kept++] = frames[i];
    } else {
      rte_pktmbuf_free(frames[i]);
    }
  }
  return kept;
}

}  // namespace

FilteringNic& FilteringNic::of(std::uint16_t port) {
  static std::array<FilteringNic, RTE_MAX_ETHPORTS> all;
  return all.at(port);
}

FilteringNic::Abilities& FilteringNic::abilities() {
  static Abilities all = {
      .addresses = number_in("WEIR_NIC_ADDRESSES", Abilities{}.addresses),
      .max_mtu = static_cast<std::uint16_t>(number_in("WEIR_NIC_MAX_MTU", Abilities{}.max_mtu))};
  return all;
}

int FilteringNic::add(const MacAddress& mac) {
  const std::lock_guard lock(mutex_);
  if (addresses_.size() >= abilities().addresses) return -ENOSPC;
  addresses_.push_back(mac);
  return 0;
}

int FilteringNic::remove(const MacAddress& mac) {
  const std::lock_guard lock(mutex_);
  return std::erase(addresses_, mac) == 1 ? 0 : -EINVAL;
}

int FilteringNic::set_multicast() {
  const std::lock_guard lock(mutex_);
  multicast_ = abilities().multicast_error == 0;
  return abilities().multicast_error;
}

int FilteringNic::set_promiscuous(int on) {
  const std::lock_guard lock(mutex_);
  if (abilities().promiscuous_error != 0) return abilities().promiscuous_error;
  promiscuous_ = on != 0;
  return 0;
}

bool FilteringNic::passes(const MacAddress& own, const MacAddress& destination) const {
  const std::lock_guard lock(mutex_);
  const bool broadcast = destination == MacAddress{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};
  if (promiscuous_ || broadcast || destination == own) return true;
  if ((destination.bytes[0] & 1) != 0) return multicast_;
  return std::find(addresses_.begin(), addresses_.end(), destination) != addresses_.end();
}

std::vector<MacAddress> FilteringNic::addresses() const {
  const std::lock_guard lock(mutex_);
  return addresses_;
}

bool FilteringNic::is_promiscuous() const {
  const std::lock_guard lock(mutex_);
  return promiscuous_;
}

// ---- In the place of DPDK's own functions ----

extern "C" {

int rte_eth_dev_start(std::uint16_t port) {
  static auto* const start = original<int(std::uint16_t)>("rte_eth_dev_start");
  rte_eth_dev_info info;
  if (rte_eth_dev_info_get(port, &info) != 0) return -EIO;
  for (std::uint16_t queue = 0; queue < info.nb_rx_queues; ++queue) {
    rte_eth_add_rx_callback(port, queue, filter, nullptr);
  }
  return start(port);
}
int rte_eth_dev_info_get(std::uint16_t port, rte_eth_dev_info* info) {
  static auto* const get = original<int(std::uint16_t, rte_eth_dev_info*)>("rte_eth_dev_info_get");
  const int error = get(port, info);
  info->max_mtu = FilteringNic::abilities().max_mtu;
  return error;
}
int rte_eth_allmulticast_enable(std::uint16_t port) {
  return FilteringNic::of(port).set_multicast();
}
int rte_eth_promiscuous_enable(std::uint16_t port) {
  return FilteringNic::of(port).set_promiscuous(1);
}
int rte_eth_promiscuous_disable(std::uint16_t port) {
  return FilteringNic::of(port).set_promiscuous(0);
}
int rte_eth_dev_mac_addr_add(std::uint16_t port, rte_ether_addr* address, std::uint32_t) {
  return FilteringNic::of(port).add(load<MacAddress>(address->addr_bytes));
}
int rte_eth_dev_mac_addr_remove(std::uint16_t port, rte_ether_addr* address) {
  return FilteringNic::of(port).remove(load<MacAddress>(address->addr_bytes));
}
}

}  // namespace weir::test
