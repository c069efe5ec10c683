// SPDX-License-Identifier: Apache-2.0
#include "control/api/api_json.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <concepts>
#include <limits>
#include <string_view>
#include <utility>
#include <variant>

#include <absl/strings/string_view.h>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>

#include "control/model/text_forms.h"

namespace weir {
namespace {

namespace json = boost::json;

absl::string_view absl_view(const std::string& text) { return {text.data(), text.size()}; }

absl::Status invalid(const std::string& sentence) {
  return absl::InvalidArgumentError(absl_view(sentence));
}

std::string text_of(json::string_view text) { return {text.data(), text.size()}; }

// The names of an enumeration, in the order of its values.
template <class Enum>
constexpr std::array<const char*, 0> kNames{};
template <>
constexpr std::array kNames<ForwardMode> = {"nat", "dr", "tun", "fullnat", "local"};
template <>
constexpr std::array kNames<TunnelType> = {"ipip", "gue", "gre"};
template <>
constexpr std::array kNames<TunnelChecksum> = {"none", "checksum", "remote"};
template <>
constexpr std::array kNames<SyncDaemonSpec::Role> = {"master", "backup"};
template <>
constexpr std::array kNames<Family> = {"ipv4", "ipv6"};

template <class Enum>
const char* enum_name(Enum value) {
  return kNames<Enum>[static_cast<std::size_t>(value)];
}

template <class Enum>
std::optional<Enum> enum_value(std::string_view name) {
  const auto at = std::ranges::find(kNames<Enum>, name);
  if (at == kNames<Enum>.end()) return std::nullopt;
  return static_cast<Enum>(at - kNames<Enum>.begin());
}

constexpr std::array<std::pair<Protocol, const char*>, 4> kProtocols = {{
    {Protocol::tcp, "tcp"},
    {Protocol::udp, "udp"},
    {Protocol::sctp, "sctp"},
    {Protocol::ip, "fwmark"},
}};

const char* protocol_name(Protocol protocol) {
  for (const auto& [value, name] : kProtocols)
    if (value == protocol) return name;
  return "ip";
}

std::optional<Protocol> protocol_value(std::string_view text) {
  for (const auto& [value, name] : kProtocols)
    if (text == name) return value;
  return std::nullopt;
}

// Reads the members of one object into variables, and remembers the first thing that is wrong.
class Reader {
 public:
  explicit Reader(const json::value& value) : object_(value.if_object()) {
    if (object_ == nullptr) fail("The JSON text is not an object: send one in {}.");
  }

  template <std::integral Number>
  Reader& read(const char* name, Number& into) {
    return with(name, [&](const json::value& value) {
      boost::system::error_code error;
      const auto number = value.is_number() ? value.to_number<Number>(error) : Number{};
      if (error || !value.is_number()) return false;
      into = number;
      return true;
    });
  }
  Reader& read(const char* name, bool& into) {
    return with(name, [&](const json::value& value) {
      if (!value.is_bool()) return false;
      into = value.get_bool();
      return true;
    });
  }
  Reader& read(const char* name, std::string& into) {
    return with(name, [&](const json::value& value) {
      if (!value.is_string()) return false;
      into = text_of(value.get_string());
      return true;
    });
  }
  Reader& read(const char* name, IpAddress& into) {
    return with_text(name, [&](const std::string& text) {
      const auto address = IpAddress::parse(text);
      if (address) into = *address;
      return address.has_value();
    });
  }
  Reader& read(const char* name, std::optional<IpAddress>& into) {
    IpAddress address;
    if (has(name)) {
      read(name, address);
      into = address;
    }
    return *this;
  }
  Reader& read(const char* name, Protocol& into) {
    return with_text(name, [&](const std::string& text) {
      const auto protocol = protocol_value(text);
      if (protocol) into = *protocol;
      return protocol.has_value();
    });
  }
  // A value that is written as `parse` reads it.
  template <class Value, class Parse>
  Reader& read_form(const char* name, Value& into, Parse parse) {
    return with_text(name, [&](const std::string& text) {
      const auto value = parse(text);
      if (value) into = *value;
      return value.has_value();
    });
  }
  template <class Enum>
  requires std::is_enum_v<Enum> Reader& read(const char* name, Enum& into) {
    return with_text(name, [&](const std::string& text) {
      const auto value = enum_value<Enum>(text);
      if (value) into = *value;
      return value.has_value();
    });
  }
  Reader& read(const char* name, std::vector<std::string>& into) {
    return with(name, [&](const json::value& value) {
      if (!value.is_array()) return false;
      into.clear();
      for (const json::value& item : value.get_array()) {
        if (!item.is_string()) return false;
        into.push_back(text_of(item.get_string()));
      }
      return true;
    });
  }
  // A nested value of one of the API's types.
  template <class Type>
  Reader& read_nested(const char* name, Type& into) {
    return with(name, [&](const json::value& value) {
      auto nested = from_json<Type>(value);
      if (nested.ok())
        into = *std::move(nested);
      else
        problem_ = nested.status();
      return true;
    });
  }
  template <class Type>
  Reader& read_nested(const char* name, std::vector<Type>& into) {
    return read_items<Type>(name, into);
  }
  Reader& read_nested(const char* name, Plan& into) { return read_items<Change>(name, into); }
  template <class Type, class List>
  Reader& read_items(const char* name, List& into) {
    return with(name, [&](const json::value& value) {
      if (!value.is_array()) return false;
      for (const json::value& item : value.get_array()) {
        auto nested = from_json<Type>(item);
        if (!nested.ok()) {
          problem_ = nested.status();
          return true;
        }
        into.push_back(*std::move(nested));
      }
      return true;
    });
  }

