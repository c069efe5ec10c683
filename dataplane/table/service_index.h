// SPDX-License-Identifier: Apache-2.0
// Which packets are weir's: the destinations and marks that are services and the sources that are
// real servers whose replies pass. Immutable once built; replaced whole when a service or a real
// server comes or goes, not when a weight changes.
//
// Per address family open addressing at a load factor <= 0.5, 16 bytes an entry for IPv4, 32 for
// IPv6. Cost: one cache line per look-up, and one look-up where there is neither FTP nor a service
// for all ports.
// Source: ip_vs_service_find (ip_vs_ctl.c).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "dataplane/table/flow_key.h"
#include "dataplane/table/local_addresses.h"
#include "dataplane/table/service.h"

namespace weir {

class ServiceIndex {
 public:
  // Where a real server sends its replies: nat's to the client, fullnat's to a local address.
  enum class ReplyTo : std::uint8_t { client = 1, local_address = 2 };

  // Built by control for up to `entries` additions. Port 0: all ports.
  explicit ServiceIndex(std::size_t entries);
  void add_service(const IpAddress& address, Be16 port, Protocol protocol, ServiceSlot slot);
  void add_fwmark_service(std::uint32_t mark, Family family, ServiceSlot slot);
  void add_reply_source(const IpAddress& address, Be16 port, Protocol protocol,
                        ReplyTo to = ReplyTo::client);
  // A reply source that answers without connections.
  void add_one_packet_server(const IpAddress& address, Be16 port, ServerSlot slot);
  void add_local_address(const IpAddress& address);

  // The service that a packet is for, kNoService if there is none: that of its mark, its
  // destination's, FTP's for data connections, that for all ports. Any thread.
  static constexpr ServiceSlot kNoService = 0xffffffffU;
  template <class Address>
  ServiceSlot find_service(const FlowKey<Address>& key, std::uint32_t mark = 0) const noexcept {
    if (mark != 0) [[unlikely]]
      return find_marked(key, mark);
    const auto* entry = find(key.destination, key.destination_port, key.protocol, Role::service);
    if (entry != nullptr) return entry->slot;
    return loose_services_ ? find_loosely(key) : kNoService;
  }
  // Whether a packet comes from a real server whose replies pass, and goes where such go. Any
  // thread.
  template <class Address>
  bool is_reply(const FlowKey<Address>& key) const noexcept {
    const auto* entry = find(key.source, key.source_port, key.protocol, Role::reply_source);
    if (entry != nullptr && passes(*entry, key)) return true;
    return replies_of_all_ports_ && is_reply_of_all_ports(key);
  }
  // The real server of a one-packet service that a packet comes from, kNoServer if there is none or
  // several could be meant. Any thread.
  template <class Address>
  ServerSlot one_packet_server(const FlowKey<Address>& key) const noexcept {
    if (!one_packet_servers_ || key.protocol != Protocol::udp) return kNoServer;
    const auto* entry = find(key.source, key.source_port, key.protocol, Role::reply_source);
    const auto* other = find(key.source, Be16{}, key.protocol, Role::reply_source);
    const ServerSlot of_port = entry == nullptr ? kNoServer : entry->slot;
    const ServerSlot of_all_ports = other == nullptr ? kNoServer : other->slot;
    const ServerSlot server = the_one_of(of_port, of_all_ports);
    return server == kSeveralServers ? kNoServer : server;
  }
  template <class Address>
  bool is_service_address(const Address& address) const noexcept {
    return find(address, Be16{}, kAnyPort, Role::service) != nullptr;
  }
  // Whether a packet whose ports are not known, a fragment, is between addresses of either kind.
  template <class Address>
  bool concerns(const FlowKey<Address>& key) const noexcept {
    if (find(key.destination, Be16{}, kAnyPort, Role::service) != nullptr) return true;
    const auto* entry = find(key.source, Be16{}, kAnyPort, Role::reply_source);
    if (entry == nullptr) return false;
    return has(*entry, ReplyTo::client) || is_local(key.destination);
  }

 private:
  enum class Role : std::uint8_t { none, service, fwmark, reply_source, local_address };

  // Marks the entry of an address, beside those of its ports. No packet has this protocol: it means
  // hop-by-hop options.
  static constexpr Protocol kAnyPort = Protocol::ip;

  template <class Address>
  struct alignas(sizeof(Address) == 4 ? 16 : 32) Entry {
    Address address;
    Be16 port;
    Protocol protocol = Protocol::ip;
    Role role = Role::none;
    std::uint32_t slot = 0;    // ServiceSlot; of a reply source: ServerSlot
    std::uint8_t replies = 0;  // ReplyTo, as bits
  };
  static_assert(sizeof(Entry<Ipv4Address>) == 16 && sizeof(Entry<Ipv6Address>) == 32);

