// SPDX-License-Identifier: Apache-2.0
// One weir for an interface: a locked file, in a directory where nobody but root, or the user that
// weir runs as, can make or open any. Gone with its process. Directors in several network
// namespaces have files of their own; two in one namespace have to see the same directory.
#pragma once

#include <string>

#include <absl/status/statusor.h>

#include "control/host/bpf_program.h"

namespace weir {

class InterfaceLock {
 public:
  static constexpr const char* kDirectory = "/run/weir/locks";

  // `index`: the kernel's, of the interface. AlreadyExists: another weir has it.
  static absl::StatusOr<InterfaceLock> take(const std::string& interface, int index,
                                            const std::string& directory = kDirectory);
  InterfaceLock() = default;
  InterfaceLock(InterfaceLock&& other) noexcept = default;
  InterfaceLock& operator=(InterfaceLock&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(file_, other.file_);
    return *this;
  }
  ~InterfaceLock();

 private:
  InterfaceLock(std::string path, Descriptor file)
      : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  Descriptor file_;  // open: locked
};

}  // namespace weir
