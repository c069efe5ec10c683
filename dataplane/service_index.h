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
  static_assert(sizeof(Entry<Ipv4Address>) == 16 && sizeof(Entry<Ipv6Address>) == 32);

  template <class Address>
  const std::vector<Entry<Address>>& entries() const noexcept {
    if constexpr (sizeof(Address) == 4) {
      return ipv4_;
    } else {
      return ipv6_;
    }
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
  void add(const IpAddress& address, Be16 port, Protocol protocol, Role role, ServiceSlot slot);

  std::vector<Entry<Ipv4Address>> ipv4_;
  std::vector<Entry<Ipv6Address>> ipv6_;
  std::uint64_t mask_;
};

inline std::uint64_t ServiceIndex::hash(const Ipv4Address& address, std::uint64_t tail) noexcept {
  return multiply_mix(address.value.raw() ^ tail ^ 0x9e3779b97f4a7c15ULL, 0xd1b54a32d192ed03ULL);
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
auto ServiceIndex::find(const Address& address, Be16 port, Protocol protocol,
                        Role role) const noexcept -> const Entry<Address>* {
  const Entry<Address>* const all = entries<Address>().data();
  const std::uint64_t tail = tail_of(port, protocol, role);
  for (std::uint64_t at = hash(address, tail);; ++at) {
    const Entry<Address>& entry = all[at & mask_];
    if (equal(entry, address, tail)) return &entry;
    if (entry.role == Role::none) return nullptr;
  }
}

}  // namespace weir
