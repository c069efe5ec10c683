// SPDX-License-Identifier: Apache-2.0
#include "control/cli/ipvsadm_arguments.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cerrno>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include "control/cli/option_scanner.h"

namespace weir {
namespace {

constexpr const char* kDefaultPersistence = "360";  // seconds
constexpr std::int64_t kMaxTimeout = 31L * 24 * 60 * 60;
constexpr std::int64_t kMaxInt = std::numeric_limits<std::int32_t>::max();

using Problem = std::optional<IpvsadmUsageError>;

template <class... Parts>
IpvsadmUsageError usage_error(const Parts&... parts) {
  IpvsadmUsageError error;
  (error.message.append(std::string_view(parts)), ...);
  return error;
}

IpvsadmUsageError scan_error(const OptionScanner::Error& error) {
  IpvsadmUsageError result = usage_error(error.argument, ": ", error.reason);
  result.exit_code = 255;
  result.severity = IpvsadmUsageError::Severity::skips_line;
  return result;
}

// What an option sets, in the order in which ipvsadm checks and under the names it uses in errors.
enum class Slot : std::uint8_t {
  numeric,
  connection,
  service_address,
  scheduler,
  persistent,
  netmask,
  real_server,
  forwarding_method,
  weight,
  upper_threshold,
  lower_threshold,
  mcast_interface,
  timeout,
  daemon,
  stats,
  rate,
  thresholds,
  persistent_conn,
  nosort,
  syncid,
  exact,
  ops,
  pe,
  sched_flags,
  mcast_group,
  mcast_port,
  mcast_ttl,
  sync_maxlen,
  tun_info,
  tun_type,
  tun_port,
  tun_nocsum,
  tun_csum,
  tun_remcsum,
  none,  // may be repeated and goes with every command
};
constexpr std::size_t kSlots = static_cast<std::size_t>(Slot::none);

constexpr std::array<std::string_view, kSlots> kSlotNames = {"numeric",
                                                             "connection",
                                                             "service-address",
                                                             "scheduler",
                                                             "persistent",
                                                             "netmask",
                                                             "real-server",
                                                             "forwarding-method",
                                                             "weight",
                                                             "u-threshold",
                                                             "l-threshold",
                                                             "mcast-interface",
                                                             "timeout",
                                                             "daemon",
                                                             "stats",
                                                             "rate",
                                                             "thresholds",
                                                             "persistent-conn",
                                                             "nosort",
                                                             "syncid",
                                                             "exact",
                                                             "ops",
                                                             "pe",
                                                             "sched-flags",
                                                             "mcast-group",
                                                             "mcast-port",
                                                             "mcast-ttl",
                                                             "sync-maxlen",
                                                             "tun-info",
                                                             "tun-type",
                                                             "tun-port",
                                                             "tun-nocsum",
                                                             "tun-csum",
                                                             "tun-remcsum"};

class SlotSet {
 public:
  SlotSet() = default;
  SlotSet(std::initializer_list<Slot> slots) {
    for (const Slot slot : slots) add(slot);
  }
  void add(Slot slot) { bits_.set(static_cast<std::size_t>(slot)); }
  bool has(Slot slot) const { return bits_.test(static_cast<std::size_t>(slot)); }
  bool has_any(const SlotSet& other) const { return (bits_ & other.bits_).any(); }

