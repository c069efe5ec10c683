// SPDX-License-Identifier: Apache-2.0
// What the kernel says of a loaded BPF program: which one an interface has, its name, its maps.
// Thread: the control thread only (libbpf's messages go through one global function).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

namespace weir {

// A file descriptor that closes itself.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();

  int get() const noexcept { return fd_; }
  bool is_open() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

struct XdpProgram {
  std::uint32_t id = 0;
  std::string name;  // at most 15 characters
};

struct BpfMap {
  std::string name;  // at most 15 characters
  Descriptor descriptor;
  std::uint32_t key_bytes = 0;
  std::uint32_t value_bytes = 0;
  std::uint32_t capacity = 0;
};

absl::StatusOr<std::string> program_name(std::uint32_t program);
absl::StatusOr<std::vector<BpfMap>> maps_of_program(std::uint32_t program);

// The kernel's number of an interface's XDP program, in whatever mode; none: 0. Needs no privilege.
absl::StatusOr<std::uint32_t> xdp_program_id_of(int interface_index);
// The XDP program of an interface; none: nullopt.
absl::StatusOr<std::optional<XdpProgram>> xdp_program_of(int interface_index);
// One that this process has open, or, with CAP_SYS_ADMIN, any.
absl::StatusOr<Descriptor> open_program(std::uint32_t id);
// Whether it runs in the driver, before the kernel has made a packet of the frame.
absl::StatusOr<bool> runs_native_xdp(int interface_index);
// Takes this program off the interface, and no other that may have replaced it.
absl::Status detach_xdp_program(int interface_index, const Descriptor& program);

// While it lives, libbpf prints nothing, and the kernel's last explanation is kept.
class LibbpfMessages {
 public:
  LibbpfMessages();
  ~LibbpfMessages();
  LibbpfMessages(const LibbpfMessages&) = delete;
  LibbpfMessages& operator=(const LibbpfMessages&) = delete;

  static const std::string& kernel_explanation();
};

}  // namespace weir
