// SPDX-License-Identifier: Apache-2.0
// The best real server by a rule that compares loads, without a walk through the list: a tournament
// tree over the places of RankedServers, in which each node names the better of its two children.
//
// Rule (all static, noexcept, pure):
//   bool takes(const RankedServer&)     may have a connection, thresholds apart;
//   weak_ordering compare(a, b)         less: a is better. Of equals the newest is picked;
//   bool counts(const RankedServer&)    is among counted().
//
// Cost: best() is O(1) and O(log n) for each load that has changed since the last call. A real
// server that is found overloaded leaves the tree; it comes back when its load changes, and
// otherwise within kLooks calls or kLooksPerTick of them looked at each millisecond.
// The loads of other workers change without notice. The winner's is read again before it is picked,
// and the next one's where it has risen, kRepeats times at most; the others' in rotation,
// kLooksPerTick places each millisecond and one more each call: that is all of them every
// millisecond up to 64 places, and every n / 64 milliseconds beyond.
// Written by: one worker (by control before its publication). Never allocates on packets' time.
#pragma once

#include <algorithm>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <vector>

#include "schedulers/growing.h"
#include "schedulers/ranked_servers.h"
#include "schedulers/scheduler.h"

namespace weir {

enum class LoadWriters : std::uint8_t { this_worker, several_workers };

template <class Rule>
class LoadIndex {
 public:
  static constexpr std::uint32_t kNone = RankedServers::kNone;
  static constexpr std::uint32_t kLooks = 8;
  static constexpr std::uint32_t kLooksPerTick = 64;

  explicit LoadIndex(LoadWriters writers) : writers_(writers), content_(kSmallest) {}

  // Control thread.
  void bind(std::span<const Candidate> candidates);
  void reserve(std::size_t servers) { content_.reserve(servers); }

  void apply(const Edit& edit) noexcept;
  void load_changed(ServerSlot slot) noexcept;

  // The place of the best real server that takes connections, or kNone. The loads of all places are
  // as described above after it.
  std::uint32_t best(const LoadView& loads, std::uint32_t now_ms) noexcept;
  // Brings the loads up to date, as best() does.
  void refresh(const LoadView& loads, std::uint32_t now_ms) noexcept;

  std::uint32_t find(ServerSlot slot) const noexcept { return content_->servers.find(slot); }
  const RankedServer& operator[](std::uint32_t place) const noexcept {
    return content_->servers[place];
  }
  // Real servers that the rule counts, overloaded ones too.
  std::uint32_t counted() const noexcept { return counted_; }

 private:
  static constexpr std::size_t kSmallest = 4;
  static constexpr int kRepeats = 8;

  struct Content {
    explicit Content(std::size_t capacity)
        : servers(capacity), winners(2 * capacity, kNone), unread(capacity), closed(capacity) {}
    void adopt(Content& smaller) noexcept {
      servers.adopt(smaller.servers);
      std::ranges::copy(smaller.unread, unread.begin());
      std::ranges::copy(smaller.closed, closed.begin());
    }

    RankedServers servers;
    std::vector<std::uint32_t> winners;  // root at 1, the leaf of place p at capacity + p
    // The first `unread_` and `closed_` are places; both may name places that have been left.
    std::vector<std::uint32_t> unread;
    std::vector<std::uint32_t> closed;
  };

  void add(const Candidate& candidate) noexcept;
  void remove(std::uint32_t place) noexcept;
  void note_unread(std::uint32_t place) noexcept;
  void read(std::uint32_t place, const LoadView& loads) noexcept;
  void read_unread(const LoadView& loads) noexcept;
  void look_at_closed(const LoadView& loads, std::uint32_t looks) noexcept;
  void look_at_others(const LoadView& loads, std::uint32_t looks) noexcept;
  bool is_stale(std::uint32_t place, const LoadView& loads) const noexcept;
  void count(RankedServer& server) noexcept;

  std::uint32_t leaf_winner(std::uint32_t place) const noexcept;
  std::uint32_t better_of(std::uint32_t a, std::uint32_t b) const noexcept;
  void update(std::uint32_t place) noexcept;
  void rebuild() noexcept;

