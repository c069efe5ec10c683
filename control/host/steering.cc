// SPDX-License-Identifier: Apache-2.0
#include "control/host/steering.h"

#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include <absl/container/flat_hash_map.h>
#include <absl/strings/str_cat.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "control/loop/log.h"
#include "dataplane/table/local_addresses.h"
#include "dataplane/table/service.h"
#include "dataplane/xdp/steer_maps.h"

namespace weir {
namespace {

constexpr std::string_view kProgramName = "weir_steer";

// A frame has to fit into one buffer, which has to fit into a page: 4096 bytes less the buffer's
// own headers (448), the driver's and XDP's headroom (128 + 256) and a tagged Ethernet header (18),
// with the cache-line padding that DPDK's memory pools add.
constexpr unsigned kLargestMtu = 3438;

absl::Status refuse(std::string_view interface, std::string_view why) {
  return absl::FailedPreconditionError(
      absl::StrCat(absl::string_view(interface.data(), interface.size()),
                   absl::string_view(why.data(), why.size())));
}

absl::StatusOr<ifreq> ask(int socket, const std::string& interface, unsigned long question) {
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  if (ioctl(socket, question, &request) == 0) return request;
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot read the settings of ", interface));
}

absl::Status bring_up(int socket, const std::string& interface) {
  absl::StatusOr<ifreq> request = ask(socket, interface, SIOCGIFFLAGS);
  if (!request.ok()) return request.status();
  if ((request->ifr_flags & IFF_UP) != 0) return absl::OkStatus();
  request->ifr_flags = static_cast<short>(request->ifr_flags | IFF_UP);
  if (ioctl(socket, SIOCSIFFLAGS, &*request) == 0) {
    log_line(absl::StrCat(interface, " was down: weir has brought it up"));
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(
      errno, absl::StrCat(interface, " is down and cannot be brought up: try `ip link set ",
                          interface, " up`"));
}

// The driver opens "combined" queues, or a single one where the interface has none (veth): whatever
// arrives at a queue beyond these would be lost.
absl::StatusOr<unsigned> count_queues(int socket, const std::string& interface) {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&channels);
  if (ioctl(socket, SIOCETHTOOL, &request) != 0) {
    if (errno == EOPNOTSUPP) return 1U;
    return absl::ErrnoToStatus(errno, absl::StrCat("cannot read the queues of ", interface));
  }
  if (channels.max_combined == 0) {
    if (channels.rx_count <= 1) return 1U;
    return refuse(interface, absl::StrCat(" has ", channels.rx_count,
                                          " receive queues, of which AF_XDP opens only the first: "
                                          "run `ethtool -L ",
                                          interface, " rx 1 tx 1` here and for a veth's peer"));
  }
  if (channels.rx_count > 0) {
    return refuse(interface, absl::StrCat(" has ", channels.rx_count,
                                          " receive queues that AF_XDP cannot open besides the "
                                          "combined ones: run `ethtool -L ",
                                          interface, " rx 0`"));
  }
  return channels.combined_count;
}

// One of the program's hash maps, and what this process has put into it.
template <class Key, class Value>
class KernelMap {
 public:
  using Bytes = std::array<unsigned char, sizeof(Key)>;
  using Content = absl::flat_hash_map<Bytes, Value>;
  static Bytes bytes_of(const Key& key) { return std::bit_cast<Bytes>(key); }

  absl::Status open(std::vector<BpfMap>& maps, std::string_view name) {
    const auto found =
        std::find_if(maps.begin(), maps.end(), [&](const BpfMap& map) { return map.name == name; });
    if (found == maps.end() || found->key_bytes != sizeof(Key) ||
        found->value_bytes != sizeof(Value)) {
      return refuse("the steering program", absl::StrCat(" has no fitting map ", std::string(name),
                                                         ": install the one built with this weir"));
    }
    name_ = found->name;
    capacity_ = found->capacity;
    map_ = std::move(found->descriptor);
    return absl::OkStatus();
  }

  absl::Status check_room(std::size_t entries) const {
    if (entries <= capacity_) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat("the steering program holds at most ",
                                                     capacity_, " ", name_, ", not ", entries,
                                                     ": remove some first, then add"));
  }

  absl::Status put(const Bytes& key, const Value& value) {
    const auto present = content_.find(key);
    if (present != content_.end() && present->second == value) return absl::OkStatus();
    if (bpf_map_update_elem(map_.get(), key.data(), &value, BPF_ANY) != 0) return failure("add");
    content_[key] = value;
    return absl::OkStatus();
  }

