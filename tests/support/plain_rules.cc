// SPDX-License-Identifier: Apache-2.0
#include "tests/support/plain_rules.h"

#include <list>
#include <map>
#include <numeric>
#include <utility>

namespace weir::test {
namespace {

std::int64_t overhead_of(const SimulatedService& service, ServerSlot slot) {
  return 256 * std::int64_t{service.load(slot).active} + service.load(slot).inactive;
}
std::int32_t weight_of(const SimulatedService& service, ServerSlot slot) {
  return service.candidates()[service.position_of(slot)].weight;
}

// 0 stands for the head, before the first entry and after the last.
ServerSlot following(const SimulatedService& service, ServerSlot slot) {
  const auto& list = service.candidates();
  const std::size_t at = slot == 0 ? 0 : service.position_of(slot) + 1;
  return at < list.size() ? list[at].slot : 0;
}

class PlainRoundRobin final : public PlainRule {
 public:
  void before_edit(Edit::Kind kind, ServerSlot slot, const SimulatedService& service) override {
    if (kind != Edit::Kind::remove || slot != cursor_) return;
    const auto position = service.position_of(slot);
    cursor_ = position == 0 ? 0 : service.candidates()[position - 1].slot;
  }
  ServerSlot pick(const SimulatedService& service) override {
    ServerSlot at = cursor_;
    for (std::size_t steps = 0; steps <= service.candidates().size(); ++steps) {
      at = following(service, at);
      if (at != 0 && weight_of(service, at) > 0 && !service.overloaded(at)) return cursor_ = at;
    }
    return 0;
  }

 private:
  ServerSlot cursor_ = 0;
};

class PlainWeightedRoundRobin final : public PlainRule {
 public:
  void after_edit(const SimulatedService& service) override {
    last_ = 0;
    gcd_ = 0;
    std::int32_t heaviest = 0;
    for (const Candidate& candidate : service.candidates()) {
      gcd_ = std::gcd(gcd_, candidate.weight);
      heaviest = std::max(heaviest, candidate.weight);
    }
    gcd_ = std::max(gcd_, 1);
    greatest_ = heaviest - (gcd_ - 1);
    if (level_ > greatest_ || level_ == 0) {
      level_ = greatest_;
    } else if (gcd_ > 1) {
      level_ = (level_ / gcd_) * gcd_ + 1;
    }
  }
  ServerSlot pick(const SimulatedService& service) override {
    if (greatest_ == 0) return 0;
    const ServerSlot begin = last_;
    bool last_pass = false;
    bool restarted = false;
    ServerSlot stop = 0;
    for (ServerSlot at = begin;;) {
      while ((at = following(service, at)) != 0) {
        if (!service.overloaded(at) && weight_of(service, at) >= level_) return last_ = at;
        if (at == stop) return refuse_at(at);
      }
      level_ -= gcd_;
      if (level_ <= 0) {
        level_ = greatest_;
        if (last_pass || begin == 0) return refuse_at(0);
        restarted = true;
      }
      last_pass = level_ <= gcd_;
      if (last_pass && restarted && begin != 0) stop = begin;
    }
  }

 private:
  ServerSlot refuse_at(ServerSlot slot) {
    last_ = slot;
    return 0;
  }

