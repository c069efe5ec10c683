// SPDX-License-Identifier: Apache-2.0
#include "control/api/api_server.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/status.hpp>
#include <boost/beast/http/string_body.hpp>

#include "control/api/api_routes.h"

namespace weir {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::local::stream_protocol;
using Clock = std::chrono::steady_clock;
using Error = boost::system::error_code;
using Parser = http::request_parser<http::string_body>;

constexpr std::uint32_t kHeaderLimit = 8 * 1024;
constexpr std::uint64_t kBodyLimit = 64 * 1024;
constexpr std::size_t kReadSize = 4 * 1024;
constexpr std::size_t kMaxSessions = 256;  // more clients wait in the socket's queue
// For the next request on an open connection, and for one write to a client that reads slowly.
constexpr std::chrono::seconds kPatience{60};
constexpr std::chrono::seconds kSweepInterval{10};

absl::Status failed(const std::string& path, const Error& error) {
  const std::string sentence = "the API cannot listen on " + path + " (" + error.message() +
                               "): choose another path with --socket";
  return absl::InternalError(absl::string_view(sentence.data(), sentence.size()));
}

absl::Status refused(const std::string& sentence) {
  return absl::FailedPreconditionError(absl::string_view(sentence.data(), sentence.size()));
}

// Which file is at a path, links not followed.
using FileName = std::pair<dev_t, ino_t>;
std::optional<FileName> file_at(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) return std::nullopt;
  return FileName(status.st_dev, status.st_ino);
}

enum class KeepAlive : std::uint8_t { no, yes };

// Up to and with the empty line. A reply in slices is chunked (RFC 9112 section 7.1).
std::string response_head(const ApiReply& reply, KeepAlive keep_alive) {
  const auto reason = http::obsolete_reason(static_cast<http::status>(reply.http_status));
  std::string head = "HTTP/1.1 " + std::to_string(reply.http_status) + " ";
  head.append(reason.data(), reason.size());
  head += "\r\nContent-Type: " + reply.content_type;
  head += keep_alive == KeepAlive::yes ? "\r\n" : "\r\nConnection: close\r\n";
  head += reply.next_slice ? "Transfer-Encoding: chunked"
                           : "Content-Length: " + std::to_string(reply.body.size());
  return head + "\r\n\r\n";
}

std::string chunk(const std::string& text) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string size;
  for (std::size_t rest = text.size(); rest != 0; rest /= 16)
    size.insert(size.begin(), kDigits[rest % 16]);
  return size + "\r\n" + text + "\r\n";
}
constexpr std::string_view kLastChunk = "0\r\n\r\n";

ApiReply unreadable(const Error& error) {
  const bool too_large = error == http::error::body_limit || error == http::error::header_limit;
  return {.http_status = too_large ? 413 : 400,
          .body = too_large ? R"({"error":{"code":"INVALID_ARGUMENT","message":)"
                              R"("The request is too large: send at most 64 KiB."}})"
                            : R"({"error":{"code":"INVALID_ARGUMENT","message":)"
                              R"("The request is not HTTP/1.1: send it with an HTTP client."}})"};
}

}  // namespace

// One client's connection: reads a request, answers it, reads the next one. Each asynchronous
// operation holds the session; it is gone when none is under way.
class ApiServer::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(std::shared_ptr<Listener> listener, stream_protocol::socket socket)
      : listener_(std::move(listener)), socket_(std::move(socket)) {}
  ~Session();

  void read_request();
  void close() {
    Error ignored;
    socket_.close(ignored);
  }
  bool is_overdue(Clock::time_point now) const { return deadline_ < now; }

 private:
  void parse();
  void read_more();
  bool is_too_large();
  void respond();
  void read_elsewhere(std::string body, Respond respond);
  void send(ApiReply reply, KeepAlive keep_alive);
  void send_slice();
  // Writes the text and then calls `next`, unless the connection is broken.
  void write(std::string text, void (Session::*next)());
  void finish();

  std::shared_ptr<Listener> listener_;
  stream_protocol::socket socket_;
  beast::flat_buffer unread_;
  std::optional<Parser> parser_;
  ApiReply reply_;
  KeepAlive keep_alive_ = KeepAlive::yes;
  std::string unsent_;
  Clock::time_point deadline_;
};

