// SPDX-License-Identifier: Apache-2.0
#include "dataplane/connection_table.h"

#include <emmintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "dataplane/net/mix.h"

namespace weir {
namespace {

constexpr std::uint64_t kMagic = 0x31656c6261547277ULL;  // "wrTable1"
constexpr std::uint32_t kLayoutVersion = 1;
constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

// Records are copied by words, which alias their fields.
using Word [[gnu::may_alias]] = std::uint64_t;

// One step over an address and a word.
std::uint64_t mix(const Ipv4Address& address, std::uint64_t word, std::uint64_t seed) noexcept {
  return multiply_mix(address.value.raw() ^ seed, word ^ kGolden);
}

std::uint64_t mix(const Ipv6Address& address, std::uint64_t word, std::uint64_t seed) noexcept {
  return multiply_mix(load<std::uint64_t>(&address.bytes[0]) ^ seed,
                      load<std::uint64_t>(&address.bytes[8]) ^ word ^ kGolden);
}

// In fewer buckets too many keys have the same one as both candidates.
constexpr std::uint64_t kFewestBuckets = 16;

// Room for both keys of every connection at load factor 0.8.
std::uint32_t buckets_for(std::uint32_t capacity) noexcept {
  const std::uint64_t keys = std::uint64_t{capacity} * 2;
  return static_cast<std::uint32_t>(std::max(kFewestBuckets, (keys * 5 / 4 / 8 + 2) / 2 * 2));
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
      seed_(seed) {
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

// The bucket follows from the client's end alone, so that both keys of a nat connection lie side by
// side, the tag from all the rest.
template <class Address>
auto ConnectionTable<Address>::hash(const Key& key) const noexcept -> Hash {
  const bool inbound = key.direction == Direction::inbound;
  const Address& client = inbound ? key.source : key.destination;
  const Address& other = inbound ? key.destination : key.source;
  const std::uint16_t client_port = (inbound ? key.source_port : key.destination_port).raw();
  const std::uint16_t other_port = (inbound ? key.destination_port : key.source_port).raw();
  const std::uint64_t end = mix(client, std::uint64_t{client_port} << 32, seed_[0]);
  const std::uint64_t rest =
      mix(other,
          std::uint64_t{other_port} << 32 | std::uint64_t{load<std::uint16_t>(&key.protocol)} << 48,
          seed_[1]);
  const auto tag = static_cast<std::uint16_t>(multiply_mix(end ^ rest, seed_[1]));
  const auto bucket = static_cast<std::uint32_t>(
      reduce_range(multiply_mix(end ^ seed_[1], kGolden), bucket_count_));
  return {bucket ^ static_cast<std::uint32_t>(key.direction), tag == 0 ? std::uint16_t{1} : tag};
}

template <class Address>
std::uint32_t ConnectionTable<Address>::other_bucket(std::uint32_t bucket,
                                                     std::uint16_t tag) const noexcept {
  // Its own inverse for any number of buckets.
  const auto sum = static_cast<std::uint32_t>(reduce_range(tag * kGolden, bucket_count_));
  return sum >= bucket ? sum - bucket : sum + bucket_count_ - bucket;
}

template <class Address>
std::uint32_t ConnectionTable<Address>::matching_slots(const Bucket& bucket,
                                                       std::uint16_t tag) noexcept {
  static_assert(kSlots == 8);
  const __m128i tags = _mm_load_si128(reinterpret_cast<const __m128i*>(&bucket.tags));
  const __m128i equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(static_cast<std::int16_t>(tag)));
  return static_cast<std::uint32_t>(_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())));
}

template <class Address>
bool ConnectionTable<Address>::matches(std::uint32_t entry, const Key& key) const noexcept {
  if ((entry & 1U) != static_cast<std::uint32_t>(key.direction)) return false;
  const Record& record = records_[entry / 2];
  if (key.direction == Direction::inbound) {
    // Both addresses, and both ports, lie side by side in the key and in the record.
    return std::memcmp(&record.client, &key.source, 2 * sizeof(Address)) == 0 &&
           std::memcmp(&record.client_port, &key.source_port, 2 * sizeof(Be16)) == 0 &&
           record.protocol == key.protocol;
  }
  const Key held = reply_key(record);
  return held.source == key.source && held.destination == key.destination &&
         held.source_port == key.source_port && held.destination_port == key.destination_port &&
         held.protocol == key.protocol;
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
std::uint32_t ConnectionTable<Address>::find_slowly(const Hash& h, const Key& key) const noexcept {
  const Bucket& first = buckets_[h.bucket];
  const std::uint32_t found = search(first, matching_slots(first, h.tag), key);
  if (found != kNoConnection || first.overflow == 0) return found;
  const Bucket& second = buckets_[other_bucket(h.bucket, h.tag)];
  return search(second, matching_slots(second, h.tag), key);
}

template <class Address>
void ConnectionTable<Address>::find(std::span<const Key* const> keys,
                                    std::span<std::uint32_t> found) const noexcept {
  const std::size_t count = keys.size();
  Hash hashes[kMaxBurst];
  std::uint32_t entries[kMaxBurst];
  for (std::size_t i = 0; i < count; ++i) {
    hashes[i] = hash(*keys[i]);
    __builtin_prefetch(&buckets_[hashes[i].bucket]);
  }
  // The first entry whose tag matches is nearly always the one.
  for (std::size_t i = 0; i < count; ++i) {
    const Bucket& bucket = buckets_[hashes[i].bucket];
    const std::uint32_t slots = matching_slots(bucket, hashes[i].tag);
    entries[i] = kNone;
    if (slots != 0) {
      entries[i] = bucket.entries[static_cast<std::size_t>(std::countr_zero(slots))];
      const auto* record = reinterpret_cast<const char*>(&records_[entries[i] / 2]);
      __builtin_prefetch(record);
      if constexpr (sizeof(Record) > 64) __builtin_prefetch(record + 64);
      continue;
    }
    // Should it be opened: where its reply's key goes.
    __builtin_prefetch(&buckets_[hashes[i].bucket ^ 1U]);
    if (bucket.overflow != 0) {
      __builtin_prefetch(&buckets_[other_bucket(hashes[i].bucket, hashes[i].tag)]);
    }
  }
  for (std::size_t i = 0; i < count; ++i) {
    const bool hit = entries[i] != kNone && matches(entries[i], *keys[i]);
    found[i] = hit ? entries[i] / 2 : find_slowly(hashes[i], *keys[i]);
  }
}

template <class Address>
std::uint32_t ConnectionTable<Address>::find_one(const Key& key) const noexcept {
  std::uint32_t found = kNoConnection;
  const Key* const keys[] = {&key};
  find(keys, {&found, 1});
  return found;
}

template <class Address>
auto ConnectionTable<Address>::inbound_key(const Record& record) noexcept -> Key {
  return {record.client,       record.virtual_address, record.client_port,
          record.virtual_port, record.protocol,        Direction::inbound};
}

template <class Address>
auto ConnectionTable<Address>::reply_key(const Record& record) noexcept -> Key {
  const bool fullnat = record.mode() == ForwardMode::fullnat;
  return {record.server,      fullnat ? record.local : record.client,
          record.server_port, fullnat ? record.local_port : record.client_port,
          record.protocol,    Direction::reply};
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
  const auto bit = static_cast<std::uint8_t>(1U << slot);
  if (displaced) {
    bucket.displaced |= bit;
    ++buckets_[other_bucket(at, tag)].overflow;
  } else {
    bucket.displaced &= static_cast<std::uint8_t>(~bit);
  }
  return true;
}

template <class Address>
bool ConnectionTable<Address>::insert(const Key& key, std::uint32_t entry) noexcept {
  const Hash h = hash(key);
  const std::uint32_t second = other_bucket(h.bucket, h.tag);
  if (place(h.bucket, h.tag, entry, false) || place(second, h.tag, entry, true)) return true;
  return make_room(h.bucket, second) &&
         (place(h.bucket, h.tag, entry, false) || place(second, h.tag, entry, true));
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
    if (was_displaced) --buckets_[path[node].bucket].overflow;
    bucket.tags[slot] = 0;
  }
}

template <class Address>
void ConnectionTable<Address>::erase(const Key& key, std::uint32_t entry) noexcept {
  const Hash h = hash(key);
  const std::uint32_t candidates[] = {h.bucket, other_bucket(h.bucket, h.tag)};
  for (const std::uint32_t at : candidates) {
    Bucket& bucket = buckets_[at];
    for (std::uint32_t mask = matching_slots(bucket, h.tag); mask != 0; mask &= mask - 1) {
      const auto slot = static_cast<std::size_t>(std::countr_zero(mask));
      if (bucket.entries[slot] != entry) continue;
      bucket.tags[slot] = 0;
      if ((bucket.displaced & (1U << slot)) != 0) --buckets_[other_bucket(at, h.tag)].overflow;
      return;
    }
  }
}

template <class Address>
void ConnectionTable<Address>::write_identity(std::uint32_t index, const Record& record) noexcept {
  constexpr std::size_t kWords = sizeof(Record) / sizeof(std::uint64_t);
  Record next = record;
  const auto even = static_cast<std::uint16_t>(records_[index].sequence + 2);
  next.sequence = static_cast<std::uint16_t>(even - 1);
  set_field(records_[index].sequence, next.sequence);
  auto* words = reinterpret_cast<Word*>(&records_[index]);
  const auto copy = std::bit_cast<std::array<std::uint64_t, kWords>>(next);
  for (std::size_t i = 0; i < kWords; ++i) {
    // Release, so that a reader who sees any of these words sees the odd sequence, too.
    __atomic_store_n(&words[i], copy[i], __ATOMIC_RELEASE);
  }
  // Pairs with the acquire in read(): the identity is complete before the sequence is even again.
  std::atomic_ref<std::uint16_t>(records_[index].sequence).store(even, std::memory_order_release);
}

template <class Address>
auto ConnectionTable<Address>::read(std::uint32_t index) const noexcept -> std::optional<Record> {
  constexpr std::size_t kWords = sizeof(Record) / sizeof(std::uint64_t);
  constexpr int kAttempts = 4;
  const std::atomic_ref<const std::uint16_t> sequence(records_[index].sequence);
  const auto* words = reinterpret_cast<const Word*>(&records_[index]);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::uint16_t before = sequence.load(std::memory_order_acquire);
    if ((before & 1U) != 0) continue;
    std::array<std::uint64_t, kWords> copy;
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
  if (!record.has(kCompanion) && !insert(inbound_key(record), index * 2)) return std::nullopt;
  if (record.has(kReplyIndexed) && !insert(reply_key(record), index * 2 + 1)) {
    if (!record.has(kCompanion)) erase(inbound_key(record), index * 2);
    return std::nullopt;
  }
  Record stored = record;
  stored.flags |= kInUse;
  write_identity(index, stored);
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
  if (!record.has(kCompanion)) erase(inbound_key(record), index * 2);
  if (record.has(kReplyIndexed)) erase(reply_key(record), index * 2 + 1);
}

template <class Address>
void ConnectionTable<Address>::close(std::uint32_t index) noexcept {
  hide(index);
  unlink(index);
  write_identity(index, Record{});
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
  const std::uint32_t bucket = hash(inbound_key(records_[next])).bucket;
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
