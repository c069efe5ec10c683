// SPDX-License-Identifier: Apache-2.0
// A TAP device: the way of frames between weir and the host's kernel.
//
// Beside a kernel interface (AF_XDP) frames only go in: one written here reaches the kernel as if
// it had been received, here or, by a filter of the caller's, on that interface. For a port that
// DPDK owns it is the host's own interface, with the host's addresses, and carries frames both
// ways. The device goes away with the object. Any one thread at a time; read and write never block.
// Source: Documentation/networking/tuntap.rst, ip-sysctl.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include "dataplane/net/addresses.h"

namespace weir {

class ExceptionInterface {
 public:
  enum class Use : std::uint8_t {
    injection_only,  // silent: no addresses, never answers ARP; what the kernel sends is noise
    redirected,      // the same, but frames stay as they are: they do not enter here
    full,
  };
  struct Wish {
    Use use = Use::injection_only;
    MacAddress mac;            // the port's
    std::uint16_t mtu = 1500;  // the port's, bytes of the IP packet
  };

  enum class Transfer : std::uint8_t {
    done,
    would_block,
    bad_length,  // shorter than an Ethernet header, or longer than the MTU allows
    down,        // the kernel's interface is down; it may come up again
    gone,        // the interface was deleted
  };
  struct Received {
    Transfer result = Transfer::would_block;
    std::size_t length = 0;
  };

  // The kernel chooses the name weir0, weir1, ... Needs CAP_NET_ADMIN.
  static absl::StatusOr<std::unique_ptr<ExceptionInterface>> create(const Wish& wish);
  ~ExceptionInterface();
  ExceptionInterface(const ExceptionInterface&) = delete;
  ExceptionInterface& operator=(const ExceptionInterface&) = delete;

  const std::string& name() const noexcept { return name_; }
  int fd() const noexcept { return fd_; }  // readable: a frame from the kernel

  // Of a frame's VLAN tag, in an injection-only interface.
  enum class Tag : std::uint8_t {
    taken_off,  // the kernel knows the VLAN, but not on this interface
    kept,       // the kernel knows no such VLAN, and is to see that
  };
  // A whole Ethernet frame. Into an injection-only interface a unicast frame goes with the
  // interface's MAC as its destination: it may have been sent to a virtual MAC, which the kernel
  // would take for another host's.
  Transfer write(std::span<const std::uint8_t> frame, Tag tag = Tag::taken_off) noexcept;
  // The next frame from the kernel; a longer one than `buffer` is cut. Checksums are complete.
  Received read(std::span<std::uint8_t> buffer) noexcept;

 private:
  ExceptionInterface(int fd, std::string name, const Wish& wish);
  absl::Status configure() const;
  absl::Status silence() const;

  int fd_;
  std::string name_;
  Wish wish_;
};

// A sentence about a setting of this host that makes the kernel drop what is injected
// (net.ipv4.conf.all.rp_filter); nothing when all is well.
std::optional<std::string> injection_complaint();

}  // namespace weir