class ApiServer::Listener : public std::enable_shared_from_this<Listener> {
 public:
  Listener(EventLoop& loop, std::string path, LiveModel& model)
      : acceptor_(loop.io()),
        sweeper_(loop.io()),
        path_(std::move(path)),
        sources_(ApiSources{model, loop.jobs()}) {}

  absl::Status open();
  void run();
  void stop();
  void forget(Session* session);
  asio::thread_pool& helper() { return helper_; }
  // Nothing once stopped.
  const std::optional<ApiSources>& sources() const { return sources_; }

 private:
  Error bind();
  absl::Status remove_dead_socket();
  void accept();
  void sweep();
  stream_protocol::acceptor acceptor_;
  asio::steady_timer sweeper_;
  std::string path_;
  std::optional<ApiSources> sources_;
  std::set<Session*> sessions_;
  asio::thread_pool helper_{1};
  bool accepting_ = false;
  std::optional<FileName> own_file_;
};

absl::Status ApiServer::Listener::open() {
  std::error_code ignored;  // what matters is whether bind() works
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
  if (path_.size() >= sizeof(sockaddr_un::sun_path))
    return failed(path_, asio::error::name_too_long);
  Error error = bind();
  if (error == asio::error::address_in_use) {
    if (absl::Status refused = remove_dead_socket(); !refused.ok()) return refused;
    error = bind();
  }
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) return failed(path_, error);
  own_file_ = file_at(path_);
  return absl::OkStatus();
}

absl::Status ApiServer::Listener::remove_dead_socket() {
  std::error_code ignored;
  const auto type = std::filesystem::symlink_status(path_, ignored).type();
  if (type != std::filesystem::file_type::socket)
    return refused("something that is no socket is at " + path_ +
                   ", and weir leaves it alone: remove it or choose another --socket");
  stream_protocol::socket probe(acceptor_.get_executor());
  Error error;
  probe.connect(stream_protocol::endpoint(path_), error);
  if (error != asio::error::connection_refused)
    return refused("another process, probably a weir, uses " + path_ +
                   ": stop it or choose another --socket");
  ::unlink(path_.c_str());
  return absl::OkStatus();
}

Error ApiServer::Listener::bind() {
  Error error;
  if (acceptor_.is_open()) acceptor_.close(error);
  acceptor_.open(stream_protocol(), error);
  if (error) return error;
  // Linux gives the file the mode of the unbound socket, so that it is never open to others.
  ::fchmod(acceptor_.native_handle(), S_IRUSR | S_IWUSR);
  acceptor_.bind(stream_protocol::endpoint(path_), error);
  return error;
}

void ApiServer::Listener::run() {
  accept();
  sweep();
}

void ApiServer::Listener::stop() {
  sources_.reset();
  Error ignored;
  acceptor_.close(ignored);
  sweeper_.cancel();
  for (Session* session : sessions_) session->close();
  helper_.join();
  if (own_file_ && file_at(path_) == own_file_) ::unlink(path_.c_str());
}

void ApiServer::Listener::accept() {
  if (accepting_ || !sources_ || sessions_.size() >= kMaxSessions) return;
  accepting_ = true;
  acceptor_.async_accept([self = shared_from_this()](Error error, stream_protocol::socket socket) {
    self->accepting_ = false;
    if (error) return;  // out of file descriptors, say: the sweeper tries again
    const auto session = std::make_shared<Session>(self, std::move(socket));
    self->sessions_.insert(session.get());
    session->read_request();
    self->accept();
  });
}

void ApiServer::Listener::forget(Session* session) {
  sessions_.erase(session);
  accept();
}

// Closes connections that nothing came from or went to for too long, and keeps accepting.
void ApiServer::Listener::sweep() {
  sweeper_.expires_after(kSweepInterval);
  sweeper_.async_wait([self = shared_from_this()](Error error) {
    if (error || !self->sources_) return;
    const Clock::time_point now = Clock::now();
    for (Session* session : self->sessions_)
      if (session->is_overdue(now)) session->close();
    self->accept();
    self->sweep();
  });
}

ApiServer::Session::~Session() { listener_->forget(this); }

void ApiServer::Session::read_request() {
  deadline_ = Clock::now() + kPatience;
  parser_.emplace();
  parser_->header_limit(kHeaderLimit);
  parser_->body_limit(kLongestChanges);
  parse();
}

