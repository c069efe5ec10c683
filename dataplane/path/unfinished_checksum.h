// SPDX-License-Identifier: Apache-2.0
// Checksums that the sender's kernel has left to a device which has none to do it, such as veth:
// the field holds the sum of the pseudo header alone (CHECKSUM_PARTIAL), or in SCTP nothing.
// A right checksum may look like that, too, and comes out as it was.
#pragma once

#include "dataplane/path/packet.h"

namespace weir {

// `packet` is parsed, and no fragment. Worker thread.
void finish_checksum(Packet& packet) noexcept;

}  // namespace weir
