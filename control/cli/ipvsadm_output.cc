// SPDX-License-Identifier: Apache-2.0
#include "control/cli/ipvsadm_output.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <utility>

namespace weir {
namespace {

// Widths of ipvsadm's columns.
constexpr int kNameWidth = 28;  // of a real server; a service's name has five more

template <class... Values>
std::string format(const char* pattern, Values... values) {
  const int length = std::snprintf(nullptr, 0, pattern, values...);
  std::string text(static_cast<std::size_t>(length) + 1, '\0');
  std::snprintf(text.data(), text.size(), pattern, values...);
  text.pop_back();
  return text;
}

struct ModeNames {
  const char* shown;
  const char* option;
};

ModeNames names_of(ForwardMode mode) {
  switch (mode) {
    case ForwardMode::nat:
      return {"Masq", "-m"};
    case ForwardMode::dr:
      return {"Route", "-g"};
    case ForwardMode::tun:
      return {"Tunnel", "-i"};
    case ForwardMode::fullnat:
      return {"FullNAT", "--fullnat"};
    case ForwardMode::local:
      return {"Local", "-g"};
  }
  return {"", ""};
}

const char* protocol_title(Protocol protocol) {
  switch (protocol) {
    case Protocol::tcp:
      return "TCP";
    case Protocol::udp:
      return "UDP";
    case Protocol::sctp:
      return "SCTP";
    default:
      return "IP";
  }
}

const char* service_option(Protocol protocol) {
  switch (protocol) {
    case Protocol::tcp:
      return "-t";
    case Protocol::udp:
      return "-u";
    default:
      return "--sctp-service";
  }
}

std::string endpoint_name(const IpAddress& address, std::uint16_t port, Protocol protocol,
                          NameLookup* names) {
  std::string host = address.to_string();
  std::string port_text = std::to_string(port);
  if (names != nullptr) {
    host = names->host_name(address).value_or(host);
    port_text = names->port_name(port, protocol).value_or(port_text);
  }
  return (address.is_ipv4() ? host : "[" + host + "]") + ":" + port_text;
}

// As ipvsadm shows it: longer names of IPv4 hosts are cut, those of IPv6 hosts are not.
std::string column_name(const IpAddress& address, std::string name) {
  if (address.is_ipv4()) name.resize(std::min<std::size_t>(name.size(), kNameWidth));
  return name;
}

std::string service_name(const ServiceKey& key, NameLookup* names) {
  if (key.fwmark != 0) return format("FWM  %u%s", key.fwmark, key.address.is_ipv4() ? "" : " IPv6");
  const std::string name = endpoint_name(key.address, key.port, key.protocol, names);
  return format("%-4s %s", protocol_title(key.protocol), column_name(key.address, name).c_str());
}

std::string joined_flags(const ServiceSpec& spec) {
  std::string text;
  for (const std::string& flag : spec.scheduler_flags) text += (text.empty() ? "" : ",") + flag;
  return text;
}

// Nothing where each client counts alone.
std::string persistence_mask(const ServiceSpec& spec) {
  if (spec.persistence_mask == kEachClientAlone) return "";
  if (!spec.key.address.is_ipv4()) return std::to_string(spec.persistence_mask);
  return IpAddress(Ipv4Address{Be32::from_host(spec.persistence_mask)}).to_string();
}

std::string service_settings(const ServiceSpec& spec) {
  std::string text = " " + spec.scheduler;
  if (!spec.scheduler_flags.empty()) text += " (" + joined_flags(spec) + ")";
  if (spec.persistence_timeout != 0) {
    text += format(" persistent %u", spec.persistence_timeout);
    if (const std::string mask = persistence_mask(spec); !mask.empty()) text += " mask " + mask;
    if (!spec.persistence_engine.empty()) text += " pe " + spec.persistence_engine;
  }
  if (spec.one_packet) text += " ops";
  return text;
}

std::string number_column(std::uint64_t value, NumberStyle style) {
  struct Unit {
    std::uint64_t below;
    std::uint64_t divisor;
    char letter;
  };
  constexpr std::array<Unit, 3> kUnits = {{
      {1'000'000'000, 1'000, 'K'},
      {100'000'000'000, 1'000'000, 'M'},
      {100'000'000'000'000, 1'000'000'000, 'G'},
  }};
  const auto wide = static_cast<unsigned long long>(value);
  if (style == NumberStyle::exact || value < 100'000'000) return format(" %8llu", wide);
  for (const Unit& unit : kUnits)
    if (value < unit.below) return format("%8llu%c", wide / unit.divisor, unit.letter);
  return format("%8llu%c", wide / 1'000'000'000'000, 'T');
}

std::string tunnel_info(const ServerSpec& server) {
  if (server.mode != ForwardMode::tun) return "n/a";
  const char* checksum = server.tunnel_checksum == TunnelChecksum::remote     ? "r+c"
                         : server.tunnel_checksum == TunnelChecksum::checksum ? "+c"
                                                                              : "-c";
  switch (server.tunnel) {
    case TunnelType::gue:
      return format("gue:%u:%s", unsigned{server.tunnel_port}, checksum);
    case TunnelType::gre:
      return format("gre:%s", checksum);
    case TunnelType::ipip:
      return "ipip";
  }
  return "";
}

std::string server_columns(const ServerListing& server, const ListingStyle& style) {
  const ServerSpec& spec = server.spec;
  const bool as_local = style.modes == ServerModes::in_effect && server.is_local;
  const char* mode = names_of(as_local ? ForwardMode::local : spec.mode).shown;
  switch (style.columns) {
    case IpvsadmColumns::connection_counts:
      return format(" %-7s %-6d %-10u %-10u", mode, spec.weight, server.active, server.inactive);
    case IpvsadmColumns::statistics:
      return number_column(server.totals.connections, style.numbers) +
             number_column(server.totals.packets_in, style.numbers) +
             number_column(server.totals.packets_out, style.numbers) +
             number_column(server.totals.bytes_in, style.numbers) +
             number_column(server.totals.bytes_out, style.numbers);
    case IpvsadmColumns::rates:
      // Only the bytes of a real server are shortened.
      return number_column(server.rates.connections, NumberStyle::exact) +
             number_column(server.rates.packets_in, NumberStyle::exact) +
             number_column(server.rates.packets_out, NumberStyle::exact) +
             number_column(server.rates.bytes_in, style.numbers) +
             number_column(server.rates.bytes_out, style.numbers);
    case IpvsadmColumns::thresholds:
      return format(" %-10u %-10u %-10u %-10u", spec.upper_threshold, spec.lower_threshold,
                    server.active, server.inactive);
    case IpvsadmColumns::persistent_connections:
      return format(" %-9d %-11u %-10u %-10u", spec.weight, server.persistent, server.active,
                    server.inactive);
    case IpvsadmColumns::tunnels:
      return format(" %-7s %-13s %-6d %-10u %-10u", mode, tunnel_info(spec).c_str(), spec.weight,
                    server.active, server.inactive);
  }
  return "";
}

std::string service_line(const ServiceListing& service, const ListingStyle& style) {
  const std::string name = service_name(service.spec.key, style.names);
  std::string counts;
  const auto add = [&](const auto& values) {
    for (const std::uint64_t value : {values.connections, values.packets_in, values.packets_out,
                                      values.bytes_in, values.bytes_out})
      counts += number_column(value, style.numbers);
  };
  if (style.columns == IpvsadmColumns::statistics) {
    add(service.totals);
  } else if (style.columns == IpvsadmColumns::rates) {
    add(service.rates);
  } else {
    return name + service_settings(service.spec) + "\n";
  }
  return format("%-*s", kNameWidth + 5, name.c_str()) + counts + "\n";
}

// ipvsadm compares numbers by their 32-bit difference taken as signed, so that 192.168.0.1 comes
// before 10.0.0.1.
int difference(std::uint32_t a, std::uint32_t b) { return static_cast<int>(a - b); }

// An IPv4 address against an IPv6 one: as if zeros followed it.
int compare(const IpAddress& a, const IpAddress& b) {
  for (std::size_t i = 0; i < a.bytes().size(); i += sizeof(Be32)) {
    const auto word_a = load<Be32>(&a.bytes()[i]).host();
    const auto word_b = load<Be32>(&b.bytes()[i]).host();
    if (word_a != word_b) return difference(word_a, word_b);
  }
  return 0;
}

int compare(const ServiceListing& a, const ServiceListing& b) {
  const ServiceKey& x = a.spec.key;
  const ServiceKey& y = b.spec.key;
  if (x.fwmark != y.fwmark) return difference(x.fwmark, y.fwmark);
  if (x.address.family() != y.address.family()) return x.address.is_ipv4() ? -1 : 1;
  if (x.protocol != y.protocol) return static_cast<int>(x.protocol) - static_cast<int>(y.protocol);
  if (const int order = compare(x.address, y.address); order != 0) return order;
  return int{x.port} - int{y.port};
}

int compare(const ServerListing& a, const ServerListing& b) {
  if (const int order = compare(a.spec.address, b.spec.address); order != 0) return order;
  return int{a.spec.port} - int{b.spec.port};
}

// Those comparisons are not transitive, which std::sort must not see, and the outcome depends on
// the method: this is the merge sort of glibc's qsort.
template <class Item>
void merge_sort(std::vector<Item>& items) {
  if (items.size() < 2) return;
  const auto middle = items.begin() + static_cast<std::ptrdiff_t>(items.size() / 2);
  std::vector<Item> left(std::make_move_iterator(items.begin()), std::make_move_iterator(middle));
  std::vector<Item> right(std::make_move_iterator(middle), std::make_move_iterator(items.end()));
  merge_sort(left);
  merge_sort(right);
  items.clear();
  auto from_left = left.begin();
  auto from_right = right.begin();
  while (from_left != left.end() && from_right != right.end()) {
    const bool take_left = compare(*from_left, *from_right) <= 0;
    items.push_back(std::move(take_left ? *from_left++ : *from_right++));
  }
  std::move(from_left, left.end(), std::back_inserter(items));
  std::move(from_right, right.end(), std::back_inserter(items));
}

std::string saved_key(const ServiceKey& key, NameLookup* names) {
  if (key.fwmark != 0) return format("-f %u%s", key.fwmark, key.address.is_ipv4() ? "" : " -6");
  return service_option(key.protocol) +
         (" " + endpoint_name(key.address, key.port, key.protocol, names));
}

std::string saved_tunnel(const ServerSpec& server) {
  const char* checksum = server.tunnel_checksum == TunnelChecksum::remote     ? "--tun-remcsum"
                         : server.tunnel_checksum == TunnelChecksum::checksum ? "--tun-csum"
                                                                              : "--tun-nocsum";
  switch (server.tunnel) {
    case TunnelType::gue:
      return format(" --tun-type gue --tun-port %u %s", unsigned{server.tunnel_port}, checksum);
    case TunnelType::gre:
      return format(" --tun-type gre %s", checksum);
    case TunnelType::ipip:
      return " --tun-type ipip";
  }
  return "";
}

}  // namespace

void sort_services(std::vector<ServiceListing>& services) {
  merge_sort(services);
  for (ServiceListing& service : services) merge_sort(service.servers);
}

std::string_view version_line() { return "IP Virtual Server version 1.2.1 (size=4096)\n"; }

std::string column_titles(const ListingStyle& style) {
  constexpr std::string_view kServer = "  -> RemoteAddress:Port\n";
  constexpr const char* kService = "Prot LocalAddress:Port";
  const auto with_counts = [&](const std::array<const char*, 5>& titles) {
    std::string text = format("%-*s", kNameWidth + 5, kService);
    for (const char* title : titles) text += format(" %8s", title);
    return text + "\n" + std::string(kServer);
  };
  constexpr std::string_view kSettings = "Prot LocalAddress:Port Scheduler Flags\n";
  constexpr std::string_view kName = "  -> RemoteAddress:Port           ";
  switch (style.columns) {
    case IpvsadmColumns::connection_counts:
      return std::string(kSettings).append(kName) + "Forward Weight ActiveConn InActConn\n";
    case IpvsadmColumns::statistics:
      return with_counts({"Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"});
    case IpvsadmColumns::rates:
      return with_counts({"CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"});
    case IpvsadmColumns::thresholds:
      return format("%-*s %-10s %-10s %-10s %-10s\n", kNameWidth + 5, kService, "Uthreshold",
                    "Lthreshold", "ActiveConn", "InActConn") +
             std::string(kServer);
    case IpvsadmColumns::persistent_connections:
      return format("%-*s %-9s %-11s %-10s %-10s\n", kNameWidth + 5, kService, "Weight",
                    "PersistConn", "ActiveConn", "InActConn") +
             std::string(kServer);
    case IpvsadmColumns::tunnels:
      return std::string(kSettings).append(kName) +
             "Forward TunnelInfo    Weight ActiveConn InActConn\n";
  }
  return "";
}

std::string service_lines(const ServiceListing& service, const ListingStyle& style) {
  std::string text = service_line(service, style);
  for (const ServerListing& server : service.servers) {
    const ServerSpec& spec = server.spec;
    const std::string name =
        endpoint_name(spec.address, spec.port, service.spec.key.protocol, style.names);
    text += format("  -> %-*s", kNameWidth, column_name(spec.address, name).c_str()) +
            server_columns(server, style) + "\n";
  }
  return text;
}

std::string saved_lines(const ServiceListing& service, NameLookup* names) {
  const ServiceSpec& spec = service.spec;
  const std::string key = saved_key(spec.key, names);
  std::string text = "-A " + key + " -s " + spec.scheduler;
  if (spec.persistence_timeout != 0) {
    text += format(" -p %u", spec.persistence_timeout);
    if (const std::string mask = persistence_mask(spec); !mask.empty()) text += " -M " + mask;
  }
  if (!spec.persistence_engine.empty()) text += " --pe " + spec.persistence_engine;
  if (spec.one_packet) text += " -o";
  if (!spec.scheduler_flags.empty()) text += " -b " + joined_flags(spec);
  text += "\n";
  for (const ServerListing& server : service.servers) {
    const ServerSpec& real = server.spec;
    text += "-a " + key + " -r " +
            endpoint_name(real.address, real.port, spec.key.protocol, names) +
            format(" %s -w %d", names_of(real.mode).option, real.weight);
    if (real.mode == ForwardMode::tun) text += saved_tunnel(real);
    text += "\n";
  }
  return text;
}

std::string_view connection_titles(IpvsadmColumns columns) {
  if (columns == IpvsadmColumns::persistent_connections)
    return "IPVS connection entries\n"
           "pro expire state       source             virtual            destination        "
           "pe name          pe_data\n";
  return "IPVS connection entries\n"
         "pro expire state       source             virtual            destination\n";
}

std::string connection_line(const ConnectionListing& connection, NameLookup* names) {
  const auto name = [&](const IpAddress& address, std::uint16_t port) {
    return endpoint_name(address, port, connection.protocol, names);
  };
  const std::string expires = format("%02u:%02u", connection.expires / 60, connection.expires % 60);
  return format("%-3s %-6s %-11s %-18s %-18s %s\n", protocol_title(connection.protocol),
                expires.c_str(), connection.state.c_str(),
                name(connection.client, connection.client_port).c_str(),
                name(connection.virtual_address, connection.virtual_port).c_str(),
                name(connection.server, connection.server_port).c_str());
}

std::string timeouts_line(const IpvsTimeouts& timeouts) {
  return format("Timeout (tcp tcpfin udp): %u %u %u\n", timeouts.tcp, timeouts.tcp_fin,
                timeouts.udp);
}

std::string daemon_line(const SyncDaemonSpec& daemon) {
  const char* role = daemon.role == SyncDaemonSpec::Role::master ? "master" : "backup";
  std::string text =
      format("%s sync daemon (mcast=%s, syncid=%u", role, daemon.interface.c_str(), daemon.sync_id);
  if (daemon.max_length != 0) text += format(", maxlen=%u", daemon.max_length);
  if (daemon.group) text += ", group=" + daemon.group->to_string();
  if (daemon.port != 0) text += format(", port=%u", unsigned{daemon.port});
  if (daemon.ttl != 0) text += format(", ttl=%u", unsigned{daemon.ttl});
  return text + ")\n";
}

std::string_view ipvsadm_version() {
  return "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)\n";
}

std::string_view ipvsadm_help() {
  return R"help(Usage:
  ipvsadm -A|E virtual-service [-s scheduler] [-p [timeout]] [-M netmask])help"
         R"help( [--pe persistence_engine] [-b sched-flags]
  ipvsadm -D virtual-service
  ipvsadm -C
  ipvsadm -R
  ipvsadm -S [-n]
  ipvsadm -a|e virtual-service -r server-address [options]
  ipvsadm -d virtual-service -r server-address
  ipvsadm -L|l [virtual-service] [options]
  ipvsadm -Z [virtual-service]
  ipvsadm --set tcp tcpfin udp
  ipvsadm --start-daemon {master|backup} [daemon-options]
  ipvsadm --stop-daemon {master|backup}
  ipvsadm -h

Commands:
Either long or short options are allowed.
  --add-service     -A        add virtual service with options
  --edit-service    -E        edit virtual service with options
  --delete-service  -D        delete virtual service
  --clear           -C        clear the whole table
  --restore         -R        restore rules from stdin
  --save            -S        save rules to stdout
  --add-server      -a        add real server with options
  --edit-server     -e        edit real server with options
  --delete-server   -d        delete real server
  --list            -L|-l     list the table
  --zero            -Z        zero counters in a service or all services
  --set tcp tcpfin udp        set connection timeout values
  --start-daemon              start connection sync daemon
  --stop-daemon               stop connection sync daemon
  --help            -h        display this help message

virtual-service:
  --tcp-service|-t  service-address   service-address is host[:port]
  --udp-service|-u  service-address   service-address is host[:port]
  --sctp-service    service-address   service-address is host[:port]
  --fwmark-service|-f fwmark          fwmark is an integer greater than zero

Options:
  --ipv6         -6                   fwmark entry uses IPv6
  --scheduler    -s scheduler         one of rr|wrr|lc|wlc|lblc|lblcr|dh|sh|sed|nq|fo|ovf|mh,
                                      the default scheduler is wlc.
  --pe            engine              alternate persistence engine may be sip,
                                      not set by default.
  --persistent   -p [timeout]         persistent service
  --netmask      -M netmask           persistent granularity mask
  --real-server  -r server-address    server-address is host (and port)
  --gatewaying   -g                   gatewaying (direct routing) (default)
  --ipip         -i                   ipip encapsulation (tunneling)
  --masquerading -m                   masquerading (NAT)
  --tun-type      type                one of ipip|gue|gre,
                                      the default tunnel type is ipip.
  --tun-port      port                tunnel destination port
  --tun-nocsum                        tunnel encapsulation without checksum
  --tun-csum                          tunnel encapsulation with checksum
  --tun-remcsum                       tunnel encapsulation with remote checksum
  --weight       -w weight            capacity of real server
  --u-threshold  -x uthreshold        upper threshold of connections
  --l-threshold  -y lthreshold        lower threshold of connections
  --connection   -c                   output of current IPVS connections
  --timeout                           output of timeout (tcp tcpfin udp)
  --daemon                            output of daemon information
  --stats                             output of statistics information
  --rate                              output of rate information
  --exact                             expand numbers (display exact values)
  --thresholds                        output of thresholds information
  --persistent-conn                   output of persistent connection info
  --tun-info                          output of tunnel information
  --nosort                            disable sorting output of service/server entries
  --sort                              does nothing, for backwards compatibility
  --ops          -o                   one-packet scheduling
  --numeric      -n                   numeric output of addresses and ports
  --sched-flags  -b flags             scheduler flags (comma-separated)
Daemon Options:
  --syncid sid                        syncid for connection sync (default=255)
  --sync-maxlen length                Max sync message length (default=1472)
  --mcast-interface interface         multicast interface for connection sync
  --mcast-group address               IPv4/IPv6 group (default=224.0.0.81)
  --mcast-port port                   UDP port (default=8848)
  --mcast-ttl ttl                     Multicast TTL (default=1)
)help";
}

}  // namespace weir
