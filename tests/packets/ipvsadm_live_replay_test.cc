// SPDX-License-Identifier: Apache-2.0
// What the real ipvsadm printed (data/ipvs/cli.jsonl) against the live Services.
//
// Refused: `--pe sip`, by name. Not replayed here: the groups `traffic` and `large counters`, whose
// frames are not recorded (ipvsadm_replay_test prints their numbers), and what that test leaves
// out.
#include <gtest/gtest.h>

#include "tests/support/burst_lab.h"
#include "tests/support/ipvsadm_recordings.h"

namespace weir::test {
namespace {

constexpr std::string_view kNoEngine = "weir does not do persistence engines (--pe sip) yet";

TEST(IpvsadmLiveReplay, EveryCommandDoesAndPrintsWhatIpvsadmDidAndPrinted) {
  BurstLab lab;
  const std::vector<RefusedCommand> refused = {{16, kNoEngine, {"10.9.0.2:5060", "10.9.0.2:sip"}},
                                               {73, kNoEngine, {"10.9.0.1:91", "vip1.example:91"}}};
  EXPECT_EQ(replay_ipvsadm_records(
                lab.services(), {"empty table", "building", "listing", "edits", "wrong"}, refused),
            136);
}

}  // namespace
}  // namespace weir::test