  absl::Status remove(const Bytes& key) {
    const auto present = content_.find(key);
    if (present == content_.end()) return absl::OkStatus();
    if (bpf_map_delete_elem(map_.get(), key.data()) != 0) return failure("remove");
    content_.erase(present);
    return absl::OkStatus();
  }

  const Content& content() const { return content_; }

 private:
  absl::Status failure(const char* what) const {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("cannot ", what, " one of the steering program's ", name_));
  }

  std::string name_;
  Descriptor map_;
  std::uint32_t capacity_ = 0;
  Content content_;
};

// One of the program's arrays.
template <class Value>
class KernelArray {
 public:
  absl::Status open(std::vector<BpfMap>& maps, std::string_view name) {
    const auto found =
        std::find_if(maps.begin(), maps.end(), [&](const BpfMap& map) { return map.name == name; });
    if (found == maps.end() || found->value_bytes != sizeof(Value)) {
      return refuse("the steering program", absl::StrCat(" has no fitting map ", std::string(name),
                                                         ": install the one built with this weir"));
    }
    map_ = std::move(found->descriptor);
    return absl::OkStatus();
  }
  absl::Status write(std::uint32_t at, const Value& value) {
    if (bpf_map_update_elem(map_.get(), &at, &value, BPF_ANY) == 0) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, "cannot change the steering program's settings");
  }

 private:
  Descriptor map_;
};

using EndpointMap = KernelMap<weir_endpoint, std::uint8_t>;
using AddressMap = KernelMap<weir_address, std::uint32_t>;
using MacMap = KernelMap<weir_mac, weir_present>;

weir_address to_key(const IpAddress& address) {
  weir_address key{};
  std::copy(address.bytes().begin(), address.bytes().end(), key.bytes);
  key.family = address.is_ipv4() ? 4 : 6;
  return key;
}

EndpointMap::Bytes endpoint_bytes(const SteeringChange& change) {
  return EndpointMap::bytes_of(
      weir_endpoint{.address = to_key(change.address),
                    .port = Be16::from_host(change.port).raw(),
                    .protocol = static_cast<std::uint16_t>(change.protocol)});
}

weir_rule to_entry(const SteeringRule& steering) {
  const MarkRule& rule = steering.rule;
  weir_rule entry{};
  const auto set = [](const std::optional<IpPrefix>& prefix, auto& words, auto& masks) {
    if (!prefix) return;
    std::array<std::uint8_t, 16> mask{};
    for (unsigned bit = 0; bit < prefix->length; ++bit) {
      mask[bit / 8] = static_cast<std::uint8_t>(mask[bit / 8] | 0x80U >> bit % 8);
    }
    std::copy_n(load<std::array<std::uint64_t, 2>>(prefix->address.bytes().data()).begin(), 2,
                words);
    std::copy_n(load<std::array<std::uint64_t, 2>>(mask.data()).begin(), 2, masks);
  };
  set(rule.from, entry.source, entry.source_mask);
  set(rule.to, entry.destination, entry.destination_mask);
  entry.first_source_port = rule.source_ports.first;
  entry.last_source_port = rule.source_ports.last;
  entry.first_port = rule.ports.first;
  entry.last_port = rule.ports.last;
  entry.protocol = static_cast<std::uint16_t>(rule.protocol.value_or(Protocol::ip));
  const auto families = [](bool ipv4, bool ipv6) {
    return static_cast<std::uint16_t>((ipv4 ? WEIR_IPV4 : 0) | (ipv6 ? WEIR_IPV6 : 0));
  };
  entry.families = families(rule.concerns(Family::ipv4), rule.concerns(Family::ipv6));
  entry.steered = families(steering.ipv4, steering.ipv6);
  return entry;
}

static_assert(Steering::kMaxMarkRules == WEIR_MAX_RULES);
static_assert(kFirstLocalPort == WEIR_FIRST_POOL_PORT && kLastLocalPort == WEIR_LAST_POOL_PORT);

}  // namespace

struct Steering::Maps {
  EndpointMap services;
  EndpointMap servers;
  AddressMap addresses;
  MacMap macs;
  KernelArray<weir_config> config;
  KernelArray<weir_rule> rules;
  std::uint32_t first_rule = 0;  // of those in use
  std::optional<SteeringConfig> configured;
  // What the kernel has refused.
  std::vector<SteeringChange> pending;
  std::optional<SteeringConfig> pending_config;

