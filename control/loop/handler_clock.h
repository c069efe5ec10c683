// SPDX-License-Identifier: Apache-2.0
// When the handler that Boost.Asio runs on this thread began. Asio includes this file by itself:
// meson.build names it in BOOST_ASIO_CUSTOM_HANDLER_TRACKING. io_context::run_one() sleeps and
// then runs a handler, so that from outside the two cannot be told apart.
#pragma once

#include <chrono>

namespace weir {

class HandlerClock {
 public:
  using Clock = std::chrono::steady_clock;

  // The next handler on this thread leaves its beginning in began().
  static void arm() noexcept {
    state() = State::armed;
    began_at() = {};
  }
  // False: no handler has run since arm().
  static bool has_begun() noexcept { return state() == State::begun; }
  static Clock::time_point began() noexcept { return began_at(); }
  // From each of Asio's handlers; a handler inside another one changes nothing.
  static void note() noexcept {
    if (state() != State::armed) return;
    state() = State::begun;
    began_at() = Clock::now();
  }

 private:
  enum class State { off, armed, begun };
  static State& state() noexcept {
    thread_local constinit State value = State::off;
    return value;
  }
  static Clock::time_point& began_at() noexcept {
    thread_local constinit Clock::time_point value{};
    return value;
  }
};

}  // namespace weir

#define BOOST_ASIO_INHERIT_TRACKED_HANDLER
#define BOOST_ASIO_ALSO_INHERIT_TRACKED_HANDLER
#define BOOST_ASIO_HANDLER_TRACKING_INIT (void)0
#define BOOST_ASIO_HANDLER_LOCATION(loc) (void)0
#define BOOST_ASIO_HANDLER_CREATION(args) (void)0
#define BOOST_ASIO_HANDLER_COMPLETION(args) ::weir::HandlerClock::note()
#define BOOST_ASIO_HANDLER_INVOCATION_BEGIN(args) (void)0
#define BOOST_ASIO_HANDLER_INVOCATION_END (void)0
#define BOOST_ASIO_HANDLER_OPERATION(args) (void)0
#define BOOST_ASIO_HANDLER_REACTOR_REGISTRATION(args) (void)0
#define BOOST_ASIO_HANDLER_REACTOR_DEREGISTRATION(args) (void)0
#define BOOST_ASIO_HANDLER_REACTOR_READ_EVENT 0
#define BOOST_ASIO_HANDLER_REACTOR_WRITE_EVENT 0
#define BOOST_ASIO_HANDLER_REACTOR_ERROR_EVENT 0
#define BOOST_ASIO_HANDLER_REACTOR_EVENTS(args) (void)0
#define BOOST_ASIO_HANDLER_REACTOR_OPERATION(args) (void)0
