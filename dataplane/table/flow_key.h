// SPDX-License-Identifier: Apache-2.0
// The fields that a packet is classified and looked up by, in wire order.
#pragma once

#include <cstdint>

#include "dataplane/net/addresses.h"

namespace weir {

// Which end of a connection sent the packet.
enum class Direction : std::uint8_t { inbound, reply };

template <class Address>
struct FlowKey {
  Address source;
  Address destination;
  Be16 source_port;
  Be16 destination_port;
  Protocol protocol;
  Direction direction;
};
static_assert(sizeof(FlowKey<Ipv4Address>) == 14);
static_assert(sizeof(FlowKey<Ipv6Address>) == 38);

// A connection table's look-up of one key, under way.
struct Lookup {
  std::uint32_t bucket;
  std::uint16_t tag;
  std::uint32_t entry;  // once fetched: nearly always the key's
};

}  // namespace weir