  ServerSlot last_ = 0;
  std::int32_t level_ = 0;
  std::int32_t greatest_ = 0;
  std::int32_t gcd_ = 1;
};

// The first of the list that no later one beats.
template <class Takes, class Beats>
ServerSlot best_of(const SimulatedService& service, Takes takes, Beats beats) {
  ServerSlot best = 0;
  for (const Candidate& candidate : service.candidates()) {
    if (candidate.weight <= 0 || service.overloaded(candidate.slot)) continue;
    if (!takes(candidate)) continue;
    if (best == 0 || beats(candidate.slot, best)) best = candidate.slot;
  }
  return best;
}

constexpr auto kEverybody = [](const Candidate&) { return true; };

ServerSlot least_connection(const SimulatedService& service) {
  return best_of(service, kEverybody, [&](ServerSlot one, ServerSlot best) {
    return overhead_of(service, one) < overhead_of(service, best);
  });
}

ServerSlot weighted_least_connection(const SimulatedService& service) {
  return best_of(service, kEverybody, [&](ServerSlot one, ServerSlot best) {
    return overhead_of(service, best) * weight_of(service, one) >
           overhead_of(service, one) * weight_of(service, best);
  });
}

ServerSlot shortest_expected_delay(const SimulatedService& service) {
  return best_of(service, kEverybody, [&](ServerSlot one, ServerSlot best) {
    return (std::int64_t{service.load(best).active} + 1) * weight_of(service, one) >
           (std::int64_t{service.load(one).active} + 1) * weight_of(service, best);
  });
}

ServerSlot never_queue(const SimulatedService& service) {
  for (const Candidate& candidate : service.candidates()) {
    if (candidate.weight <= 0 || service.overloaded(candidate.slot)) continue;
    if (service.load(candidate.slot).active == 0) return candidate.slot;
  }
  return shortest_expected_delay(service);
}

ServerSlot failover(const SimulatedService& service) {
  return best_of(service, kEverybody, [&](ServerSlot one, ServerSlot best) {
    return weight_of(service, one) > weight_of(service, best);
  });
}

ServerSlot overflow(const SimulatedService& service) {
  const auto has_room = [&](const Candidate& candidate) {
    return std::int64_t{service.load(candidate.slot).active} <= candidate.weight;
  };
  return best_of(service, has_room, [&](ServerSlot one, ServerSlot best) {
    return weight_of(service, one) > weight_of(service, best);
  });
}

std::uint32_t fold(const AddressBytes& address) {
  std::uint32_t words[4] = {};
  for (std::size_t i = 0; i < address.size(); ++i) {
    words[i / 4] |= std::uint32_t{address[i]} << (24 - i % 4 * 8);
  }
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}
std::uint32_t bucket_of_256(std::uint32_t value) { return value * 0x61C88647U >> 24; }

ServerSlot take_if_eligible(const SimulatedService& service, const Candidate& candidate) {
  return candidate.weight > 0 && !service.overloaded(candidate.slot) ? candidate.slot : 0;
}

ServerSlot destination_hash(const SimulatedService& service) {
  const auto& list = service.candidates();
  if (list.empty()) return 0;
  return take_if_eligible(service, list[bucket_of_256(fold(service.destination)) % list.size()]);
}

ServerSlot source_hash(const SimulatedService& service) {
  const auto& list = service.candidates();
  if (list.empty()) return 0;
  std::vector<const Candidate*> buckets;
  while (buckets.size() < 256) {
    for (const Candidate& candidate : list) {
      buckets.insert(buckets.end(), static_cast<std::size_t>(std::max(candidate.weight, 1)),
                     &candidate);
      if (buckets.size() >= 256) break;
    }
  }
  return take_if_eligible(service, *buckets[bucket_of_256(fold(service.client))]);
}

template <ServerSlot (*rule)(const SimulatedService&)>
class PlainStateless final : public PlainRule {
 public:
  ServerSlot pick(const SimulatedService& service) override { return rule(service); }
};

// ---- Locality ----

using Member = std::pair<ServerSlot, std::uint32_t>;  // slot, generation

const Candidate* find(const SimulatedService& service, const Member& member) {
  for (const Candidate& candidate : service.candidates()) {
    if (Member{candidate.slot, candidate.generation} == member) return &candidate;
  }
  return nullptr;
}

bool gives_way(const SimulatedService& service, const Candidate& candidate) {
  if (std::int64_t{service.load(candidate.slot).active} <= candidate.weight) return false;
  return std::ranges::any_of(service.candidates(), [&](const Candidate& other) {
    return std::int64_t{service.load(other.slot).active} * 2 < other.weight;
  });
}

class PlainLocality final : public PlainRule {
 public:
  ServerSlot pick(const SimulatedService& service) override {
    const auto cached = cache_.find(service.destination);
    if (cached != cache_.end()) {
      const Candidate* candidate = find(service, cached->second);
      if (candidate != nullptr && candidate->weight > 0 && !gives_way(service, *candidate)) {
        return candidate->slot;
      }
    }
    const ServerSlot best = weighted_least_connection(service);
    if (best != 0) {
      cache_[service.destination] = {best,
                                     service.candidates()[service.position_of(best)].generation};
    }
    return best;
  }

 private:
  std::map<AddressBytes, Member> cache_;
};

class PlainReplication final : public PlainRule {
 public:
  ServerSlot pick(const SimulatedService& service) override {
    std::list<Member>& set = cache_[service.destination];
    const Candidate* least = nullptr;
    for (const Member& member : set) {
      const Candidate* candidate = find(service, member);
      if (candidate == nullptr || candidate->weight <= 0 || service.overloaded(candidate->slot)) {
        continue;
      }
      if (least == nullptr || overhead_of(service, least->slot) * candidate->weight >
                                  overhead_of(service, candidate->slot) * least->weight) {
        least = candidate;
      }
    }
    if (least != nullptr && !gives_way(service, *least)) return least->slot;
    const ServerSlot best = weighted_least_connection(service);
    if (best == 0) return 0;
    const Member member{best, service.candidates()[service.position_of(best)].generation};
    if (std::ranges::count(set, member) == 0) set.push_front(member);
    return best;
  }

 private:
  std::map<AddressBytes, std::list<Member>> cache_;
};

template <class Rule>
std::unique_ptr<PlainRule> make() {
  return std::make_unique<Rule>();
}

}  // namespace

std::unique_ptr<PlainRule> make_plain_rule(std::string_view name) {
  static const std::map<std::string_view, std::unique_ptr<PlainRule> (*)()> kRules = {
      {"dh", make<PlainStateless<destination_hash>>},
      {"fo", make<PlainStateless<failover>>},
      {"lblc", make<PlainLocality>},
      {"lblcr", make<PlainReplication>},
      {"lc", make<PlainStateless<least_connection>>},
      {"nq", make<PlainStateless<never_queue>>},
      {"ovf", make<PlainStateless<overflow>>},
      {"rr", make<PlainRoundRobin>},
      {"sed", make<PlainStateless<shortest_expected_delay>>},
      {"sh", make<PlainStateless<source_hash>>},
      {"wlc", make<PlainStateless<weighted_least_connection>>},
      {"wrr", make<PlainWeightedRoundRobin>},
  };
  const auto found = kRules.find(name);
  return found == kRules.end() ? nullptr : found->second();
}

}  // namespace weir::test
