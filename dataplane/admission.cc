// SPDX-License-Identifier: Apache-2.0
#include "dataplane/admission.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <optional>
#include <type_traits>

#include "dataplane/client_address.h"
#include "dataplane/local_ports.h"

namespace weir {
namespace {

constexpr std::uint32_t kMinusOne = 0xffffffffU;
constexpr std::uint16_t kFtp = 21;
constexpr std::uint16_t kFtpData = 20;
// A companion does not end by itself.
constexpr std::uint32_t kCompanionTicks = 1U << 30U;

// ---- Loads and thresholds ----

// The load of all workers; a real server is closed by its thresholds or because this packet has
// been refused there.
class OpenServers final : public LoadView {
 public:
  OpenServers(std::span<WorkerStatistics* const> statistics, const SharedServers& shared) noexcept
      : statistics_(statistics), shared_(shared) {}
  Load load(ServerSlot slot) const noexcept override {
    Load sum;
    for (const WorkerStatistics* worker : statistics_) {
      const Load load = worker->loads[slot].read();
      sum.active += load.active;
      sum.inactive += load.inactive;
    }
    return sum;
  }
  bool overloaded(ServerSlot slot) const noexcept override {
    if (shared_[slot].overloaded.load(std::memory_order_relaxed)) return true;
    return std::find(refused_.begin(), refused_.begin() + count_, slot) !=
           refused_.begin() + count_;
  }
  // False: too many have refused already.
  bool refuse(ServerSlot slot) noexcept {
    if (static_cast<std::size_t>(count_) == refused_.size()) return false;
    refused_[static_cast<std::size_t>(count_++)] = slot;
    return true;
  }
  bool any_refused() const noexcept { return count_ != 0; }

