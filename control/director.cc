// SPDX-License-Identifier: Apache-2.0
#include "control/director.h"

#include <sys/random.h>
#include <unistd.h>

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <fstream>
#include <utility>

#include <boost/asio/post.hpp>

#include "control/host/interface_facts.h"
#include "control/host/privileges.h"
#include "control/host/reinjection.h"
#include "control/loop/log.h"
#include "control/loop/slices.h"
#include "control/model/text_forms.h"

namespace weir {
namespace {

using std::chrono::milliseconds;

constexpr unsigned kBaseBuffers = 16384;
constexpr unsigned kBuffersPerQueue = 8192;
constexpr std::uint16_t kUsualMtu = 1500;
constexpr std::size_t kCacheLine = 64;

template <class T>
T random_value() {
  T value;
  if (getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) std::abort();
  return value;
}

std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  std::uint64_t kilobytes = 0;
  std::string unit;
  while (file >> name >> kilobytes >> unit) {
    if (name == "MemAvailable:") return kilobytes * 1024;
  }
  return 0;
}

// Without the rules that are for other ports.
SteeringConfig for_port(SteeringConfig config, std::uint16_t port) {
  std::erase_if(config.rules, [port](const SteeringRule& steering) {
    return steering.rule.on_port.value_or(port) != port;
  });
  return config;
}

std::size_t aligned(std::size_t bytes) {
  return (bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
}

}  // namespace

// The network as services see it.
class Director::HostView final : public HostNetwork {
 public:
  explicit HostView(Network& network) : network_(network) {}
  std::shared_ptr<const Routes> routes() override { return network_.current_routes(); }
  bool owns(const IpAddress& address) const override { return network_.owns(address); }
  WayIndex acquire_way(const IpAddress& address) override { return network_.acquire_way(address); }
  void release_way(const IpAddress& address) override { network_.release_way(address); }
  bool reaches(const IpAddress& address) override { return network_.reaches(address); }
  std::optional<std::string> problem_with(const IpAddress& server) const override {
    return network_.problem_with(server);
  }

