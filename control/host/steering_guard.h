// SPDX-License-Identifier: Apache-2.0
// The guard: while a new weir takes over from a killed one, the interface has no steering program
// for some milliseconds, and the kernel would answer a service's clients with RST. A tc filter
// behind XDP (weir_guard in dataplane/xdp/steer.bpf.c), with the old program's maps, drops those
// packets. It outlives a second SIGKILL or a failed start, and is then found again. Thread: the
// control thread only.
#pragma once

#include <cstdint>
#include <string>

#include <absl/status/status.h>

namespace weir {

class SteeringGuard {
 public:
  explicit SteeringGuard(int interface_index) noexcept : interface_index_(interface_index) {}

  // `program` is the steering program whose maps the guard takes; a guard that stands stays as it
  // is.
  absl::Status raise(const std::string& object, std::uint32_t program);
  // No guard there: fine.
  absl::Status lift();
  bool stands() const;
  // What a person types to lift it.
  static std::string command_to_lift(const std::string& interface);

 private:
  int interface_index_;
  bool made_qdisc_ = false;
};

}  // namespace weir
