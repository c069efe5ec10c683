// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/connection_table.h"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace weir {
namespace {

constexpr std::uint64_t kMagic = 0x31656c6261547277ULL;  // "wrTable1"
constexpr std::uint32_t kLayoutVersion = 2;
constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
// The hash spreads well by factors with high bits, which a seed need not have.
constexpr std::uint64_t kPi = 0x243f6a8885a308d3ULL;

// Records are copied by words, which alias their fields.
using Word [[gnu::may_alias]] = std::uint64_t;

// In fewer buckets too many keys have the same one as both candidates.
constexpr std::uint64_t kFewestBuckets = 16;

// Five for 16 connections: both keys of each, at load factor 0.64.
std::uint32_t buckets_for(std::uint32_t capacity) noexcept {
  const std::uint64_t buckets = std::uint64_t{capacity} * 5 / 16;
  return static_cast<std::uint32_t>(std::max(kFewestBuckets, (buckets + 2) / 2 * 2));
}

}  // namespace

template <class Address>
std::size_t ConnectionTable<Address>::bytes_for(std::uint32_t capacity) noexcept {
  return sizeof(Header) + buckets_for(capacity) * sizeof(Bucket) +
         std::size_t{capacity} * (sizeof(Record) + sizeof(SequenceShift));
}

template <class Address>
ConnectionTable<Address>::ConnectionTable(std::byte* memory, std::uint32_t capacity,
                                          const std::array<std::uint64_t, 2>& seed,
                                          std::uint32_t now) noexcept
    : header_(reinterpret_cast<Header*>(memory)),
      buckets_(reinterpret_cast<Bucket*>(memory + sizeof(Header))),
      capacity_(capacity),
      bucket_count_(buckets_for(capacity)),
      seed_{seed[0] ^ kGolden, seed[1] ^ kPi} {
  records_ = reinterpret_cast<Record*>(buckets_ + bucket_count_);
  shifts_ = reinterpret_cast<SequenceShift*>(records_ + capacity_);
  header_->magic = kMagic;
  header_->layout_version = kLayoutVersion;
  header_->record_bytes = sizeof(Record);
  header_->capacity = capacity_;
  header_->buckets = bucket_count_;
  header_->seed = seed;
  header_->free_head = kNone;
  header_->next_tick = now;
  for (auto& level : header_->wheel) level.fill(kNone);
}

template <class Address>
std::uint32_t ConnectionTable<Address>::other_bucket(std::uint32_t bucket,
                                                     std::uint16_t tag) const noexcept {
  // Its own inverse for any number of buckets.
  const auto sum = static_cast<std::uint32_t>(reduce_range(tag * kGolden, bucket_count_));
  return sum >= bucket ? sum - bucket : sum + bucket_count_ - bucket;
}

template <class Address>
bool ConnectionTable<Address>::matches_reply(const Record& record, const Key& key) noexcept {
  const Key held = reply_key(record);
  // The place may have been taken since by a connection that has no such key.
  return record.has(kReplyIndexed) && held.source == key.source &&
         held.destination == key.destination && held.source_port == key.source_port &&
         held.destination_port == key.destination_port && held.protocol == key.protocol;
}

template <class Address>
std::uint32_t ConnectionTable<Address>::search(const Bucket& bucket, std::uint32_t mask,
                                               const Key& key) const noexcept {
  for (; mask != 0; mask &= mask - 1) {
    const std::uint32_t entry = bucket.entries[static_cast<std::size_t>(std::countr_zero(mask))];
    if (matches(entry, key)) return entry / 2;
  }
  return kNoConnection;
}

template <class Address>
std::uint32_t ConnectionTable<Address>::find_slowly(const Lookup& lookup,
                                                    const Key& key) const noexcept {
  const Bucket& first = buckets_[lookup.bucket];
  const std::uint32_t found = search(first, matching_slots(first, lookup.tag), key);
  if (found != kNoConnection || first.overflow == 0) return found;
  const Bucket& second = buckets_[other_bucket(lookup.bucket, lookup.tag)];
  return search(second, matching_slots(second, lookup.tag), key);
}

template <class Address>
std::uint32_t ConnectionTable<Address>::find_rival(const Record& record) const noexcept {
  const Lookup lookup = hash_reply(record);
  const Bucket& first = buckets_[lookup.bucket];
  if (matching_slots(first, lookup.tag) == 0 && first.overflow == 0) return kNoConnection;
  return find_slowly(lookup, reply_key(record));
}

// What opening the connection will touch.
template <class Address>
void ConnectionTable<Address>::fetch_for_open(const Lookup& lookup) const noexcept {
  __builtin_prefetch(&buckets_[lookup.bucket ^ 1U]);
  if (buckets_[lookup.bucket].overflow != 0) {
    __builtin_prefetch(&buckets_[other_bucket(lookup.bucket, lookup.tag)]);
  }
}

