// SPDX-License-Identifier: Apache-2.0
// What one worker owns. Made by control before the worker starts, then the worker's alone, but for
// the statistics and the tables' read() side.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dataplane/path/drop_entry.h"
#include "dataplane/path/gone_servers.h"
#include "dataplane/path/icmp/icmp_error.h"
#include "dataplane/path/packet.h"
#include "dataplane/path/reassembly.h"
#include "dataplane/path/statistics.h"
#include "dataplane/table/connection_table.h"
#include "dataplane/table/owner.h"

namespace weir {

inline constexpr std::size_t kMaxBurst = 32;

// What a worker tells the owner of a persistence template about a connection that the template
// controls. `index` is the template's place in the owner's table of `family`.
struct TemplateNotice {
  // given_up: released, because drop_entry has ended the connection before its time.
  enum class Kind : std::uint8_t { released, assured, given_up };
  Kind kind;
  Family family;
  std::uint16_t owner;  // worker
  std::uint32_t index;
};
static_assert(sizeof(TemplateNotice) == 8);

// Notices on their way out. The caller of the packet path empties it; while it is half full,
// connections that templates control stay open. The other half is for what cannot wait: only what
// another worker has chosen needs it, so that packets with such answers are left where they are
// while has_room_for_burst() is false, and nothing is lost.
class NoticeOutbox {
 public:
  bool put(const TemplateNotice& notice) noexcept {
    return count_ < notices_.size() / 2 && put_at_once(notice);
  }
  bool put_at_once(const TemplateNotice& notice) noexcept {
    if (count_ == notices_.size()) return false;
    notices_[count_++] = notice;
    return true;
  }
  // Calls send(notice) for each and keeps those for which it returns false.
  template <class Send>
  void flush(Send&& send) noexcept {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      if (!send(notices_[i])) notices_[kept++] = notices_[i];
    }
    count_ = kept;
  }
  bool empty() const noexcept { return count_ == 0; }
  // Whether all packets of a burst can say something that cannot wait.
  bool has_room_for_burst() const noexcept { return notices_.size() - count_ >= kMaxBurst; }

 private:
  std::array<TemplateNotice, 1024> notices_;
  std::size_t count_ = 0;
};

// Round the services that were edited lately, from where it is, however often a new version comes.
struct EditReplay {
  std::size_t next = 0;  // in Snapshot::edited
  std::size_t left = 0;
};

struct WorkerState {
  unsigned index = 0;
  unsigned workers = 1;
  const OwnerMap* owners = nullptr;  // of all workers alike
  ConnectionTable<Ipv4Address> ipv4;
  ConnectionTable<Ipv6Address> ipv6;
  WorkerStatistics* own_statistics = nullptr;
  // Of every worker, by index: a scheduler weighs the sum.
  std::span<WorkerStatistics* const> statistics;
  std::uint32_t now = 0;     // ticks, set once per burst
  std::uint32_t now_ms = 0;  // milliseconds of the same clock; wraps
  // A bit for each port whose frames may have unfinished checksums.
  std::uint32_t unfinished_checksum_ports = 0;
  IcmpBudget icmp_budget;
  std::uint16_t next_ip_id = 1;
  std::uint32_t next_fragment_id = 1;  // of IPv6; modulo `workers` it is this worker's
  Reassembly reassembly;
  NoticeOutbox notices;
  std::array<DropEntryWalk, 2> drop_entry_walks{};  // of ipv4, of ipv6
  GoneServerWalk gone_servers;
  EditReplay edits;

  // No two workers give the same: they may send from one address.
  std::uint32_t take_fragment_id() noexcept {
    const std::uint32_t id = next_fragment_id;
    next_fragment_id += workers;
    return id;
  }

  WorkerStatistics& own() noexcept { return *own_statistics; }

  template <class Address>
  ConnectionTable<Address>& table() noexcept {
    if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
      return ipv4;
    } else {
      return ipv6;
    }
  }
};

// For what is counted of the real server `slot`.
inline void count_packet(WorkerState& worker, ServerSlot slot, Direction direction,
                         const Packet& packet) noexcept {
  ServerCounters& counters = worker.own().servers[slot];
  if (direction == Direction::inbound) {
    counters.packets_in.add(1);
    counters.bytes_in.add(packet.ip_length);
  } else {
    counters.packets_out.add(1);
    counters.bytes_out.add(packet.ip_length);
  }
}

}  // namespace weir
