// SPDX-License-Identifier: Apache-2.0
#include "control/cli/name_lookup.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <memory>

namespace weir {
namespace {

// The protocol's name in /etc/services; a fwmark service has none, so its ports have no names.
const char* protocol_name(Protocol protocol) {
  switch (protocol) {
    case Protocol::tcp:
      return "tcp";
    case Protocol::udp:
      return "udp";
    case Protocol::sctp:
      return "sctp";
    default:
      return nullptr;
  }
}

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

SocketAddress socket_address(const IpAddress& address) {
  SocketAddress result;
  if (address.is_ipv4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_addr.s_addr = address.ipv4().value.raw();
    std::memcpy(&result.storage, &in, sizeof in);
    result.length = sizeof in;
  } else {
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    std::memcpy(&in6.sin6_addr, address.bytes().data(), address.bytes().size());
    std::memcpy(&result.storage, &in6, sizeof in6);
    result.length = sizeof in6;
  }
  return result;
}

}  // namespace

std::optional<Ipv4Address> SystemNameLookup::host_address(const std::string& name) {
  addrinfo hints{};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* raw = nullptr;
  if (getaddrinfo(name.c_str(), nullptr, &hints, &raw) != 0) return std::nullopt;
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> list(raw, freeaddrinfo);
  const auto in = load<sockaddr_in>(list->ai_addr);
  return Ipv4Address{Be32::from_raw(in.sin_addr.s_addr)};
}

std::optional<std::string> SystemNameLookup::host_name(const IpAddress& address) {
  const auto [at, is_new] = host_names_.try_emplace(address);
  if (is_new) {
    const SocketAddress socket = socket_address(address);
    std::array<char, NI_MAXHOST> text{};
    const auto* generic = reinterpret_cast<const sockaddr*>(&socket.storage);
    if (getnameinfo(generic, socket.length, text.data(), text.size(), nullptr, 0, NI_NAMEREQD) == 0)
      at->second = text.data();
  }
  return at->second;
}

std::optional<std::uint16_t> SystemNameLookup::port_number(const std::string& name,
                                                           Protocol protocol) {
  const char* protocol_text = protocol_name(protocol);
  if (protocol_text == nullptr) return std::nullopt;
  const servent* entry = getservbyname(name.c_str(), protocol_text);
  if (entry == nullptr) return std::nullopt;
  return ntohs(static_cast<std::uint16_t>(entry->s_port));
}

std::optional<std::string> SystemNameLookup::port_name(std::uint16_t port, Protocol protocol) {
  const char* protocol_text = protocol_name(protocol);
  if (protocol_text == nullptr) return std::nullopt;
  const auto [at, is_new] = port_names_.try_emplace({port, protocol});
  if (is_new) {
    const servent* entry = getservbyport(htons(port), protocol_text);
    if (entry != nullptr) at->second = entry->s_name;
  }
  return at->second;
}

}  // namespace weir
