// SPDX-License-Identifier: Apache-2.0
// Every way out of the packet path, each with a name and a counter.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace weir {

enum class Outcome : std::uint8_t {
  undecided,
  fragment,  // of parse_frame only: to be collected
  // Forwarded.
  nat_to_server,
  nat_to_client,
  dr_to_server,
  tun_to_server,
  fullnat_to_server,
  fullnat_to_client,
  reset_sent,       // of TCP or SCTP, to an end of a connection whose real server is gone
  probe_sent,       // asks such an end to speak, so that it can be reset
  icmp_error_sent,  // an ICMP error of weir's own, back to the client
  // To the host's kernel, through the exception interface or by XDP_PASS's equivalent.
  kernel_not_ip,
  kernel_multicast,
  kernel_foreign_vlan,  // of a VLAN that the host has no interface in
  kernel_not_a_service,
  kernel_no_connection,    // to a service, but neither a connection nor a SYN
  kernel_reply_unmatched,  // from a real server, but of no connection
  kernel_local,            // to a real server that is the director itself
  kernel_cache_bypass,     // of a fwmark service without a real server, routed by the kernel
  kernel_icmp,
  kernel_icmp_short_quote,  // what may be a tunnel's is too big, but whose it was is not quoted
  // To another thread of weir.
  handed_to_owner,
  handed_to_chooser,  // to the worker that chooses the real server
  waiting_for_neighbour,
  fragment_kept,  // copied to its datagram
  // Dropped.
  drop_truncated,
  drop_bad_length,
  drop_bad_ipv4_header,
  drop_bad_ipv4_checksum,
  drop_bad_ipv6_header,
  drop_bad_icmp_checksum,
  drop_too_many_extension_headers,
  drop_chained_buffer,
  drop_foreign_mac,
  // One for each fragment that is refused, and for each datagram that is given up.
  drop_fragment_tiny,       // transport header cut in two, or no payload
  drop_fragment_malformed,  // contradicts itself or its datagram
  drop_fragment_duplicate,
  drop_fragment_overlap,
  drop_fragment_too_big,  // the datagram would be too long for IP
  drop_fragment_too_many,
  drop_fragment_timeout,  // and nobody could be told
  drop_fragment_table_full,
  drop_ttl_expired_unanswered,
  drop_no_server_unanswered,
  drop_no_connection_unanswered,
  drop_server_removed,
  drop_table_full,
  drop_reply_ambiguous,
  drop_no_local_port,
  drop_local_other_port,  // the director's own real server has another port than the service
  drop_stray_syn_ack,
  drop_martian_source,  // would open a connection, from an address that no client has
  drop_no_route,
  drop_too_big,
  drop_no_headroom,
  drop_untranslatable,  // to the other address family
  drop_neighbour_queue_full,
  drop_neighbour_unreachable,
  drop_owner_ring_full,
  drop_transmit_ring_full,
  drop_transmit_full,
  drop_no_buffer,  // for the pieces of a packet
  drop_exception_ring_full,
  drop_link_ring_full,  // ARP, ND, routing protocols
  drop_stray_budget,    // of no connection, beyond what the kernel may be asked to answer
  count_
};

inline constexpr std::size_t kOutcomes = static_cast<std::size_t>(Outcome::count_);

// Stable names: `weirctl show counters`, metrics and tests use them.
inline constexpr std::array kOutcomeNames = {
    std::string_view("undecided"),
    std::string_view("fragment"),
    std::string_view("nat_to_server"),
    std::string_view("nat_to_client"),
    std::string_view("dr_to_server"),
    std::string_view("tun_to_server"),
    std::string_view("fullnat_to_server"),
    std::string_view("fullnat_to_client"),
    std::string_view("reset_sent"),
    std::string_view("probe_sent"),
    std::string_view("icmp_error_sent"),
    std::string_view("kernel_not_ip"),
    std::string_view("kernel_multicast"),
    std::string_view("kernel_foreign_vlan"),
    std::string_view("kernel_not_a_service"),
    std::string_view("kernel_no_connection"),
    std::string_view("kernel_reply_unmatched"),
    std::string_view("kernel_local"),
    std::string_view("kernel_cache_bypass"),
    std::string_view("kernel_icmp"),
    std::string_view("kernel_icmp_short_quote"),
    std::string_view("handed_to_owner"),
    std::string_view("handed_to_chooser"),
    std::string_view("waiting_for_neighbour"),
    std::string_view("fragment_kept"),
    std::string_view("drop_truncated"),
    std::string_view("drop_bad_length"),
    std::string_view("drop_bad_ipv4_header"),
    std::string_view("drop_bad_ipv4_checksum"),
    std::string_view("drop_bad_ipv6_header"),
    std::string_view("drop_bad_icmp_checksum"),
    std::string_view("drop_too_many_extension_headers"),
    std::string_view("drop_chained_buffer"),
    std::string_view("drop_foreign_mac"),
    std::string_view("drop_fragment_tiny"),
    std::string_view("drop_fragment_malformed"),
    std::string_view("drop_fragment_duplicate"),
    std::string_view("drop_fragment_overlap"),
    std::string_view("drop_fragment_too_big"),
    std::string_view("drop_fragment_too_many"),
    std::string_view("drop_fragment_timeout"),
    std::string_view("drop_fragment_table_full"),
    std::string_view("drop_ttl_expired_unanswered"),
    std::string_view("drop_no_server_unanswered"),
    std::string_view("drop_no_connection_unanswered"),
    std::string_view("drop_server_removed"),
    std::string_view("drop_table_full"),
    std::string_view("drop_reply_ambiguous"),
    std::string_view("drop_no_local_port"),
    std::string_view("drop_local_other_port"),
    std::string_view("drop_stray_syn_ack"),
    std::string_view("drop_martian_source"),
    std::string_view("drop_no_route"),
    std::string_view("drop_too_big"),
    std::string_view("drop_no_headroom"),
    std::string_view("drop_untranslatable"),
    std::string_view("drop_neighbour_queue_full"),
    std::string_view("drop_neighbour_unreachable"),
    std::string_view("drop_owner_ring_full"),
    std::string_view("drop_transmit_ring_full"),
    std::string_view("drop_transmit_full"),
    std::string_view("drop_no_buffer"),
    std::string_view("drop_exception_ring_full"),
    std::string_view("drop_link_ring_full"),
    std::string_view("drop_stray_budget"),
};
static_assert(kOutcomeNames.size() == kOutcomes, "every outcome has a name");

constexpr std::string_view name_of(Outcome outcome) noexcept {
  return kOutcomeNames[static_cast<std::size_t>(outcome)];
}

}  // namespace weir
