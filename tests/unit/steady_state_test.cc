// SPDX-License-Identifier: Apache-2.0
// In the steady state a worker neither allocates nor makes a system call. Shown for the packet path
// with every step that a worker's loop has, then for Worker::run() itself on ring ports.
//
// Each proof runs in a process of its own (a death test): an allocation under the guard aborts it,
// a system call under the filter kills it with SIGSYS. The first tests show that they do.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <rte_mbuf.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/io/dpdk_startup.h"
#include "dataplane/io/worker.h"
#include "tests/support/burst_lab.h"
#include "tests/support/frames.h"
#include "tests/support/lab_services.h"
#include "tests/support/sanitizers.h"

#if defined(WEIR_ADDRESS_SANITIZER) || defined(WEIR_THREAD_SANITIZER)
#define WEIR_SANITIZED_ALLOCATOR 1
#endif
#if defined(WEIR_THREAD_SANITIZER)
#define WEIR_SANITIZED_SYSTEM_CALLS 1
#endif

// ---- The guard against allocation: malloc and free, and with them operator new ----

namespace {

thread_local bool allocation_forbidden = false;

void note_allocation() {
  if (!allocation_forbidden) return;
  allocation_forbidden = false;
  std::fputs("a worker allocated or freed memory\n", stderr);
  std::abort();
}

}  // namespace

#ifdef WEIR_SANITIZED_ALLOCATOR
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*,
                                                                  std::size_t),
                                                         void (*)(const volatile void*));
namespace {
const int kHooks = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { note_allocation(); },
    [](const volatile void*) { note_allocation(); });
}  // namespace
#else
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t bytes) {
  note_allocation();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  note_allocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
  note_allocation();
  return __libc_realloc(memory, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  note_allocation();
  return __libc_memalign(alignment, bytes);
}
void free(void* memory) {
  note_allocation();
  __libc_free(memory);
}
}
#endif

namespace weir::test {
namespace {

class ForbidAllocation {
 public:
  ForbidAllocation() { allocation_forbidden = true; }
  ~ForbidAllocation() { allocation_forbidden = false; }
  ForbidAllocation(const ForbidAllocation&) = delete;
  ForbidAllocation& operator=(const ForbidAllocation&) = delete;
};

// ---- The filter against system calls ----

// From here on this thread may only write, end the process, and set its timer slack, which
// Worker::run() does once before it polls. Anything else kills the process.
[[maybe_unused]] void forbid_system_calls() {
  const auto load = [](std::size_t offset) {
    return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<__u32>(offset));
  };
  const auto skip_unless = [](__u32 value, __u8 otherwise) {
    return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, otherwise);
  };
  const sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const sock_filter kill = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  sock_filter program[] = {
      load(offsetof(seccomp_data, nr)),
      skip_unless(SYS_write, 1),
      allow,
      skip_unless(SYS_exit_group, 1),
      allow,
      skip_unless(SYS_prctl, 3),
      load(offsetof(seccomp_data, args)),
      skip_unless(PR_SET_TIMERSLACK, 1),
      allow,
      kill,
  };
  const sock_fprog filter = {std::size(program), program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    std::perror("seccomp");
    std::abort();
  }
}

// Not [[noreturn]], before which the address sanitizer makes system calls of its own.
void end_process(int code) { syscall(SYS_exit_group, code); }

class SteadyState : public testing::Test {
 protected:
  static void SetUpTestSuite() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};
using SteadyStateDeathTest = SteadyState;

TEST_F(SteadyStateDeathTest, the_guard_notices_an_allocation) {
  EXPECT_DEATH(
      {
        const ForbidAllocation guard;
        std::vector<int> numbers(1000);
        numbers[1] = 1;
        asm volatile("" : : "g"(numbers.data()) : "memory");
      },
      "allocated or freed");
}

#ifndef WEIR_SANITIZED_SYSTEM_CALLS
TEST_F(SteadyStateDeathTest, the_filter_notices_a_system_call) {
  EXPECT_EXIT(
      {
        forbid_system_calls();
        getppid();
      },
      testing::KilledBySignal(SIGSYS), "");
  EXPECT_EXIT(
      {
        forbid_system_calls();
        end_process(0);
      },
      testing::ExitedWithCode(0), "");
}
#endif

