// SPDX-License-Identifier: Apache-2.0
// Which packets are weir's: the destinations and marks that are services and the sources that are
// real servers whose replies pass. Immutable; a version shares with the one before all segments in
// which no service and no real server has come or gone.
//
//   hash: | segment | ... |  place in it |      per address family 1,024 segments, each a hash
//   table
//                                               with open addressing at a load factor <= 0.5,
//                                               16 bytes an entry for IPv4, 32 for IPv6
// Cost: a word of the segments and a line of the entries per look-up, and one look-up where there
// is neither FTP nor a service for all ports.
// Source: ip_vs_service_find (ip_vs_ctl.c).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "dataplane/table/flow_key.h"
#include "dataplane/table/local_addresses.h"
#include "dataplane/table/service.h"

namespace weir {

class ServiceIndex {
 public:
  // Where a real server sends its replies: nat's to the client, fullnat's to a local address.
  enum class ReplyTo : std::uint8_t { client = 1, local_address = 2 };

  enum class Role : std::uint8_t { none, service, fwmark, reply_source, local_address };
  // Marks the entry of an address, beside those of its ports. No packet has this protocol: it means
  // hop-by-hop options.
  static constexpr Protocol kAnyPort = Protocol::ip;
  static constexpr std::size_t kSegments = 1024;

  // What an entry is found by. A mark is an address here (address_of_mark); port 0: all ports.
  struct Key {
    IpAddress address;
    Be16 port;
    Protocol protocol = kAnyPort;
    Role role = Role::none;
    friend bool operator==(const Key&, const Key&) noexcept = default;
  };
  struct Item {
    Key key;
    std::uint32_t slot = 0;    // ServiceSlot; of a reply source: ServerSlot
    std::uint8_t replies = 0;  // ReplyTo, as bits
  };
  // Of all items together: whether there are services that take more than one port, reply sources
  // with all of their ports, and real servers that answer without connections.
  struct Extras {
    bool loose_services = false;
    bool replies_of_all_ports = false;
    bool one_packet_servers = false;
    friend bool operator==(const Extras&, const Extras&) noexcept = default;
  };
  // Of real servers that share a port, which one answers a datagram cannot be told.
  static constexpr ServerSlot kSeveralServers = 0xfffffffeU;

  // ---- Control thread (control/live/claims.h) ----

  ServiceIndex() noexcept;
  static std::size_t segment_of(const Key& key) noexcept;
  // Makes `items`, which are all those of one segment and family, its content. The memory belongs
  // to the caller, as long as any version that has it.
  std::shared_ptr<const void> set_segment(Family family, std::size_t segment,
                                          std::span<const Item> items);
  void set_extras(const Extras& extras) noexcept { extras_ = extras; }

  // ---- Any thread ----

  // The service that a packet is for, kNoService if there is none: that of its mark, its
  // destination's, FTP's for data connections, that for all ports.
  static constexpr ServiceSlot kNoService = 0xffffffffU;
  template <class Address>
  ServiceSlot find_service(const FlowKey<Address>& key, std::uint32_t mark = 0) const noexcept {
    if (mark != 0) [[unlikely]]
      return find_marked(key, mark);
    const auto* entry = find(key.destination, key.destination_port, key.protocol, Role::service);
    if (entry != nullptr) return entry->slot;
    return extras_.loose_services ? find_loosely(key) : kNoService;
  }
  // Whether a packet comes from a real server whose replies pass, and goes where such go.
  template <class Address>
  bool is_reply(const FlowKey<Address>& key) const noexcept {
    const auto* entry = find(key.source, key.source_port, key.protocol, Role::reply_source);
    if (entry != nullptr && passes(*entry, key)) return true;
    return extras_.replies_of_all_ports && is_reply_of_all_ports(key);
  }
  // The real server of a one-packet service that a packet comes from, kNoServer if there is none or
  // several could be meant.
  template <class Address>
  ServerSlot one_packet_server(const FlowKey<Address>& key) const noexcept {
    if (!extras_.one_packet_servers || key.protocol != Protocol::udp) return kNoServer;
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

  // A segment in one word: the address of its entries, aligned to a cache line, and in the bits
  // that this leaves free the logarithm of their number.
  using Segments = std::array<std::uint64_t, kSegments>;
  static constexpr std::size_t kAlignment = 64;
  template <class Address>
  const Segments& segments() const noexcept {
    if constexpr (sizeof(Address) == 4) {
      return ipv4_;
    } else {
      return ipv6_;
    }
  }
  static std::size_t segment_of(std::uint64_t hash) noexcept { return hash >> 54U; }
  static_assert(kSegments == 1U << (64 - 54));
  template <class Address>
  static std::shared_ptr<const void> make_segment(std::uint64_t& segment,
                                                  std::span<const Item> items);

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

  Segments ipv4_;
  Segments ipv6_;
  Extras extras_;
};

inline std::uint64_t ServiceIndex::hash(const Ipv4Address& address, std::uint64_t tail) noexcept {
  return multiply_mix(address.value.raw() | tail, 0x9e3779b97f4a7c15ULL);
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
  const std::uint64_t tail = tail_of(port, protocol, role);
  const std::uint64_t place = hash(address, tail);
  const std::uint64_t segment = segments<Address>()[segment_of(place)];
  const auto* const all = reinterpret_cast<const Entry<Address>*>(segment & ~(kAlignment - 1));
  const std::uint64_t mask = (std::uint64_t{1} << (segment & (kAlignment - 1))) - 1;
  for (std::uint64_t at = place;; ++at) {
    const Entry<Address>& entry = all[at & mask];
    if (equal(entry, address, tail)) return &entry;
    if (entry.role == Role::none) return nullptr;
  }
}

}  // namespace weir
