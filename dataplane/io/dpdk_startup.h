// SPDX-License-Identifier: Apache-2.0
// Starts and ends DPDK's environment (EAL) with arguments that weir makes itself.
#pragma once

#include <string>
#include <vector>

#include <absl/status/status.h>

namespace weir {

class Worker;

struct EalPlan {
  unsigned workers = 1;
  std::string lcores;                // EAL's --lcores; empty: made from the CPUs of this process
  std::vector<std::string> devices;  // EAL arguments: "--vdev=...", "--allow=..."
  std::vector<std::string> extra;    // from --eal, appended last
  bool huge_pages = true;
  unsigned megabytes = 512;  // without huge pages: what EAL may take
};

// Once per process, on the thread that becomes the main lcore. ResourceExhausted: the huge pages
// that it counts on are not there.
absl::Status start_eal(const EalPlan& plan);
void stop_eal();

// Whether the CPU says that its time-stamp counters run alike on all cores, asleep or not, as the
// workers' clock takes for granted.
bool has_invariant_tsc();

// 2 MiB pages that are free on this host.
unsigned free_huge_pages();

// The lcores of the workers, in order.
std::vector<unsigned> worker_lcores();
// Runs worker.run() on an lcore; wait_for_lcore() returns once it has ended.
void launch_on_lcore(Worker& worker, unsigned lcore);
void wait_for_lcore(unsigned lcore);

}  // namespace weir
