// SPDX-License-Identifier: Apache-2.0
// What weir may still do once it has its ports, whoever talks to it or sends it packets:
// NET_ADMIN (routes, neighbours, tc filters, AF_XDP, /proc/sys/net), NET_RAW (AF_XDP), BPF (the
// steering program's maps), IPC_LOCK (memory that stays where it is), SYS_NICE (its threads' CPUs
// and priorities).
//
// At the start it also needs PERFMON, without which the kernel's verifier refuses the steering
// program's comparisons. SYS_ADMIN, which root has, is of use then: only with that does the kernel
// hand out a BPF program by its number, and so a killed weir's.
#pragma once

#include <absl/status/status.h>

namespace weir {

// All threads of the process keep these, as far as they have them, and can never get others, also
// not by starting a program. While no thread starts or ends.
absl::Status keep_needed_privileges();

}  // namespace weir