  template <class Address>
  const std::vector<Entry<Address>>& entries() const noexcept {
    if constexpr (sizeof(Address) == 4) {
      return ipv4_;
    } else {
      return ipv6_;
    }
  }

  template <class Address>
  static bool has(const Entry<Address>& entry, ReplyTo to) noexcept {
    return (entry.replies & static_cast<std::uint8_t>(to)) != 0;
  }
  template <class Address>
  bool is_local(const Address& address) const noexcept {
    return find(address, Be16{}, kAnyPort, Role::local_address) != nullptr;
  }
  template <class Address>
  bool passes(const Entry<Address>& source, const FlowKey<Address>& key) const noexcept {
    if (has(source, ReplyTo::client)) return true;
    const std::uint16_t port = key.destination_port.host();
    return port >= kFirstLocalPort && port <= kLastLocalPort && is_local(key.destination);
  }
  template <class Address>
  ServiceSlot find_marked(const FlowKey<Address>& key, std::uint32_t mark) const noexcept;
  template <class Address>
  ServiceSlot find_loosely(const FlowKey<Address>& key) const noexcept;
  template <class Address>
  bool is_reply_of_all_ports(const FlowKey<Address>& key) const noexcept;

  static constexpr ServerSlot kSeveralServers = 0xfffffffeU;
  static ServerSlot the_one_of(ServerSlot a, ServerSlot b) noexcept {
    if (a == kNoServer || a == b) return b;
    return b == kNoServer ? a : kSeveralServers;
  }

  // What follows the address in an entry, in the upper half of a word.
  static constexpr std::uint64_t tail_of(Be16 port, Protocol protocol, Role role) noexcept {
    return std::uint64_t{port.raw()} << 32 |
           std::uint64_t{static_cast<std::uint8_t>(protocol)} << 48 |
           std::uint64_t{static_cast<std::uint8_t>(role)} << 56;
  }
  static std::uint64_t hash(const Ipv4Address& address, std::uint64_t tail) noexcept;
  static std::uint64_t hash(const Ipv6Address& address, std::uint64_t tail) noexcept;
  static bool equal(const Entry<Ipv4Address>& entry, const Ipv4Address& address,
                    std::uint64_t tail) noexcept;
  static bool equal(const Entry<Ipv6Address>& entry, const Ipv6Address& address,
                    std::uint64_t tail) noexcept;
  template <class Address>
  const Entry<Address>* find(const Address& address, Be16 port, Protocol protocol,
                             Role role) const noexcept;
  template <class Address>
  void add(std::vector<Entry<Address>>& entries, const Entry<Address>& wanted);
  void add(const IpAddress& address, Be16 port, Protocol protocol, Role role, ServiceSlot slot,
           std::uint8_t replies = 0);

  std::vector<Entry<Ipv4Address>> ipv4_;
  std::vector<Entry<Ipv6Address>> ipv6_;
  std::uint64_t mask_;
  // Whether there are services that take more than one port, and reply sources with all of theirs.
  bool loose_services_ = false;
  bool replies_of_all_ports_ = false;
  bool one_packet_servers_ = false;
};

inline std::uint64_t ServiceIndex::hash(const Ipv4Address& address, std::uint64_t tail) noexcept {
  return (address.value.raw() | tail) * 0x9e3779b97f4a7c15ULL >> 32U;
}

inline std::uint64_t ServiceIndex::hash(const Ipv6Address& address, std::uint64_t tail) noexcept {
  return multiply_mix(load<std::uint64_t>(&address.bytes[0]) ^ 0x9e3779b97f4a7c15ULL,
                      load<std::uint64_t>(&address.bytes[8]) ^ tail ^ 0xd1b54a32d192ed03ULL);
}

inline bool ServiceIndex::equal(const Entry<Ipv4Address>& entry, const Ipv4Address& address,
                                std::uint64_t tail) noexcept {
  // All that names an entry is one word.
  return load<std::uint64_t>(&entry.address) == (address.value.raw() | tail);
}

inline bool ServiceIndex::equal(const Entry<Ipv6Address>& entry, const Ipv6Address& address,
                                std::uint64_t tail) noexcept {
  return load<std::uint32_t>(&entry.port) == tail >> 32 && entry.address == address;
}

template <class Address>
[[gnu::always_inline]] inline auto ServiceIndex::find(const Address& address, Be16 port,
                                                      Protocol protocol, Role role) const noexcept
    -> const Entry<Address>* {
  const Entry<Address>* const all = entries<Address>().data();
  const std::uint64_t tail = tail_of(port, protocol, role);
  for (std::uint64_t at = hash(address, tail);; ++at) {
    const Entry<Address>& entry = all[at & mask_];
    if (equal(entry, address, tail)) return &entry;
    if (entry.role == Role::none) return nullptr;
  }
}

}  // namespace weir
