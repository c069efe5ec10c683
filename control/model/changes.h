// SPDX-License-Identifier: Apache-2.0
// Everything that can be changed of what is wanted, as values. Every face says what it wants as a
// Plan: one command of ipvsadm, a transaction, a reload. Any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <variant>

#include "control/model/specs.h"

namespace weir {

struct AddService {
  ServiceSpec spec;
};
struct EditService {
  ServiceSpec spec;
};
struct DeleteService {
  ServiceKey key;
};
struct DeleteAllServices {};

struct AddServer {
  ServiceKey service;
  ServerSpec spec;
};
struct EditServer {
  ServiceKey service;
  ServerSpec spec;
};
struct DeleteServer {
  ServiceKey service;
  IpAddress address;
  std::uint16_t port = 0;
};

struct SetServiceOption {
  ServiceKey service;
  ServiceOption option;
};

// Local addresses of a service, or of all that have none of their own. What is taken away serves
// the connections that use it until they end.
struct AddLocalAddresses {
  AddressRange range;
  std::optional<ServiceKey> service;
};
struct DeleteLocalAddresses {
  AddressRange range;
  std::optional<ServiceKey> service;
};

// Rules are numbered from 1; the first that matches a packet gives it its mark. `at` puts a rule
// before the one that has this number; without it the rule is the last.
struct AddMarkRule {
  MarkRuleSpec rule;
  std::optional<std::uint32_t> at;
};
struct DeleteMarkRule {
  std::uint32_t number = 0;
};

struct SetTimeouts {
  IpvsTimeouts timeouts;  // 0: unchanged
};
struct SetSetting {
  std::string name;
  std::string value;
};

using Change =
    std::variant<AddService, EditService, DeleteService, DeleteAllServices, AddServer, EditServer,
                 DeleteServer, SetServiceOption, AddLocalAddresses, DeleteLocalAddresses,
                 AddMarkRule, DeleteMarkRule, SetTimeouts, SetSetting>;
// Long ones are made, carried out and freed bit by bit.
using Plan = std::deque<Change>;

}  // namespace weir
