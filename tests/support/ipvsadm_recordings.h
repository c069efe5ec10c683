// SPDX-License-Identifier: Apache-2.0
// What the real ipvsadm printed (data/ipvs/cli.jsonl), for replays through the client, the socket
// and a LiveModel: output, messages and exit codes byte for byte.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "control/live/live_model.h"
#include "tests/support/api_lab.h"

namespace weir {

struct IpvsadmRecord {
  int line = 0;
  std::string group;
  std::string arguments;
  std::string in;
  CommandResult expected;
  std::string text;  // of a /proc file
};

std::vector<IpvsadmRecord> read_ipvsadm_records();

// Compares in the way that suits the command: --nosort lists in any order.
void expect_same(const IpvsadmRecord& record, const CommandResult& result);

// A command that weir refuses, though the real ipvsadm did not, with `error` in the message. The
// service that it would have made is left out of what is expected later.
struct RefusedCommand {
  int line;
  std::string_view error;
  std::vector<std::string_view> service;  // the ways in which its lines name it
};

// Replays the records of the groups, in order, on `table`, which holds what they begin with, with
// the commands that were run in between. Returns how many records were replayed.
int replay_ipvsadm_records(LiveModel& table, const std::vector<std::string_view>& groups,
                           const std::vector<RefusedCommand>& refused = {});

}  // namespace weir
