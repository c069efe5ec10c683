// SPDX-License-Identifier: Apache-2.0
// CRC32c (RFC 9260 appendix A, RFC 3720 appendix B.4) by the instruction of SSE4.2, which DPDK
// demands anyway: 3 cycles for 8 bytes. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace weir {

// The register after `length` more bytes. The CRC of a message is the complement of the register
// that began as 0xffffffff. Begun as zero it is linear: what a change of the message does to its
// CRC is the register of (old bytes ^ new bytes), whatever the other bytes are.
std::uint32_t crc32c_add(std::uint32_t state, const void* bytes, std::size_t length) noexcept;
// The same for bytes that are zero.
std::uint32_t crc32c_add_zeros(std::uint32_t state, std::size_t length) noexcept;

}  // namespace weir
