// SPDX-License-Identifier: Apache-2.0
// What weir may still do once it has its ports, whoever talks to it or sends it packets:
//   NET_ADMIN  routes' and neighbours' state, tc filters, interfaces, AF_XDP, /proc/sys/net
//   NET_RAW    AF_XDP and packet sockets
//   BPF        the steering program's maps
//   IPC_LOCK   memory that stays where it is
//   SYS_NICE   CPUs and priorities of its threads
// At the start it also needs SYS_ADMIN: only with that does the kernel hand out a BPF program or
// map by its number, which is all that is known of those of a weir before.
#pragma once

#include <absl/status/status.h>

namespace weir {

// All threads of the process keep these, as far as they have them, and can never get others, also
// not by starting a program. While no thread starts or ends.
absl::Status keep_needed_privileges();

}  // namespace weir