template <class Address>
bool ConnectionTable<Address>::place(std::uint32_t at, std::uint16_t tag, std::uint32_t entry,
                                     bool displaced) noexcept {
  Bucket& bucket = buckets_[at];
  const std::uint32_t free = matching_slots(bucket, 0);
  if (free == 0) return false;
  const auto slot = static_cast<std::size_t>(std::countr_zero(free));
  bucket.tags[slot] = tag;
  bucket.entries[slot] = entry;
  const auto bit = static_cast<std::uint16_t>(1U << slot);
  if (displaced) {
    bucket.displaced |= bit;
    buckets_[other_bucket(at, tag)].count_overflow();
  } else {
    bucket.displaced &= static_cast<std::uint16_t>(~bit);
  }
  return true;
}

template <class Address>
bool ConnectionTable<Address>::insert(const Lookup& key, std::uint32_t entry) noexcept {
  if (place(key.bucket, key.tag, entry, false)) return true;
  const std::uint32_t second = other_bucket(key.bucket, key.tag);
  if (place(second, key.tag, entry, true)) return true;
  return make_room(key.bucket, second) &&
         (place(key.bucket, key.tag, entry, false) || place(second, key.tag, entry, true));
}

// Breadth-first over the buckets that entries could move to, until one has a free slot.
template <class Address>
bool ConnectionTable<Address>::make_room(std::uint32_t first, std::uint32_t second) noexcept {
  PathNode path[kMaxPath];
  std::size_t count = 0;
  path[count++] = {first, 0, 0};
  path[count++] = {second, 1, 0};
  for (std::size_t node = 0; node < count; ++node) {
    const Bucket& bucket = buckets_[path[node].bucket];
    for (std::uint8_t slot = 0; slot < kSlots && count < kMaxPath; ++slot) {
      const std::uint32_t target = other_bucket(path[node].bucket, bucket.tags[slot]);
      if (target == path[node].bucket) continue;
      path[count] = {target, static_cast<std::uint16_t>(node), slot};
      if (matching_slots(buckets_[target], 0) != 0) {
        move_along({path, count + 1}, count);
        return true;
      }
      ++count;
    }
  }
  return false;
}

// Moves the entries of a path one step each, the last one first. A path that crosses itself stops
// early, which leaves every entry where a look-up finds it.
template <class Address>
void ConnectionTable<Address>::move_along(std::span<const PathNode> path,
                                          std::size_t leaf) noexcept {
  for (std::size_t node = leaf; path[node].parent != node; node = path[node].parent) {
    const std::uint32_t from = path[path[node].parent].bucket;
    Bucket& bucket = buckets_[from];
    const std::uint8_t slot = path[node].slot;
    const std::uint16_t tag = bucket.tags[slot];
    if (tag == 0 || other_bucket(from, tag) != path[node].bucket) return;
    const bool was_displaced = (bucket.displaced & (1U << slot)) != 0;
    if (!place(path[node].bucket, tag, bucket.entries[slot], !was_displaced)) return;
    if (was_displaced) buckets_[path[node].bucket].uncount_overflow();
    bucket.tags[slot] = 0;
  }
}

template <class Address>
void ConnectionTable<Address>::erase(const Lookup& key, std::uint32_t entry) noexcept {
  const std::uint32_t candidates[] = {key.bucket, other_bucket(key.bucket, key.tag)};
  for (const std::uint32_t at : candidates) {
    Bucket& bucket = buckets_[at];
    for (std::uint32_t mask = matching_slots(bucket, key.tag); mask != 0; mask &= mask - 1) {
      const auto slot = static_cast<std::size_t>(std::countr_zero(mask));
      if (bucket.entries[slot] != entry) continue;
      bucket.tags[slot] = 0;
      if ((bucket.displaced & (1U << slot)) != 0) {
        buckets_[other_bucket(at, key.tag)].uncount_overflow();
      }
      return;
    }
  }
}

// By words: a field written by itself and read as part of a word would make the reader wait.
template <class Address>
void ConnectionTable<Address>::put(Words& words, std::size_t offset, std::uint16_t value) noexcept {
  const std::size_t shift = offset % 8 * 8;
  words[offset / 8] = (words[offset / 8] & ~(std::uint64_t{0xffff} << shift)) | std::uint64_t{value}
                                                                                    << shift;
}

// `in_use`: kInUse, or no flag at all.
template <class Address>
inline void ConnectionTable<Address>::write_identity(std::uint32_t index, const Record& record,
                                                     ConnectionFlags in_use) noexcept {
  const auto even = static_cast<std::uint16_t>(records_[index].sequence + 2);
  const auto odd = static_cast<std::uint16_t>(even - 1);
  auto next = std::bit_cast<Words>(record);
  put(next, offsetof(Record, flags), static_cast<std::uint16_t>(record.flags | in_use));
  put(next, offsetof(Record, sequence), odd);
  set_field(records_[index].sequence, odd);
  auto* words = reinterpret_cast<Word*>(&records_[index]);
  for (std::size_t i = 0; i < kWords; ++i) {
    // Release, so that a reader who sees any of these words sees the odd sequence, too.
    __atomic_store_n(&words[i], next[i], __ATOMIC_RELEASE);
  }
  // Pairs with the acquire in read(): the identity is complete before the sequence is even again.
  std::atomic_ref<std::uint16_t>(records_[index].sequence).store(even, std::memory_order_release);
}

