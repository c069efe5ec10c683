// SPDX-License-Identifier: Apache-2.0
// The connection table against plain maps: keys, capacity, the timing wheel, reading beside
// writing.
#include "dataplane/table/connection_table.h"

#include <absl/container/flat_hash_map.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/support/random.h"

namespace weir {
namespace {

constexpr unsigned kUnlimited = ~0U;
constexpr std::uint32_t kDay = 24 * 3600 * kTicksPerSecond;

template <class Address>
Address address_from(std::uint64_t value) {
  Address address{};
  std::uint8_t bytes[16] = {0x20, 0x01, 0x0d, 0xb8};
  std::memcpy(bytes + 8, &value, sizeof value);
  std::memcpy(&address, sizeof address == 4 ? bytes + 8 : bytes, sizeof address);
  return address;
}

// A table with memory of its own.
template <class Address>
class OwnedTable {
 public:
  using Table = ConnectionTable<Address>;

  OwnedTable(std::uint32_t capacity, std::uint32_t now)
      : memory_(allocate(Table::bytes_for(capacity))),
        table_(memory_.get(), capacity, {0x243f6a8885a308d3ULL, 0x13198a2e03707344ULL}, now) {}
  Table& operator*() { return table_; }
  Table* operator->() { return &table_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  static std::byte* allocate(std::size_t bytes) {
    const std::size_t rounded = (bytes + 63) / 64 * 64;
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(64, rounded));
    std::memset(memory, 0, rounded);
    return memory;
  }

  std::unique_ptr<std::byte, Free> memory_;
  Table table_;
};

enum class Indexed { inbound_only, both_ways };

// The `number`-th of a set of connections whose keys all differ, but by little.
template <class Address>
Connection<Address> connection(std::uint32_t number, Indexed indexed, std::uint32_t deadline = 0) {
  Connection<Address> record{};
  record.client = address_from<Address>(0x0a000000U + number / 50000);
  record.virtual_address = address_from<Address>(0xc0000201U);
  record.server = address_from<Address>(0x0a020001U + number % 3);
  record.client_port = Be16::from_host(static_cast<std::uint16_t>(1024 + number % 50000));
  record.virtual_port = Be16::from_host(80);
  record.server_port = Be16::from_host(8080);
  record.protocol = number % 2 == 0 ? Protocol::tcp : Protocol::udp;
  if (indexed == Indexed::both_ways) record.flags = kReplyIndexed;
  record.deadline = deadline;
  record.server_slot = number;
  return record;
}

template <class Address>
FlowKey<Address> inbound_key(const Connection<Address>& record) {
  return {record.client,       record.virtual_address, record.client_port,
          record.virtual_port, record.protocol,        Direction::inbound};
}

template <class Address>
std::string bytes_of(const FlowKey<Address>& key) {
  std::string bytes(2 * sizeof(Address) + 6, '\0');
  std::memcpy(bytes.data(), &key.source, sizeof(Address));
  std::memcpy(bytes.data() + sizeof(Address), &key.destination, sizeof(Address));
  const std::uint16_t ports[] = {key.source_port.raw(), key.destination_port.raw()};
  std::memcpy(bytes.data() + 2 * sizeof(Address), ports, sizeof ports);
  bytes[2 * sizeof(Address) + 4] = static_cast<char>(key.protocol);
  bytes[2 * sizeof(Address) + 5] = static_cast<char>(key.direction);
  return bytes;
}

template <class Address>
class ConnectionTableTest : public testing::Test {};
using Families = testing::Types<Ipv4Address, Ipv6Address>;
class FamilyNames {
 public:
  template <class Address>
  static std::string GetName(int) {
    return sizeof(Address) == 4 ? "ipv4" : "ipv6";
  }
};
TYPED_TEST_SUITE(ConnectionTableTest, Families, FamilyNames);

// ---- Against a model ----

// What a table must do, with std::map and absl::flat_hash_map. Every operation checks the table.
template <class Address>
class Model {
 public:
  using Record = Connection<Address>;
  using Key = FlowKey<Address>;

  Model(std::uint32_t capacity, std::uint32_t now, std::uint32_t seed)
      : table_(capacity, now), now_(now), random_(seed) {}

