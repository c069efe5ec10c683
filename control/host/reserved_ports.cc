// SPDX-License-Identifier: Apache-2.0
#include "control/host/reserved_ports.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

namespace weir {
namespace {

constexpr const char* kReservedFile = "/proc/sys/net/ipv4/ip_local_reserved_ports";
constexpr const char* kRangeFile = "/proc/sys/net/ipv4/ip_local_port_range";
constexpr std::uint16_t kFirstUnprivileged = 1024;
constexpr std::uint32_t kPorts = 65536;

class Descriptor {
 public:
  explicit Descriptor(int fd) noexcept : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return fd_; }

 private:
  int fd_;
};

absl::Status failure(const char* doing, const char* file) {
  return absl::InternalError(absl::StrCat("cannot ", doing, " ", file, ": ", std::strerror(errno),
                                          "; weir needs CAP_NET_ADMIN and a writable "
                                          "/proc/sys/net to keep the kernel off the ports of local "
                                          "addresses"));
}

// ---- The two settings ----

// The kernel hands out the whole list in one read or not at all.
absl::StatusOr<std::string> read_setting(const char* file) {
  constexpr std::size_t kLongestList = 512 * 1024;
  const Descriptor from(::open(file, O_RDONLY | O_CLOEXEC));
  std::string text(kLongestList, '\0');
  const ssize_t length = from.get() < 0 ? -1 : ::read(from.get(), text.data(), text.size());
  if (length < 0) return failure("read", file);
  text.resize(static_cast<std::size_t>(length));
  return std::string(absl::StripAsciiWhitespace(text));
}

// The kernel takes less than a page at a time; what follows the first write is added to it.
absl::Status write_setting(const char* file, std::string_view text) {
  constexpr std::size_t kMost = 4000;
  const Descriptor to(::open(file, O_WRONLY | O_CLOEXEC));
  if (to.get() < 0) return failure("write", file);
  do {
    const bool whole = text.size() <= kMost;
    const std::size_t comma = whole ? text.size() : text.rfind(',', kMost);
    const std::string part = std::string(text.substr(0, comma)) + '\n';
    if (::write(to.get(), part.data(), part.size()) < 0) return failure("write", file);
    text.remove_prefix(std::min(comma + 1, text.size()));
  } while (!text.empty());
  return absl::OkStatus();
}

absl::StatusOr<PortSet> read_reserved() {
  const auto text = read_setting(kReservedFile);
  if (!text.ok()) return text.status();
  return parse_port_set(*text);
}

absl::Status write_reserved(const PortSet& ports) {
  return write_setting(kReservedFile, to_string(ports));
}

std::optional<PortRange> parse_range(std::string_view text) {
  PortRange range;
  std::istringstream numbers{std::string(text)};
  if (!(numbers >> range.first >> range.last) || range.first > range.last) return std::nullopt;
  return range;
}

absl::StatusOr<PortRange> read_range() {
  const auto text = read_setting(kRangeFile);
  if (!text.ok()) return text.status();
  const auto range = parse_range(*text);
  if (!range) return absl::InternalError(absl::StrCat(kRangeFile, " says \"", *text, "\""));
  return *range;
}

absl::Status write_range(const PortRange& range) {
  return write_setting(kRangeFile, absl::StrCat(range.first, " ", range.last));
}

// Tells one network namespace from another.
std::uint64_t namespace_number() {
  struct stat status {};
  return ::stat("/proc/thread-self/ns/net", &status) == 0 ? status.st_ino : 0;
}

// ---- The kernel's choice of a source ----

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = sizeof(sockaddr_storage);
  sockaddr* get() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
};

SocketAddress socket_address(const IpAddress& address) {
  constexpr std::uint16_t kDiscard = 9;  // connecting sends nothing; any port will do
  SocketAddress result;
  if (address.is_ipv4()) {
    auto& ipv4 = reinterpret_cast<sockaddr_in&>(result.storage);
    ipv4.sin_family = AF_INET;
    ipv4.sin_port = htons(kDiscard);
    std::memcpy(&ipv4.sin_addr, address.bytes().data(), sizeof ipv4.sin_addr);
    result.length = sizeof ipv4;
  } else {
    auto& ipv6 = reinterpret_cast<sockaddr_in6&>(result.storage);
    ipv6.sin6_family = AF_INET6;
    ipv6.sin6_port = htons(kDiscard);
    std::memcpy(&ipv6.sin6_addr, address.bytes().data(), sizeof ipv6.sin6_addr);
    result.length = sizeof ipv6;
  }
  return result;
}