 private:
  std::span<WorkerStatistics* const> statistics_;
  const SharedServers& shared_;
  std::array<ServerSlot, 8> refused_;
  std::ptrdiff_t count_ = 0;
};

std::uint32_t connections_of(const WorkerState& worker, ServerSlot slot) noexcept {
  std::uint32_t sum = 0;
  for (const WorkerStatistics* each : worker.statistics)
    sum += each->loads[slot].connections.read();
  return sum;
}

// ip_vs_bind_dest.
void close_at_threshold(const WorkerState& worker, const Snapshot& snapshot,
                        const RealServer& server) noexcept {
  if (server.upper_threshold == 0) return;
  if (connections_of(worker, server.slot) < server.upper_threshold) return;
  (*snapshot.shared)[server.slot].overloaded.store(true, std::memory_order_relaxed);
}

// ip_vs_unbind_dest.
void reopen_below_threshold(const WorkerState& worker, const Snapshot& snapshot,
                            const RealServer& server) noexcept {
  auto& overloaded = (*snapshot.shared)[server.slot].overloaded;
  if (!overloaded.load(std::memory_order_relaxed)) return;
  const std::uint64_t connections = connections_of(worker, server.slot);
  bool open = true;
  if (server.lower_threshold != 0) {
    open = connections < server.lower_threshold;
  } else if (server.upper_threshold != 0) {
    open = connections * 4 < std::uint64_t{server.upper_threshold} * 3;
  }
  if (open) overloaded.store(false, std::memory_order_relaxed);
}

void tell_scheduler(WorkerState& worker, const Snapshot& snapshot, ServiceSlot service,
                    ServerSlot slot) noexcept {
  const Service* changed = snapshot.services[service];
  if (changed == nullptr) return;
  (*changed->schedulers)[worker.index].scheduler->load_changed(slot);
}

// ---- Choosing a real server ----

template <class Address>
std::span<const std::uint8_t> bytes_of(const Address& address) noexcept {
  return std::span(reinterpret_cast<const std::uint8_t*>(&address), sizeof address);
}

// The scheduler's choice, or null.
template <class Address>
const RealServer* pick_server(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                              const FlowKey<Address>& key, const OpenServers& loads) noexcept {
  WorkerScheduler& state = (*service.schedulers)[worker.index];
  replay_edits(state, service);
  const Settings& settings = *snapshot.settings;
  const ServerSlot slot = state.scheduler->pick({.candidates = service.candidates,
                                                 .loads = loads,
                                                 .table = service.table.get(),
                                                 .client_address = bytes_of(key.source),
                                                 .destination_address = bytes_of(key.destination),
                                                 .client_port = key.source_port.host(),
                                                 .now_ms = worker.now_ms,
                                                 .lblc_expiration = settings.lblc_expiration,
                                                 .lblcr_expiration = settings.lblcr_expiration});
  if (slot == kNoServer) return nullptr;
  return snapshot.servers[slot];
}

// ---- Templates ----

// Below: controller = worker that has the template, and its index there.
constexpr std::uint32_t kIndexBits = 24;
constexpr std::uint32_t kIndexMask = (1U << kIndexBits) - 1;
// After a template's time it stays this long for the connections that it controls.
constexpr std::uint32_t kControllingTicks = 60 * kTicksPerSecond;
constexpr std::uint16_t kInvalidPort = 0xffff;

template <class Address>
Address mark_as_address(std::uint32_t fwmark) noexcept {
  std::array<std::uint8_t, sizeof(Address)> bytes{};
  const auto mark = std::bit_cast<std::array<std::uint8_t, 4>>(Be32::from_host(fwmark));
  std::copy(mark.begin(), mark.end(), bytes.begin());
  return std::bit_cast<Address>(bytes);
}

template <class Address>
Address masked(const Address& address, const std::array<std::uint8_t, 16>& mask) noexcept {
  auto bytes = std::bit_cast<std::array<std::uint8_t, sizeof(Address)>>(address);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] &= mask[i];
  return std::bit_cast<Address>(bytes);
}

// FTP's control and data connections share a template, and so do all ports of a service for every
// port and all that carries one fwmark.
bool is_for_one_port(const Service& service, Be16 port) noexcept {
  return service.key.fwmark == 0 && port.host() == service.key.port && service.key.port != kFtp;
}

template <class Address>
FlowKey<Address> template_key(const Service& service, const FlowKey<Address>& flow) noexcept {
  FlowKey<Address> key{};
  key.source = masked(flow.source, service.persistence.mask);
  key.destination = flow.destination;
  auto protocol = static_cast<std::uint16_t>(flow.protocol);
  if (service.key.fwmark != 0) {
    key.destination = mark_as_address<Address>(service.key.fwmark);
    protocol = static_cast<std::uint16_t>(Protocol::ip);
  }
  key.source_port = Be16::from_host(protocol);
  if (is_for_one_port(service, flow.destination_port)) key.destination_port = flow.destination_port;
  key.protocol = Protocol::ip;
  key.direction = Direction::inbound;
  return key;
}

// ip_vs_check_template.
bool may_be_used(const Settings& settings, const RealServer* server) noexcept {
  if (server == nullptr || !server->available) return false;
  return !settings.expire_quiescent_template || server->weight != 0;
}

// Nobody finds it any more; it stays for the connections that it controls.
template <class Address>
void invalidate(ConnectionTable<Address>& table, std::uint32_t index) noexcept {
  table.hide(index);
  set_field(table[index].virtual_port, Be16::from_host(kInvalidPort));
  set_field(table[index].server_port, Be16::from_host(kInvalidPort));
}

// What has been chosen; no server: `refusal` says why.
struct Choice {
  const RealServer* server = nullptr;
  std::uint32_t controller = kNoController;
  Outcome refusal = Outcome::drop_no_server_unanswered;
};

template <class Address>
std::optional<std::uint32_t> open_template(WorkerState& worker, const Service& service,
                                           const FlowKey<Address>& key, Be16 port,
                                           const RealServer& server) noexcept {
  Connection<Address> record{};
  record.client = key.source;
  record.virtual_address = key.destination;
  record.client_port = key.source_port;
  record.virtual_port = key.destination_port;
  if (is_for_one_port(service, port)) record.server_port = server.port;
  if (server.address.is_ipv4() == (sizeof(Address) == sizeof(Ipv4Address))) {
    record.server = address_of<Address>(server.address);
  }
  record.protocol = Protocol::ip;
  record.flags = static_cast<std::uint16_t>(kTemplate | static_cast<unsigned>(server.mode));
  record.server_slot = server.slot;
  record.service_slot = server.service;
  record.controller = kNoController;
  record.deadline = worker.now + service.persistence.timeout * kTicksPerSecond;
  const auto index = worker.table<Address>().open(record);
  if (index) worker.own().loads[server.slot].templates.add(1);
  return index;
}

template <class Address>
Choice choose_by_template(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                          const FlowKey<Address>& flow) noexcept {
  auto& table = worker.table<Address>();
  const FlowKey<Address> key = template_key(service, flow);
  std::uint32_t index = table.find_one(key);
  if (index != kNoConnection &&
      !may_be_used(*snapshot.settings, snapshot.servers[table[index].server_slot])) {
    invalidate(table, index);
    index = kNoConnection;
  }
  if (index == kNoConnection) {
    const OpenServers loads(worker.statistics, *snapshot.shared);
    const RealServer* server = pick_server(worker, snapshot, service, flow, loads);
    if (server == nullptr) return {};
    const auto opened = open_template(worker, service, key, flow.destination_port, *server);
    if (!opened) return {.refusal = Outcome::drop_table_full};
    index = *opened;
  }
  table.set_deadline(index, worker.now + service.persistence.timeout * kTicksPerSecond);
  Choice choice{.server = snapshot.servers[table[index].server_slot]};
  // A table beyond the reach of these bits has templates that end without regard to connections.
  if (index <= kIndexMask && worker.index < (kNoController >> kIndexBits)) {
    set_field(table[index].packets_in, table[index].packets_in + 1);
    choice.controller = worker.index << kIndexBits | index;
  }
  return choice;
}

// ---- Who chooses ----

template <class Address>
unsigned chooser_of(const WorkerState& worker, const Service& service,
                    const FlowKey<Address>& flow) noexcept {
  if (worker.workers == 1) return worker.index;
  if (service.persistence.timeout != 0) {
    const FlowKey<Address> key = template_key(service, flow);
    return worker.owners->owner(key.source, key.destination_port);
  }
  if ((*service.schedulers)[worker.index].scheduler->asks_one_owner()) {
    return worker.owners->owner(flow.destination, Be16{});
  }
  return worker.index;
}

template <class Address>
TemplateNotice notice_to(std::uint32_t controller, TemplateNotice::Kind kind) noexcept {
  constexpr Family kFamily = sizeof(Address) == sizeof(Ipv4Address) ? Family::ipv4 : Family::ipv6;
  return {kind, kFamily, static_cast<std::uint16_t>(controller >> kIndexBits),
          controller & kIndexMask};
}

// Of a connection that ends. False: it cannot be told now.
template <class Address>
bool release_controller(WorkerState& worker, std::uint32_t controller,
                        TemplateNotice::Kind kind) noexcept {
  if (controller == kNoController) return true;
  const TemplateNotice notice = notice_to<Address>(controller, kind);
  if (notice.owner != worker.index) return worker.notices.put(notice);
  take_notice(worker, notice);
  return true;
}

// Of a connection that has not come to be.
template <class Address>
void give_back(WorkerState& worker, std::uint32_t controller) noexcept {
  if (controller == kNoController) return;
  const auto notice = notice_to<Address>(controller, TemplateNotice::Kind::released);
  if (notice.owner == worker.index) {
    take_notice(worker, notice);
  } else {
    worker.notices.put_at_once(notice);
  }
}

// ---- Opening ----

// Nothing from port 20, where active FTP sends from, opens a connection. Only a SYN opens one of
// TCP, unless sloppy_tcp; a RST never does. Only an INIT opens an SCTP connection, unless
// sloppy_sctp; an ABORT never does.
bool may_open(const Settings& settings, const Packet& packet, Protocol protocol,
              Be16 source_port) noexcept {
  if (packet.icmp_error || source_port == Be16::from_host(kFtpData)) return false;
  if (protocol == Protocol::sctp) {
    return packet.sctp_event == SctpEvent::init ||
           (settings.sloppy_sctp && packet.sctp_event != SctpEvent::abort);
  }
  if (protocol != Protocol::tcp) return true;
  if ((packet.tcp_flags & TcpHeader::kRst) != 0) return false;
  return settings.sloppy_tcp || (packet.tcp_flags & TcpHeader::kSyn) != 0;
}

// A service for one port takes what belongs to another, FTP's data, only where it is persistent.
bool serves_port(const Service& service, Be16 port) noexcept {
  return service.persistence.timeout != 0 || service.key.fwmark != 0 ||
         port.host() == service.key.port;
}

bool is_proxied(const Service& service, Protocol protocol, ForwardMode mode) noexcept {
  return mode == ForwardMode::fullnat && protocol == Protocol::udp &&
         service.client_address == ClientAddress::proxy;
}

template <class Address>
Connection<Address> new_connection(const WorkerState& worker, const Service& service,
                                   const FlowKey<Address>& key, const Choice& choice) noexcept {
  const RealServer& server = *choice.server;
  Connection<Address> connection{};
  connection.client = key.source;
  connection.virtual_address = key.destination;
  connection.client_port = key.source_port;
  connection.virtual_port = key.destination_port;
  connection.server_port = server_port(service, server, key.destination_port);
  // Of the other family only in a tunnel or by translation, which go by the real server's slot.
  if (server.address.is_ipv4() == (sizeof(Address) == sizeof(Ipv4Address))) {
    connection.server = address_of<Address>(server.address);
  }
  connection.protocol = key.protocol;
  connection.flags = static_cast<std::uint16_t>(static_cast<unsigned>(server.mode) | kInactive);
  if (server.mode == ForwardMode::nat) connection.flags |= kOutputSeen | kReplyIndexed;
  if (server.mode == ForwardMode::fullnat) connection.flags |= kOutputSeen;
  if (is_proxied(service, key.protocol, server.mode)) connection.flags |= kProxied;
  connection.deadline = worker.now + kTicksPerSecond;
  connection.server_slot = server.slot;
  // Not always `service`: those for FTP and for all ports share their templates.
  connection.service_slot = server.service;
  connection.controller = choice.controller;
  connection.idle_timeout = static_cast<std::uint16_t>(std::min(service.idle_timeout, 0xffffU));
  return connection;
}

void count_opened(WorkerState& worker, const Snapshot& snapshot,
                  const RealServer& server) noexcept {
  worker.own().loads[server.slot].connections.add(1);
  worker.own().servers[server.slot].connections.add(1);
  close_at_threshold(worker, snapshot, server);
  tell_scheduler(worker, snapshot, server.service, server.slot);
}

// ---- Fullnat: the director's own end ----

// The end towards a real server of Address's family, which may be another than the client's.
template <class Address>
std::optional<LocalEnd<Address>> choose_local_end(WorkerState& worker, const Service& service,
                                                  const RealServer& server, Be16 server_port,
                                                  Protocol protocol,
                                                  std::uint64_t client) noexcept {
  const auto& table = worker.table<Address>();
  FlowKey<Address> reply{};
  reply.source = address_of<Address>(server.address);
  reply.source_port = server_port;
  reply.protocol = protocol;
  reply.direction = Direction::reply;
  return (*service.local_ports)[worker.index].template choose<Address>(
      client, worker.own().local_address_exhausted,
      [&](std::span<const LocalEnd<Address>> ends) { return first_free(table, reply, ends); });
}

// For a NAT64 connection that is to be opened: what its replies are found by. It stays as long as
// the connection does.
template <class Address, class Client>
std::optional<std::uint32_t> open_companion(WorkerState& worker,
                                            const Connection<Client>& connection,
                                            const RealServer& server,
                                            const LocalEnd<Address>& end) noexcept {
  Connection<Address> companion{};
  companion.server = address_of<Address>(server.address);
  companion.server_port = connection.server_port;
  companion.local = end.address;
  companion.local_port = end.port;
  companion.protocol = connection.protocol;
  companion.flags = static_cast<std::uint16_t>(static_cast<unsigned>(ForwardMode::fullnat) |
                                               kCompanion | kReplyIndexed);
  companion.server_slot = connection.server_slot;
  companion.service_slot = connection.service_slot;
  companion.deadline = worker.now + kCompanionTicks;
  return worker.table<Address>().open(companion);
}

template <class Address>
Outcome give_local_end(WorkerState& worker, const Service& service, const RealServer& server,
                       Connection<Address>& connection) noexcept {
  using Other = OtherFamily<Address>;
  const std::uint64_t client = std::hash<IpAddress>{}(connection.client);
  if (server.address.is_ipv4() == std::is_same_v<Address, Ipv4Address>) {
    const auto end = choose_local_end<Address>(worker, service, server, connection.server_port,
                                               connection.protocol, client);
    if (!end) return Outcome::drop_no_local_port;
    connection.local = end->address;
    connection.local_port = end->port;
    connection.flags |= kReplyIndexed;
    return Outcome::undecided;
  }
  const auto end = choose_local_end<Other>(worker, service, server, connection.server_port,
                                           connection.protocol, client);
  if (!end) return Outcome::drop_no_local_port;
  const auto companion = open_companion(worker, connection, server, *end);
  if (!companion) return Outcome::drop_table_full;
  connection.flags |= kTranslated;
  connection.set_companion(*companion);
  return Outcome::undecided;
}

// The reply finds the companion, the companion the connection.
template <class Address>
void settle_fullnat(WorkerState& worker, const Service& service, const Packet& packet,
                    std::uint32_t index) noexcept {
  constexpr Family kFamily = std::is_same_v<Address, Ipv4Address> ? Family::ipv4 : Family::ipv6;
  auto& table = worker.table<Address>();
  const auto& connection = table[index];
  if (connection.has(kTranslated)) {
    auto& companions = worker.table<OtherFamily<Address>>();
    set_field(companions[connection.companion()].controller, index);
  }
  table.shift(index) = connection.protocol == Protocol::tcp
                           ? begin_shift(packet, service.client_address, kFamily)
                           : SequenceShift{};
}

template <class Address>
void close_companion(WorkerState& worker, const Connection<Address>& connection) noexcept {
  if (connection.has(kTranslated)) {
    worker.table<OtherFamily<Address>>().close(connection.companion());
  }
}

// Sets packet.connection. Otherwise the outcome says why not.
template <class Address>
Outcome add_connection(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                       Packet& packet, const Choice& choice) noexcept {
  auto& table = worker.table<Address>();
  auto connection = new_connection(worker, service, packet.key<Address>(), choice);
  const bool fullnat = connection.mode() == ForwardMode::fullnat;
  if (fullnat) {
    const Outcome outcome = give_local_end(worker, service, *choice.server, connection);
    if (outcome != Outcome::undecided) return outcome;
  } else if (connection.has(kReplyIndexed) && table.holds_reply_key(connection)) {
    return Outcome::drop_reply_ambiguous;
  }
  const auto index = table.open(connection);
  if (!index) {
    close_companion(worker, connection);
    return Outcome::drop_table_full;
  }
  packet.connection = *index;
  if (fullnat) settle_fullnat<Address>(worker, service, packet, *index);
  count_opened(worker, snapshot, *choice.server);
  return Outcome::undecided;
}

bool is_one_packet(const Service& service, Protocol protocol) noexcept {
  return service.one_packet && protocol == Protocol::udp;
}

// With what has been chosen: the connection, or the way of this packet alone.
template <class Address>
Outcome admit(WorkerState& worker, const Snapshot& snapshot, const Service& service, Packet& packet,
              const Choice& choice) noexcept {
  const bool alone = is_one_packet(service, packet.key<Address>().protocol);
  // Fullnat's own end is the connection's.
  if (!alone || choice.server->mode == ForwardMode::fullnat) {
    return add_connection<Address>(worker, snapshot, service, packet, choice);
  }
  packet.server = choice.server->slot;
  worker.own().servers[packet.server].connections.add(1);
  give_back<Address>(worker, choice.controller);
  return Outcome::undecided;
}

// The scheduler's choice, or the next one after it where replies would be ambiguous.
template <class Address>
Outcome admit_by_scheduler(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                           Packet& packet) noexcept {
  OpenServers loads(worker.statistics, *snapshot.shared);
  for (;;) {
    const RealServer* server = pick_server(worker, snapshot, service, packet.key<Address>(), loads);
    if (server == nullptr) {
      return loads.any_refused() ? Outcome::drop_reply_ambiguous
                                 : Outcome::drop_no_server_unanswered;
    }
    const Outcome outcome =
        admit<Address>(worker, snapshot, service, packet, Choice{.server = server});
    if (outcome != Outcome::drop_reply_ambiguous || !loads.refuse(server->slot)) return outcome;
  }
}

template <class Address>
Outcome admit_choice(WorkerState& worker, const Snapshot& snapshot, const Service& service,
                     Packet& packet, const Choice& choice) noexcept {
  const Outcome outcome = choice.server == nullptr
                              ? choice.refusal
                              : admit<Address>(worker, snapshot, service, packet, choice);
  if (outcome != Outcome::undecided) give_back<Address>(worker, choice.controller);
  packet.errand.kind = Errand::Kind::none;
  return outcome;
}

// What the packet has brought from the worker that chose, perhaps by a later snapshot.
Choice brought_choice(const Snapshot& snapshot, const Errand& errand) noexcept {
  const RealServer* server =
      errand.server < snapshot.servers.size() ? snapshot.servers[errand.server] : nullptr;
  const bool same =
      server != nullptr && server->generation == errand.generation && server->available;
  return {.server = same ? server : nullptr,
          .controller = errand.controller,
          .refusal = Outcome::drop_server_removed};
}

}  // namespace

