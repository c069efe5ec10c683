// SPDX-License-Identifier: Apache-2.0
#include "dataplane/table/mark_rules.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace weir {
namespace {

constexpr std::uint16_t kTopPort = std::numeric_limits<std::uint16_t>::max();
constexpr std::uint64_t kTopWord = std::numeric_limits<std::uint64_t>::max();

}  // namespace

MarkRules::Wide MarkRules::number_of(const Ipv6Address& address) noexcept {
  const auto word = [&](std::size_t at) {
    return std::uint64_t{load<Be32>(&address.bytes[at]).host()} << 32 |
           load<Be32>(&address.bytes[at + 4]).host();
  };
  return {word(0), word(8)};
}

// A rule's bit is turned at the first number of its range and again after the last one.
template <class Number>
template <class Above>
void MarkRules::Field<Number>::build(std::span<const Range> ranges, std::size_t words, Number top,
                                     Above&& above) {
  words_ = words;
  starts_ = {Number{}};
  for (const Range& range : ranges) {
    starts_.push_back(range.first);
    if (range.last != top) starts_.push_back(above(range.last));
  }
  std::sort(starts_.begin(), starts_.end());
  starts_.erase(std::unique(starts_.begin(), starts_.end()), starts_.end());
  bits_.assign(starts_.size() * words, 0);
  const auto turn = [&](const Number& at, std::size_t rule) {
    const auto found = std::lower_bound(starts_.begin(), starts_.end(), at);
    const auto row = static_cast<std::size_t>(found - starts_.begin());
    bits_[row * words + rule / kWordBits] ^= Word{1} << rule % kWordBits;
  };
  for (std::size_t rule = 0; rule < ranges.size(); ++rule) {
    turn(ranges[rule].first, rule);
    if (ranges[rule].last != top) turn(above(ranges[rule].last), rule);
  }
  for (std::size_t i = words; i < bits_.size(); ++i) bits_[i] ^= bits_[i - words];
}

template <class Number>
const MarkRules::Word* MarkRules::Field<Number>::rules_of(const Number& number) const noexcept {
  const auto after = std::upper_bound(starts_.begin(), starts_.end(), number);
  return &bits_[static_cast<std::size_t>(after - starts_.begin() - 1) * words_];
}

void MarkRules::Classifier::build(std::span<const MarkRule> rules) {
  using WideRange = Field<Wide>::Range;
  using ShortRange = Field<std::uint16_t>::Range;
  constexpr Wide kTop{kTopWord, kTopWord};
  std::vector<WideRange> from, to;
  std::vector<ShortRange> source_ports, ports, protocols, on_ports;
  const auto addresses = [&](const std::optional<IpPrefix>& prefix) -> WideRange {
    if (!prefix) return {{}, kTop};
    const IpAddress last = prefix->last();
    if (last.is_ipv4()) return {number_of(prefix->address.ipv4()), number_of(last.ipv4())};
    return {number_of(prefix->address.ipv6()), number_of(last.ipv6())};
  };
  const auto one_or_all = [](bool one, std::uint16_t value) -> ShortRange {
    return one ? ShortRange{value, value} : ShortRange{0, kTopPort};
  };
  for (const MarkRule& rule : rules) {
    from.push_back(addresses(rule.from));
    to.push_back(addresses(rule.to));
    source_ports.push_back({rule.source_ports.first, rule.source_ports.last});
    ports.push_back({rule.ports.first, rule.ports.last});
    protocols.push_back(one_or_all(rule.protocol.has_value(),
                                   static_cast<std::uint16_t>(rule.protocol.value_or(Protocol{}))));
    on_ports.push_back(one_or_all(rule.on_port.has_value(), rule.on_port.value_or(0)));
    marks.push_back(rule.mark);
  }
  const auto above_wide = [](const Wide& n) {
    return Wide{n.high + (n.low == kTopWord ? 1U : 0U), n.low + 1};
  };
  const auto above_short = [](std::uint16_t n) { return static_cast<std::uint16_t>(n + 1); };
  source.build(from, words(), kTop, above_wide);
  destination.build(to, words(), kTop, above_wide);
  source_port.build(source_ports, words(), kTopPort, above_short);
  destination_port.build(ports, words(), kTopPort, above_short);
  protocol.build(protocols, words(), kTopPort, above_short);
  received_on.build(on_ports, words(), kTopPort, above_short);
}

MarkRules::MarkRules(std::span<const MarkRule> rules) {
  for (const Family family : {Family::ipv4, Family::ipv6}) {
    std::vector<MarkRule> concerned;
    std::copy_if(rules.begin(), rules.end(), std::back_inserter(concerned),
                 [family](const MarkRule& rule) { return rule.concerns(family); });
    if (!concerned.empty()) (family == Family::ipv4 ? ipv4_ : ipv6_).build(concerned);
  }
}

template <class Address>
std::uint32_t MarkRules::mark_by(const Classifier& rules, const FlowKey<Address>& key,
                                 std::uint16_t port) noexcept {
  const Word* const source = rules.source.rules_of(number_of(key.source));
  const Word* const destination = rules.destination.rules_of(number_of(key.destination));
  const Word* const source_port = rules.source_port.rules_of(key.source_port.host());
  const Word* const destination_port = rules.destination_port.rules_of(key.destination_port.host());
  const Word* const protocol = rules.protocol.rules_of(static_cast<std::uint16_t>(key.protocol));
  const Word* const received_on = rules.received_on.rules_of(port);
  for (std::size_t i = 0; i < rules.words(); ++i) {
    const Word all = source[i] & destination[i] & source_port[i] & destination_port[i] &
                     protocol[i] & received_on[i];
    if (all != 0) return rules.marks[i * kWordBits + static_cast<unsigned>(std::countr_zero(all))];
  }
  return 0;
}

template <class Address>
bool MarkRules::may_mark(const Classifier& rules, const FlowKey<Address>& key,
                         std::uint16_t port) noexcept {
  const Word* const source = rules.source.rules_of(number_of(key.source));
  const Word* const destination = rules.destination.rules_of(number_of(key.destination));
  const Word* const protocol = rules.protocol.rules_of(static_cast<std::uint16_t>(key.protocol));
  const Word* const received_on = rules.received_on.rules_of(port);
  for (std::size_t i = 0; i < rules.words(); ++i) {
    Word all = source[i] & destination[i] & protocol[i] & received_on[i];
    for (; all != 0; all &= all - 1) {
      if (rules.marks[i * kWordBits + static_cast<unsigned>(std::countr_zero(all))] != 0) {
        return true;
      }
    }
  }
  return false;
}

template std::uint32_t MarkRules::mark_by(const Classifier&, const FlowKey<Ipv4Address>&,
                                          std::uint16_t) noexcept;
template std::uint32_t MarkRules::mark_by(const Classifier&, const FlowKey<Ipv6Address>&,
                                          std::uint16_t) noexcept;
template bool MarkRules::may_mark(const Classifier&, const FlowKey<Ipv4Address>&,
                                  std::uint16_t) noexcept;
template bool MarkRules::may_mark(const Classifier&, const FlowKey<Ipv6Address>&,
                                  std::uint16_t) noexcept;

}  // namespace weir
