// SPDX-License-Identifier: Apache-2.0
// What lblc and lblcr remember of destinations: a hash table in fixed memory, with IPVS's rules of
// expiry (ip_vs_lblc.c, ip_vs_lblcr.c).
//
// Every minute there is a check. If there are more than kMost entries, those that nobody has asked
// for in six minutes go, at most kMost / 2 at once; otherwise every thirtieth check takes out all
// that nobody has asked for in `expiration` seconds. There are never more than kFull: then new
// destinations are served, but not remembered. IPVS's numbers are for one cache; each of several
// workers owns its share of the destinations and has that share of the room.
//
// Cost: find O(1). A check is spread over the calls that follow it, kBucketsPerCall at a time; an
// entry that a full check has not yet come to is not found any more all the same.
// Written by: one worker. Never allocates once made; for 24,576 entries of lblc 1 MiB.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace weir {

// When IPVS checks, and what.
class CacheChecks {
 public:
  enum class Kind : std::uint8_t { none, idle, full };

  // Time passes. The check that is due, if any; `crowded`: there are more entries than kMost.
  Kind pass_time(std::uint32_t now_ms, bool crowded) noexcept {
    return started_ && now_ms == now_ms_ ? Kind::none : go_on(now_ms, crowded);
  }
  std::uint32_t now() const noexcept { return now_; }  // seconds since the first call
  // When the last full check was due; 0: never.
  std::uint32_t last_full() const noexcept { return last_full_; }

 private:
  static constexpr std::uint32_t kInterval = 60;
  static constexpr std::uint32_t kChecksToFull = 30;

  Kind go_on(std::uint32_t now_ms, bool crowded) noexcept;

  bool started_ = false;
  std::uint32_t now_ms_ = 0;
  std::uint32_t rest_ms_ = 0;  // of a second
  std::uint32_t now_ = 0;
  std::uint32_t last_check_ = 0;
  std::uint32_t last_full_ = 0;
  std::uint32_t checks_ = 1;  // IPVS begins to count at 1
};

struct DestinationKey {
  std::uint64_t first = 0;
  std::uint64_t second = 0;
  friend bool operator==(const DestinationKey&, const DestinationKey&) noexcept = default;
};

// 4 or 16 bytes as on the wire.
inline DestinationKey destination_key(std::span<const std::uint8_t> address) noexcept {
  DestinationKey key;
  if (address.size() == 4) {
    std::memcpy(&key.first, address.data(), 4);
  } else if (address.size() == 16) {
    std::memcpy(&key.first, address.data(), 8);
    std::memcpy(&key.second, address.data() + 8, 8);
  }
  return key;
}

// Release: called with the Content of an entry that goes.
template <class Content>
class DestinationCache {
 public:
  static constexpr std::uint32_t kMost = 16384;
  static constexpr std::uint32_t kFull = 24576;

  // Of one of `workers` owners. Control thread.
  DestinationCache(unsigned workers, std::uint64_t seed)
      : most_((kMost + workers - 1) / workers),
        seed_(seed),
        buckets_(std::size_t{1} << bucket_bits(most_), kNone),
        entries_((kFull + workers - 1) / workers) {
    for (std::uint32_t at = 0; at < entries_.size(); ++at) {
      entries_[at].next = at + 1 < entries_.size() ? at + 1 : kNone;
    }
  }

  // First of every call for a destination.
  template <class Release>
  void pass_time(std::uint32_t now_ms, std::uint32_t expiration, Release&& release) noexcept {
    expiration_ = expiration;
    const auto check = checks_.pass_time(now_ms, size_ > most_);
    if (check != CacheChecks::Kind::none) begin_sweep(check);
    if (sweep_left_ != 0) sweep(release);
  }
  // Seconds since the first call.
  std::uint32_t now() const noexcept { return checks_.now(); }
  std::uint32_t size() const noexcept { return size_; }

