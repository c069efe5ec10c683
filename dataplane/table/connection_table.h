// SPDX-License-Identifier: Apache-2.0
// The connections of one worker and one address family, found by the keys of both directions.
//
// Layout of the mapping (all indices, no pointers, so that it can be handed to another process):
//
//   header | buckets, 64 bytes each | connections, 64 bytes (IPv4) or 128 (IPv6) each | shifts, 8
//   bytes for each connection, touched by fullnat alone
//
//   Bucket: | 10 x 16-bit tag | 10 x 32-bit entry | displaced: bit per slot | overflow |
//           entry = connection index * 2 + (0: key of the inbound direction, 1: of replies)
//
// A key has two candidate buckets, the second computed from the first and the tag alone. The first
// of a reply's key is the neighbour of the inbound key's (fullnat apart), so that opening a
// connection touches what its look-up has fetched. A key lives
// in its first bucket when there is room; `overflow` counts the keys of a bucket that live in their
// second one, so that a miss, and a hit at moderate load, touch one bucket. When both are full,
// entries are moved breadth-first along a bounded path. The full key is always compared.
//
// Cost of a look-up: one bucket line and one connection line per hit, one bucket line per miss. Its
// three steps are for bursts: each asks for the line that the next one reads. Load factor 0.64 when
// every connection has both keys: more, and keys that do not find room in their first bucket would
// cost opening a second line.
// Expiry: a hierarchical timing wheel of 3 x 256 slots, intrusive. A later deadline is only written
// into the connection and honoured when its slot comes up.
// Not for: iteration in any order that means something; growing (the size is fixed at start).
#pragma once

#include <emmintrin.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "dataplane/net/mix.h"
#include "dataplane/table/connection.h"
#include "dataplane/table/flow_key.h"
#include "dataplane/table/sequence_shift.h"

namespace weir {

template <class Address>
class ConnectionTable {
 public:
  using Record = Connection<Address>;
  using Key = FlowKey<Address>;

  // Bytes of memory that a table of `capacity` connections needs.
  static std::size_t bytes_for(std::uint32_t capacity) noexcept;

  // Takes over `memory`, which is zero and cache-line aligned. `seed` is secret. `now` in ticks.
  ConnectionTable(std::byte* memory, std::uint32_t capacity,
                  const std::array<std::uint64_t, 2>& seed, std::uint32_t now) noexcept;

  // ---- The owning worker only, from here on ----

  // The steps of a look-up. Whatever happens to the table between them, find() says what it holds.
  Lookup start(const Key& key) const noexcept;
  void fetch(Lookup& lookup) const noexcept;
  std::uint32_t find(const Lookup& lookup, const Key& key) const noexcept;
  // All at once.
  std::uint32_t find_one(const Key& key) const noexcept { return find_slowly(hash(key), key); }
  // The connection with the reply key of `record`, kNoConnection if there is none.
  std::uint32_t find_rival(const Record& record) const noexcept;

  Record& operator[](std::uint32_t index) noexcept { return records_[index]; }
  const Record& operator[](std::uint32_t index) const noexcept { return records_[index]; }
  SequenceShift& shift(std::uint32_t index) noexcept { return shifts_[index]; }

  // Adds a connection under its inbound key (a kCompanion has none) and, with kReplyIndexed, its
  // reply key. The caller has
  // looked both up before. Nothing when the table is full.
  std::optional<std::uint32_t> open(const Record& record) noexcept;
  void close(std::uint32_t index) noexcept;
  // Nobody finds it by its keys any more. close() is still due.
  void hide(std::uint32_t index) noexcept;

  // The key of the replies: from the server to the client or, in fullnat, to the local address.
  static Key reply_key(const Record& record) noexcept;

  // Sets a new deadline; cheap when it is later than the one before.
  void set_deadline(std::uint32_t index, std::uint32_t deadline) noexcept {
    Record& record = records_[index];
    const auto earlier = static_cast<std::int32_t>(deadline - record.deadline) < 0;
    set_field(record.deadline, deadline);
    if (earlier) relink(index);
  }

  // Calls expired(index) for connections whose deadline has come, at most `budget` steps of work.
  // `expired` closes the connection or gives it a later deadline with set_deadline.
  template <class Expired>
  void advance(std::uint32_t now, unsigned budget, Expired&& expired) noexcept;

