// SPDX-License-Identifier: Apache-2.0
// What ipvsadm 1.31 prints, byte for byte: listings, saved rules, help.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "control/cli/ipvsadm_arguments.h"
#include "control/cli/name_lookup.h"
#include "control/model/listings.h"

namespace weir {

// The mode of a real server on the director itself: as ipvsadm shows it, or local, as it is.
enum class ServerModes : std::uint8_t { configured, in_effect };

struct ListingStyle {
  IpvsadmColumns columns = IpvsadmColumns::connection_counts;
  NumberStyle numbers = NumberStyle::short_units;
  NameLookup* names = nullptr;  // null: numeric
  ServerModes modes = ServerModes::configured;
};

// Services, and the real servers of each, as `ipvsadm -L` orders them.
void sort_services(std::vector<ServiceListing>& services);

// The first line of a listing of all services.
std::string_view version_line();
std::string column_titles(const ListingStyle& style);
// The service's line and its real servers' lines.
std::string service_lines(const ServiceListing& service, const ListingStyle& style);

// The lines of `ipvsadm -S` that make this service again. `names` null: numeric.
std::string saved_lines(const ServiceListing& service, NameLookup* names);

// Persistent connections would have two columns more, for engines, which weir has none of.
std::string_view connection_titles(IpvsadmColumns columns);
std::string connection_line(const ConnectionListing& connection, NameLookup* names);

std::string timeouts_line(const IpvsTimeouts& timeouts);
std::string daemon_line(const SyncDaemonSpec& daemon);

std::string_view ipvsadm_version();  // `ipvsadm -v`
std::string_view ipvsadm_help();     // `ipvsadm -h`

}  // namespace weir
