// SPDX-License-Identifier: Apache-2.0
#include "dataplane/service_index.h"

#include <bit>

namespace weir {

// An addition takes an entry for the address and its port, and one for the address alone.
ServiceIndex::ServiceIndex(std::size_t entries)
    : ipv4_(std::bit_ceil(entries * 4 + 2)), ipv6_(ipv4_.size()), mask_(ipv4_.size() - 1) {}

template <class Address>
void ServiceIndex::add(std::vector<Entry<Address>>& entries, const Entry<Address>& wanted) {
  if (find(wanted.address, wanted.port, wanted.protocol, wanted.role) != nullptr) return;
  std::uint64_t at = hash(wanted.address, tail_of(wanted.port, wanted.protocol, wanted.role));
  while (entries[at & mask_].role != Role::none) ++at;
  entries[at & mask_] = wanted;
}

void ServiceIndex::add(const IpAddress& address, Be16 port, Protocol protocol, Role role,
                       ServiceSlot slot) {
  if (address.is_ipv4()) {
    add(ipv4_, {address.ipv4(), port, protocol, role, slot});
  } else {
    add(ipv6_, {address.ipv6(), port, protocol, role, slot});
  }
}

void ServiceIndex::add_service(const IpAddress& address, Be16 port, Protocol protocol,
                               ServiceSlot slot) {
  add(address, port, protocol, Role::service, slot);
  add(address, Be16{}, kAnyPort, Role::service, slot);
}

void ServiceIndex::add_reply_source(const IpAddress& address, Be16 port, Protocol protocol) {
  add(address, port, protocol, Role::reply_source, 0);
  add(address, Be16{}, kAnyPort, Role::reply_source, 0);
}

}  // namespace weir