// ---- What the workers are given to do ----

const std::string kVip4 = "10.9.0.1";
const std::string kVip6 = "2001:db8:9::1";
constexpr std::uint16_t kNatPort = 80;
constexpr std::uint16_t kDrPort = 81;
constexpr std::uint16_t kTunPort = 82;

void add(LabServices& services, const ServiceKey& key, const std::string& scheduler,
         ForwardMode mode) {
  add_service(services, key, scheduler);
  const std::string network = key.address.is_ipv4() ? "10.2.0." : "2001:db8:2::";
  for (unsigned i = 1; i <= 3; ++i) {
    must(services.add_server(key, server_spec(network + std::to_string(i), key.port, mode)));
  }
}

void add_services(LabServices& services) {
  for (const std::string& vip : {kVip4, kVip6}) {
    add(services, service_key(Protocol::tcp, vip, kNatPort), "wlc", ForwardMode::nat);
    add(services, service_key(Protocol::udp, vip, kNatPort), "rr", ForwardMode::nat);
    add(services, service_key(Protocol::tcp, vip, kDrPort), "wrr", ForwardMode::dr);
    add(services, service_key(Protocol::tcp, vip, kTunPort), "rr", ForwardMode::tun);
  }
}

struct Sent {
  Bytes bytes;
  std::uint16_t port;
};

// One client's life with every service, both families: opened, answered, reset or left to expire.
// Replies come from each of the servers; the two that were not chosen have no connection.
void append_client(std::vector<Sent>& frames, std::uint16_t client_port) {
  for (const bool v4 : {true, false}) {
    const std::string client = v4 ? "10.1.0.1" : "2001:db8:1::1";
    const std::string vip = v4 ? kVip4 : kVip6;
    const auto to = [&](std::uint16_t port) { return Flow{client, client_port, vip, port}; };
    for (const std::uint16_t port : {kNatPort, kDrPort, kTunPort}) {
      frames.push_back({client_tcp(to(port), TcpHeader::kSyn), 0});
      frames.push_back({client_tcp(to(port), TcpHeader::kAck), 0});
    }
    frames.push_back({client_udp(to(kNatPort)), 0});
    for (unsigned i = 1; i <= 3; ++i) {
      const std::string server = (v4 ? "10.2.0." : "2001:db8:2::") + std::to_string(i);
      const Flow back{server, kNatPort, client, client_port};
      frames.push_back({server_tcp(back, TcpHeader::kSyn | TcpHeader::kAck), 1});
      frames.push_back({server_udp(back), 1});
    }
    for (const std::uint16_t port : {kNatPort, kDrPort, kTunPort}) {
      frames.push_back({client_tcp(to(port), TcpHeader::kRst), 0});
    }
    frames.push_back({client_tcp(to(9), TcpHeader::kSyn), 0});  // no service
  }
  // Expires on the way, which is answered by an ICMP error.
  Bytes last_hop = client_tcp({"2001:db8:1::1", client_port, kVip6, kNatPort}, TcpHeader::kSyn);
  last_hop[21] = 1;
  frames.push_back({last_hop, 0});
}

std::vector<Sent> all_frames(std::uint16_t clients) {
  std::vector<Sent> frames;
  for (std::uint16_t i = 0; i < clients; ++i) {
    append_client(frames, static_cast<std::uint16_t>(1024 + i));
  }
  return frames;
}

constexpr Outcome kExpectedOutcomes[] = {
    Outcome::nat_to_server,         Outcome::nat_to_client,   Outcome::dr_to_server,
    Outcome::tun_to_server,         Outcome::icmp_error_sent, Outcome::kernel_not_a_service,
    Outcome::kernel_reply_unmatched};

// ---- The packet path ----