  absl::Status open(std::vector<BpfMap> found) {
    absl::Status status = services.open(found, "services");
    if (status.ok()) status = servers.open(found, "servers");
    if (status.ok()) status = addresses.open(found, "addresses");
    if (status.ok()) status = macs.open(found, "macs");
    if (status.ok()) status = config.open(found, "config");
    if (status.ok()) status = rules.open(found, "rules");
    return status;
  }
  absl::Status check_room(const SteeringSizes& sizes) const {
    absl::Status status = services.check_room(sizes.services);
    if (status.ok()) status = servers.check_room(sizes.servers);
    if (status.ok()) status = addresses.check_room(sizes.addresses);
    return status;
  }
  absl::Status put(const SteeringChange& change) {
    const auto bits = static_cast<std::uint8_t>(change.value);
    switch (change.map) {
      case SteeringChange::Map::services:
        return services.put(endpoint_bytes(change), bits);
      case SteeringChange::Map::servers:
        return servers.put(endpoint_bytes(change), bits);
      case SteeringChange::Map::addresses:
        break;
    }
    return addresses.put(AddressMap::bytes_of(to_key(change.address)), change.value);
  }
  absl::Status remove(const SteeringChange& change) {
    switch (change.map) {
      case SteeringChange::Map::services:
        return services.remove(endpoint_bytes(change));
      case SteeringChange::Map::servers:
        return servers.remove(endpoint_bytes(change));
      case SteeringChange::Map::addresses:
        break;
    }
    return addresses.remove(AddressMap::bytes_of(to_key(change.address)));
  }
  // New rules beside those in use, then all at once instead of them.
  absl::Status configure(const SteeringConfig& wanted) {
    if (configured && *configured == wanted) return absl::OkStatus();
    const std::uint32_t first = WEIR_MAX_RULES - first_rule;
    for (std::uint32_t i = 0; i < wanted.rules.size(); ++i) {
      if (absl::Status status = rules.write(first + i, to_entry(wanted.rules[i])); !status.ok()) {
        return status;
      }
    }
    const auto count = static_cast<std::uint32_t>(wanted.rules.size());
    const absl::Status status =
        config.write(0, {.extras = wanted.extras, .rules = count == 0 ? 0 : first << 16 | count});
    if (!status.ok()) return status;
    first_rule = first;
    configured = wanted;
    return status;
  }
};

std::string steering_object() {
  if (const char* named = std::getenv("WEIR_STEER_OBJECT"); named != nullptr) return named;
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  return (program.parent_path() / WEIR_STEER_OBJECT).string();
}

Steering::Steering(std::string interface, std::string object, int index)
    : interface_(std::move(interface)), object_(std::move(object)), index_(index), guard_(index) {}

Steering::~Steering() {
  // Whoever wants to know calls release() before.
  release().IgnoreError();
}

absl::StatusOr<std::unique_ptr<Steering>> Steering::claim(const std::string& interface,
                                                          const std::string& object) {
  const std::size_t colon = interface.find(':');
  if (colon != std::string::npos) {
    return absl::NotFoundError(absl::StrCat("there is no interface ", interface,
                                            ": such a name is an address's label; give --port ",
                                            interface.substr(0, colon), ", where the address is"));
  }
  const unsigned index = if_nametoindex(interface.c_str());
  if (index == 0) {
    return absl::NotFoundError(
        absl::StrCat("there is no interface ", interface, ": `ip link` lists those that exist"));
  }
  std::error_code error;
  if (!std::filesystem::exists(object, error)) {
    return absl::NotFoundError(absl::StrCat("the steering program ", object,
                                            " is missing: build it, or name it in the environment "
                                            "variable WEIR_STEER_OBJECT"));
  }
  const std::string path = std::filesystem::absolute(object, error).string();
  if (path.find_first_of(",[]\"") != std::string::npos ||
      interface.find_first_of(",[]\"") != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("DPDK takes no comma, bracket or quote in ",
                                                   interface, " or ", path, ": rename it"));
  }
  std::unique_ptr<Steering> steering(new Steering(interface, path, static_cast<int>(index)));
  absl::StatusOr<InterfaceLock> lock = InterfaceLock::take(interface, steering->index_);
  if (!lock.ok()) return lock.status();
  steering->lock_ = *std::move(lock);
  absl::Status status = steering->check_interface();
  if (status.ok()) status = steering->check_program();
  if (!status.ok()) return status;
  return steering;
}