template <class Address>
auto ConnectionTable<Address>::read(std::uint32_t index) const noexcept -> std::optional<Record> {
  constexpr int kAttempts = 4;
  const std::atomic_ref<const std::uint16_t> sequence(records_[index].sequence);
  const auto* words = reinterpret_cast<const Word*>(&records_[index]);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::uint16_t before = sequence.load(std::memory_order_acquire);
    if ((before & 1U) != 0) continue;
    Words copy;
    for (std::size_t i = 0; i < kWords; ++i) {
      copy[i] = __atomic_load_n(&words[i], __ATOMIC_ACQUIRE);
    }
    if (sequence.load(std::memory_order_acquire) != before) continue;
    const auto record = std::bit_cast<Record>(copy);
    if (!record.has(kInUse)) return std::nullopt;
    return record;
  }
  return std::nullopt;
}

template <class Address>
std::optional<std::uint32_t> ConnectionTable<Address>::open(const Record& record) noexcept {
  std::uint32_t index = header_->free_head;
  const bool fresh = index == kNone;
  if (fresh) {
    index = header_->high_water.value;
    if (index == capacity_) return std::nullopt;
  }
  const std::uint32_t next_free = fresh ? kNone : records_[index].wheel_next;
  if (!record.has(kCompanion) && !insert(hash_inbound(record), index * 2)) return std::nullopt;
  if (record.has(kReplyIndexed) && !insert(hash_reply(record), index * 2 + 1)) {
    if (!record.has(kCompanion)) erase(hash_inbound(record), index * 2);
    return std::nullopt;
  }
  write_identity(index, record, kInUse);
  if (fresh) {
    header_->high_water.write(index + 1);
  } else {
    header_->free_head = next_free;
  }
  header_->used.write(header_->used.value + 1);
  // The place that the next one takes.
  const std::uint32_t following = header_->free_head == kNone ? index + 1 : header_->free_head;
  __builtin_prefetch(&records_[following], 1);
  link(index);
  return index;
}

template <class Address>
void ConnectionTable<Address>::hide(std::uint32_t index) noexcept {
  const Record& record = records_[index];
  if (!record.has(kCompanion)) erase(hash_inbound(record), index * 2);
  if (record.has(kReplyIndexed)) erase(hash_reply(record), index * 2 + 1);
}

template <class Address>
void ConnectionTable<Address>::close(std::uint32_t index) noexcept {
  hide(index);
  unlink(index);
  write_identity(index, Record{}, ConnectionFlags{});
  set_field(records_[index].wheel_next, header_->free_head);
  header_->free_head = index;
  header_->used.write(header_->used.value - 1);
}

template <class Address>
void ConnectionTable<Address>::link(std::uint32_t index) noexcept {
  constexpr std::uint32_t kLevel1 = kWheelSlots;
  constexpr std::uint32_t kLevel2 = kWheelSlots * kWheelSlots;
  constexpr std::uint32_t kHorizon = kLevel2 * kWheelSlots - 1;
  Record& record = records_[index];
  const auto left = static_cast<std::int32_t>(record.deadline - header_->next_tick);
  const auto ticks = std::min(static_cast<std::uint32_t>(std::max(left, 0)), kHorizon);
  const std::uint32_t at = header_->next_tick + ticks;
  std::uint32_t slot;
  if (ticks < kLevel1) {
    slot = at % kWheelSlots;
  } else if (ticks < kLevel2) {
    slot = kWheelSlots + at / kLevel1 % kWheelSlots;
  } else {
    slot = 2 * kWheelSlots + at / kLevel2 % kWheelSlots;
  }
  std::uint32_t& head = wheel_head(slot);
  set_field(record.wheel_next, head);
  set_field(record.wheel_previous, kHeadBit | slot);
  if (head != kNone) set_field(records_[head].wheel_previous, index);
  head = index;
}

// While one connection of a wheel's slot is worked on: the buckets of the next one, the line of the
// one after it.
template <class Address>
void ConnectionTable<Address>::prefetch_behind(std::uint32_t index) const noexcept {
  const std::uint32_t next = records_[index].wheel_next;
  if (next == kNone) return;
  const std::uint32_t bucket = hash_inbound(records_[next]).bucket;
  __builtin_prefetch(&buckets_[bucket]);
  __builtin_prefetch(&buckets_[bucket ^ 1U]);
  const std::uint32_t after = records_[next].wheel_next;
  if (after != kNone) __builtin_prefetch(&records_[after]);
}

template <class Address>
void ConnectionTable<Address>::unlink(std::uint32_t index) noexcept {
  const Record& record = records_[index];
  const std::uint32_t next = record.wheel_next;
  const std::uint32_t previous = record.wheel_previous;
  if ((previous & kHeadBit) != 0) {
    wheel_head(previous & ~kHeadBit) = next;
  } else {
    set_field(records_[previous].wheel_next, next);
  }
  if (next != kNone) set_field(records_[next].wheel_previous, previous);
}

template class ConnectionTable<Ipv4Address>;
template class ConnectionTable<Ipv6Address>;

}  // namespace weir