// Nothing where there is no route.
std::optional<IpAddress> source_towards(const IpAddress& server) {
  const int family = server.is_ipv4() ? AF_INET : AF_INET6;
  const Descriptor socket(::socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  SocketAddress to = socket_address(server);
  SocketAddress from;
  if (socket.get() < 0 || ::connect(socket.get(), to.get(), to.length) < 0 ||
      ::getsockname(socket.get(), from.get(), &from.length) < 0) {
    return std::nullopt;
  }
  if (server.is_ipv4()) {
    return load<Ipv4Address>(&reinterpret_cast<sockaddr_in&>(from.storage).sin_addr);
  }
  return load<Ipv6Address>(&reinterpret_cast<sockaddr_in6&>(from.storage).sin6_addr);
}

}  // namespace

absl::StatusOr<PortSet> parse_port_set(std::string_view text) {
  PortSet ports;
  if (text.empty()) return ports;
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(text.data(), text.size()), ',')) {
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(part, absl::MaxSplits('-', 1));
    const bool is_range = part.find('-') != absl::string_view::npos;
    const absl::string_view last_text = is_range ? ends.second : ends.first;
    std::uint32_t first = 0;
    std::uint32_t last = 0;
    if (!absl::SimpleAtoi(ends.first, &first) || !absl::SimpleAtoi(last_text, &last) ||
        first > last || last >= kPorts) {
      return absl::InvalidArgumentError(absl::StrCat("\"", part, "\" is no port and no range"));
    }
    for (std::uint32_t port = first; port <= last; ++port) ports.set(port);
  }
  return ports;
}

std::string to_string(const PortSet& ports) {
  std::string text;
  for (std::uint32_t port = 0; port < kPorts; ++port) {
    if (!ports.test(port)) continue;
    const std::uint32_t first = port;
    while (port + 1 < kPorts && ports.test(port + 1)) ++port;
    absl::StrAppend(&text, text.empty() ? "" : ",", first);
    if (port != first) absl::StrAppend(&text, "-", port);
  }
  return text;
}

absl::StatusOr<PortRange> widen_for_kernel(const PortRange& range, const PortSet& reserved) {
  // free_below[p]: ports below p that are free.
  std::vector<std::uint32_t> free_below(kPorts + 1);
  for (std::uint32_t port = 0; port < kPorts; ++port) {
    free_below[port + 1] = free_below[port] + (reserved.test(port) ? 0 : 1);
  }
  std::optional<PortRange> best;
  std::uint32_t last = kPorts - 1;
  for (std::uint32_t first = range.first; first >= std::min(kFirstUnprivileged, range.first);
       --first) {
    const auto enough = [&](std::uint32_t end) {
      return free_below[end + 1] - free_below[first] >= kKernelPorts;
    };
    while (last > range.last && enough(last - 1)) --last;
    const bool narrower = !best || last - first < std::uint32_t{best->last} - best->first;
    if (enough(last) && narrower) {
      best = {static_cast<std::uint16_t>(first), static_cast<std::uint16_t>(last)};
    }
    if (last == range.last || first == 0) break;
  }
  if (!best) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the ports of the local addresses and of net.ipv4.ip_local_reserved_ports leave the kernel "
        "fewer than ",
        kKernelPorts,
        ", and it may send from one of these addresses to a real "
        "server: give the local addresses a smaller range of ports (1024-63487), or addresses that "
        "are not the first of their interface and subnet"));
  }
  return *best;
}

bool kernel_sends_from(std::span<const IpAddress> addresses, std::span<const IpAddress> servers) {
  return std::any_of(servers.begin(), servers.end(), [&](const IpAddress& server) {
    const auto source = source_towards(server);
    return source && std::find(addresses.begin(), addresses.end(), *source) != addresses.end();
  });
}

void KernelSources::add(const IpAddress& server) {
  if (servers_.emplace(server, false).second) unasked_.push_back(server);
}