absl::Status Steering::check_interface() {
  const Descriptor socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const absl::StatusOr<ifreq> hardware = ask(socket.get(), interface_, SIOCGIFHWADDR);
  if (!hardware.ok()) return hardware.status();
  if (hardware->ifr_hwaddr.sa_family != ARPHRD_ETHER) {
    return refuse(interface_, " is no Ethernet interface: give weir one that is");
  }
  const absl::StatusOr<ifreq> mtu = ask(socket.get(), interface_, SIOCGIFMTU);
  if (!mtu.ok()) return mtu.status();
  mtu_ = static_cast<unsigned>(mtu->ifr_mtu);
  if (mtu_ > kLargestMtu) {
    return refuse(interface_,
                  absl::StrCat(" has an MTU of ", mtu_, ", AF_XDP carries at most ", kLargestMtu,
                               ": run `ip link set ", interface_, " mtu ", kLargestMtu, "`"));
  }
  const absl::StatusOr<unsigned> queues = count_queues(socket.get(), interface_);
  if (!queues.ok()) return queues.status();
  queues_ = *queues;
  return bring_up(socket.get(), interface_);
}

absl::Status Steering::check_program() const {
  const absl::StatusOr<std::optional<XdpProgram>> program = xdp_program_of(index_);
  if (absl::IsPermissionDenied(program.status())) {
    return refuse(interface_, absl::StrCat(" has an XDP program, and weir may not ask which one "
                                           "without CAP_SYS_ADMIN: take it off with `ip link set ",
                                           interface_, " xdp off`"));
  }
  if (!program.ok()) return program.status();
  if (!program->has_value() || (*program)->name == kProgramName) return absl::OkStatus();
  return refuse(interface_, absl::StrCat(" has the XDP program ", (*program)->name, " (id ",
                                         (*program)->id, "): take it off with `ip link set ",
                                         interface_, " xdp off` or use another interface"));
}

std::string Steering::vdev_arguments(unsigned port_index) const {
  return absl::StrCat("--vdev=net_af_xdp", port_index, ",iface=", interface_,
                      ",start_queue=0,queue_count=", queues_, ",xdp_prog=", object_);
}

absl::StatusOr<Steering::Handover> Steering::make_way() {
  absl::Status foreign = check_program();
  if (!foreign.ok()) return foreign;
  guard_.find();
  const absl::StatusOr<std::uint32_t> stale = xdp_program_id_of(index_);
  if (!stale.ok()) return stale.status();
  made_way_ = true;
  Handover handover;
  if (*stale == 0) return handover;
  const absl::StatusOr<std::vector<BpfMap>> maps = maps_of_program(*stale);
  absl::Status guarded = maps.ok() ? guard_.load(object_, *maps) : maps.status();
  if (guarded.ok()) guarded = guard_.raise();
  if (!guarded.ok()) {
    handover.silent = false;
    handover.reason = absl::StrCat(
        "clients of ", interface_,
        " may see a RST while the program of a killed weir is replaced: ", guarded.message());
  }
  if (absl::Status detached = detach_program(); !detached.ok()) return detached;
  return handover;
}

// The steering program that is on the interface, this weir's or a killed one's.
absl::Status Steering::detach_program() {
  if (own_program_.is_open()) return detach_xdp_program(index_, own_program_);
  const absl::StatusOr<std::uint32_t> id = xdp_program_id_of(index_);
  if (!id.ok()) return id.status();
  const absl::StatusOr<Descriptor> program = open_program(*id);
  return program.ok() ? detach_xdp_program(index_, *program) : program.status();
}

absl::Status Steering::explain_failure() const {
  const LibbpfMessages messages;
  const std::unique_ptr<bpf_object, decltype(&bpf_object__close)> object(
      bpf_object__open_file(object_.c_str(), nullptr), bpf_object__close);
  if (!object || bpf_object__load(object.get()) != 0) {
    return refuse(interface_, absl::StrCat(": the kernel does not load ", object_,
                                           ": run weir as root, on Linux 5.10 or later"));
  }
  const bpf_program* program = bpf_object__find_program_by_name(object.get(), kProgramName.data());
  const int error =
      bpf_xdp_attach(index_, bpf_program__fd(program), XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr);
  if (error == 0) {
    bpf_xdp_detach(index_, 0, nullptr);
    return refuse(interface_, ": the AF_XDP driver could not open its queues: see its messages");
  }
  const std::string& words = LibbpfMessages::kernel_explanation();
  return refuse(interface_,
                absl::StrCat(" takes no XDP program: ",
                             words.empty() ? std::generic_category().message(-error) : words));
}

absl::Status Steering::attach() {
  const absl::StatusOr<std::optional<XdpProgram>> program = xdp_program_of(index_);
  if (!program.ok()) return program.status();
  if (!program->has_value() || (*program)->name != kProgramName) {
    return refuse(interface_,
                  " has no steering program after its start: see the driver's messages");
  }
  absl::StatusOr<std::vector<BpfMap>> found = maps_of_program((*program)->id);
  if (!found.ok()) return found.status();
  absl::StatusOr<Descriptor> own = open_program((*program)->id);
  if (!own.ok()) return own.status();
  guard_loaded_ = guard_.load(object_, *found);
  auto maps = std::make_unique<Maps>();
  if (absl::Status opened = maps->open(*std::move(found)); !opened.ok()) return opened;
  maps_ = std::move(maps);
  program_ = (*program)->id;
  own_program_ = *std::move(own);
  return absl::OkStatus();
}