  void open_one() {
    const Record record = random_record();
    if (find_in_model(inbound_key(record)) != kNoConnection) return;
    if (record.has(kReplyIndexed) && find_in_model(table_->reply_key(record)) != kNoConnection) {
      return;
    }
    const auto index = table_->open(record);
    ASSERT_EQ(index.has_value(), live_.size() < table_->capacity());
    if (!index) return;
    ASSERT_TRUE(live_.emplace(*index, record).second) << "the place was taken";
    by_key_[bytes_of(inbound_key(record))] = *index;
    if (record.has(kReplyIndexed)) by_key_[bytes_of(table_->reply_key(record))] = *index;
    ASSERT_EQ(table_->size(), live_.size());
  }

  void close_one() {
    if (live_.empty()) return;
    const std::uint32_t index = random_live();
    table_->close(index);
    forget(index);
    ASSERT_EQ(table_->size(), live_.size());
    ASSERT_FALSE(table_->read(index));
  }

  // Connections come and go between the steps of the look-ups, as they do within a burst.
  void find_burst() {
    std::vector<Key> keys(1 + random_() % 64);
    std::vector<Lookup> lookups;
    for (Key& key : keys) {
      key = random_key();
      lookups.push_back(table_->start(key));
    }
    change_one();
    for (Lookup& lookup : lookups) table_->fetch(lookup);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (random_() % 8 == 0) change_one();
      ASSERT_EQ(table_->find(lookups[i], keys[i]), find_in_model(keys[i]));
      ASSERT_EQ(table_->find_one(keys[i]), find_in_model(keys[i]));
    }
  }

  void change_one() {
    if (random_() % 2 == 0) {
      open_one();
    } else {
      close_one();
    }
  }

  void move_deadline() {
    if (live_.empty()) return;
    const std::uint32_t index = random_live();
    live_[index].deadline = now_ + 1 + random_timeout();
    table_->set_deadline(index, live_[index].deadline);
  }

  void pass_time(unsigned budget) {
    now_ += random_() % 4 == 0 ? random_() % 3000 : random_() % 3;
    table_->advance(now_, budget, [&](std::uint32_t index) { expire(index); });
    if (budget != kUnlimited) return;
    for (const auto& [index, record] : live_) {
      ASSERT_GT(static_cast<std::int32_t>(record.deadline - now_), 0) << "was not expired";
    }
  }

  void check_records() {
    for (const auto& [index, record] : live_) {
      const auto copy = table_->read(index);
      ASSERT_TRUE(copy);
      ASSERT_EQ(copy->deadline, record.deadline);
      ASSERT_EQ(copy->server_slot, record.server_slot);
      ASSERT_EQ(bytes_of(inbound_key(*copy)), bytes_of(inbound_key(record)));
      ASSERT_LT(index, table_->high_water());
    }
  }

 private:
  static constexpr std::uint32_t kNumbers = 3000;  // of which at most `capacity` are open

  Record random_record() {
    const auto indexed = random_() % 3 == 0 ? Indexed::inbound_only : Indexed::both_ways;
    Record record = connection<Address>(random_() % kNumbers, indexed, now_ + 1 + random_timeout());
    if (random_() % 8 != 0) return record;
    record.flags |= static_cast<std::uint16_t>(ForwardMode::fullnat);
    record.local = address_from<Address>(0x0a020064U + random_() % 4);
    record.local_port = Be16::from_host(static_cast<std::uint16_t>(random_() % 1000));
    return record;
  }

  Key random_key() {
    Record record = random_record();
    if (!live_.empty() && random_() % 2 == 0) record = live_[random_live()];
    Key key = random_() % 2 == 0 ? inbound_key(record) : table_->reply_key(record);
    if (random_() % 16 == 0) key.direction = Direction::inbound;
    return key;
  }

  std::uint32_t random_timeout() { return random_() % (1U << (random_() % 20)); }

  std::uint32_t random_live() {
    const auto at = live_.lower_bound(random_() % table_->capacity());
    return at == live_.end() ? live_.begin()->first : at->first;
  }

  std::uint32_t find_in_model(const Key& key) const {
    const auto found = by_key_.find(bytes_of(key));
    return found == by_key_.end() ? kNoConnection : found->second;
  }

