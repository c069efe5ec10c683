// SPDX-License-Identifier: Apache-2.0
#include "control/api/api_routes.h"

#include <array>
#include <chrono>
#include <cstddef>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "control/api/api_json.h"

namespace weir {
namespace {

namespace json = boost::json;

// One slice of a listing: at most so many real servers, or places of a connection table.
constexpr std::size_t kServersPerSlice = 64;
constexpr std::uint32_t kPlacesPerSlice = 128;

struct Call {
  ServiceTable& table;
  const JobHistogram& jobs;
  const std::string& body;
  std::vector<std::string> names;  // what stands for the *s of the route
};

int http_status(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kFailedPrecondition:
      return 404;
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

ApiReply reply(json::value value) { return {.body = json::serialize(value)}; }

ApiReply reply(const absl::Status& status) {
  if (status.ok()) return reply(json::value(json::object{}));
  ApiReply result = reply(to_json(status));
  result.http_status = http_status(status.code());
  return result;
}

// Reads the body as a Type and hands it to `use`, which returns a Status.
template <class Type, class Use>
ApiReply with_body(const Call& call, Use use) {
  const auto value = parse_json(call.body);
  if (!value.ok()) return reply(value.status());
  const auto typed = from_json<Type>(*value);
  if (!typed.ok()) return reply(typed.status());
  return reply(absl::Status(use(*typed)));
}

template <class Use>
ApiReply with_service(const Call& call, Use use) {
  const auto key = key_from_path(call.names[0], call.names[1], call.names[2]);
  if (!key.ok()) return reply(key.status());
  return use(*key);
}

LoopListing loop_listing(const JobHistogram& jobs) {
  const auto microseconds = [](JobHistogram::Duration time) {
    return static_cast<std::uint64_t>(time / std::chrono::microseconds(1));
  };
  LoopListing listing{.jobs = jobs.jobs(),
                      .longest_us = microseconds(jobs.longest()),
                      .total_us = microseconds(jobs.total())};
  std::uint64_t below = 1;
  for (const std::uint64_t count : jobs.buckets()) {
    listing.lengths.push_back({.below_us = below, .jobs = count});
    below *= 2;
  }
  listing.lengths.back().below_us = 0;
  while (listing.lengths.size() > 1 && listing.lengths.back().jobs == 0) listing.lengths.pop_back();
  return listing;
}

absl::Status other_than_named() {
  return absl::InvalidArgumentError(
      "The body describes another one than the path names: let both say the same.");
}

// {"services": [...]}, some real servers at a time.
class ServicesText {
 public:
  explicit ServicesText(std::vector<ServiceListing> services) : services_(std::move(services)) {}

  bool append_slice(std::string& text) {
    if (service_ == 0 && server_ == 0) text += "{\"services\":[";
    for (std::size_t i = 0; i < kServersPerSlice && service_ < services_.size(); ++i)
      append_one(text);
    if (service_ < services_.size()) return true;
    text += "]}";
    return false;
  }

 private:
  // A real server; before the first one of a service the service itself.
  void append_one(std::string& text) {
    const ServiceListing& service = services_[service_];
    if (server_ == 0) {
      if (service_ != 0) text += ",\n";
      text += json::serialize(service_without_servers(service));
      text.back() = ',';  // the closing brace comes after the real servers
      text += "\"servers\":[";
    }
    if (server_ < service.servers.size()) {
      if (server_ != 0) text += ",";
      text += json::serialize(to_json(service.servers[server_++]));
    }
    if (server_ < service.servers.size()) return;
    text += "]}";
    ++service_;
    server_ = 0;
  }

  std::vector<ServiceListing> services_;
  std::size_t service_ = 0;
  std::size_t server_ = 0;
};

ApiReply services_reply(std::vector<ServiceListing> services) {
  auto text = std::make_shared<ServicesText>(std::move(services));
  return {.next_slice = [text](std::string& into) { return text->append_slice(into); }};
}

ApiReply list_services(const Call& call) { return services_reply(call.table.list()); }

ApiReply add_service(const Call& call) {
  return with_body<ServiceSpec>(
      call, [&](const ServiceSpec& spec) { return call.table.add_service(spec); });
}

ApiReply flush(const Call& call) { return reply(call.table.flush()); }

ApiReply find_service(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    auto service = call.table.find(key);
    if (!service.ok()) return reply(service.status());
    return services_reply({*std::move(service)});
  });
}

ApiReply edit_service(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    return with_body<ServiceSpec>(call, [&](const ServiceSpec& spec) {
      return spec.key == key ? call.table.edit_service(spec) : other_than_named();
    });
  });
}

