// SPDX-License-Identifier: Apache-2.0
// The packet path under libFuzzer (director_script.h).
#include <gtest/gtest.h>

#include "tests/fuzz/director_script.h"

// Of memory that is allocated and freed, what takes long is done for an input's worth of it.
extern "C" const char* __asan_default_options();
extern "C" const char* __asan_default_options() {
  return "quarantine_size_mb=16:malloc_context_size=4:max_malloc_fill_size=256";
}

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  // A frame that leaves with a fault ends the process.
  testing::GTEST_FLAG(throw_on_failure) = true;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  weir::test::play_script({data, size});
  return 0;
}
