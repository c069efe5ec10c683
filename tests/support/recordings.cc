// SPDX-License-Identifier: Apache-2.0
#include "tests/support/recordings.h"

#include <sstream>
#include <stdexcept>

#include "tests/support/test_data.h"

namespace weir::test {
namespace {

constexpr std::size_t kRecordedBytes = 160;
constexpr std::string_view kCutHere = "...";

std::uint8_t digit(char c) {
  const std::string_view digits = "0123456789abcdef";
  const std::size_t value = digits.find(c);
  if (value == std::string_view::npos) throw std::runtime_error("not hexadecimal");
  return static_cast<std::uint8_t>(value);
}

}  // namespace

boost::json::value read_json(const std::string& name) {
  std::ostringstream text;
  text << open_data(name).rdbuf();
  return boost::json::parse(text.str());
}

std::vector<boost::json::object> read_json_lines(const std::string& name) {
  std::ifstream file = open_data(name);
  std::vector<boost::json::object> records;
  for (std::string line; std::getline(file, line);) {
    records.push_back(boost::json::parse(line).as_object());
  }
  return records;
}

Bytes from_hex(std::string_view text) {
  if (text.size() % 2 != 0) throw std::runtime_error("half a byte");
  Bytes bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(digit(text[i]) << 4 | digit(text[i + 1])));
  }
  return bytes;
}

std::string to_hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 0xf];
  }
  return text;
}

Bytes whole_frame(const boost::json::object& frame) {
  const boost::json::string& recorded = frame.at("hex").as_string();
  std::string_view hex(recorded.data(), recorded.size());
  const bool cut = hex.ends_with(kCutHere);
  if (cut) hex.remove_suffix(kCutHere.size());
  Bytes bytes = from_hex(hex);
  const auto length = frame.at("frame_len").to_number<std::size_t>();
  if (cut ? bytes.size() != kRecordedBytes : bytes.size() != length) {
    throw std::runtime_error("a frame of another length than recorded");
  }
  // The payload of fragments counts up, any other repeats one byte.
  const auto step = static_cast<std::uint8_t>(cut ? bytes.back() - bytes[bytes.size() - 2] : 0);
  while (bytes.size() < length) {
    bytes.push_back(static_cast<std::uint8_t>(bytes.back() + step));
  }
  return bytes;
}

std::uint16_t internet_checksum(std::span<const std::uint8_t> bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += i % 2 == 0 ? std::uint32_t{bytes[i]} << 8 : bytes[i];
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

bool ipv4_checksum_ok(std::span<const std::uint8_t> frame, std::size_t at) {
  const std::size_t header = (frame[at] & 0xfU) * 4;
  return internet_checksum(frame.subspan(at, header)) == 0;
}

void blank_ipv4_id(Bytes& frame, std::size_t at) {
  for (const std::size_t offset : {4U, 5U, 10U, 11U}) frame.at(at + offset) = 0;
}

bool udp_checksum_ok(std::span<const std::uint8_t> frame, std::size_t at) {
  const bool v4 = frame[at] >> 4 == 4;
  const std::size_t udp = at + (v4 ? 20 : 40);
  if (frame[udp + 6] == 0 && frame[udp + 7] == 0) return true;
  const std::size_t length = frame.size() - udp;
  Bytes summed = {0, 17, static_cast<std::uint8_t>(length >> 8), static_cast<std::uint8_t>(length)};
  const auto addresses_on = frame.subspan(at + (v4 ? 12 : 8));
  summed.insert(summed.end(), addresses_on.begin(), addresses_on.end());
  return internet_checksum(summed) == 0;
}

void blank_udp_source_port(Bytes& frame, std::size_t at) {
  const std::size_t udp = at + (frame[at] >> 4 == 4 ? 20 : 40);
  const bool has_checksum = (frame.at(udp + 6) | frame.at(udp + 7)) != 0;
  frame[udp] = frame[udp + 1] = 0;
  if (has_checksum) frame[udp + 6] = frame[udp + 7] = 0xff;
}

void blank_flow_label(Bytes& frame, std::size_t at) {
  frame.at(at + 1) &= 0xf0;
  frame.at(at + 2) = 0;
  frame.at(at + 3) = 0;
}

}  // namespace weir::test
