// SPDX-License-Identifier: Apache-2.0
#include "control/host/neighbours.h"

#include <linux/neighbour.h>

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

namespace weir {

namespace {

constexpr std::uint16_t kFixed = NUD_PERMANENT | NUD_NOARP;
constexpr std::uint16_t kValid = kFixed | NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE;
constexpr std::uint16_t kBeingAsked = NUD_INCOMPLETE | NUD_PROBE;
constexpr std::chrono::milliseconds kMinQuestionGap{500};  // for one neighbour, however many ask

std::optional<std::size_t> table_limit(const std::string& family) {
  std::ifstream file("/proc/sys/net/" + family + "/neigh/default/gc_thresh3");
  std::size_t limit = 0;
  if (file >> limit) return limit;
  return std::nullopt;  // only the first network namespace shows it
}

}  // namespace

void Neighbours::pin(const Key& key, Clock::time_point now) {
  if (const auto index = slot_for(key, now, kMaxSlots)) ++slots_[*index].pins;
}

void Neighbours::unpin(const Key& key) {
  const auto known = index_.find(key);
  // Its link may have gone, and the slot with it.
  if (known != index_.end() && slots_[known->second].pins != 0) --slots_[known->second].pins;
}

void Neighbours::want(const Key& key, Clock::time_point now) {
  const auto index = slot_for(key, now, kMaxSlots - kReservedSlots);
  if (!index) return;
  Slot& slot = slots_[*index];
  slot.last_use = now;
  if (!slot.resolved) refresh(slot, now);
}

void Neighbours::note_change(NextHopIndex index) {
  if (!std::exchange(slots_[index].is_new, true)) changes_.push_back(index);
}

std::vector<NextHopIndex> Neighbours::take_changes() {
  for (const NextHopIndex index : changes_) slots_[index].is_new = false;
  return std::exchange(changes_, {});
}

void Neighbours::mark_used(NextHopIndex index, Clock::time_point now) {
  if (index < slots_.size()) slots_[index].last_use = now;
}

std::optional<NextHopIndex> Neighbours::slot_for(const Key& key, Clock::time_point now,
                                                 std::size_t limit) {
  if (const auto known = index_.find(key); known != index_.end()) return known->second;
  exhausted_ = index_.size() >= limit;
  if (exhausted_) return std::nullopt;
  if (free_.empty()) {
    free_.push_back(static_cast<NextHopIndex>(slots_.size()));
    slots_.emplace_back();
  }
  const NextHopIndex index = free_.back();
  free_.pop_back();
  index_.emplace(key, index);
  note_change(index);
  Slot& slot = slots_[index];
  slot = Slot{.is_new = true};
  slot.key = key;
  slot.used = true;
  slot.last_use = now;
  if (const auto state = kernel_.find(key);
      state != kernel_.end() && (state->second.bits & kValid) != 0) {
    slot.mac = state->second.mac;
    slot.resolved = true;
  }
  refresh(slot, now);
  return index;
}

void Neighbours::on_change(const HostNeighbour& neighbour, Clock::time_point now) {
  const Key key{neighbour.link, neighbour.address};
  State& state = kernel_[key];
  const bool was_probed = (state.bits & NUD_PROBE) != 0;
  state.bits = neighbour.state;
  if (neighbour.mac) state.mac = *neighbour.mac;
  const auto known = index_.find(key);
  if (known == index_.end()) return;
  Slot& slot = slots_[known->second];
  if ((neighbour.state & kValid) != 0 && neighbour.mac) {
    if (!slot.resolved || slot.mac != *neighbour.mac) note_change(known->second);
    slot.mac = *neighbour.mac;
    slot.resolved = true;
    return;
  }
  // The known MAC does not answer any more: ask everybody now, not at the slot's next turn.
  if ((neighbour.state & NUD_FAILED) != 0 && was_probed) ask(slot, Question::resolve, now);
}

void Neighbours::on_removal(const HostNeighbour& neighbour) {
  kernel_.erase({neighbour.link, neighbour.address});
}

void Neighbours::forget_states() { kernel_.clear(); }

void Neighbours::tick(Clock::time_point now) {
  constexpr std::size_t kTurns = kProbeInterval / kTick;
  const std::size_t count = std::min((slots_.size() + kTurns - 1) / kTurns, kMostQuestions);
  for (std::size_t i = 0; i < count; ++i) {
    cursor_ = (cursor_ + 1) % slots_.size();
    Slot& slot = slots_[cursor_];
    if (slot.used && !is_idle(slot, now)) refresh(slot, now);
  }
}

void Neighbours::refresh(Slot& slot, Clock::time_point now) {
  const auto state = kernel_.find(slot.key);
  const std::uint16_t bits = state == kernel_.end() ? std::uint16_t{NUD_NONE} : state->second.bits;
  if ((bits & (kFixed | kBeingAsked)) != 0) return;
  ask(slot, (bits & kValid) != 0 ? Question::probe : Question::resolve, now);
}

void Neighbours::ask(Slot& slot, Question question, Clock::time_point now) {
  if (now - slot.last_question < kMinQuestionGap) return;
  slot.last_question = now;
  const int error = ask_(slot.key.link, slot.key.address, question);
  // A probe may find the neighbour gone, or its link down; the next turn resolves it again.
  if (question == Question::resolve) refusal_ = error == ENOBUFS || error == EPERM ? error : 0;
}

bool Neighbours::release_unused(Clock::time_point now,
                                const std::function<bool(std::uint32_t)>& exists) {
  bool released = false;
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (!slot.used) continue;
    if (!is_idle(slot, now) && exists(slot.key.link)) continue;
    free_slot(static_cast<NextHopIndex>(i));
    released = true;
  }
  return released;
}

bool Neighbours::is_idle(const Slot& slot, Clock::time_point now) {
  if (slot.pins != 0) return false;
  return now - slot.last_use >
         (slot.resolved ? Clock::duration(kIdleTime) : Clock::duration(kUnansweredTime));
}

void Neighbours::free_slot(NextHopIndex index) {
  index_.erase(slots_[index].key);
  note_change(index);
  slots_[index] = Slot{.is_new = true};
  free_.push_back(index);
}

std::vector<std::string> Neighbours::complaints() const {
  std::vector<std::string> result;
  for (const std::string family : {"ipv4", "ipv6"}) {
    const auto limit = table_limit(family);
    const auto in_use = static_cast<std::size_t>(std::ranges::count_if(slots_, [&](const Slot& s) {
      return s.used && s.key.address.is_ipv4() == (family == "ipv4");
    }));
    if (!limit || in_use * 5 < *limit * 4) continue;
    result.push_back(absl::StrCat(in_use, " neighbours are in use and net.", family,
                                  ".neigh.default.gc_thresh3 is ", *limit, ": raise it"));
  }
  if (exhausted_) {
    result.push_back(absl::StrCat("all ", kMaxSlots,
                                  " next hops are taken: put a router between "
                                  "weir and some of its neighbours"));
  }
  if (refusal_ != 0) {
    result.push_back(absl::StrCat("the kernel refuses to resolve a neighbour (",
                                  std::strerror(refusal_),
                                  "): check CAP_NET_ADMIN and net.ipv4.neigh.default.gc_thresh3"));
  }
  return result;
}

}  // namespace weir
