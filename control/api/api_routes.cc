// SPDX-License-Identifier: Apache-2.0
#include "control/api/api_routes.h"

#include <algorithm>
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
constexpr std::size_t kServersPerSlice = 32;
constexpr std::uint32_t kPlacesPerSlice = 128;
constexpr std::uint32_t kSlotsPerSlice = 4096;

struct Call {
  LiveModel& model;
  const JobHistogram& jobs;
  const std::string& body;
  std::vector<std::string> names;  // what stands for the *s of the route
  Respond respond;
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

void commit(const Call& call, Change change) {
  call.model.commit({std::move(change)}, [respond = call.respond](const CommitResult& result) {
    respond(reply(result.status));
  });
}

// Reads the body as a Type and hands it to `use`.
template <class Type, class Use>
void with_body(const Call& call, Use use) {
  const auto value = parse_json(call.body);
  if (!value.ok()) return call.respond(reply(value.status()));
  const auto typed = from_json<Type>(*value);
  if (!typed.ok()) return call.respond(reply(typed.status()));
  use(*typed);
}

template <class Use>
void with_service(const Call& call, Use use) {
  const auto key = key_from_path(call.names[0], call.names[1], call.names[2]);
  if (!key.ok()) return call.respond(reply(key.status()));
  use(*key);
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
  explicit ServicesText(std::function<std::optional<ServiceListing>()> next)
      : next_(std::move(next)) {}

  // A service, or more real servers of the one before.
  bool append_slice(std::string& text) {
    auto service = next_();
    if (!service) {
      text += last_.empty() ? "{\"services\":[]}" : "]}]}";
      return false;
    }
    json::object object = service_without_servers(*service);
    const bool goes_on = !last_.empty() && *last_key_ == service->spec.key;
    if (!goes_on) {
      text += last_.empty() ? "{\"services\":[" : "]},\n";
      text += json::serialize(object);
      text.back() = ',';  // the closing brace comes after the real servers
      text += "\"servers\":[";
      last_key_ = service->spec.key;
      last_ = "service";
    }
    for (const ServerListing& server : service->servers) {
      if (last_ == "server") text += ",";
      text += json::serialize(to_json(server));
      last_ = "server";
    }
    return true;
  }

 private:
  std::function<std::optional<ServiceListing>()> next_;
  std::optional<ServiceKey> last_key_;
  std::string_view last_;  // what was written last
};

void respond_services(const Call& call, std::function<std::optional<ServiceListing>()> next) {
  auto text = std::make_shared<ServicesText>(std::move(next));
  call.respond({.next_slice = [text](std::string& into) { return text->append_slice(into); }});
}

void list_services(const Call& call) {
  respond_services(call, [cursor = ServiceCursor{}, &model = call.model]() mutable {
    return model.list_services(cursor, kServersPerSlice);
  });
}

void add_service(const Call& call) {
  with_body<ServiceSpec>(call, [&](const ServiceSpec& spec) { commit(call, AddService{spec}); });
}

void flush(const Call& call) { commit(call, DeleteAllServices{}); }

void find_service(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    auto service = call.model.find(key);
    if (!service.ok()) return call.respond(reply(service.status()));
    respond_services(call, [next = std::optional(*std::move(service))]() mutable {
      return std::exchange(next, std::nullopt);
    });
  });
}

void edit_service(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    with_body<ServiceSpec>(call, [&](const ServiceSpec& spec) {
      if (spec.key != key) return call.respond(reply(other_than_named()));
      commit(call, EditService{spec});
    });
  });
}

void delete_service(const Call& call) {
  with_service(call, [&](const ServiceKey& key) { commit(call, DeleteService{key}); });
}

void zero_service(const Call& call) {
  with_service(call, [&](const ServiceKey& key) { call.respond(reply(call.model.zero(key))); });
}

void zero_all(const Call& call) { call.respond(reply(call.model.zero(std::nullopt))); }

void add_server(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    with_body<ServerSpec>(call, [&](const ServerSpec& spec) {
      commit(call, AddServer{key, spec});
    });
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

void edit_server(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    const auto name = server_name(call);
    if (!name.ok()) return call.respond(reply(name.status()));
    with_body<ServerSpec>(call, [&](const ServerSpec& spec) {
      const bool same = spec.address == name->address && spec.port == name->port;
      if (!same) return call.respond(reply(other_than_named()));
      commit(call, EditServer{key, spec});
    });
  });
}

