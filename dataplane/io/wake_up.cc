// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/wake_up.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>

namespace weir {

WakeUp::WakeUp() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) std::abort();
}

WakeUp::~WakeUp() { close(fd_); }

void WakeUp::answer() noexcept {
  eventfd_t calls;
  (void)eventfd_read(fd_, &calls);
}

void WakeUp::signal() noexcept { (void)eventfd_write(fd_, 1); }

}  // namespace weir