  void expire(std::uint32_t index) {
    ASSERT_TRUE(live_.contains(index));
    ASSERT_LE(static_cast<std::int32_t>(live_[index].deadline - now_), 0) << "expired too early";
    if (random_() % 2 == 0) {
      live_[index].deadline = now_ + 1 + random_timeout();
      table_->set_deadline(index, live_[index].deadline);
    } else {
      table_->close(index);
      forget(index);
    }
  }

  void forget(std::uint32_t index) {
    const Record& record = live_[index];
    by_key_.erase(bytes_of(inbound_key(record)));
    if (record.has(kReplyIndexed)) by_key_.erase(bytes_of(table_->reply_key(record)));
    live_.erase(index);
  }

  OwnedTable<Address> table_;
  std::uint32_t now_;
  test::Random random_;
  std::map<std::uint32_t, Record> live_;
  absl::flat_hash_map<std::string, std::uint32_t> by_key_;
};

template <class Address>
void play(Model<Address>& model, std::uint32_t seed) {
  constexpr int kSteps = 30000;
  test::Random random(seed);
  for (int step = 0; step < kSteps && !testing::Test::HasFatalFailure(); ++step) {
    const unsigned dice = random() % 100;
    if (dice < 45) {
      model.open_one();
    } else if (dice < 60) {
      model.close_one();
    } else if (dice < 75) {
      model.find_burst();
    } else if (dice < 95) {
      model.move_deadline();
    } else {
      model.pass_time(dice < 98 ? kUnlimited : random() % 20);
    }
    if (step % 1000 == 0) model.check_records();
  }
}

TYPED_TEST(ConnectionTableTest, random_operations_agree_with_maps) {
  // The third start lets the clock wrap on the way.
  for (const std::uint32_t start : {0U, 123456789U, 0xffffff00U}) {
    for (const std::uint32_t capacity : {1U, 7U, 500U}) {
      Model<TypeParam> model(capacity, start, capacity);
      ASSERT_NO_FATAL_FAILURE(play(model, start + capacity)) << capacity << " from " << start;
    }
  }
}

// ---- Capacity ----

template <class Address>
void expect_found(OwnedTable<Address>& table, std::uint32_t number, std::uint32_t index) {
  const auto record = connection<Address>(number, Indexed::both_ways);
  ASSERT_EQ(table->find_one(inbound_key(record)), index);
  ASSERT_EQ(table->find_one(table->reply_key(record)), index);
}

// Fills a table with connections of both keys, empties it and fills it again with others.
template <class Address>
void fill_twice(std::uint32_t capacity) {
  OwnedTable<Address> table(capacity, 0);
  for (std::uint32_t round = 0; round < 2; ++round) {
    std::vector<std::uint32_t> indices(capacity);
    for (std::uint32_t i = 0; i < capacity; ++i) {
      const auto index = table->open(connection<Address>(round * capacity + i, Indexed::both_ways));
      ASSERT_TRUE(index) << "full at " << i << " of " << capacity;
      indices[i] = *index;
    }
    ASSERT_EQ(table->size(), capacity);
    ASSERT_FALSE(table->open(connection<Address>(2 * capacity, Indexed::both_ways)));
    for (std::uint32_t i = 0; i < capacity; ++i) {
      ASSERT_NO_FATAL_FAILURE(expect_found(table, round * capacity + i, indices[i]));
    }
    for (const std::uint32_t index : indices) table->close(index);
    ASSERT_EQ(table->size(), 0U);
  }
}

TYPED_TEST(ConnectionTableTest, every_connection_finds_room_whatever_the_capacity) {
  for (std::uint32_t capacity = 1; capacity <= 150; ++capacity) {
    ASSERT_NO_FATAL_FAILURE(fill_twice<TypeParam>(capacity));
  }
  for (const std::uint32_t capacity : {1000U, 4096U, 100000U}) {
    ASSERT_NO_FATAL_FAILURE(fill_twice<TypeParam>(capacity));
  }
}

TEST(ConnectionTable, a_million_connections_with_both_keys_find_room) {
  ASSERT_NO_FATAL_FAILURE(fill_twice<Ipv4Address>(1'000'000));
}

// Keys come and go in a full table: every move, and every count of displaced keys, is undone right.
TYPED_TEST(ConnectionTableTest, churn_in_a_full_table_loses_no_key) {
  constexpr std::uint32_t kCapacity = 300;
  constexpr std::uint32_t kChanges = 300'000;
  OwnedTable<TypeParam> table(kCapacity, 0);
  std::vector<std::uint32_t> number_of(kCapacity);
  for (std::uint32_t i = 0; i < kCapacity; ++i) {
    number_of[*table->open(connection<TypeParam>(i, Indexed::both_ways))] = i;
  }
  test::Random random(1);
  for (std::uint32_t next = kCapacity; next < kCapacity + kChanges; ++next) {
    const std::uint32_t victim = random() % kCapacity;
    table->close(victim);
    ASSERT_EQ(
        table->find_one(inbound_key(connection<TypeParam>(number_of[victim], Indexed::both_ways))),
        kNoConnection);
    const auto index = table->open(connection<TypeParam>(next, Indexed::both_ways));
    ASSERT_EQ(index, victim) << "at change " << next;
    number_of[victim] = next;
    const std::uint32_t other = random() % kCapacity;
    ASSERT_NO_FATAL_FAILURE(expect_found(table, number_of[other], other));
  }
}

// The tags alone would confuse one such pair in half a million: it takes the whole key.
// More of one client port than a bucket can count among those that live elsewhere.
TEST(ConnectionTable, one_client_port_has_any_number_of_connections) {
  constexpr std::uint32_t kCount = 70'000;
  OwnedTable<Ipv4Address> table(1U << 18, 0);
  const auto record = [](std::uint32_t number) {
    auto made = connection<Ipv4Address>(0, Indexed::inbound_only, kDay);
    made.virtual_address = address_from<Ipv4Address>(0xc0000000U + number);
    return made;
  };
  // A few find their places taken.
  std::vector<std::pair<std::uint32_t, std::uint32_t>> opened;
  const auto is_found = [&](std::size_t which) {
    const auto& [number, index] = opened[which];
    return table->find_one(inbound_key(record(number))) == index;
  };
  for (std::uint32_t number = 0; number < kCount; ++number) {
    if (const auto index = table->open(record(number))) opened.emplace_back(number, *index);
    ASSERT_TRUE(is_found(opened.size() - 1)) << number;
    ASSERT_TRUE(is_found(opened.size() / 2)) << number;
  }
  EXPECT_GT(opened.size(), kCount - 100);
  for (std::size_t which = 0; which + 1 < opened.size(); ++which) {
    table->close(opened[which].second);
    ASSERT_TRUE(is_found(which + 1)) << which;
  }
}

TEST(ConnectionTable, keys_that_differ_in_protocol_or_direction_alone_are_told_apart) {
  OwnedTable<Ipv4Address> table(1, 0);
  for (std::uint32_t number = 0; number < 3'000'000; ++number) {
    // Both ends alike, so that replies would have the same addresses and ports.
    auto record = connection<Ipv4Address>(number, Indexed::inbound_only);
    record.virtual_address = record.server = record.client;
    record.virtual_port = record.server_port = record.client_port;
    const auto index = table->open(record);
    FlowKey<Ipv4Address> key = inbound_key(record);
    key.direction = Direction::reply;
    ASSERT_EQ(table->find_one(key), kNoConnection) << number;
    key.direction = Direction::inbound;
    key.protocol = record.protocol == Protocol::tcp ? Protocol::udp : Protocol::tcp;
    ASSERT_EQ(table->find_one(key), kNoConnection) << number;
    table->close(*index);
  }
}

TEST(ConnectionTable, an_ipv4_connection_costs_at_most_96_bytes_in_all) {
  for (const std::uint32_t capacity : {1000U, 1'000'000U, 100'000'000U}) {
    EXPECT_LE(ConnectionTable<Ipv4Address>::bytes_for(capacity), capacity * std::size_t{96});
  }
}

// ---- Expiry ----

// Advances to each deadline in turn: not expired one tick before, expired then.
void expect_expiry_on_the_tick(std::uint32_t start, const std::vector<std::uint32_t>& timeouts) {
  OwnedTable<Ipv4Address> table(static_cast<std::uint32_t>(timeouts.size()), start);
  std::map<std::uint32_t, unsigned> due;  // timeout -> how many
  for (std::uint32_t i = 0; i < timeouts.size(); ++i) {
    ASSERT_TRUE(
        table->open(connection<Ipv4Address>(i, Indexed::inbound_only, start + timeouts[i])));
    ++due[timeouts[i]];
  }
  unsigned expired = 0;
  const auto close = [&](std::uint32_t index) {
    table->close(index);
    ++expired;
  };
  unsigned expected = 0;
  for (const auto& [timeout, count] : due) {
    table->advance(start + timeout - 1, kUnlimited, close);
    ASSERT_EQ(expired, expected) << "early, timeout " << timeout;
    table->advance(start + timeout, kUnlimited, close);
    expected += count;
    ASSERT_EQ(expired, expected) << "late, timeout " << timeout;
  }
}

TEST(ConnectionTableExpiry, comes_on_the_tick_for_timeouts_around_the_edges_of_the_wheel) {
  std::vector<std::uint32_t> timeouts;
  for (const std::uint32_t edge : {1U, 64U, 256U, 512U, 65536U, 131072U}) {
    for (std::uint32_t timeout = edge; timeout < edge + 300; ++timeout) {
      timeouts.push_back(timeout);
      timeouts.push_back(timeout - (edge > 300 ? 300 : 0));
    }
  }
  for (const std::uint32_t start : {0U, 1U, 255U, 256U, 65535U, 65536U, 40000U, 0xfffffff0U}) {
    ASSERT_NO_FATAL_FAILURE(expect_expiry_on_the_tick(start, timeouts)) << "from " << start;
  }
}

TEST(ConnectionTableExpiry, comes_on_the_tick_up_to_31_days) {
  constexpr std::uint32_t kHorizon = 256 * 256 * 256;
  std::vector<std::uint32_t> timeouts = {
      1, kDay, kHorizon - 1, kHorizon, kHorizon + 1, 2 * kHorizon, 31 * kDay - 1, 31 * kDay};
  test::Random random(1);
  for (int i = 0; i < 2000; ++i) timeouts.push_back(1 + random() % (31 * kDay));
  // The clock wraps within the 31 days.
  ASSERT_NO_FATAL_FAILURE(expect_expiry_on_the_tick(0xffffffffU - 5 * kDay - 77, timeouts));
}

// Deadlines that move both ways, at a fixed capacity, tick by tick.
class MovingDeadlines {
 public:
  MovingDeadlines(std::uint32_t start, std::uint32_t longest)
      : table_(kCount, start), now_(start), longest_(longest), deadlines_(kCount) {
    for (std::uint32_t i = 0; i < kCount; ++i) {
      const std::uint32_t deadline = now_ + timeout();
      const auto index = table_->open(connection<Ipv4Address>(i, Indexed::inbound_only, deadline));
      deadlines_[*index] = deadline;
    }
  }