void delete_server(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    const auto name = server_name(call);
    if (!name.ok()) return call.respond(reply(name.status()));
    commit(call, DeleteServer{key, name->address, name->port});
  });
}

void change_option(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    with_body<ServiceOption>(call, [&](const ServiceOption& option) {
      if (option.name != call.names[3]) return call.respond(reply(other_than_named()));
      commit(call, SetServiceOption{key, option});
    });
  });
}

// ---- Many changes ----

// What has become of changes that each stand alone.
struct Outcomes {
  std::vector<ChangeFailure> failures;
  std::size_t left = 0;
  Respond respond;
};

void commit_each_alone(LiveModel& model, Plan plan, Respond respond) {
  if (plan.empty()) return respond(reply(to_json(std::vector<ChangeFailure>{})));
  auto outcomes = std::make_shared<Outcomes>();
  outcomes->left = plan.size();
  outcomes->respond = std::move(respond);
  for (std::uint32_t i = 0; i < plan.size(); ++i) {
    model.commit({std::move(plan[i])}, [outcomes, i](const CommitResult& result) {
      if (!result.status.ok()) outcomes->failures.push_back({i, result.status});
      if (--outcomes->left != 0) return;
      std::sort(outcomes->failures.begin(), outcomes->failures.end(),
                [](const auto& a, const auto& b) { return a.change < b.change; });
      outcomes->respond(reply(to_json(outcomes->failures)));
    });
  }
}

void change_many(const Call& call) {
  answer_changes(call.model, read_changes(call.body), call.respond);
}

// ---- Local addresses, rules for marks ----

// FIRST and LAST, which are the names from `at` on.
absl::StatusOr<AddressRange> range_name(const Call& call, std::size_t at) {
  const auto first = IpAddress::parse(call.names[at]);
  const auto last = IpAddress::parse(call.names[at + 1]);
  if (!first || !last)
    return absl::InvalidArgumentError("A range's path ends with its first and its last address.");
  return AddressRange{*first, *last};
}

template <class Items>
ApiReply reply_list(const char* name, const Items& items) {
  json::array list;
  for (const auto& item : items) list.push_back(to_json(item));
  return reply(json::object{{name, std::move(list)}});
}

void list_local_addresses(const Call& call) {
  call.respond(reply_list("local_addresses", call.model.local_addresses()));
}

void add_common_addresses(const Call& call) {
  with_body<AddressRange>(call, [&](const AddressRange& range) {
    commit(call, AddLocalAddresses{range, std::nullopt});
  });
}

void add_service_addresses(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    with_body<AddressRange>(call, [&](const AddressRange& range) {
      commit(call, AddLocalAddresses{range, key});
    });
  });
}

void delete_common_addresses(const Call& call) {
  const auto range = range_name(call, 0);
  if (!range.ok()) return call.respond(reply(range.status()));
  commit(call, DeleteLocalAddresses{*range, std::nullopt});
}

void delete_service_addresses(const Call& call) {
  with_service(call, [&](const ServiceKey& key) {
    const auto range = range_name(call, 3);
    if (!range.ok()) return call.respond(reply(range.status()));
    commit(call, DeleteLocalAddresses{*range, key});
  });
}

absl::StatusOr<std::uint32_t> rule_number(const Call& call) {
  const auto number = parse_decimal(call.names[0], std::numeric_limits<std::uint32_t>::max());
  if (!number) return absl::InvalidArgumentError("A rule's path ends with its number.");
  return *number;
}

void list_mark_rules(const Call& call) {
  call.respond(reply_list("mark_rules", call.model.mark_rules()));
}

void append_mark_rule(const Call& call) {
  with_body<MarkRuleSpec>(call, [&](const MarkRuleSpec& rule) {
    commit(call, AddMarkRule{rule, std::nullopt});
  });
}

void insert_mark_rule(const Call& call) {
  const auto number = rule_number(call);
  if (!number.ok()) return call.respond(reply(number.status()));
  with_body<MarkRuleSpec>(call, [&](const MarkRuleSpec& rule) {
    commit(call, AddMarkRule{rule, *number});
  });
}

void delete_mark_rule(const Call& call) {
  const auto number = rule_number(call);
  if (!number.ok()) return call.respond(reply(number.status()));
  commit(call, DeleteMarkRule{*number});
}

// ---- The rest ----

