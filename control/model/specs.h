// SPDX-License-Identifier: Apache-2.0
// What a user can ask of weir, as plain values: services, real servers, addresses that fullnat
// sends from, rules for marks, time-outs. Their rules are in rules.h. Any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/table/mark_rules.h"
#include "dataplane/table/service.h"

namespace weir {

inline constexpr std::uint32_t kEachClientAlone = 0xffffffff;

struct ServiceSpec {
  ServiceKey key;
  std::string scheduler = "wlc";
  std::vector<std::string> scheduler_flags;  // ipvsadm -b
  std::uint32_t persistence_timeout = 0;     // seconds, 0: not persistent
  // Which clients count as one. IPv4: a mask in host order, any bits, as in IPVS; IPv6: a length.
  std::uint32_t persistence_mask = kEachClientAlone;
  std::string persistence_engine;  // ipvsadm --pe
  bool one_packet = false;
  friend bool operator==(const ServiceSpec&, const ServiceSpec&) = default;
};

struct ServerSpec {
  IpAddress address;
  std::uint16_t port = 0;  // host order; dr and tun always use the service's
  ForwardMode mode = ForwardMode::dr;
  std::int32_t weight = 1;
  std::uint32_t upper_threshold = 0;
  std::uint32_t lower_threshold = 0;
  TunnelType tunnel = TunnelType::ipip;
  std::uint16_t tunnel_port = 0;
  TunnelChecksum tunnel_checksum = TunnelChecksum::none;
  friend bool operator==(const ServerSpec&, const ServerSpec&) = default;
};

// What a service has beyond IPVS, by name: client-address, gone-server, idle-timeout, table-size,
// slow-start. They go with the service, and an edit by ipvsadm leaves them as they are.
struct ServiceOption {
  std::string name;
  std::string value;
};

// Addresses of one family that fullnat sends from, both included.
struct AddressRange {
  IpAddress first;
  IpAddress last;
  friend auto operator<=>(const AddressRange&, const AddressRange&) = default;
};

// A rule, and weir's port that it is for, as the command line names it or by its number; empty:
// all.
struct MarkRuleSpec {
  MarkRule rule;  // `on_port` is the table's own
  std::string on;
  friend bool operator==(const MarkRuleSpec&, const MarkRuleSpec&) = default;
};

struct IpvsTimeouts {
  std::uint32_t tcp = 900;
  std::uint32_t tcp_fin = 120;
  std::uint32_t udp = 300;
  friend bool operator==(const IpvsTimeouts&, const IpvsTimeouts&) = default;
};

// One connection synchronisation daemon, as `ipvsadm --start-daemon` describes it.
struct SyncDaemonSpec {
  enum class Role : std::uint8_t { master, backup };
  Role role = Role::master;
  std::string interface = "eth0";
  std::uint32_t sync_id = 0;
  std::uint32_t max_length = 0;  // bytes of a message; 0, here and below: the default
  std::optional<IpAddress> group;
  std::uint16_t port = 0;
  std::uint8_t ttl = 0;
};

}  // namespace weir
