// SPDX-License-Identifier: Apache-2.0
// The API's transport: bounded, sliced, for many clients, on one socket.
#include "control/api/api_server.h"

#include <gtest/gtest.h>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <boost/asio/post.hpp>

#include "control/api/api_routes.h"
#include "control/cli/api_client.h"
#include "control/cli/ipvsadm.h"
#include "tests/support/api_lab.h"
#include "tests/support/fake_live_model.h"
#include "tests/support/fake_name_lookup.h"

namespace weir {
namespace {

// A client that speaks bytes.
class RawClient {
 public:
  explicit RawClient(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    connected_ = connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    const timeval patience{.tv_sec = 20, .tv_usec = 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~RawClient() { close(socket_); }

  bool connected() const { return connected_; }
  void send(const std::string& text) const {
    EXPECT_EQ(::send(socket_, text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // Until `mark` has come or the server has closed.
  std::string receive_until(const std::string& mark) const {
    std::string text;
    char piece[4096];
    while (text.find(mark) == std::string::npos) {
      const ssize_t bytes = recv(socket_, piece, sizeof piece, 0);
      if (bytes <= 0) break;
      text.append(piece, static_cast<std::size_t>(bytes));
    }
    return text;
  }

 private:
  int socket_;
  bool connected_ = false;
};

// Where everything is done when answer() returns.
ApiReply ask(LiveModel& model, const ApiRequest& request) {
  static const JobHistogram no_jobs;
  ApiReply reply;
  answer({model, no_jobs}, request, [&reply](ApiReply given) { reply = std::move(given); });
  return reply;
}

constexpr const char* kGetCounters = "GET /v1/counters HTTP/1.1\r\nHost: weir\r\n\r\n";

TEST(ApiServer, WorkersAreListedAsTheTableHasThem) {
  FakeLiveModel table;
  const ApiLab lab(table);
  const auto workers = ApiClient(lab.socket_path()).workers();
  ASSERT_TRUE(workers.ok()) << workers.status();
  ASSERT_EQ(workers->size(), 1U);
  const WorkerListing& worker = workers->front();
  EXPECT_EQ(worker.worker, 1U);
  EXPECT_EQ(worker.busy, 7U);
  EXPECT_EQ(worker.open, 3U);
  EXPECT_EQ(worker.capacity, 1000U);
  EXPECT_EQ(worker.totals.connections, 5U);
  EXPECT_EQ(worker.totals.packets_in, 18446744073709551615ULL);
  EXPECT_EQ(worker.dropped, 9U);
}

TEST(ApiServer, RequestThatComesByteByByteIsAnswered) {
  FakeLiveModel table;
  const ApiLab lab(table);
  const RawClient client(lab.socket_path());
  for (const char* byte = kGetCounters; *byte != '\0'; ++byte) client.send({*byte});
  const std::string answer = client.receive_until("]}");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  EXPECT_NE(answer.find("{\"name\":\"nat_to_server\",\"value\":18446744073709551615}"),
            std::string::npos);
}

TEST(ApiServer, RequestsInOnePieceAreAllAnswered) {
  FakeLiveModel table;
  const ApiLab lab(table);
  const RawClient client(lab.socket_path());
  client.send(std::string(kGetCounters) +
              "GET /v1/timeouts HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n");
  const std::string answer = client.receive_until("\"udp\":300}");
  EXPECT_NE(answer.find("nat_to_server"), std::string::npos);
  EXPECT_NE(answer.find("\"udp\":300}"), std::string::npos) << answer;
}

TEST(ApiServer, ClientThatHangsAndOneThatSendsGarbageDoNotDisturbOthers) {
  FakeLiveModel table;
  const ApiLab lab(table);
  const RawClient hanging(lab.socket_path());
  hanging.send("GET /v1/cou");
  const RawClient garbage(lab.socket_path());
  garbage.send("\x16\x03\x01 garbage\r\n\r\n");
  EXPECT_TRUE(garbage.receive_until("}}").starts_with("HTTP/1.1 400 "));
  EXPECT_EQ(lab.run("-A -t 1.1.1.1:80").exit_code, 0);
}

TEST(ApiServer, TooLargeARequestIsRefused) {
  FakeLiveModel table;
  const ApiLab lab(table);
  const RawClient client(lab.socket_path());
  client.send("POST /v1/services HTTP/1.1\r\nHost: weir\r\nContent-Length: 65537\r\n\r\n");
  EXPECT_TRUE(client.receive_until("}}").starts_with("HTTP/1.1 413 "));
}

TEST(ApiServer, ClientBeyondTheLimitOfSessionsIsServedWhenOthersLeave) {
  FakeLiveModel table;
  const ApiLab lab(table);
  std::vector<std::unique_ptr<RawClient>> idle;
  for (int i = 0; i < 300; ++i) {
    idle.push_back(std::make_unique<RawClient>(lab.socket_path()));
    ASSERT_TRUE(idle.back()->connected());
  }
  auto late = std::async(std::launch::async, [&lab] { return lab.run("-A -t 1.1.1.1:80"); });
  idle.clear();
  EXPECT_EQ(late.get().exit_code, 0);
}

// Counts how often the io_context comes round to a handler that posts itself again.
class Heartbeat {
 public:
  explicit Heartbeat(boost::asio::io_context& io) : io_(io) { beat(); }
  // Beats so far, once the last one is over.
  int stop() {
    boost::asio::post(io_, [this] { running_ = false; });
    return ended_.get_future().get();
  }

 private:
  void beat() {
    boost::asio::post(io_, [this] {
      if (!running_) {
        ended_.set_value(beats_);
        return;
      }
      ++beats_;
      beat();
    });
  }

  boost::asio::io_context& io_;
  bool running_ = true;
  int beats_ = 0;
  std::promise<int> ended_;
};

TEST(ApiServer, LongListingLeavesTheThreadToOthersInBetween) {
  constexpr std::uint32_t kConnections = 50'000;
  FakeLiveModel table;
  table.connections.resize(kConnections);
  for (std::uint32_t i = 0; i < kConnections; ++i) table.connections[i].expires = i;
  ApiLab lab(table);
  Heartbeat heartbeat(lab.io());
  ApiClient client(lab.socket_path());
  std::uint32_t expected = 0;
  const absl::Status status = client.for_each_connection(
      [&](const ConnectionListing& connection) { EXPECT_EQ(connection.expires, expected++); });
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(expected, kConnections);
  EXPECT_GT(heartbeat.stop(), static_cast<int>(kConnections / 200));
}

TEST(ApiServer, ListingWithManyRealServersComesWhole) {
  FakeLiveModel table;
  for (std::uint16_t i = 1; i <= 200; ++i) {
    const ServiceKey key{
        .protocol = Protocol::tcp, .address = *IpAddress::parse("1.1.1.1"), .port = i};
    ASSERT_TRUE(table.add_service({.key = key}).ok());
    for (std::uint16_t j = 1; j <= i % 7 * 40; ++j)
      ASSERT_TRUE(table.add_server(key, {.address = *IpAddress::parse("2.2.2.2"), .port = j}).ok());
  }
  const ApiLab lab(table);
  ApiClient client(lab.socket_path());
  const auto services = client.list();
  ASSERT_TRUE(services.ok()) << services.status().message();
  ASSERT_EQ(services->size(), 200U);
  for (std::size_t i = 0; i < 200; ++i) {
    EXPECT_EQ((*services)[i].spec.key, table.services[i].spec.key);
    EXPECT_EQ((*services)[i].servers.size(), table.services[i].servers.size());
  }
}

TEST(ApiServer, ClientThatLeavesInTheMiddleOfAListingHarmsNobody) {
  FakeLiveModel table;
  table.connections.resize(50'000);
  const ApiLab lab(table);
  {
    const RawClient client(lab.socket_path());
    client.send("GET /v1/connections HTTP/1.1\r\nHost: weir\r\n\r\n");
    client.receive_until("ndjson");
  }
  EXPECT_EQ(lab.run("-A -t 1.1.1.1:80").exit_code, 0);
}

TEST(ApiServer, SocketIsForItsOwnerOnlyAndGoesWithTheServer) {
  FakeLiveModel table;
  std::string path;
  {
    const ApiLab lab(table);
    path = lab.socket_path();
    struct stat status {};
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777U, 0600U);
  }
  EXPECT_NE(access(path.c_str(), F_OK), 0);
}

TEST(ApiServer, SecondServerOnASocketIsRefusedAndADeadOnesSocketIsTakenOver) {
  FakeLiveModel table;
  const ApiLab lab(table);
  EventLoop loop;
  const auto second = ApiServer::open(loop, lab.socket_path(), table);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);

  const std::string left = lab.socket_path() + ".left";
  const int dead = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, left.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(bind(dead, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  close(dead);
  EXPECT_TRUE(ApiServer::open(loop, left, table).ok());
}

TEST(IpvsadmScripts, SaveAndRestoreGiveTheSameRules) {
  FakeLiveModel table;
  const ApiLab lab(table);
  ASSERT_EQ(lab.run("-A -t 10.9.0.1:80 -s wrr").exit_code, 0);
  ASSERT_EQ(lab.run("-a -t 10.9.0.1:80 -r 10.2.0.1:80 -m -w 3").exit_code, 0);
  ApiClient weir(lab.socket_path());
  FakeNameLookup names;
  std::istringstream nothing;
  std::ostringstream saved;
  std::ostringstream errors;
  const std::vector<std::string> numeric = {"-n"};
  EXPECT_EQ(run_ipvsadm_save(numeric, weir, names, {nothing, saved, errors}), 0);
  EXPECT_EQ(saved.str(), lab.run("-S -n").out);

  ASSERT_EQ(lab.run("-A -u 10.9.0.1:53").exit_code, 0);
  std::istringstream rules("# a comment\n" + saved.str());
  EXPECT_EQ(run_ipvsadm_restore({}, weir, names, {rules, saved, errors}), 0) << errors.str();
  EXPECT_EQ(lab.run("-S -n").out, saved.str()) << "the other service is still there";

  const std::vector<std::string> unknown = {"-h"};
  EXPECT_EQ(run_ipvsadm_save(unknown, weir, names, {nothing, saved, errors}), 1);
  EXPECT_NE(errors.str().find("-n option"), std::string::npos);
}

// It accepts connections and never reads.
TEST(ApiClient, WeirThatHangsIsNamedAfterATime) {
  FakeLiveModel table;
  const ApiLab lab(table);
  const std::string path = lab.socket_path() + ".hangs";
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  std::vector<std::unique_ptr<ApiClient>> clients;
  // The first ones are answered by nobody, the last ones find the queue full.
  for (int i = 0; i < 5; ++i) {
    clients.push_back(std::make_unique<ApiClient>(path, std::chrono::milliseconds(100)));
    const absl::Status status = clients.back()->counters().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_NE(status.message().find(path), absl::string_view::npos) << status;
    EXPECT_NE(status.message().find("hangs"), absl::string_view::npos) << status;
  }
  close(listener);
}

// A dead socket alone may be replaced.
TEST(ApiServer, WhatIsNoSocketIsRefusedAndLeftAlone) {
  FakeLiveModel table;
  const ApiLab lab(table);
  EventLoop loop;
  const std::string file = lab.socket_path() + ".ini";
  const std::string directory = lab.socket_path() + ".d";
  const std::string link = lab.socket_path() + ".link";
  const std::string pipe = lab.socket_path() + ".pipe";
  std::ofstream(file) << "port = eth0\n";
  std::filesystem::create_directory(directory);
  std::filesystem::create_symlink(file, link);
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& path : {file, directory, link, pipe}) {
    const auto before = std::filesystem::symlink_status(path).type();
    const auto server = ApiServer::open(loop, path, table);
    EXPECT_EQ(server.status().code(), absl::StatusCode::kFailedPrecondition) << path;
    EXPECT_NE(server.status().message().find(path), absl::string_view::npos);
    EXPECT_EQ(std::filesystem::symlink_status(path).type(), before) << path;
  }
  EXPECT_EQ(std::filesystem::file_size(file), 12U);
}

TEST(ApiServer, WhatHasTakenItsSocketsPlaceIsLeftAlone) {
  FakeLiveModel table;
  const ApiLab lab(table);
  EventLoop loop;
  const std::string path = lab.socket_path() + ".own";
  {
    const auto server = ApiServer::open(loop, path, table);
    ASSERT_TRUE(server.ok()) << server.status();
    std::filesystem::remove(path);
    std::ofstream(path) << "another's";
  }
  EXPECT_TRUE(std::filesystem::is_regular_file(path));
}

TEST(ApiClient, WithoutAWeirOneSentenceNamesSocketAndRemedy) {
  const CommandResult result = run_ipvsadm_on("/nonexistent/weir.sock", "-Ln");
  EXPECT_EQ(result.exit_code, 255);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err,
            "No weir answers on /nonexistent/weir.sock (No such file or directory): start weir, or "
            "name its socket with --socket PATH or WEIR_SOCKET.\n");
}

TEST(ApiClient, WhatWeirDoesNotDoIsRefusedByName) {
  class Refusing : public FakeLiveModel {
    void commit(Plan, Done done) override {
      done({absl::UnimplementedError("weir has no scheduler mh yet: use rr."), 0});
    }
  };
  Refusing table;
  const ApiLab lab(table);
  const CommandResult result = lab.run("-A -t 1.1.1.1:80 -s mh");
  EXPECT_EQ(result.exit_code, 255);
  EXPECT_EQ(result.err, "weir has no scheduler mh yet: use rr.\n");
}

// ---- What goes beyond IPVS, there and back ----

const ServiceKey kService{.address = *IpAddress::parse("2001:db8::1"), .port = 80};

TEST(ApiClient, OptionsOfAServiceComeBackWithIt) {
  FakeLiveModel table;
  const ApiLab lab(table);
  ApiClient weir(lab.socket_path());
  EXPECT_EQ(weir.commit(SetServiceOption{kService, {"idle-timeout", "7"}}).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(weir.commit(AddService{{.key = kService}}).ok());
  EXPECT_TRUE(weir.find(kService)->options.empty());
  ASSERT_TRUE(weir.commit(SetServiceOption{kService, {"idle-timeout", "7"}}).ok());
  ASSERT_TRUE(weir.commit(SetServiceOption{kService, {"gone-server", "keep"}}).ok());
  const auto listed = weir.find(kService);
  ASSERT_EQ(listed->options.size(), 2U);
  EXPECT_EQ(listed->options[0].name, "idle-timeout");
  EXPECT_EQ(listed->options[0].value, "7");
  EXPECT_EQ(listed->options[1].value, "keep");
}

TEST(ApiClient, LocalAddressesComeBackWithTheirService) {
  FakeLiveModel table;
  const ApiLab lab(table);
  ApiClient weir(lab.socket_path());
  ASSERT_TRUE(weir.commit(AddService{{.key = kService}}).ok());
  const AddressRange four{*IpAddress::parse("10.2.0.1"), *IpAddress::parse("10.2.0.2")};
  const AddressRange six{*IpAddress::parse("2001:db8::5"), *IpAddress::parse("2001:db8::6")};
  ASSERT_TRUE(weir.commit(AddLocalAddresses{four, std::nullopt}).ok());
  ASSERT_TRUE(weir.commit(AddLocalAddresses{six, kService}).ok());
  const auto listed = weir.local_addresses();
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 2U);
  EXPECT_EQ((*listed)[0].range, four);
  EXPECT_FALSE((*listed)[0].service);
  EXPECT_EQ((*listed)[1].range, six);
  EXPECT_EQ((*listed)[1].service, kService);
  EXPECT_EQ((*listed)[1].count, 2U);
  EXPECT_EQ((*listed)[1].not_owned, 1U);
  EXPECT_EQ(weir.commit(DeleteLocalAddresses{six, std::nullopt}).code(),
            absl::StatusCode::kNotFound);
  EXPECT_TRUE(weir.commit(DeleteLocalAddresses{six, kService}).ok());
  EXPECT_TRUE(weir.commit(DeleteLocalAddresses{four, std::nullopt}).ok());
  EXPECT_TRUE(weir.local_addresses()->empty());
}

TEST(ApiClient, RulesForMarksComeBackInTheirOrder) {
  FakeLiveModel table;
  const ApiLab lab(table);
  ApiClient weir(lab.socket_path());
  MarkRuleSpec rule;
  rule.rule = {.from = IpPrefix{*IpAddress::parse("10.0.0.0"), 8},
               .to = IpPrefix{*IpAddress::parse("203.0.113.0"), 24},
               .protocol = Protocol::sctp,
               .source_ports = {1, 2},
               .ports = {0, 65534},
               .mark = 4294967295U};
  rule.on = "0000:3b:00.0";
  ASSERT_TRUE(weir.commit(AddMarkRule{}).ok());
  ASSERT_TRUE(weir.commit(AddMarkRule{rule, 1}).ok());
  const auto listed = weir.mark_rules();
  ASSERT_TRUE(listed.ok()) << listed.status();
  ASSERT_EQ(listed->size(), 2U);
  EXPECT_EQ((*listed)[0].rule, rule.rule);
  EXPECT_EQ((*listed)[0].on, rule.on);
  EXPECT_EQ((*listed)[1].rule, MarkRule{});
  EXPECT_TRUE(weir.commit(DeleteMarkRule{1}).ok());
  EXPECT_EQ(weir.mark_rules()->size(), 1U);
  EXPECT_EQ(weir.commit(DeleteMarkRule{2}).code(), absl::StatusCode::kNotFound);
}

TEST(ApiRoutes, ImpossibleRulesAndRangesAreRefused) {
  FakeLiveModel table;
  const auto status = [&](const char* method, const char* path, const char* body) {
    return ask(table, {.method = method, .path = path, .body = body}).http_status;
  };
  for (const char* body : {"{\"ports\":\"80-79\"}", "{\"ports\":80}", "{\"from\":\"10.0.0.0/33\"}",
                           "{\"protocol\":\"icmp\"}", "{\"mark\":-1}", "{\"to\":\"\"}"}) {
    EXPECT_EQ(status("POST", "/v1/mark-rules", body), 400) << body;
  }
  EXPECT_EQ(status("POST", "/v1/mark-rules/x", "{}"), 400);
  EXPECT_EQ(status("POST", "/v1/local-addresses", "{\"first\":\"10.0.0\"}"), 400);
  EXPECT_EQ(status("DELETE", "/v1/local-addresses/10.0.0.1/10.0", ""), 400);
  EXPECT_EQ(status("PUT", "/v1/services/tcp/1.1.1.1/80/options/idle-timeout",
                   "{\"name\":\"slow-start\",\"value\":\"1\"}"),
            400);
  EXPECT_TRUE(table.mark_rules().empty());
  EXPECT_TRUE(table.local_addresses().empty());
}

TEST(ApiServer, LoopShowsTheJobsThatItHasMeasured) {
  FakeLiveModel table;
  const ApiLab lab(table);
  ApiClient weir(lab.socket_path());
  ASSERT_TRUE(weir.counters().ok());
  const auto loop = weir.loop();
  ASSERT_TRUE(loop.ok()) << loop.status();
  EXPECT_GE(loop->jobs, 2U);
  std::uint64_t jobs = 0;
  for (const JobLengths& lengths : loop->lengths) jobs += lengths.jobs;
  EXPECT_EQ(jobs, loop->jobs);
  EXPECT_LE(loop->longest_us, loop->total_us);
  EXPECT_EQ(loop->lengths.front().below_us, 1U);
}

TEST(ApiRoutes, UnknownPathAndWrongMethodAreDifferentErrors) {
  FakeLiveModel table;
  EXPECT_EQ(ask(table, {.method = "GET", .path = "/v1/nothing"}).http_status, 404);
  EXPECT_EQ(ask(table, {.method = "GET", .path = "*"}).http_status, 404);
  EXPECT_EQ(ask(table, {.method = "PATCH", .path = "/v1/services"}).http_status, 405);
}

TEST(ApiRoutes, BadBodiesAreRefusedAndChangeNothing) {
  FakeLiveModel table;
  for (const char* body :
       {"", "[]", "{", "{\"protocol\":\"tcp\",\"port\":65536}", "{\"protocol\":\"icmp\"}",
        "{\"protocol\":\"fwmark\"}", "{\"address\":\"1.1.1.1\",\"sheduler\":\"rr\"}",
        "{\"address\":\"1.1.1\"}", "{\"port\":\"80\"}", "{\"port\":-1}"}) {
    const ApiReply reply = ask(table, {.method = "POST", .path = "/v1/services", .body = body});
    EXPECT_EQ(reply.http_status, 400) << body;
  }
  EXPECT_TRUE(table.services.empty());
}

TEST(ApiRoutes, EditOfAnotherServiceThanThePathNamesIsRefused) {
  FakeLiveModel table;
  const ApiReply reply =
      ask(table, {.method = "PUT",
                  .path = "/v1/services/tcp/1.1.1.1/80",
                  .body = "{\"protocol\":\"tcp\",\"address\":\"1.1.1.1\",\"port\":81}"});
  EXPECT_EQ(reply.http_status, 400);
}

TEST(ApiClient, ManyChangesGoInOneRequest) {
  FakeLiveModel table;
  const ApiLab lab(table);
  ApiClient weir(lab.socket_path());
  const ServiceKey other{.address = *IpAddress::parse("10.9.0.1"), .port = 53};
  const ServerSpec server{.address = *IpAddress::parse("10.2.0.1"), .port = 53};
  const auto failures = weir.commit_each(
      {AddService{{.key = kService}}, AddServer{other, server}, AddService{{.key = other}},
       AddServer{other, server}, DeleteServer{other, server.address, 54},
       SetTimeouts{{.tcp = 1, .tcp_fin = 2, .udp = 3}}, SetSetting{"no_such", "1"}});
  ASSERT_TRUE(failures.ok()) << failures.status();
  ASSERT_EQ(failures->size(), 3U);
  EXPECT_EQ((*failures)[0].change, 1U);
  EXPECT_EQ((*failures)[0].status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*failures)[1].change, 4U);
  EXPECT_EQ((*failures)[2].change, 6U);
  EXPECT_EQ((*failures)[2].status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(table.services.size(), 2U);
  EXPECT_EQ(table.services[1].servers.size(), 1U);
  EXPECT_EQ(table.timeouts().udp, 3U);
}

TEST(ApiRoutes, ATransactionIsWholeOrNothingAndNamesTheBadChange) {
  FakeLiveModel table;
  const ApiReply reply =
      ask(table, {.method = "POST", .path = "/v1/changes", .body = R"({"changes":[
                {"change":"add_service","spec":{"address":"10.9.0.1","port":80}},
                {"change":"delete_service","service":"tcp/10.9.0.2/80"}]})"});
  EXPECT_EQ(reply.http_status, 404);
  EXPECT_NE(reply.body.find("\"change\":1"), std::string::npos) << reply.body;
  EXPECT_TRUE(table.services.empty());
}

TEST(ApiRoutes, ChangesThatCannotBeReadAreRefused) {
  FakeLiveModel table;
  for (const char* body :
       {"", "{}", "{\"changes\":{}}", "{\"changes\":[{}]}", "{\"changes\":[{\"change\":\"x\"}]}",
        "{\"changes\":[{\"change\":\"add_service\"}]}",
        "{\"changes\":[{\"change\":\"delete_service\",\"service\":\"tcp/1.1.1.1\"}]}",
        "{\"changes\":[{\"change\":\"delete_all_services\",\"more\":1}]}",
        "{\"changes\":[],\"each\":1}"}) {
    const ApiReply reply = ask(table, {.method = "POST", .path = "/v1/changes", .body = body});
    EXPECT_EQ(reply.http_status, 400) << body;
  }
}

}  // namespace
}  // namespace weir
