// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/port.h"

#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstring>

namespace weir {
namespace {

constexpr std::uint16_t kDescriptors = 1024;

absl::Status failed(const std::string& device, const char* what, int code) {
  return absl::InternalError(
      absl::StrCat("port ", device, ": ", what, " failed: ", rte_strerror(-code)));
}

absl::Status set_up_queues(std::uint16_t id, std::uint16_t queues, rte_mempool* pool,
                           const std::string& device) {
  std::uint16_t rx = kDescriptors;
  std::uint16_t tx = kDescriptors;
  if (const int rc = rte_eth_dev_adjust_nb_rx_tx_desc(id, &rx, &tx); rc != 0) {
    return failed(device, "choosing the number of descriptors", rc);
  }
  const auto socket = static_cast<unsigned>(rte_eth_dev_socket_id(id));
  for (std::uint16_t queue = 0; queue < queues; ++queue) {
    if (const int rc = rte_eth_rx_queue_setup(id, queue, rx, socket, nullptr, pool); rc != 0) {
      return failed(device, "setting up a receive queue", rc);
    }
    if (const int rc = rte_eth_tx_queue_setup(id, queue, tx, socket, nullptr); rc != 0) {
      return failed(device, "setting up a transmit queue", rc);
    }
  }
  return absl::OkStatus();
}

// What the device takes of it, as ethdev works it out.
std::uint16_t possible_mtu(const rte_eth_dev_info& info, std::uint16_t wanted) {
  const bool known = info.max_mtu != UINT16_MAX && info.max_rx_pktlen > info.max_mtu;
  const std::uint32_t overhead =
      known ? info.max_rx_pktlen - info.max_mtu : RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
  const std::uint32_t most = std::min<std::uint32_t>(info.max_mtu, info.max_rx_pktlen - overhead);
  return static_cast<std::uint16_t>(std::min<std::uint32_t>(wanted, most));
}

}  // namespace

absl::StatusOr<Port> Port::open(const PortPlan& plan, const OwnerMap& owners, rte_mempool* pool) {
  Port port;
  port.device_ = plan.device;
  port.pool_ = pool;
  if (rte_eth_dev_get_port_by_name(plan.device.c_str(), &port.id_) != 0) {
    return absl::NotFoundError(absl::StrCat(
        "there is no port ", plan.device,
        ": for a NIC give its PCI address after binding it with dpdk-devbind.py -b vfio-pci, for a "
        "kernel interface its name, for anything else vdev:NAME,ARGUMENTS"));
  }
  rte_eth_dev_info info;
  if (const int rc = rte_eth_dev_info_get(port.id_, &info); rc != 0) {
    return failed(plan.device, "reading the device's description", rc);
  }
  const auto most = std::min(info.max_rx_queues, info.max_tx_queues);
  port.queues_ = static_cast<std::uint16_t>(
      plan.fixed_queues != 0 ? plan.fixed_queues : std::min<unsigned>(plan.workers, most));

  ReceiveHash hash(info, plan.side, owners, port.queues_);
  rte_eth_conf conf;
  std::memset(&conf, 0, sizeof conf);
  hash.ask_for(conf);
  if (plan.mtu != 0) conf.rxmode.mtu = possible_mtu(info, plan.mtu);
  if (const int rc = rte_eth_dev_configure(port.id_, port.queues_, port.queues_, &conf); rc != 0) {
    return failed(plan.device, "configuring the queues", rc);
  }
  // Some devices have taken it from the configuration, and others refuse: mtu() tells.
  if (plan.mtu != 0) rte_eth_dev_set_mtu(port.id_, static_cast<std::uint16_t>(conf.rxmode.mtu));
  if (auto status = set_up_queues(port.id_, port.queues_, pool, plan.device); !status.ok()) {
    return status;
  }
  if (const int rc = rte_eth_dev_start(port.id_); rc != 0)
    return failed(plan.device, "starting", rc);
  hash.apply(port.id_);
  port.finds_owner_ = hash.finds_owner();

  rte_ether_addr mac;
  if (rte_eth_macaddr_get(port.id_, &mac) == 0) {
    std::copy(std::begin(mac.addr_bytes), std::end(mac.addr_bytes), port.mac_.bytes.begin());
  }
  rte_eth_dev_get_mtu(port.id_, &port.mtu_);
  return port;
}

void Port::close() {
  rte_eth_dev_stop(id_);
  rte_eth_dev_close(id_);
}

std::uint64_t Port::missed() const {
  rte_eth_stats stats{};
  return rte_eth_stats_get(id_, &stats) == 0 ? stats.imissed : 0;
}

namespace {

// AF_XDP keeps 256 bytes of a buffer for the kernel's own headroom (XDP_PACKET_HEADROOM).
constexpr unsigned kXdpHeadroom = 256;
constexpr unsigned kEthernetHeader = 18;  // with a VLAN tag
constexpr unsigned kBesidePacket = RTE_PKTMBUF_HEADROOM + kXdpHeadroom + kEthernetHeader;

}  // namespace

unsigned buffer_room(std::uint16_t mtu) {
  return std::max<unsigned>(RTE_MBUF_DEFAULT_BUF_SIZE, RTE_ALIGN_CEIL(kBesidePacket + mtu, 64U));
}

std::uint16_t largest_packet(std::uint16_t mtu) {
  return static_cast<std::uint16_t>(buffer_room(mtu) - kBesidePacket);
}

absl::StatusOr<rte_mempool*> make_buffer_pool(unsigned buffers, std::uint16_t mtu) {
  constexpr unsigned kCache = 256;
  const unsigned room = buffer_room(mtu);
  rte_mempool* pool = rte_pktmbuf_pool_create("weir", buffers, kCache, 0,
                                              static_cast<std::uint16_t>(room), SOCKET_ID_ANY);
  if (pool == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "there is no memory for ", buffers, " packet buffers of ", room, " bytes (",
        rte_strerror(rte_errno), "): reserve more huge pages with scripts/huge-pages"));
  }
  return pool;
}

}  // namespace weir