  // The member has to be there.
  Reader& need(const char* name) {
    if (!has(name)) fail("There is no \"" + std::string(name) + "\": say it.");
    return *this;
  }
  template <class Type>
  Reader& read_needed(const char* name, Type& into) {
    return need(name).read_nested(name, into);
  }
  const absl::Status& problem() const { return problem_; }

  bool has(const char* name) const { return object_ != nullptr && object_->contains(name); }
  void fail(const std::string& sentence) {
    if (problem_.ok()) problem_ = invalid(sentence);
  }

  // Also whether there were members that nobody read.
  absl::Status finish() {
    if (!problem_.ok()) return problem_;
    for (const auto& member : *object_) {
      const std::string_view name(member.key().data(), member.key().size());
      if (std::ranges::find(known_, name) == known_.end())
        return invalid("The API knows no member \"" + std::string(name) + "\" here: remove it.");
    }
    return absl::OkStatus();
  }

 private:
  template <class Take>
  Reader& with(const char* name, Take take) {
    known_.emplace_back(name);
    if (!problem_.ok() || !has(name)) return *this;
    if (!take(object_->at(name)))
      fail("The value of \"" + std::string(name) + "\" has a wrong type or is out of range.");
    return *this;
  }
  template <class Take>
  Reader& with_text(const char* name, Take take) {
    return with(name, [&](const json::value& value) {
      return value.is_string() && take(text_of(value.get_string()));
    });
  }

