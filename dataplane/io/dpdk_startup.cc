// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/dpdk_startup.h"

#include <cpuid.h>
#include <fcntl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <sys/types.h>
#include <unistd.h>

#include <absl/status/statusor.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/io/worker.h"

namespace weir {
namespace {

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

// Worker k is lcore k + 1, pinned, the first CPU last. Lcore 0 is control: it and the threads that
// it starts float over the CPUs that no worker has, where there are any.
absl::StatusOr<std::string> lcore_map(const EalPlan& plan) {
  if (!plan.lcores.empty()) return plan.lcores;
  const std::vector<int> cpus = allowed_cpus();
  if (plan.workers > cpus.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        plan.workers, " workers need ", plan.workers, " CPUs and this process may use ",
        cpus.size(), ": ask for fewer with --workers, or map them yourself, for example --lcores '",
        "0@0,1@0,2@", cpus.back(), "'"));
  }
  std::vector<int> others = cpus;
  std::string workers;
  for (unsigned worker = 0; worker < plan.workers; ++worker) {
    const int cpu = cpus[(worker + 1) % cpus.size()];
    absl::StrAppend(&workers, ",", worker + 1, "@", cpu);
    std::erase(others, cpu);
  }
  if (others.empty()) others = cpus;
  std::string map = absl::StrCat("0@(", absl::StrJoin(others, ","), ")", workers);
  return map;
}

std::vector<std::string> arguments(const EalPlan& plan, const std::string& lcores) {
  std::vector<std::string> list = {"weir", absl::StrCat("--lcores=", lcores), "--no-telemetry",
                                   "--log-level=lib.*:warning", "--log-level=pmd.*:warning"};
  if (plan.huge_pages) {
    list.push_back("--in-memory");
  } else {
    list.push_back("--no-huge");
    list.push_back("-m");
    list.push_back(absl::StrCat(plan.megabytes));
    list.push_back(absl::StrCat("--file-prefix=weir-", getpid()));
    list.push_back("--no-shconf");
  }
  bool pci = false;
  for (const std::string& device : plan.devices) {
    list.push_back(device);
    pci = pci || device.rfind("--allow=", 0) == 0;
  }
  if (!pci) list.push_back("--no-pci");
  list.insert(list.end(), plan.extra.begin(), plan.extra.end());
  return list;
}

// EAL's answer to an argument that it does not know is 60 lines about all those that it knows, on
// standard output; its reason is on standard error. --help is for those who want them.
int init_without_usage(std::vector<char*>& arguments) {
  const bool wanted = std::any_of(arguments.begin(), arguments.end(), [](const char* argument) {
    return std::string_view(argument) == "--help" || std::string_view(argument) == "-h";
  });
  std::fflush(stdout);
  const int output = wanted ? -1 : dup(STDOUT_FILENO);
  const int nowhere = output < 0 ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (nowhere >= 0) dup2(nowhere, STDOUT_FILENO);
  const int result = rte_eal_init(static_cast<int>(arguments.size()), arguments.data());
  std::fflush(stdout);
  if (nowhere >= 0) dup2(output, STDOUT_FILENO);
  if (nowhere >= 0) close(nowhere);
  if (output >= 0) close(output);
  return result;
}

std::vector<pid_t> threads_of_this_process() {
  std::vector<pid_t> threads;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    pid_t thread = 0;
    if (absl::SimpleAtoi(entry.path().filename().native(), &thread)) threads.push_back(thread);
  }
  return threads;
}

// Those that were there before control was confined. One that has ended meanwhile is none.
void confine_like_this_thread(const std::vector<pid_t>& threads) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return;
  for (const pid_t thread : threads) sched_setaffinity(thread, sizeof set, &set);
}

}  // namespace

absl::Status start_eal(const EalPlan& plan) {
  const auto lcores = lcore_map(plan);
  if (!lcores.ok()) return lcores.status();
  // EAL keeps pointers to the texts.
  static std::vector<std::string> kept;
  kept = arguments(plan, *lcores);
  std::vector<char*> pointers;
  for (std::string& text : kept) pointers.push_back(text.data());
  const std::vector<pid_t> others = threads_of_this_process();
  if (init_without_usage(pointers) < 0) {
    // EACCES: no huge page is there at all.
    const bool no_memory = rte_errno == ENOMEM || rte_errno == EACCES;
    return absl::Status(
        no_memory ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal,
        absl::StrCat(
            "DPDK did not start (", rte_strerror(rte_errno),
            "); its own message above says why; the arguments were: ", absl::StrJoin(kept, " ")));
  }
  if (rte_lcore_count() < plan.workers + 1) {
    const unsigned found = rte_lcore_count();
    rte_eal_cleanup();
    return absl::InvalidArgumentError(
        absl::StrCat("--lcores names ", found, " lcores and ", plan.workers,
                     " workers need one more than that number of workers, for control: add some, "
                     "for example 0@0,1@0,2@1"));
  }
  confine_like_this_thread(others);
  return absl::OkStatus();
}

void stop_eal() { rte_eal_cleanup(); }

bool has_invariant_tsc() {
  constexpr unsigned kPowerManagement = 0x80000007U;  // leaf of CPUID
  constexpr unsigned kInvariantTsc = 1U << 8;
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  return __get_cpuid(kPowerManagement, &a, &b, &c, &d) != 0 && (d & kInvariantTsc) != 0;
}

unsigned free_huge_pages() {
  std::ifstream file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
  unsigned pages = 0;
  file >> pages;
  return pages;
}

std::vector<unsigned> worker_lcores() {
  std::vector<unsigned> lcores;
  unsigned lcore;
  RTE_LCORE_FOREACH_WORKER(lcore) { lcores.push_back(lcore); }
  return lcores;
}

void launch_on_lcore(Worker& worker, unsigned lcore) {
  const auto run = [](void* argument) {
    static_cast<Worker*>(argument)->run();
    return 0;
  };
  rte_eal_remote_launch(run, &worker, lcore);
}

void wait_for_lcore(unsigned lcore) { rte_eal_wait_lcore(lcore); }

}  // namespace weir
