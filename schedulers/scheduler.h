// SPDX-License-Identifier: Apache-2.0
// What every scheduler is: a rule that picks one real server of a service for a new connection,
// with the semantics of IPVS (net/netfilter/ipvs/ip_vs_<name>.c), tie-breaking included.
//
// A Scheduler object is the mutable state of one service on one worker. Control makes it and lets
// it replay the edits so far; from its publication on only its worker touches it. IPVS's state
// depends on every edit and not only on the last list, so edits reach it one by one, in order.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace weir {

// A real server's stable place in all per-worker arrays; reused only after it is free everywhere.
using ServerSlot = std::uint32_t;

// One real server of the list that a scheduler picks from.
struct Candidate {
  ServerSlot slot = 0;
  std::int32_t weight = 0;  // 0: no new connections
};

// Connections of one real server (IPVS: activeconns, inactconns), templates not counted.
struct Load {
  std::uint32_t active = 0;
  std::uint32_t inactive = 0;
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
// any ipvsadm -e, also one that changes nothing; `bind` gives a list that already exists to a
// scheduler that replaces another (ipvsadm -E -s), and is then its first edit.
struct Edit {
  enum class Kind : std::uint8_t { add, remove, change, bind };
  Kind kind = Kind::add;
  std::uint32_t position = 0;
  // Of the list as it is after this edit, over weights > 0; gcd is 1 where there are none.
  std::int32_t weight_gcd = 1;
  std::int32_t max_weight = 0;
};

// The edit that led to the list `after`. Any thread.
Edit make_edit(Edit::Kind kind, std::uint32_t position, std::span<const Candidate> after) noexcept;

struct PickInput {
  std::span<const Candidate> candidates;  // newest first; all edits up to it have been applied
  const LoadView& loads;
  // What the rules that hash look at: 4 or 16 bytes as on the wire; the port in host order.
  std::span<const std::uint8_t> client_address = {};
  std::span<const std::uint8_t> destination_address = {};
  std::uint16_t client_port = 0;
};

// Whether a real server takes new connections at all.
inline bool eligible(const Candidate& candidate, const LoadView& loads) noexcept {
  return candidate.weight > 0 && !loads.overloaded(candidate.slot);
}

class Scheduler {
 public:
  virtual ~Scheduler() = default;
  // Both run on packets' time: they never allocate, block or fail otherwise than by no pick.
  virtual void apply(const Edit& edit) noexcept = 0;
  // Position in `candidates`, or nothing where no real server may take the connection.
  virtual std::optional<std::uint32_t> pick(const PickInput& input) noexcept = 0;
};

// A scheduler for the name that ipvsadm -s takes, or null. `worker` (from 0) of `workers` lets
// rules that go round start staggered, so that the sum over the workers stays fair; worker 0 is
// exactly IPVS. Control thread.
std::unique_ptr<Scheduler> make_scheduler(std::string_view name, unsigned worker, unsigned workers);

// The names that make_scheduler knows, sorted.
std::span<const std::string_view> scheduler_names();

}  // namespace weir
