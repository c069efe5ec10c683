// SPDX-License-Identifier: Apache-2.0
// Steering: one kernel interface claimed for weir, and the XDP program on it that sends packets of
// services to the workers (dataplane/xdp/steer.bpf.c) while the kernel keeps everything else.
//
// Life of a port, in this order:
//   claim()           before the EAL starts: checks the interface and locks it
//   vdev_arguments()  for the EAL; its AF_XDP driver is the only one that can attach the program
//   make_way()        right before the first rte_eth_rx_queue_setup(), which attaches it
//   attach()          after rte_eth_dev_start(): finds the program and its maps
//   apply()           as often as services, real servers or addresses change
//   lift_guard()      once the services are there
//   keep_silence()    before rte_eth_dev_close(), where clients are to see silence from then on
//   release()         after rte_eth_dev_close(); the destructor does it as well
// After a SIGKILL the program stays and drops what was for the workers; the next start replaces it.
// Between an end and the next weir's services a guard (steering_guard.h) does the same.
// Thread: the control thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "control/host/bpf_program.h"
#include "control/host/interface_lock.h"
#include "control/host/steering_guard.h"
#include "dataplane/net/addresses.h"
#include "dataplane/xdp/steered.h"

namespace weir {

// The compiled program: $WEIR_STEER_OBJECT, or where the build puts it beside the executable.
std::string steering_object();

class Steering {
 public:
  static absl::StatusOr<std::unique_ptr<Steering>> claim(
      const std::string& interface, const std::string& object = steering_object());
  ~Steering();
  Steering(const Steering&) = delete;
  Steering& operator=(const Steering&) = delete;

  static constexpr std::size_t kMaxMarkRules = 64;

  const std::string& interface() const noexcept { return interface_; }
  // Receive queues, as many transmit queues: all of them have to be opened.
  unsigned queues() const noexcept { return queues_; }
  unsigned mtu() const noexcept { return mtu_; }
  // "net_af_xdp<port_index>" is the name of the device.
  std::string vdev_arguments(unsigned port_index) const;

  // Takes a killed weir's program off the interface. From here until lift_guard() a filter behind
  // XDP keeps dropping what that program gave to the workers; where the kernel cannot do that,
  // `silent` is false and `reason` a sentence for the log.
  struct Handover {
    bool silent = true;
    std::string reason;
  };
  absl::StatusOr<Handover> make_way();
  // Why the driver could not attach the program, in the kernel's words, after a failed start.
  absl::Status explain_failure() const;
  absl::Status attach();
  // Whether the program's maps hold so many entries. ResourceExhausted: no.
  absl::Status check_room(const SteeringSizes& sizes) const;
  // Additions first, then the configuration, then removals. What the kernel refuses is kept, and
  // tried again by retry().
  absl::Status apply(std::span<const SteeringChange> changes, const SteeringConfig& config);
  absl::Status set_macs(std::span<const MacAddress> macs);
  absl::Status retry();
  // The services of the weir before see silence until lift_guard(): once this one has its own.
  bool is_guarded() const { return guard_.stands(); }
  absl::Status lift_guard() { return guard_.lift(); }
  // What a person types to lift it.
  std::string command_to_lift() const { return SteeringGuard::command_to_lift(interface_); }
  // Before the port closes: raises a guard, which release() leaves, for this weir's services.
  absl::Status keep_silence();
  // An error once the interface is gone or somebody took the program off.
  absl::Status still_there() const;
  // Detaches the program and unlocks the interface. A guard stays, and an error says so.
  absl::Status release();

 private:
  struct Maps;

  Steering(std::string interface, std::string object, int index);
  absl::Status check_interface();
  absl::Status check_program() const;
  absl::Status detach_program();

  std::string interface_;
  std::string object_;
  int index_;  // the kernel's, of the interface
  unsigned queues_ = 1;
  unsigned mtu_ = 0;
  InterfaceLock lock_;
  SteeringGuard guard_;
  absl::Status guard_loaded_;   // for keep_silence()
  bool made_way_ = false;       // from then on a steering program on the interface is ours
  std::uint32_t program_ = 0;   // the kernel's id, once attached
  Descriptor own_program_;      // likewise
  std::unique_ptr<Maps> maps_;  // once attached
};

}  // namespace weir
