// SPDX-License-Identifier: Apache-2.0
// What live services ask of the host's network. Thread: the control thread.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "dataplane/net/addresses.h"
#include "dataplane/table/routes.h"

namespace weir {

class HostNetwork {
 public:
  virtual ~HostNetwork() = default;

  // As they are now, with all ways that were asked for.
  virtual std::shared_ptr<const Routes> routes() = 0;
  // Whether packets to the address are for this host.
  virtual bool owns(const IpAddress& address) const = 0;
  // A place in the routes' ways, kept up to date until it is released as often as it was asked for.
  virtual WayIndex acquire_way(const IpAddress& address) = 0;
  virtual void release_way(const IpAddress& address) = 0;
  // Whether packets to the address leave through a port of weir, as things are.
  virtual bool reaches(const IpAddress& address) = 0;
  // Why no real server can be there, if so: a network's broadcast address, a link-local one that
  // names no interface.
  virtual std::optional<std::string> problem_with(const IpAddress& server) const = 0;
};

// A host without any network.
class NoNetwork final : public HostNetwork {
 public:
  std::shared_ptr<const Routes> routes() override { return routes_; }
  bool owns(const IpAddress&) const override { return false; }
  WayIndex acquire_way(const IpAddress&) override { return 0; }
  void release_way(const IpAddress&) override {}
  bool reaches(const IpAddress&) override { return false; }
  std::optional<std::string> problem_with(const IpAddress&) const override { return {}; }

 private:
  std::shared_ptr<const Routes> routes_ = std::make_shared<const Routes>();
};

}  // namespace weir