void list_connections(const Call& call) {
  auto cursor = std::make_shared<ConnectionCursor>();
  call.respond({.content_type = "application/x-ndjson",
                .next_slice = [cursor, &model = call.model](std::string& text) {
                  return model.visit_connections(*cursor, kPlacesPerSlice,
                                                 [&text](const ConnectionListing& connection) {
                                                   text += json::serialize(to_json(connection));
                                                   text += '\n';
                                                 });
                }});
}

void get_timeouts(const Call& call) { call.respond(reply(to_json(call.model.timeouts()))); }

void set_timeouts(const Call& call) {
  with_body<IpvsTimeouts>(
      call, [&](const IpvsTimeouts& timeouts) { commit(call, SetTimeouts{timeouts}); });
}

void list_daemons(const Call& call) {
  call.respond(reply_list("sync_daemons", call.model.sync_daemons()));
}

void start_daemon(const Call& call) {
  with_body<SyncDaemonSpec>(call, [&](const SyncDaemonSpec& daemon) {
    call.respond(reply(call.model.start_sync_daemon(daemon)));
  });
}

void stop_daemon(const Call& call) {
  const auto role = role_from_name(call.names[0]);
  if (!role.ok()) return call.respond(reply(role.status()));
  call.respond(reply(call.model.stop_sync_daemon(*role)));
}

void list_workers(const Call& call) {
  struct Listing {
    WorkerCursor cursor;
    const char* before = "{\"workers\":[";
  };
  auto listing = std::make_shared<Listing>();
  call.respond({.next_slice = [listing, &model = call.model](std::string& text) {
    const bool more =
        model.visit_workers(listing->cursor, kSlotsPerSlice, [&](const WorkerListing& worker) {
          text += std::exchange(listing->before, ",");
          text += json::serialize(to_json(worker));
        });
    if (!more) text += "]}";
    return more;
  }});
}

void list_counters(const Call& call) {
  call.respond(reply_list("counters", call.model.counters()));
}

void show_loop(const Call& call) { call.respond(reply(to_json(loop_listing(call.jobs)))); }

void list_settings(const Call& call) {
  call.respond(reply_list("settings", call.model.settings()));
}

void change_setting(const Call& call) {
  with_body<SettingListing>(call, [&](const SettingListing& setting) {
    if (setting.name != call.names[0]) return call.respond(reply(other_than_named()));
    commit(call, SetSetting{setting.name, setting.value});
  });
}

struct Route {
  std::string_view method;
  std::string_view path;  // * stands for one element
  void (*handle)(const Call& call);
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
    Route{"POST", "/v1/changes", change_many},
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

bool is_changes_request(const std::string& method, const std::string& path) {
  return method == "POST" && path == "/v1/changes";
}

absl::StatusOr<ChangesRequest> read_changes(const std::string& body) {
  const auto value = parse_json(body);
  if (!value.ok()) return value.status();
  return from_json<ChangesRequest>(*value);
}

void answer_changes(LiveModel& model, absl::StatusOr<ChangesRequest> request, Respond respond) {
  if (!request.ok()) return respond(reply(request.status()));
  if (request->each_alone) {
    return commit_each_alone(model, std::move(request->plan), std::move(respond));
  }
  model.commit(std::move(request->plan),
               [respond = std::move(respond)](const CommitResult& result) {
                 if (result.status.ok()) return respond(reply(result.status));
                 ApiReply refusal = reply(result.status);
                 json::object body = to_json(result.status).as_object();
                 body["change"] = result.change;
                 refusal.body = json::serialize(body);
                 respond(std::move(refusal));
               });
}

void answer(const ApiSources& sources, const ApiRequest& request, Respond respond) {
  std::string methods;
  for (const Route& route : kRoutes) {
    auto names = match(route.path, request.path);
    if (!names) continue;
    if (route.method == request.method)
      return route.handle(
          {sources.model, sources.jobs, request.body, *std::move(names), std::move(respond)});
    methods.append(" ").append(route.method);
  }
  const bool no_such_path = methods.empty();
  const std::string sentence =
      no_such_path ? "Nothing is at " + request.path + ": the API's resources begin with /v1/."
                   : request.path + " takes only" + methods + ".";
  ApiReply result =
      reply(to_json(absl::UnimplementedError(absl::string_view(sentence.data(), sentence.size()))));
  result.http_status = no_such_path ? 404 : 405;
  respond(std::move(result));
}

}  // namespace weir