Be16 server_port(const Service& service, const RealServer& server, Be16 asked) noexcept {
  const bool fixed = service.persistence.timeout == 0 || asked.host() == service.key.port;
  return fixed && server.port != Be16{} ? server.port : asked;
}

void replay_edits(WorkerScheduler& state, const Service& service) noexcept {
  for (std::uint64_t next = state.edits_applied.read(); next < service.end_of_edits(); ++next) {
    state.scheduler->apply(service.edits[next - service.first_edit]);
    state.edits_applied.add(1);
  }
}

void count_active(WorkerState& worker, const Snapshot& snapshot, ServiceSlot service,
                  ServerSlot slot, std::uint32_t change) noexcept {
  worker.own().loads[slot].active.add(change);
  tell_scheduler(worker, snapshot, service, slot);
}

template <class Address>
void open_connection(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const Service& service = *snapshot.services[packet.service];
  const auto& key = packet.key<Address>();
  if (service.removed || !may_open(*snapshot.settings, packet, key.protocol, key.source_port)) {
    packet.outcome = Outcome::kernel_no_connection;
    return;
  }
  if (!serves_port(service, key.destination_port)) {
    packet.outcome = Outcome::kernel_not_a_service;
    return;
  }
  const auto& table = worker.table<Address>();
  if (table.size() == table.capacity() && !is_one_packet(service, key.protocol)) {
    packet.outcome = Outcome::drop_table_full;
    return;
  }
  if (packet.errand.kind == Errand::Kind::answer) {
    packet.outcome = admit_choice<Address>(worker, snapshot, service, packet,
                                           brought_choice(snapshot, packet.errand));
    return;
  }
  const unsigned chooser = chooser_of(worker, service, key);
  if (chooser != worker.index) {
    packet.errand.kind = Errand::Kind::question;
    packet.owner = static_cast<std::uint16_t>(chooser);
    packet.outcome = Outcome::handed_to_chooser;
  } else if (service.persistence.timeout != 0) {
    const Choice choice = choose_by_template(worker, snapshot, service, key);
    packet.outcome = admit_choice<Address>(worker, snapshot, service, packet, choice);
  } else {
    packet.outcome = admit_by_scheduler<Address>(worker, snapshot, service, packet);
  }
}