absl::Status Steering::check_room(const SteeringSizes& sizes) const {
  return maps_ ? maps_->check_room(sizes) : absl::OkStatus();
}

// Addresses come before what is at them, and go after it: the director's own connections to a new
// real server must not be steered.
absl::Status Steering::apply(std::span<const SteeringChange> changes,
                             const SteeringConfig& config) {
  using Map = SteeringChange::Map;
  if (!maps_) return refuse(interface_, " is not attached yet: call attach() first");
  if (config.rules.size() > WEIR_MAX_RULES) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the steering program holds at most ", WEIR_MAX_RULES, " rules for marks"));
  }
  std::vector<SteeringChange> failed;
  absl::Status problem;
  const auto note = [&](const SteeringChange& change, const absl::Status& status) {
    if (status.ok()) return;
    failed.push_back(change);
    problem.Update(status);
  };
  for (const Map map : {Map::addresses, Map::services, Map::servers}) {
    for (const SteeringChange& change : changes) {
      if (change.map == map && change.value != 0) note(change, maps_->put(change));
    }
  }
  const absl::Status configured = maps_->configure(config);
  if (!configured.ok()) maps_->pending_config = config;
  problem.Update(configured);
  for (const Map map : {Map::servers, Map::services, Map::addresses}) {
    for (const SteeringChange& change : changes) {
      if (change.map == map && change.value == 0) note(change, maps_->remove(change));
    }
  }
  maps_->pending.insert(maps_->pending.end(), failed.begin(), failed.end());
  return problem;
}

absl::Status Steering::retry() {
  if (!maps_ || (maps_->pending.empty() && !maps_->pending_config)) return absl::OkStatus();
  const std::vector<SteeringChange> changes = std::exchange(maps_->pending, {});
  const SteeringConfig config = std::exchange(maps_->pending_config, std::nullopt)
                                    .value_or(maps_->configured.value_or(SteeringConfig{}));
  return apply(changes, config);
}

absl::Status Steering::set_macs(std::span<const MacAddress> macs) {
  if (!maps_) return refuse(interface_, " is not attached yet: call attach() first");
  MacMap::Content wanted;
  for (const MacAddress& mac : macs) wanted.emplace(mac.bytes, weir_present{1});
  absl::Status status = maps_->macs.check_room(wanted.size());
  for (const auto& [key, present] : wanted) {
    if (status.ok()) status = maps_->macs.put(key, present);
  }
  const MacMap::Content before = maps_->macs.content();
  for (const auto& [key, present] : before) {
    if (status.ok() && !wanted.contains(key)) status = maps_->macs.remove(key);
  }
  return status;
}

absl::Status Steering::still_there() const {
  std::array<char, IF_NAMESIZE> name{};
  if (if_indextoname(static_cast<unsigned>(index_), name.data()) == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("the interface ", interface_, " is gone: create it again and restart weir"));
  }
  const absl::StatusOr<std::uint32_t> program = xdp_program_id_of(index_);
  if (!program.ok()) return program.status();
  if (*program == program_) return absl::OkStatus();
  return refuse(interface_, " has lost its steering program: restart weir to attach it again");
}

absl::Status Steering::keep_silence() {
  return guard_.stands() || guard_loaded_.ok() ? guard_.raise() : guard_loaded_;
}

absl::Status Steering::release() {
  maps_.reset();
  // Another weir may claim the interface as soon as this one has left it.
  const InterfaceLock lock = std::move(lock_);
  std::array<char, IF_NAMESIZE> name{};
  const bool gone = if_indextoname(static_cast<unsigned>(index_), name.data()) == nullptr;
  if (!std::exchange(made_way_, false) || gone) return absl::OkStatus();
  const absl::StatusOr<std::uint32_t> program = xdp_program_id_of(index_);
  if (!program.ok()) return program.status();
  // Before attach() the name alone says whose it is; later weir may not ask for it.
  const bool ours = program_ != 0 ? *program == program_ : *program != 0 && check_program().ok();
  if (ours) {
    if (absl::Status detached = detach_program(); !detached.ok()) return detached;
  }
  if (!guard_.stands()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("clients of the services on ", interface_,
                                             " see silence until a weir has services again; `",
                                             command_to_lift(), "` leaves them to the kernel"));
}

}  // namespace weir