 private:
  std::bitset<kSlots> bits_;
};

// Which options a command (or a tunnel type) needs, and which others it allows. Of those in
// `exclusive` it takes one.
struct OptionRules {
  std::string_view name;
  SlotSet required;
  SlotSet allowed;
  SlotSet exclusive;
};

const OptionRules& rules_of(IpvsadmCommand command) {
  using enum Slot;
  static const SlotSet service_options = {scheduler, persistent, netmask, ops, pe, sched_flags};
  static const SlotSet server_options = {forwarding_method, weight,   upper_threshold,
                                         lower_threshold,   tun_type, tun_port,
                                         tun_nocsum,        tun_csum, tun_remcsum};
  static const SlotSet list_options = {numeric, connection, service_address, timeout, daemon, stats,
                                       rate,    thresholds, persistent_conn, nosort,  syncid, exact,
                                       tun_info};
  static const SlotSet one_list = {connection, service_address, timeout, daemon};
  // By IpvsadmCommand.
  static const std::array<OptionRules, 14> rules = {{
      {"add-service", {service_address}, service_options, {}},
      {"edit-service", {service_address}, service_options, {}},
      {"delete-service", {service_address}, {}, {}},
      {"flush", {}, {}, {}},
      {"add-server", {service_address, real_server}, server_options, {}},
      {"edit-server", {service_address, real_server}, server_options, {}},
      {"delete-server", {service_address, real_server}, {}, {}},
      {"list", {}, list_options, one_list},
      {"zero", {}, {service_address}, {}},
      {"save", {}, {numeric}, {}},
      {"restore", {}, {}, {}},
      {"set", {}, {}, {}},
      {"start-daemon",
       {},
       {mcast_interface, syncid, mcast_group, mcast_port, mcast_ttl, sync_maxlen},
       {}},
      {"stop-daemon", {}, {syncid}, {}},
  }};
  return rules[static_cast<std::size_t>(command)];
}

const OptionRules& rules_of(TunnelType tunnel) {
  using enum Slot;
  // By TunnelType.
  static const std::array<OptionRules, 3> rules = {{
      {"ipip", {}, {}, {}},
      {"gue", {tun_port}, {tun_nocsum, tun_csum, tun_remcsum}, {tun_nocsum, tun_csum, tun_remcsum}},
      {"gre", {}, {tun_nocsum, tun_csum}, {tun_nocsum, tun_csum}},
  }};
  return rules[static_cast<std::size_t>(tunnel)];
}

// `given` is checked against `rules` from slot `first` on, in the order of the slots.
Problem check_rules(const SlotSet& given, const OptionRules& rules, std::string_view kind,
                    Slot first) {
  std::optional<std::size_t> chosen;
  for (std::size_t i = static_cast<std::size_t>(first); i < kSlots; ++i) {
    const Slot slot = static_cast<Slot>(i);
    if (!given.has(slot)) {
      if (!rules.required.has(slot)) continue;
      return usage_error("You need to supply the '", kSlotNames[i], "' option for the '",
                         rules.name, "' ", kind);
    }
    if (!rules.required.has(slot) && !rules.allowed.has(slot))
      return usage_error("Illegal '", kSlotNames[i], "' option with the '", rules.name, "' ", kind);
    if (!rules.exclusive.has(slot)) continue;
    if (chosen)
      return usage_error("The option '", kSlotNames[i], "' conflicts with the '",
                         kSlotNames[*chosen], "' option in the '", rules.name, "' ", kind);
    chosen = i;
  }
  return std::nullopt;
}

// A decimal number as strtol reads it, which allows blanks and a sign before it.
std::optional<std::int64_t> parse_number(const std::string& text, std::int64_t lowest,
                                         std::int64_t highest) {
  char* end = nullptr;
  errno = 0;
  const std::int64_t number = std::strtol(text.c_str(), &end, 10);
  if (end == text.c_str() || *end != '\0' || errno != 0) return std::nullopt;
  if (number < lowest || number > highest) return std::nullopt;
  return number;
}

// As inet_aton reads them: also "10.1" and "0x0a000001".
std::optional<Ipv4Address> parse_loose_ipv4(const std::string& text) {
  in_addr address{};
  if (inet_aton(text.c_str(), &address) == 0) return std::nullopt;
  return Ipv4Address{Be32::from_raw(address.s_addr)};
}

struct Endpoint {
  IpAddress address;
  std::optional<std::uint16_t> port;
};

std::optional<std::uint16_t> parse_port(const std::string& text, Protocol protocol,
                                        NameLookup& names) {
  if (const auto number = parse_number(text, 0, 65535)) return static_cast<std::uint16_t>(*number);
  return names.port_number(text, protocol);
}

std::optional<Ipv4Address> parse_ipv4_host(const std::string& text, NameLookup& names) {
  if (text.empty()) return std::nullopt;
  if (const auto address = parse_loose_ipv4(text)) return address;
  return names.host_address(text);
}

// "[host]:port". Only an IPv6 address keeps its port: ipvsadm reads that of any other host as 0.
std::optional<Endpoint> parse_bracketed(const std::string& text, Protocol protocol,
                                        NameLookup& names) {
  const std::size_t close = text.find(']');
  if (close == std::string::npos || !text.substr(close + 1).starts_with(':')) return std::nullopt;
  const std::string host = text.substr(1, close - 1);
  const auto address = IpAddress::parse(host);
  if (!address || address->is_ipv4()) {
    const auto ipv4 = parse_ipv4_host(host, names);
    if (!ipv4) return std::nullopt;
    return Endpoint{*ipv4, 0};
  }
  const auto port = parse_port(text.substr(close + 2), protocol, names);
  if (!port) return std::nullopt;
  return Endpoint{*address, port};
}

std::optional<Endpoint> parse_endpoint(const std::string& text, Protocol protocol,
                                       NameLookup& names) {
  if (text.starts_with('[')) return parse_bracketed(text, protocol, names);
  if (const auto address = IpAddress::parse(text); address && !address->is_ipv4())
    return Endpoint{*address, std::nullopt};
  const std::size_t colon = text.rfind(':');
  const auto host = parse_ipv4_host(text.substr(0, colon), names);
  if (!host) return std::nullopt;
  // A number alone is not an address, although inet_aton takes it for one.
  const bool is_number =
      parse_number(text, 0, std::numeric_limits<std::int64_t>::max()).has_value();
  if (colon == std::string::npos && is_number) return std::nullopt;
  if (colon == std::string::npos) return Endpoint{*host, std::nullopt};
  const auto port = parse_port(text.substr(colon + 1), protocol, names);
  if (!port) return std::nullopt;
  return Endpoint{*host, port};
}

// IPVS keeps three bits for the scheduler: sh and mh name the first two, others have all three.
struct SchedulerFlags {
  std::string_view scheduler;
  std::array<std::string_view, 2> names;
};
constexpr std::array<SchedulerFlags, 2> kNamedFlags = {{
    {"sh", {"sh-fallback", "sh-port"}},
    {"mh", {"mh-fallback", "mh-port"}},
}};

// The parse of one command line. Each option has a method, in the table at the end of the file.
class ArgumentParser {
 public:
  ArgumentParser(std::span<const std::string> arguments, NameLookup& names);
  std::variant<IpvsadmRequest, IpvsadmUsageError> parse();