void KernelSources::remove(const IpAddress& server) {
  const auto known = servers_.find(server);
  if (known == servers_.end()) return;
  if (known->second) --conflicts_;
  servers_.erase(known);
}

void KernelSources::set_addresses(std::vector<IpAddress> addresses) {
  addresses_ = std::move(addresses);
  ask_again();
}

void KernelSources::ask_again() {
  unasked_.clear();
  for (const auto& [server, conflict] : servers_) unasked_.push_back(server);
}

bool KernelSources::step() {
  constexpr std::size_t kServersAtOnce = 8;
  for (std::size_t i = 0; i < kServersAtOnce && !unasked_.empty(); ++i) {
    const IpAddress server = unasked_.back();
    unasked_.pop_back();
    const auto known = servers_.find(server);
    if (known == servers_.end()) continue;
    const bool conflict = !addresses_.empty() && kernel_sends_from(addresses_, {&server, 1});
    if (conflict && !known->second) ++conflicts_;
    if (!conflict && known->second) --conflicts_;
    known->second = conflict;
  }
  return !unasked_.empty();
}

ReservedPorts::ReservedPorts(std::string memory) : memory_(std::move(memory)) { read_memory(); }

absl::Status ReservedPorts::reserve(const PortSet& ports) {
  const auto current = read_reserved();
  if (!current.ok()) return current.status();
  const auto current_range = read_range();
  if (!current_range.ok()) return current_range.status();
  const PortSet user = *current & ~added_;
  // A range that somebody else has set meanwhile is the user's.
  if (*current_range != widened_range_) former_range_ = *current_range;
  widened_range_ = *current_range;
  if (ports.none()) return change(user, ports, former_range_);
  const auto range = widen_for_kernel(former_range_, user | ports);
  if (!range.ok()) return range.status();
  return change(user, ports & ~user, *range);
}

absl::Status ReservedPorts::restore() {
  if (added_.none() && former_range_ == widened_range_) return absl::OkStatus();
  if (const absl::Status status = reserve(PortSet{}); !status.ok()) return status;
  ::unlink(memory_.c_str());
  return absl::OkStatus();
}

// At no moment is the kernel left without ports, nor the file without one of those added.
absl::Status ReservedPorts::change(const PortSet& user, const PortSet& ports,
                                   const PortRange& range) {
  if (ports == added_ && range == widened_range_) return absl::OkStatus();
  const PortRange before =
      std::exchange(widened_range_, PortRange{std::min(range.first, widened_range_.first),
                                              std::max(range.last, widened_range_.last)});
  absl::Status status = write_memory(added_ | ports);
  if (status.ok()) status = write_range(widened_range_);
  if (status.ok()) status = write_reserved(user | ports);
  if (!status.ok()) {
    widened_range_ = before;
    (void)write_range(before);
    (void)write_memory(added_);
    return status;
  }
  added_ = ports;
  if (range != widened_range_) {
    widened_range_ = range;
    status = write_range(range);
  }
  const absl::Status remembered = write_memory(added_);
  return status.ok() ? remembered : status;
}

void ReservedPorts::read_memory() {
  std::ifstream file(memory_);
  std::uint64_t number = 0;
  std::string ports;
  PortRange former;
  PortRange widened;
  if (!(file >> number >> former.first >> former.last >> widened.first >> widened.last) ||
      number != namespace_number()) {
    // Until reserve() reads it, the range is nobody's.
    former_range_ = widened_range_ = PortRange{0, 0};
    return;
  }
  former_range_ = former;
  widened_range_ = widened;
  file >> ports;
  if (const auto added = parse_port_set(ports); added.ok()) added_ = *added;
}

absl::Status ReservedPorts::write_memory(const PortSet& added) const {
  const std::string next = memory_ + ".new";
  std::ofstream file(next, std::ios::trunc);
  file << namespace_number() << ' ' << former_range_.first << ' ' << former_range_.last << ' '
       << widened_range_.first << ' ' << widened_range_.last << '\n'
       << to_string(added) << '\n';
  file.close();
  if (!file || ::rename(next.c_str(), memory_.c_str()) != 0) {
    return absl::InternalError(absl::StrCat("cannot write ", memory_, ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

}  // namespace weir