  // Some deadlines move, a tick passes, and `budget` steps of expiry are done.
  void tick(unsigned budget) {
    for (int i = 0; i < 3; ++i) {
      const std::uint32_t index = random_() % kCount;
      if (!overdue(index)) move(index);
    }
    ++now_;
    table_->advance(now_, budget, [this](std::uint32_t index) {
      ++expired_;
      EXPECT_LE(static_cast<std::int32_t>(deadlines_[index] - now_), 0) << "too early";
      // Most stay, as a template does that still has connections.
      move(index);
    });
  }

  std::uint32_t overdue_count() const {
    std::uint32_t count = 0;
    for (std::uint32_t index = 0; index < kCount; ++index) count += overdue(index) ? 1 : 0;
    return count;
  }
  std::uint32_t expired() const { return expired_; }

  // With time standing still, all that is overdue comes within so many single steps.
  void catch_up() {
    const std::uint32_t late = overdue_count();
    for (std::uint32_t step = 0; step < 50 * kCount && overdue_count() != 0; ++step) {
      table_->advance(now_, 1, [this](std::uint32_t index) { move(index); });
    }
    EXPECT_EQ(overdue_count(), 0U) << "of " << late;
  }

 private:
  static constexpr std::uint32_t kCount = 300;

  std::uint32_t timeout() { return 1 + random_() % (random_() % 4 == 0 ? longest_ : 400U); }
  bool overdue(std::uint32_t index) const {
    return static_cast<std::int32_t>(deadlines_[index] - now_) <= 0;
  }
  void move(std::uint32_t index) {
    deadlines_[index] = now_ + timeout();
    table_->set_deadline(index, deadlines_[index]);
  }