  // A command as the first option.
  template <IpvsadmCommand command>
  Problem set_command(const std::string&) {
    request_.command = command;
    return std::nullopt;
  }
  Problem start_daemon(const std::string& role);
  Problem stop_daemon(const std::string& role);

  template <Protocol protocol>
  Problem set_service(const std::string& text);
  Problem set_fwmark(const std::string& text);
  Problem use_ipv6(const std::string& text);
  Problem set_scheduler(const std::string& text);
  Problem set_persistence(const std::string& text);
  Problem set_netmask(const std::string& text);
  Problem set_engine(const std::string& text);
  Problem set_one_packet(const std::string& text);
  Problem set_flags(const std::string& text);

  Problem set_server(const std::string& text);
  template <ForwardMode mode>
  Problem set_mode(const std::string&) {
    request_.server.mode = mode;
    return std::nullopt;
  }
  Problem set_weight(const std::string& text);
  Problem set_upper(const std::string& text);
  Problem set_lower(const std::string& text);
  Problem set_tunnel_type(const std::string& text);
  Problem set_tunnel_port(const std::string& text);
  template <TunnelChecksum checksum>
  Problem set_tunnel_checksum(const std::string&) {
    request_.server.tunnel_checksum = checksum;
    return std::nullopt;
  }

  Problem set_interface(const std::string& text);
  Problem set_sync_id(const std::string& text);
  Problem set_group(const std::string& text);
  Problem set_group_port(const std::string& text);
  Problem set_ttl(const std::string& text);
  Problem set_max_length(const std::string& text);
  // For options whose slot says it all.
  Problem note(const std::string&) { return std::nullopt; }

 private:
  Problem scan();
  Problem scan_command();
  Problem scan_option(const OptionScanner::Found& found);
  Problem take_timeouts();
  Problem check_others() const;
  Problem apply_flags();
  Problem finish();
  Problem finish_service();
  Problem finish_server();
  Problem finish_list();
  bool is_ipv6() const { return !service_.key.address.is_ipv4(); }

