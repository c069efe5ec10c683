// SPDX-License-Identifier: Apache-2.0
#include "control/cli/weirctl_arguments.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <string_view>
#include <utility>

#include "control/api/api_json.h"
#include "control/model/text_forms.h"

namespace weir {
namespace {

constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();

constexpr std::array<std::pair<std::string_view, Protocol>, 3> kProtocols = {{
    {"tcp", Protocol::tcp},
    {"udp", Protocol::udp},
    {"sctp", Protocol::sctp},
}};

absl::Status wrong(const std::string& sentence) {
  return absl::InvalidArgumentError(absl::string_view(sentence.data(), sentence.size()));
}

std::optional<Protocol> protocol_of(std::string_view name) {
  for (const auto& [text, protocol] : kProtocols) {
    if (text == name) return protocol;
  }
  return std::nullopt;
}

std::string_view name_of(Protocol protocol) {
  for (const auto& [text, value] : kProtocols) {
    if (value == protocol) return text;
  }
  return "";
}

// "10.9.0.1:80", "10.9.0.1", "[2001:db8::1]:80", "2001:db8::1".
std::optional<ServiceKey> parse_place(const std::string& text) {
  ServiceKey key;
  if (const auto address = IpAddress::parse(text)) {
    key.address = *address;
    return key;
  }
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  std::string host = text.substr(0, colon);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  const auto address = IpAddress::parse(host);
  const auto port = parse_decimal(std::string_view(text).substr(colon + 1), 65535);
  if (!address || !port || address->is_ipv4() == bracketed) return std::nullopt;
  key.address = *address;
  key.port = static_cast<std::uint16_t>(*port);
  return key;
}

absl::StatusOr<ServiceKey> take_mark(Words& words) {
  const auto mark = parse_decimal(words[1], kMost);
  if (!mark || *mark == 0) return wrong("`fwmark` takes a number above 0, not `" + words[1] + "`");
  ServiceKey key{.protocol = Protocol::ip};
  key.fwmark = *mark;
  words = words.subspan(2);
  if (!words.empty() && words[0] == "ipv6") {
    key.address = IpAddress(Ipv6Address{});
    words = words.subspan(1);
  }
  return key;
}

// Takes the service that `words` begin with.
absl::StatusOr<ServiceKey> take_service(Words& words) {
  if (words.size() < 2) {
    return wrong(
        "a service is `tcp ADDRESS:PORT`, the same with udp or sctp, or `fwmark N [ipv6]`");
  }
  if (words[0] == "fwmark") return take_mark(words);
  const auto protocol = protocol_of(words[0]);
  if (!protocol) return wrong("`" + words[0] + "` is not tcp, udp, sctp or fwmark");
  auto key = parse_place(words[1]);
  if (!key) return wrong("`" + words[1] + "` is not ADDRESS:PORT, for IPv6 [ADDRESS]:PORT");
  key->protocol = *protocol;
  words = words.subspan(2);
  return *key;
}

// ---- Rules for marks: each keyword takes the word after it ----

template <class Value, class Parse>
bool assign(Value& into, const std::string& text, Parse parse) {
  const auto value = parse(text);
  if (value) into = *value;
  return value.has_value();
}

auto number(std::uint32_t least) {
  return [least](const std::string& text) {
    const auto value = parse_decimal(text, kMost);
    return value && *value >= least ? value : std::nullopt;
  };
}

struct Keyword {
  std::string_view name;
  std::string_view takes;
  bool (*read)(MarkRuleCommand& command, const std::string& text);
};

constexpr std::string_view kPrefix = "a prefix like 10.0.0.0/8";
constexpr std::string_view kPorts = "a port or a range like 8000-8080";
using Command = MarkRuleCommand;
using Text = std::string;

constexpr std::array<Keyword, 8> kKeywords = {{
    {"at", "the number that the rule is to have",
     [](Command& c, const Text& t) { return assign(c.at, t, number(1)); }},
    {"from", kPrefix,
     [](Command& c, const Text& t) { return assign(c.rule.rule.from, t, parse_prefix); }},
    {"to", kPrefix,
     [](Command& c, const Text& t) { return assign(c.rule.rule.to, t, parse_prefix); }},
    {"protocol", "tcp, udp or sctp",
     [](Command& c, const Text& t) { return assign(c.rule.rule.protocol, t, protocol_of); }},
    {"source-port", kPorts,
     [](Command& c, const Text& t) {
       return assign(c.rule.rule.source_ports, t, parse_port_range);
     }},
    {"port", kPorts,
     [](Command& c, const Text& t) { return assign(c.rule.rule.ports, t, parse_port_range); }},
    {"on", "a port of weir, as --port names it",
     [](Command& c, const Text& t) {
       c.rule.on = t;
       return !t.empty();
     }},
    {"mark", "a number; 0 is no mark",
     [](Command& c, const Text& t) { return assign(c.rule.rule.mark, t, number(0)); }},
}};

}  // namespace

std::string service_text(const ServiceKey& key) {
  const bool ipv6 = !key.address.is_ipv4();
  if (key.fwmark != 0) return "fwmark " + std::to_string(key.fwmark) + (ipv6 ? " ipv6" : "");
  const std::string host = key.address.to_string();
  return std::string(name_of(key.protocol)) + " " + (ipv6 ? "[" + host + "]" : host) + ":" +
         std::to_string(key.port);
}

absl::StatusOr<LocalAddressCommand> parse_local_address(Words words) {
  if (words.empty()) return wrong("name an address, FIRST-LAST or a prefix");
  const auto range = parse_address_range(words[0]);
  if (!range) return wrong("`" + words[0] + "` is no address, FIRST-LAST or prefix");
  LocalAddressCommand command{.range = *range, .service = std::nullopt};
  Words rest = words.subspan(1);
  if (rest.empty()) return command;
  const auto service = take_service(rest);
  if (!service.ok()) return service.status();
  if (!rest.empty()) return wrong("`" + rest[0] + "` is too much");
  command.service = *service;
  return command;
}

absl::StatusOr<ServiceOptionCommand> parse_service_option(Words words) {
  const auto service = take_service(words);
  if (!service.ok()) return service.status();
  if (words.size() != 2) return wrong("after the service come an option and its value");
  return ServiceOptionCommand{.service = *service, .option = {words[0], words[1]}};
}

absl::StatusOr<MarkRuleCommand> parse_mark_rule(Words words) {
  MarkRuleCommand command;
  std::set<std::string_view> given;
  for (std::size_t i = 0; i < words.size(); i += 2) {
    const auto keyword = std::ranges::find(kKeywords, words[i], &Keyword::name);
    if (keyword == kKeywords.end()) {
      return wrong("a rule has no `" + words[i] +
                   "`: it takes at, from, to, protocol, source-port, port, on and mark");
    }
    const std::string name(keyword->name);
    if (!given.insert(keyword->name).second) return wrong("`" + name + "` is there twice");
    const bool read = i + 1 < words.size() && keyword->read(command, words[i + 1]);
    if (!read) return wrong("`" + name + "` takes " + std::string(keyword->takes));
  }
  if (!given.contains("mark")) return wrong("a rule needs `mark N`");
  return command;
}

std::string mark_rule_text(const MarkRuleSpec& spec) {
  const MarkRule& rule = spec.rule;
  std::string text;
  if (rule.from) text += "from " + text_of(*rule.from) + " ";
  if (rule.to) text += "to " + text_of(*rule.to) + " ";
  if (rule.protocol) text.append("protocol ").append(name_of(*rule.protocol)).append(" ");
  if (!rule.source_ports.is_all()) text += "source-port " + text_of(rule.source_ports) + " ";
  if (!rule.ports.is_all()) text += "port " + text_of(rule.ports) + " ";
  if (!spec.on.empty()) text += "on " + spec.on + " ";
  return text + "mark " + std::to_string(rule.mark);
}

}  // namespace weir
