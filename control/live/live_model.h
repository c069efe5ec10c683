// SPDX-License-Identifier: Apache-2.0
// What the faces (API, weirctl, ipvsadm, later keepalived.conf) see of a running director: one way
// to change it and a way to list each thing.
//
// Long listings are made in slices; what changes between two of these is shown as it was in one or
// the other. Thread: the control thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "control/model/changes.h"
#include "control/model/listings.h"

namespace weir {

// Where a sliced walk stands; a new one is at the beginning. What it holds in between is the
// model's own business.
struct ServiceCursor {
  std::uint64_t service = 0;
  std::uint64_t server = ~std::uint64_t{0};
};
struct ConnectionCursor {
  std::uint32_t worker = 0;
  std::uint32_t position = 0;
};
struct WorkerCursor {
  std::uint32_t worker = 0;
  std::uint32_t slot = 0;
  Totals totals;
};

// Of a plan that was refused: which change cannot be, counted from 0.
struct CommitResult {
  absl::Status status;
  std::size_t change = 0;
};

class LiveModel {
 public:
  using Done = std::function<void(const CommitResult&)>;
  virtual ~LiveModel() = default;

  // The plan as a whole or, on an error, nothing of it. Errors are those of DirectorConfig, and
  // ResourceExhausted where there is no room. `done` is called when the workers have it, perhaps
  // before this returns.
  virtual void commit(Plan plan, Done done) = 0;

  // The next part of the services in the order in which they were added: one service with at most
  // `at_most` of its real servers, newest first. Those that have more come again, with the next.
  // Nothing: that was the end.
  virtual std::optional<ServiceListing> list_services(ServiceCursor& cursor,
                                                      std::size_t at_most) const = 0;
  // FailedPrecondition: no such service.
  virtual absl::StatusOr<ServiceListing> find(const ServiceKey& key) const = 0;
  // Looks at no more than `at_most` places of the tables of connections, templates included, calls
  // `visit` for the connections there and moves `cursor` on. False: that was the end.
  virtual bool visit_connections(
      ConnectionCursor& cursor, std::uint32_t at_most,
      const std::function<void(const ConnectionListing&)>& visit) const = 0;
  // Adds up at most `at_most` slots of a worker's counters. Calls `visit` for each worker that is
  // complete. False: that was the end.
  virtual bool visit_workers(WorkerCursor& cursor, std::uint32_t at_most,
                             const std::function<void(const WorkerListing&)>& visit) const = 0;

  // Statistics start at zero; without a key: of all services.
  virtual absl::Status zero(const std::optional<ServiceKey>& key) = 0;

  virtual std::vector<LocalAddressListing> local_addresses() const = 0;
  virtual std::vector<MarkRuleSpec> mark_rules() const = 0;
  virtual IpvsTimeouts timeouts() const = 0;
  virtual std::vector<SettingListing> settings() const = 0;
  // Every outcome of the packet path and its count over all workers, in a stable order.
  virtual std::vector<NamedCounter> counters() const = 0;

  virtual absl::Status start_sync_daemon(const SyncDaemonSpec&) {
    return absl::UnimplementedError(
        "weir does not synchronise connections between directors yet: leave out --start-daemon.");
  }
  virtual absl::Status stop_sync_daemon(SyncDaemonSpec::Role) {
    return absl::FailedPreconditionError("No connection synchronisation daemon is running.");
  }
  virtual std::vector<SyncDaemonSpec> sync_daemons() const { return {}; }
};

// All services at once, where that takes no longer than it may.
std::vector<ServiceListing> list_all(const LiveModel& model);

}  // namespace weir
