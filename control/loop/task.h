// SPDX-License-Identifier: Apache-2.0
// Coroutines on the event loop, each with an owner, and ending with it.
//
//   Task<> Checker::check() {
//     boost::asio::steady_timer timer(loop_.io(), 1s);
//     // Any asynchronous operation of Asio:
//     const auto error = co_await timer.async_wait(in_task);
//     // Another Task:
//     const bool well = co_await ask();
//   }
//   tasks_.start(check());                                     // Tasks tasks_: a member of Checker
//
// A Task starts when its owner (Tasks) or another Task that awaits it starts it. Whoever holds it
// destroys it where it waits: at once, its local variables with it, nothing of it runs later, and
// the operation it waits for is cancelled. So a coroutine never meets an owner that is gone.
// Errors are values: in_task never throws, and an exception out of a Task ends the process.
// Thread: the one that runs the loop.
#pragma once

#include <coroutine>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <boost/asio/async_result.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/cancellation_type.hpp>

namespace weir {

template <class Value = void>
class Task;

namespace task_internal {

class PromiseBase {
 public:
  std::suspend_always initial_suspend() const noexcept { return {}; }
  [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }

  // At its end a Task goes on with the one that awaits it.
  struct Handover {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) const noexcept {
      return ended.promise().awaiting_;
    }
    void await_resume() const noexcept {}
  };
  Handover final_suspend() const noexcept { return {}; }
  void awaited_by(std::coroutine_handle<> awaiting) noexcept { awaiting_ = awaiting; }

 private:
  std::coroutine_handle<> awaiting_ = std::noop_coroutine();
};

template <class Value>
class Promise : public PromiseBase {
 public:
  Task<Value> get_return_object() noexcept;
  void return_value(Value value) { value_.emplace(std::move(value)); }
  Value take() { return *std::move(value_); }

 private:
  std::optional<Value> value_;
};

template <>
class Promise<void> : public PromiseBase {
 public:
  Task<void> get_return_object() noexcept;
  void return_void() const noexcept {}
  void take() const noexcept {}
};

}  // namespace task_internal

template <class Value>
class [[nodiscard]] Task {
 public:
  using promise_type = task_internal::Promise<Value>;

  Task(Task&& other) noexcept : coroutine_(std::exchange(other.coroutine_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(coroutine_, other.coroutine_);
    return *this;
  }
  ~Task() {
    if (coroutine_) coroutine_.destroy();
  }

  auto operator co_await() && noexcept {
    struct Awaiter {
      std::coroutine_handle<promise_type> coroutine;
      bool await_ready() const noexcept { return false; }
      std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) const noexcept {
        coroutine.promise().awaited_by(awaiting);
        return coroutine;
      }
      Value await_resume() const { return coroutine.promise().take(); }
    };
    return Awaiter{coroutine_};
  }

 private:
  friend promise_type;
  explicit Task(std::coroutine_handle<promise_type> coroutine) noexcept : coroutine_(coroutine) {}

  std::coroutine_handle<promise_type> coroutine_;
};

template <class Value>
Task<Value> task_internal::Promise<Value>::get_return_object() noexcept {
  return Task<Value>(std::coroutine_handle<Promise>::from_promise(*this));
}
inline Task<void> task_internal::Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

// The coroutines that somebody has started and not seen the end of: a member of their owner.
class Tasks {
 public:
  Tasks() = default;
  // Not from inside one of them.
  ~Tasks() {
    for (const std::coroutine_handle<> root : roots_) root.destroy();
  }
  Tasks(const Tasks&) = delete;
  Tasks& operator=(const Tasks&) = delete;

  // Runs it up to its first wait.
  void start(Task<> task) { run(*this, std::move(task)); }
  bool empty() const noexcept { return roots_.empty(); }

 private:
  // The frame around a Task that its owner holds.
  struct Root {
    class promise_type {
     public:
      promise_type(Tasks& owner, const Task<>&) : owner_(owner) {
        place_ = owner.roots_.insert(owner.roots_.end(),
                                     std::coroutine_handle<promise_type>::from_promise(*this));
      }
      Root get_return_object() const noexcept { return {}; }
      std::suspend_never initial_suspend() const noexcept { return {}; }
      [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
      void return_void() const noexcept {}
      // Not suspended: the frame is gone with its end.
      std::suspend_never final_suspend() const noexcept {
        owner_.roots_.erase(place_);
        return {};
      }

     private:
      Tasks& owner_;
      std::list<std::coroutine_handle<>>::iterator place_;
    };
  };
  static Root run(Tasks&, Task<> task) { co_await std::move(task); }

  std::list<std::coroutine_handle<>> roots_;
};

// ---- Asio's operations in a Task ----

struct InTask {};
// As a completion token. The result is what a handler would get: nothing, the one value, or a tuple
// of them, `const auto [error, bytes] = co_await socket.async_read_some(buffer, in_task);`.
inline constexpr InTask in_task;

namespace task_internal {

// Shared by a waiting coroutine and the handler of its operation, either of which may go first.
template <class... Results>
struct Wait {
  std::coroutine_handle<> waiting;  // none: nobody waits any more
  std::optional<std::tuple<Results...>> results;
  boost::asio::cancellation_signal cancellation;
};

template <class... Results>
class Handler {
 public:
  explicit Handler(std::shared_ptr<Wait<Results...>> wait) noexcept : wait_(std::move(wait)) {}

  using cancellation_slot_type = boost::asio::cancellation_slot;
  cancellation_slot_type get_cancellation_slot() const noexcept {
    return wait_->cancellation.slot();
  }
  template <class... Given>
  void operator()(Given&&... given) const {
    if (!wait_->waiting) return;
    wait_->results.emplace(std::forward<Given>(given)...);
    std::exchange(wait_->waiting, nullptr).resume();
  }

 private:
  std::shared_ptr<Wait<Results...>> wait_;
};

template <class Initiation, class Arguments, class... Results>
class Operation {
 public:
  Operation(Initiation initiation, Arguments arguments)
      : initiation_(std::move(initiation)), arguments_(std::move(arguments)) {}
  Operation(Operation&&) noexcept = default;
  ~Operation() {
    if (!wait_ || !wait_->waiting) return;
    wait_->waiting = nullptr;
    wait_->cancellation.emit(boost::asio::cancellation_type::terminal);
  }

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiting) {
    wait_ = std::make_shared<Wait<Results...>>();
    wait_->waiting = waiting;
    std::apply(
        [this](auto&&... arguments) {
          std::move(initiation_)(Handler<Results...>(wait_), std::move(arguments)...);
        },
        std::move(arguments_));
  }
  auto await_resume() {
    if constexpr (sizeof...(Results) == 1) {
      return std::get<0>(*std::move(wait_->results));
    } else if constexpr (sizeof...(Results) > 1) {
      return *std::move(wait_->results);
    }
  }

 private:
  Initiation initiation_;
  Arguments arguments_;
  std::shared_ptr<Wait<Results...>> wait_;
};

}  // namespace task_internal
}  // namespace weir

template <class Result, class... Results>
class boost::asio::async_result<weir::InTask, Result(Results...)> {
 public:
  template <class Initiation, class... Arguments>
  static auto initiate(Initiation&& initiation, weir::InTask, Arguments&&... arguments) {
    using Kept = std::tuple<std::decay_t<Arguments>...>;
    return weir::task_internal::Operation<std::decay_t<Initiation>, Kept, std::decay_t<Results>...>(
        std::forward<Initiation>(initiation), Kept(std::forward<Arguments>(arguments)...));
  }
};
