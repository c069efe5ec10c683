// SPDX-License-Identifier: Apache-2.0
// How long a connection lasts without a packet, by its state. Any thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "dataplane/table/connection.h"
#include "dataplane/table/settings.h"

namespace weir {

// A UDP connection whose replies would pass, but whose real server has sent none: as a TCP
// connection before its handshake, it costs an attacker one packet from any address.
template <class Address>
constexpr bool is_unanswered(const Connection<Address>& connection) noexcept {
  const ForwardMode mode = connection.mode();
  return connection.protocol == Protocol::udp && connection.state == kUdpUnanswered &&
         (mode == ForwardMode::nat || mode == ForwardMode::fullnat);
}

// Seconds.
template <class Address>
constexpr std::uint32_t timeout_of(const Settings& settings,
                                   const Connection<Address>& connection) noexcept {
  // The service's own is for what is established.
  const std::uint32_t own = connection.idle_timeout;
  if (connection.protocol == Protocol::tcp) [[likely]] {
    const bool established = connection.tcp_state() == TcpState::established;
    return established && own != 0 ? own : settings.tcp_timeouts[connection.state];
  }
  if (connection.protocol == Protocol::sctp) {
    const bool established = connection.sctp_state() == SctpState::established;
    return established && own != 0 ? own : settings.sctp_timeouts[connection.state];
  }
  const std::uint32_t answered = own != 0 ? own : settings.udp_timeout;
  const bool brief = settings.udp_unanswered_timeout != 0 && is_unanswered(connection);
  return brief ? std::min(answered, settings.udp_unanswered_timeout) : answered;
}

// Ticks since the connection's last packet.
template <class Address>
constexpr std::int32_t idle_ticks(const Settings& settings, const Connection<Address>& connection,
                                  std::uint32_t now) noexcept {
  const std::uint32_t whole = timeout_of(settings, connection) * kTicksPerSecond;
  return static_cast<std::int32_t>(whole - (connection.deadline - now));
}

}  // namespace weir
