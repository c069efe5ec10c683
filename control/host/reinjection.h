// SPDX-License-Identifier: Apache-2.0
// What the workers hand to the kernel enters on the interface that it came from: a tc filter on the
// exception interface redirects it there, behind XDP, so that nftables rules, rp_filter and
// tcpdump see what they would without weir. Not where XDP runs in generic mode, which is behind the
// redirection and would give it to the workers again. Thread: the control thread only.
#pragma once

#include <string>

#include <absl/status/status.h>

namespace weir {

// From now until the exception interface is deleted, which it is with its descriptor.
absl::Status redirect_into(const std::string& exception_interface, const std::string& interface);

}  // namespace weir
