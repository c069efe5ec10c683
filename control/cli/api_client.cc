// SPDX-License-Identifier: Apache-2.0
#include "control/cli/api_client.h"

#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>

#include <absl/strings/string_view.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include "control/api/api_json.h"

namespace weir {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace json = boost::json;
using asio::local::stream_protocol;
using Clock = std::chrono::steady_clock;
using Error = boost::system::error_code;

// The server closes a connection that was idle for a minute.
constexpr std::chrono::seconds kReuseWithin{30};
constexpr int kHttpOk = 200;

absl::Status status(absl::StatusCode code, const std::string& sentence) {
  return absl::Status(code, absl::string_view(sentence.data(), sentence.size()));
}

absl::Status unreachable(const std::string& path, const Error& error) {
  if (error == asio::error::access_denied)
    return status(absl::StatusCode::kPermissionDenied,
                  "You may not use weir's socket " + path + ": run this as root.");
  return status(absl::StatusCode::kUnavailable,
                "No weir answers on " + path + " (" + error.message() +
                    "): start weir, or name its socket with --socket PATH or WEIR_SOCKET.");
}

absl::Status hangs(const std::string& path) {
  return status(
      absl::StatusCode::kUnavailable,
      "The weir on " + path + " does not answer: it hangs or is very busy; look at its log.");
}

absl::Status interrupted(const std::string& path, const Error& error) {
  if (error == asio::error::timed_out) return hangs(path);
  return status(absl::StatusCode::kUnavailable, "weir broke off its answer on " + path + " (" +
                                                    error.message() + "): look at its log.");
}

absl::Status unexpected(const std::string& path) {
  return status(absl::StatusCode::kInternal,
                "weir answered " + path + " in an unknown form: is it of another version?");
}

// Cuts pieces of a body into lines.
class LineReader {
 public:
  explicit LineReader(std::function<absl::Status(std::string_view)> use) : use_(std::move(use)) {}

  void add(std::string_view piece) {
    unread_.append(piece);
    std::size_t begin = 0;
    for (;;) {
      const std::size_t end = unread_.find('\n', begin);
      if (end == std::string::npos) break;
      if (problem_.ok()) problem_ = use_(std::string_view(unread_).substr(begin, end - begin));
      begin = end + 1;
    }
    unread_.erase(0, begin);
  }
  const absl::Status& problem() const { return problem_; }

 private:
  std::function<absl::Status(std::string_view)> use_;
  std::string unread_;
  absl::Status problem_;  // the first one
};

}  // namespace

// One HTTP connection, made when it is needed.
class ApiClient::Transport {
 public:
  Transport(std::string path, std::chrono::milliseconds patience)
      : path_(std::move(path)), patience_(patience), socket_(io_) {}

  // Calls `on_body` for each piece of the answer's body, if the answer is an OK one; else the
  // error that it describes.
  absl::Status exchange(Method method, const std::string& target, std::string body,
                        const std::function<void(std::string_view)>& on_body);

 private:
  absl::Status connect();
  Error connect_socket();
  // Starts an asynchronous operation and waits for its end, for as long as patience lasts.
  template <class Start>
  Error wait_for(Start start);
  absl::Status send(Method method, const std::string& target, std::string body);
  absl::Status receive(const std::function<void(std::string_view)>& on_body);

  std::string path_;
  std::chrono::milliseconds patience_;
  asio::io_context io_;
  stream_protocol::socket socket_;
  beast::flat_buffer buffer_;
  Clock::time_point last_used_;
};

absl::Status ApiClient::Transport::connect() {
  const Clock::time_point now = Clock::now();
  if (socket_.is_open() && now - last_used_ < kReuseWithin) return absl::OkStatus();
  Error error;
  if (socket_.is_open()) socket_.close(error);
  buffer_.clear();
  if (path_.size() >= sizeof(sockaddr_un::sun_path))
    return unreachable(path_, asio::error::name_too_long);
  error = connect_socket();
  if (!error) return absl::OkStatus();
  Error ignored;
  socket_.close(ignored);
  return error == asio::error::timed_out ? hangs(path_) : unreachable(path_, error);
}