 private:
  Network& network_;
};

Director::Director(Options options, ProcessHelper helper)
    : options_(std::move(options)), processes_(loop_, std::move(helper)) {}

Director::~Director() { stop(); }

absl::Status Director::start() {
  using Step = absl::Status (Director::*)();
  constexpr Step kSteps[] = {&Director::claim_ports,  &Director::start_dpdk,
                             &Director::open_ports,   &Director::open_exception_interfaces,
                             &Director::make_workers, &Director::give_up_privileges,
                             &Director::open_control};
  // Also where nohup, or a script's &, has left them ignored.
  for (const int number : {SIGHUP, SIGINT, SIGQUIT, SIGTERM}) signals_.add(number);
  catch_signals(1, SIGRTMIN - 1);
  tasks_.start(take_signals());
  for (const Step step : kSteps) {
    if (absl::Status status = (this->*step)(); !status.ok()) return status;
    loop_.poll();
    if (told_to_end_) return absl::CancelledError("ended by a signal before it was ready");
  }
  return absl::OkStatus();
}

// ---- Ports ----

absl::Status Director::claim_ports() {
  for (const std::string& port : options_.ports) {
    PortRecord record;
    record.kind = port_kind(port);
    record.side = options_.side_of(port);
    if (record.kind == PortKind::kernel_interface) {
      auto steering = Steering::claim(port);
      if (!steering.ok()) return steering.status();
      record.steering = std::move(*steering);
      record.device = absl::StrCat("net_af_xdp", port_records_.size());
    } else if (record.kind == PortKind::vdev) {
      const std::string arguments = port.substr(std::string("vdev:").size());
      record.device = arguments.substr(0, arguments.find(','));
    } else {
      record.device = port;
    }
    port_records_.push_back(std::move(record));
  }
  return absl::OkStatus();
}

absl::Status Director::start_dpdk() {
  unsigned queues = 0;
  std::uint16_t mtu = kUsualMtu;
  for (const PortRecord& record : port_records_) {
    const Steering* const steering = record.steering.get();
    queues += steering != nullptr ? steering->queues() : options_.workers;
    const auto own =
        steering != nullptr ? static_cast<std::uint16_t>(steering->mtu()) : options_.mtu;
    mtu = std::max(mtu, own);
  }
  const unsigned buffers = kBaseBuffers + queues * kBuffersPerQueue;
  const EalPlan plan = plan_dpdk(buffers, mtu);
  if (!plan.huge_pages && !options_.normal_pages) {
    log_line(absl::StrCat("fewer than ", plan.megabytes / 2,
                          " huge pages are free, so packet buffers use normal pages and weir is "
                          "slower; scripts/huge-pages reserves them"));
  }
  if (!has_invariant_tsc()) {
    log_line(
        "this CPU does not say that its time-stamp counters run alike on all cores (invariant "
        "TSC), and weir compares them: time-outs may be early or late");
  }
  absl::Status status = make_buffers(plan, buffers, mtu);
  if (!plan.huge_pages || !absl::IsResourceExhausted(status)) return status;
  return absl::AbortedError(absl::StrCat("huge pages that were free are there no more (",
                                         status.message(),
                                         "): weir starts anew with normal pages and is slower"));
}

EalPlan Director::plan_dpdk(unsigned buffers, std::uint16_t mtu) const {
  EalPlan plan;
  plan.workers = options_.workers;
  plan.lcores = options_.lcores;
  plan.extra = options_.eal;
  for (std::size_t i = 0; i < port_records_.size(); ++i) {
    const PortRecord& record = port_records_[i];
    if (record.steering) {
      plan.devices.push_back(record.steering->vdev_arguments(static_cast<unsigned>(i)));
    } else if (record.kind == PortKind::vdev) {
      plan.devices.push_back(absl::StrCat("--vdev=", options_.ports[i].substr(5)));
    } else {
      plan.devices.push_back(absl::StrCat("--allow=", record.device));
    }
  }
  constexpr unsigned kBookkeeping = 512;  // of a buffer
  const unsigned buffer_bytes = std::max(4096U, buffer_room(mtu) + kBookkeeping);
  constexpr unsigned kMegabyte = 1U << 20;
  plan.megabytes =
      128 + buffers / (kMegabyte / buffer_bytes) + DatagramPool::megabytes(options_.workers);
  plan.huge_pages = !options_.normal_pages && free_huge_pages() >= plan.megabytes / 2;
  return plan;
}

absl::Status Director::make_buffers(const EalPlan& plan, unsigned buffers, std::uint16_t mtu) {
  if (absl::Status status = start_eal(plan); !status.ok()) return status;
  dpdk_started_ = true;
  const auto pool = make_buffer_pool(buffers, mtu);
  if (!pool.ok()) return pool.status();
  pool_ = *pool;
  largest_packet_ = largest_packet(mtu);
  auto datagrams = DatagramPool::make(options_.workers);
  if (!datagrams.ok()) return datagrams.status();
  datagrams_ = std::move(*datagrams);
  return absl::OkStatus();
}

absl::Status Director::open_port(PortRecord& record) {
  PortPlan plan;
  plan.device = record.device;
  plan.workers = options_.workers;
  if (record.steering) {
    plan.fixed_queues = record.steering->queues();
    const auto handover = record.steering->make_way();
    if (!handover.ok()) return handover.status();
    if (!handover->silent) log_line(handover->reason);
  }
  plan.side = record.side;
  // A device that has another of its own accord keeps it unless somebody asks.
  if (!record.steering && options_.mtu != kUsualMtu) plan.mtu = options_.mtu;
  auto port = Port::open(plan, *owners_, pool_);
  if (!port.ok()) {
    const absl::Status reason =
        record.steering ? record.steering->explain_failure() : absl::OkStatus();
    return reason.ok() ? port.status() : reason;
  }
  if (plan.side != PortSide::both && !port->finds_owner()) {
    log_line(absl::StrCat("port ", record.device,
                          ": the device cannot hash by one end alone, so packets reach the "
                          "workers that own them through rings"));
  }
  if (!record.steering) {
    record.filter = std::make_unique<PortFilter>(*port);
    if (port->mtu() < options_.mtu) {
      log_line(absl::StrCat("port ", record.device, ": its MTU is ", port->mtu(),
                            ", because the device takes no more (--mtu ", options_.mtu, ")"));
    }
  }
  if (!record.steering && device_leaves_checksums(record.device)) {
    log_line(absl::StrCat("port ", record.device,
                          ": senders on this host may leave it to the device to cut large TCP "
                          "segments, which weir does not: switch that off where they are "
                          "(ethtool -K INTERFACE tso off gso off)"));
  }
  ports_.push_back(*port);
  return record.steering ? record.steering->attach() : absl::OkStatus();
}

absl::Status Director::open_ports() {
  owners_ = make_owners();
  for (PortRecord& record : port_records_) {
    if (absl::Status status = open_port(record); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status Director::open_exception_interfaces() {
  for (std::uint16_t port = 0; port < ports_.size(); ++port) {
    using Use = ExceptionInterface::Use;
    auto interface =
        open_exception_interface(port, port_records_[port].steering ? Use::redirected : Use::full);
    if (!interface.ok()) return interface.status();
    exception_names_.push_back((*interface)->name());
    exception_interfaces_.push_back(std::move(*interface));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ExceptionInterface>> Director::open_exception_interface(
    std::uint16_t port, ExceptionInterface::Use use) {
  using Use = ExceptionInterface::Use;
  auto interface = ExceptionInterface::create({use, ports_[port].mac(), ports_[port].mtu()});
  exception_uses_.resize(port);
  exception_uses_.push_back(use);
  if (!interface.ok() || use != Use::redirected) return interface;
  const std::string& name = port_records_[port].steering->interface();
  const absl::Status status = redirect_into((*interface)->name(), name);
  if (status.ok()) return interface;
  log_line(absl::StrCat("what weir hands back to the kernel does not enter on ", name,
                        ", where it came from (", status.message(), "), but on ",
                        (*interface)->name(),
                        ": nftables rules by interface do not see it as they would, and "
                        "rp_filter must be 0"));
  interface->reset();
  return open_exception_interface(port, Use::injection_only);
}

// ---- Workers ----

absl::StatusOr<std::unique_ptr<TableMemory>> Director::map_tables(std::size_t bytes) {
  if (auto huge = TableMemory::map(bytes, TableMemory::Pages::huge)) {
    return std::make_unique<TableMemory>(std::move(*huge));
  }
  constexpr std::uint64_t kMegabyte = 1U << 20;
  if (bytes < available_memory()) {
    log_line(absl::StrCat("too few huge pages for a worker's connections (", bytes / kMegabyte,
                          " MB), so they use normal pages and look-ups are slower; "
                          "scripts/huge-pages reserves more"));
    if (auto normal = TableMemory::map(bytes, TableMemory::Pages::normal)) {
      return std::make_unique<TableMemory>(std::move(*normal));
    }
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "there is no memory for ", options_.connections_per_worker, " connections per worker (",
      bytes / kMegabyte, " MB each): ask for fewer with --connections-per-worker"));
}

// With a few keys some worker would have no ports of its own for fullnat.
std::unique_ptr<OwnerMap> Director::make_owners() const {
  constexpr int kAttempts = 64;  // more workers than groups cannot all have ports
  std::unique_ptr<OwnerMap> owners;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    owners = std::make_unique<OwnerMap>(random_value<OwnerMap::Key>(), options_.workers);
    const PortGroups groups(*owners, kFirstLocalPort, kLastLocalPort, 0);
    if (groups.fewest_of_any_worker() != 0) break;
  }
  return owners;
}

std::uint32_t Director::unfinished_checksum_ports() const {
  std::uint32_t ports = 0;
  for (std::size_t i = 0; i < port_records_.size(); ++i) {
    const PortRecord& record = port_records_[i];
    const bool unfinished = record.steering ? leaves_checksums(record.steering->interface())
                                            : device_leaves_checksums(record.device);
    if (unfinished) ports |= 1U << i;
  }
  return ports;
}

absl::Status Director::make_workers() {
  publisher_ = std::make_unique<Publisher>(options_.workers);
  rings_ = std::make_unique<Rings>(options_.workers);
  const std::uint32_t capacity = options_.connections_per_worker;
  const std::size_t ipv4_bytes = aligned(ConnectionTable<Ipv4Address>::bytes_for(capacity));
  const std::uint32_t ipv6_capacity = options_.ipv6_connections_per_worker;
  const std::size_t bytes = ipv4_bytes + ConnectionTable<Ipv6Address>::bytes_for(ipv6_capacity);
  const std::uint32_t now = current_tick();
  for (unsigned i = 0; i < options_.workers; ++i) {
    auto memory = map_tables(bytes);
    if (!memory.ok()) return memory.status();
    WorkerRecord record;
    record.memory = std::move(*memory);
    record.statistics = std::make_unique<WorkerStatistics>(kMaxServers);
    const auto seed = random_value<std::array<std::uint64_t, 2>>();
    std::byte* base = record.memory->data();
    record.state = std::unique_ptr<WorkerState>(new WorkerState{
        .index = i,
        .workers = options_.workers,
        .owners = owners_.get(),
        .ipv4 = ConnectionTable<Ipv4Address>(base, capacity, seed, now),
        .ipv6 = ConnectionTable<Ipv6Address>(base + ipv4_bytes, ipv6_capacity, seed, now),
        .own_statistics = record.statistics.get(),
        .statistics = {},
        .now = now,
        .unfinished_checksum_ports = unfinished_checksum_ports(),
        .next_ip_id = random_value<std::uint16_t>(),
        .next_fragment_id = random_value<std::uint32_t>() / options_.workers * options_.workers + i,
        .reassembly = Reassembly(*datagrams_, random_value<std::uint64_t>())});
    statistics_.push_back(record.statistics.get());
    states_.push_back(record.state.get());
    workers_.push_back(std::move(record));
  }
  for (WorkerState* state : states_) state->statistics = statistics_;
  services_ = std::make_unique<Services>(*publisher_, states_, current_tick);
  return absl::OkStatus();
}

void Director::launch_workers() {
  const std::vector<unsigned> lcores = worker_lcores();
  const IdleMode idle = options_.busy_poll ? IdleMode::busy_poll : IdleMode::sleep;
  for (std::size_t i = 0; i < workers_.size(); ++i) {
    WorkerRecord& record = workers_[i];
    record.worker = std::make_unique<Worker>(*record.state, ports_, *publisher_, *rings_, idle);
    record.lcore = lcores[i];
    launch_on_lcore(*record.worker, record.lcore);
  }
  workers_running_ = true;
}

// Before threads start that no signal reaches (Network's helper), which begin with what this one
// has.
absl::Status Director::give_up_privileges() { return keep_needed_privileges(); }

// ---- Control ----

absl::Status Director::open_control() {
  std::vector<PortBinding> bindings;
  for (std::uint16_t i = 0; i < ports_.size(); ++i) {
    const bool steered = port_records_[i].steering != nullptr;
    bindings.push_back({i, steered ? options_.ports[i] : exception_names_[i]});
  }
  auto network = Network::open(loop_.io(), bindings);
  if (!network.ok()) return network.status();
  network_ = std::move(*network);
  auto api = ApiServer::open(loop_, options_.socket, *services_);
  if (!api.ok()) return api.status();
  api_ = std::move(*api);

  reserved_ports_ = std::make_unique<ReservedPorts>(options_.socket + ".reserved-ports");
  services_->on_notice([](const std::string& text) { log_line(text); });
  const bool any_steered =
      std::any_of(port_records_.begin(), port_records_.end(),
                  [](const PortRecord& record) { return record.steering != nullptr; });
  services_->set_ports(options_.ports, any_steered ? Steering::kMaxMarkRules : MarkRules::kMax);
  services_->on_work([this] { schedule_work(); });
  if (any_steered) {
    services_->set_steering(
        {[this](const SteeringSizes& sizes) { return check_steering_room(sizes); },
         [this](auto changes, const auto& config) { steer(changes, config); }});
  }
  services_->set_fullnat_watch({[this](const IpAddress& server) { kernel_sources_.add(server); },
                                [this](const IpAddress& server) { kernel_sources_.remove(server); },
                                [this](std::vector<IpAddress> addresses) {
                                  kernel_sources_.set_addresses(std::move(addresses));
                                }});
  if (absl::Status status = apply_settings(); !status.ok()) return status;
  host_ = std::make_unique<HostView>(*network_);
  services_->set_host(*host_);
  network_->on_change([this](const Network::Change& change) { on_network_change(change); });
  on_network_change(
      {.ports = true, .addresses = {}, .addresses_in = network_->addresses(), .addresses_out = {}});
  launch_workers();
  exception_path_ = std::make_unique<ExceptionPath>(std::move(exception_interfaces_),
                                                    exception_uses_, *rings_, pool_);
  services_->count_also([this] { return counted_by_ports(); });
  return absl::OkStatus();
}

absl::Status Director::apply_settings() {
  Plan plan;
  for (const auto& [name, value] : options_.changed_settings) {
    plan.push_back(SetSetting{name, value});
  }
  absl::Status result;
  services_->commit(std::move(plan), [&result](const CommitResult& done) { result = done.status; });
  // Nothing runs yet that would have to be waited for.
  while (services_->work() || services_->settle()) continue;
  return result;
}

void Director::on_network_change(const Network::Change& change) {
  if (change.ports) {
    auto addresses = std::make_shared<PortAddresses>();
    for (std::uint16_t port = 0; port < ports_.size(); ++port) {
      const std::vector<MacAddress> macs = network_->macs(port);
      addresses->macs[port] = OwnMacs(macs, vlans_of(port));
      if (port_records_[port].filter != nullptr) port_records_[port].filter->pass(macs);
      if (const auto& steering = port_records_[port].steering) {
        say_once(port_records_[port], steering->set_macs(macs));
      }
    }
    addresses->broadcasts = network_->broadcasts();
    services_->ports_changed(std::move(addresses));
  }
  services_->routes_changed();
  for (const IpAddress& address : change.addresses_in) services_->host_address_comes(address);
  for (const IpAddress& address : change.addresses_out) services_->host_address_goes(address);
  const bool addresses =
      !change.addresses.empty() || !change.addresses_in.empty() || !change.addresses_out.empty();
  if (addresses) {
    services_->addresses_changed(change.addresses);
    kernel_sources_.ask_again();
  }
  if (change.ports || addresses) report_complaints();
}

// ---- The work of services, in slices ----

void Director::schedule_work() {
  if (std::exchange(work_scheduled_, true)) return;
  tasks_.start(do_work());
}

// Not at once: whoever has work for it is in the middle of something.
Task<> Director::do_work() {
  Slices slices(loop_);
  co_await slices.next();
  services_->settle();
  while (services_->work()) {
    if (!slices.is_over()) continue;
    co_await slices.next();
    services_->settle();
  }
  work_scheduled_ = false;
  if (services_->is_waiting()) await_workers();
}

// Workers adopt a version within a burst or a short sleep.
void Director::await_workers() {
  constexpr std::chrono::microseconds kPatience{100};
  if (std::exchange(awaiting_workers_, true)) return;
  adoption_timer_.expires_after(kPatience);
  adoption_timer_.async_wait([this](auto error) {
    awaiting_workers_ = false;
    if (!error) schedule_work();
  });
}

absl::Status Director::check_steering_room(const SteeringSizes& sizes) const {
  for (const PortRecord& record : port_records_) {
    if (record.steering == nullptr) continue;
    if (absl::Status status = record.steering->check_room(sizes); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void Director::say_once(PortRecord& record, const absl::Status& status) {
  const std::string error = status.ok() ? "" : std::string(status.message());
  if (!error.empty() && error != record.told_error) log_line(error);
  record.told_error = error;
}

void Director::steer(std::span<const SteeringChange> changes, const SteeringConfig& config) {
  for (std::uint16_t port = 0; port < ports_.size(); ++port) {
    PortRecord& record = port_records_[port];
    if (record.steering == nullptr) continue;
    say_once(record, record.steering->apply(changes, for_port(config, port)));
  }
}

void Director::retry_steering() {
  for (PortRecord& record : port_records_) {
    if (record.steering != nullptr) say_once(record, record.steering->retry());
  }
}

std::vector<std::uint16_t> Director::vlans_of(std::uint16_t port) const {
  std::vector<std::uint16_t> vlans;
  for (const Interface& interface : network_->routes()->interfaces()) {
    if (interface.port == port && interface.vlan != 0) vlans.push_back(interface.vlan);
  }
  return vlans;
}

void Director::report_complaints() {
  std::vector<std::string> complaints = network_->complaints();
  using Use = ExceptionInterface::Use;
  const bool injects = std::find(exception_uses_.begin(), exception_uses_.end(),
                                 Use::injection_only) != exception_uses_.end();
  if (injects) {
    if (auto complaint = injection_complaint()) complaints.push_back(*complaint);
  }
  for (const LocalAddressListing& addresses : services_->local_addresses()) {
    if (addresses.not_owned == 0) continue;
    complaints.push_back(absl::StrCat("local address ", text_of(addresses.range), ": of its ",
                                      addresses.count, " addresses ", addresses.not_owned,
                                      " are no interface's of this host, so that FullNAT gets no "
                                      "replies there"));
  }
  for (std::uint16_t port = 0; port < ports_.size(); ++port) add_complaints_about(port, complaints);
  for (const std::string& complaint : complaints) {
    const bool told = std::find(told_complaints_.begin(), told_complaints_.end(), complaint) !=
                      told_complaints_.end();
    if (!told) log_line(complaint);
  }
  told_complaints_ = std::move(complaints);
}

void Director::add_complaints_about(std::uint16_t port,
                                    std::vector<std::string>& complaints) const {
  const PortRecord& record = port_records_[port];
  if (record.filter != nullptr) {
    if (auto complaint = record.filter->complaint()) complaints.push_back(*complaint);
  }
  if (auto complaint = complaint_about_mtu(port)) complaints.push_back(*complaint);
  if (record.steering == nullptr) return;
  const absl::Status status = record.steering->still_there();
  if (!status.ok()) complaints.emplace_back(status.message());
  const auto queues = receive_queues(record.steering->interface());
  if (queues && *queues > record.steering->queues()) {
    complaints.push_back(
        absl::StrCat(options_.ports[port], " has ", *queues,
                     " receive queues now, and weir serves ", record.steering->queues(),
                     " since its start: what arrives at the others for services is lost; take them "
                     "away again (ethtool -L), or start weir anew"));
  }
}

std::optional<std::string> Director::complaint_about_mtu(std::uint16_t port) const {
  const bool steered = port_records_[port].steering != nullptr;
  const unsigned most = steered ? largest_packet_ : ports_[port].mtu();
  for (const Interface& interface : network_->routes()->interfaces()) {
    if (interface.port != port || interface.mtu <= most) continue;
    return absl::StrCat(
        "the MTU of ", steered ? options_.ports[port] : exception_names_[port], " is ",
        interface.mtu, " now, and ",
        steered ? "weir's buffers hold packets of " : "that of its port ", most,
        ", as at the start: larger ones are lost (lost_by_device in `weirctl show counters`); ",
        steered ? "start weir anew" : "start weir with --mtu", ", or set the MTU back");
  }
  return std::nullopt;
}

Services::Counted Director::counted_by_ports() const {
  std::uint64_t missed = 0;
  for (const Port& port : ports_) missed += port.missed();
  const ExceptionPath::Counters& kernel = exception_path_->counters();
  return {{"lost_by_device", missed},
          {"lost_to_kernel", kernel.lost_to_kernel.read()},
          {"lost_from_kernel", kernel.lost_from_kernel.read()}};
}

// Where the kernel would send from fullnat's addresses, too, it gets other ports than fullnat.
void Director::reserve_local_ports() {
  if (kernel_sources_.step()) {
    boost::asio::post(loop_.io(), [this] { reserve_local_ports(); });
    return;
  }
  const bool wanted = kernel_sources_.any();
  if (wanted == reserves_ports_) return;
  PortSet ports;
  if (wanted) {
    for (unsigned port = kFirstLocalPort; port <= kLastLocalPort; ++port) ports.set(port);
  }
  const absl::Status status = reserved_ports_->reserve(ports);
  if (status.ok()) reserves_ports_ = wanted;
  const std::string error = status.ok() ? "" : std::string(status.message());
  if (!error.empty() && error != told_reservation_error_) log_line(error);
  told_reservation_error_ = error;
}

void Director::watch_links() {
  constexpr const char* kWords[] = {"is up", "is down", "was deleted; weir goes on without it"};
  for (std::uint16_t port = 0; port < ports_.size(); ++port) {
    const Network::LinkState state = network_->link_state(port);
    if (state == port_records_[port].last_state) continue;
    port_records_[port].last_state = state;
    log_line(
        absl::StrCat("port ", options_.ports[port], " ", kWords[static_cast<std::size_t>(state)]));
  }
}

// A neighbour that is missed while none has been for a while is asked for at once; others wait for
// look_for_misses(), so that a flood of them costs no more than that.
void Director::await_misses() {
  missed_->async_wait(boost::asio::posix::stream_descriptor::wait_read, [this](auto error) {
    if (error) return;
    rings_->missed().answer();
    drain_misses();
    await_misses();
  });
}

void Director::look_for_misses() {
  rings_->missed().listen();
  drain_misses();
}

void Director::drain_misses() {
  std::array<NeighbourMiss, 64> misses;
  for (unsigned worker = 0; worker < workers_.size(); ++worker) {
    const unsigned count = rings_->misses(worker).take(misses);
    for (unsigned i = 0; i < count; ++i) {
      network_->neighbour_missing(misses[i].interface, misses[i].address);
    }
  }
}

void Director::mark_used_next_hops() {
  std::vector<NextHopIndex> used;
  const NextHopIndex count = network_->next_hop_end();
  for (NextHopIndex index = 0; index < count; ++index) {
    bool any = false;
    for (const WorkerRecord& record : workers_) any = record.worker->take_used(index) || any;
    if (any) used.push_back(index);
  }
  network_->mark_used(used);
}

void Director::keep_house() {
  if (services_->housekeeping()) boost::asio::post(loop_.io(), [this] { keep_house(); });
}

void Director::watch_local_ports() {
  std::uint64_t dropped = 0;
  for (const WorkerStatistics* statistics : statistics_) {
    dropped += statistics->outcomes[static_cast<std::size_t>(Outcome::drop_no_local_port)].read();
  }
  const std::uint64_t more = dropped - std::exchange(told_without_port_, dropped);
  if (more == 0) return;
  log_line(absl::StrCat("FullNAT has no free local port for some connections (drop_no_local_port: ",
                        more, " packets): give it more addresses with `weirctl add local-address`"),
           Severity::warning);
}

void Director::estimate_rates() { services_->estimate_some_rates(); }

void Director::repeat(LoopClock::duration interval, void (Director::*job)()) {
  tasks_.start(every(loop_, interval, [this, job] { (this->*job)(); }));
}

bool Director::has_services() const {
  return services_->steering_sizes().services != 0 || !services_->mark_rules().empty();
}

// Services are made one by one: those of the weir before that are still to come have silence until
// nothing has changed for a while.
Task<> Director::lift_guards() {
  constexpr std::chrono::seconds kLook{1};
  constexpr int kQuietLooks = 5;
  const ServiceIndex* before = nullptr;
  for (int quiet = 0; quiet < kQuietLooks;) {
    co_await sleep_for(loop_, kLook);
    const ServiceIndex* const index = &services_->index();
    quiet = has_services() && index == before ? quiet + 1 : 0;
    before = index;
  }
  for (const PortRecord& record : port_records_) {
    if (record.steering == nullptr) continue;
    if (absl::Status status = record.steering->lift_guard(); !status.ok()) {
      log_line(std::string(status.message()));
    }
  }
}

// Before the ports close.
void Director::end_silence_or_keep_it() {
  for (const PortRecord& record : port_records_) {
    if (record.steering == nullptr) continue;
    absl::Status status;
    if (options_.on_exit == OnExit::release) {
      status = record.steering->lift_guard();
    } else if (has_services()) {
      status = record.steering->keep_silence();
    }
    if (!status.ok()) log_line(std::string(status.message()), Severity::error);
  }
}

// Of the signals from `first` on those that would end the process and can be caught, but its own
// faults (SIGSEGV and the like), and those that somebody handles.
void Director::catch_signals(int first, int last) {
  constexpr std::array kOthers = {SIGILL, SIGTRAP,  SIGABRT, SIGBUS,  SIGFPE,  SIGSEGV,
                                  SIGSYS, SIGKILL,  SIGSTOP, SIGPIPE, SIGCHLD, SIGCONT,
                                  SIGURG, SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU};
  for (int number = first; number <= last; ++number) {
    if (std::find(kOthers.begin(), kOthers.end(), number) != kOthers.end()) continue;
    struct sigaction present {};
    if (sigaction(number, nullptr, &present) != 0 || present.sa_handler != SIG_DFL) continue;
    boost::system::error_code error;
    signals_.add(number, error);
  }
}

Task<> Director::take_signals() {
  while (!told_to_end_) {
    const auto [error, number] = co_await signals_.async_wait(in_task);
    if (error) co_return;
    if (number == SIGHUP) {
      log_line("SIGHUP is for reading the configuration again, which weir cannot do yet: ignored");
    } else if (number == SIGUSR1 || number == SIGUSR2) {
      log_line(absl::StrCat(strsignal(number), ": weir does nothing with this signal"));
    } else {
      told_to_end_ = true;
    }
  }
  loop_.stop();
}

void Director::run() {
  // DPDK's drivers have taken theirs by now.
  catch_signals(SIGRTMIN, SIGRTMAX);
  missed_ = std::make_unique<boost::asio::posix::stream_descriptor>(loop_.io(),
                                                                    dup(rings_->missed().fd()));
  await_misses();
  repeat(milliseconds(5), &Director::look_for_misses);
  repeat(milliseconds(50), &Director::keep_house);
  repeat(milliseconds(1000), &Director::watch_links);
  repeat(std::chrono::seconds(10), &Director::mark_used_next_hops);
  repeat(std::chrono::seconds(10), &Director::report_complaints);
  repeat(std::chrono::seconds(1), &Director::watch_local_ports);
  repeat(milliseconds(1000 * RateEstimator::kIntervalSeconds / Services::kRateSlices),
         &Director::estimate_rates);
  repeat(milliseconds(50), &Director::reserve_local_ports);
  repeat(milliseconds(1000), &Director::retry_steering);
  bool guarded = false;
  for (std::size_t i = 0; i < ports_.size(); ++i) {
    const auto& steering = port_records_[i].steering;
    if (steering != nullptr && steering->is_guarded()) {
      guarded = true;
      log_line(absl::StrCat("clients of the services that were on ", options_.ports[i],
                            " before see silence until weir has services; `",
                            steering->command_to_lift(), "` leaves them to the kernel"));
    }
    if (steering == nullptr) {
      log_line(absl::StrCat("port ", options_.ports[i], ": its interface for the kernel is ",
                            exception_names_[i], "; give it the host's addresses"));
    }
  }
  if (guarded) tasks_.start(lift_guards());
  log_line(absl::StrCat("ready: ", ports_.size(), ports_.size() == 1 ? " port, " : " ports, ",
                        workers_.size(), workers_.size() == 1 ? " worker, " : " workers, ",
                        options_.connections_per_worker, " connections each, socket ",
                        options_.socket));
  loop_.run();
}

// Backwards: what uses a thing ends before the thing. Also after a start that failed half-way.
void Director::stop() {
  api_.reset();
  if (workers_running_) {
    end_silence_or_keep_it();
    for (WorkerRecord& record : workers_) record.worker->stop();
    for (WorkerRecord& record : workers_) wait_for_lcore(record.lcore);
    workers_running_ = false;
  }
  exception_path_.reset();
  exception_interfaces_.clear();
  if (reserved_ports_ != nullptr) {
    if (absl::Status status = reserved_ports_->restore(); !status.ok()) {
      log_line(std::string(status.message()));
    }
  }
  services_.reset();
  host_.reset();
  network_.reset();
  workers_.clear();
  publisher_.reset();
  for (Port& port : ports_) port.close();
  ports_.clear();
  for (PortRecord& record : port_records_) {
    if (record.steering == nullptr) continue;
    if (absl::Status status = record.steering->release(); !status.ok()) {
      log_line(std::string(status.message()));
    }
  }
  port_records_.clear();
  datagrams_.reset();
  if (dpdk_started_) stop_eal();
  dpdk_started_ = false;
}

}  // namespace weir
