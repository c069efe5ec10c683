// SPDX-License-Identifier: Apache-2.0
// Rules for marks against a walk over the rules, one by one.
#include "dataplane/table/mark_rules.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/random.h"

namespace weir {
namespace {

IpAddress ip(const char* text) { return *IpAddress::parse(text); }
IpPrefix prefix(const char* text, std::uint8_t length) { return {ip(text), length}; }

// A packet before it has a family's key.
struct Sample {
  IpAddress source;
  IpAddress destination;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  Protocol protocol = Protocol::tcp;
  std::uint16_t received_on = 0;
};

template <class Address>
FlowKey<Address> key_of(const Sample& sample) {
  return {address_of<Address>(sample.source),
          address_of<Address>(sample.destination),
          Be16::from_host(sample.source_port),
          Be16::from_host(sample.destination_port),
          sample.protocol,
          Direction::inbound};
}

std::uint32_t mark_of(const MarkRules& rules, const Sample& s) {
  return s.source.is_ipv4() ? rules.mark_of(key_of<Ipv4Address>(s), s.received_on)
                            : rules.mark_of(key_of<Ipv6Address>(s), s.received_on);
}

bool may_have_mark(const MarkRules& rules, const Sample& s) {
  return s.source.is_ipv4() ? rules.may_have_mark(key_of<Ipv4Address>(s), s.received_on)
                            : rules.may_have_mark(key_of<Ipv6Address>(s), s.received_on);
}

bool within(const PortSpan& range, std::uint16_t port) {
  return port >= range.first && port <= range.last;
}

bool matches_without_ports(const MarkRule& rule, const Sample& s) {
  return (!rule.from || rule.from->contains(s.source)) &&
         (!rule.to || rule.to->contains(s.destination)) &&
         (!rule.protocol || *rule.protocol == s.protocol) &&
         (!rule.on_port || *rule.on_port == s.received_on);
}

bool matches(const MarkRule& rule, const Sample& s) {
  return matches_without_ports(rule, s) && within(rule.source_ports, s.source_port) &&
         within(rule.ports, s.destination_port);
}

std::uint32_t expected_mark(const std::vector<MarkRule>& rules, const Sample& s) {
  for (const MarkRule& rule : rules) {
    if (matches(rule, s)) return rule.mark;
  }
  return 0;
}

// Few enough values that samples meet the edges of rules often.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::vector<MarkRule> rules(std::size_t count) {
    std::vector<MarkRule> list;
    while (list.size() < count) list.push_back(rule());
    return list;
  }
  Sample sample() {
    const Family family = one_of(2) == 0 ? Family::ipv4 : Family::ipv6;
    return {address(family), address(family), port(), port(), protocol(), received_on()};
  }

