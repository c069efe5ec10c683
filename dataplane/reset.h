// SPDX-License-Identifier: Apache-2.0
// The TCP reset that answers a segment (RFC 9293 section 3.10.7.1).
#pragma once

#include "dataplane/packet.h"

namespace weir {

// Turns a TCP segment into the reset about it, from its destination back to its source, in place.
// False, and the packet unchanged: it is a reset itself. Worker thread.
[[nodiscard]] bool become_tcp_reset(Packet& packet) noexcept;

}  // namespace weir
