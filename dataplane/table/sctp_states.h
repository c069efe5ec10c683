// SPDX-License-Identifier: Apache-2.0
// IPVS's SCTP state machine (net/netfilter/ipvs/ip_vs_proto_sctp.c: sctp_states, sctp_timeouts,
// sctp_events). The states are those of the real server; INIT1 is a first INIT without an answer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weir {

enum class SctpState : std::uint8_t {
  none,
  init1,
  init,
  cookie_sent,
  cookie_replied,
  cookie_wait,
  cookie,
  cookie_echoed,
  established,
  shutdown_sent,
  shutdown_received,
  shutdown_ack_sent,
  rejected,
  closed,
  count_
};

inline constexpr std::size_t kSctpStates = static_cast<std::size_t>(SctpState::count_);

// As `ipvsadm -Lc` prints them.
inline constexpr std::array<std::string_view, kSctpStates> kSctpStateNames = {
    "NONE",     "INIT1",       "INIT",   "C-SENT",     "C-REPLIED",  "C-WAIT",   "COOKIE",
    "C-ECHOED", "ESTABLISHED", "S-SENT", "S-RECEIVED", "S-ACK-SENT", "REJECTED", "CLOSED"};

// Only ESTABLISHED counts as active.
inline constexpr std::array<std::uint32_t, kSctpStates> kDefaultSctpTimeouts = {
    2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61};

// input: from the client. input_only: from the client while no packet of the server has been seen,
// which is always so in dr and tun.
enum class SctpDirection : std::uint8_t { input, output, input_only };

// data: also SACK, HEARTBEAT and whatever IPVS does not know.
enum class SctpEvent : std::uint8_t {
  data,
  init,
  init_ack,
  cookie_echo,
  cookie_ack,
  shutdown,
  shutdown_ack,
  shutdown_complete,
  error,
  abort,
  count_
};

inline constexpr std::size_t kSctpEvents = static_cast<std::size_t>(SctpEvent::count_);

// By chunk type (RFC 9260 section 3.2).
constexpr SctpEvent sctp_event(std::uint8_t chunk_type) noexcept {
  using enum SctpEvent;
  constexpr std::array<SctpEvent, 15> kEvents = {
      data,        init,       init_ack, data,         data,
      data,        abort,      shutdown, shutdown_ack, error,
      cookie_echo, cookie_ack, data,     data,         shutdown_complete};
  return chunk_type < kEvents.size() ? kEvents[chunk_type] : data;
}

namespace sctp_table {
// IPVS's own two-letter names keep the rows comparable with the kernel's table.
inline constexpr auto NO = SctpState::none, I1 = SctpState::init1, IN = SctpState::init,
                      CS = SctpState::cookie_sent, CR = SctpState::cookie_replied,
                      CW = SctpState::cookie_wait, CO = SctpState::cookie,
                      CE = SctpState::cookie_echoed, ES = SctpState::established,
                      SS = SctpState::shutdown_sent, SR = SctpState::shutdown_received,
                      SA = SctpState::shutdown_ack_sent, RJ = SctpState::rejected,
                      CL = SctpState::closed;
using Row = std::array<SctpState, kSctpStates>;
using Rows = std::array<Row, kSctpEvents>;
// clang-format off
inline constexpr std::array<Rows, 3> kNext = {{
    // from:   NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    {{ /* input */
     /*d  */ {{ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*i  */ {{I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN}},
     /*i_a*/ {{CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*c_e*/ {{CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*c_a*/ {{ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL}},
     /*s  */ {{SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL}},
     /*s_a*/ {{CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL}},
     /*s_c*/ {{CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL}},
     /*err*/ {{CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL}},
     /*ab */ {{CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL}}}},
    {{ /* output */
     /*d  */ {{ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*i  */ {{CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW}},
     /*i_a*/ {{CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*c_e*/ {{CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL}},
     /*c_a*/ {{ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL}},
     /*s  */ {{SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL}},
     /*s_a*/ {{SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL}},
     /*s_c*/ {{CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*err*/ {{CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*ab */ {{CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL}}}},
    {{ /* input_only */
     /*d  */ {{ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*i  */ {{I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN}},
     /*i_a*/ {{CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*c_e*/ {{ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*c_a*/ {{ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL}},
     /*s  */ {{SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL}},
     /*s_a*/ {{CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL}},
     /*s_c*/ {{CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL}},
     /*err*/ {{CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL}},
     /*ab */ {{CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL}}}},
}};
// clang-format on
}  // namespace sctp_table

constexpr SctpState next_sctp_state(SctpState from, SctpDirection direction,
                                    SctpEvent event) noexcept {
  return sctp_table::kNext[static_cast<std::size_t>(direction)][static_cast<std::size_t>(event)]
                          [static_cast<std::size_t>(from)];
}

}  // namespace weir
