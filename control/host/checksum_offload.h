// SPDX-License-Identifier: Apache-2.0
// Whether packets from an interface may have unfinished checksums, because what sends them lives on
// this host and leaves them to the device (veth, TAP, virtio and the like). A NIC never does.
#pragma once

#include <string>

namespace weir {

// Of an interface of this network namespace; true where nothing is known of it.
bool leaves_checksums(const std::string& interface);
// Of DPDK's device of this name: it reads from such an interface, or from a virtual machine.
bool device_leaves_checksums(const std::string& device);

}  // namespace weir
