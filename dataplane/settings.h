// SPDX-License-Identifier: Apache-2.0
// Settings that change at run time, under IPVS's names where IPVS has them (net.ipv4.vs.*).
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/tcp_states.h"

namespace weir {

struct Settings {
  // Seconds by TcpState, as `ipvsadm --set` changes them for established and fin_wait.
  std::array<std::uint32_t, kTcpStates> tcp_timeouts = kDefaultTcpTimeouts;
  std::uint32_t udp_timeout = 300;
  // A SYN on a connection in TIME_WAIT or CLOSE (2: FIN_WAIT without output too) starts anew.
  std::uint32_t conn_reuse_mode = 1;
  // Packets of a removed real server's connections: 0 dropped, 1 scheduled anew.
  bool expire_nodest_conn = false;
  // Any TCP segment without RST opens a connection, not only a SYN.
  bool sloppy_tcp = false;
};

}  // namespace weir