  std::uint32_t size() const noexcept { return header_->used.read(); }
  std::uint32_t capacity() const noexcept { return capacity_; }

  // ---- Any thread ----

  // Connections that have ever been used lie below this index.
  std::uint32_t high_water() const noexcept { return header_->high_water.read(); }
  // A consistent copy, or nothing if the place is free or kept changing.
  std::optional<Record> read(std::uint32_t index) const noexcept;

 private:
  static constexpr std::size_t kSlots = 10;
  static constexpr std::uint32_t kNone = 0xffffffffU;
  static constexpr std::uint32_t kHeadBit = 0x80000000U;
  static constexpr std::size_t kWheelSlots = 256;
  static constexpr std::size_t kWheelLevels = 3;
  static constexpr std::size_t kMaxPath = 256;

  struct alignas(64) Bucket {
    std::array<std::uint16_t, kSlots> tags;  // 0: free
    std::array<std::uint32_t, kSlots> entries;
    std::uint16_t displaced;  // bit: the slot's key lives in its second bucket
    std::uint16_t overflow;   // keys of this bucket that live in their second one

    // Beyond what it can count, it says for good that there are some.
    void count_overflow() noexcept {
      if (overflow != 0xffff) ++overflow;
    }
    void uncount_overflow() noexcept {
      if (overflow != 0xffff) --overflow;
    }
  };
  static_assert(sizeof(Bucket) == 64);

  // A value with one writer that others may read.
  struct Shared {
    std::uint32_t value;
    std::uint32_t read() const noexcept {
      return std::atomic_ref<const std::uint32_t>(value).load(std::memory_order_relaxed);
    }
    void write(std::uint32_t to) noexcept {
      std::atomic_ref<std::uint32_t>(value).store(to, std::memory_order_relaxed);
    }
  };

  struct alignas(64) Header {
    std::uint64_t magic;
    std::uint32_t layout_version;
    std::uint32_t record_bytes;
    std::uint32_t capacity;
    std::uint32_t buckets;
    std::array<std::uint64_t, 2> seed;
    Shared used;
    Shared high_water;
    std::uint32_t free_head;  // list through wheel_next
    std::uint32_t next_tick;  // the wheel's next tick to work on
    std::uint32_t filler;
    std::array<std::array<std::uint32_t, kWheelSlots>, kWheelLevels> wheel;
  };

  struct PathNode {
    std::uint32_t bucket;
    std::uint16_t parent;
    std::uint8_t slot;  // of the parent's bucket, whose entry would move here
  };

  // Of the mixed ends of a key.
  Lookup place_of(std::uint64_t client, std::uint64_t other, Protocol protocol,
                  Direction direction) const noexcept;
  Lookup hash(const Key& key) const noexcept;
  // Of the keys of `record`, without a Key: what is made of small pieces and copied in large ones
  // makes its reader wait.
  Lookup hash_inbound(const Record& record) const noexcept;
  Lookup hash_reply(const Record& record) const noexcept;
  std::uint32_t other_bucket(std::uint32_t bucket, std::uint16_t tag) const noexcept;
  bool matches(std::uint32_t entry, const Key& key) const noexcept;
  std::uint32_t search(const Bucket& bucket, std::uint32_t tag_mask, const Key& key) const noexcept;
  std::uint32_t find_slowly(const Lookup& lookup, const Key& key) const noexcept;
  void fetch_for_open(const Lookup& lookup) const noexcept;
  static bool matches_reply(const Record& record, const Key& key) noexcept;
  static std::uint32_t matching_slots(const Bucket& bucket, std::uint16_t tag) noexcept;

  bool insert(const Lookup& key, std::uint32_t entry) noexcept;
  void erase(const Lookup& key, std::uint32_t entry) noexcept;
  bool place(std::uint32_t bucket, std::uint16_t tag, std::uint32_t entry, bool displaced) noexcept;
  bool make_room(std::uint32_t first, std::uint32_t second) noexcept;
  void move_along(std::span<const PathNode> path, std::size_t leaf) noexcept;