template <class Address>
void answer_question(WorkerState& worker, const Snapshot& snapshot, Packet& packet) noexcept {
  const Service& service = *snapshot.services[packet.service];
  const auto& key = packet.key<Address>();
  packet.errand.kind = Errand::Kind::none;
  packet.owner = static_cast<std::uint16_t>(worker.owners->owner(key.source, key.source_port));
  packet.outcome = Outcome::handed_to_owner;
  if (service.removed || chooser_of(worker, service, key) != worker.index) return;
  Choice choice;
  if (service.persistence.timeout != 0) {
    choice = choose_by_template(worker, snapshot, service, key);
  } else {
    const OpenServers loads(worker.statistics, *snapshot.shared);
    choice.server = pick_server(worker, snapshot, service, key, loads);
  }
  if (choice.server == nullptr) {
    packet.outcome = choice.refusal;
    return;
  }
  packet.errand = {Errand::Kind::answer, choice.server->slot, choice.server->generation,
                   choice.controller};
}

void forget_answer(WorkerState& worker, const Packet& packet) noexcept {
  if (packet.errand.kind != Errand::Kind::answer) return;
  if (packet.family == Family::ipv4) {
    give_back<Ipv4Address>(worker, packet.errand.controller);
  } else {
    give_back<Ipv6Address>(worker, packet.errand.controller);
  }
}

