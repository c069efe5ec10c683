// SPDX-License-Identifier: Apache-2.0
// IPVS's TCP state machine (net/netfilter/ipvs/ip_vs_proto_tcp.c: tcp_states, tcp_timeouts).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "dataplane/net/wire_headers.h"

namespace weir {

enum class TcpState : std::uint8_t {
  none,
  established,
  syn_sent,
  syn_recv,
  fin_wait,
  time_wait,
  close,
  close_wait,
  last_ack,
  listen,
  synack,
  count_
};

inline constexpr std::size_t kTcpStates = static_cast<std::size_t>(TcpState::count_);

// As `ipvsadm -Lc` prints them.
inline constexpr std::array<std::string_view, kTcpStates> kTcpStateNames = {
    "NONE",  "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT",
    "CLOSE", "CLOSE_WAIT",  "LAST_ACK", "LISTEN",   "SYNACK"};

inline constexpr std::array<std::uint32_t, kTcpStates> kDefaultTcpTimeouts = {
    2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120};

// Whether a connection in this state counts as active.
inline constexpr std::array<bool, kTcpStates> kTcpStateActive = {
    false, true, true, true, false, false, false, false, false, false, true};

// input: from the client. input_only: from the client while no packet of the server has been seen,
// which is always so in dr and tun.
enum class TcpDirection : std::uint8_t { input, output, input_only };

enum class TcpEvent : std::uint8_t { syn, fin, ack, rst, none };

namespace tcp_table {
// IPVS's own two-letter names keep the rows comparable with the kernel's table.
inline constexpr auto NO = TcpState::none, ES = TcpState::established, SS = TcpState::syn_sent,
                      SR = TcpState::syn_recv, FW = TcpState::fin_wait, TW = TcpState::time_wait,
                      CL = TcpState::close, CW = TcpState::close_wait, LA = TcpState::last_ack,
                      LI = TcpState::listen, SA = TcpState::synack;
// Wide enough for shifts to find a place.
using Row = std::array<TcpState, 16>;
using Rows = std::array<Row, 8>;
// clang-format off
inline constexpr std::array<Rows, 3> kNext = {{
    // from:   NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    {{ /* input */
     /*syn*/ {{SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR}},
     /*fin*/ {{CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW}},
     /*ack*/ {{ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES}},
     /*rst*/ {{CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR}},
     /*   */ {{CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL}}}},
    {{ /* output */
     /*syn*/ {{SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR}},
     /*fin*/ {{TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW}},
     /*ack*/ {{ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES}},
     /*rst*/ {{CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL}},
     /*   */ {{CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL}}}},
    {{ /* input_only */
     /*syn*/ {{SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR}},
     /*fin*/ {{CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW}},
     /*ack*/ {{ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES}},
     /*rst*/ {{CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL}},
     /*   */ {{CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL}}}},
}};
// clang-format on

// By the flags from FIN to ACK.
inline constexpr auto kEvents = [] {
  std::array<TcpEvent, 32> events{};
  for (unsigned flags = 0; flags < events.size(); ++flags) {
    events[flags] = TcpEvent::none;
    if ((flags & TcpHeader::kAck) != 0) events[flags] = TcpEvent::ack;
    if ((flags & TcpHeader::kFin) != 0) events[flags] = TcpEvent::fin;
    if ((flags & TcpHeader::kSyn) != 0) events[flags] = TcpEvent::syn;
    if ((flags & TcpHeader::kRst) != 0) events[flags] = TcpEvent::rst;
  }
  return events;
}();
}  // namespace tcp_table

// RST > SYN > FIN > ACK.
constexpr TcpEvent tcp_event(std::uint8_t flags) noexcept {
  return tcp_table::kEvents[flags % tcp_table::kEvents.size()];
}

constexpr TcpState next_tcp_state(TcpState from, TcpDirection direction, TcpEvent event) noexcept {
  return tcp_table::kNext[static_cast<std::size_t>(direction)][static_cast<std::size_t>(event)]
                         [static_cast<std::size_t>(from)];
}

}  // namespace weir
