// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/table_memory.h"

#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

namespace weir {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

std::optional<TableMemory> TableMemory::map(std::size_t bytes, Pages pages) {
  const std::size_t rounded = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  const unsigned huge = pages == Pages::huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0U;
  const int descriptor = memfd_create("weir-connections", MFD_CLOEXEC | huge);
  if (descriptor < 0) return std::nullopt;
  void* base = MAP_FAILED;
  if (ftruncate(descriptor, static_cast<off_t>(rounded)) == 0) {
    base = mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  }
  if (base == MAP_FAILED) {
    close(descriptor);
    return std::nullopt;
  }
  if (pages == Pages::normal) madvise(base, rounded, MADV_HUGEPAGE);
  return TableMemory(static_cast<std::byte*>(base), rounded, descriptor);
}

TableMemory::~TableMemory() {
  if (base_ == nullptr) return;
  munmap(base_, bytes_);
  close(descriptor_);
}

}  // namespace weir
