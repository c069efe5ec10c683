// SPDX-License-Identifier: Apache-2.0
#include "control/host/netlink_socket.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <absl/strings/str_cat.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "control/host/netlink_messages.h"

namespace weir {

namespace {

constexpr std::size_t kReceiveBuffer = 128 * 1024;  // a dump's datagrams hold at most 32 KiB
constexpr int kAnswerMilliseconds = 5000;
constexpr int kSocketBuffer = 4 * 1024 * 1024;  // events that may wait while control is busy

using Message = std::unique_ptr<nl_msg, decltype(&::nlmsg_free)>;

absl::Status failure(absl::string_view what) {
  return absl::InternalError(
      absl::StrCat("cannot ", what, " (netlink): ", std::strerror(errno),
                   "; weir needs CAP_NET_ADMIN and a kernel with rtnetlink"));
}

std::size_t header_length(int type) {
  switch (type) {
    case RTM_GETLINK:
      return sizeof(ifinfomsg);
    case RTM_GETADDR:
      return sizeof(ifaddrmsg);
    default:
      static_assert(sizeof(rtmsg) == sizeof(ndmsg) && sizeof(rtmsg) == sizeof(fib_rule_hdr));
      return sizeof(rtmsg);
  }
}

}  // namespace

absl::StatusOr<NetlinkSocket> NetlinkSocket::open() {
  const int fd = ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return failure("ask the kernel for its network");
  NetlinkSocket result(fd);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  if (::bind(fd, std::bit_cast<sockaddr*>(&address), sizeof address) < 0) {
    return failure("ask the kernel for its network");
  }
  // Without the privilege the smaller default remains, and losses are noticed and made good.
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kSocketBuffer, sizeof kSocketBuffer);
  result.buffer_.resize(kReceiveBuffer);
  return result;
}

NetlinkSocket::NetlinkSocket(NetlinkSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      sequence_(other.sequence_),
      buffer_(std::move(other.buffer_)) {}

NetlinkSocket::~NetlinkSocket() {
  if (fd_ >= 0) ::close(fd_);
}

absl::Status NetlinkSocket::subscribe(std::span<const int> groups) {
  for (const int group : groups) {
    if (::setsockopt(fd_, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0) {
      return failure("watch the kernel's network");
    }
  }
  return absl::OkStatus();
}

bool NetlinkSocket::send(nl_msg* message) {
  const nlmsghdr* header = ::nlmsg_hdr(message);
  return ::send(fd_, header, header->nlmsg_len, 0) == static_cast<ssize_t>(header->nlmsg_len);
}

absl::StatusOr<NetlinkSocket::Listing> NetlinkSocket::list(
    int type, int family, absl::FunctionRef<void(const nlmsghdr&)> visit) {
  // The fixed part differs in length from kind to kind, but always starts with the family.
  std::array<std::uint8_t, sizeof(ifinfomsg)> body{};
  body[0] = static_cast<std::uint8_t>(family);
  const Message message(::nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_DUMP), ::nlmsg_free);
  ::nlmsg_append(message.get(), body.data(), header_length(type), NLMSG_ALIGNTO);
  ::nlmsg_hdr(message.get())->nlmsg_seq = ++sequence_;
  if (!send(message.get())) return failure("list the kernel's network");

  Listing result = Listing::complete;
  bool is_over = false;
  const auto take = [&](const nlmsghdr& answer) {
    if (answer.nlmsg_seq != sequence_) return;
    if ((answer.nlmsg_flags & NLM_F_DUMP_INTR) != 0) result = Listing::interrupted;
    // An error: a kernel without this kind of object.
    is_over = answer.nlmsg_type == NLMSG_DONE || answer.nlmsg_type == NLMSG_ERROR;
    if (!is_over) visit(answer);
  };
  while (!is_over) {
    pollfd readable{fd_, POLLIN, 0};
    if (::poll(&readable, 1, kAnswerMilliseconds) == 0) {
      errno = ETIMEDOUT;
      return failure("list the kernel's network");
    }
    if (receive(take) == Receipt::lost_messages) result = Listing::interrupted;
  }
  return result;
}

NetlinkSocket::Receipt NetlinkSocket::receive(absl::FunctionRef<void(const nlmsghdr&)> visit) {
  sockaddr_nl sender{};
  iovec part{buffer_.data(), buffer_.size()};
  msghdr datagram{};
  datagram.msg_name = &sender;
  datagram.msg_namelen = sizeof sender;
  datagram.msg_iov = &part;
  datagram.msg_iovlen = 1;
  const ssize_t received = ::recvmsg(fd_, &datagram, 0);
  if (received < 0) return errno == ENOBUFS ? Receipt::lost_messages : Receipt::nothing;
  if ((datagram.msg_flags & MSG_TRUNC) != 0) return Receipt::lost_messages;
  if (sender.nl_pid != 0) return Receipt::messages;  // not from the kernel
  int rest = static_cast<int>(received);
  for (auto* message = std::bit_cast<nlmsghdr*>(buffer_.data()); ::nlmsg_ok(message, rest) != 0;
       message = ::nlmsg_next(message, &rest)) {
    visit(*message);
  }
  return Receipt::messages;
}

namespace {

ndmsg neighbour_header(std::uint32_t link, const IpAddress& address) {
  ndmsg header{};
  header.ndm_family = address.is_ipv4() ? AF_INET : AF_INET6;
  header.ndm_ifindex = static_cast<int>(link);
  return header;
}

}  // namespace

bool NetlinkSocket::send_neighbour(int type, int flags, const ndmsg& header,
                                   const IpAddress& address) {
  const Message message(::nlmsg_alloc_simple(type, NLM_F_REQUEST | flags), ::nlmsg_free);
  ::nlmsg_append(message.get(), const_cast<ndmsg*>(&header), sizeof header, NLMSG_ALIGNTO);
  ::nla_put(message.get(), NDA_DST, address.bit_width() / 8, address.bytes().data());
  ::nlmsg_hdr(message.get())->nlmsg_seq = ++sequence_;
  return send(message.get());
}

std::uint16_t NetlinkSocket::neighbour_state(std::uint32_t link, const IpAddress& address) {
  if (!send_neighbour(RTM_GETNEIGH, 0, neighbour_header(link, address), address)) return NUD_NONE;
  std::uint16_t state = NUD_NONE;
  receive([&](const nlmsghdr& answer) {
    const auto neighbour = parse_neighbour(answer);
    if (neighbour && answer.nlmsg_seq == sequence_) state = neighbour->state;
  });
  return state;
}

int NetlinkSocket::change_neighbour(std::uint32_t link, const IpAddress& address,
                                    std::uint16_t state, std::uint8_t flags, int mode) {
  ndmsg header = neighbour_header(link, address);
  header.ndm_state = state;
  header.ndm_flags = flags;
  if (!send_neighbour(RTM_NEWNEIGH, NLM_F_ACK | mode, header, address)) return errno;
  int error = EIO;
  receive([&](const nlmsghdr& answer) {
    if (answer.nlmsg_type != NLMSG_ERROR || answer.nlmsg_seq != sequence_) return;
    error = -static_cast<const nlmsgerr*>(::nlmsg_data(&answer))->error;
  });
  return error;
}

}  // namespace weir
