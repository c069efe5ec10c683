// SPDX-License-Identifier: Apache-2.0
// IPVS's rules in their plain form: every step that the rule describes, a walk through the list for
// every pick. What the schedulers are held against.
#pragma once

#include <memory>
#include <string_view>

#include "schedulers/scheduler.h"
#include "tests/support/simulated_service.h"

namespace weir::test {

// They hold real servers by slot, not by position.
class PlainRule {
 public:
  virtual ~PlainRule() = default;
  // Before the list changes, of the real server that the edit is about.
  virtual void before_edit(Edit::Kind, ServerSlot, const SimulatedService&) {}
  // After it has changed.
  virtual void after_edit(const SimulatedService&) {}
  // 0: nobody. For the client and the destination that the service has now.
  virtual ServerSlot pick(const SimulatedService& service) = 0;
};

// Null: twos, which is random, and what IPVS does not have.
std::unique_ptr<PlainRule> make_plain_rule(std::string_view name);

}  // namespace weir::test
