// SPDX-License-Identifier: Apache-2.0
// Next-hop slots and the kernel's neighbours behind them, kept fresh.
//
// weir forwards behind the kernel's back, so the kernel takes every neighbour for idle. Each one
// that a slot stands for is therefore made to prove itself every kProbeInterval (a unicast probe);
// one that fails three probes is asked for anew by broadcast. With the kernel's default timing a
// silently changed MAC is known after at most 2.5 s + 3 s. Until then, and while a neighbour does
// not answer, its last known MAC stays in use.
//
// A slot's index means one (interface, address) until release_unused() says that slots were freed.
// Cost: one probe, one answer and about three events per neighbour and interval; with more than
// kMostQuestions neighbours a tick, the interval grows.
// Thread: the control thread. Source: net/core/neighbour.c, arp(7).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "control/host/netlink_messages.h"
#include "dataplane/table/routes.h"

namespace weir {

class Neighbours {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kProbeInterval{2500};
  static constexpr std::chrono::milliseconds kTick{25};  // probes are spread over the ticks
  static constexpr std::size_t kMostQuestions = 32;      // of one tick
  static constexpr std::chrono::minutes kIdleTime{5};
  // Spoofed clients "on link" must neither fill the table nor cause a flood of questions: who never
  // answered is given up early, and some slots are kept for gateways and real servers.
  static constexpr std::chrono::seconds kUnansweredTime{10};
  static constexpr std::size_t kMaxSlots = Routes::kMaxNextHops;
  static constexpr std::size_t kReservedSlots = 8192;

  enum class Question {
    probe,    // ask the known MAC whether it still has the address
    resolve,  // ask everybody, unless the kernel knows
  };
  // Makes the kernel ask; returns errno.
  using Ask = std::function<int(std::uint32_t link, const IpAddress&, Question)>;

  explicit Neighbours(Ask ask) : ask_(std::move(ask)) { index_.reserve(kMaxSlots); }

  struct Key {
    std::uint32_t link = 0;
    IpAddress address;
    friend bool operator==(const Key&, const Key&) = default;
    template <class H>
    friend H AbslHashValue(H hash, const Key& key) {
      return H::combine(std::move(hash), key.link, key.address.bytes());
    }
  };
  struct Slot {
    Key key;
    MacAddress mac;
    bool used = false;
    bool resolved = false;
    bool is_new = false;     // for take_changes()
    std::uint32_t pins = 0;  // by gateways and real servers: not released while there are any
    Clock::time_point last_use{};
    Clock::time_point last_question{};
  };

  std::span<const Slot> slots() const { return slots_; }

  // A slot that stays until it is unpinned as often.
  void pin(const Key& key, Clock::time_point now);
  void unpin(const Key& key);
  // A worker needs it: a slot, for as long as it is used.
  void want(const Key& key, Clock::time_point now);
  // Slots that are not as they were at the last call.
  std::vector<NextHopIndex> take_changes();
  bool has_changes() const { return !changes_.empty(); }
  void mark_used(NextHopIndex index, Clock::time_point now);

  // What the kernel says.
  void on_change(const HostNeighbour& neighbour, Clock::time_point now);
  void on_removal(const HostNeighbour& neighbour);
  void forget_states();  // before the kernel's whole list is read again

  // Asks about the slots whose turn it is; call every kTick.
  void tick(Clock::time_point now);
  // Frees slots that nobody used for kIdleTime (kUnansweredTime), and those of links for which
  // `exists` is false. True: an index may mean something else now.
  bool release_unused(Clock::time_point now, const std::function<bool(std::uint32_t)>& exists);

  std::vector<std::string> complaints() const;

 private:
  struct State {
    std::uint16_t bits = 0;  // NUD_*
    MacAddress mac;
  };

  // The slot of `key`, a new one if need be, as long as fewer than `limit` are taken.
  std::optional<NextHopIndex> slot_for(const Key& key, Clock::time_point now, std::size_t limit);
  static bool is_idle(const Slot& slot, Clock::time_point now);
  void refresh(Slot& slot, Clock::time_point now);
  void ask(Slot& slot, Question question, Clock::time_point now);
  void free_slot(NextHopIndex index);
  void note_change(NextHopIndex index);

  Ask ask_;
  std::vector<Slot> slots_;
  std::vector<NextHopIndex> free_;
  std::vector<NextHopIndex> changes_;
  absl::flat_hash_map<Key, NextHopIndex> index_;
  absl::flat_hash_map<Key, State> kernel_;  // all that the kernel knows
  std::size_t cursor_ = 0;
  int refusal_ = 0;  // errno of the last question to everybody
  bool exhausted_ = false;
};

}  // namespace weir
