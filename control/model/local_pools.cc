// SPDX-License-Identifier: Apache-2.0
#include "control/model/local_pools.h"

#include <algorithm>
#include <utility>

#include <absl/strings/str_cat.h>

#include "control/model/text_forms.h"

namespace weir {
namespace {

IpAddress next_after(const IpAddress& address) {
  std::array<std::uint8_t, 16> bytes = address.bytes();
  for (auto at = static_cast<std::size_t>(address.bit_width() / 8); at-- > 0;) {
    if (++bytes[at] != 0) break;
  }
  if (address.is_ipv4()) return load<Ipv4Address>(bytes.data());
  return Ipv6Address{bytes};
}

bool can_send(const IpAddress& address) { return address.is_unicast() && !address.is_loopback(); }

// Addresses, counted up to one more than there may be.
std::size_t count_of(const AddressRange& range) {
  std::size_t count = 1;
  for (IpAddress at = range.first; at != range.last && count <= LocalPools::kMaxAddresses;
       at = next_after(at)) {
    ++count;
  }
  return count;
}

bool overlap(const AddressRange& a, const AddressRange& b) {
  return a.first.family() == b.first.family() && a.first <= b.last && b.first <= a.last;
}

LocalAddresses expand(const LocalPools::Ranges& ranges) {
  LocalAddresses pool;
  for (const AddressRange& range : ranges) {
    for (const IpAddress& address : addresses_of(range)) {
      if (address.is_ipv4()) {
        pool.ipv4.push_back(address.ipv4());
      } else {
        pool.ipv6.push_back(address.ipv6());
      }
    }
  }
  return pool;
}

// Keeps the object that is there where it says the same.
void assign(std::shared_ptr<const LocalAddresses>& place, LocalAddresses wanted) {
  if (place != nullptr && place->ipv4 == wanted.ipv4 && place->ipv6 == wanted.ipv6) return;
  place = std::make_shared<const LocalAddresses>(std::move(wanted));
}

}  // namespace

std::vector<IpAddress> addresses_of(const AddressRange& range) {
  std::vector<IpAddress> addresses = {range.first};
  while (addresses.back() != range.last) addresses.push_back(next_after(addresses.back()));
  return addresses;
}

absl::Status LocalPools::add(const AddressRange& range, const Owner& owner) {
  const bool in_order = range.first.family() == range.last.family() && range.first <= range.last;
  if (!in_order || !can_send(range.first) || !can_send(range.last)) {
    return absl::InvalidArgumentError(
        absl::StrCat(text_of(range),
                     ": local addresses are unicast addresses of one family, the lower one first"));
  }
  const auto pool = ranges_.find(owner);
  std::size_t total = count_of(range);
  for (const auto& [other, ranges] : ranges_) {
    for (const AddressRange& present : ranges) total += count_of(present);
  }
  if (total > kMaxAddresses) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there is room for ", kMaxAddresses, " local addresses in all"));
  }
  if (pool != ranges_.end()) {
    for (const AddressRange& present : pool->second) {
      if (!overlap(present, range)) continue;
      return absl::AlreadyExistsError(
          absl::StrCat(text_of(present), " is among these local addresses already"));
    }
  }
  ranges_[owner].insert(range);
  rebuild();
  return absl::OkStatus();
}

absl::Status LocalPools::remove(const AddressRange& range, const Owner& owner) {
  const auto pool = ranges_.find(owner);
  if (pool == ranges_.end() || pool->second.erase(range) == 0) {
    return absl::NotFoundError(
        absl::StrCat(text_of(range),
                     " was not added like this: `weirctl show local-addresses` "
                     "lists the ranges that were"));
  }
  if (pool->second.empty()) ranges_.erase(pool);
  rebuild();
  return absl::OkStatus();
}

void LocalPools::forget(const ServiceKey& service) {
  if (ranges_.erase(service) != 0) rebuild();
}

std::shared_ptr<const LocalAddresses> LocalPools::of(const ServiceKey& service) const {
  const auto own = by_service_.find(service);
  return own == by_service_.end() ? for_all_ : own->second;
}

std::set<IpAddress> LocalPools::addresses() const {
  std::set<IpAddress> all;
  for (const auto& [owner, ranges] : ranges_) {
    for (const AddressRange& range : ranges) {
      for (const IpAddress& address : addresses_of(range)) all.insert(address);
    }
  }
  return all;
}

bool LocalPools::contains(const IpAddress& address) const {
  for (const auto& [owner, ranges] : ranges_) {
    for (const AddressRange& range : ranges) {
      if (overlap(range, {address, address})) return true;
    }
  }
  return false;
}

void LocalPools::rebuild() {
  const auto common = ranges_.find(std::nullopt);
  assign(for_all_, common == ranges_.end() ? LocalAddresses{} : expand(common->second));
  std::erase_if(by_service_, [this](const auto& entry) { return !ranges_.contains(entry.first); });
  for (const auto& [owner, ranges] : ranges_) {
    if (!owner) continue;
    LocalAddresses pool = expand(ranges);
    if (pool.ipv4.empty()) pool.ipv4 = for_all_->ipv4;
    if (pool.ipv6.empty()) pool.ipv6 = for_all_->ipv6;
    assign(by_service_[*owner], std::move(pool));
  }
}

}  // namespace weir
