// SPDX-License-Identifier: Apache-2.0
// The guard: while there is no steering program on an interface, the kernel would answer a
// service's clients with RST. A tc filter behind XDP (weir_guard in dataplane/xdp/steer.bpf.c),
// with a steering program's maps, drops what that program gave to the workers. It stands between a
// weir that has ended and the next one's services, and outlives any process. Thread: the control
// thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <absl/status/status.h>

#include "control/host/bpf_program.h"

struct bpf_object;

namespace weir {

class SteeringGuard {
 public:
  explicit SteeringGuard(int interface_index) noexcept : interface_index_(interface_index) {}

  // The one that an earlier weir has raised.
  void find();
  // For raise(), now, while weir has the privileges: with the maps of a steering program.
  absl::Status load(const std::string& object, const std::vector<BpfMap>& maps);
  // The one loaded last; one that stands stays as it is.
  absl::Status raise();
  // No guard there: fine.
  absl::Status lift();
  bool stands() const;
  // What a person types to lift it.
  static std::string command_to_lift(const std::string& interface);

 private:
  struct CloseObject {
    void operator()(bpf_object* object) const;
  };

  int interface_index_;
  std::unique_ptr<bpf_object, CloseObject> loaded_;
  std::uint32_t standing_ = 0;  // the kernel's id of its program; it may be gone
  bool made_qdisc_ = false;
};

}  // namespace weir
