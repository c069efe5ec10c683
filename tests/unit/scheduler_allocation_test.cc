// SPDX-License-Identifier: Apache-2.0
// On packets' time schedulers neither allocate nor free: every edit, pick and change of a load of a
// service that lives, grows and shrinks, under an operator new that counts.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <random>
#include <string>

#include "schedulers/scheduler.h"
#include "tests/support/sanitizers.h"

namespace {

std::atomic<std::uint64_t> allocations{0};

}  // namespace

#if defined(WEIR_ADDRESS_SANITIZER) || defined(WEIR_THREAD_SANITIZER)
// Sanitizers have an operator new of their own.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*,
                                                                  std::size_t),
                                                         void (*)(const volatile void*));
namespace {
const int kHooks = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { ++allocations; },
    [](const volatile void*) { ++allocations; });
}  // namespace
#else
void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
// Of std::stable_sort, for one.
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(size);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  ++allocations;
  std::free(memory);
}
void operator delete(void* memory) noexcept {
  ++allocations;
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  ++allocations;
  std::free(memory);
}
#endif

namespace weir::test {
namespace {

// The thread sanitizer's operator new calls no hooks.
#if defined(WEIR_THREAD_SANITIZER)
constexpr bool kCounts = false;
#else
constexpr bool kCounts = true;
#endif

class Idle final : public LoadView {
 public:
  Load load(ServerSlot slot) const noexcept override { return {.active = slot % 7}; }
  bool overloaded(ServerSlot slot) const noexcept override { return slot % 5 == 0; }
};

// What control does between the worker's steps is not counted.
template <class Step>
std::uint64_t allocations_in(Step&& step) {
  const std::uint64_t before = allocations;
  step();
  return allocations - before;
}

TEST(EveryScheduler, NeverAllocatesOnPacketsTime) {
  if (!kCounts) GTEST_SKIP();
  for (const auto name : scheduler_names()) {
    // A small table, because control builds one for each edit.
    SchedulerOptions options{.name = std::string(name)};
    if (name == "mh" || name == "conhash") options.table_size = 509;
    const auto scheduler = make_scheduler(options, 0, 2);
    scheduler->bind({});
    std::vector<Candidate> list;
    std::vector<ServerName> names;
    const Idle loads;
    std::mt19937 random(4);
    std::uint64_t counted = 0;
    for (std::uint32_t round = 0; round < 600; ++round) {
      Edit edit;
      if (list.size() < 300 && round % 5 != 4) {
        const Candidate added{round, static_cast<std::int32_t>(random() % 5), 1, 0};
        list.insert(list.begin(), added);
        names.insert(names.begin(), ServerName{.port = static_cast<std::uint16_t>(round)});
        edit = make_edit(Edit::Kind::add, 0, added, list);
      } else {
        const auto at = static_cast<std::uint32_t>(random() % list.size());
        const Candidate removed = list[at];
        list.erase(list.begin() + at);
        names.erase(names.begin() + at);
        edit = make_edit(Edit::Kind::remove, at, removed, list);
      }
      scheduler->reserve(list.size());
      const auto table = make_table(options, list, names);
      counted += allocations_in([&] { scheduler->apply(edit); });
      for (std::uint32_t i = 0; i < 10; ++i) {
        const auto address = static_cast<std::uint32_t>(random());
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(&address);
        const PickInput input{.candidates = list,
                              .loads = loads,
                              .table = table.get(),
                              .client_address = {bytes, 4},
                              .destination_address = {bytes, 4},
                              .now_ms = round * 60'000};
        counted += allocations_in([&] {
          const ServerSlot slot = scheduler->pick(input);
          if (slot != kNoServer) scheduler->load_changed(slot);
        });
      }
    }
    EXPECT_EQ(counted, 0U) << name;
  }
}

TEST(Guard, CountsAnAllocation) {
  if (!kCounts) GTEST_SKIP();
  std::unique_ptr<int> number;
  EXPECT_EQ(allocations_in([&] { number = std::make_unique<int>(1); }), 1U);
}

}  // namespace
}  // namespace weir::test
