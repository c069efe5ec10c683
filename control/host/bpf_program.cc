// SPDX-License-Identifier: Apache-2.0
#include "control/host/bpf_program.h"

#include <fcntl.h>
#include <linux/if_link.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

namespace weir {
namespace {

// The most maps that a program of ours is looked through for.
constexpr std::size_t kMaxMaps = 64;

std::string& last_explanation() {
  static std::string text;
  return text;
}

int keep_explanation(libbpf_print_level level, const char* format, va_list arguments) {
  if (level == LIBBPF_DEBUG) return 0;
  std::array<char, 512> line{};
  const int length = std::vsnprintf(line.data(), line.size(), format, arguments);
  std::string_view text = line.data();
  constexpr std::string_view kPrefix = "libbpf: Kernel error message: ";
  if (!text.starts_with(kPrefix)) return length;
  text.remove_prefix(kPrefix.size());
  while (text.ends_with('\n')) text.remove_suffix(1);
  last_explanation() = text;
  return length;
}

libbpf_print_fn_t& previous_print() {
  static libbpf_print_fn_t function = nullptr;
  return function;
}

// By its number the kernel hands out a program or map only to who has CAP_SYS_ADMIN. Those that
// the driver has loaded are open in this process anyway.
Descriptor own_descriptor(std::string_view kind, std::uint32_t id) {
  const int refused = errno;
  const std::string wanted = absl::StrCat(std::string(kind), ":\t", id);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fdinfo", error)) {
    std::ifstream about(entry.path());
    for (std::string line; std::getline(about, line);) {
      int descriptor = -1;
      if (line != wanted) continue;
      if (!absl::SimpleAtoi(entry.path().filename().string(), &descriptor)) continue;
      return Descriptor(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0));
    }
  }
  errno = refused;
  return {};
}

struct ProgramInfo {
  bpf_prog_info info;
  std::array<std::uint32_t, kMaxMaps> maps{};
};

absl::StatusOr<ProgramInfo> read_info(std::uint32_t id) {
  absl::StatusOr<Descriptor> program = open_program(id);
  if (!program.ok()) return program.status();
  ProgramInfo result;
  // The kernel refuses padding that is not zero, which an initialiser may leave as it was.
  std::memset(&result.info, 0, sizeof result.info);
  result.info.nr_map_ids = kMaxMaps;
  result.info.map_ids = reinterpret_cast<std::uintptr_t>(result.maps.data());
  std::uint32_t length = sizeof result.info;
  if (bpf_obj_get_info_by_fd(program->get(), &result.info, &length) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read about the BPF program ", id));
  }
  return result;
}

struct Attachment {
  std::uint32_t program = 0;
  std::uint32_t mode = 0;  // XDP_FLAGS_*_MODE
};

// Hardware, driver or generic XDP; weir's own program is never attached twice.
absl::StatusOr<Attachment> attachment_of(int interface_index) {
  bpf_xdp_query_opts query{};
  query.sz = sizeof query;
  if (const int error = bpf_xdp_query(interface_index, 0, &query); error != 0) {
    return absl::ErrnoToStatus(-error, "cannot ask the interface for its XDP program");
  }
  const std::array modes{Attachment{query.drv_prog_id, XDP_FLAGS_DRV_MODE},
                         Attachment{query.skb_prog_id, XDP_FLAGS_SKB_MODE},
                         Attachment{query.hw_prog_id, XDP_FLAGS_HW_MODE}};
  const auto* found = std::find_if(modes.begin(), modes.end(),
                                   [](const Attachment& mode) { return mode.program != 0; });
  return found == modes.end() ? Attachment{} : *found;
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<Descriptor> open_program(std::uint32_t id) {
  Descriptor program(bpf_prog_get_fd_by_id(id));
  if (!program.is_open()) program = own_descriptor("prog_id", id);
  if (program.is_open()) return program;
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the BPF program ", id));
}

absl::StatusOr<std::uint32_t> xdp_program_id_of(int interface_index) {
  const absl::StatusOr<Attachment> attachment = attachment_of(interface_index);
  if (!attachment.ok()) return attachment.status();
  return attachment->program;
}

absl::StatusOr<std::string> program_name(std::uint32_t program) {
  const absl::StatusOr<ProgramInfo> info = read_info(program);
  if (!info.ok()) return info.status();
  return std::string(info->info.name);
}

absl::StatusOr<std::vector<BpfMap>> maps_of_program(std::uint32_t program) {
  const absl::StatusOr<ProgramInfo> info = read_info(program);
  if (!info.ok()) return info.status();
  std::vector<BpfMap> maps;
  for (std::size_t i = 0; i < std::min<std::size_t>(info->info.nr_map_ids, kMaxMaps); ++i) {
    Descriptor map(bpf_map_get_fd_by_id(info->maps[i]));
    if (!map.is_open()) map = own_descriptor("map_id", info->maps[i]);
    bpf_map_info about;
    std::memset(&about, 0, sizeof about);
    std::uint32_t length = sizeof about;
    if (!map.is_open() || bpf_obj_get_info_by_fd(map.get(), &about, &length) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot open the BPF map ", info->maps[i]));
    }
    maps.push_back(BpfMap{.name = about.name,
                          .descriptor = std::move(map),
                          .key_bytes = about.key_size,
                          .value_bytes = about.value_size,
                          .capacity = about.max_entries});
  }
  return maps;
}

absl::StatusOr<std::optional<XdpProgram>> xdp_program_of(int interface_index) {
  const absl::StatusOr<Attachment> attachment = attachment_of(interface_index);
  if (!attachment.ok()) return attachment.status();
  if (attachment->program == 0) return std::nullopt;
  absl::StatusOr<std::string> name = program_name(attachment->program);
  if (!name.ok()) return name.status();
  return XdpProgram{attachment->program, *std::move(name)};
}

absl::StatusOr<bool> runs_native_xdp(int interface_index) {
  const absl::StatusOr<Attachment> attachment = attachment_of(interface_index);
  if (!attachment.ok()) return attachment.status();
  return attachment->program != 0 && attachment->mode != XDP_FLAGS_SKB_MODE;
}

absl::Status detach_xdp_program(int interface_index, const Descriptor& program) {
  const absl::StatusOr<Attachment> attachment = attachment_of(interface_index);
  if (!attachment.ok()) return attachment.status();
  bpf_xdp_attach_opts options{};
  options.sz = sizeof options;
  options.old_prog_fd = program.get();
  const LibbpfMessages quiet;
  const std::uint32_t flags = attachment->mode | XDP_FLAGS_REPLACE;
  if (const int error = bpf_xdp_detach(interface_index, flags, &options); error != 0) {
    return absl::ErrnoToStatus(-error, "cannot detach the steering program");
  }
  return absl::OkStatus();
}

LibbpfMessages::LibbpfMessages() {
  last_explanation().clear();
  previous_print() = libbpf_set_print(keep_explanation);
}

LibbpfMessages::~LibbpfMessages() { libbpf_set_print(previous_print()); }

const std::string& LibbpfMessages::kernel_explanation() { return last_explanation(); }

}  // namespace weir
