// SPDX-License-Identifier: Apache-2.0
#include "control/host/checksum_offload.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace weir {

bool leaves_checksums(const std::string& interface) {
  // On a bus, but the other end is a host's kernel.
  constexpr std::array<std::string_view, 4> kParavirtual = {"virtio_net", "vmxnet3", "hv_netvsc",
                                                            "vif"};
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&info);
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const bool known = socket >= 0 && ioctl(socket, SIOCETHTOOL, &request) == 0;
  if (socket >= 0) close(socket);
  if (!known || std::ranges::find(kParavirtual, info.driver) != kParavirtual.end()) return true;
  // "0000:3b:00.0", "usb-0000:00:14.0-1": what has no hardware says nothing, or its own kind.
  const std::string_view bus = info.bus_info;
  return bus.find(':') == std::string_view::npos;
}

bool device_leaves_checksums(const std::string& device) {
  constexpr std::array<std::string_view, 5> kDrivers = {"net_af_packet", "net_pcap", "net_vhost",
                                                        "net_virtio_user", "virtio_user"};
  return std::ranges::any_of(kDrivers,
                             [&](std::string_view driver) { return device.rfind(driver, 0) == 0; });
}

}  // namespace weir
