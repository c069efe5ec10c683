// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/exception_interface.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace weir {

namespace {

constexpr std::size_t kEthernetHeader = 14;
constexpr std::size_t kVlanTag = 4;
constexpr std::size_t kMacs = 12;

// Closes a descriptor that only lives within a function.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

ifreq request_for(std::string_view name) {
  ifreq request{};
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  return request;
}

// A missing file: this kernel has no IPv6, or not the setting, and then there is nothing to set.
bool write_setting(const std::string& path, std::string_view value) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (file.get() < 0) return errno == ENOENT;
  return ::write(file.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size());
}

struct Setting {
  const char* family;
  const char* name;
  const char* value;
};

// Receives for local addresses whatever the source, and says nothing of its own.
constexpr std::array kInjectionSettings = {
    Setting{"ipv4", "rp_filter", "0"},    Setting{"ipv4", "arp_ignore", "8"},
    Setting{"ipv4", "arp_announce", "2"}, Setting{"ipv6", "addr_gen_mode", "1"},
    Setting{"ipv6", "accept_ra", "0"},    Setting{"ipv6", "autoconf", "0"},
    Setting{"ipv6", "accept_dad", "0"},   Setting{"ipv6", "router_solicitations", "0"},
};

absl::Status failure(absl::string_view what) {
  return absl::InternalError(absl::StrCat("cannot ", what, ": ", std::strerror(errno),
                                          "; weir needs CAP_NET_ADMIN, /dev/net/tun and a writable "
                                          "/proc/sys/net"));
}

ExceptionInterface::Transfer transfer_of(int error) noexcept {
  using Transfer = ExceptionInterface::Transfer;
  switch (error) {
    case EAGAIN:
    case EINTR:
    case ENOBUFS:
    case ENOMEM:
      return Transfer::would_block;
    case EIO:
      return Transfer::down;
    case EBADF:
    case EBADFD:
      return Transfer::gone;
    default:
      return Transfer::bad_length;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExceptionInterface>> ExceptionInterface::create(const Wish& wish) {
  Descriptor tap(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq request = request_for("weir%d");
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (tap.get() < 0 || ::ioctl(tap.get(), TUNSETIFF, &request) < 0) {
    return failure("create an exception interface (TAP)");
  }
  std::unique_ptr<ExceptionInterface> interface(
      new ExceptionInterface(tap.release(), request.ifr_name, wish));
  if (const absl::Status status = interface->configure(); !status.ok()) return status;
  return interface;
}

ExceptionInterface::ExceptionInterface(int fd, std::string name, const Wish& wish)
    : fd_(fd), name_(std::move(name)), wish_(wish) {}

ExceptionInterface::~ExceptionInterface() { ::close(fd_); }

absl::Status ExceptionInterface::configure() const {
  const Descriptor control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = request_for(name_);
  request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
  std::memcpy(request.ifr_hwaddr.sa_data, wish_.mac.bytes.data(), wish_.mac.bytes.size());
  if (::ioctl(control.get(), SIOCSIFHWADDR, &request) < 0) {
    return failure(absl::StrCat("give ", name_, " the MAC ", wish_.mac.to_string()));
  }
  request = request_for(name_);
  request.ifr_mtu = wish_.mtu;
  if (::ioctl(control.get(), SIOCSIFMTU, &request) < 0) {
    return failure(absl::StrCat("give ", name_, " the MTU ", wish_.mtu));
  }
  if (wish_.use != Use::full) {
    if (const absl::Status status = silence(); !status.ok()) return status;
  }
  request = request_for(name_);
  const bool is_known = ::ioctl(control.get(), SIOCGIFFLAGS, &request) == 0;
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (!is_known || ::ioctl(control.get(), SIOCSIFFLAGS, &request) < 0) {
    return failure(absl::StrCat("bring ", name_, " up"));
  }
  return absl::OkStatus();
}

absl::Status ExceptionInterface::silence() const {
  for (const Setting& setting : kInjectionSettings) {
    const std::string path =
        absl::StrCat("/proc/sys/net/", setting.family, "/conf/", name_, "/", setting.name);
    if (!write_setting(path, setting.value)) return failure(absl::StrCat("write to ", path));
  }
  return absl::OkStatus();
}

ExceptionInterface::Transfer ExceptionInterface::write(std::span<const std::uint8_t> frame,
                                                       Tag tag) noexcept {
  if (frame.size() < kEthernetHeader || frame.size() > kEthernetHeader + kVlanTag + wish_.mtu) {
    return Transfer::bad_length;
  }
  std::array<std::uint8_t, kMacs> macs;
  std::copy_n(frame.begin(), kMacs, macs.begin());
  std::span<const std::uint8_t> rest = frame.subspan(kMacs);
  if (wish_.use == Use::injection_only) {
    const bool is_group_address = (macs[0] & 1) != 0;
    if (!is_group_address) std::ranges::copy(wish_.mac.bytes, macs.begin());
    const bool is_tagged = rest[0] == 0x81 && rest[1] == 0x00;
    if (is_tagged && tag == Tag::taken_off) rest = rest.subspan(std::min(rest.size(), kVlanTag));
  }
  const std::array<iovec, 2> parts = {iovec{macs.data(), macs.size()},
                                      iovec{const_cast<std::uint8_t*>(rest.data()), rest.size()}};
  const ssize_t written = ::writev(fd_, parts.data(), static_cast<int>(parts.size()));
  return written < 0 ? transfer_of(errno) : Transfer::done;
}

ExceptionInterface::Received ExceptionInterface::read(std::span<std::uint8_t> buffer) noexcept {
  const ssize_t length = ::read(fd_, buffer.data(), buffer.size());
  if (length < 0) return {transfer_of(errno), 0};
  return {Transfer::done, static_cast<std::size_t>(length)};
}

std::optional<std::string> injection_complaint() {
  const Descriptor file(::open("/proc/sys/net/ipv4/conf/all/rp_filter", O_RDONLY | O_CLOEXEC));
  char value = '0';
  if (file.get() < 0 || ::read(file.get(), &value, 1) != 1 || value == '0') return std::nullopt;
  return absl::StrCat("net.ipv4.conf.all.rp_filter is ", std::string(1, value),
                      ": the kernel drops what weir hands back to it (an ACK of no connection is "
                      "then answered by silence, not by RST); set it to 0, and rp_filter of each "
                      "interface as wanted");
}

}  // namespace weir