  OwnedTable<Ipv4Address> table_;
  std::uint32_t now_;
  std::uint32_t longest_;
  std::vector<std::uint32_t> deadlines_;
  std::uint32_t expired_ = 0;
  test::Random random_{7};
};

TEST(ConnectionTableExpiry, follows_deadlines_that_move_both_ways) {
  for (const std::uint32_t start : {0U, 65000U, 0xffff8000U}) {
    MovingDeadlines deadlines(start, 100000);
    for (int tick = 0; tick < 200000; ++tick) {
      deadlines.tick(kUnlimited);
      if (tick % 16 == 0) {
        ASSERT_EQ(deadlines.overdue_count(), 0U) << "tick " << tick;
      }
    }
    EXPECT_GT(deadlines.expired(), 10000U);
  }
}

TEST(ConnectionTableExpiry, on_a_budget_is_late_but_loses_none) {
  for (const unsigned budget : {1U, 2U, 3U, 7U}) {
    MovingDeadlines deadlines(65000, 70000);
    for (int round = 0; round < 50; ++round) {
      for (int tick = 0; tick < 700; ++tick) deadlines.tick(budget);
      deadlines.catch_up();
    }
    EXPECT_GT(deadlines.expired(), 1000U);
  }
}

// ---- Reading beside writing ----

// Every field of the identity follows from one number.
template <class Address>
Connection<Address> tied_together(std::uint32_t number) {
  auto record = connection<Address>(number, Indexed::both_ways);
  record.client = address_from<Address>(number);
  record.virtual_address = address_from<Address>(number * 3U);
  record.server = address_from<Address>(number * 5U);
  record.local = address_from<Address>(number * 7U);
  record.virtual_port = Be16::from_host(static_cast<std::uint16_t>(number * 11U));
  record.server_port = Be16::from_host(static_cast<std::uint16_t>(number * 13U));
  record.local_port = Be16::from_host(static_cast<std::uint16_t>(number * 17U));
  record.server_slot = number;
  record.service_slot = number * 19U;
  record.controller = number * 23U;
  return record;
}

template <class Address>
bool is_tied_together(const Connection<Address>& record) {
  const auto expected = tied_together<Address>(record.server_slot);
  return record.client == expected.client && record.virtual_address == expected.virtual_address &&
         record.server == expected.server && record.local == expected.local &&
         record.client_port == expected.client_port &&
         record.virtual_port == expected.virtual_port &&
         record.server_port == expected.server_port && record.local_port == expected.local_port &&
         record.protocol == expected.protocol && record.service_slot == expected.service_slot &&
         record.controller == expected.controller;
}

TYPED_TEST(ConnectionTableTest, read_by_another_thread_never_gives_a_mixed_record) {
  constexpr std::uint32_t kCapacity = 8;
  constexpr std::uint64_t kReads = 50'000;
  constexpr std::uint32_t kChanges = 300'000;
  OwnedTable<TypeParam> table(kCapacity, 0);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> good{0};
  std::atomic<std::uint64_t> mixed{0};
  std::thread reader([&] {
    for (std::uint32_t index = 0; !done.load(std::memory_order_relaxed); ++index) {
      const auto record = table->read(index % kCapacity);
      if (!record) continue;
      auto& count = is_tied_together(*record) ? good : mixed;
      count.fetch_add(1, std::memory_order_relaxed);
      if (table->size() > kCapacity || table->high_water() > kCapacity) mixed.fetch_add(1);
    }
  });
  test::Random random(1);
  for (std::uint32_t number = 0; number < kChanges || good.load() < kReads; ++number) {
    const std::uint32_t victim = random() % kCapacity;
    if (table->read(victim)) {
      table->set_deadline(victim, random() % 1000);
      set_field((*table)[victim].packets_in, number);
      table->close(victim);
    }
    if (number % 3 != 0) table->open(tied_together<TypeParam>(number));
    if (mixed.load() != 0) break;
  }
  done.store(true);
  reader.join();
  EXPECT_EQ(mixed.load(), 0U);
  EXPECT_GE(good.load(), kReads);
}

}  // namespace
}  // namespace weir