namespace {

// False: a template that controls connections, or a controlled connection whose template cannot be
// told now.
template <class Address>
bool end_connection(WorkerState& worker, const Snapshot& snapshot, std::uint32_t index,
                    TemplateNotice::Kind told) noexcept {
  auto& table = worker.table<Address>();
  const auto& connection = table[index];
  ServerLoad& load = worker.own().loads[connection.server_slot];
  if (connection.has(kCompanion)) return false;
  if (connection.has(kTemplate)) {
    if (connection.packets_in != 0) return false;
    load.templates.add(kMinusOne);
    table.close(index);
    return true;
  }
  if (!release_controller<Address>(worker, connection.controller, told)) return false;
  const ServiceSlot service = connection.service_slot;
  const ServerSlot slot = connection.server_slot;
  if (!connection.has(kInactive)) load.active.add(kMinusOne);
  load.connections.add(kMinusOne);
  close_companion(worker, connection);
  table.close(index);
  if (const RealServer* server = snapshot.servers[slot]) {
    reopen_below_threshold(worker, snapshot, *server);
  }
  tell_scheduler(worker, snapshot, service, slot);
  return true;
}

}  // namespace

template <class Address>
bool close_connection(WorkerState& worker, const Snapshot& snapshot, std::uint32_t index) noexcept {
  auto& table = worker.table<Address>();
  std::uint32_t more = table[index].has(kTemplate) ? kControllingTicks : kTicksPerSecond;
  if (table[index].has(kCompanion)) more = kCompanionTicks;
  if (end_connection<Address>(worker, snapshot, index, TemplateNotice::Kind::released)) return true;
  table.set_deadline(index, worker.now + more);
  return false;
}

