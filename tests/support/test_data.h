// SPDX-License-Identifier: Apache-2.0
// Files of tests/data, or of the directory that the environment variable WEIR_TEST_DATA names.
#pragma once

#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

namespace weir::test {

// Throws where it cannot be read, which fails the test.
inline std::ifstream open_data(const std::string& name) {
  const char* elsewhere = std::getenv("WEIR_TEST_DATA");
  const std::string path =
      std::string(elsewhere != nullptr ? elsewhere : WEIR_TEST_DATA) + "/" + name;
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  return file;
}

}  // namespace weir::test
