// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/drop_entry.h"

#include <algorithm>

#include "dataplane/path/admission.h"
#include "dataplane/path/time_limits.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {
namespace {

constexpr std::uint32_t kAlways = 3;  // the mode
constexpr std::uint32_t kPlacesPerCall = 64;
constexpr std::uint32_t kMostPlacesPerTick = 512;
constexpr std::uint32_t kShare = 32;  // 1 / kShare of the table in a second
constexpr std::int32_t kIdleTicks = 60 * kTicksPerSecond;

template <class Address>
bool is_nearly_full(const ConnectionTable<Address>& table) noexcept {
  return table.size() >= table.capacity() - table.capacity() / 10;
}

// The sort of a connection decides what has to be said against it.
enum class Standing : std::uint8_t { stays, goes, goes_if_idle };

template <class Address>
Standing standing_of_template(const Snapshot& snapshot,
                              const Connection<Address>& record) noexcept {
  const bool assured = record.state != 0;
  const Service* service = snapshot.services[record.service_slot];
  // Those of one-packet services have no connections that could assure them.
  const bool never_assured = service == nullptr || service->one_packet;
  return assured || never_assured || record.packets_in != 0 ? Standing::stays : Standing::goes;
}

template <class Address>
Standing standing_of(const Snapshot& snapshot, const Connection<Address>& connection) noexcept {
  if (connection.has(kCompanion)) return Standing::stays;
  if (connection.has(kTemplate)) return standing_of_template(snapshot, connection);
  if (connection.protocol == Protocol::tcp) {
    const TcpState state = connection.tcp_state();
    if (state == TcpState::syn_recv || state == TcpState::synack) return Standing::goes;
    return state == TcpState::established ? Standing::goes_if_idle : Standing::stays;
  }
  if (connection.protocol == Protocol::sctp) {
    const SctpState state = connection.sctp_state();
    if (state == SctpState::init1 || state == SctpState::init) return Standing::goes;
    return state == SctpState::established ? Standing::goes_if_idle : Standing::stays;
  }
  return is_unanswered(connection) ? Standing::goes : Standing::goes_if_idle;
}

// todrop_entry.
template <class Address>
bool is_idle(const Settings& settings, const Connection<Address>& connection, std::uint32_t now,
             DropEntryWalk& walk) noexcept {
  if (idle_ticks(settings, connection, now) < kIdleTicks) return false;
  const std::uint32_t packets = connection.packets_in;
  if (packets == 0 || packets >= walk.countdown.size()) return false;
  std::uint8_t& countdown = walk.countdown[packets];
  if (countdown > 1) {
    --countdown;
    return false;
  }
  countdown = static_cast<std::uint8_t>(packets);
  return true;
}

template <class Address>
void look_at(WorkerState& worker, const Snapshot& snapshot, DropEntryWalk& walk,
             std::uint32_t index, bool idle_too) noexcept {
  const auto& connection = worker.table<Address>()[index];
  if (!connection.has(kInUse)) return;
  const Standing standing = standing_of(snapshot, connection);
  const bool goes =
      standing == Standing::goes || (standing == Standing::goes_if_idle && idle_too &&
                                     is_idle(*snapshot.settings, connection, worker.now, walk));
  if (goes && give_up_connection<Address>(worker, snapshot, index)) worker.own().given_up.add(1);
}

template <class Address>
std::uint32_t places_of_tick(const ConnectionTable<Address>& table, const WorkerState& worker,
                             DropEntryWalk& walk) noexcept {
  if (walk.last_tick == worker.now) return 0;
  walk.last_tick = worker.now;
  return std::min(table.high_water() / (kShare * kTicksPerSecond) + 1, kMostPlacesPerTick);
}

template <class Address>
void drop_entries_of(WorkerState& worker, const Snapshot& snapshot, DropEntryWalk& walk) noexcept {
  const auto& table = worker.table<Address>();
  const bool always = snapshot.settings->drop_entry == kAlways;
  const bool full = is_nearly_full(table);
  if (!full) walk.looked_at = 0;
  const std::uint32_t places = full     ? kPlacesPerCall
                               : always ? places_of_tick(table, worker, walk)
                                        : 0;
  for (std::uint32_t i = 0; i < places && table.size() != 0; ++i) {
    if (!always && !is_nearly_full(table)) return;
    if (walk.position >= table.high_water()) walk.position = 0;
    look_at<Address>(worker, snapshot, walk, walk.position,
                     always || walk.looked_at >= table.high_water());
    ++walk.position;
    if (walk.looked_at < table.high_water()) ++walk.looked_at;
  }
}

}  // namespace

void drop_entries(WorkerState& worker, const Snapshot& snapshot) noexcept {
  if (snapshot.settings->drop_entry == 0) return;
  drop_entries_of<Ipv4Address>(worker, snapshot, worker.drop_entry_walks[0]);
  drop_entries_of<Ipv6Address>(worker, snapshot, worker.drop_entry_walks[1]);
}

}  // namespace weir
