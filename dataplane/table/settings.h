// SPDX-License-Identifier: Apache-2.0
// Settings that change at run time, under IPVS's names where IPVS has them (net.ipv4.vs.*).
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/table/sctp_states.h"
#include "dataplane/table/tcp_states.h"

namespace weir {

struct Settings {
  // Seconds by TcpState, as `ipvsadm --set` changes them for established and fin_wait.
  std::array<std::uint32_t, kTcpStates> tcp_timeouts = kDefaultTcpTimeouts;
  std::uint32_t udp_timeout = 300;
  // Seconds that a UDP connection of nat or fullnat lasts whose real server has not answered; 0: as
  // long as others, as IPVS has it.
  std::uint32_t udp_unanswered_timeout = 30;
  // Seconds by SctpState.
  std::array<std::uint32_t, kSctpStates> sctp_timeouts = kDefaultSctpTimeouts;
  // A SYN on a connection in TIME_WAIT or CLOSE (2: FIN_WAIT without output too) starts anew.
  std::uint32_t conn_reuse_mode = 1;
  // Packets of a removed real server's connections: 0 dropped, 1 scheduled anew.
  bool expire_nodest_conn = false;
  // Any TCP segment without RST opens a connection, not only a SYN.
  bool sloppy_tcp = false;
  // Any SCTP packet that does not begin with ABORT opens a connection, not only an INIT.
  bool sloppy_sctp = false;
  // Clients of a template whose real server is quiescent (weight 0) are scheduled anew.
  bool expire_quiescent_template = false;
  // Half-open and idle connections are given up to make room: 0 never, 1 and 2 when the table is
  // nearly full (IPVS tells by 2 that it is now), 3 always.
  std::uint32_t drop_entry = 1;
  // Seconds that lblc and lblcr keep what was not asked for.
  std::uint32_t lblc_expiration = 24 * 60 * 60;
  std::uint32_t lblcr_expiration = 24 * 60 * 60;
  // Packets of a transparent (fwmark) service without a real server go on to where they are
  // addressed.
  bool cache_bypass = false;
  // Whether a packet too big for a tunnel or for the way to a real server is answered as its DF
  // bit asks; off: IPVS ignores DF of the inner packet.
  bool pmtu_disc = true;
  // What another director has sent here by dr, as to its real server, stays here whatever other
  // real servers there are.
  bool backup_only = false;
  // A reply of no connection is answered by ICMP port unreachable.
  bool nat_icmp_send = false;
};

}  // namespace weir
