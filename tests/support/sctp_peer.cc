// SPDX-License-Identifier: Apache-2.0
// Both ends of SCTP associations, by a whole protocol stack of its own over raw sockets.
//
// usage: sctp_peer serve NAME PORT ADDRESS...
//        sctp_peer connect FROM TO PORT ASSOCIATIONS
//
// serve prints "ready" when it listens, and answers each message with its name, a blank and the
// message. connect opens associations and prints "up". For each number that it reads it sends a
// message of so many bytes on each of them and prints the answering server's name, or why there is
// no answer. At the end of its input it shuts all down and prints "closed".
#include <arpa/inet.h>
#include <usrsctp.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using Socket = struct socket*;

// Packets that fit every link of the lab: the stack cannot see ICMP errors.
constexpr std::uint32_t kPathMtu = 1300;

[[noreturn]] void fail(const std::string& what) {
  std::cout << what << ": " << std::strerror(errno) << std::endl;
  std::_Exit(1);
}

struct Address {
  sctp_sockstore value{};
  socklen_t length = 0;

  Address(const std::string& host, std::uint16_t port) {
    if (inet_pton(AF_INET, host.c_str(), &value.sin.sin_addr) == 1) {
      value.sin.sin_family = AF_INET;
      value.sin.sin_port = htons(port);
      length = sizeof value.sin;
    } else if (inet_pton(AF_INET6, host.c_str(), &value.sin6.sin6_addr) == 1) {
      value.sin6.sin6_family = AF_INET6;
      value.sin6.sin6_port = htons(port);
      length = sizeof value.sin6;
    } else {
      fail(host);
    }
  }
};

void start_stack() {
  usrsctp_init(0, nullptr, nullptr);
  usrsctp_sysctl_set_sctp_no_csum_on_loopback(0);
  // No ABORT for packets of no association: they may be another process's of this host.
  usrsctp_sysctl_set_sctp_blackhole(2);
  // What would tell the other end of addresses, which NAT does not translate.
  usrsctp_sysctl_set_sctp_auto_asconf(0);
  usrsctp_sysctl_set_sctp_asconf_enable(0);
}

Socket bound_socket(Address address) {
  Socket opened = usrsctp_socket(address.value.sa.sa_family, SOCK_STREAM, IPPROTO_SCTP, nullptr,
                                 nullptr, 0, nullptr);
  if (opened == nullptr) fail("socket");
  sctp_paddrparams path{};
  path.spp_address.ss_family = address.value.sa.sa_family;
  path.spp_flags = SPP_PMTUD_DISABLE;
  path.spp_pathmtu = kPathMtu;
  if (usrsctp_setsockopt(opened, IPPROTO_SCTP, SCTP_PEER_ADDR_PARAMS, &path, sizeof path) != 0) {
    fail("path MTU");
  }
  if (usrsctp_bind(opened, &address.value.sa, address.length) != 0) fail("bind");
  return opened;
}

bool send(Socket association, const std::string& message) {
  return usrsctp_sendv(association, message.data(), message.size(), nullptr, 0, nullptr, 0,
                       SCTP_SENDV_NOINFO, 0) == static_cast<ssize_t>(message.size());
}

// Nothing: the association is over, with errno 0 after a shutdown.
std::optional<std::string> receive(Socket association) {
  std::string message;
  std::array<char, 65536> part;
  for (int flags = 0; (flags & MSG_EOR) == 0;) {
    errno = flags = 0;
    socklen_t from_length = 0;
    socklen_t info_length = 0;
    unsigned info_type = SCTP_RECVV_NOINFO;
    const ssize_t bytes = usrsctp_recvv(association, part.data(), part.size(), nullptr,
                                        &from_length, nullptr, &info_length, &info_type, &flags);
    if (bytes <= 0) return std::nullopt;
    message.append(part.data(), static_cast<std::size_t>(bytes));
  }
  return message;
}

void answer(Socket association, const std::string& name) {
  while (const auto message = receive(association)) {
    if (!send(association, name + " " + *message)) break;
  }
  usrsctp_close(association);
}

void accept_all(Socket listening, const std::string& name) {
  while (Socket association = usrsctp_accept(listening, nullptr, nullptr)) {
    std::thread(answer, association, name).detach();
  }
  fail("accept");
}

int serve(const std::string& name, std::uint16_t port, const std::vector<std::string>& addresses) {
  std::vector<std::thread> threads;
  for (const std::string& address : addresses) {
    Socket listening = bound_socket({address, port});
    if (usrsctp_listen(listening, 16) != 0) fail("listen");
    threads.emplace_back(accept_all, listening, name);
  }
  std::cout << "ready" << std::endl;
  for (std::thread& thread : threads) thread.join();
  return 0;
}

std::string random_bytes(std::size_t count) {
  std::independent_bits_engine<std::mt19937, 8, unsigned> random(std::random_device{}());
  std::string bytes(count, '\0');
  std::generate(bytes.begin(), bytes.end(), [&] { return static_cast<char>(random()); });
  return bytes;
}

// The name of the server that answers, or why none does.
std::string exchange(Socket association, std::size_t bytes) {
  const std::string message = random_bytes(bytes);
  if (!send(association, message)) return std::strerror(errno);
  const auto answer = receive(association);
  if (!answer) return errno == 0 ? "shut down" : std::strerror(errno);
  const std::size_t blank = answer->find(' ');
  if (blank == std::string::npos || answer->substr(blank + 1) != message) return "changed";
  return answer->substr(0, blank);
}

void shut_down(Socket association) {
  if (usrsctp_shutdown(association, SHUT_WR) != 0) fail("shutdown");
  if (receive(association) || errno != 0) fail("not shut down");
  usrsctp_close(association);
}

int connect(const std::string& from, Address to, int count) {
  std::vector<Socket> associations;
  for (int made = 0; made < count; ++made) {
    associations.push_back(bound_socket({from, 0}));
    if (usrsctp_connect(associations.back(), &to.value.sa, to.length) != 0) fail("connect");
  }
  std::cout << "up" << std::endl;
  for (std::size_t bytes; std::cin >> bytes;) {
    for (Socket association : associations) std::cout << exchange(association, bytes) << std::endl;
  }
  for (Socket association : associations) shut_down(association);
  std::cout << "closed" << std::endl;
  return 0;
}

}  // namespace

int main(int argument_count, char** argument_values) {
  const std::vector<std::string> words(argument_values + 1, argument_values + argument_count);
  const auto port = [](const std::string& word) {
    return static_cast<std::uint16_t>(std::stoi(word));
  };
  start_stack();
  int result = 2;
  if (words.size() >= 4 && words[0] == "serve") {
    result = serve(words[1], port(words[2]), {words.begin() + 3, words.end()});
  } else if (words.size() == 5 && words[0] == "connect") {
    result = connect(words[1], {words[2], port(words[3])}, std::stoi(words[4]));
  }
  std::_Exit(result);  // the stack's threads run on
}
