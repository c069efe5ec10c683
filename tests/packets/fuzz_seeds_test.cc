// SPDX-License-Identifier: Apache-2.0
// The seeds of the fuzzer: they hold, and they reach what a fuzzer should begin with.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include "tests/fuzz/director_script.h"

namespace weir::test {
namespace {

// Outcomes of parsing alone, of the worker's loop, and what would take hundreds of fragments or a
// buffer without headroom.
const std::set<Outcome> kNotReached = {
    Outcome::undecided,
    Outcome::fragment,
    Outcome::drop_fragment_too_many,
    Outcome::drop_no_headroom,
    Outcome::drop_neighbour_queue_full,
    Outcome::drop_neighbour_unreachable,
    Outcome::drop_owner_ring_full,
    Outcome::drop_transmit_ring_full,
    Outcome::drop_transmit_full,
    Outcome::drop_no_buffer,
    Outcome::drop_exception_ring_full,
    Outcome::drop_link_ring_full,
    Outcome::drop_stray_budget,
};

std::vector<std::uint8_t> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(FuzzSeeds, together_reach_the_outcomes_of_the_packet_path) {
  OutcomeCounts counts{};
  for (const auto& entry : std::filesystem::directory_iterator(WEIR_FUZZ_SEEDS)) {
    SCOPED_TRACE(entry.path().filename().string());
    const OutcomeCounts more = play_script(bytes_of(entry.path()));
    for (std::size_t i = 0; i < kOutcomes; ++i) counts[i] += more[i];
  }
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    EXPECT_EQ(counts[i] != 0, !kNotReached.contains(outcome)) << name_of(outcome);
  }
}

}  // namespace
}  // namespace weir::test
