// SPDX-License-Identifier: Apache-2.0
// The memory of one worker's connection tables: one memfd mapping, so that a later process can take
// it over by its descriptor. Made and freed by control.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

namespace weir {

class TableMemory {
 public:
  enum class Pages : unsigned char { huge, normal };

  // Zeroed memory of at least `bytes`. Nothing if the kernel cannot give it (errno says why); huge
  // pages are reserved at once, so that a later access cannot fail.
  static std::optional<TableMemory> map(std::size_t bytes, Pages pages);

  TableMemory(TableMemory&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)),
        bytes_(other.bytes_),
        descriptor_(std::exchange(other.descriptor_, -1)) {}
  TableMemory& operator=(TableMemory&&) = delete;
  ~TableMemory();

  std::byte* data() const noexcept { return base_; }
  std::size_t size() const noexcept { return bytes_; }

 private:
  TableMemory(std::byte* base, std::size_t bytes, int descriptor) noexcept
      : base_(base), bytes_(bytes), descriptor_(descriptor) {}

  std::byte* base_;
  std::size_t bytes_;
  int descriptor_;
};

}  // namespace weir
