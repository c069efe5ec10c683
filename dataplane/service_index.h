// SPDX-License-Identifier: Apache-2.0
// Which packets are weir's: the destinations that are services and the sources that are real
// servers whose replies pass. Immutable once built; replaced whole when a service or a real server
// comes or goes, not when a weight changes.
//
// Per address family open addressing at a load factor <= 0.5, 16 bytes an entry for IPv4, 32 for
// IPv6. Cost: one cache line per look-up.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/flow_key.h"
#include "dataplane/service.h"

namespace weir {

class ServiceIndex {
 public:
  // Built by control for up to `entries` additions.
  explicit ServiceIndex(std::size_t entries);
  void add_service(const IpAddress& address, Be16 port, Protocol protocol, ServiceSlot slot);
  void add_reply_source(const IpAddress& address, Be16 port, Protocol protocol);

  // The service that a packet is for, kNoService if there is none. Any thread.
  static constexpr ServiceSlot kNoService = 0xffffffffU;
  template <class Address>
  ServiceSlot find_service(const FlowKey<Address>& key) const noexcept {
    const auto* entry = find(key.destination, key.destination_port, key.protocol, Role::service);
    return entry == nullptr ? kNoService : entry->slot;
  }
  // Whether a packet comes from a real server whose replies pass. Any thread.
  template <class Address>
  bool is_reply(const FlowKey<Address>& key) const noexcept {
    return find(key.source, key.source_port, key.protocol, Role::reply_source) != nullptr;
  }
  // Whether a packet whose ports are not known, a fragment, is between addresses of either kind.
  template <class Address>
  bool concerns(const FlowKey<Address>& key) const noexcept {
    return find(key.destination, Be16{}, kAnyPort, Role::service) != nullptr ||
           find(key.source, Be16{}, kAnyPort, Role::reply_source) != nullptr;
  }

 private:
  enum class Role : std::uint8_t { none, service, reply_source };

  // Marks the entry of an address, beside those of its ports. No packet has this protocol: it means
  // hop-by-hop options.
  static constexpr Protocol kAnyPort = Protocol::ip;

  template <class Address>
  struct alignas(sizeof(Address) == 4 ? 16 : 32) Entry {
    Address address;
    Be16 port;
    Protocol protocol = Protocol::ip;
    Role role = Role::none;
    ServiceSlot slot = 0;
  };

  template <class Address>
  const std::vector<Entry<Address>>& entries() const noexcept {
    if constexpr (sizeof(Address) == 4) {
      return ipv4_;
    } else {
      return ipv6_;
    }
  }

  template <class Address>
  static std::uint64_t hash(const Address& address, Be16 port, Protocol protocol,
                            Role role) noexcept;
  template <class Address>
  const Entry<Address>* find(const Address& address, Be16 port, Protocol protocol,
                             Role role) const noexcept;
  template <class Address>
  void add(std::vector<Entry<Address>>& entries, const Entry<Address>& wanted);
  void add(const IpAddress& address, Be16 port, Protocol protocol, Role role, ServiceSlot slot);

  std::vector<Entry<Ipv4Address>> ipv4_;
  std::vector<Entry<Ipv6Address>> ipv6_;
  std::uint64_t mask_;
};

template <class Address>
std::uint64_t ServiceIndex::hash(const Address& address, Be16 port, Protocol protocol,
                                 Role role) noexcept {
  constexpr std::uint64_t kFirst = 0x9e3779b97f4a7c15ULL;
  constexpr std::uint64_t kSecond = 0xd1b54a32d192ed03ULL;
  const std::uint64_t rest = std::uint64_t{port.raw()} << 32 |
                             std::uint64_t{static_cast<std::uint8_t>(protocol)} << 48 |
                             std::uint64_t{static_cast<std::uint8_t>(role)} << 56;
  if constexpr (sizeof(Address) == 4) {
    return multiply_mix(address.value.raw() ^ rest ^ kFirst, kSecond);
  } else {
    return multiply_mix(load<std::uint64_t>(address.bytes.data()) ^ kFirst,
                        load<std::uint64_t>(address.bytes.data() + 8) ^ rest ^ kSecond);
  }
}

template <class Address>
auto ServiceIndex::find(const Address& address, Be16 port, Protocol protocol,
                        Role role) const noexcept -> const Entry<Address>* {
  const Entry<Address>* const all = entries<Address>().data();
  for (std::uint64_t at = hash(address, port, protocol, role);; ++at) {
    const Entry<Address>& entry = all[at & mask_];
    if (entry.role == Role::none) return nullptr;
    if (entry.address == address && entry.port == port && entry.role == role &&
        entry.protocol == protocol) {
      return &entry;
    }
  }
}

}  // namespace weir
