// SPDX-License-Identifier: Apache-2.0
#include "control/cli/option_scanner.h"

#include <algorithm>

namespace weir {
namespace {

constexpr std::string_view kUnknown = "unknown option";
constexpr std::string_view kMissingValue = "missing argument";
constexpr std::string_view kUnwantedValue = "option does not take an argument";

}  // namespace

OptionScanner::Next OptionScanner::next() {
  if (!cluster_.empty()) return take_short();
  while (position_ < arguments_.size()) {
    const std::string& argument = arguments_[position_++];
    if (only_others_ || argument.size() < 2 || argument[0] != '-') {
      others_.push_back(argument);
    } else if (argument == "--") {
      only_others_ = true;
    } else if (argument[1] == '-') {
      const std::size_t equals = argument.find('=');
      std::optional<std::string> value;
      if (equals != std::string::npos) value = argument.substr(equals + 1);
      return take_long(std::string_view(argument).substr(0, equals).substr(2), std::move(value));
    } else {
      cluster_ = std::string_view(argument).substr(1);
      return take_short();
    }
  }
  return End{};
}

std::optional<std::size_t> OptionScanner::find_long(std::string_view name) const {
  const auto at = std::ranges::find(names_, name, &OptionName::long_name);
  if (name.empty() || at == names_.end()) return std::nullopt;
  return static_cast<std::size_t>(at - names_.begin());
}

std::optional<std::size_t> OptionScanner::find_short(char name) const {
  const auto at = std::ranges::find(names_, name, &OptionName::short_name);
  if (at == names_.end()) return std::nullopt;
  return static_cast<std::size_t>(at - names_.begin());
}

OptionScanner::Next OptionScanner::take_long(std::string_view name,
                                             std::optional<std::string> value) {
  const auto option = find_long(name);
  if (!option) return error(kUnknown);
  return take_value(*option, std::move(value));
}

OptionScanner::Next OptionScanner::take_short() {
  const auto option = find_short(cluster_.front());
  cluster_.remove_prefix(1);
  if (!option) {
    cluster_ = {};
    return error(kUnknown);
  }
  std::optional<std::string> attached;
  const bool takes_value = names_[*option].value != OptionValue::none;
  if (cluster_.starts_with('=')) {
    attached = std::string(cluster_.substr(1));
    cluster_ = {};
  } else if (takes_value && !cluster_.empty()) {
    attached = std::string(cluster_);
    cluster_ = {};
  }
  return take_value(*option, std::move(attached));
}

OptionScanner::Next OptionScanner::take_value(std::size_t option,
                                              std::optional<std::string> attached) {
  const OptionValue kind = names_[option].value;
  if (kind == OptionValue::none) {
    if (attached) return error(kUnwantedValue);
    return Found{option, std::nullopt};
  }
  if (attached) return Found{option, std::move(attached)};
  if (position_ == arguments_.size()) {
    if (kind == OptionValue::required) return error(kMissingValue);
    return Found{option, std::nullopt};
  }
  if (kind == OptionValue::optional && arguments_[position_].starts_with('-'))
    return Found{option, std::nullopt};
  return Found{option, arguments_[position_++]};
}

}  // namespace weir
