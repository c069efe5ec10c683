// SPDX-License-Identifier: Apache-2.0
// Network namespaces without names, for tests with the real kernel: gone with the object.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <thread>

namespace weir {

class NetworkNamespace {
 public:
  // In a thread of its own, so that the caller's namespace stays. exists() is false without root.
  NetworkNamespace() {
    std::thread([this] {
      if (::unshare(CLONE_NEWNET) == 0) fd_ = ::open("/proc/thread-self/ns/net", O_RDONLY);
    }).join();
  }
  ~NetworkNamespace() {
    if (fd_ >= 0) ::close(fd_);
  }
  NetworkNamespace(const NetworkNamespace&) = delete;
  NetworkNamespace& operator=(const NetworkNamespace&) = delete;

  bool exists() const { return fd_ >= 0; }
  void enter() const { ::setns(fd_, CLONE_NEWNET); }  // the calling thread and what it starts
  // How `ip link set X netns ...` names it.
  std::string path() const {
    return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_);
  }
  // A shell command in this namespace; its exit status.
  int run(const std::string& command) const {
    int status = -1;
    std::thread([&] {
      enter();
      status = std::system(command.c_str());
    }).join();
    return status;
  }

 private:
  int fd_ = -1;
};

}  // namespace weir