ApiReply delete_service(const Call& call) {
  return with_service(call,
                      [&](const ServiceKey& key) { return reply(call.table.delete_service(key)); });
}

ApiReply zero_service(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) { return reply(call.table.zero(key)); });
}

ApiReply zero_all(const Call& call) { return reply(call.table.zero(std::nullopt)); }

ApiReply add_server(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    return with_body<ServerSpec>(
        call, [&](const ServerSpec& spec) { return call.table.add_server(key, spec); });
  });
}

struct ServerName {
  IpAddress address;
  std::uint16_t port = 0;
};

absl::StatusOr<ServerName> server_name(const Call& call) {
  const auto address = IpAddress::parse(call.names[3]);
  const auto port = parse_decimal(call.names[4], 65535);
  if (!address || !port)
    return absl::InvalidArgumentError("A real server's path ends with its address and its port.");
  return ServerName{*address, static_cast<std::uint16_t>(*port)};
}

ApiReply edit_server(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    const auto name = server_name(call);
    if (!name.ok()) return reply(name.status());
    return with_body<ServerSpec>(call, [&](const ServerSpec& spec) {
      const bool same = spec.address == name->address && spec.port == name->port;
      return same ? call.table.edit_server(key, spec) : other_than_named();
    });
  });
}

ApiReply delete_server(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    const auto name = server_name(call);
    if (!name.ok()) return reply(name.status());
    return reply(call.table.delete_server(key, name->address, name->port));
  });
}

ApiReply change_option(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    return with_body<ServiceOption>(call, [&](const ServiceOption& option) {
      return option.name == call.names[3] ? call.table.set_service_option(key, option)
                                          : other_than_named();
    });
  });
}

// FIRST and LAST, which are the names from `at` on.
absl::StatusOr<AddressRange> range_name(const Call& call, std::size_t at) {
  const auto first = IpAddress::parse(call.names[at]);
  const auto last = IpAddress::parse(call.names[at + 1]);
  if (!first || !last)
    return absl::InvalidArgumentError("A range's path ends with its first and its last address.");
  return AddressRange{*first, *last};
}

ApiReply list_local_addresses(const Call& call) {
  json::array ranges;
  for (const LocalAddressListing& range : call.table.local_addresses())
    ranges.push_back(to_json(range));
  return reply(json::object{{"local_addresses", std::move(ranges)}});
}

ApiReply add_common_addresses(const Call& call) {
  return with_body<AddressRange>(call, [&](const AddressRange& range) {
    return call.table.add_local_addresses(range, std::nullopt);
  });
}

ApiReply add_service_addresses(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    return with_body<AddressRange>(call, [&](const AddressRange& range) {
      return call.table.add_local_addresses(range, key);
    });
  });
}

ApiReply delete_common_addresses(const Call& call) {
  const auto range = range_name(call, 0);
  if (!range.ok()) return reply(range.status());
  return reply(call.table.delete_local_addresses(*range, std::nullopt));
}

ApiReply delete_service_addresses(const Call& call) {
  return with_service(call, [&](const ServiceKey& key) {
    const auto range = range_name(call, 3);
    if (!range.ok()) return reply(range.status());
    return reply(call.table.delete_local_addresses(*range, key));
  });
}

