// SPDX-License-Identifier: Apache-2.0
// An array that control edits while workers read it as it was when it was published.
//
//   PagedArray, control's     [page][page][page] ...     an edit copies its page, once between two
//                                |     |     |           publications
//   PagedView, a version's    [  *  |  *  |  *  ] ...     pointers to the pages as they were
//
// Cost: a look-up is two loads, as through a vector; a publication copies the pointers, and the
// pages that changed, whatever the array's size.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

namespace weir {

// What a version consisted of that the next one does not: to be kept while anybody reads the
// former.
using RetiredParts = std::vector<std::shared_ptr<const void>>;

// What a version shares with later ones, and some of these no longer have: each version holds the
// first of its successors' losses, which holds the next.
//
//   version 1 ──► lost between 1 and 2 ──► lost between 2 and 3 ──► ...
//                 version 2 ──────────────┘
class Losses {
 public:
  Losses() = default;
  Losses(const Losses&) = delete;
  Losses& operator=(const Losses&) = delete;
  // One after the other: they may be many.
  ~Losses() {
    std::shared_ptr<Losses> later = std::move(next_);
    while (later != nullptr && later.use_count() == 1) later = std::move(later->next_);
  }
  // The next version has not these parts. Returns what that one holds.
  std::shared_ptr<Losses> follow(RetiredParts parts) {
    parts_ = std::move(parts);
    next_ = std::make_shared<Losses>();
    return next_;
  }

 private:
  RetiredParts parts_;
  std::shared_ptr<Losses> next_;
};

// Immutable. Any thread.
template <class T, std::size_t kPageSize, std::size_t kPages>
class PagedView {
 public:
  using Page = std::array<T, kPageSize>;

  // Everywhere T{}.
  PagedView() noexcept { pages_.fill(&kBlank); }
  static constexpr std::size_t size() noexcept { return kPageSize * kPages; }
  const T& operator[](std::size_t index) const noexcept {
    return (*pages_[index / kPageSize])[index % kPageSize];
  }

 private:
  template <class, std::size_t, std::size_t>
  friend class PagedArray;

  static inline const Page kBlank{};
  std::array<const Page*, kPages> pages_;
};

// Thread: control's.
template <class T, std::size_t kPageSize, std::size_t kPages>
class PagedArray {
 public:
  using View = PagedView<T, kPageSize, kPages>;
  static constexpr std::size_t size() noexcept { return View::size(); }

  const T& operator[](std::size_t index) const noexcept { return view_[index]; }
  // As it is now, for control's own eyes; a copy of it misses the pages that are made later, whose
  // number says so.
  const View& draft() const noexcept { return view_; }
  std::size_t pages_made() const noexcept { return pages_made_; }
  // For a change that the next publication shows.
  T& edit(std::size_t index) {
    const std::size_t at = index / kPageSize;
    if (!is_fresh_[at]) {
      auto copy = std::make_unique<Page>(*view_.pages_[at]);
      view_.pages_[at] = copy.get();
      if (std::unique_ptr<Page> former = std::exchange(pages_[at], std::move(copy))) {
        replaced_.emplace_back(std::move(former));
      }
      is_fresh_[at] = true;
      fresh_.push_back(at);
      ++pages_made_;
    }
    return (*pages_[at])[index % kPageSize];
  }
  // What readers see from now on. `replaced` gets what only former views refer to.
  View publish(RetiredParts& replaced) {
    std::move(replaced_.begin(), replaced_.end(), std::back_inserter(replaced));
    replaced_.clear();
    for (const std::size_t at : fresh_) is_fresh_[at] = false;
    fresh_.clear();
    return view_;
  }
  // All pages, once nothing more will be edited.
  void give_up(RetiredParts& parts) {
    std::move(replaced_.begin(), replaced_.end(), std::back_inserter(parts));
    for (std::unique_ptr<Page>& page : pages_) {
      if (page != nullptr) parts.emplace_back(std::move(page));
    }
  }

 private:
  using Page = typename View::Page;

  View view_;
  std::vector<std::unique_ptr<Page>> pages_ = std::vector<std::unique_ptr<Page>>(kPages);
  std::vector<bool> is_fresh_ = std::vector<bool>(kPages);
  std::vector<std::size_t> fresh_;
  std::size_t pages_made_ = 0;
  RetiredParts replaced_;
};

}  // namespace weir