// Asio takes a connect() that gave up waiting for one that is under way.
Error ApiClient::Transport::connect_socket() {
  Error error;
  socket_.open(stream_protocol(), error);
  if (error) return error;
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience_);
  const timeval patience{.tv_sec = seconds.count(),
                         .tv_usec = std::chrono::microseconds(patience_ - seconds).count()};
  ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const stream_protocol::endpoint endpoint(path_);
  if (::connect(socket_.native_handle(), endpoint.data(),
                static_cast<socklen_t>(endpoint.size())) == 0) {
    return {};
  }
  if (errno == EAGAIN) return asio::error::timed_out;
  return {errno, boost::system::system_category()};
}

template <class Start>
Error ApiClient::Transport::wait_for(Start start) {
  std::optional<Error> result;
  start([&result](const Error& error, std::size_t) { result = error; });
  io_.restart();
  io_.run_for(patience_);
  if (result) return *result;
  Error ignored;
  socket_.close(ignored);
  io_.restart();
  io_.run();
  return asio::error::timed_out;
}

absl::Status ApiClient::Transport::send(Method method, const std::string& target,
                                        std::string body) {
  constexpr std::array kVerbs = {http::verb::get, http::verb::post, http::verb::put,
                                 http::verb::delete_};
  http::request<http::string_body> request(kVerbs[static_cast<std::size_t>(method)], target, 11);
  request.set(http::field::host, "weir");
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  request.body() = std::move(body);
  request.prepare_payload();
  const Error error =
      wait_for([&](auto done) { http::async_write(socket_, request, std::move(done)); });
  return error ? interrupted(path_, error) : absl::OkStatus();
}

absl::Status ApiClient::Transport::receive(const std::function<void(std::string_view)>& on_body) {
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  Error error = wait_for(
      [&](auto done) { http::async_read_header(socket_, buffer_, parser, std::move(done)); });
  if (error) return interrupted(path_, error);
  const bool ok = parser.get().result_int() == kHttpOk;
  std::string problem;
  std::array<char, 64 * 1024> piece;
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    error =
        wait_for([&](auto done) { http::async_read(socket_, buffer_, parser, std::move(done)); });
    if (error && error != http::error::need_buffer) return interrupted(path_, error);
    const std::string_view text(piece.data(), piece.size() - parser.get().body().size);
    if (ok)
      on_body(text);
    else
      problem.append(text);
  }
  if (!parser.get().keep_alive()) socket_.close(error);
  last_used_ = Clock::now();
  if (ok) return absl::OkStatus();
  const auto described = parse_json(problem);
  return described.ok() ? status_from_json(*described) : unexpected(path_);
}

absl::Status ApiClient::Transport::exchange(Method method, const std::string& target,
                                            std::string body,
                                            const std::function<void(std::string_view)>& on_body) {
  if (absl::Status result = connect(); !result.ok()) return result;
  absl::Status result = send(method, target, std::move(body));
  if (result.ok()) result = receive(on_body);
  if (result.code() == absl::StatusCode::kUnavailable) {
    Error ignored;
    socket_.close(ignored);
  }
  return result;
}

std::string socket_path(const std::optional<std::string>& option) {
  if (option) return *option;
  const char* environment = std::getenv("WEIR_SOCKET");
  return environment != nullptr && *environment != '\0' ? environment : kDefaultSocket;
}

ApiClient::ApiClient(std::string socket_path, std::chrono::milliseconds patience)
    : transport_(std::make_unique<Transport>(std::move(socket_path), patience)) {}

ApiClient::~ApiClient() = default;

absl::Status ApiClient::change(Method method, const std::string& path, const json::value& body) {
  return transport_->exchange(method, path, json::serialize(body), [](std::string_view) {});
}

absl::Status ApiClient::change(Method method, const std::string& path) {
  return transport_->exchange(method, path, "", [](std::string_view) {});
}

absl::StatusOr<json::value> ApiClient::exchange(Method method, const std::string& path,
                                                std::string body) {
  std::string text;
  const absl::Status result = transport_->exchange(
      method, path, std::move(body), [&text](std::string_view piece) { text.append(piece); });
  if (!result.ok()) return result;
  return parse_json(text);
}

absl::StatusOr<json::value> ApiClient::get(const std::string& path) {
  return exchange(Method::get, path, "");
}