// A director with connections to come and go, and versions of its configuration that are all held
// back by its worker, so that it can adopt one after the other without control doing anything.
class WarmDirector {
 public:
  WarmDirector() : lab_({.capacity = 1024}), frames_(all_frames(1500)) {
    add_services(lab_.services());
    lab_.publisher().enter(0);
    const ServiceKey key = service_key(Protocol::tcp, kVip4, kNatPort);
    for (int i = 0; i < 64; ++i) {
      const ServerSpec spec = server_spec("10.2.0.1", kNatPort, ForwardMode::nat, 1 + i % 5);
      must(lab_.services().edit_server(key, spec));
      versions_.push_back(lab_.publisher().load());
    }
  }
  ~WarmDirector() { lab_.publisher().leave(0); }

  // As many loops of a worker as use every frame once.
  void run() {
    for (std::size_t first = 0; first < frames_.size(); first += kMaxBurst) {
      const Snapshot& snapshot = *versions_[first * versions_.size() / frames_.size()];
      WorkerState& worker = lab_.worker();
      worker.now += kTicksPerSecond / 4;
      BurstLab::adopt_whole(worker, snapshot);
      const std::size_t count = std::min(kMaxBurst, frames_.size() - first);
      for (std::size_t i = 0; i < count; ++i) fill(i, frames_[first + i]);
      process_burst(worker, snapshot, {packets_.data(), count});
      expire_connections(worker, snapshot, 256);
      lab_.publisher().quiescent(0);
    }
  }

  // Nothing if all kinds of packets were there and connections came and went, else what was not.
  const char* missing() {
    for (const Outcome outcome : kExpectedOutcomes) {
      if (lab_.count(outcome) == 0) return kOutcomeNames[static_cast<std::size_t>(outcome)].data();
    }
    std::uint64_t opened = 0;
    for (const ServerCounters& server : lab_.worker().own().servers) {
      opened += server.connections.read();
    }
    return opened > 4 * 1024 ? nullptr : "connections";
  }

 private:
  static constexpr std::size_t kRoom = 512;

  void fill(std::size_t at, const Sent& sent) {
    std::uint8_t* frame = buffers_[at].data() + Frame::kHeadroom;
    std::memcpy(frame, sent.bytes.data(), sent.bytes.size());
    Packet packet;
    packet.frame = frame;
    packet.length = static_cast<std::uint16_t>(sent.bytes.size());
    packet.headroom = Frame::kHeadroom;
    packet.port = sent.port;
    packets_[at] = packet;
  }

  BurstLab lab_;
  std::vector<Sent> frames_;
  std::vector<const Snapshot*> versions_;
  std::array<std::array<std::uint8_t, kRoom>, kMaxBurst> buffers_;
  std::array<Packet, kMaxBurst> packets_;
};

void end_with(const char* missing) {
  if (missing != nullptr) {
    static constexpr std::string_view kBefore = "the loop never met: ";
    (void)!write(STDERR_FILENO, kBefore.data(), kBefore.size());
    (void)!write(STDERR_FILENO, missing, std::strlen(missing));
  }
  end_process(missing == nullptr ? 0 : 1);
}

TEST_F(SteadyStateDeathTest, the_packet_path_does_not_allocate) {
  EXPECT_EXIT(
      {
        WarmDirector director;
        {
          const ForbidAllocation guard;
          director.run();
        }
        end_with(director.missing());
      },
      testing::ExitedWithCode(0), "");
}

#ifndef WEIR_SANITIZED_SYSTEM_CALLS
TEST_F(SteadyStateDeathTest, the_packet_path_makes_no_system_call) {
  EXPECT_EXIT(
      {
        WarmDirector director;
        forbid_system_calls();
        director.run();
        end_with(director.missing());
      },
      testing::ExitedWithCode(0), "");
}

// ---- The whole worker ----

// One worker on two ring ports, each of which receives what is sent on it: a frame that control
// hands in for port 0 goes out, comes back in and is processed, and what the worker forwards to
// port 1 comes back as a frame that is not the director's.
class RingDirector {
 public:
  RingDirector() : pool_(start()), lab_({.clock = current_tick}), rings_(1) {
    add_services(lab_.services());
    // Connections expire while the test runs.
    must(lab_.services().set_timeouts({.tcp = 1, .tcp_fin = 1, .udp = 1}));
    for (const char* device : {"net_ring0", "net_ring1"}) {
      auto port = Port::open({.device = device}, *lab_.worker().owners, pool_);
      must(port.status());
      ports_.push_back(*port);
    }
  }

