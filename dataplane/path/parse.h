// SPDX-License-Identifier: Apache-2.0
// Bytes to fields: with icmp_quote.h and tunnel.h (quotes) the only code of the packet path that
// reads unchecked bytes.
#pragma once

#include "dataplane/path/packet.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// Makes all of `packet` anew but its Arrival: an outcome, which is a drop with its reason, the
// kernel for what is not IP, or undecided, and what was read until then. A fragment
// (Outcome::fragment) has its addresses and protocol and no ports; an IPv6 fragment that is the
// whole packet (RFC 6946) is none.
// Trims padding: afterwards the frame ends where the IP packet ends. Worker thread.
void parse_frame(Packet& packet, const OwnMacs& own_macs) noexcept;

}  // namespace weir
