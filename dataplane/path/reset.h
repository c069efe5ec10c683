// SPDX-License-Identifier: Apache-2.0
// What tells the sender of a packet that its connection is no more: the TCP reset that answers a
// segment (RFC 9293 section 3.10.7.1), the SCTP ABORT (RFC 9260 section 8.4).
#pragma once

#include "dataplane/path/packet.h"

namespace weir {

// Turns a packet of TCP or SCTP into the reset about it, from its destination back to its source,
// in place. False, and the packet unchanged: it says itself that the connection is no more, or is
// of another protocol. Worker thread.
[[nodiscard]] bool become_reset(Packet& packet) noexcept;

// Makes a TCP segment out of nothing, at `packet.ip`, that the sender of packets with the packet's
// key answers by what it expects (RFC 9293 section 3.10.7.4): an ACK that no window holds, but for
// one in ten thousand. Worker thread.
void become_probe(Packet& packet) noexcept;

}  // namespace weir