absl::StatusOr<std::uint32_t> rule_number(const Call& call) {
  const auto number = parse_decimal(call.names[0], std::numeric_limits<std::uint32_t>::max());
  if (!number) return absl::InvalidArgumentError("A rule's path ends with its number.");
  return *number;
}

ApiReply list_mark_rules(const Call& call) {
  json::array rules;
  for (const MarkRuleSpec& rule : call.table.mark_rules()) rules.push_back(to_json(rule));
  return reply(json::object{{"mark_rules", std::move(rules)}});
}

ApiReply append_mark_rule(const Call& call) {
  return with_body<MarkRuleSpec>(
      call, [&](const MarkRuleSpec& rule) { return call.table.add_mark_rule(rule, std::nullopt); });
}

ApiReply insert_mark_rule(const Call& call) {
  const auto number = rule_number(call);
  if (!number.ok()) return reply(number.status());
  return with_body<MarkRuleSpec>(
      call, [&](const MarkRuleSpec& rule) { return call.table.add_mark_rule(rule, *number); });
}

ApiReply delete_mark_rule(const Call& call) {
  const auto number = rule_number(call);
  if (!number.ok()) return reply(number.status());
  return reply(call.table.delete_mark_rule(*number));
}

ApiReply list_connections(const Call& call) {
  auto cursor = std::make_shared<ConnectionCursor>();
  const ServiceTable& table = call.table;
  return {.content_type = "application/x-ndjson",
          .next_slice = [cursor, &table](std::string& text) {
            return table.visit_connections(*cursor, kPlacesPerSlice,
                                           [&text](const ConnectionListing& connection) {
                                             text += json::serialize(to_json(connection));
                                             text += '\n';
                                           });
          }};
}

ApiReply get_timeouts(const Call& call) { return reply(to_json(call.table.timeouts())); }

ApiReply set_timeouts(const Call& call) {
  return with_body<IpvsTimeouts>(
      call, [&](const IpvsTimeouts& timeouts) { return call.table.set_timeouts(timeouts); });
}

ApiReply list_daemons(const Call& call) {
  json::array daemons;
  for (const SyncDaemonSpec& daemon : call.table.sync_daemons()) daemons.push_back(to_json(daemon));
  return reply(json::object{{"sync_daemons", std::move(daemons)}});
}

ApiReply start_daemon(const Call& call) {
  return with_body<SyncDaemonSpec>(
      call, [&](const SyncDaemonSpec& daemon) { return call.table.start_sync_daemon(daemon); });
}

ApiReply stop_daemon(const Call& call) {
  const auto role = role_from_name(call.names[0]);
  if (!role.ok()) return reply(role.status());
  return reply(call.table.stop_sync_daemon(*role));
}

ApiReply list_workers(const Call& call) {
  json::array workers;
  for (const WorkerListing& worker : call.table.workers()) workers.push_back(to_json(worker));
  return reply(json::object{{"workers", std::move(workers)}});
}

ApiReply list_counters(const Call& call) {
  json::array counters;
  for (const auto& [name, value] : call.table.counters())
    counters.push_back(to_json(NamedCounter{name, value}));
  return reply(json::object{{"counters", std::move(counters)}});
}

ApiReply show_loop(const Call& call) { return reply(to_json(loop_listing(call.jobs))); }

ApiReply list_settings(const Call& call) {
  json::array settings;
  for (const ServiceTable::Setting& setting : call.table.settings())
    settings.push_back(to_json(setting));
  return reply(json::object{{"settings", std::move(settings)}});
}

ApiReply change_setting(const Call& call) {
  return with_body<ServiceTable::Setting>(call, [&](const ServiceTable::Setting& setting) {
    return setting.name == call.names[0] ? call.table.set_setting(setting.name, setting.value)
                                         : other_than_named();
  });
}