  std::uint32_t& wheel_head(std::uint32_t slot) noexcept {
    return header_->wheel[slot / kWheelSlots][slot % kWheelSlots];
  }
  void link(std::uint32_t index) noexcept;
  void unlink(std::uint32_t index) noexcept;
  void relink(std::uint32_t index) noexcept {
    unlink(index);
    link(index);
  }
  void prefetch_behind(std::uint32_t index) const noexcept;
  template <class Visit>
  bool drain(std::uint32_t slot, unsigned& budget, Visit&& visit) noexcept;
  static constexpr std::size_t kWords = sizeof(Record) / sizeof(std::uint64_t);
  using Words = std::array<std::uint64_t, kWords>;
  static void put(Words& words, std::size_t offset, std::uint16_t value) noexcept;
  void write_identity(std::uint32_t index, const Record& record, ConnectionFlags in_use) noexcept;

  Header* header_;
  Bucket* buckets_;
  Record* records_;
  SequenceShift* shifts_;
  std::uint32_t capacity_;
  std::uint32_t bucket_count_;
  std::array<std::uint64_t, 2> seed_;
};

// One end of a key. Secrets on both sides of each product, so that nobody can aim at a bucket.
inline std::uint64_t mix_end(const Ipv4Address& address, Be16 port,
                             const std::array<std::uint64_t, 2>& seed) noexcept {
  return multiply_mix(address.value.raw() ^ seed[0], port.raw() ^ seed[1]);
}
inline std::uint64_t mix_end(const Ipv6Address& address, Be16 port,
                             const std::array<std::uint64_t, 2>& seed) noexcept {
  const std::uint64_t mixed = multiply_mix(load<std::uint64_t>(&address.bytes[0]) ^ seed[0],
                                           load<std::uint64_t>(&address.bytes[8]) ^ seed[1]);
  return multiply_mix(mixed ^ seed[1], port.raw() ^ seed[0]);
}

// The bucket follows from the client's end alone, so that both keys of a nat connection lie side by
// side, the tag from all of the key.
template <class Address>
inline Lookup ConnectionTable<Address>::place_of(std::uint64_t client, std::uint64_t other,
                                                 Protocol protocol,
                                                 Direction direction) const noexcept {
  constexpr std::uint32_t kOdd = 0x9e37;
  const auto side = static_cast<std::uint32_t>(direction);
  const std::uint32_t kind = static_cast<std::uint32_t>(protocol) << 1U | side;
  // Never 0, which says that a slot is free.
  const auto tag = static_cast<std::uint16_t>((client ^ other ^ kind * kOdd) | 1U);
  const auto bucket = static_cast<std::uint32_t>(reduce_range(client, bucket_count_));
  return {bucket ^ side, tag, kNone};
}

template <class Address>
inline Lookup ConnectionTable<Address>::hash(const Key& key) const noexcept {
  const std::uint64_t source = mix_end(key.source, key.source_port, seed_);
  const std::uint64_t destination = mix_end(key.destination, key.destination_port, seed_);
  const bool inbound = key.direction == Direction::inbound;
  return place_of(inbound ? source : destination, inbound ? destination : source, key.protocol,
                  key.direction);
}

template <class Address>
inline Lookup ConnectionTable<Address>::hash_inbound(const Record& record) const noexcept {
  return place_of(mix_end(record.client, record.client_port, seed_),
                  mix_end(record.virtual_address, record.virtual_port, seed_), record.protocol,
                  Direction::inbound);
}

template <class Address>
inline Lookup ConnectionTable<Address>::hash_reply(const Record& record) const noexcept {
  const bool fullnat = record.mode() == ForwardMode::fullnat;
  const std::uint64_t client = fullnat ? mix_end(record.local, record.local_port, seed_)
                                       : mix_end(record.client, record.client_port, seed_);
  return place_of(client, mix_end(record.server, record.server_port, seed_), record.protocol,
                  Direction::reply);
}

template <class Address>
inline auto ConnectionTable<Address>::reply_key(const Record& record) noexcept -> Key {
  const bool fullnat = record.mode() == ForwardMode::fullnat;
  return {record.server,      fullnat ? record.local : record.client,
          record.server_port, fullnat ? record.local_port : record.client_port,
          record.protocol,    Direction::reply};
}

template <class Address>
inline std::uint32_t ConnectionTable<Address>::matching_slots(const Bucket& bucket,
                                                              std::uint16_t tag) noexcept {
  // Tags 0 to 7 and 2 to 9.
  static_assert(kSlots == 10);
  const auto* tags = reinterpret_cast<const __m128i*>(bucket.tags.data());
  const auto* last = reinterpret_cast<const __m128i*>(bucket.tags.data() + 2);
  const __m128i wanted = _mm_set1_epi16(static_cast<std::int16_t>(tag));
  const __m128i equal = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_load_si128(tags), wanted),
                                        _mm_cmpeq_epi16(_mm_loadu_si128(last), wanted));
  const auto mask = static_cast<std::uint32_t>(_mm_movemask_epi8(equal));
  return (mask & 0xffU) | mask >> 8U << 2U;
}

