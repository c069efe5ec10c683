// SPDX-License-Identifier: Apache-2.0
// Who is behind a port.
#pragma once

#include <cstdint>

namespace weir {

enum class PortSide : std::uint8_t { both, clients, servers };

}  // namespace weir
