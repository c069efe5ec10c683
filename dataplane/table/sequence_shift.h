// SPDX-License-Identifier: Apache-2.0
// What fullnat has put in front of a client's bytes, beside the connection: few have it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "dataplane/table/service.h"

namespace weir {

// Whether the real server has what it is told. long_ago: a quarter of all sequence numbers lies
// between, so that nothing on the wire is from before, and distances to the stream's beginning mean
// nothing any more: they wrap.
enum class Told : std::uint8_t { no, yes, long_ago };

// Of one TCP connection: what its real server has been told. Zero: nothing to tell.
// Written by: the worker that owns the connection.
struct SequenceShift {
  std::uint32_t client_first;  // the client's ISN + 1, host order
  ClientAddress how;
  std::uint8_t bytes;  // of the option or the header
  Told told;
  std::uint8_t window_scale;  // of the server's windows
};
static_assert(sizeof(SequenceShift) == 8 && std::is_trivially_copyable_v<SequenceShift>);
static_assert(ClientAddress{} == ClientAddress::hidden && Told{} == Told::no);

constexpr bool is_active(const SequenceShift& shift) noexcept {
  return shift.how != ClientAddress::hidden;
}

}  // namespace weir