  const json::object* object_;
  std::vector<std::string_view> known_;
  absl::Status problem_;
};

template <class Type>
absl::StatusOr<Type> finished(Reader& reader, Type value) {
  if (absl::Status problem = reader.finish(); !problem.ok()) return problem;
  return value;
}

void add_key(json::object& object, const ServiceKey& key) {
  object["protocol"] = protocol_name(key.protocol);
  if (key.fwmark != 0) {
    object["fwmark"] = key.fwmark;
    object["family"] = enum_name(key.address.family());
  } else {
    object["address"] = key.address.to_string();
    object["port"] = key.port;
  }
}

void read_key(Reader& reader, ServiceKey& key) {
  Family family = Family::ipv4;
  reader.read("protocol", key.protocol)
      .read("fwmark", key.fwmark)
      .read("family", family)
      .read("address", key.address)
      .read("port", key.port);
  if ((key.protocol == Protocol::ip) != (key.fwmark != 0))
    reader.fail(
        "A service has either a \"fwmark\" above 0 and the protocol \"fwmark\", or neither.");
  if (key.fwmark != 0) {
    key.port = 0;
    key.address = family == Family::ipv4 ? IpAddress() : IpAddress(Ipv6Address{});
  }
}

// "255.255.255.0" or, for IPv6, "64".
std::string mask_text(const ServiceSpec& spec) {
  if (!spec.key.address.is_ipv4()) return std::to_string(spec.persistence_mask);
  return IpAddress(Ipv4Address{Be32::from_host(spec.persistence_mask)}).to_string();
}

void set_mask(Reader& reader, ServiceSpec& spec, const std::string& text) {
  if (spec.key.address.is_ipv4()) {
    const auto mask = IpAddress::parse(text);
    if (mask && mask->is_ipv4()) {
      spec.persistence_mask = mask->ipv4().value.host();
    } else {
      reader.fail("\"persistence_mask\" of an IPv4 service is a mask like \"255.255.255.0\".");
    }
  } else if (const auto length = parse_decimal(text, 128); length && *length > 0) {
    spec.persistence_mask = *length;
  } else {
    reader.fail("\"persistence_mask\" of an IPv6 service is a length from \"1\" to \"128\".");
  }
}

json::object spec_object(const ServiceSpec& spec) {
  json::object object;
  add_key(object, spec.key);
  object["scheduler"] = spec.scheduler;
  if (!spec.scheduler_flags.empty())
    object["scheduler_flags"] =
        json::array(spec.scheduler_flags.begin(), spec.scheduler_flags.end());
  if (spec.persistence_timeout != 0) object["persistence_timeout"] = spec.persistence_timeout;
  if (spec.persistence_mask != kEachClientAlone) object["persistence_mask"] = mask_text(spec);
  if (!spec.persistence_engine.empty()) object["persistence_engine"] = spec.persistence_engine;
  if (spec.one_packet) object["one_packet"] = true;
  return object;
}

void read_spec(Reader& reader, ServiceSpec& spec) {
  read_key(reader, spec.key);
  reader.read("scheduler", spec.scheduler)
      .read("scheduler_flags", spec.scheduler_flags)
      .read("persistence_timeout", spec.persistence_timeout)
      .read("persistence_engine", spec.persistence_engine)
      .read("one_packet", spec.one_packet);
  std::string mask;
  reader.read("persistence_mask", mask);
  if (reader.has("persistence_mask")) set_mask(reader, spec, mask);
}

json::object server_object(const ServerSpec& spec) {
  json::object object;
  object["address"] = spec.address.to_string();
  object["port"] = spec.port;
  object["mode"] = enum_name(spec.mode);
  object["weight"] = spec.weight;
  if (spec.upper_threshold != 0) object["upper_threshold"] = spec.upper_threshold;
  if (spec.lower_threshold != 0) object["lower_threshold"] = spec.lower_threshold;
  if (spec.mode == ForwardMode::tun) {
    object["tunnel"] = enum_name(spec.tunnel);
    if (spec.tunnel_port != 0) object["tunnel_port"] = spec.tunnel_port;
    if (spec.tunnel_checksum != TunnelChecksum::none)
      object["tunnel_checksum"] = enum_name(spec.tunnel_checksum);
  }
  return object;
}

void read_server(Reader& reader, ServerSpec& spec) {
  reader.read("address", spec.address)
      .read("port", spec.port)
      .read("mode", spec.mode)
      .read("weight", spec.weight)
      .read("upper_threshold", spec.upper_threshold)
      .read("lower_threshold", spec.lower_threshold)
      .read("tunnel", spec.tunnel)
      .read("tunnel_port", spec.tunnel_port)
      .read("tunnel_checksum", spec.tunnel_checksum);
}

std::optional<ServiceKey> key_of_path(const std::string& path) {
  const std::size_t first = path.find('/');
  const std::size_t last = path.rfind('/');
  if (first == std::string::npos || first == last) return std::nullopt;
  const auto key = key_from_path(path.substr(0, first), path.substr(first + 1, last - first - 1),
                                 path.substr(last + 1));
  if (!key.ok()) return std::nullopt;
  return *key;
}

template <class Counts>
json::value counts_object(const Counts& counts) {
  return json::object{{"connections", counts.connections},
                      {"packets_in", counts.packets_in},
                      {"packets_out", counts.packets_out},
                      {"bytes_in", counts.bytes_in},
                      {"bytes_out", counts.bytes_out}};
}

template <class Counts>
absl::StatusOr<Counts> counts_from_json(const json::value& value) {
  Counts counts;
  Reader reader(value);
  reader.read("connections", counts.connections)
      .read("packets_in", counts.packets_in)
      .read("packets_out", counts.packets_out)
      .read("bytes_in", counts.bytes_in)
      .read("bytes_out", counts.bytes_out);
  return finished(reader, counts);
}

}  // namespace

json::value to_json(const ServiceSpec& spec) { return spec_object(spec); }
json::value to_json(const ServerSpec& spec) { return server_object(spec); }

json::value to_json(const ServerListing& server) {
  json::object object = server_object(server.spec);
  if (server.is_local) object["is_local"] = true;
  object["active"] = server.active;
  object["inactive"] = server.inactive;
  object["persistent"] = server.persistent;
  object["totals"] = counts_object(server.totals);
  object["rates"] = counts_object(server.rates);
  return object;
}

json::object service_without_servers(const ServiceListing& service) {
  json::object object = spec_object(service.spec);
  object["address_is_local"] = service.address_is_local;
  if (!service.options.empty()) {
    json::array options;
    for (const ServiceOption& option : service.options) options.push_back(to_json(option));
    object["options"] = std::move(options);
  }
  object["totals"] = counts_object(service.totals);
  object["rates"] = counts_object(service.rates);
  return object;
}

json::value to_json(const ConnectionListing& connection) {
  return json::object{
      {"protocol", protocol_name(connection.protocol)},
      {"state", connection.state},
      {"expires", connection.expires},
      {"client", connection.client.to_string()},
      {"client_port", connection.client_port},
      {"virtual", connection.virtual_address.to_string()},
      {"virtual_port", connection.virtual_port},
      {"server", connection.server.to_string()},
      {"server_port", connection.server_port},
  };
}

json::value to_json(const IpvsTimeouts& timeouts) {
  return json::object{{"tcp", timeouts.tcp}, {"tcp_fin", timeouts.tcp_fin}, {"udp", timeouts.udp}};
}

json::value to_json(const SyncDaemonSpec& daemon) {
  json::object object{{"role", enum_name(daemon.role)},
                      {"interface", daemon.interface},
                      {"sync_id", daemon.sync_id},
                      {"max_length", daemon.max_length},
                      {"port", daemon.port},
                      {"ttl", daemon.ttl}};
  if (daemon.group) object["group"] = daemon.group->to_string();
  return object;
}

json::value to_json(const SettingListing& setting) {
  return json::object{{"name", setting.name}, {"value", setting.value}, {"help", setting.help}};
}

json::value to_json(const ServiceOption& option) {
  return json::object{{"name", option.name}, {"value", option.value}};
}

json::value to_json(const AddressRange& range) {
  return json::object{{"first", range.first.to_string()}, {"last", range.last.to_string()}};
}

json::value to_json(const LocalAddressListing& addresses) {
  json::object object = to_json(addresses.range).as_object();
  if (addresses.service) object["service"] = path_of(*addresses.service);
  object["count"] = addresses.count;
  object["not_owned"] = addresses.not_owned;
  return object;
}

json::value to_json(const MarkRuleSpec& spec) {
  const MarkRule& rule = spec.rule;
  json::object object;
  if (rule.from) object["from"] = text_of(*rule.from);
  if (rule.to) object["to"] = text_of(*rule.to);
  if (rule.protocol) object["protocol"] = protocol_name(*rule.protocol);
  if (!rule.source_ports.is_all()) object["source_ports"] = text_of(rule.source_ports);
  if (!rule.ports.is_all()) object["ports"] = text_of(rule.ports);
  if (!spec.on.empty()) object["on"] = spec.on;
  object["mark"] = rule.mark;
  return object;
}

json::value to_json(const WorkerListing& worker) {
  return json::object{{"worker", worker.worker},
                      {"busy", worker.busy},
                      {"open", worker.open},
                      {"capacity", worker.capacity},
                      {"totals", counts_object(worker.totals)},
                      {"handed_over", worker.handed_over},
                      {"to_kernel", worker.to_kernel},
                      {"dropped", worker.dropped}};
}

json::value to_json(const NamedCounter& counter) {
  return json::object{{"name", counter.name}, {"value", counter.value}};
}

json::value to_json(const LoopListing& loop) {
  json::array lengths;
  for (const JobLengths& length : loop.lengths) {
    lengths.push_back(json::object{{"below_us", length.below_us}, {"jobs", length.jobs}});
  }
  return json::object{{"jobs", loop.jobs},
                      {"longest_us", loop.longest_us},
                      {"total_us", loop.total_us},
                      {"lengths", std::move(lengths)}};
}

json::value to_json(const absl::Status& status) {
  const absl::string_view message = status.message();
  return json::object{
      {"error", json::object{{"code", absl::StatusCodeToString(status.code())},
                             {"message", json::string_view(message.data(), message.size())}}}};
}

absl::StatusOr<json::value> parse_json(std::string_view text) {
  boost::system::error_code error;
  json::value value = json::parse(json::string_view(text.data(), text.size()), error);
  if (error) return invalid("The text is not JSON: " + error.message() + ".");
  return value;
}

template <>
absl::StatusOr<ServiceSpec> from_json(const json::value& value) {
  ServiceSpec spec;
  Reader reader(value);
  read_spec(reader, spec);
  return finished(reader, std::move(spec));
}

template <>
absl::StatusOr<ServerSpec> from_json(const json::value& value) {
  ServerSpec spec;
  Reader reader(value);
  read_server(reader, spec);
  return finished(reader, spec);
}

template <>
absl::StatusOr<Totals> from_json(const json::value& value) {
  return counts_from_json<Totals>(value);
}

template <>
absl::StatusOr<Rates> from_json(const json::value& value) {
  return counts_from_json<Rates>(value);
}

template <>
absl::StatusOr<ServerListing> from_json(const json::value& value) {
  ServerListing server;
  Reader reader(value);
  read_server(reader, server.spec);
  reader.read("is_local", server.is_local)
      .read("active", server.active)
      .read("inactive", server.inactive)
      .read("persistent", server.persistent)
      .read_nested("totals", server.totals)
      .read_nested("rates", server.rates);
  return finished(reader, server);
}

template <>
absl::StatusOr<ServiceListing> from_json(const json::value& value) {
  ServiceListing service;
  Reader reader(value);
  read_spec(reader, service.spec);
  reader.read("address_is_local", service.address_is_local)
      .read_nested("totals", service.totals)
      .read_nested("rates", service.rates)
      .read_nested("options", service.options)
      .read_nested("servers", service.servers);
  return finished(reader, std::move(service));
}

template <>
absl::StatusOr<ConnectionListing> from_json(const json::value& value) {
  ConnectionListing connection;
  Reader reader(value);
  reader.read("protocol", connection.protocol)
      .read("state", connection.state)
      .read("expires", connection.expires)
      .read("client", connection.client)
      .read("client_port", connection.client_port)
      .read("virtual", connection.virtual_address)
      .read("virtual_port", connection.virtual_port)
      .read("server", connection.server)
      .read("server_port", connection.server_port);
  return finished(reader, std::move(connection));
}

template <>
absl::StatusOr<IpvsTimeouts> from_json(const json::value& value) {
  IpvsTimeouts timeouts{.tcp = 0, .tcp_fin = 0, .udp = 0};
  Reader reader(value);
  reader.read("tcp", timeouts.tcp).read("tcp_fin", timeouts.tcp_fin).read("udp", timeouts.udp);
  return finished(reader, timeouts);
}

template <>
absl::StatusOr<SyncDaemonSpec> from_json(const json::value& value) {
  SyncDaemonSpec daemon;
  Reader reader(value);
  reader.read("role", daemon.role)
      .read("interface", daemon.interface)
      .read("sync_id", daemon.sync_id)
      .read("max_length", daemon.max_length)
      .read("group", daemon.group)
      .read("port", daemon.port)
      .read("ttl", daemon.ttl);
  return finished(reader, std::move(daemon));
}

template <>
absl::StatusOr<SettingListing> from_json(const json::value& value) {
  SettingListing setting;
  Reader reader(value);
  reader.read("name", setting.name).read("value", setting.value).read("help", setting.help);
  return finished(reader, std::move(setting));
}

template <>
absl::StatusOr<ServiceOption> from_json(const json::value& value) {
  ServiceOption option;
  Reader reader(value);
  reader.read("name", option.name).read("value", option.value);
  return finished(reader, std::move(option));
}

template <>
absl::StatusOr<AddressRange> from_json(const json::value& value) {
  AddressRange range;
  Reader reader(value);
  reader.read("first", range.first).read("last", range.last);
  return finished(reader, range);
}

template <>
absl::StatusOr<LocalAddressListing> from_json(const json::value& value) {
  LocalAddressListing addresses;
  Reader reader(value);
  reader.read("first", addresses.range.first)
      .read("last", addresses.range.last)
      .read_form("service", addresses.service, key_of_path)
      .read("count", addresses.count)
      .read("not_owned", addresses.not_owned);
  return finished(reader, std::move(addresses));
}

template <>
absl::StatusOr<MarkRuleSpec> from_json(const json::value& value) {
  MarkRuleSpec spec;
  Reader reader(value);
  reader.read_form("from", spec.rule.from, parse_prefix)
      .read_form("to", spec.rule.to, parse_prefix)
      .read_form("protocol", spec.rule.protocol, protocol_value)
      .read_form("source_ports", spec.rule.source_ports, parse_port_range)
      .read_form("ports", spec.rule.ports, parse_port_range)
      .read("on", spec.on)
      .read("mark", spec.rule.mark);
  return finished(reader, std::move(spec));
}

template <>
absl::StatusOr<WorkerListing> from_json(const json::value& value) {
  WorkerListing worker;
  Reader reader(value);
  reader.read("worker", worker.worker)
      .read("busy", worker.busy)
      .read("open", worker.open)
      .read("capacity", worker.capacity)
      .read_nested("totals", worker.totals)
      .read("handed_over", worker.handed_over)
      .read("to_kernel", worker.to_kernel)
      .read("dropped", worker.dropped);
  return finished(reader, std::move(worker));
}

template <>
absl::StatusOr<NamedCounter> from_json(const json::value& value) {
  NamedCounter counter;
  Reader reader(value);
  reader.read("name", counter.name).read("value", counter.value);
  return finished(reader, std::move(counter));
}

// ---- Changes ----

namespace {

// The names of changes, and how each is written and read.
struct ChangeForm {
  const char* name;
  void (*write)(const Change& change, json::object& into);
  Change (*read)(Reader& reader);
};

void read_service(Reader& reader, ServiceKey& key) {
  reader.read_form("service", key, key_of_path);
}

void read_owner(Reader& reader, std::optional<ServiceKey>& owner) {
  reader.read_form("service", owner, key_of_path);
}

template <class ServiceChange>
constexpr ChangeForm service_form(const char* name) {
  return {name,
          [](const Change& change, json::object& into) {
            into["spec"] = to_json(std::get<ServiceChange>(change).spec);
          },
          [](Reader& reader) {
            ServiceChange change;
            reader.read_needed("spec", change.spec);
            return Change(std::move(change));
          }};
}

template <class ServerChange>
constexpr ChangeForm server_form(const char* name) {
  return {name,
          [](const Change& change, json::object& into) {
            const auto& server = std::get<ServerChange>(change);
            into["service"] = path_of(server.service);
            into["spec"] = to_json(server.spec);
          },
          [](Reader& reader) {
            ServerChange change;
            read_service(reader.need("service"), change.service);
            reader.read_needed("spec", change.spec);
            return Change(std::move(change));
          }};
}

template <class AddressesChange>
constexpr ChangeForm addresses_form(const char* name) {
  return {name,
          [](const Change& change, json::object& into) {
            const auto& addresses = std::get<AddressesChange>(change);
            into["range"] = to_json(addresses.range);
            if (addresses.service) into["service"] = path_of(*addresses.service);
          },
          [](Reader& reader) {
            AddressesChange change;
            reader.read_needed("range", change.range);
            read_owner(reader, change.service);
            return Change(change);
          }};
}

constexpr ChangeForm kDeleteService = {"delete_service",
                                       [](const Change& change, json::object& into) {
                                         into["service"] =
                                             path_of(std::get<DeleteService>(change).key);
                                       },
                                       [](Reader& reader) {
                                         DeleteService change;
                                         read_service(reader.need("service"), change.key);
                                         return Change(change);
                                       }};

constexpr ChangeForm kDeleteAllServices = {"delete_all_services",
                                           [](const Change&, json::object&) {},
                                           [](Reader&) { return Change(DeleteAllServices{}); }};

constexpr ChangeForm kDeleteServer = {
    "delete_server",
    [](const Change& change, json::object& into) {
      const auto& server = std::get<DeleteServer>(change);
      into["service"] = path_of(server.service);
      into["address"] = server.address.to_string();
      into["port"] = server.port;
    },
    [](Reader& reader) {
      DeleteServer change;
      read_service(reader.need("service"), change.service);
      reader.need("address").read("address", change.address).read("port", change.port);
      return Change(change);
    }};

constexpr ChangeForm kSetServiceOption = {"set_service_option",
                                          [](const Change& change, json::object& into) {
                                            const auto& option = std::get<SetServiceOption>(change);
                                            into["service"] = path_of(option.service);
                                            into["option"] = to_json(option.option);
                                          },
                                          [](Reader& reader) {
                                            SetServiceOption change;
                                            read_service(reader.need("service"), change.service);
                                            reader.read_needed("option", change.option);
                                            return Change(std::move(change));
                                          }};

constexpr ChangeForm kAddMarkRule = {"add_mark_rule",
                                     [](const Change& change, json::object& into) {
                                       const auto& added = std::get<AddMarkRule>(change);
                                       into["rule"] = to_json(added.rule);
                                       if (added.at) into["at"] = *added.at;
                                     },
                                     [](Reader& reader) {
                                       AddMarkRule change;
                                       reader.read_needed("rule", change.rule);
                                       std::uint32_t at = 0;
                                       if (reader.has("at"))
                                         change.at = (reader.read("at", at), at);
                                       return Change(std::move(change));
                                     }};

constexpr ChangeForm kDeleteMarkRule = {"delete_mark_rule",
                                        [](const Change& change, json::object& into) {
                                          into["number"] = std::get<DeleteMarkRule>(change).number;
                                        },
                                        [](Reader& reader) {
                                          DeleteMarkRule change;
                                          reader.need("number").read("number", change.number);
                                          return Change(change);
                                        }};

constexpr ChangeForm kSetTimeouts = {"set_timeouts",
                                     [](const Change& change, json::object& into) {
                                       into["timeouts"] =
                                           to_json(std::get<SetTimeouts>(change).timeouts);
                                     },
                                     [](Reader& reader) {
                                       SetTimeouts change;
                                       reader.read_needed("timeouts", change.timeouts);
                                       return Change(change);
                                     }};

constexpr ChangeForm kSetSetting = {
    "set_setting",
    [](const Change& change, json::object& into) {
      into["name"] = std::get<SetSetting>(change).name;
      into["value"] = std::get<SetSetting>(change).value;
    },
    [](Reader& reader) {
      SetSetting change;
      reader.need("name").need("value").read("name", change.name).read("value", change.value);
      return Change(std::move(change));
    }};

// In the order of Change's alternatives.
constexpr std::array kChangeForms = {service_form<AddService>("add_service"),
                                     service_form<EditService>("edit_service"),
                                     kDeleteService,
                                     kDeleteAllServices,
                                     server_form<AddServer>("add_server"),
                                     server_form<EditServer>("edit_server"),
                                     kDeleteServer,
                                     kSetServiceOption,
                                     addresses_form<AddLocalAddresses>("add_local_addresses"),
                                     addresses_form<DeleteLocalAddresses>("delete_local_addresses"),
                                     kAddMarkRule,
                                     kDeleteMarkRule,
                                     kSetTimeouts,
                                     kSetSetting};
static_assert(kChangeForms.size() == std::variant_size_v<Change>);

}  // namespace

json::value to_json(const Change& change) {
  const ChangeForm& form = kChangeForms[change.index()];
  json::object object{{"change", form.name}};
  form.write(change, object);
  return object;
}

template <>
absl::StatusOr<Change> from_json(const json::value& value) {
  Reader reader(value);
  std::string name;
  reader.need("change").read("change", name);
  if (absl::Status problem = reader.problem(); !problem.ok()) return problem;
  const auto form =
      std::ranges::find(kChangeForms, std::string_view(name),
                        [](const ChangeForm& each) { return std::string_view(each.name); });
  if (form == kChangeForms.end()) {
    std::string known;
    for (const ChangeForm& each : kChangeForms)
      known += std::string(known.empty() ? "" : ", ") + each.name;
    return invalid("There is no change \"" + name + "\": there are " + known + ".");
  }
  Change change = form->read(reader);
  return finished(reader, std::move(change));
}

template <>
absl::StatusOr<ChangesRequest> from_json(const json::value& value) {
  ChangesRequest request;
  Reader reader(value);
  reader.read("each_alone", request.each_alone)
      .need("changes")
      .read_nested("changes", request.plan);
  return finished(reader, std::move(request));
}

json::value to_json(const ChangesRequest& request) {
  json::array changes;
  for (const Change& change : request.plan) changes.push_back(to_json(change));
  return json::object{{"each_alone", request.each_alone}, {"changes", std::move(changes)}};
}

json::value to_json(const std::vector<ChangeFailure>& failures) {
  json::array list;
  for (const ChangeFailure& failure : failures) {
    json::object object = to_json(failure.status).as_object();
    object["change"] = failure.change;
    list.push_back(std::move(object));
  }
  return json::object{{"failures", std::move(list)}};
}

template <>
absl::StatusOr<std::vector<ChangeFailure>> from_json(const json::value& value) {
  const json::object* object = value.if_object();
  const json::value* list = object != nullptr ? object->if_contains("failures") : nullptr;
  std::vector<ChangeFailure> failures;
  if (list == nullptr || !list->is_array()) return invalid("The text is no list of failures.");
  for (const json::value& each : list->get_array()) {
    const json::object* failure = each.if_object();
    const json::value* number = failure != nullptr ? failure->if_contains("change") : nullptr;
    boost::system::error_code error;
    if (number == nullptr || !number->is_number()) return invalid("A failure has no \"change\".");
    const auto change = number->to_number<std::uint32_t>(error);
    failures.push_back({change, status_from_json(each)});
  }
  return failures;
}

template <>
absl::StatusOr<JobLengths> from_json(const json::value& value) {
  JobLengths lengths;
  Reader reader(value);
  reader.read("below_us", lengths.below_us).read("jobs", lengths.jobs);
  return finished(reader, std::move(lengths));
}

template <>
absl::StatusOr<LoopListing> from_json(const json::value& value) {
  LoopListing loop;
  Reader reader(value);
  reader.read("jobs", loop.jobs)
      .read("longest_us", loop.longest_us)
      .read("total_us", loop.total_us)
      .read_nested("lengths", loop.lengths);
  return finished(reader, std::move(loop));
}

absl::Status status_from_json(const json::value& value) {
  const json::object* object = value.if_object();
  const json::value* error = object != nullptr ? object->if_contains("error") : nullptr;
  if (error == nullptr) return absl::InternalError("weir answered without saying what is wrong.");
  std::string code;
  std::string message;
  Reader reader(*error);
  reader.read("code", code).read("message", message);
  if (absl::Status problem = reader.finish(); !problem.ok()) return problem;
  for (int i = 1; i <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++i) {
    const auto candidate = static_cast<absl::StatusCode>(i);
    if (absl::StatusCodeToString(candidate) == code)
      return absl::Status(candidate, absl_view(message));
  }
  return absl::UnknownError(absl_view(message));
}

std::string path_of(const ServiceKey& key) {
  const std::string first = protocol_name(key.protocol);
  if (key.fwmark != 0)
    return first + "/" + enum_name(key.address.family()) + "/" + std::to_string(key.fwmark);
  return first + "/" + key.address.to_string() + "/" + std::to_string(key.port);
}

absl::StatusOr<ServiceKey> key_from_path(const std::string& first, const std::string& second,
                                         const std::string& third) {
  const auto protocol = protocol_value(first);
  if (!protocol) return invalid("\"" + first + "\" is no protocol: use tcp, udp, sctp or fwmark.");
  ServiceKey key{.protocol = *protocol};
  if (*protocol == Protocol::ip) {
    const auto family = enum_value<Family>(second);
    const auto mark = parse_decimal(third, std::numeric_limits<std::uint32_t>::max());
    if (!family || !mark || *mark == 0)
      return invalid("A fwmark service is fwmark/ipv4/MARK or fwmark/ipv6/MARK, MARK above 0.");
    if (*family == Family::ipv6) key.address = IpAddress(Ipv6Address{});
    key.fwmark = *mark;
    return key;
  }
  const auto address = IpAddress::parse(second);
  const auto port = parse_decimal(third, 65535);
  if (!address || !port)
    return invalid("\"" + second + "/" + third + "\" is not an address and a port.");
  key.address = *address;
  key.port = static_cast<std::uint16_t>(*port);
  return key;
}

std::string name_of(SyncDaemonSpec::Role role) { return enum_name(role); }

absl::StatusOr<SyncDaemonSpec::Role> role_from_name(std::string_view name) {
  const auto role = enum_value<SyncDaemonSpec::Role>(name);
  if (!role) return invalid("A synchronisation daemon is \"master\" or \"backup\".");
  return *role;
}

std::optional<std::uint32_t> parse_decimal(std::string_view text, std::uint32_t highest) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number > highest)
    return std::nullopt;
  return number;
}

}  // namespace weir
