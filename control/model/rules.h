// SPDX-License-Identifier: Apache-2.0
// What services and real servers can be, each by itself; what must fit together is
// director_config.h's. Errors are those of IPVS (net/netfilter/ipvs/ip_vs_ctl.c) as absl codes:
//   NotFound (ENOENT: no such scheduler or persistence engine), InvalidArgument (EINVAL),
//   OutOfRange (ERANGE: thresholds, weight), Unimplemented (what weir does not do yet; the message
//   says what).
// Pure functions: any thread.
#pragma once

#include <cstdint>

#include <absl/status/status.h>

#include "control/model/specs.h"

namespace weir {

// Of persistence, as ipvsadm has it, and of the states of a connection: ticks of the workers' clock
// wrap after 388 days.
inline constexpr std::uint32_t kLongestTimeout = 31U * 24 * 60 * 60;  // seconds

absl::Status check_service(const ServiceSpec& spec);
absl::Status check_server(const ServiceKey& key, const ServerSpec& spec);
absl::Status check_timeouts(const IpvsTimeouts& timeouts);

// dr and tun leave the packet's port as it is.
inline bool keeps_port(ForwardMode mode) {
  return mode == ForwardMode::dr || mode == ForwardMode::tun;
}
// The real server as it serves `key`.
ServerSpec with_port(const ServiceKey& key, ServerSpec spec);

}  // namespace weir