 private:
  std::uint32_t one_of(std::uint32_t count) {
    return static_cast<std::uint32_t>(random_() % count);
  }
  std::uint16_t port() {
    static constexpr std::uint16_t kPorts[] = {0, 1, 79, 80, 81, 1023, 1024, 8080, 65534, 65535};
    return kPorts[one_of(10)];
  }
  Protocol protocol() {
    static constexpr Protocol kProtocols[] = {Protocol::tcp, Protocol::udp, Protocol::sctp};
    return kProtocols[one_of(3)];
  }
  std::uint16_t received_on() { return static_cast<std::uint16_t>(one_of(3)); }
  IpAddress address(Family family) {
    static constexpr std::uint8_t kBytes[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
    Ipv6Address bytes;
    for (std::size_t i = 0; i < bytes.bytes.size(); ++i) {
      bytes.bytes[i] = i == 0 || i == 3 || i == 7 || i == 8 || i == 15 ? kBytes[one_of(6)] : 0;
    }
    if (family == Family::ipv6) return bytes;
    return load<Ipv4Address>(bytes.bytes.data());
  }
  IpPrefix block(Family family) {
    const IpAddress inside = address(family);
    const auto length = one_of(static_cast<std::uint32_t>(inside.bit_width()) + 1);
    return {inside.masked(static_cast<int>(length)), static_cast<std::uint8_t>(length)};
  }
  PortSpan range() {
    if (one_of(2) == 0) return {};
    const std::uint16_t a = port();
    const std::uint16_t b = port();
    return a < b ? PortSpan{a, b} : PortSpan{b, a};
  }
  MarkRule rule() {
    MarkRule rule;
    const Family family = one_of(2) == 0 ? Family::ipv4 : Family::ipv6;
    if (one_of(3) != 0) rule.from = block(family);
    if (one_of(3) != 0) rule.to = block(family);
    if (one_of(2) == 0) rule.protocol = protocol();
    rule.source_ports = range();
    rule.ports = range();
    if (one_of(4) == 0) rule.on_port = received_on();
    rule.mark = one_of(5);
    return rule;
  }

  test::Random random_;
};

TEST(MarkRules, without_rules_nothing_is_marked) {
  const MarkRules none;
  EXPECT_TRUE(none.empty());
  EXPECT_TRUE(MarkRules(std::vector<MarkRule>{}).empty());
  Generator generator(1);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(mark_of(none, generator.sample()), 0U);
}

TEST(MarkRules, the_first_rule_that_matches_decides) {
  Generator generator(2);
  std::size_t marked = 0;
  for (const std::size_t count : {1U, 2U, 5U, 63U, 64U, 65U, 200U, 1024U}) {
    for (int round = 0; round < (count < 100 ? 20 : 3); ++round) {
      const std::vector<MarkRule> list = generator.rules(count);
      const MarkRules rules(list);
      for (int i = 0; i < 2000; ++i) {
        const Sample sample = generator.sample();
        const std::uint32_t expected = expected_mark(list, sample);
        ASSERT_EQ(mark_of(rules, sample), expected)
            << count << " rules: " << sample.source.to_string() << " "
            << sample.destination.to_string();
        if (expected != 0) ++marked;
      }
    }
  }
  EXPECT_GT(marked, 10000U) << "the samples hit hardly any rule";
}

TEST(MarkRules, a_fragment_may_have_the_mark_of_any_rule_but_for_its_ports) {
  Generator generator(3);
  for (std::size_t round = 0; round < 50; ++round) {
    const std::vector<MarkRule> list = generator.rules(1 + round % 8);
    const MarkRules rules(list);
    for (int i = 0; i < 500; ++i) {
      const Sample sample = generator.sample();
      bool expected = false;
      for (const MarkRule& rule : list) {
        expected = expected || (rule.mark != 0 && matches_without_ports(rule, sample));
      }
      ASSERT_EQ(may_have_mark(rules, sample), expected);
    }
  }
}

TEST(MarkRules, a_rule_without_prefixes_is_for_both_families) {
  const MarkRules rules(std::vector<MarkRule>{{.protocol = Protocol::tcp, .mark = 5}});
  EXPECT_EQ(mark_of(rules, {ip("10.0.0.1"), ip("10.0.0.2"), 1, 2}), 5U);
  EXPECT_EQ(mark_of(rules, {ip("2001:db8::1"), ip("2001:db8::2"), 1, 2}), 5U);
  EXPECT_EQ(mark_of(rules, {ip("10.0.0.1"), ip("10.0.0.2"), 1, 2, Protocol::udp}), 0U);
}

TEST(MarkRules, the_whole_address_space_has_no_edges) {
  const MarkRules rules(std::vector<MarkRule>{
      {.from = prefix("::", 0),
       .to = prefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128),
       .mark = 1},
      {.from = prefix("0.0.0.0", 0), .to = prefix("255.255.255.255", 32), .mark = 2}});
  const IpAddress highest = ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
  EXPECT_EQ(mark_of(rules, {highest, highest}), 1U);
  EXPECT_EQ(mark_of(rules, {highest, ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe")}), 0U);
  EXPECT_EQ(mark_of(rules, {ip("255.255.255.255"), ip("255.255.255.255")}), 2U);
  EXPECT_EQ(mark_of(rules, {ip("0.0.0.0"), ip("255.255.255.254")}), 0U);
}

}  // namespace
}  // namespace weir
