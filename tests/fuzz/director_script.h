// SPDX-License-Identifier: Apache-2.0
// Any bytes through any service table: the input is a script of control operations, time that
// passes and bursts of frames. Each byte taken is taken from the input's front; when it is used up,
// zeros follow and the script ends. fuzz_process_burst_seeds.py writes the same format.
//
// Frames lie at the end of a heap block of their own, so that the address sanitizer sees a read
// beyond them. What leaves is judged like in every test (BurstLab).
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dataplane/path/verdict.h"

namespace weir::test {

// How often each outcome was counted.
using OutcomeCounts = std::array<std::uint64_t, kOutcomes>;

// Plays one input on a director of its own, always in the same way. Ends the process where
// something does not hold.
OutcomeCounts play_script(std::span<const std::uint8_t> input);

}  // namespace weir::test
