// SPDX-License-Identifier: Apache-2.0
// Splits a command line into options and other arguments in the way of popt 1.19, the library that
// ipvsadm uses: clustered short options, -t=VALUE, optional values, `--`, arguments anywhere.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace weir {

enum class OptionValue : unsigned char { none, required, optional };

struct OptionName {
  std::string_view long_name;
  char short_name = '\0';  // '\0': none
  OptionValue value = OptionValue::none;
};

class OptionScanner {
 public:
  struct Found {
    std::size_t option;  // index into the names
    std::optional<std::string> value;
  };
  struct Error {
    std::string argument;  // the whole command-line argument that is wrong
    std::string_view reason;
  };
  struct End {};
  using Next = std::variant<Found, Error, End>;

  OptionScanner(std::span<const OptionName> names, std::span<const std::string> arguments)
      : names_(names), arguments_(arguments) {}

  Next next();
  // The argument that was read last.
  const std::string& current() const { return arguments_[position_ - 1]; }
  // What was no option, in order; complete after End.
  const std::vector<std::string>& others() const { return others_; }

 private:
  std::optional<std::size_t> find_long(std::string_view name) const;
  std::optional<std::size_t> find_short(char name) const;
  Next take_long(std::string_view name, std::optional<std::string> value);
  Next take_short();
  Next take_value(std::size_t option, std::optional<std::string> attached);
  Error error(std::string_view reason) const { return {current(), reason}; }

  std::span<const OptionName> names_;
  std::span<const std::string> arguments_;
  std::size_t position_ = 0;  // of the next argument
  std::string_view cluster_;  // short options of the current argument that are still to be read
  bool only_others_ = false;  // `--` was seen
  std::vector<std::string> others_;
};

}  // namespace weir
