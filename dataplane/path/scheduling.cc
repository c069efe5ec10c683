// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/scheduling.h"

#include <limits>

namespace weir {
namespace {

std::uint32_t connections_of(const WorkerState& worker, ServerSlot slot) noexcept {
  std::uint32_t sum = 0;
  for (const WorkerStatistics* each : worker.statistics)
    sum += each->loads[slot].connections.read();
  return sum;
}

// ip_vs_bind_dest.
void close_at_threshold(const WorkerState& worker, const Snapshot& snapshot,
                        const RealServer& server) noexcept {
  if (server.upper_threshold == 0) return;
  if (connections_of(worker, server.slot) < server.upper_threshold) return;
  (*snapshot.shared)[server.slot].overloaded.store(true, std::memory_order_relaxed);
}

// ip_vs_unbind_dest.
void reopen_below_threshold(const WorkerState& worker, const Snapshot& snapshot,
                            const RealServer& server) noexcept {
  auto& overloaded = (*snapshot.shared)[server.slot].overloaded;
  if (!overloaded.load(std::memory_order_relaxed)) return;
  const std::uint64_t connections = connections_of(worker, server.slot);
  bool open = true;
  if (server.lower_threshold != 0) {
    open = connections < server.lower_threshold;
  } else if (server.upper_threshold != 0) {
    open = connections * 4 < std::uint64_t{server.upper_threshold} * 3;
  }
  if (open) overloaded.store(false, std::memory_order_relaxed);
}

void tell_scheduler(WorkerState& worker, const Snapshot& snapshot, ServiceSlot service,
                    ServerSlot slot) noexcept {
  const Service* changed = snapshot.services[service];
  if (changed == nullptr) return;
  (*changed->schedulers)[worker.index].scheduler->load_changed(slot);
}

template <class Address>
std::span<const std::uint8_t> bytes_of(const Address& address) noexcept {
  return std::span(reinterpret_cast<const std::uint8_t*>(&address), sizeof address);
}

}  // namespace

template <class Address>
const RealServer* pick_server(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                              const FlowKey<Address>& key, const OpenServers& loads) noexcept {
  WorkerScheduler& state = (*service.schedulers)[worker.index];
  replay_edits(state, service, std::numeric_limits<unsigned>::max());
  const Settings& settings = *snapshot.settings;
  const ServerSlot slot = state.scheduler->pick({.candidates = service.candidates,
                                                 .loads = loads,
                                                 .table = service.table.get(),
                                                 .client_address = bytes_of(key.source),
                                                 .destination_address = bytes_of(key.destination),
                                                 .client_port = key.source_port.host(),
                                                 .now_ms = worker.now_ms,
                                                 .lblc_expiration = settings.lblc_expiration,
                                                 .lblcr_expiration = settings.lblcr_expiration});
  if (slot == kNoServer) return nullptr;
  return snapshot.servers[slot];
}

unsigned replay_edits(WorkerScheduler& state, const Service& service, unsigned budget) noexcept {
  unsigned replayed = 0;
  std::uint64_t next = state.edits_applied.read();
  for (; next < service.end_of_edits() && replayed < budget; ++next, ++replayed) {
    state.scheduler->apply(service.edits[next - service.first_edit]);
  }
  state.edits_applied.add(replayed);
  return replayed;
}

void count_opened(WorkerState& worker, const Snapshot& snapshot,
                  const RealServer& server) noexcept {
  worker.own().loads[server.slot].connections.add(1);
  worker.own().servers[server.slot].connections.add(1);
  close_at_threshold(worker, snapshot, server);
  tell_scheduler(worker, snapshot, server.service, server.slot);
}

template <class Address>
void count_closed(WorkerState& worker, const Snapshot& snapshot,
                  const Connection<Address>& connection) noexcept {
  const ServerSlot slot = connection.server_slot;
  ServerLoad& load = worker.own().loads[slot];
  if (!connection.has(kInactive)) load.active.subtract(1);
  load.connections.subtract(1);
  if (const RealServer* server = snapshot.servers[slot]) {
    reopen_below_threshold(worker, snapshot, *server);
  }
  tell_scheduler(worker, snapshot, connection.service_slot, slot);
}

template <class Address>
void count_activity(WorkerState& worker, const Snapshot& snapshot,
                    const Connection<Address>& connection) noexcept {
  Counter<std::uint32_t>& active = worker.own().loads[connection.server_slot].active;
  if (connection.has(kInactive)) {
    active.subtract(1);
  } else {
    active.add(1);
  }
  tell_scheduler(worker, snapshot, connection.service_slot, connection.server_slot);
}

template const RealServer* pick_server(WorkerState&, const Snapshot&, const Service&,
                                       const FlowKey<Ipv4Address>&, const OpenServers&) noexcept;
template const RealServer* pick_server(WorkerState&, const Snapshot&, const Service&,
                                       const FlowKey<Ipv6Address>&, const OpenServers&) noexcept;
template void count_closed(WorkerState&, const Snapshot&, const Connection<Ipv4Address>&) noexcept;
template void count_closed(WorkerState&, const Snapshot&, const Connection<Ipv6Address>&) noexcept;
template void count_activity(WorkerState&, const Snapshot&,
                             const Connection<Ipv4Address>&) noexcept;
template void count_activity(WorkerState&, const Snapshot&,
                             const Connection<Ipv6Address>&) noexcept;

}  // namespace weir
