// SPDX-License-Identifier: Apache-2.0
#include "control/host/reinjection.h"

#include <linux/bpf.h>
#include <net/if.h>

#include <array>
#include <cerrno>

#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "control/host/bpf_program.h"

namespace weir {
namespace {

// return bpf_redirect(interface, BPF_F_INGRESS);
absl::StatusOr<Descriptor> load_redirection(int interface) {
  const std::array<bpf_insn, 4> program = {{
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, interface},
      {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, BPF_F_INGRESS},
      {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect},
      {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
  }};
  Descriptor loaded(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "weir_reinject", "Dual BSD/GPL",
                                  program.data(), program.size(), nullptr));
  if (!loaded.is_open()) return absl::ErrnoToStatus(errno, "cannot load weir_reinject");
  return loaded;
}

}  // namespace

absl::Status redirect_into(const std::string& exception_interface, const std::string& interface) {
  const auto target = static_cast<int>(if_nametoindex(interface.c_str()));
  const absl::StatusOr<bool> native = runs_native_xdp(target);
  if (!native.ok()) return native.status();
  if (!*native) {
    return absl::FailedPreconditionError(absl::StrCat("XDP runs in generic mode on ", interface));
  }
  const absl::StatusOr<Descriptor> program = load_redirection(target);
  if (!program.ok()) return program.status();
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = static_cast<int>(if_nametoindex(exception_interface.c_str()));
  hook.attach_point = BPF_TC_INGRESS;
  const LibbpfMessages quiet;
  if (const int error = bpf_tc_hook_create(&hook); error != 0) {
    return absl::ErrnoToStatus(-error, "cannot create a clsact qdisc");
  }
  bpf_tc_opts options{};
  options.sz = sizeof options;
  options.prog_fd = program->get();
  if (const int error = bpf_tc_attach(&hook, &options); error != 0) {
    return absl::ErrnoToStatus(-error, "cannot attach weir_reinject as a tc filter");
  }
  return absl::OkStatus();
}

}  // namespace weir
