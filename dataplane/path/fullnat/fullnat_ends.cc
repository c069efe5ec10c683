// SPDX-License-Identifier: Apache-2.0
#include "dataplane/path/fullnat/fullnat_ends.h"

#include <functional>
#include <optional>
#include <span>
#include <type_traits>

#include "dataplane/path/fullnat/client_address.h"
#include "dataplane/table/local_ports.h"

namespace weir {
namespace {

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

}  // namespace

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

template Outcome give_local_end(WorkerState&, const Service&, const RealServer&,
                                Connection<Ipv4Address>&) noexcept;
template Outcome give_local_end(WorkerState&, const Service&, const RealServer&,
                                Connection<Ipv6Address>&) noexcept;
template void settle_fullnat<Ipv4Address>(WorkerState&, const Service&, const Packet&,
                                          std::uint32_t) noexcept;
template void settle_fullnat<Ipv6Address>(WorkerState&, const Service&, const Packet&,
                                          std::uint32_t) noexcept;
template void close_companion(WorkerState&, const Connection<Ipv4Address>&) noexcept;
template void close_companion(WorkerState&, const Connection<Ipv6Address>&) noexcept;

}  // namespace weir