  const LoadWriters writers_;
  Growing<Content> content_;
  std::uint32_t unread_ = 0;
  std::uint32_t closed_ = 0;
  std::uint32_t counted_ = 0;
  std::uint32_t next_closed_ = 0;  // where look_at_closed goes on
  std::uint32_t next_other_ = 0;   // where look_at_others goes on
  std::uint32_t tick_ = 0;
};

// ---- The list ----

template <class Rule>
void LoadIndex<Rule>::bind(std::span<const Candidate> candidates) {
  content_.reserve(candidates.size());
  content_.grow();
  for (std::size_t at = candidates.size(); at > 0; --at) add(candidates[at - 1]);
}

template <class Rule>
void LoadIndex<Rule>::add(const Candidate& candidate) noexcept {
  std::uint32_t place = content_->servers.add(candidate);
  if (place == kNone) {
    // Control reserves room before it publishes an addition.
    if (!content_.grow()) std::terminate();
    rebuild();
    place = content_->servers.add(candidate);
  }
  note_unread(place);
}

template <class Rule>
void LoadIndex<Rule>::remove(std::uint32_t place) noexcept {
  RankedServer& server = content_->servers[place];
  if (server.counted) --counted_;
  // The place may be given again: nothing is to remember it.
  if (server.unread) {
    std::uint32_t* const first = content_->unread.data();
    *std::find(first, first + unread_, place) = first[unread_ - 1];
    --unread_;
  }
  if (server.closed) {
    std::uint32_t* const first = content_->closed.data();
    *std::find(first, first + closed_, place) = first[closed_ - 1];
    --closed_;
  }
  content_->servers.remove(place);
  update(place);
}

template <class Rule>
void LoadIndex<Rule>::apply(const Edit& edit) noexcept {
  if (edit.kind == Edit::Kind::add) return add(edit.server);
  const std::uint32_t place = find(edit.server.slot);
  if (place == kNone) return;
  if (edit.kind == Edit::Kind::remove) return remove(place);
  content_->servers[place].weight = edit.server.weight;
  note_unread(place);
}

// ---- Loads ----

template <class Rule>
void LoadIndex<Rule>::load_changed(ServerSlot slot) noexcept {
  const std::uint32_t place = find(slot);
  if (place != kNone) note_unread(place);
}

template <class Rule>
void LoadIndex<Rule>::note_unread(std::uint32_t place) noexcept {
  RankedServer& server = content_->servers[place];
  if (server.unread) return;
  server.unread = true;
  content_->unread[unread_++] = place;
}

template <class Rule>
void LoadIndex<Rule>::count(RankedServer& server) noexcept {
  const bool counts = Rule::counts(server);
  if (counts == server.counted) return;
  server.counted = counts;
  counted_ += counts ? 1U : 0xffffffffU;
}

// The tree does not know of it yet.
template <class Rule>
void LoadIndex<Rule>::read(std::uint32_t place, const LoadView& loads) noexcept {
  RankedServer& server = content_->servers[place];
  server.load = loads.load(server.slot);
  count(server);
  const bool closed = loads.overloaded(server.slot);
  if (closed == server.closed) return;
  server.closed = closed;
  std::uint32_t* const first = content_->closed.data();
  if (closed) {
    first[closed_++] = place;
  } else {
    *std::find(first, first + closed_, place) = first[closed_ - 1];
    --closed_;
  }
}

template <class Rule>
void LoadIndex<Rule>::read_unread(const LoadView& loads) noexcept {
  const bool many = unread_ > content_->servers.capacity() / 8;
  for (std::uint32_t i = 0; i < unread_; ++i) {
    const std::uint32_t place = content_->unread[i];
    content_->servers[place].unread = false;
    read(place, loads);
    if (!many) update(place);
  }
  if (many) rebuild();
  unread_ = 0;
}

template <class Rule>
void LoadIndex<Rule>::look_at_closed(const LoadView& loads, std::uint32_t looks) noexcept {
  for (std::uint32_t look = std::min(looks, closed_); look > 0 && closed_ > 0; --look) {
    if (next_closed_ >= closed_) next_closed_ = 0;
    const std::uint32_t place = content_->closed[next_closed_];
    read(place, loads);
    // Open again: another has come to its place in the list of the closed.
    if (content_->servers[place].closed) {
      ++next_closed_;
    } else {
      update(place);
    }
  }
}

template <class Rule>
bool LoadIndex<Rule>::is_stale(std::uint32_t place, const LoadView& loads) const noexcept {
  const RankedServer& server = content_->servers[place];
  return server.listed && !(loads.load(server.slot) == server.load);
}

template <class Rule>
void LoadIndex<Rule>::look_at_others(const LoadView& loads, std::uint32_t looks) noexcept {
  const std::uint32_t places = content_->servers.places();
  for (std::uint32_t look = std::min(looks, places); look > 0; --look) {
    if (next_other_ >= places) next_other_ = 0;
    const std::uint32_t place = next_other_++;
    if (!is_stale(place, loads)) continue;
    read(place, loads);
    update(place);
  }
}

template <class Rule>
void LoadIndex<Rule>::refresh(const LoadView& loads, std::uint32_t now_ms) noexcept {
  const bool tick = now_ms != tick_;
  tick_ = now_ms;
  if (unread_ != 0) read_unread(loads);
  if (closed_ != 0) look_at_closed(loads, tick ? kLooksPerTick : kLooks);
  if (writers_ == LoadWriters::several_workers) look_at_others(loads, tick ? kLooksPerTick : 1);
}

template <class Rule>
std::uint32_t LoadIndex<Rule>::best(const LoadView& loads, std::uint32_t now_ms) noexcept {
  refresh(loads, now_ms);
  for (int repeats = kRepeats;;) {
    const std::uint32_t place = content_->winners[1];
    if (place == kNone) return kNone;
    const bool closed = loads.overloaded(content_->servers[place].slot);
    const bool stale =
        writers_ == LoadWriters::several_workers && repeats > 0 && is_stale(place, loads);
    if (!closed && !stale) return place;
    // One that is closed does not win again in this call; a load may change for ever.
    if (!closed) --repeats;
    read(place, loads);
    update(place);
  }
}

// ---- The tree ----

template <class Rule>
std::uint32_t LoadIndex<Rule>::leaf_winner(std::uint32_t place) const noexcept {
  const RankedServer& server = content_->servers[place];
  return server.listed && !server.closed && Rule::takes(server) ? place : kNone;
}

template <class Rule>
std::uint32_t LoadIndex<Rule>::better_of(std::uint32_t a, std::uint32_t b) const noexcept {
  if (a == kNone) return b;
  if (b == kNone) return a;
  const RankedServer& first = content_->servers[a];
  const RankedServer& second = content_->servers[b];
  const std::weak_ordering order = Rule::compare(first, second);
  if (order < 0) return a;
  if (order > 0) return b;
  return first.age > second.age ? a : b;
}

template <class Rule>
void LoadIndex<Rule>::update(std::uint32_t place) noexcept {
  auto& winners = content_->winners;
  std::size_t node = winners.size() / 2 + place;
  winners[node] = leaf_winner(place);
  while (node > 1) {
    node /= 2;
    const std::uint32_t winner = better_of(winners[2 * node], winners[2 * node + 1]);
    // Above, it was not the winner and is not.
    if (winner == winners[node] && winner != place) return;
    winners[node] = winner;
  }
}

template <class Rule>
void LoadIndex<Rule>::rebuild() noexcept {
  auto& winners = content_->winners;
  const std::size_t leaves = winners.size() / 2;
  for (std::uint32_t place = 0; place < content_->servers.places(); ++place) {
    winners[leaves + place] = leaf_winner(place);
  }
  for (std::size_t node = leaves - 1; node > 0; --node) {
    winners[node] = better_of(winners[2 * node], winners[2 * node + 1]);
  }
}

}  // namespace weir
