// SPDX-License-Identifier: Apache-2.0
// Buffers for datagrams under reassembly, from the heap.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/reassembly.h"

namespace weir::test {

class DatagramArena final : public DatagramBuffers {
 public:
  // A handle of put() that is not of this arena belongs to the test.
  explicit DatagramArena(std::size_t buffers)
      : bytes_(std::make_unique_for_overwrite<std::uint8_t[]>(buffers * kBytes)) {
    for (std::size_t i = 0; i < buffers; ++i) free_.push_back(bytes_.get() + i * kBytes);
    all_ = buffers;
  }

  Buffer get() noexcept override {
    if (free_.empty()) return {};
    std::uint8_t* const bytes = free_.back();
    free_.pop_back();
    return {bytes, bytes};
  }
  void put(void* handle) noexcept override {
    auto* const bytes = static_cast<std::uint8_t*>(handle);
    if (bytes >= bytes_.get() && bytes < bytes_.get() + all_ * kBytes) {
      free_.push_back(bytes);
    } else {
      ++foreign_;
    }
  }

  std::size_t in_use() const { return all_ - free_.size(); }
  std::size_t foreign() const { return foreign_; }

 private:
  std::unique_ptr<std::uint8_t[]> bytes_;
  std::vector<std::uint8_t*> free_;
  std::size_t all_ = 0;
  std::size_t foreign_ = 0;
};

}  // namespace weir::test
