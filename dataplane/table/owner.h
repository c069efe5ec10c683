// SPDX-License-Identifier: Apache-2.0
// Which worker owns a connection: a pure function of the client's address and port.
//
// The Toeplitz hash over exactly these fields, then groups, then workers, is what a NIC computes
// with source-only (or, on the server side, destination-only) RSS, this key, and a redirection
// table filled from worker_of_group(): where a NIC can do so, packets arrive where they belong.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/net/addresses.h"

namespace weir {

class OwnerMap {
 public:
  static constexpr std::size_t kGroups = 512;
  static constexpr std::size_t kKeyBytes = 40;
  using Key = std::array<std::uint8_t, kKeyBytes>;

  // `key` should be random: whoever knows it can aim at one worker.
  OwnerMap(const Key& key, unsigned workers);

  // Address: Ipv4Address or Ipv6Address. Any thread.
  template <class Address>
  std::uint32_t hash(const Address& client, Be16 client_port) const noexcept;
  template <class Address>
  unsigned owner(const Address& client, Be16 client_port) const noexcept {
    return worker_of_group(hash(client, client_port) % kGroups);
  }
  // Of what has no ports, a fragment.
  template <class Address>
  unsigned owner_of_address(const Address& client) const noexcept {
    return owner(client, Be16{});
  }
  unsigned worker_of_group(std::size_t group) const noexcept { return workers_[group]; }
  // The map repeats itself after so many groups, so that a redirection table of this size, or of a
  // multiple, can hold it: few workers need no more than the smallest table of common NICs.
  std::size_t period() const noexcept { return period_; }
  const Key& key() const noexcept { return key_; }

 private:
  static constexpr std::size_t kInputBytes = 18;  // an IPv6 address and a port

  Key key_;
  std::array<std::array<std::uint32_t, 256>, kInputBytes> tables_;
  std::array<std::uint8_t, kGroups> workers_;
  std::size_t period_;
};

template <class Address>
std::uint32_t OwnerMap::hash(const Address& client, Be16 client_port) const noexcept {
  static_assert(sizeof(Address) == sizeof(Ipv4Address) || sizeof(Address) == sizeof(Ipv6Address));
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(&client);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < sizeof(Address); ++i) sum ^= tables_[i][bytes[i]];
  const std::uint16_t port = client_port.host();
  sum ^= tables_[sizeof(Address)][port >> 8];
  sum ^= tables_[sizeof(Address) + 1][port & 0xff];
  return sum;
}

}  // namespace weir