template <class Item>
absl::StatusOr<std::vector<Item>> ApiClient::get_list(const std::string& path, const char* member) {
  const auto value = get(path);
  if (!value.ok()) return value.status();
  const json::object* object = value->if_object();
  const json::value* list = object != nullptr ? object->if_contains(member) : nullptr;
  if (list == nullptr || !list->is_array()) return unexpected(path);
  std::vector<Item> items;
  for (const json::value& element : list->get_array()) {
    auto item = from_json<Item>(element);
    if (!item.ok()) return item.status();
    items.push_back(*std::move(item));
  }
  return items;
}

absl::Status ApiClient::commit(const Change& change) {
  const ChangesRequest request{.plan = {change}};
  return this->change(Method::post, "/v1/changes", to_json(request));
}

absl::StatusOr<std::vector<ChangeFailure>> ApiClient::commit_each(Plan plan) {
  const ChangesRequest request{.each_alone = true, .plan = std::move(plan)};
  const auto value = exchange(Method::post, "/v1/changes", json::serialize(to_json(request)));
  if (!value.ok()) return value.status();
  return from_json<std::vector<ChangeFailure>>(*value);
}

absl::StatusOr<std::vector<LocalAddressListing>> ApiClient::local_addresses() {
  return get_list<LocalAddressListing>("/v1/local-addresses", "local_addresses");
}

absl::StatusOr<std::vector<MarkRuleSpec>> ApiClient::mark_rules() {
  return get_list<MarkRuleSpec>("/v1/mark-rules", "mark_rules");
}

absl::StatusOr<std::vector<ServiceListing>> ApiClient::list() {
  return get_list<ServiceListing>("/v1/services", "services");
}

absl::StatusOr<ServiceListing> ApiClient::find(const ServiceKey& key) {
  const std::string path = "/v1/services/" + path_of(key);
  auto services = get_list<ServiceListing>(path, "services");
  if (!services.ok()) return services.status();
  if (services->size() != 1) return unexpected(path);
  return std::move(services->front());
}

absl::Status ApiClient::for_each_connection(
    const std::function<void(const ConnectionListing&)>& visit) {
  LineReader lines([&visit](std::string_view line) -> absl::Status {
    const auto value = parse_json(line);
    if (!value.ok()) return value.status();
    const auto connection = from_json<ConnectionListing>(*value);
    if (!connection.ok()) return connection.status();
    visit(*connection);
    return absl::OkStatus();
  });
  const absl::Status result = transport_->exchange(
      Method::get, "/v1/connections", "", [&lines](std::string_view piece) { lines.add(piece); });
  return result.ok() ? lines.problem() : result;
}

absl::Status ApiClient::zero(const std::optional<ServiceKey>& key) {
  return change(Method::post, key ? "/v1/services/" + path_of(*key) + "/zero" : "/v1/zero");
}

absl::StatusOr<IpvsTimeouts> ApiClient::timeouts() {
  const auto value = get("/v1/timeouts");
  if (!value.ok()) return value.status();
  return from_json<IpvsTimeouts>(*value);
}

absl::Status ApiClient::start_sync_daemon(const SyncDaemonSpec& daemon) {
  return change(Method::post, "/v1/sync-daemons", to_json(daemon));
}

absl::Status ApiClient::stop_sync_daemon(SyncDaemonSpec::Role role) {
  return change(Method::remove, "/v1/sync-daemons/" + name_of(role));
}

absl::StatusOr<std::vector<SyncDaemonSpec>> ApiClient::sync_daemons() {
  return get_list<SyncDaemonSpec>("/v1/sync-daemons", "sync_daemons");
}

absl::StatusOr<std::vector<WorkerListing>> ApiClient::workers() {
  return get_list<WorkerListing>("/v1/workers", "workers");
}

absl::StatusOr<std::vector<NamedCounter>> ApiClient::counters() {
  return get_list<NamedCounter>("/v1/counters", "counters");
}

absl::StatusOr<LoopListing> ApiClient::loop() {
  const auto value = get("/v1/loop");
  if (!value.ok()) return value.status();
  return from_json<LoopListing>(*value);
}

absl::StatusOr<std::vector<SettingListing>> ApiClient::settings() {
  return get_list<SettingListing>("/v1/settings", "settings");
}

}  // namespace weir
