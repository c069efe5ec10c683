// SPDX-License-Identifier: Apache-2.0
// Buffers for datagrams under reassembly, from the heap.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/path/reassembly.h"

namespace weir::test {

class DatagramArena final : public DatagramBuffers {
 public:
  explicit DatagramArena(std::size_t buffers) : most_(buffers) {}

  Buffer get() noexcept override {
    if (free_.empty()) {
      if (all_.size() == most_) return {};
      // A block each, so that a sanitizer sees what goes beyond one.
      all_.push_back(std::make_unique_for_overwrite<std::uint8_t[]>(kBytes));
      free_.push_back(all_.back().get());
    }
    std::uint8_t* const bytes = free_.back();
    free_.pop_back();
    return {bytes, bytes};
  }
  // A handle that is not of this arena belongs to the test.
  void put(void* handle) noexcept override {
    const auto own = [handle](const auto& buffer) { return buffer.get() == handle; };
    if (std::ranges::any_of(all_, own)) {
      free_.push_back(static_cast<std::uint8_t*>(handle));
    } else {
      ++foreign_;
    }
  }

  std::size_t in_use() const { return all_.size() - free_.size(); }
  std::size_t foreign() const { return foreign_; }

 private:
  const std::size_t most_;
  std::vector<std::unique_ptr<std::uint8_t[]>> all_;
  std::vector<std::uint8_t*> free_;
  std::size_t foreign_ = 0;
};

}  // namespace weir::test
