// SPDX-License-Identifier: Apache-2.0
#include "control/model/text_forms.h"

#include <charconv>

namespace weir {
namespace {

std::optional<unsigned> parse_number(std::string_view text, unsigned most) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number > most) {
    return std::nullopt;
  }
  return number;
}

}  // namespace

std::string text_of(const ServiceKey& key) {
  const bool v6 = !key.address.is_ipv4();
  if (key.fwmark != 0) return "FWM " + std::to_string(key.fwmark) + (v6 ? " IPv6" : "");
  const std::string protocol = key.protocol == Protocol::tcp   ? "TCP "
                               : key.protocol == Protocol::udp ? "UDP "
                                                               : "SCTP ";
  return protocol + (v6 ? "[" : "") + key.address.to_string() + (v6 ? "]:" : ":") +
         std::to_string(key.port);
}

std::optional<IpPrefix> parse_prefix(std::string_view text) {
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  const auto width = static_cast<unsigned>(address->bit_width());
  const auto length = slash == std::string_view::npos ? std::optional(width)
                                                      : parse_number(text.substr(slash + 1), width);
  if (!length) return std::nullopt;
  return IpPrefix{address->masked(static_cast<int>(*length)), static_cast<std::uint8_t>(*length)};
}

std::string text_of(const IpPrefix& prefix) {
  return prefix.address.to_string() + "/" + std::to_string(prefix.length);
}

std::optional<PortSpan> parse_port_range(std::string_view text) {
  const std::size_t dash = text.find('-');
  const auto first = parse_number(text.substr(0, dash), 65535);
  const auto last =
      dash == std::string_view::npos ? first : parse_number(text.substr(dash + 1), 65535);
  if (!first || !last || *first > *last) return std::nullopt;
  return PortSpan{static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

std::string text_of(const PortSpan& range) {
  if (range.first == range.last) return std::to_string(range.first);
  return std::to_string(range.first) + "-" + std::to_string(range.last);
}

std::optional<AddressRange> parse_address_range(std::string_view text) {
  if (text.find('/') != std::string_view::npos) {
    const auto prefix = parse_prefix(text);
    if (!prefix) return std::nullopt;
    return AddressRange{prefix->address, prefix->last()};
  }
  const std::size_t dash = text.find('-');
  const auto first = IpAddress::parse(text.substr(0, dash));
  const auto last =
      dash == std::string_view::npos ? first : IpAddress::parse(text.substr(dash + 1));
  if (!first || !last) return std::nullopt;
  return AddressRange{*first, *last};
}

std::string text_of(const AddressRange& range) {
  if (range.first == range.last) return range.first.to_string();
  return range.first.to_string() + "-" + range.last.to_string();
}

}  // namespace weir
