// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/service_index.h"

#include <bit>

namespace weir {
namespace {

constexpr Be16 kFtpControl = Be16::from_host(kFtp);
constexpr std::uint16_t kFirstUnprivileged = 1024;

}  // namespace

// An addition takes an entry for the address and its port, and one for the address alone.
ServiceIndex::ServiceIndex(std::size_t entries)
    : ipv4_(std::bit_ceil(entries * 4 + 2)), ipv6_(ipv4_.size()), mask_(ipv4_.size() - 1) {}

template <class Address>
void ServiceIndex::add(std::vector<Entry<Address>>& entries, const Entry<Address>& wanted) {
  const std::uint64_t tail = tail_of(wanted.port, wanted.protocol, wanted.role);
  std::uint64_t at = hash(wanted.address, tail);
  while (entries[at & mask_].role != Role::none) {
    Entry<Address>& present = entries[at++ & mask_];
    if (!equal(present, wanted.address, tail)) continue;
    present.replies = static_cast<std::uint8_t>(present.replies | wanted.replies);
    if (wanted.role == Role::reply_source) present.slot = the_one_of(present.slot, wanted.slot);
    return;
  }
  entries[at & mask_] = wanted;
}

void ServiceIndex::add(const IpAddress& address, Be16 port, Protocol protocol, Role role,
                       ServiceSlot slot, std::uint8_t replies) {
  if (address.is_ipv4()) {
    add(ipv4_, {address.ipv4(), port, protocol, role, slot, replies});
  } else {
    add(ipv6_, {address.ipv6(), port, protocol, role, slot, replies});
  }
}

void ServiceIndex::add_service(const IpAddress& address, Be16 port, Protocol protocol,
                               ServiceSlot slot) {
  add(address, port, protocol, Role::service, slot);
  add(address, Be16{}, kAnyPort, Role::service, slot);
  if (port == Be16{} || (port == kFtpControl && protocol == Protocol::tcp)) loose_services_ = true;
}

void ServiceIndex::add_fwmark_service(std::uint32_t mark, Family family, ServiceSlot slot) {
  const IpAddress address = family == Family::ipv4 ? IpAddress(address_of_mark<Ipv4Address>(mark))
                                                   : IpAddress(address_of_mark<Ipv6Address>(mark));
  add(address, Be16{}, kAnyPort, Role::fwmark, slot);
}

void ServiceIndex::add_reply_source(const IpAddress& address, Be16 port, Protocol protocol,
                                    ReplyTo to) {
  const auto replies = static_cast<std::uint8_t>(to);
  add(address, port, protocol, Role::reply_source, kNoServer, replies);
  add(address, Be16{}, kAnyPort, Role::reply_source, kNoServer, replies);
  if (port == Be16{}) replies_of_all_ports_ = true;
}

void ServiceIndex::add_one_packet_server(const IpAddress& address, Be16 port, ServerSlot slot) {
  add_reply_source(address, port, Protocol::udp);
  add(address, port, Protocol::udp, Role::reply_source, slot);
  one_packet_servers_ = true;
}

void ServiceIndex::add_local_address(const IpAddress& address) {
  add(address, Be16{}, kAnyPort, Role::local_address, 0);
}

template <class Address>
ServiceSlot ServiceIndex::find_marked(const FlowKey<Address>& key,
                                      std::uint32_t mark) const noexcept {
  const auto* entry = find(address_of_mark<Address>(mark), Be16{}, kAnyPort, Role::fwmark);
  return entry == nullptr ? find_service(key) : entry->slot;
}

template <class Address>
bool ServiceIndex::is_reply_of_all_ports(const FlowKey<Address>& key) const noexcept {
  const auto* entry = find(key.source, Be16{}, key.protocol, Role::reply_source);
  return entry != nullptr && passes(*entry, key);
}

template <class Address>
ServiceSlot ServiceIndex::find_loosely(const FlowKey<Address>& key) const noexcept {
  const Entry<Address>* entry = nullptr;
  const bool may_be_ftp_data =
      key.protocol == Protocol::tcp && (key.destination_port.host() == kFtpData ||
                                        key.destination_port.host() >= kFirstUnprivileged);
  if (may_be_ftp_data) entry = find(key.destination, kFtpControl, key.protocol, Role::service);
  if (entry == nullptr) entry = find(key.destination, Be16{}, key.protocol, Role::service);
  return entry == nullptr ? kNoService : entry->slot;
}

template ServiceSlot ServiceIndex::find_marked(const FlowKey<Ipv4Address>&,
                                               std::uint32_t) const noexcept;
template ServiceSlot ServiceIndex::find_marked(const FlowKey<Ipv6Address>&,
                                               std::uint32_t) const noexcept;
template bool ServiceIndex::is_reply_of_all_ports(const FlowKey<Ipv4Address>&) const noexcept;
template bool ServiceIndex::is_reply_of_all_ports(const FlowKey<Ipv6Address>&) const noexcept;
template ServiceSlot ServiceIndex::find_loosely(const FlowKey<Ipv4Address>&) const noexcept;
template ServiceSlot ServiceIndex::find_loosely(const FlowKey<Ipv6Address>&) const noexcept;

}  // namespace weir
