// SPDX-License-Identifier: Apache-2.0
#include "control/loop/process_messages.h"

#include <cstring>

namespace weir {
namespace {

class Writer {
 public:
  template <class Number>
  Writer& number(Number value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& text(std::string_view value) {
    number(static_cast<std::uint32_t>(value.size()));
    text_.append(value);
    return *this;
  }
  Writer& texts(const std::vector<std::string>& values) {
    number(static_cast<std::uint32_t>(values.size()));
    for (const std::string& value : values) text(value);
    return *this;
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

class Reader {
 public:
  explicit Reader(std::string_view message) : rest_(message) {}

  template <class Number>
  Reader& number(Number& value) {
    good_ = good_ && rest_.size() >= sizeof value;
    if (!good_) return *this;
    std::memcpy(&value, rest_.data(), sizeof value);
    rest_.remove_prefix(sizeof value);
    return *this;
  }
  Reader& text(std::string& value) {
    std::uint32_t size = 0;
    number(size);
    good_ = good_ && size <= rest_.size();
    if (!good_) return *this;
    value = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return *this;
  }
  Reader& texts(std::vector<std::string>& values) {
    std::uint32_t count = 0;
    number(count);
    for (std::uint32_t i = 0; good_ && i < count; ++i) text(values.emplace_back());
    return *this;
  }
  bool is_whole() const { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

std::string encode(const HelperRequest& request) {
  return Writer()
      .number(request.verb)
      .number(request.id)
      .number(request.timeout_ms)
      .number(request.output_limit)
      .texts(request.arguments)
      .texts(request.environment)
      .take();
}

std::string encode(const HelperReport& report) {
  return Writer()
      .number(report.id)
      .number(report.end)
      .number(report.code)
      .number(report.is_whole)
      .text(report.output)
      .take();
}

std::optional<HelperRequest> decode_request(std::string_view message) {
  HelperRequest request;
  Reader reader(message);
  reader.number(request.verb)
      .number(request.id)
      .number(request.timeout_ms)
      .number(request.output_limit)
      .texts(request.arguments)
      .texts(request.environment);
  return reader.is_whole() ? std::optional(std::move(request)) : std::nullopt;
}

std::optional<HelperReport> decode_report(std::string_view message) {
  HelperReport report;
  Reader reader(message);
  reader.number(report.id)
      .number(report.end)
      .number(report.code)
      .number(report.is_whole)
      .text(report.output);
  return reader.is_whole() ? std::optional(std::move(report)) : std::nullopt;
}

}  // namespace weir