  NameLookup& names_;
  OptionScanner scanner_;
  IpvsadmRequest request_;
  ServiceSpec service_;
  SlotSet given_;
  std::string flags_;
  std::size_t others_taken_ = 0;
};

using Apply = Problem (ArgumentParser::*)(const std::string&);

struct OptionRow {
  OptionName name;
  Slot slot;
  Apply apply;
};

using P = ArgumentParser;
constexpr auto kNone = OptionValue::none, kValue = OptionValue::required,
               kMaybe = OptionValue::optional;
using C = IpvsadmCommand;

// The commands come first: see kCommands.
// clang-format off
constexpr std::array kOptions = {
    OptionRow{{"add-service", 'A', kNone}, Slot::none, &P::set_command<C::add_service>},
    OptionRow{{"edit-service", 'E', kNone}, Slot::none, &P::set_command<C::edit_service>},
    OptionRow{{"delete-service", 'D', kNone}, Slot::none, &P::set_command<C::delete_service>},
    OptionRow{{"clear", 'C', kNone}, Slot::none, &P::set_command<C::clear>},
    OptionRow{{"list", 'L', kNone}, Slot::none, &P::set_command<C::list>},
    OptionRow{{"", 'l', kNone}, Slot::none, &P::set_command<C::list>},
    OptionRow{{"zero", 'Z', kNone}, Slot::none, &P::set_command<C::zero>},
    OptionRow{{"add-server", 'a', kNone}, Slot::none, &P::set_command<C::add_server>},
    OptionRow{{"edit-server", 'e', kNone}, Slot::none, &P::set_command<C::edit_server>},
    OptionRow{{"delete-server", 'd', kNone}, Slot::none, &P::set_command<C::delete_server>},
    OptionRow{{"set", '\0', kNone}, Slot::none, &P::set_command<C::set_timeouts>},
    OptionRow{{"restore", 'R', kNone}, Slot::none, &P::set_command<C::restore>},
    OptionRow{{"save", 'S', kNone}, Slot::none, &P::set_command<C::save>},
    OptionRow{{"start-daemon", '\0', kValue}, Slot::none, &P::start_daemon},
    OptionRow{{"stop-daemon", '\0', kValue}, Slot::none, &P::stop_daemon},
    OptionRow{{"help", 'h', kNone}, Slot::none, &P::set_command<C::help>},
    OptionRow{{"version", 'v', kNone}, Slot::none, &P::set_command<C::version>},

    OptionRow{{"tcp-service", 't', kValue}, Slot::service_address, &P::set_service<Protocol::tcp>},
    OptionRow{{"udp-service", 'u', kValue}, Slot::service_address, &P::set_service<Protocol::udp>},
    OptionRow{{"sctp-service", '\0', kValue}, Slot::service_address,
              &P::set_service<Protocol::sctp>},
    OptionRow{{"fwmark-service", 'f', kValue}, Slot::service_address, &P::set_fwmark},
    OptionRow{{"ipv6", '6', kNone}, Slot::none, &P::use_ipv6},
    OptionRow{{"scheduler", 's', kValue}, Slot::scheduler, &P::set_scheduler},
    OptionRow{{"persistent", 'p', kMaybe}, Slot::persistent, &P::set_persistence},
    OptionRow{{"netmask", 'M', kValue}, Slot::netmask, &P::set_netmask},
    OptionRow{{"pe", '\0', kValue}, Slot::pe, &P::set_engine},
    OptionRow{{"ops", 'o', kNone}, Slot::ops, &P::set_one_packet},
    OptionRow{{"sched-flags", 'b', kValue}, Slot::sched_flags, &P::set_flags},

    OptionRow{{"real-server", 'r', kValue}, Slot::real_server, &P::set_server},
    OptionRow{{"masquerading", 'm', kNone}, Slot::forwarding_method,
              &P::set_mode<ForwardMode::nat>},
    // Not of ipvsadm 1.31, but of those for FullNAT balancers.
    OptionRow{{"fullnat", '\0', kNone}, Slot::forwarding_method,
              &P::set_mode<ForwardMode::fullnat>},
    OptionRow{{"ipip", 'i', kNone}, Slot::forwarding_method, &P::set_mode<ForwardMode::tun>},
    OptionRow{{"gatewaying", 'g', kNone}, Slot::forwarding_method, &P::set_mode<ForwardMode::dr>},
    OptionRow{{"weight", 'w', kValue}, Slot::weight, &P::set_weight},
    OptionRow{{"u-threshold", 'x', kValue}, Slot::upper_threshold, &P::set_upper},
    OptionRow{{"l-threshold", 'y', kValue}, Slot::lower_threshold, &P::set_lower},
    OptionRow{{"tun-type", '\0', kValue}, Slot::tun_type, &P::set_tunnel_type},
    OptionRow{{"tun-port", '\0', kValue}, Slot::tun_port, &P::set_tunnel_port},
    OptionRow{{"tun-nocsum", '\0', kNone}, Slot::tun_nocsum,
              &P::set_tunnel_checksum<TunnelChecksum::none>},
    OptionRow{{"tun-csum", '\0', kNone}, Slot::tun_csum,
              &P::set_tunnel_checksum<TunnelChecksum::checksum>},
    OptionRow{{"tun-remcsum", '\0', kNone}, Slot::tun_remcsum,
              &P::set_tunnel_checksum<TunnelChecksum::remote>},

    OptionRow{{"numeric", 'n', kNone}, Slot::numeric, &P::note},
    OptionRow{{"connection", 'c', kNone}, Slot::connection, &P::note},
    OptionRow{{"timeout", '\0', kNone}, Slot::timeout, &P::note},
    OptionRow{{"daemon", '\0', kNone}, Slot::daemon, &P::note},
    OptionRow{{"stats", '\0', kNone}, Slot::stats, &P::note},
    OptionRow{{"rate", '\0', kNone}, Slot::rate, &P::note},
    OptionRow{{"thresholds", '\0', kNone}, Slot::thresholds, &P::note},
    OptionRow{{"persistent-conn", '\0', kNone}, Slot::persistent_conn, &P::note},
    OptionRow{{"tun-info", '\0', kNone}, Slot::tun_info, &P::note},
    OptionRow{{"nosort", '\0', kNone}, Slot::nosort, &P::note},
    OptionRow{{"sort", '\0', kNone}, Slot::none, &P::note},
    OptionRow{{"exact", 'X', kNone}, Slot::exact, &P::note},

    OptionRow{{"mcast-interface", '\0', kValue}, Slot::mcast_interface, &P::set_interface},
    OptionRow{{"syncid", '\0', kValue}, Slot::syncid, &P::set_sync_id},
    OptionRow{{"mcast-group", '\0', kValue}, Slot::mcast_group, &P::set_group},
    OptionRow{{"mcast-port", '\0', kValue}, Slot::mcast_port, &P::set_group_port},
    OptionRow{{"mcast-ttl", '\0', kValue}, Slot::mcast_ttl, &P::set_ttl},
    OptionRow{{"sync-maxlen", '\0', kValue}, Slot::sync_maxlen, &P::set_max_length},
};
// clang-format on
constexpr std::size_t kCommands = 17;

constexpr auto kOptionNames = [] {
  std::array<OptionName, kOptions.size()> names;
  for (std::size_t i = 0; i < names.size(); ++i) names[i] = kOptions[i].name;
  return names;
}();

ArgumentParser::ArgumentParser(std::span<const std::string> arguments, NameLookup& names)
    : names_(names), scanner_(kOptionNames, arguments) {
  service_.key.protocol = Protocol::ip;
  service_.scheduler.clear();
}

std::variant<IpvsadmRequest, IpvsadmUsageError> ArgumentParser::parse() {
  if (Problem problem = scan()) return *std::move(problem);
  if (request_.command != C::help && request_.command != C::version) {
    if (Problem problem = finish()) return *std::move(problem);
  }
  if (given_.has(Slot::service_address)) request_.service = service_;
  return request_;
}

Problem ArgumentParser::scan() {
  if (Problem problem = scan_command()) return problem;
  // These two answer at once, whatever follows.
  if (request_.command == C::help || request_.command == C::version) return std::nullopt;
  for (;;) {
    const OptionScanner::Next next = scanner_.next();
    if (std::holds_alternative<OptionScanner::End>(next)) return std::nullopt;
    if (const auto* error = std::get_if<OptionScanner::Error>(&next)) return scan_error(*error);
    if (Problem problem = scan_option(std::get<OptionScanner::Found>(next))) return problem;
  }
}

Problem ArgumentParser::scan_command() {
  const OptionScanner::Next next = scanner_.next();
  const auto* found = std::get_if<OptionScanner::Found>(&next);
  if (found == nullptr || found->option >= kCommands) return ipvsadm_try_help();
  return (this->*kOptions[found->option].apply)(found->value.value_or(""));
}

Problem ArgumentParser::scan_option(const OptionScanner::Found& found) {
  const OptionRow& row = kOptions[found.option];
  if (found.option < kCommands) return usage_error("invalid option `", scanner_.current(), "'");
  if (row.slot != Slot::none) {
    if (given_.has(row.slot))
      return usage_error("multiple '", kSlotNames[static_cast<std::size_t>(row.slot)],
                         "' options specified");
    given_.add(row.slot);
  }
  if (row.name.value == OptionValue::optional && !found.value)
    return set_persistence(kDefaultPersistence);
  return (this->*row.apply)(found.value.value_or(""));
}

Problem ArgumentParser::start_daemon(const std::string& role) {
  request_.command = C::start_daemon;
  if (role == "backup") {
    request_.daemon.role = SyncDaemonSpec::Role::backup;
  } else if (role != "master") {
    return usage_error("illegal start-daemon parameter specified");
  }
  return std::nullopt;
}

Problem ArgumentParser::stop_daemon(const std::string& role) {
  if (start_daemon(role)) return usage_error("illegal start_daemon specified");
  request_.command = C::stop_daemon;
  return std::nullopt;
}

template <Protocol protocol>
Problem ArgumentParser::set_service(const std::string& text) {
  service_.key.protocol = protocol;
  const auto endpoint = parse_endpoint(text, protocol, names_);
  if (!endpoint) return usage_error("illegal virtual server address[:port] specified");
  service_.key.address = endpoint->address;
  service_.key.port = endpoint->port.value_or(0);
  if (is_ipv6()) service_.persistence_mask = kEachClientAlone;
  return std::nullopt;
}

Problem ArgumentParser::set_fwmark(const std::string& text) {
  const auto mark = parse_number(text, 1, std::numeric_limits<std::uint32_t>::max());
  if (!mark) return usage_error("invalid fwmark value `", text, "' specified");
  service_.key = {.protocol = Protocol::ip, .fwmark = static_cast<std::uint32_t>(*mark)};
  return std::nullopt;
}

Problem ArgumentParser::use_ipv6(const std::string&) {
  if (service_.key.fwmark == 0) return usage_error("-6 used before -f\n");
  service_.key.address = IpAddress(Ipv6Address{});
  service_.persistence_mask = kEachClientAlone;
  return std::nullopt;
}

Problem ArgumentParser::set_scheduler(const std::string& text) {
  service_.scheduler = text;
  return std::nullopt;
}

Problem ArgumentParser::set_persistence(const std::string& text) {
  const auto seconds = parse_number(text, 1, kMaxTimeout);
  if (!seconds) return usage_error("invalid timeout value `", text, "' specified");
  service_.persistence_timeout = static_cast<std::uint32_t>(*seconds);
  return std::nullopt;
}

Problem ArgumentParser::set_netmask(const std::string& text) {
  if (is_ipv6()) {
    const int length = std::atoi(text.c_str());
    if (length < 1 || length > 128) return usage_error("illegal ipv6 netmask specified");
    service_.persistence_mask =
        length == 128 ? kEachClientAlone : static_cast<std::uint32_t>(length);
    return std::nullopt;
  }
  const auto mask = parse_loose_ipv4(text);
  if (!mask) return usage_error("illegal virtual server persistent mask specified");
  service_.persistence_mask = mask->value.host();
  return std::nullopt;
}

Problem ArgumentParser::set_engine(const std::string& text) {
  service_.persistence_engine = text;
  return std::nullopt;
}

Problem ArgumentParser::set_one_packet(const std::string&) {
  service_.one_packet = true;
  return std::nullopt;
}

Problem ArgumentParser::set_flags(const std::string& text) {
  flags_ = text;
  return std::nullopt;
}

Problem ArgumentParser::set_server(const std::string& text) {
  // Ports of a fwmark service have the names of TCP; before the service is known there are none.
  const Protocol protocol = service_.key.fwmark != 0 ? Protocol::tcp : service_.key.protocol;
  const auto endpoint = parse_endpoint(text, protocol, names_);
  if (!endpoint) return usage_error("illegal real server address[:port] specified");
  request_.server.address = endpoint->address;
  request_.server.port = endpoint->port.value_or(service_.key.port);
  return std::nullopt;
}

Problem ArgumentParser::set_weight(const std::string& text) {
  const auto weight = parse_number(text, 0, kMaxInt);
  if (!weight) return usage_error("illegal weight specified");
  request_.server.weight = static_cast<std::int32_t>(*weight);
  return std::nullopt;
}

Problem ArgumentParser::set_upper(const std::string& text) {
  const auto threshold = parse_number(text, 0, kMaxInt);
  if (!threshold) return usage_error("illegal u_threshold specified");
  request_.server.upper_threshold = static_cast<std::uint32_t>(*threshold);
  return std::nullopt;
}

Problem ArgumentParser::set_lower(const std::string& text) {
  const auto threshold = parse_number(text, 0, kMaxInt);
  if (!threshold) return usage_error("illegal l_threshold specified");
  request_.server.lower_threshold = static_cast<std::uint32_t>(*threshold);
  return std::nullopt;
}

Problem ArgumentParser::set_tunnel_type(const std::string& text) {
  for (const TunnelType type : {TunnelType::ipip, TunnelType::gue, TunnelType::gre}) {
    if (rules_of(type).name != text) continue;
    request_.server.tunnel = type;
    return std::nullopt;
  }
  return usage_error("illegal tunnel type specified");
}

Problem ArgumentParser::set_tunnel_port(const std::string& text) {
  const auto port = parse_number(text, 1, 65535);
  if (!port) return usage_error("illegal tunnel port specified");
  request_.server.tunnel_port = static_cast<std::uint16_t>(*port);
  return std::nullopt;
}

Problem ArgumentParser::set_interface(const std::string& text) {
  request_.daemon.interface = text;
  return std::nullopt;
}

Problem ArgumentParser::set_sync_id(const std::string& text) {
  const auto id = parse_number(text, 0, 255);
  if (!id) return usage_error("illegal syncid specified");
  request_.daemon.sync_id = static_cast<std::uint32_t>(*id);
  return std::nullopt;
}

Problem ArgumentParser::set_group(const std::string& text) {
  const auto group = IpAddress::parse(text);
  const bool is_group = group && group->is_multicast();
  if (!is_group) {
    const std::string_view family = text.find(':') != std::string::npos ? "IPv6" : "IPv4";
    return usage_error("invalid ", family, " mcast-group `", text, "'");
  }
  request_.daemon.group = *group;
  return std::nullopt;
}

Problem ArgumentParser::set_group_port(const std::string& text) {
  const auto port = parse_number(text, 1, 65535);
  if (!port) return usage_error("illegal mcast-port specified");
  request_.daemon.port = static_cast<std::uint16_t>(*port);
  return std::nullopt;
}

Problem ArgumentParser::set_ttl(const std::string& text) {
  const auto ttl = parse_number(text, 1, 255);
  if (!ttl) return usage_error("illegal mcast-ttl specified");
  request_.daemon.ttl = static_cast<std::uint8_t>(*ttl);
  return std::nullopt;
}

Problem ArgumentParser::set_max_length(const std::string& text) {
  const auto length = parse_number(text, 1, 65507);
  if (!length) return usage_error("illegal sync-maxlen specified");
  request_.daemon.max_length = static_cast<std::uint32_t>(*length);
  return std::nullopt;
}

Problem ArgumentParser::take_timeouts() {
  constexpr std::size_t kTimeouts = 3;
  const auto& others = scanner_.others();
  if (others.size() < kTimeouts) return usage_error("--set option requires 3 timeout values");
  std::array<std::uint32_t, kTimeouts> seconds{};
  for (std::size_t i = 0; i < kTimeouts; ++i) {
    const auto number = parse_number(others[i], 0, kMaxTimeout);
    if (!number) return usage_error("invalid timeout value `", others[i], "' specified");
    seconds[i] = static_cast<std::uint32_t>(*number);
  }
  request_.timeouts = {.tcp = seconds[0], .tcp_fin = seconds[1], .udp = seconds[2]};
  others_taken_ = kTimeouts;
  return std::nullopt;
}

Problem ArgumentParser::check_others() const {
  const auto& others = scanner_.others();
  if (others.size() <= others_taken_) return std::nullopt;
  return usage_error("unexpected argument ", others[others_taken_]);
}

Problem ArgumentParser::apply_flags() {
  constexpr std::array<std::string_view, 3> kPlain = {"flag-1", "flag-2", "flag-3"};
  const auto named = std::ranges::find(kNamedFlags, service_.scheduler, &SchedulerFlags::scheduler);
  std::bitset<kPlain.size()> bits;
  for (std::size_t begin = 0; begin < flags_.size();) {
    const std::size_t end = std::min(flags_.find(',', begin), flags_.size());
    const std::string flag = flags_.substr(begin, end - begin);
    begin = end + 1;
    if (flag.empty()) continue;
    if (const auto at = std::ranges::find(kPlain, flag); at != kPlain.end()) {
      bits.set(static_cast<std::size_t>(at - kPlain.begin()));
      continue;
    }
    const auto owner = std::ranges::find_if(kNamedFlags, [&flag](const SchedulerFlags& flags) {
      return std::ranges::find(flags.names, flag) != flags.names.end();
    });
    if (owner == kNamedFlags.end()) return usage_error("invalid scheduler flag `", flag, "'");
    if (owner != named) return usage_error("incompatible scheduler flag `", flag, "'");
    bits.set(owner->names[0] == flag ? 0 : 1);
  }
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (!bits.test(i)) continue;
    if (named == kNamedFlags.end()) service_.scheduler_flags.emplace_back(kPlain[i]);
    // A third flag means nothing to sh and mh, and ipvsadm does not show it.
    if (named != kNamedFlags.end() && i < named->names.size())
      service_.scheduler_flags.emplace_back(named->names[i]);
  }
  return std::nullopt;
}

Problem ArgumentParser::finish() {
  if (request_.command == C::set_timeouts) {
    if (Problem problem = take_timeouts()) return problem;
  }
  if (Problem problem = check_others()) return problem;
  if (Problem problem = apply_flags()) return problem;
  if (Problem problem = check_rules(given_, rules_of(request_.command), "command", Slot::numeric))
    return problem;
  switch (request_.command) {
    case C::add_service:
    case C::edit_service:
      return finish_service();
    case C::add_server:
    case C::edit_server:
      return finish_server();
    case C::list:
      return finish_list();
    case C::save:
      if (given_.has(Slot::numeric)) request_.names = NameStyle::numeric;
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

Problem ArgumentParser::finish_service() {
  const ServiceKey& key = service_.key;
  if (key.fwmark == 0 && key.port == 0 && service_.persistence_timeout == 0)
    return usage_error("Zero port specified for non-persistent service");
  if (service_.one_packet && key.fwmark == 0 && key.protocol != Protocol::udp)
    return usage_error("One-Packet Scheduling is only for UDP virtual services");
  if (service_.scheduler.empty()) service_.scheduler = "wlc";
  return std::nullopt;
}

Problem ArgumentParser::finish_server() {
  static const SlotSet tunnel_options = {Slot::tun_type, Slot::tun_port, Slot::tun_nocsum,
                                         Slot::tun_csum, Slot::tun_remcsum};
  ServerSpec& server = request_.server;
  const bool keeps_port = server.mode == ForwardMode::dr || server.mode == ForwardMode::tun;
  if (service_.key.fwmark == 0 && keeps_port) server.port = service_.key.port;
  if (server.mode != ForwardMode::tun) {
    const bool crosses = server.address.family() != service_.key.address.family();
    if (crosses && server.mode != ForwardMode::fullnat)
      return usage_error("Different address family is allowed only for tunneling servers");
    if (given_.has_any(tunnel_options))
      return usage_error("Tunnel options conflict with forward method");
    return std::nullopt;
  }
  return check_rules(given_, rules_of(server.tunnel), "tunnel type", Slot::tun_port);
}

Problem ArgumentParser::finish_list() {
  static const SlotSet counts = {Slot::stats, Slot::rate, Slot::thresholds};
  static const SlotSet counts_or_persistent = {Slot::stats, Slot::rate, Slot::thresholds,
                                               Slot::persistent_conn};
  static const SlotSet settings = {Slot::timeout, Slot::daemon};
  if ((given_.has(Slot::connection) && given_.has_any(counts)) ||
      (given_.has_any(settings) && given_.has_any(counts_or_persistent)))
    return usage_error("options conflicts in the list command");

  if (given_.has(Slot::connection)) request_.list = IpvsadmList::connections;
  if (given_.has(Slot::timeout)) request_.list = IpvsadmList::timeouts;
  if (given_.has(Slot::daemon)) request_.list = IpvsadmList::daemons;
  constexpr std::array<std::pair<Slot, IpvsadmColumns>, 5> kByPrecedence = {{
      {Slot::stats, IpvsadmColumns::statistics},
      {Slot::rate, IpvsadmColumns::rates},
      {Slot::thresholds, IpvsadmColumns::thresholds},
      {Slot::persistent_conn, IpvsadmColumns::persistent_connections},
      {Slot::tun_info, IpvsadmColumns::tunnels},
  }};
  const auto chosen = std::ranges::find_if(
      kByPrecedence, [this](const auto& entry) { return given_.has(entry.first); });
  if (chosen != kByPrecedence.end()) request_.columns = chosen->second;
  if (given_.has(Slot::exact)) request_.numbers = NumberStyle::exact;
  if (given_.has(Slot::numeric)) request_.names = NameStyle::numeric;
  if (given_.has(Slot::nosort)) request_.order = ListOrder::as_kept;
  return std::nullopt;
}

}  // namespace

IpvsadmUsageError ipvsadm_try_help() {
  return {.message = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.",
          .exit_code = 255};
}

std::variant<IpvsadmRequest, IpvsadmUsageError> parse_ipvsadm_arguments(
    std::span<const std::string> arguments, NameLookup& names) {
  return ArgumentParser(arguments, names).parse();
}

}  // namespace weir
