// SPDX-License-Identifier: Apache-2.0
// How prefixes and ranges are written, in the API and on command lines. Pure functions: any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "control/model/specs.h"
#include "dataplane/net/addresses.h"
#include "dataplane/table/mark_rules.h"

namespace weir {

// As ipvsadm names it: "TCP 10.9.0.1:80", "UDP [2001:db8::1]:53", "FWM 7 IPv6".
std::string text_of(const ServiceKey& key);

// "10.0.0.0/8", or an address, which is a prefix of its whole length. Bits of the host are cleared.
std::optional<IpPrefix> parse_prefix(std::string_view text);
std::string text_of(const IpPrefix& prefix);

// "80" or "8000-8080".
std::optional<PortSpan> parse_port_range(std::string_view text);
std::string text_of(const PortSpan& range);

// "10.2.0.1", "10.2.0.1-10.2.0.9" or "10.2.0.0/29", which is all of its addresses.
std::optional<AddressRange> parse_address_range(std::string_view text);
std::string text_of(const AddressRange& range);

}  // namespace weir
