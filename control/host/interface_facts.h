// SPDX-License-Identifier: Apache-2.0
// What the drivers of interfaces tell (ethtool), in this network namespace.
#pragma once

#include <optional>
#include <string>

namespace weir {

// Whether packets from the interface may have unfinished checksums, because what sends them lives
// on this host and leaves them to the device (veth, TAP, virtio and the like). A NIC never does.
// True where nothing is known of it.
bool leaves_checksums(const std::string& interface);
// Of DPDK's device of this name: it reads from such an interface, or from a virtual machine.
bool device_leaves_checksums(const std::string& device);

// Nothing where the driver does not tell.
std::optional<unsigned> receive_queues(const std::string& interface);

}  // namespace weir