template <class Address>
inline bool ConnectionTable<Address>::matches(std::uint32_t entry, const Key& key) const noexcept {
  if ((entry & 1U) != static_cast<std::uint32_t>(key.direction)) return false;
  const Record& record = records_[entry / 2];
  if (key.direction == Direction::inbound) {
    // Both addresses, and both ports, lie side by side in the key and in the record.
    return std::memcmp(&record.client, &key.source, 2 * sizeof(Address)) == 0 &&
           std::memcmp(&record.client_port, &key.source_port, 2 * sizeof(Be16)) == 0 &&
           record.protocol == key.protocol;
  }
  return matches_reply(record, key);
}

template <class Address>
inline Lookup ConnectionTable<Address>::start(const Key& key) const noexcept {
  const Lookup lookup = hash(key);
  __builtin_prefetch(&buckets_[lookup.bucket]);
  return lookup;
}

template <class Address>
inline void ConnectionTable<Address>::fetch(Lookup& lookup) const noexcept {
  const Bucket& bucket = buckets_[lookup.bucket];
  const std::uint32_t slots = matching_slots(bucket, lookup.tag);
  if (slots == 0) {
    fetch_for_open(lookup);
    return;
  }
  lookup.entry = bucket.entries[static_cast<std::size_t>(std::countr_zero(slots))];
  const auto* record = reinterpret_cast<const char*>(&records_[lookup.entry / 2]);
  __builtin_prefetch(record);
  if constexpr (sizeof(Record) > 64) __builtin_prefetch(record + 64);
}

template <class Address>
inline std::uint32_t ConnectionTable<Address>::find(const Lookup& lookup,
                                                    const Key& key) const noexcept {
  // What has been closed since then matches no key.
  if (lookup.entry != kNone && matches(lookup.entry, key)) [[likely]]
    return lookup.entry / 2;
  return find_slowly(lookup, key);
}

template <class Address>
template <class Visit>
bool ConnectionTable<Address>::drain(std::uint32_t slot, unsigned& budget, Visit&& visit) noexcept {
  while (wheel_head(slot) != kNone) {
    if (budget == 0) return false;
    --budget;
    prefetch_behind(wheel_head(slot));
    visit(wheel_head(slot));
  }
  return true;
}

template <class Address>
template <class Expired>
void ConnectionTable<Address>::advance(std::uint32_t now, unsigned budget,
                                       Expired&& expired) noexcept {
  const auto cascade = [this](std::uint32_t index) { relink(index); };
  const auto expire = [&](std::uint32_t index) {
    const bool due = static_cast<std::int32_t>(records_[index].deadline - now) <= 0;
    const std::uint32_t place = records_[index].wheel_previous;
    if (due) expired(index);
    // Not due, or given more time: its place is further on.
    const bool stays = wheel_head(place & ~kHeadBit) == index;
    if (stays) relink(index);
  };
  while (static_cast<std::int32_t>(now - header_->next_tick) >= 0) {
    if (size() == 0) {
      header_->next_tick = now + 1;
      return;
    }
    const std::uint32_t tick = header_->next_tick;
    if (tick % kWheelSlots == 0) {
      const std::uint32_t level1 = tick / kWheelSlots % kWheelSlots;
      const std::uint32_t level2 = tick / (kWheelSlots * kWheelSlots) % kWheelSlots;
      if (level1 == 0 && !drain(2 * kWheelSlots + level2, budget, cascade)) return;
      if (!drain(kWheelSlots + level1, budget, cascade)) return;
    }
    if (!drain(tick % kWheelSlots, budget, expire)) return;
    header_->next_tick = tick + 1;
  }
}

extern template class ConnectionTable<Ipv4Address>;
extern template class ConnectionTable<Ipv6Address>;

}  // namespace weir
