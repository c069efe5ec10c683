// SPDX-License-Identifier: Apache-2.0
// Marks for packets, by ordered rules of which the first that matches decides, as iptables' MARK
// does for fwmark services in IPVS. Immutable once built; replaced whole by control.
//
// Each field of a packet has its own sorted list of ranges, and each range the set of rules that
// allow it, as bits in the order of the rules. What all fields allow is the intersection; its first
// bit is the rule (Lakshman and Stiliadis, SIGCOMM 1998).
//
//   source address       [ .. 10.0.0.0 | 10.0.0.0/8 | .. ]  ->  0110..  1110..  0110..
//   destination address  ...
//
// Cost: a binary search per field and then 64 rules an AND: 1,000 rules take at most 16 of them.
// Without rules: one comparison. Memory: rules * ranges / 8 bytes per field.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/table/flow_key.h"

namespace weir {

// Host order, both included.
struct PortSpan {
  std::uint16_t first = 0;
  std::uint16_t last = 65535;
  bool is_all() const noexcept { return first == 0 && last == 65535; }
  friend bool operator==(const PortSpan&, const PortSpan&) noexcept = default;
};

struct MarkRule {
  std::optional<IpPrefix> from;
  std::optional<IpPrefix> to;  // of the family of `from`
  std::optional<Protocol> protocol;
  PortSpan source_ports;
  PortSpan ports;                        // of the destination
  std::optional<std::uint16_t> on_port;  // weir's port that received the packet
  std::uint32_t mark = 0;                // 0: the packet has none, whatever rules follow
  friend bool operator==(const MarkRule&, const MarkRule&) noexcept = default;

  // Whether packets of `family` can match.
  bool concerns(Family family) const noexcept {
    return (!from || from->address.family() == family) && (!to || to->address.family() == family);
  }
};

class MarkRules {
 public:
  static constexpr std::size_t kMax = 1024;

  MarkRules() = default;
  // At most kMax rules. Control thread.
  explicit MarkRules(std::span<const MarkRule> rules);

  bool empty() const noexcept { return ipv4_.empty() && ipv6_.empty(); }
  // The mark of a packet with ports, 0 if it has none. Any thread.
  template <class Address>
  std::uint32_t mark_of(const FlowKey<Address>& key, std::uint16_t port) const noexcept {
    const Classifier& rules = classifier<Address>();
    return rules.empty() ? 0 : mark_by(rules, key, port);
  }
  // Whether a fragment, whose ports are not known, may have one. Any thread.
  template <class Address>
  bool may_have_mark(const FlowKey<Address>& key, std::uint16_t port) const noexcept {
    const Classifier& rules = classifier<Address>();
    return !rules.empty() && may_mark(rules, key, port);
  }

 private:
  using Word = std::uint64_t;
  static constexpr std::size_t kWordBits = 64;

  // An address as a number that is ordered like its bytes.
  struct Wide {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    friend auto operator<=>(const Wide&, const Wide&) noexcept = default;
  };
  static Wide number_of(const Ipv4Address& address) noexcept { return {0, address.value.host()}; }
  static Wide number_of(const Ipv6Address& address) noexcept;

  // One field: the ranges of its values, and the rules that allow each range.
  template <class Number>
  class Field {
   public:
    struct Range {
      Number first{};
      Number last{};
    };
    // `ranges` by rule. `above(n)` is the number after n.
    template <class Above>
    void build(std::span<const Range> ranges, std::size_t words, Number top, Above&& above);
    // The rules that allow `number`.
    const Word* rules_of(const Number& number) const noexcept;

   private:
    std::vector<Number> starts_;  // of the ranges; the first one is 0
    std::vector<Word> bits_;      // words_ for each
    std::size_t words_ = 0;
  };

  // The rules that concern one family.
  struct Classifier {
    Field<Wide> source;
    Field<Wide> destination;
    Field<std::uint16_t> source_port;
    Field<std::uint16_t> destination_port;
    Field<std::uint16_t> protocol;
    Field<std::uint16_t> received_on;
    std::vector<std::uint32_t> marks;  // by rule

    bool empty() const noexcept { return marks.empty(); }
    std::size_t words() const noexcept { return (marks.size() + kWordBits - 1) / kWordBits; }
    void build(std::span<const MarkRule> rules);
  };
  template <class Address>
  const Classifier& classifier() const noexcept {
    if constexpr (sizeof(Address) == sizeof(Ipv4Address)) {
      return ipv4_;
    } else {
      return ipv6_;
    }
  }

  template <class Address>
  static std::uint32_t mark_by(const Classifier& rules, const FlowKey<Address>& key,
                               std::uint16_t port) noexcept;
  template <class Address>
  static bool may_mark(const Classifier& rules, const FlowKey<Address>& key,
                       std::uint16_t port) noexcept;

  Classifier ipv4_;
  Classifier ipv6_;
};

}  // namespace weir
