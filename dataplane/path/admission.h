// SPDX-License-Identifier: Apache-2.0
// Opening connections: who may, who chooses the real server; and closing them again. The semantics
// are those of ip_vs_in, ip_vs_schedule (ip_vs_core.c) and ip_vs_conn_expire (ip_vs_conn.c).
//
// The worker that has a client's persistence template chooses for that client (persistence.h), for
// lblc and lblcr the one of hash(destination), which has their cache. A packet that needs another
// worker's choice goes there with its question and returns with the answer (Packet::errand).
// Errors: outcomes. Thread: worker.
#pragma once

#include "dataplane/path/packet.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// For an inbound packet without a connection. Sets packet.connection, or packet.server where the
// service schedules packets one by one, or an outcome that says why neither or who is asked.
template <class Address>
void open_connection(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept;

// Whether a packet would go by dr to where it has come from: to a director whose real server this
// host is, or it would go to and fro between the two. The real server's own packets may.
template <class Address>
bool leads_back(const Snapshot& snapshot, const RealServer& server, const Packet& packet) noexcept;

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

}  // namespace weir
