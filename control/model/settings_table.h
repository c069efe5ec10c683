// SPDX-License-Identifier: Apache-2.0
// The settings that change at run time, by name (IPVS's, where IPVS has them: net.ipv4.vs.*).
// Pure functions: any thread.
#pragma once

#include <string>
#include <vector>

#include <absl/status/status.h>

#include "control/model/listings.h"
#include "dataplane/table/settings.h"

namespace weir {

std::vector<SettingListing> list_settings(const Settings& settings);
// NotFound: no such setting; InvalidArgument: no such value. `settings` are as before then.
absl::Status set_setting(Settings& settings, const std::string& name, const std::string& value);

// Those three that ipvsadm names.
IpvsTimeouts timeouts_of(const Settings& settings);
void set_timeouts(Settings& settings, const IpvsTimeouts& timeouts);  // 0: unchanged

}  // namespace weir