template <class Address>
bool give_up_connection(WorkerState& worker, const Snapshot& snapshot,
                        std::uint32_t index) noexcept {
  return end_connection<Address>(worker, snapshot, index, TemplateNotice::Kind::given_up);
}

template <class Address>
void assure_template(WorkerState& worker, Connection<Address>& connection) noexcept {
  if (connection.controller == kNoController || connection.has(kAssured)) return;
  set_field(connection.flags, static_cast<std::uint16_t>(connection.flags | kAssured));
  const auto notice = notice_to<Address>(connection.controller, TemplateNotice::Kind::assured);
  // One that is lost is told again by the template's next connection.
  if (notice.owner == worker.index) {
    take_notice(worker, notice);
  } else {
    worker.notices.put(notice);
  }
}

namespace {

template <class Address>
void take_notice_of(WorkerState& worker, const TemplateNotice& notice) noexcept {
  auto& table = worker.table<Address>();
  auto& record = table[notice.index];
  if (!record.has(kTemplate)) return;
  if (notice.kind == TemplateNotice::Kind::assured) {
    set_field(record.state, std::uint8_t{1});
    return;
  }
  if (record.packets_in != 0) set_field(record.packets_in, record.packets_in - 1);
  // ip_vs_conn_expire: of no use any more.
  const bool of_use = record.packets_in != 0 || record.state != 0;
  if (notice.kind == TemplateNotice::Kind::given_up && !of_use) {
    table.set_deadline(notice.index, worker.now);
  }
}

}  // namespace

void take_notice(WorkerState& worker, const TemplateNotice& notice) noexcept {
  if (notice.family == Family::ipv4) {
    take_notice_of<Ipv4Address>(worker, notice);
  } else {
    take_notice_of<Ipv6Address>(worker, notice);
  }
}

template void open_connection<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void open_connection<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void answer_question<Ipv4Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template void answer_question<Ipv6Address>(WorkerState&, const Snapshot&, Packet&) noexcept;
template bool close_connection<Ipv4Address>(WorkerState&, const Snapshot&, std::uint32_t) noexcept;
template bool close_connection<Ipv6Address>(WorkerState&, const Snapshot&, std::uint32_t) noexcept;
template bool give_up_connection<Ipv4Address>(WorkerState&, const Snapshot&,
                                              std::uint32_t) noexcept;
template bool give_up_connection<Ipv6Address>(WorkerState&, const Snapshot&,
                                              std::uint32_t) noexcept;
template void assure_template(WorkerState&, Connection<Ipv4Address>&) noexcept;
template void assure_template(WorkerState&, Connection<Ipv6Address>&) noexcept;

}  // namespace weir
