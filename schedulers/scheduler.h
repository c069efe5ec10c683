// SPDX-License-Identifier: Apache-2.0
// What every scheduler is: a rule that picks one real server of a service for a new connection,
// with the semantics of IPVS (net/netfilter/ipvs/ip_vs_<name>.c), tie-breaking included.
//
// A Scheduler object is the mutable state of one service on one worker. Control makes it, binds it
// to the list of the moment and reserves room; from its publication on only its worker touches the
// rest. IPVS's state depends on every edit and not only on the last list, so edits reach it one by
// one, in order. What depends on the last list alone is a LookupTable: control builds it once for
// each change of the list, and all workers share it.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weir {

// A real server's stable place in all per-worker arrays; reused only after it is free everywhere.
using ServerSlot = std::uint32_t;
inline constexpr ServerSlot kNoServer = 0xffffffff;

// One real server of the list that a scheduler picks from.
struct Candidate {
  ServerSlot slot = 0;
  std::int32_t weight = 0;  // 0: no new connections
  // The last weight above 0 since the addition, or 0: by it mh keeps the place of who is drained.
  std::int32_t last_weight = 0;
  std::uint32_t generation = 0;  // of the slot: tells apart those who have it one after another
  friend bool operator==(const Candidate&, const Candidate&) noexcept = default;
};

// What mh and conhash tell a real server by: its address as on the wire, an IPv4 one followed by
// zeros, and its port in host order. mh looks at as many bytes as the service's own address has.
struct ServerName {
  std::array<std::uint8_t, 16> address{};
  std::uint8_t service_bytes = 4;
  std::uint16_t port = 0;
  friend auto operator<=>(const ServerName&, const ServerName&) = default;
};

// Connections of one real server (IPVS: activeconns, inactconns), templates not counted.
struct Load {
  std::uint32_t active = 0;
  std::uint32_t inactive = 0;
  friend bool operator==(const Load&, const Load&) noexcept = default;
};

// The load of a slot over all workers, and whether its thresholds close it to new connections.
class LoadView {
 public:
  virtual Load load(ServerSlot slot) const noexcept = 0;
  virtual bool overloaded(ServerSlot slot) const noexcept = 0;

 protected:
  ~LoadView() = default;
};

// A change of the list. `position` counts from the head of the list, where IPVS adds new real
// servers: for an addition it is always 0; for a removal it is the place that was left. `change` is
// any ipvsadm -e, also one that changes nothing.
struct Edit {
  enum class Kind : std::uint8_t { add, remove, change };
  Kind kind = Kind::add;
  std::uint32_t position = 0;
  Candidate server;  // as it is after the edit, or was before its removal
  // Of the list as it is after this edit, over weights > 0; gcd is 1 where there are none.
  std::int32_t weight_gcd = 1;
  std::int32_t max_weight = 0;
};

// The edit of `server` that led to the list `after`. Any thread.
Edit make_edit(Edit::Kind kind, std::uint32_t position, const Candidate& server,
               std::span<const Candidate> after) noexcept;

struct SchedulerOptions {
  std::string name;                // as for ipvsadm -s
  std::vector<std::string> flags;  // as for ipvsadm -b
  std::uint32_t table_size = 0;    // of mh and conhash; 0: the default
  friend bool operator==(const SchedulerOptions&, const SchedulerOptions&) = default;
};

// What a rule can know of the list before any packet comes. Each scheduler uses one part.
struct LookupTable {
  static constexpr std::uint32_t kNobody = 0xffffffff;
  // dh, sh, mh, conhash: the position in the list for each value of the hash, or kNobody; and what
  // the flags ask for.
  std::vector<std::uint32_t> positions;
  std::uint64_t reciprocal = 0;  // mh, conhash: 2^64 / positions.size(), rounded up
  bool hashes_port = false;
  bool falls_back = false;
  // wrr: the greatest weight of each subtree of a binary tree over the list, root at 1.
  std::vector<std::int32_t> greatest_weights;
  // wrr: positions of weights > 0, the heaviest first.
  std::vector<std::uint32_t> heaviest_first;
  // twos: for each position the sum of the weights > 0 up to it.
  std::vector<std::uint64_t> running_weights;
};

struct PickInput {
  std::span<const Candidate> candidates;  // newest first; all edits up to it have been applied
  const LoadView& loads;
  const LookupTable* table = nullptr;  // made of `candidates`; null where make_table gives none
  // What the rules that hash look at: 4 or 16 bytes as on the wire; the port in host order.
  std::span<const std::uint8_t> client_address = {};
  std::span<const std::uint8_t> destination_address = {};
  std::uint16_t client_port = 0;
  std::uint32_t now_ms = 0;  // a coarse clock; wraps
  // Seconds that lblc and lblcr keep what nobody asks for (net.ipv4.vs.lblc_expiration).
  std::uint32_t lblc_expiration = 24 * 60 * 60;
  std::uint32_t lblcr_expiration = 24 * 60 * 60;
};

// Whether a real server takes new connections at all.
inline bool eligible(const Candidate& candidate, const LoadView& loads) noexcept {
  return candidate.weight > 0 && !loads.overloaded(candidate.slot);
}

class Scheduler {
 public:
  virtual ~Scheduler() = default;

  // Control thread; both may allocate. `bind`, once and before any edit: the list to begin with.
  // `reserve`, before edits that lead to a list this long are published.
  virtual void bind(std::span<const Candidate> candidates) = 0;
  virtual void reserve(std::size_t /*servers*/) {}

  // On packets' time: these never allocate, block or fail otherwise than by no pick.
  virtual void apply(const Edit& edit) noexcept = 0;
  // One of `candidates`, or kNoServer where none may take the connection. Not an
  // optional: gcc 12 writes that to memory in two parts and reads it back as one, a stall of 5 ns.
  virtual ServerSlot pick(const PickInput& input) noexcept = 0;
  // This worker's own load of a slot has changed.
  virtual void load_changed(ServerSlot) noexcept {}
  // Whether all choices for one destination are to be asked of one worker, because it remembers.
  virtual bool asks_one_owner() const noexcept { return false; }
};

// A sentence that says what cannot be (no such flag for this scheduler, no such table size), or
// nothing. An unknown name is make_scheduler's matter. Any thread.
std::optional<std::string> check_options(const SchedulerOptions& options);

// A scheduler for the name that ipvsadm -s takes, or null. `worker` (from 0) of `workers` lets
// rules that go round start staggered, so that the sum over the workers stays fair; worker 0 is
// exactly IPVS. Control thread.
std::unique_ptr<Scheduler> make_scheduler(const SchedulerOptions& options, unsigned worker,
                                          unsigned workers);

// Makes what the scheduler of its options looks up, for one list after the other. The same list
// gives the same table, whatever lists came before; but a table may cost less after one that is
// much the same. Control thread.
class TableMaker {
 public:
  TableMaker() = default;  // of nothing
  explicit TableMaker(SchedulerOptions options);

  const SchedulerOptions& options() const { return options_; }
  // Null where the scheduler looks up nothing. `names` are those of `candidates`, one by one.
  std::shared_ptr<const LookupTable> make(std::span<const Candidate> candidates,
                                          std::span<const ServerName> names);

 private:
  SchedulerOptions options_;
  std::function<LookupTable(std::span<const Candidate>, std::span<const ServerName>)> rule_;
};

// A single table.
std::shared_ptr<const LookupTable> make_table(const SchedulerOptions& options,
                                              std::span<const Candidate> candidates,
                                              std::span<const ServerName> names);

// The names that make_scheduler knows, sorted.
std::span<const std::string_view> scheduler_names();

}  // namespace weir
