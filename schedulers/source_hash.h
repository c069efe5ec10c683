// SPDX-License-Identifier: Apache-2.0
// sh, source hashing: one client, one real server.
//
// Rule: a table of 256 places is filled from the list again and again, each real server taking as
// many places in a row as its weight, one at least; the client's address is hashed to a place. A
// real server that is overloaded or has weight 0 refuses its clients, unless `sh-fallback` looks
// for another one place after place. With `sh-port` the client's port is hashed as well.
// Cost: O(1) a pick; a fallback may try every place. State: none; the table is 1 KiB.
// Good for: clients that must stay on their real server without templates; every director chooses
// alike. Not for: changing lists, in which most clients move, or more than 256 real servers (mh).
// Source: net/netfilter/ipvs/ip_vs_sh.c.
#pragma once

#include "schedulers/by_table.h"

namespace weir {

struct SourceHashPlace {
  static std::uint32_t place(std::uint32_t value, std::uint32_t offset,
                             const LookupTable&) noexcept {
    return (offset + hash_32(value, 8)) & 0xff;
  }
};

using SourceHash = ByTable<SourceHashPlace>;

LookupTable make_source_hash_table(std::span<const Candidate> candidates);

}  // namespace weir
