// SPDX-License-Identifier: Apache-2.0
// Persistence templates: records in the connection table by which a client's later connections go
// to the real server of its first one. A template outlives its time while it controls connections.
// The semantics are those of ip_vs_sched_persist (ip_vs_core.c), and of ip_vs_check_template and
// ip_vs_conn_expire (ip_vs_conn.c).
//
// A template belongs to the worker that hash(masked client) names, which alone chooses by it. Its
// connections, of any worker, name it by Connection::controller, and tell its owner by a
// TemplateNotice what becomes of them.
//
// Errors: a full table refuses the choice; a full outbox says no, or loses an `assured`, which the
// template's next connection repeats. Thread: worker.
#pragma once

#include <cstdint>
#include <optional>

#include "dataplane/path/packet.h"
#include "dataplane/path/worker_state.h"
#include "dataplane/table/flow_key.h"
#include "dataplane/table/snapshot.h"

namespace weir {

// After a template's time it stays this long for the connections that it controls.
inline constexpr std::uint32_t kControllingTicks = 60 * kTicksPerSecond;

// What has been chosen for a new connection, which `controller` counts already; no server:
// `refusal` says why.
struct Choice {
  const RealServer* server = nullptr;
  std::uint32_t controller = kNoController;
  Outcome refusal = Outcome::drop_no_server_unanswered;
};

// ---- Choosing ----

// The worker that has the template for `flow`.
template <class Address>
unsigned template_owner(const WorkerState& worker, const Service& service,
                        const FlowKey<Address>& flow) noexcept;

// By the template for `flow`, if there is one that may be used.
template <class Address>
std::optional<Choice> choose_by_template(WorkerState& worker, const Snapshot& snapshot,
                                         const Service& service,
                                         const FlowKey<Address>& flow) noexcept;

// Where there is none: makes one for `flow`, with the real server that has been chosen.
template <class Address>
Choice choose_for_template(WorkerState& worker, const Service& service,
                           const FlowKey<Address>& flow, const RealServer& server) noexcept;

// ---- What becomes of the connections that a template controls ----

// Of a connection that ends. False: the template's owner cannot be told now.
template <class Address>
bool release_template(WorkerState& worker, std::uint32_t controller,
                      TemplateNotice::Kind kind) noexcept;

// Of a connection that has not come to be.
template <class Address>
void give_back(WorkerState& worker, std::uint32_t controller) noexcept;

// Tells the connection's template, once, that the server has answered (ip_vs_control_assure_ct).
template <class Address>
void assure_template(WorkerState& worker, Connection<Address>& connection) noexcept;

// Takes in what a worker says about a template of this one.
void take_notice(WorkerState& worker, const TemplateNotice& notice) noexcept;

// False: it controls connections.
template <class Address>
bool close_template(WorkerState& worker, std::uint32_t index) noexcept;

}  // namespace weir
