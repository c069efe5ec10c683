// SPDX-License-Identifier: Apache-2.0
#include "control/model/rules.h"

#include <algorithm>
#include <string_view>

#include <absl/strings/str_cat.h>

#include "schedulers/scheduler.h"

namespace weir {
namespace {

absl::Status not_yet(std::string_view what) {
  return absl::UnimplementedError(
      absl::StrCat("weir does not do ", absl::string_view(what.data(), what.size()), " yet"));
}

// What only ip_vs_ctl.c and ipvsadm together refuse.
absl::Status check_persistence(const ServiceSpec& spec) {
  if (spec.persistence_engine == "sip") return not_yet("persistence engines (--pe sip)");
  if (!spec.persistence_engine.empty()) {
    return absl::NotFoundError(
        absl::StrCat("there is no persistence engine ", spec.persistence_engine));
  }
  if (spec.persistence_timeout > kLongestTimeout) {
    return absl::InvalidArgumentError("a service is persistent for at most 31 days");
  }
  if (spec.persistence_timeout == 0 && spec.key.fwmark == 0 && spec.key.port == 0) {
    return absl::InvalidArgumentError("only a persistent service is for all ports");
  }
  const bool has_length = !spec.key.address.is_ipv4() && spec.persistence_mask != kEachClientAlone;
  if (has_length && (spec.persistence_mask < 1 || spec.persistence_mask > 128)) {
    return absl::InvalidArgumentError("the mask of an IPv6 service is a length from 1 to 128");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status check_service(const ServiceSpec& spec) {
  const auto names = scheduler_names();
  if (std::find(names.begin(), names.end(), spec.scheduler) == names.end()) {
    return absl::NotFoundError(absl::StrCat("there is no scheduler ", spec.scheduler));
  }
  const SchedulerOptions options{.name = spec.scheduler, .flags = spec.scheduler_flags};
  if (const auto problem = check_options(options)) return absl::InvalidArgumentError(*problem);
  if (auto status = check_persistence(spec); !status.ok()) return status;
  if (spec.one_packet && spec.key.fwmark == 0 && spec.key.protocol != Protocol::udp) {
    return absl::InvalidArgumentError("only datagrams of UDP are scheduled one by one");
  }
  return absl::OkStatus();
}

namespace {

// What only ip_vs_add_dest and ipvsadm together refuse.
absl::Status check_tunnel(const ServerSpec& spec) {
  if (spec.mode != ForwardMode::tun && spec.tunnel != TunnelType::ipip) {
    return absl::InvalidArgumentError("only a real server of mode tun has a tunnel type");
  }
  if (spec.tunnel == TunnelType::gue && spec.tunnel_port == 0) {
    return absl::InvalidArgumentError("a GUE tunnel needs a port");
  }
  if (spec.tunnel == TunnelType::gre && spec.tunnel_checksum == TunnelChecksum::remote) {
    return absl::InvalidArgumentError("only GUE has a remote checksum");
  }
  if (spec.tunnel == TunnelType::ipip && spec.tunnel_checksum != TunnelChecksum::none) {
    return absl::InvalidArgumentError("an IPIP tunnel has no checksum");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status check_server(const ServiceKey& key, const ServerSpec& spec) {
  if (!spec.address.is_unicast()) {
    return absl::InvalidArgumentError("a real server needs a unicast address");
  }
  if (spec.weight < 0) return absl::OutOfRangeError("a weight is not negative");
  if (spec.lower_threshold > spec.upper_threshold) {
    return absl::OutOfRangeError("the lower threshold is above the upper one");
  }
  const bool crosses = spec.mode == ForwardMode::tun || spec.mode == ForwardMode::fullnat;
  if (spec.address.family() != key.address.family() && !crosses) {
    return absl::InvalidArgumentError(
        "only tunnels and fullnat lead to a real server of another address family");
  }
  if (spec.mode == ForwardMode::local) {
    return absl::InvalidArgumentError(
        "a real server is local by its address: give it any other mode");
  }
  return check_tunnel(spec);
}

absl::Status check_timeouts(const IpvsTimeouts& timeouts) {
  for (const std::uint32_t seconds : {timeouts.tcp, timeouts.tcp_fin, timeouts.udp}) {
    if (seconds <= kLongestTimeout) continue;
    return absl::InvalidArgumentError(absl::StrCat("a time-out is at most ", kLongestTimeout,
                                                   " seconds (31 days), not ", seconds));
  }
  return absl::OkStatus();
}

ServerSpec with_port(const ServiceKey& key, ServerSpec spec) {
  if (keeps_port(spec.mode) && key.fwmark == 0) spec.port = key.port;
  return spec;
}

}  // namespace weir
