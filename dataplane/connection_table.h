// SPDX-License-Identifier: Apache-2.0
// The connections of one worker and one address family, found by the keys of both directions.
//
// Layout of the mapping (all indices, no pointers, so that it can be handed to another process):
//
//   header | buckets, 64 bytes each | connections, 64 bytes (IPv4) or 128 (IPv6) each | shifts, 8
//   bytes for each connection, touched by fullnat alone
//
//   Bucket: | 8 x 16-bit tag | 8 x 32-bit entry | displaced: bit per slot | overflow | spare |
//           entry = connection index * 2 + (0: key of the inbound direction, 1: of replies)
//
// A key has two candidate buckets, the second computed from the first and the tag alone. The first
// of a reply's key is the neighbour of the inbound key's (fullnat apart), so that opening a
// connection touches what its look-up has fetched. A key lives
// in its first bucket when there is room; `overflow` counts the keys of a bucket that live in their
// second one, so that a miss, and a hit at moderate load, touch one bucket. When both are full,
// entries are moved breadth-first along a bounded path. The full key is always compared.
//
// Cost of find(): one bucket line and one connection line per hit, one bucket line per miss, hidden
// by prefetching over the burst. Load factor 0.8 when every connection has both keys.
// Expiry: a hierarchical timing wheel of 3 x 256 slots, intrusive. A later deadline is only written
// into the connection and honoured when its slot comes up.
// Not for: iteration in any order that means something; growing (the size is fixed at start).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/connection.h"
#include "dataplane/flow_key.h"
#include "dataplane/sequence_shift.h"

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

  static constexpr std::size_t kMaxBurst = 64;
  // found[i] becomes the connection of *keys[i] or kNoConnection. At most kMaxBurst keys.
  void find(std::span<const Key* const> keys, std::span<std::uint32_t> found) const noexcept;
  std::uint32_t find_one(const Key& key) const noexcept;

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
  static constexpr std::size_t kSlots = 8;
  static constexpr std::uint32_t kNone = 0xffffffffU;
  static constexpr std::uint32_t kHeadBit = 0x80000000U;
  static constexpr std::size_t kWheelSlots = 256;
  static constexpr std::size_t kWheelLevels = 3;
  static constexpr std::size_t kMaxPath = 256;

  struct alignas(64) Bucket {
    std::array<std::uint16_t, kSlots> tags;  // 0: free
    std::array<std::uint32_t, kSlots> entries;
    std::uint8_t displaced;  // bit: the slot's key lives in its second bucket
    std::uint16_t overflow;  // keys of this bucket that live in their second one
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

  struct Hash {
    std::uint32_t bucket;
    std::uint16_t tag;
  };
  struct PathNode {
    std::uint32_t bucket;
    std::uint16_t parent;
    std::uint8_t slot;  // of the parent's bucket, whose entry would move here
  };

  Hash hash(const Key& key) const noexcept;
  std::uint32_t other_bucket(std::uint32_t bucket, std::uint16_t tag) const noexcept;
  bool matches(std::uint32_t entry, const Key& key) const noexcept;
  std::uint32_t search(const Bucket& bucket, std::uint32_t tag_mask, const Key& key) const noexcept;
  std::uint32_t find_slowly(const Hash& h, const Key& key) const noexcept;
  static std::uint32_t matching_slots(const Bucket& bucket, std::uint16_t tag) noexcept;

  bool insert(const Key& key, std::uint32_t entry) noexcept;
  void erase(const Key& key, std::uint32_t entry) noexcept;
  bool place(std::uint32_t bucket, std::uint16_t tag, std::uint32_t entry, bool displaced) noexcept;
  bool make_room(std::uint32_t first, std::uint32_t second) noexcept;
  void move_along(std::span<const PathNode> path, std::size_t leaf) noexcept;
  static Key inbound_key(const Record& record) noexcept;

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
  void write_identity(std::uint32_t index, const Record& record) noexcept;

  Header* header_;
  Bucket* buckets_;
  Record* records_;
  SequenceShift* shifts_;
  std::uint32_t capacity_;
  std::uint32_t bucket_count_;
  std::array<std::uint64_t, 2> seed_;
};

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
