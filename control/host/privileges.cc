// SPDX-License-Identifier: Apache-2.0
#include "control/host/privileges.h"

#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>

#include <absl/strings/numbers.h>

namespace weir {
namespace {

constexpr std::array<unsigned, 5> kNeeded = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_IPC_LOCK,
                                             CAP_SYS_NICE};

// Of the calling thread alone, as the kernel has it. Safe in a signal handler. False, and errno.
bool limit_this_thread() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
  if (syscall(SYS_capget, &header, sets.data()) != 0) return false;
  std::array<std::uint32_t, _LINUX_CAPABILITY_U32S_3> needed{};
  for (const unsigned capability : kNeeded) {
    needed[CAP_TO_INDEX(capability)] |= CAP_TO_MASK(capability);
  }
  for (std::size_t i = 0; i < sets.size(); ++i) {
    sets[i].permitted &= needed[i];
    sets[i].effective = sets[i].permitted;
    sets[i].inheritable = 0;
  }
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_capset, &header, sets.data()) == 0;
}

std::atomic<int>& refused_with() {
  static constinit std::atomic<int> error{0};
  return error;
}
std::atomic<unsigned>& limited_threads() {
  static constinit std::atomic<unsigned> count{0};
  return count;
}

void limit_in_handler(int) {
  const int before = errno;
  if (!limit_this_thread()) refused_with().store(errno, std::memory_order_relaxed);
  // Pairs with the acquire of whoever has sent the signal.
  limited_threads().fetch_add(1, std::memory_order_release);
  errno = before;
}

bool wait_for(unsigned threads) {
  constexpr std::chrono::seconds kPatience{5};
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (limited_threads().load(std::memory_order_acquire) < threads) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace

// The kernel keeps privileges for each thread, and only the thread itself can change them.
absl::Status keep_needed_privileges() {
  constexpr int kSignal = SIGURG;  // ignored where nobody asked for it
  struct sigaction by_handler {};
  by_handler.sa_handler = limit_in_handler;
  by_handler.sa_flags = SA_RESTART;
  struct sigaction before {};
  sigaction(kSignal, &by_handler, &before);
  refused_with().store(0, std::memory_order_relaxed);
  limited_threads().store(0, std::memory_order_relaxed);
  unsigned threads = 0;
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
    int thread = 0;
    if (!absl::SimpleAtoi(task.path().filename().string(), &thread)) continue;
    if (syscall(SYS_tgkill, getpid(), thread, kSignal) == 0) ++threads;
  }
  const bool all = !error && wait_for(threads);
  sigaction(kSignal, &before, nullptr);
  if (!all) return absl::InternalError("some thread keeps its privileges: /proc may be missing");
  const int refused = refused_with().load(std::memory_order_relaxed);
  return refused == 0 ? absl::OkStatus()
                      : absl::ErrnoToStatus(refused, "cannot give up privileges");
}

}  // namespace weir
