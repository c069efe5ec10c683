// SPDX-License-Identifier: Apache-2.0
// The /etc/hosts and /etc/services that the ipvsadm recordings were made with.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "control/cli/name_lookup.h"

namespace weir {

class FakeNameLookup final : public NameLookup {
 public:
  std::optional<Ipv4Address> host_address(const std::string& name) override {
    for (const auto& [address, host] : kHosts)
      if (name == host) return IpAddress::parse(address)->ipv4();
    return std::nullopt;
  }
  std::optional<std::string> host_name(const IpAddress& address) override {
    for (const auto& [text, host] : kHosts)
      if (IpAddress::parse(text) == address) return std::string(host);
    return std::nullopt;
  }
  std::optional<std::uint16_t> port_number(const std::string& name, Protocol protocol) override {
    for (const Port& port : kPorts)
      if (port.name == name && port.protocol == protocol) return port.number;
    return std::nullopt;
  }
  std::optional<std::string> port_name(std::uint16_t number, Protocol protocol) override {
    for (const Port& port : kPorts)
      if (port.number == number && port.protocol == protocol) return std::string(port.name);
    return std::nullopt;
  }

 private:
  struct Host {
    std::string_view address;
    std::string_view name;
  };
  struct Port {
    std::uint16_t number;
    Protocol protocol;
    std::string_view name;
  };
  static constexpr std::array kHosts = {
      Host{"127.0.0.1", "localhost"},
      Host{"10.1.0.1", "client.example"},
      Host{"10.9.0.1", "vip1.example"},
      Host{"10.2.0.1", "rs1.example"},
      Host{"10.2.0.2", "real-server-with-a-very-long-name.example.org"},
      Host{"2001:db8:5::1", "ipv6-server-with-a-very-long-name.example.org"},
  };
  static constexpr std::array kPorts = {
      Port{80, Protocol::tcp, "http"},     Port{443, Protocol::tcp, "https"},
      Port{443, Protocol::udp, "https"},   Port{8080, Protocol::tcp, "http-alt"},
      Port{8081, Protocol::tcp, "tproxy"}, Port{53, Protocol::tcp, "domain"},
      Port{53, Protocol::udp, "domain"},   Port{69, Protocol::udp, "tftp"},
      Port{5060, Protocol::tcp, "sip"},    Port{5060, Protocol::udp, "sip"},
      Port{5353, Protocol::udp, "mdns"},
  };
};

}  // namespace weir
