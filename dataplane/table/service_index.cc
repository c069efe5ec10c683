// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/service_index.h"

#include <bit>
#include <tuple>
#include <vector>

namespace weir {
namespace {

constexpr Be16 kFtpControl = Be16::from_host(kFtp);
constexpr std::uint16_t kFirstUnprivileged = 1024;

}  // namespace

// One entry that is none ends every search.
ServiceIndex::ServiceIndex() noexcept {
  alignas(kAlignment) static constexpr Entry<Ipv4Address> kNoIpv4{};
  alignas(kAlignment) static constexpr Entry<Ipv6Address> kNoIpv6{};
  ipv4_.fill(reinterpret_cast<std::uintptr_t>(&kNoIpv4));
  ipv6_.fill(reinterpret_cast<std::uintptr_t>(&kNoIpv6));
}

std::size_t ServiceIndex::segment_of(const Key& key) noexcept {
  const std::uint64_t tail = tail_of(key.port, key.protocol, key.role);
  return segment_of(key.address.is_ipv4() ? hash(key.address.ipv4(), tail)
                                          : hash(key.address.ipv6(), tail));
}

template <class Address>
std::shared_ptr<const void> ServiceIndex::make_segment(std::uint64_t& segment,
                                                       std::span<const Item> items) {
  struct alignas(kAlignment) Line {
    std::array<Entry<Address>, kAlignment / sizeof(Entry<Address>)> entries{};
  };
  const std::size_t lines =
      std::bit_ceil(items.size() * 2 * sizeof(Entry<Address>) / kAlignment + 1);
  const std::size_t count = lines * std::tuple_size_v<decltype(Line::entries)>;
  auto memory = std::make_shared<std::vector<Line>>(lines);
  auto* const entries = memory->front().entries.data();
  for (const Item& item : items) {
    const Key& key = item.key;
    const std::uint64_t tail = tail_of(key.port, key.protocol, key.role);
    const auto address = address_of<Address>(key.address);
    std::uint64_t at = hash(address, tail) & (count - 1);
    while (entries[at].role != Role::none) at = (at + 1) & (count - 1);
    entries[at] = {address, key.port, key.protocol, key.role, item.slot, item.replies};
  }
  segment = reinterpret_cast<std::uintptr_t>(entries) |
            static_cast<std::uint64_t>(std::countr_zero(count));
  return memory;
}

std::shared_ptr<const void> ServiceIndex::set_segment(Family family, std::size_t segment,
                                                      std::span<const Item> items) {
  return family == Family::ipv4 ? make_segment<Ipv4Address>(ipv4_[segment], items)
                                : make_segment<Ipv6Address>(ipv6_[segment], items);
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
