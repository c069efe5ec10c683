// SPDX-License-Identifier: Apache-2.0
// Services and real servers for BurstLab, as short as a test wants to write them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "control/model/service_table.h"

namespace weir::test {

inline void must(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

inline IpAddress address_of(const std::string& text) {
  const auto address = IpAddress::parse(text);
  if (!address) throw std::runtime_error(text + " is no address");
  return *address;
}

inline ServiceKey service_key(Protocol protocol, const std::string& vip, std::uint16_t port) {
  return {.protocol = protocol, .address = address_of(vip), .port = port, .fwmark = 0};
}

inline void add_service(ServiceTable& table, const ServiceKey& key,
                        const std::string& scheduler = "rr") {
  ServiceSpec spec;
  spec.key = key;
  spec.scheduler = scheduler;
  must(table.add_service(spec));
}

inline ServerSpec server_spec(const std::string& address, std::uint16_t port, ForwardMode mode,
                              std::int32_t weight = 1) {
  ServerSpec spec;
  spec.address = address_of(address);
  spec.port = port;
  spec.mode = mode;
  spec.weight = weight;
  return spec;
}

}  // namespace weir::test
