// SPDX-License-Identifier: Apache-2.0
// What is wanted of this director: everything that a face has asked for and nothing that has become
// of it. The rules of what fits together are here, those of one service or real server in rules.h.
//
// Errors, besides those of rules.h: AlreadyExists (EEXIST), NotFound (ENOENT: no such real server),
// FailedPrecondition (ESRCH: no such service; or something else is in the way), ResourceExhausted.
// Thread: one at a time.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "control/model/changes.h"
#include "control/model/local_pools.h"
#include "control/model/service_options.h"
#include "dataplane/table/mark_rules.h"
#include "dataplane/table/settings.h"

namespace weir {

struct ServiceConfig {
  ServiceSpec spec;
  ServiceOptions options;
  std::vector<ServerSpec> servers;  // in the order of their addition
  std::uint64_t added = 0;          // orders services by their addition
};

class DirectorConfig {
 public:
  using Services = std::map<ServiceKey, ServiceConfig>;

  DirectorConfig() = default;
  // Undoing is of one object alone.
  DirectorConfig(const DirectorConfig& other);
  DirectorConfig& operator=(const DirectorConfig&) = delete;

  // One change, or an error and none. The change as it is to be carried out: a real server's port
  // is the one that it is known by, a rule's port is known by its number.
  absl::StatusOr<Change> apply(Change change);

  // From here on, changes can be taken back, the last one first: so many are to come.
  void begin_undoable(std::size_t changes);
  // Takes back at most so many, or keeps them for good. False: there are no more.
  bool undo(std::size_t at_most);
  bool keep(std::size_t at_most);

  // Names of weir's ports, by number, for rules that are for one of them; and how many rules can
  // be, where a port's steering cannot take all that the workers can.
  void set_ports(std::vector<std::string> names, std::size_t most_mark_rules);

  const Services& services() const { return services_; }
  const LocalPools& pools() const { return pools_; }
  std::uint64_t pool_changes() const { return pool_changes_; }
  const std::vector<MarkRuleSpec>& mark_rules() const { return mark_rules_; }
  const Settings& settings() const { return settings_; }
  const std::vector<std::string>& port_names() const { return port_names_; }

 private:
  using Undo = absl::AnyInvocable<void(DirectorConfig&)>;

  absl::StatusOr<Change> carry_out(AddService change);
  absl::StatusOr<Change> carry_out(EditService change);
  absl::StatusOr<Change> carry_out(DeleteService change);
  absl::StatusOr<Change> carry_out(DeleteAllServices change);
  absl::StatusOr<Change> carry_out(AddServer change);
  absl::StatusOr<Change> carry_out(EditServer change);
  absl::StatusOr<Change> carry_out(DeleteServer change);
  absl::StatusOr<Change> carry_out(SetServiceOption change);
  absl::StatusOr<Change> carry_out(AddLocalAddresses change);
  absl::StatusOr<Change> carry_out(DeleteLocalAddresses change);
  absl::StatusOr<Change> carry_out(AddMarkRule change);
  absl::StatusOr<Change> carry_out(DeleteMarkRule change);
  absl::StatusOr<Change> carry_out(SetTimeouts change);
  absl::StatusOr<Change> carry_out(SetSetting change);

  void note_undo(Undo undo) {
    if (undoable_) undo_.push_back(std::move(undo));
  }
  ServiceConfig* find(const ServiceKey& key);
  absl::Status check_place(const ServiceKey& key) const;
  absl::Status check_local_addresses(const ServiceKey& key, const ServerSpec& spec) const;
  absl::Status check_pools(const LocalPools& next) const;
  absl::StatusOr<MarkRuleSpec> checked(MarkRuleSpec rule) const;
  void replace_pools(LocalPools next);
  void replace_settings(const Settings& next);
  void replace_mark_rules(std::vector<MarkRuleSpec> next);

  Services services_;
  std::uint64_t additions_ = 0;
  LocalPools pools_;
  std::uint64_t pool_changes_ = 0;
  std::vector<MarkRuleSpec> mark_rules_;
  Settings settings_;
  std::vector<std::string> port_names_;
  std::size_t most_mark_rules_ = MarkRules::kMax;
  bool undoable_ = false;
  std::vector<Undo> undo_;
};

// Whether packets to the service could be taken for replies to a local address of fullnat.
bool takes_local_ports(const ServiceKey& key);

// The changes that lead from one to the other, in an order in which each is allowed. Services and
// real servers that are in both keep what they have.
Plan plan(const DirectorConfig& current, const DirectorConfig& wanted);

// The same plan without changes of which one alone takes long: each deletes at most so many real
// servers. Later changes may be about what the earlier ones have made.
inline constexpr std::size_t kMostServersOfAChange = 64;
Plan in_small_steps(const DirectorConfig& current, Plan plan);

}  // namespace weir
