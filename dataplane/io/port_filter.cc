// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/port_filter.h"

#include <rte_errno.h>
#include <rte_ethdev.h>

#include <absl/strings/str_cat.h>

#include <algorithm>

namespace weir {
namespace {

rte_ether_addr dpdk_address(const MacAddress& mac) {
  rte_ether_addr address;
  std::copy(mac.bytes.begin(), mac.bytes.end(), std::begin(address.addr_bytes));
  return address;
}

bool contains(std::span<const MacAddress> macs, const MacAddress& mac) {
  return std::find(macs.begin(), macs.end(), mac) != macs.end();
}

}  // namespace

PortFilter::PortFilter(const Port& port)
    : id_(port.id()), device_(port.device()), own_(port.mac()) {
  multicast_refusal_ = rte_eth_allmulticast_enable(id_);
  if (multicast_refusal_ != 0) receive_everything();
}

void PortFilter::pass(std::span<const MacAddress> macs) {
  const std::vector<MacAddress> before = passing_;
  for (const MacAddress& mac : before) {
    if (!contains(macs, mac)) remove(mac);
  }
  address_refusal_ = 0;
  for (const MacAddress& mac : macs) {
    if (mac == own_ || contains(passing_, mac)) continue;
    if (const int error = add(mac); error != 0) address_refusal_ = error;
  }
  if (address_refusal_ != 0 || multicast_refusal_ != 0) {
    receive_everything();
  } else {
    receive_what_is_ours();
  }
}

int PortFilter::add(const MacAddress& mac) {
  rte_ether_addr address = dpdk_address(mac);
  const int error = rte_eth_dev_mac_addr_add(id_, &address, 0);
  if (error == 0) passing_.push_back(mac);
  return error;
}

void PortFilter::remove(const MacAddress& mac) {
  rte_ether_addr address = dpdk_address(mac);
  rte_eth_dev_mac_addr_remove(id_, &address);
  std::erase(passing_, mac);
}

void PortFilter::receive_everything() {
  if (everything_) return;
  everything_refusal_ = rte_eth_promiscuous_enable(id_);
  everything_ = everything_refusal_ == 0;
}

void PortFilter::receive_what_is_ours() {
  if (everything_) rte_eth_promiscuous_disable(id_);
  everything_ = false;
  everything_refusal_ = 0;
}

std::optional<std::string> PortFilter::complaint() const {
  const int reason = multicast_refusal_ != 0 ? multicast_refusal_ : address_refusal_;
  if (reason == 0) return std::nullopt;
  const char* const what = multicast_refusal_ != 0 ? "multicast" : "further hardware addresses";
  const std::string refused = absl::StrCat("port ", device_, ": the device does not take ", what,
                                           " (", rte_strerror(-reason), ")");
  if (everything_) {
    return absl::StrCat(refused, ", so it receives everything (promiscuous mode), and weir sorts");
  }
  const bool knows_no_filter = reason == -ENOTSUP && everything_refusal_ == -ENOTSUP;
  if (knows_no_filter) return std::nullopt;
  return absl::StrCat(refused, " nor promiscuous mode (", rte_strerror(-everything_refusal_),
                      "): what it filters (ND, VRRP, virtual MACs) does not reach weir");
}

}  // namespace weir
