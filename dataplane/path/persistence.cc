// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/persistence.h"

#include <array>
#include <bit>

namespace weir {
namespace {

// Connection::controller.
constexpr std::uint32_t kIndexBits = 24;
constexpr std::uint32_t kIndexMask = (1U << kIndexBits) - 1;
constexpr std::uint16_t kInvalidPort = 0xffff;

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
    key.destination = address_of_mark<Address>(service.key.fwmark);
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

// The template `index` controls one more connection, and lasts as if it were new.
template <class Address>
Choice choice_of(WorkerState& worker, const Service& service, std::uint32_t index,
                 const RealServer& server) noexcept {
  auto& table = worker.table<Address>();
  table.set_deadline(index, worker.now + service.persistence.timeout * kTicksPerSecond);
  Choice choice{.server = &server};
  // A table beyond the reach of these bits has templates that end without regard to connections.
  if (index <= kIndexMask && worker.index < (kNoController >> kIndexBits)) {
    set_field(table[index].packets_in, table[index].packets_in + 1);
    choice.controller = worker.index << kIndexBits | index;
  }
  return choice;
}

template <class Address>
TemplateNotice notice_to(std::uint32_t controller, TemplateNotice::Kind kind) noexcept {
  constexpr Family kFamily = sizeof(Address) == sizeof(Ipv4Address) ? Family::ipv4 : Family::ipv6;
  return {kind, kFamily, static_cast<std::uint16_t>(controller >> kIndexBits),
          controller & kIndexMask};
}

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

template <class Address>
unsigned template_owner(const WorkerState& worker, const Service& service,
                        const FlowKey<Address>& flow) noexcept {
  const FlowKey<Address> key = template_key(service, flow);
  return worker.owners->owner(key.source, key.destination_port);
}

template <class Address>
std::optional<Choice> choose_by_template(WorkerState& worker, const Snapshot& snapshot,
                                         const Service& service,
                                         const FlowKey<Address>& flow) noexcept {
  auto& table = worker.table<Address>();
  const std::uint32_t index = table.find_one(template_key(service, flow));
  if (index == kNoConnection) return std::nullopt;
  const RealServer* server = snapshot.servers[table[index].server_slot];
  if (!may_be_used(*snapshot.settings, server)) {
    invalidate(table, index);
    return std::nullopt;
  }
  return choice_of<Address>(worker, service, index, *server);
}

template <class Address>
Choice choose_for_template(WorkerState& worker, const Service& service,
                           const FlowKey<Address>& flow, const RealServer& server) noexcept {
  const auto index =
      open_template(worker, service, template_key(service, flow), flow.destination_port, server);
  if (!index) return {.refusal = Outcome::drop_table_full};
  return choice_of<Address>(worker, service, *index, server);
}

template <class Address>
bool release_template(WorkerState& worker, std::uint32_t controller,
                      TemplateNotice::Kind kind) noexcept {
  if (controller == kNoController) return true;
  const TemplateNotice notice = notice_to<Address>(controller, kind);
  if (notice.owner != worker.index) return worker.notices.put(notice);
  take_notice(worker, notice);
  return true;
}

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

void take_notice(WorkerState& worker, const TemplateNotice& notice) noexcept {
  if (notice.family == Family::ipv4) {
    take_notice_of<Ipv4Address>(worker, notice);
  } else {
    take_notice_of<Ipv6Address>(worker, notice);
  }
}

template <class Address>
bool close_template(WorkerState& worker, std::uint32_t index) noexcept {
  auto& table = worker.table<Address>();
  const auto& record = table[index];
  if (record.packets_in != 0) return false;
  worker.own().loads[record.server_slot].templates.subtract(1);
  table.close(index);
  return true;
}

template unsigned template_owner(const WorkerState&, const Service&,
                                 const FlowKey<Ipv4Address>&) noexcept;
template std::optional<Choice> choose_by_template(WorkerState&, const Snapshot&, const Service&,
                                                  const FlowKey<Ipv4Address>&) noexcept;
template Choice choose_for_template(WorkerState&, const Service&, const FlowKey<Ipv4Address>&,
                                    const RealServer&) noexcept;
template bool release_template<Ipv4Address>(WorkerState&, std::uint32_t,
                                            TemplateNotice::Kind) noexcept;
template void give_back<Ipv4Address>(WorkerState&, std::uint32_t) noexcept;
template void assure_template(WorkerState&, Connection<Ipv4Address>&) noexcept;
template bool close_template<Ipv4Address>(WorkerState&, std::uint32_t) noexcept;
template unsigned template_owner(const WorkerState&, const Service&,
                                 const FlowKey<Ipv6Address>&) noexcept;
template std::optional<Choice> choose_by_template(WorkerState&, const Snapshot&, const Service&,
                                                  const FlowKey<Ipv6Address>&) noexcept;
template Choice choose_for_template(WorkerState&, const Service&, const FlowKey<Ipv6Address>&,
                                    const RealServer&) noexcept;
template bool release_template<Ipv6Address>(WorkerState&, std::uint32_t,
                                            TemplateNotice::Kind) noexcept;
template void give_back<Ipv6Address>(WorkerState&, std::uint32_t) noexcept;
template void assure_template(WorkerState&, Connection<Ipv6Address>&) noexcept;
template bool close_template<Ipv6Address>(WorkerState&, std::uint32_t) noexcept;

}  // namespace weir
