// SPDX-License-Identifier: Apache-2.0
// An object that control replaces by a bigger one while a worker uses it: control allocates and
// offers, the worker takes when it needs to, and nobody waits or frees in between.
//
// T: make(capacity), and adopt(T&) noexcept, which takes over the content of a smaller one. Sizes
// double, so what has been outgrown, kept until the end, is no more than what is in use.
// Threads: reserve by control; the rest by the worker that uses it (by control before that).
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <memory>
#include <utility>

namespace weir {

template <class T>
class Growing {
 public:
  explicit Growing(std::size_t capacity)
      : reserved_(std::bit_ceil(capacity)), current_(make(reserved_)) {}
  Growing(const Growing&) = delete;
  Growing& operator=(const Growing&) = delete;
  ~Growing() { delete offered_.load(std::memory_order_acquire); }

  void reserve(std::size_t capacity) {
    if (capacity <= reserved_) return;
    reserved_ = std::bit_ceil(capacity);
    // Pairs with the exchange in grow: what is offered is complete. An offer that nobody has taken
    // is control's again.
    delete offered_.exchange(make(reserved_).release(), std::memory_order_acq_rel);
  }

  // False: control has not offered more.
  bool grow() noexcept {
    std::unique_ptr<Generation> bigger(offered_.exchange(nullptr, std::memory_order_acq_rel));
    if (bigger == nullptr) return false;
    bigger->content.adopt(current_->content);
    bigger->outgrown = std::move(current_);
    current_ = std::move(bigger);
    return true;
  }

  T& operator*() noexcept { return current_->content; }
  T* operator->() noexcept { return &current_->content; }
  const T* operator->() const noexcept { return &current_->content; }

 private:
  struct Generation {
    explicit Generation(std::size_t capacity) : content(capacity) {}
    T content;
    std::unique_ptr<Generation> outgrown;
  };
  static std::unique_ptr<Generation> make(std::size_t capacity) {
    return std::make_unique<Generation>(capacity);
  }

  std::size_t reserved_;  // control's
  std::unique_ptr<Generation> current_;
  std::atomic<Generation*> offered_{nullptr};
};

}  // namespace weir
