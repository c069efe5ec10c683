// SPDX-License-Identifier: Apache-2.0
#include "control/host/interface_facts.h"

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
namespace {

// `about` begins with the number of the question, and is filled in.
bool ask_driver(const std::string& interface, void* about) {
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = static_cast<char*>(about);
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) return false;
  const bool answered = ioctl(socket, SIOCETHTOOL, &request) == 0;
  close(socket);
  return answered;
}

}  // namespace

bool leaves_checksums(const std::string& interface) {
  // On a bus, but the other end is a host's kernel.
  constexpr std::array<std::string_view, 4> kParavirtual = {"virtio_net", "vmxnet3", "hv_netvsc",
                                                            "vif"};
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  if (!ask_driver(interface, &info)) return true;
  if (std::ranges::find(kParavirtual, info.driver) != kParavirtual.end()) return true;
  // "0000:3b:00.0", "usb-0000:00:14.0-1": what has no hardware says nothing, or its own kind.
  const std::string_view bus = info.bus_info;
  return bus.find(':') == std::string_view::npos;
}

std::optional<unsigned> receive_queues(const std::string& interface) {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (!ask_driver(interface, &channels)) return std::nullopt;
  return channels.combined_count + channels.rx_count;
}

bool device_leaves_checksums(const std::string& device) {
  constexpr std::array<std::string_view, 5> kDrivers = {"net_af_packet", "net_pcap", "net_vhost",
                                                        "net_virtio_user", "virtio_user"};
  return std::ranges::any_of(kDrivers,
                             [&](std::string_view driver) { return device.rfind(driver, 0) == 0; });
}

}  // namespace weir