  // Null: it is not remembered. Counts as asked for.
  template <class Release>
  Content* find(const DestinationKey& key, Release&& release) noexcept {
    for (std::uint32_t* link = &buckets_[bucket_of(key)]; *link != kNone;) {
      Entry& entry = entries_[*link];
      if (entry.key != key) {
        link = &entry.next;
        continue;
      }
      if (has_expired(entry)) {
        remove(*link, release);
        return nullptr;
      }
      entry.last_use = now();
      return &entry.content;
    }
    return nullptr;
  }
  // Of a destination that is not remembered yet. Null: there is no room.
  Content* insert(const DestinationKey& key) noexcept {
    if (free_ == kNone) return nullptr;
    const std::uint32_t at = free_;
    Entry& entry = entries_[at];
    free_ = entry.next;
    std::uint32_t& bucket = buckets_[bucket_of(key)];
    entry = {.key = key, .next = bucket, .last_use = now(), .content = {}};
    bucket = at;
    ++size_;
    return &entry.content;
  }

 private:
  static constexpr std::uint32_t kNone = 0xffffffff;
  static constexpr std::uint32_t kIdleSeconds = 6 * 60;
  static constexpr std::uint32_t kBucketsPerCall = 16;

  struct Entry {
    DestinationKey key{};
    std::uint32_t next = kNone;
    std::uint32_t last_use = 0;
    Content content{};
  };

  static constexpr unsigned bucket_bits(std::uint32_t entries) noexcept {
    unsigned bits = 4;
    while ((std::uint32_t{1} << bits) < entries) ++bits;
    return bits;
  }
  std::size_t bucket_of(const DestinationKey& key) const noexcept {
    std::uint64_t hash = (key.first ^ seed_) * 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ hash >> 32 ^ key.second) * 0xd6e8feb86659fd93ULL;
    return (hash ^ hash >> 32) & (buckets_.size() - 1);
  }

  bool has_expired(const Entry& entry) const noexcept {
    return checks_.last_full() != 0 &&
           checks_.last_full() >= std::uint64_t{entry.last_use} + expiration_;
  }
  template <class Release>
  void remove(std::uint32_t& link, Release& release) noexcept {
    const std::uint32_t at = link;
    link = entries_[at].next;
    release(entries_[at].content);
    entries_[at].next = free_;
    free_ = at;
    --size_;
  }

  void begin_sweep(CacheChecks::Kind kind) noexcept {
    sweep_ = kind;
    sweep_left_ = static_cast<std::uint32_t>(buckets_.size());
    sweep_time_ = now();
    goal_ = size_ > most_ ? std::min((size_ - most_) * 4 / 3, most_ / 2) : 0;
  }
  bool is_swept(const Entry& entry) const noexcept {
    if (sweep_ == CacheChecks::Kind::full) return has_expired(entry);
    return sweep_time_ >= entry.last_use + kIdleSeconds;
  }
  // IPVS looks whether the goal is reached after each bucket.
  template <class Release>
  void sweep(Release& release) noexcept {
    for (std::uint32_t i = 0; i < kBucketsPerCall && sweep_left_ != 0; ++i, --sweep_left_) {
      rover_ = (rover_ + 1) & (buckets_.size() - 1);
      for (std::uint32_t* link = &buckets_[rover_]; *link != kNone;) {
        Entry& entry = entries_[*link];
        if (!is_swept(entry)) {
          link = &entry.next;
          continue;
        }
        remove(*link, release);
        if (goal_ != 0) --goal_;
      }
      if (sweep_ == CacheChecks::Kind::idle && goal_ == 0) sweep_left_ = 1;
    }
  }

  const std::uint32_t most_;
  const std::uint64_t seed_;
  std::vector<std::uint32_t> buckets_;
  std::vector<Entry> entries_;
  std::uint32_t free_ = 0;
  std::uint32_t size_ = 0;
  std::uint32_t expiration_ = 0;
  CacheChecks checks_;
  CacheChecks::Kind sweep_ = CacheChecks::Kind::none;
  std::uint32_t sweep_left_ = 0;
  std::uint32_t sweep_time_ = 0;
  std::uint32_t goal_ = 0;
  std::size_t rover_ = 0;
};

}  // namespace weir