  // Returns what was never met, or nothing, once the worker has met everything or 30 s are over.
  const char* run() {
    Worker worker(lab_.worker(), ports_, lab_.publisher(), rings_, IdleMode::busy_poll);
    std::atomic<bool> ended{false};
    std::thread thread([&] {
      forbid_system_calls();
      {
        const ForbidAllocation guard;
        worker.run();
      }
      ended.store(true);
      // Leaving the thread would be a system call.
      for (;;) __builtin_ia32_pause();
    });
    thread.detach();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    const char* missing = "any frame";
    while (missing != nullptr && std::chrono::steady_clock::now() < deadline) {
      for (int i = 0; i < 1000; ++i) feed();
      change_configuration();
      missing = still_missing();
    }
    worker.stop();
    while (!ended.load()) std::this_thread::yield();
    return missing;
  }

 private:
  static rte_mempool* start() {
    EalPlan plan;
    plan.lcores = "0@0,1@0";
    plan.huge_pages = false;
    plan.megabytes = 128;
    plan.devices = {"--vdev=net_ring0", "--vdev=net_ring1"};
    must(start_eal(plan));
    auto pool = make_buffer_pool(4095, 1500);
    must(pool.status());
    return *pool;
  }

  void feed() {
    for (const Urgency urgency : {Urgency::link, Urgency::host, Urgency::stray}) {
      rte_mbuf* kernels[32];
      const unsigned count = rings_.to_kernel(0, urgency).take(kernels);
      for (unsigned i = 0; i < count; ++i) rte_pktmbuf_free(kernels[i]);
    }
    const Sent& sent = frames_[next_++ % frames_.size()];
    rte_mbuf* frame = rte_pktmbuf_alloc(pool_);
    if (frame == nullptr) return;
    const auto length = static_cast<std::uint16_t>(sent.bytes.size());
    std::memcpy(rte_pktmbuf_append(frame, length), sent.bytes.data(), length);
    frame->port = sent.port;
    if (rings_.from_kernel(0).put({&frame, 1}) == 0) rte_pktmbuf_free(frame);
  }

  // Published to the worker that runs: it adopts and control frees.
  void change_configuration() {
    const ServerSpec spec = server_spec("10.2.0.2", kNatPort, ForwardMode::nat,
                                        1 + static_cast<std::int32_t>(next_ / 1000 % 5));
    must(lab_.services().edit_server(service_key(Protocol::tcp, kVip4, kNatPort), spec));
    lab_.services().housekeeping();
  }

  const char* still_missing() {
    for (const Outcome outcome : kExpectedOutcomes) {
      if (lab_.count(outcome) < 1000)
        return kOutcomeNames[static_cast<std::size_t>(outcome)].data();
    }
    WorkerStatistics& statistics = lab_.worker().own();
    std::uint64_t opened = 0;
    std::uint64_t open = 0;
    for (std::size_t slot = 0; slot < 64; ++slot) {
      opened += statistics.servers[slot].connections.read();
      open += statistics.loads[slot].connections.read();
    }
    if (opened < open + 5000) return "expiry";
    return lab_.snapshot().version < 50 ? "versions" : nullptr;
  }

  rte_mempool* pool_;  // made first: the clock needs the EAL
  BurstLab lab_;
  Rings rings_;
  std::vector<Port> ports_;
  std::vector<Sent> frames_ = all_frames(1500);
  std::size_t next_ = 0;
};

TEST_F(SteadyStateDeathTest, a_worker_that_runs_neither_allocates_nor_makes_a_system_call) {
  EXPECT_EXIT(
      {
        RingDirector director;
        end_with(director.run());
      },
      testing::ExitedWithCode(0), "");
}
#endif

}  // namespace
}  // namespace weir::test
