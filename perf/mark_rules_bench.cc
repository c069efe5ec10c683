// SPDX-License-Identifier: Apache-2.0
// The mark of a packet by so many rules, against a walk over them, in the same run.
#include <benchmark/benchmark.h>

#include <vector>

#include "dataplane/table/mark_rules.h"
#include "tests/support/random.h"

namespace weir {
namespace {

using Key = FlowKey<Ipv4Address>;

Ipv4Address address(std::uint32_t value) { return {Be32::from_host(value)}; }

// A service an address and port, a tenth of them for some clients only.
std::vector<MarkRule> make_rules(std::size_t count) {
  std::vector<MarkRule> rules;
  for (std::uint32_t i = 0; i < count; ++i) {
    MarkRule rule;
    rule.to = IpPrefix{address(0xcb007100U + i / 4), 32};
    rule.protocol = Protocol::tcp;
    rule.ports = {static_cast<std::uint16_t>(80 + i % 4), static_cast<std::uint16_t>(80 + i % 4)};
    if (i % 10 == 0) rule.from = IpPrefix{address((10U << 24) + (i << 12)), 20};
    rule.mark = i + 1;
    rules.push_back(rule);
  }
  return rules;
}

// Half of the packets match no rule.
std::vector<Key> make_keys(std::size_t rules) {
  test::Random random(7);
  std::vector<Key> keys(4096);
  for (Key& key : keys) {
    const auto target = static_cast<std::uint32_t>(random() % (rules / 2 + 1));
    key = {address(random()),      address(0xcb007100U + target),
           Be16::from_host(40000), Be16::from_host(static_cast<std::uint16_t>(80 + random() % 4)),
           Protocol::tcp,          Direction::inbound};
  }
  return keys;
}

std::uint32_t walk(const std::vector<MarkRule>& rules, const Key& key) {
  for (const MarkRule& rule : rules) {
    const std::uint16_t port = key.destination_port.host();
    if (rule.to && !rule.to->contains(key.destination)) continue;
    if (port < rule.ports.first || port > rule.ports.last) continue;
    if (rule.protocol && *rule.protocol != key.protocol) continue;
    if (rule.from && !rule.from->contains(key.source)) continue;
    return rule.mark;
  }
  return 0;
}

void BM_MarkOf(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const MarkRules rules(make_rules(count));
  const std::vector<Key> keys = make_keys(count);
  std::size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(rules.mark_of(keys[i++ % keys.size()], 0));
}
BENCHMARK(BM_MarkOf)->Arg(0)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void BM_WalkOverRules(benchmark::State& state) {
  const auto count = static_cast<std::size_t>(state.range(0));
  const std::vector<MarkRule> rules = make_rules(count);
  const std::vector<Key> keys = make_keys(count);
  std::size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(walk(rules, keys[i++ % keys.size()]));
}
BENCHMARK(BM_WalkOverRules)->Arg(1)->Arg(10)->Arg(100)->Arg(1000);

void BM_BuildRules(benchmark::State& state) {
  const std::vector<MarkRule> list = make_rules(static_cast<std::size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(MarkRules(list));
}
BENCHMARK(BM_BuildRules)->Arg(1000)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace weir

BENCHMARK_MAIN();
