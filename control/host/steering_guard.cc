// SPDX-License-Identifier: Apache-2.0
#include "control/host/steering_guard.h"

#include <cerrno>
#include <utility>
#include <vector>

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <bpf/libbpf.h>

#include "control/host/bpf_program.h"

namespace weir {
namespace {

constexpr char kGuardName[] = "weir_guard";
constexpr char kSteeringName[] = "weir_steer";
// A filter at this place is the guard, if it has the guard's name.
constexpr std::uint32_t kHandle = 1;
constexpr std::uint32_t kPriority = 17;

bpf_tc_hook ingress_of(int interface_index) {
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = interface_index;
  hook.attach_point = BPF_TC_INGRESS;
  return hook;
}

bpf_tc_opts place() {
  bpf_tc_opts options{};
  options.sz = sizeof options;
  options.handle = kHandle;
  options.priority = kPriority;
  return options;
}

// What is at the guard's place; 0: nothing.
std::uint32_t program_at_place(int interface_index) {
  const bpf_tc_hook hook = ingress_of(interface_index);
  bpf_tc_opts found = place();
  const LibbpfMessages quiet;
  return bpf_tc_query(&hook, &found) == 0 ? found.prog_id : 0;
}

// The guard alone is to be loaded, on the given maps.
absl::Status prepare(bpf_object* object, const std::vector<BpfMap>& maps) {
  bpf_program* const guard = bpf_object__find_program_by_name(object, kGuardName);
  bpf_program* const steering = bpf_object__find_program_by_name(object, kSteeringName);
  if (guard == nullptr || steering == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("it has no ", kGuardName));
  }
  bpf_program__set_autoload(guard, true);
  bpf_program__set_autoload(steering, false);
  for (const BpfMap& map : maps) {
    bpf_map* const wanted = bpf_object__find_map_by_name(object, map.name.c_str());
    if (wanted == nullptr) continue;  // .bss, whose name in the kernel differs: constant anyway
    if (bpf_map__reuse_fd(wanted, map.descriptor.get()) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot take over the map ", map.name));
    }
  }
  return absl::OkStatus();
}

}  // namespace

void SteeringGuard::CloseObject::operator()(bpf_object* object) const { bpf_object__close(object); }

void SteeringGuard::find() {
  const std::uint32_t program = program_at_place(interface_index_);
  if (program == 0) return;
  const absl::StatusOr<std::string> name = program_name(program);
  // Without CAP_SYS_ADMIN its place has to do for its name.
  const bool may_not_ask = absl::IsPermissionDenied(name.status());
  if (may_not_ask || (name.ok() && *name == kGuardName)) standing_ = program;
}

bool SteeringGuard::stands() const {
  return standing_ != 0 && program_at_place(interface_index_) == standing_;
}

std::string SteeringGuard::command_to_lift(const std::string& interface) {
  return absl::StrCat("tc filter delete dev ", interface, " ingress prio ", kPriority);
}

absl::Status SteeringGuard::load(const std::string& object, const std::vector<BpfMap>& maps) {
  const LibbpfMessages quiet;
  loaded_.reset(bpf_object__open_file(object.c_str(), nullptr));
  if (!loaded_) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", object));
  if (absl::Status status = prepare(loaded_.get(), maps); !status.ok()) return status;
  if (const int refused = bpf_object__load(loaded_.get()); refused != 0) {
    return absl::ErrnoToStatus(-refused, "cannot load weir_guard");
  }
  return absl::OkStatus();
}

absl::Status SteeringGuard::raise() {
  if (stands()) return absl::OkStatus();
  if (!loaded_) return absl::FailedPreconditionError("no guard is loaded");
  const LibbpfMessages quiet;
  bpf_tc_hook hook = ingress_of(interface_index_);
  const int error = bpf_tc_hook_create(&hook);
  if (error != 0 && error != -EEXIST) {
    return absl::ErrnoToStatus(-error, "cannot create a clsact qdisc");
  }
  made_qdisc_ = error == 0;
  bpf_tc_opts options = place();
  options.prog_fd = bpf_program__fd(bpf_object__find_program_by_name(loaded_.get(), kGuardName));
  if (const int refused = bpf_tc_attach(&hook, &options); refused != 0) {
    return absl::ErrnoToStatus(-refused, "cannot attach weir_guard as a tc filter");
  }
  standing_ = options.prog_id;
  return absl::OkStatus();
}

absl::Status SteeringGuard::lift() {
  if (!stands()) return absl::OkStatus();
  bpf_tc_hook hook = ingress_of(interface_index_);
  const bpf_tc_opts options = place();
  if (const int error = bpf_tc_detach(&hook, &options); error != 0) {
    return absl::ErrnoToStatus(-error, "cannot remove the tc filter weir_guard");
  }
  standing_ = 0;
  if (!std::exchange(made_qdisc_, false)) return absl::OkStatus();
  hook.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  if (const int error = bpf_tc_hook_destroy(&hook); error != 0) {
    return absl::ErrnoToStatus(-error, "cannot remove the clsact qdisc");
  }
  return absl::OkStatus();
}

}  // namespace weir
