// SPDX-License-Identifier: Apache-2.0
// The ipvsadm face: one run of the command against a weir.
#pragma once

#include <iosfwd>
#include <span>
#include <string>

#include "control/cli/api_client.h"
#include "control/cli/name_lookup.h"

namespace weir {

struct CommandStreams {
  std::istream& in;  // what `-R` reads
  std::ostream& out;
  std::ostream& err;
};

// Returns the exit code, ipvsadm's own: 0, 1 (a listing failed), 2 (usage), 255. Unlike there, `-R`
// fails when any line failed. `arguments` does not hold the program's name.
int run_ipvsadm(std::span<const std::string> arguments, ApiClient& weir, NameLookup& names,
                const CommandStreams& streams);

// ipvsadm's two scripts: the rules as commands; the rules from commands, lines with # left out,
// instead of those that are there.
int run_ipvsadm_save(std::span<const std::string> arguments, ApiClient& weir, NameLookup& names,
                     const CommandStreams& streams);
int run_ipvsadm_restore(std::span<const std::string> arguments, ApiClient& weir, NameLookup& names,
                        const CommandStreams& streams);

}  // namespace weir
