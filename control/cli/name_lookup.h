// SPDX-License-Identifier: Apache-2.0
// Names of hosts and ports, as ipvsadm reads and prints them. Blocking: for the client only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "dataplane/net/addresses.h"

namespace weir {

class NameLookup {
 public:
  virtual ~NameLookup() = default;
  virtual std::optional<Ipv4Address> host_address(const std::string& name) = 0;
  virtual std::optional<std::string> host_name(const IpAddress& address) = 0;
  // Port and result in host order.
  virtual std::optional<std::uint16_t> port_number(const std::string& name, Protocol protocol) = 0;
  virtual std::optional<std::string> port_name(std::uint16_t port, Protocol protocol) = 0;
};

// The system's resolver and /etc/services. Answers are kept, since a listing repeats them.
class SystemNameLookup final : public NameLookup {
 public:
  std::optional<Ipv4Address> host_address(const std::string& name) override;
  std::optional<std::string> host_name(const IpAddress& address) override;
  std::optional<std::uint16_t> port_number(const std::string& name, Protocol protocol) override;
  std::optional<std::string> port_name(std::uint16_t port, Protocol protocol) override;

 private:
  std::map<IpAddress, std::optional<std::string>> host_names_;
  std::map<std::pair<std::uint16_t, Protocol>, std::optional<std::string>> port_names_;
};

}  // namespace weir