// Only lists of changes may be long.
bool ApiServer::Session::is_too_large() {
  const auto& request = parser_->get();
  const bool changes =
      is_changes_request(std::string(request.method_string()), std::string(request.target()));
  return !changes && std::max<std::uint64_t>(parser_->content_length().value_or(0),
                                             request.body().size()) > kBodyLimit;
}

void ApiServer::Session::parse() {
  Error error;
  // The header first, then the body.
  while (unread_.size() != 0 && !parser_->is_done() && !error) {
    parser_->eager(parser_->is_header_done());
    unread_.consume(parser_->put(unread_.data(), error));
    if (parser_->is_header_done() && is_too_large()) error = http::error::body_limit;
  }
  if (error && error != http::error::need_more) return send(unreadable(error), KeepAlive::no);
  if (parser_->is_done()) return respond();
  read_more();
}

void ApiServer::Session::read_more() {
  socket_.async_read_some(unread_.prepare(kReadSize),
                          [self = shared_from_this()](Error error, std::size_t bytes) {
                            if (error) return;
                            self->unread_.commit(bytes);
                            self->parse();
                          });
}

void ApiServer::Session::respond() {
  if (!listener_->sources()) return;
  const auto& request = parser_->get();
  const KeepAlive keep_alive = request.keep_alive() ? KeepAlive::yes : KeepAlive::no;
  // While weir is at work on it, the client may take its time.
  deadline_ = Clock::time_point::max();
  Respond respond = [self = shared_from_this(), keep_alive](ApiReply reply) {
    self->send(std::move(reply), keep_alive);
  };
  ApiRequest asked{.method = std::string(request.method_string()),
                   .path = std::string(request.target()),
                   .body = std::move(parser_->get().body())};
  if (is_changes_request(asked.method, asked.path)) {
    read_elsewhere(std::move(asked.body), std::move(respond));
  } else {
    answer(*listener_->sources(), asked, std::move(respond));
  }
}

// Long lists take long to read.
void ApiServer::Session::read_elsewhere(std::string body, Respond respond) {
  asio::post(listener_->helper(), [self = shared_from_this(), body = std::move(body),
                                   respond = std::move(respond)]() mutable {
    auto executor = self->socket_.get_executor();
    asio::post(executor, [self = std::move(self), request = read_changes(body),
                          respond = std::move(respond)]() mutable {
      const auto& sources = self->listener_->sources();
      if (sources) answer_changes(sources->model, std::move(request), std::move(respond));
    });
  });
}

void ApiServer::Session::send(ApiReply reply, KeepAlive keep_alive) {
  reply_ = std::move(reply);
  keep_alive_ = keep_alive;
  std::string head = response_head(reply_, keep_alive);
  if (reply_.next_slice) return write(std::move(head), &Session::send_slice);
  write(head + reply_.body, &Session::finish);
}

void ApiServer::Session::send_slice() {
  if (!listener_->sources()) return;
  std::string text;
  const bool more = reply_.next_slice(text);
  std::string chunks = text.empty() ? "" : chunk(text);
  if (!more) return write(chunks.append(kLastChunk), &Session::finish);
  write(std::move(chunks), &Session::send_slice);
}

void ApiServer::Session::write(std::string text, void (Session::*next)()) {
  deadline_ = Clock::now() + kPatience;
  unsent_ = std::move(text);
  asio::async_write(socket_, asio::buffer(unsent_),
                    [self = shared_from_this(), next](Error error, std::size_t) {
                      if (!error) (self.get()->*next)();
                    });
}

void ApiServer::Session::finish() {
  reply_ = {};
  if (keep_alive_ == KeepAlive::yes) read_request();
}

absl::StatusOr<std::unique_ptr<ApiServer>> ApiServer::open(EventLoop& loop,
                                                           const std::string& socket_path,
                                                           LiveModel& model) {
  auto listener = std::make_shared<Listener>(loop, socket_path, model);
  if (absl::Status status = listener->open(); !status.ok()) return status;
  listener->run();
  return std::unique_ptr<ApiServer>(new ApiServer(std::move(listener)));
}

ApiServer::ApiServer(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}

ApiServer::~ApiServer() { listener_->stop(); }

}  // namespace weir
