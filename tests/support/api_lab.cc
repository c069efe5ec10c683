// SPDX-License-Identifier: Apache-2.0
#include "tests/support/api_lab.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <sstream>

#include <boost/asio/post.hpp>

#include "control/cli/api_client.h"
#include "control/cli/ipvsadm.h"
#include "tests/support/fake_name_lookup.h"

namespace weir {
namespace {

std::string make_directory() {
  std::string path = (std::filesystem::temp_directory_path() / "weir-api-XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) std::abort();
  return path;
}

}  // namespace

CommandResult run_ipvsadm_on(const std::string& socket_path, const std::string& arguments,
                             const std::string& in) {
  std::istringstream words(arguments);
  std::vector<std::string> list;
  for (std::string word; words >> word;) list.push_back(word);
  std::istringstream input(in);
  std::ostringstream out;
  std::ostringstream err;
  ApiClient weir(socket_path);
  FakeNameLookup names;
  CommandResult result;
  result.exit_code = run_ipvsadm(list, weir, names, {.in = input, .out = out, .err = err});
  result.out = out.str();
  result.err = err.str();
  return result;
}

ApiLab::ApiLab(LiveModel& table)
    : directory_(make_directory()),
      socket_path_(directory_ + "/weir.sock"),
      work_(boost::asio::make_work_guard(loop_.io())) {
  auto server = ApiServer::open(loop_, socket_path_, table);
  if (!server.ok()) {
    std::cerr << server.status().message() << '\n';
    std::abort();
  }
  server_ = *std::move(server);
  thread_ = std::thread([this] { loop_.run(); });
}

ApiLab::~ApiLab() {
  boost::asio::post(loop_.io(), [this] {
    server_.reset();
    loop_.stop();
  });
  thread_.join();
  std::filesystem::remove_all(directory_);
}

}  // namespace weir
