// SPDX-License-Identifier: Apache-2.0
// An rtnetlink socket in the network namespace of the thread that opens it. Only list() waits.
// Thread: one at a time.
#pragma once

#include <linux/netlink.h>

#include <cstdint>
#include <span>
#include <vector>

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "dataplane/net/addresses.h"

struct ndmsg;
struct nl_msg;

namespace weir {

class NetlinkSocket {
 public:
  static absl::StatusOr<NetlinkSocket> open();
  NetlinkSocket(NetlinkSocket&& other) noexcept;
  NetlinkSocket& operator=(NetlinkSocket&&) = delete;
  ~NetlinkSocket();

  int fd() const { return fd_; }
  absl::Status subscribe(std::span<const int> groups);  // RTNLGRP_*

  // Lists all objects of a kind (RTM_GET*): sends the question and waits for the answers.
  // interrupted: something changed meanwhile, so that an object may be missing.
  enum class Listing { complete, interrupted };
  absl::StatusOr<Listing> list(int type, int family,
                               absl::FunctionRef<void(const nlmsghdr&)> visit);

  enum class Receipt { messages, nothing, lost_messages };
  // One datagram (at most some hundred messages), `visit` called for each message.
  Receipt receive(absl::FunctionRef<void(const nlmsghdr&)> visit);

  // The present state (NUD_*) of the kernel's neighbour; NUD_NONE: it has none.
  std::uint16_t neighbour_state(std::uint32_t link, const IpAddress& address);
  // RTM_NEWNEIGH with `state` (NUD_*) and `flags` (NTF_*). The kernel answers within the call.
  // `mode`: NLM_F_CREATE or 0. Returns errno, 0 for success.
  int change_neighbour(std::uint32_t link, const IpAddress& address, std::uint16_t state,
                       std::uint8_t flags, int mode);

 private:
  explicit NetlinkSocket(int fd) : fd_(fd) {}
  bool send(nl_msg* message);
  bool send_neighbour(int type, int flags, const ndmsg& body, const IpAddress& address);

  int fd_;
  std::uint32_t sequence_ = 0;
  std::vector<std::uint8_t> buffer_;
};

}  // namespace weir
