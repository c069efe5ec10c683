// SPDX-License-Identifier: Apache-2.0
#include "control/model/service_options.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

namespace weir {
namespace {

// A choice's names in the order of their values, or, without names, a number up to `most`.
struct OptionRow {
  const char* name;
  std::array<const char*, 3> choices;
  std::uint32_t most;
  std::uint32_t (*get)(const ServiceOptions&);
  void (*set)(ServiceOptions&, std::uint32_t);

  bool is_choice() const { return choices[0] != nullptr; }
};

constexpr std::array<OptionRow, 5> kRows = {{
    {"client-address",
     {"hidden", "toa", "proxy"},
     2,
     [](const ServiceOptions& o) { return static_cast<std::uint32_t>(o.client_address); },
     [](ServiceOptions& o, std::uint32_t v) { o.client_address = static_cast<ClientAddress>(v); }},
    {"gone-server",
     {"drop", "keep", "reset"},
     2,
     [](const ServiceOptions& o) { return static_cast<std::uint32_t>(o.gone_server); },
     [](ServiceOptions& o, std::uint32_t v) { o.gone_server = static_cast<GoneServer>(v); }},
    {"idle-timeout",
     {},
     65535,
     [](const ServiceOptions& o) { return o.idle_timeout; },
     [](ServiceOptions& o, std::uint32_t v) { o.idle_timeout = v; }},
    {"table-size",
     {},
     524287,
     [](const ServiceOptions& o) { return o.table_size; },
     [](ServiceOptions& o, std::uint32_t v) { o.table_size = v; }},
    {"slow-start",
     {},
     86400,
     [](const ServiceOptions& o) { return o.slow_start; },
     [](ServiceOptions& o, std::uint32_t v) { o.slow_start = v; }},
}};

std::optional<std::uint32_t> parse_value(const OptionRow& row, const std::string& text) {
  if (row.is_choice()) {
    const auto at = std::find_if(row.choices.begin(), row.choices.end(),
                                 [&](const char* choice) { return text == choice; });
    if (at == row.choices.end()) return std::nullopt;
    return static_cast<std::uint32_t>(at - row.choices.begin());
  }
  std::uint32_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number > row.most) return std::nullopt;
  return number;
}

std::string values_of(const OptionRow& row) {
  if (row.is_choice()) return absl::StrJoin(row.choices, ", ");
  return absl::StrCat("a number from 0 to ", row.most);
}

}  // namespace

absl::Status set_option(ServiceOptions& options, const ServiceOption& option) {
  const auto row = std::find_if(kRows.begin(), kRows.end(),
                                [&](const OptionRow& r) { return option.name == r.name; });
  if (row == kRows.end()) {
    const std::string names = absl::StrJoin(
        kRows, ", ", [](std::string* out, const OptionRow& r) { absl::StrAppend(out, r.name); });
    return absl::NotFoundError(
        absl::StrCat("a service has no option '", option.name, "'; its options are: ", names));
  }
  const auto value = parse_value(*row, option.value);
  if (!value) {
    return absl::InvalidArgumentError(
        absl::StrCat(row->name, " takes ", values_of(*row), ", not '", option.value, "'"));
  }
  row->set(options, *value);
  return absl::OkStatus();
}

absl::Status check_options_of(const ServiceKey& key, const ServiceOptions& options) {
  const bool of_no_use =
      (options.client_address == ClientAddress::toa &&
       (key.protocol == Protocol::udp || key.protocol == Protocol::sctp)) ||
      (options.client_address == ClientAddress::proxy && key.protocol == Protocol::sctp);
  if (!of_no_use) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "client-address toa is an option of TCP, and proxy one of TCP and UDP: this service has no "
      "use for it");
}

std::vector<ServiceOption> list_options(const ServiceOptions& options) {
  return differing_options({}, options);
}

std::vector<ServiceOption> differing_options(const ServiceOptions& current,
                                             const ServiceOptions& wanted) {
  std::vector<ServiceOption> list;
  for (const OptionRow& row : kRows) {
    const std::uint32_t value = row.get(wanted);
    if (value == row.get(current)) continue;
    list.push_back({row.name, row.is_choice() ? row.choices[value] : absl::StrCat(value)});
  }
  return list;
}

}  // namespace weir