struct Route {
  std::string_view method;
  std::string_view path;  // * stands for one element
  ApiReply (*handle)(const Call& call);
};

constexpr std::array kRoutes = {
    Route{"GET", "/v1/services", list_services},
    Route{"POST", "/v1/services", add_service},
    Route{"DELETE", "/v1/services", flush},
    Route{"GET", "/v1/services/*/*/*", find_service},
    Route{"PUT", "/v1/services/*/*/*", edit_service},
    Route{"DELETE", "/v1/services/*/*/*", delete_service},
    Route{"POST", "/v1/services/*/*/*/zero", zero_service},
    Route{"POST", "/v1/services/*/*/*/servers", add_server},
    Route{"PUT", "/v1/services/*/*/*/servers/*/*", edit_server},
    Route{"DELETE", "/v1/services/*/*/*/servers/*/*", delete_server},
    Route{"PUT", "/v1/services/*/*/*/options/*", change_option},
    Route{"POST", "/v1/services/*/*/*/local-addresses", add_service_addresses},
    Route{"DELETE", "/v1/services/*/*/*/local-addresses/*/*", delete_service_addresses},
    Route{"GET", "/v1/local-addresses", list_local_addresses},
    Route{"POST", "/v1/local-addresses", add_common_addresses},
    Route{"DELETE", "/v1/local-addresses/*/*", delete_common_addresses},
    Route{"GET", "/v1/mark-rules", list_mark_rules},
    Route{"POST", "/v1/mark-rules", append_mark_rule},
    Route{"POST", "/v1/mark-rules/*", insert_mark_rule},
    Route{"DELETE", "/v1/mark-rules/*", delete_mark_rule},
    Route{"POST", "/v1/zero", zero_all},
    Route{"GET", "/v1/connections", list_connections},
    Route{"GET", "/v1/timeouts", get_timeouts},
    Route{"PUT", "/v1/timeouts", set_timeouts},
    Route{"GET", "/v1/sync-daemons", list_daemons},
    Route{"POST", "/v1/sync-daemons", start_daemon},
    Route{"DELETE", "/v1/sync-daemons/*", stop_daemon},
    Route{"GET", "/v1/workers", list_workers},
    Route{"GET", "/v1/counters", list_counters},
    Route{"GET", "/v1/loop", show_loop},
    Route{"GET", "/v1/settings", list_settings},
    Route{"PUT", "/v1/settings/*", change_setting},
};

std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> elements;
  for (std::size_t slash = 0; slash != std::string_view::npos;) {
    const std::size_t next = path.find('/', slash + 1);
    elements.push_back(path.substr(slash, next - slash));
    slash = next;
  }
  return elements;
}

// What stands for the *s, or nothing where the path is another one.
std::optional<std::vector<std::string>> match(std::string_view pattern, std::string_view path) {
  const auto wanted = split(pattern);
  const auto given = split(path);
  if (wanted.size() != given.size()) return std::nullopt;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == "/*") {
      names.emplace_back(given[i].substr(1));
    } else if (wanted[i] != given[i]) {
      return std::nullopt;
    }
  }
  return names;
}

}  // namespace

ApiReply answer(const ApiSources& sources, const ApiRequest& request) {
  std::string methods;
  for (const Route& route : kRoutes) {
    auto names = match(route.path, request.path);
    if (!names) continue;
    if (route.method == request.method)
      return route.handle({sources.table, sources.jobs, request.body, *std::move(names)});
    methods.append(" ").append(route.method);
  }
  const bool no_such_path = methods.empty();
  const std::string sentence =
      no_such_path ? "Nothing is at " + request.path + ": the API's resources begin with /v1/."
                   : request.path + " takes only" + methods + ".";
  ApiReply result =
      reply(to_json(absl::UnimplementedError(absl::string_view(sentence.data(), sentence.size()))));
  result.http_status = no_such_path ? 404 : 405;
  return result;
}

}  // namespace weir
