// SPDX-License-Identifier: Apache-2.0
// Opening connections: who may, to which real server, under whose template; and closing them again.
// The semantics are those of ip_vs_core.c (ip_vs_schedule, ip_vs_sched_persist) and ip_vs_conn.c.
//
// A persistence template belongs to the worker that hash(masked client) names, the cache of lblc
// and lblcr to the one of hash(destination). A packet that needs either on another worker goes
// there with its question and returns with the answer (Packet::errand). All functions: worker
// thread.
#pragma once

#include "dataplane/packet.h"
#include "dataplane/snapshot.h"
#include "dataplane/worker_state.h"

namespace weir {

// For an inbound packet without a connection. Sets packet.connection, or packet.server where the
// service schedules packets one by one, or an outcome that says why neither or who is asked.
template <class Address>
void open_connection(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// For a packet that has come with a question: chooses, and sends the packet back to its owner, or
// sets an outcome that says why there is nobody to choose. Back without an answer goes a packet
// that is not asked about here any more.
template <class Address>
void answer_question(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// Gives up the choice that a packet carries, because it is not needed or cannot be delivered.
void forget_answer(WorkerState& worker, const Packet& packet) noexcept;

// The port that the service's packets for port `asked` have at the real server.
Be16 server_port(const Service& service, const RealServer& server, Be16 asked) noexcept;

// False: a template that controls connections, or a connection whose template's owner cannot be
// told now. Then nothing has happened but a later deadline.
template <class Address>
bool close_connection(WorkerState& worker, const Snapshot& snapshot, std::uint32_t index) noexcept;

// Ends a connection before its time, for room (drop_entry). False: as above, and nothing has
// happened.
template <class Address>
bool give_up_connection(WorkerState& worker, const Snapshot& snapshot,
                        std::uint32_t index) noexcept;

// Tells the connection's template, once, that the server has answered (ip_vs_control_assure_ct).
template <class Address>
void assure_template(WorkerState& worker, Connection<Address>& connection) noexcept;

// Takes in what another worker says about a template of this one.
void take_notice(WorkerState& worker, const TemplateNotice& notice) noexcept;

// Adds to the numbers of active connections of `slot`, which the schedulers watch.
void count_active(WorkerState& worker, const Snapshot& snapshot, ServiceSlot service,
                  ServerSlot slot, std::uint32_t change) noexcept;

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

// Replays the edits of `service` that this worker's scheduler has not seen.
void replay_edits(WorkerScheduler& state, const Service& service) noexcept;

}  // namespace weir
