// SPDX-License-Identifier: Apache-2.0
// Plans: from one configuration to another, and in small steps.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "control/model/director_config.h"
#include "control/model/settings_table.h"

namespace weir {
namespace {

using End = std::pair<IpAddress, std::uint16_t>;

std::map<End, const ServerSpec*> by_end(const ServiceConfig& service) {
  std::map<End, const ServerSpec*> servers;
  for (const ServerSpec& server : service.servers) {
    servers.emplace(End(server.address, server.port), &server);
  }
  return servers;
}

void plan_options(Plan& plan, const ServiceKey& key, const ServiceOptions& current,
                  const ServiceOptions& wanted) {
  for (ServiceOption& option : differing_options(current, wanted)) {
    plan.push_back(SetServiceOption{key, std::move(option)});
  }
}

// What both have keeps its place.
void plan_servers(Plan& plan, const ServiceConfig& current, const ServiceConfig& wanted) {
  const ServiceKey& key = current.spec.key;
  const auto before = by_end(current);
  const auto after = by_end(wanted);
  for (const ServerSpec& server : current.servers) {
    if (after.contains({server.address, server.port})) continue;
    plan.push_back(DeleteServer{key, server.address, server.port});
  }
  for (const ServerSpec& server : wanted.servers) {
    const auto known = before.find({server.address, server.port});
    if (known == before.end()) {
      plan.push_back(AddServer{key, server});
    } else if (*known->second != server) {
      plan.push_back(EditServer{key, server});
    }
  }
}

std::vector<const ServiceConfig*> in_order(const DirectorConfig& config) {
  std::vector<const ServiceConfig*> services;
  for (const auto& [key, service] : config.services()) services.push_back(&service);
  std::sort(services.begin(), services.end(),
            [](const auto* a, const auto* b) { return a->added < b->added; });
  return services;
}

void plan_services(Plan& plan, const DirectorConfig& current, const DirectorConfig& wanted) {
  const ServiceConfig none;
  for (const ServiceConfig* service : in_order(wanted)) {
    const ServiceKey& key = service->spec.key;
    const auto known = current.services().find(key);
    const ServiceConfig& before = known == current.services().end() ? none : known->second;
    if (known == current.services().end()) {
      plan.push_back(AddService{service->spec});
    } else if (before.spec != service->spec) {
      plan.push_back(EditService{service->spec});
    }
    plan_options(plan, key, before.options, service->options);
  }
}

// Ranges that `other` has not.
template <class Append>
void each_range_beyond(const LocalPools& pools, const LocalPools& other, Append&& append) {
  for (const auto& [owner, ranges] : pools.ranges()) {
    const auto known = other.ranges().find(owner);
    for (const AddressRange& range : ranges) {
      if (known != other.ranges().end() && known->second.contains(range)) continue;
      append(range, owner);
    }
  }
}

// Rules before the first difference stay.
void plan_mark_rules(Plan& plan, const DirectorConfig& current, const DirectorConfig& wanted) {
  const auto& before = current.mark_rules();
  const auto& after = wanted.mark_rules();
  const auto [left, right] =
      std::mismatch(before.begin(), before.end(), after.begin(), after.end());
  for (auto at = before.end(); at != left; --at) {
    plan.push_back(DeleteMarkRule{static_cast<std::uint32_t>(at - before.begin())});
  }
  for (auto at = right; at != after.end(); ++at) plan.push_back(AddMarkRule{*at, std::nullopt});
}

void plan_settings(Plan& plan, const Settings& current, const Settings& wanted) {
  const auto before = list_settings(current);
  const auto after = list_settings(wanted);
  for (std::size_t i = 0; i < before.size(); ++i) {
    if (before[i].value != after[i].value) {
      plan.push_back(SetSetting{after[i].name, after[i].value});
    }
  }
  if (timeouts_of(current) != timeouts_of(wanted)) {
    plan.push_back(SetTimeouts{timeouts_of(wanted)});
  }
}

}  // namespace

// First what goes, so that it is in nobody's way; addresses come before the real servers that need
// them, and go after those.
Plan plan(const DirectorConfig& current, const DirectorConfig& wanted) {
  Plan plan;
  plan_settings(plan, current.settings(), wanted.settings());
  std::set<ServiceKey> gone;
  for (const auto& [key, service] : current.services()) {
    if (wanted.services().contains(key)) continue;
    plan.push_back(DeleteService{key});
    gone.insert(key);
  }
  plan_services(plan, current, wanted);
  each_range_beyond(wanted.pools(), current.pools(), [&](const auto& range, const auto& owner) {
    plan.push_back(AddLocalAddresses{range, owner});
  });
  for (const ServiceConfig* service : in_order(wanted)) {
    const auto known = current.services().find(service->spec.key);
    ServiceConfig before{.spec = service->spec};
    plan_servers(plan, known == current.services().end() ? before : known->second, *service);
  }
  each_range_beyond(current.pools(), wanted.pools(), [&](const auto& range, const auto& owner) {
    if (!owner || !gone.contains(*owner)) plan.push_back(DeleteLocalAddresses{range, owner});
  });
  plan_mark_rules(plan, current, wanted);
  return plan;
}

Plan in_small_steps(const DirectorConfig& current, Plan plan) {
  const auto is_large = [&](const Change& change) {
    const auto* one = std::get_if<DeleteService>(&change);
    if (one == nullptr) return std::holds_alternative<DeleteAllServices>(change);
    const auto service = current.services().find(one->key);
    return service != current.services().end() &&
           service->second.servers.size() > kMostServersOfAChange;
  };
  // Only the first change finds the services as they are now.
  if (plan.size() != 1 || !is_large(plan.front())) return plan;
  Plan steps;
  const auto remove = [&](const ServiceConfig& service) {
    const ServiceKey& key = service.spec.key;
    if (service.servers.size() > kMostServersOfAChange) {
      for (const ServerSpec& server : service.servers) {
        steps.push_back(DeleteServer{key, server.address, server.port});
      }
    }
    steps.push_back(DeleteService{key});
  };
  if (const auto* one = std::get_if<DeleteService>(&plan.front())) {
    remove(current.services().at(one->key));
  } else {
    for (const auto& [key, service] : current.services()) remove(service);
  }
  return steps;
}

}  // namespace weir
