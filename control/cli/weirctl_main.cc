// SPDX-License-Identifier: Apache-2.0
// weirctl: shows and changes a running weir. Under the names ipvsadm, ipvsadm-save and
// ipvsadm-restore it is these.
#include <algorithm>
#include <array>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "control/cli/api_client.h"
#include "control/cli/ipvsadm.h"
#include "control/cli/ipvsadm_output.h"
#include "control/cli/name_lookup.h"
#include "control/cli/weirctl_arguments.h"
#include "control/model/text_forms.h"

namespace {

constexpr int kFailed = 255;
constexpr int kUsage = 2;

constexpr std::string_view kHelp = R"(weirctl: shows and changes a running weir.

Usage: weirctl [--socket PATH] COMMAND

  show services             services and real servers, and which service lacks its address
  show connections          the connections of all workers
  show workers              how busy each worker is, and what it has done since it started
  show counters             every way out of the packet path, with its count of packets
  show loop                 how long the jobs of the control thread take
  show settings             what can be changed while weir runs
  show local-addresses      the director's addresses that FullNAT sends from
  show mark-rules           the rules that give packets their marks
  set NAME VALUE            change one of the settings
  set service SERVICE OPTION VALUE
                            change an option of a service:
                              client-address hidden|toa|proxy   how a FullNAT real server learns
                                                                who the client is
                              gone-server drop|keep|reset       connections of a removed real
                                                                server
                              idle-timeout SECONDS              of established connections; 0: the
                                                                global one
                              slow-start SECONDS                in which a real server that comes
                                                                takes up its weight
                              table-size N                      of mh and conhash; 0: its default
  add local-address ADDRESS|FIRST-LAST|PREFIX [SERVICE]
  delete local-address ADDRESS|FIRST-LAST|PREFIX [SERVICE]
                            addresses for FullNAT, of a service or of all that have none of their
                            own; connections that use a deleted one go on
  add mark-rule [at N] [from PREFIX] [to PREFIX] [protocol tcp|udp|sctp] [source-port A-B]
      [port A-B] [on PORT] mark N
                            a rule for fwmark services, the last one or number N. The first rule
                            that matches a packet decides; mark 0 means that it has none. Packets
                            to any destination count, not only those to this host.
  delete mark-rule N        the rule that has this number in `show mark-rules`
  ipvsadm-save [-n], ipvsadm-restore
                            the services and real servers, to standard output and from standard
                            input instead of those that are there
  ipvsadm ARGUMENTS...      the same as the program ipvsadm: `weirctl ipvsadm -h` explains it

  --socket PATH             weir's socket; without it the environment variable WEIR_SOCKET,
                            else /run/weir/weir.sock
  --help

SERVICE is `tcp ADDRESS:PORT`, the same with udp or sctp, or `fwmark N [ipv6]`; an IPv6 address
before a port stands in [].

Exit code: 0 done, 2 a command line that weirctl does not understand, 255 refused by weir or no
weir answers; for `ipvsadm` its own.

Examples:
  ipvsadm -A -t 10.9.0.1:80 -s rr
  ipvsadm -a -t 10.9.0.1:80 -r 10.2.0.1:80 -m
  weirctl show counters
  weirctl add local-address 10.2.0.200-10.2.0.203
  weirctl add mark-rule to 203.0.113.0/24 protocol tcp port 80 mark 7
)";

struct Command {
  std::string_view name;
  std::size_t least;  // arguments
  std::size_t most;
  int (*run)(weir::ApiClient& weir, std::span<const std::string> arguments);
};

int report(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << status.message() << '\n';
  return kFailed;
}

// Why `client-address` does nothing here; empty: it does something, or is not set.
std::string client_address_note(const weir::ServiceListing& service) {
  const bool set = std::ranges::any_of(service.options, [](const weir::ServiceOption& option) {
    return option.name == "client-address";
  });
  const bool of_use = service.servers.empty() ||
                      std::ranges::any_of(service.servers, [](const weir::ServerListing& server) {
                        return server.spec.mode == weir::ForwardMode::fullnat;
                      });
  if (!set || of_use) return "";
  return "client-address has no effect: none of the real servers is FullNAT, and the others see "
         "the client anyway";
}

int show_services(weir::ApiClient& weir, std::span<const std::string>) {
  auto services = weir.list();
  if (!services.ok()) return report(services.status());
  weir::sort_services(*services);
  const weir::ListingStyle style{.modes = weir::ServerModes::in_effect};
  std::cout << column_titles(style);
  for (const weir::ServiceListing& service : *services) {
    std::cout << service_lines(service, style);
    if (!service.address_is_local)
      std::cout << "     takes no traffic: no interface of this host owns "
                << service.spec.key.address.to_string() << '\n';
    for (const weir::ServiceOption& option : service.options)
      std::cout << "     " << option.name << ' ' << option.value << '\n';
    if (const std::string note = client_address_note(service); !note.empty())
      std::cout << "     " << note << '\n';
  }
  return 0;
}

int show_connections(weir::ApiClient& weir, std::span<const std::string>) {
  std::cout << connection_titles(weir::IpvsadmColumns::connection_counts);
  return report(weir.for_each_connection([](const weir::ConnectionListing& connection) {
    std::cout << weir::connection_line(connection, nullptr);
  }));
}

// A line of `show workers`; each column is as wide as a counter of a long-running director.
template <class... Values>
void print_columns(const Values&... values) {
  constexpr int kWidth = 14;
  ((std::cout << std::setw(kWidth) << values), ...) << '\n';
}

int show_workers(weir::ApiClient& weir, std::span<const std::string>) {
  const auto workers = weir.workers();
  if (!workers.ok()) return report(workers.status());
  std::cout << "Worker Busy";
  print_columns("Open", "Conns", "InPkts", "OutPkts", "InBytes", "OutBytes", "HandedOver",
                "ToKernel", "Dropped");
  for (const weir::WorkerListing& worker : *workers) {
    std::cout << std::setw(6) << worker.worker << std::setw(4) << worker.busy << '%';
    print_columns(worker.open, worker.totals.connections, worker.totals.packets_in,
                  worker.totals.packets_out, worker.totals.bytes_in, worker.totals.bytes_out,
                  worker.handed_over, worker.to_kernel, worker.dropped);
  }
  return 0;
}

int show_counters(weir::ApiClient& weir, std::span<const std::string>) {
  const auto counters = weir.counters();
  if (!counters.ok()) return report(counters.status());
  std::size_t width = 0;
  for (const weir::NamedCounter& counter : *counters) width = std::max(width, counter.name.size());
  for (const weir::NamedCounter& counter : *counters)
    std::cout << counter.name << std::string(width + 1 - counter.name.size(), ' ') << counter.value
              << '\n';
  return 0;
}

int show_loop(weir::ApiClient& weir, std::span<const std::string>) {
  const auto loop = weir.loop();
  if (!loop.ok()) return report(loop.status());
  std::cout << loop->jobs << " jobs of the control thread, "
            << "the longest " << loop->longest_us << " us, together " << loop->total_us << " us\n";
  for (const weir::JobLengths& length : loop->lengths) {
    const std::string limit =
        length.below_us == 0 ? "longer" : "below " + std::to_string(length.below_us) + " us";
    std::cout << std::setw(16) << limit << std::setw(14) << length.jobs << '\n';
  }
  return 0;
}

int show_settings(weir::ApiClient& weir, std::span<const std::string>) {
  const auto settings = weir.settings();
  if (!settings.ok()) return report(settings.status());
  for (const weir::SettingListing& setting : *settings)
    std::cout << setting.name << " = " << setting.value << "\n    " << setting.help << '\n';
  return 0;
}

int set(weir::ApiClient& weir, std::span<const std::string> arguments) {
  return report(weir.commit(weir::SetSetting{arguments[0], arguments[1]}));
}

// The command line is not understood.
int misused(const absl::Status& status) {
  std::cerr << status.message() << "; weirctl --help explains it.\n";
  return kUsage;
}

int set_service(weir::ApiClient& weir, std::span<const std::string> arguments) {
  const auto command = weir::parse_service_option(arguments);
  if (!command.ok()) return misused(command.status());
  const absl::Status status =
      weir.commit(weir::SetServiceOption{command->service, command->option});
  if (!status.ok()) return report(status);
  const auto service = weir.find(command->service);
  if (!service.ok()) return report(service.status());
  if (const std::string note = client_address_note(*service); !note.empty())
    std::cerr << note << '\n';
  return 0;
}

int show_local_addresses(weir::ApiClient& weir, std::span<const std::string>) {
  const auto addresses = weir.local_addresses();
  if (!addresses.ok()) return report(addresses.status());
  for (const weir::LocalAddressListing& listing : *addresses) {
    std::cout << text_of(listing.range);
    if (listing.service) std::cout << "  " << service_text(*listing.service);
    std::cout << '\n';
    if (listing.not_owned == 0) continue;
    std::cout << "     gets no replies";
    if (listing.not_owned < listing.count)
      std::cout << " at " << listing.not_owned << " of " << listing.count << " addresses";
    std::cout << ": no interface of this host owns " << (listing.not_owned == 1 ? "it" : "them")
              << '\n';
  }
  return 0;
}

int add_local_address(weir::ApiClient& weir, std::span<const std::string> arguments) {
  const auto command = weir::parse_local_address(arguments);
  if (!command.ok()) return misused(command.status());
  return report(weir.commit(weir::AddLocalAddresses{command->range, command->service}));
}

int delete_local_address(weir::ApiClient& weir, std::span<const std::string> arguments) {
  const auto command = weir::parse_local_address(arguments);
  if (!command.ok()) return misused(command.status());
  return report(weir.commit(weir::DeleteLocalAddresses{command->range, command->service}));
}

int show_mark_rules(weir::ApiClient& weir, std::span<const std::string>) {
  const auto rules = weir.mark_rules();
  if (!rules.ok()) return report(rules.status());
  for (std::size_t i = 0; i < rules->size(); ++i)
    std::cout << i + 1 << ": " << mark_rule_text((*rules)[i]) << '\n';
  return 0;
}

int add_mark_rule(weir::ApiClient& weir, std::span<const std::string> arguments) {
  const auto command = weir::parse_mark_rule(arguments);
  if (!command.ok()) return misused(command.status());
  return report(weir.commit(weir::AddMarkRule{command->rule, command->at}));
}

int delete_mark_rule(weir::ApiClient& weir, std::span<const std::string> arguments) {
  const auto number = weir::parse_decimal(arguments[0], std::numeric_limits<std::uint32_t>::max());
  if (!number) return misused(absl::InvalidArgumentError("`delete mark-rule` takes a number"));
  return report(weir.commit(weir::DeleteMarkRule{*number}));
}

constexpr std::size_t kAny = std::numeric_limits<std::size_t>::max();
constexpr std::array kCommands = {
    Command{"show services", 0, 0, show_services},
    Command{"show connections", 0, 0, show_connections},
    Command{"show workers", 0, 0, show_workers},
    Command{"show counters", 0, 0, show_counters},
    Command{"show loop", 0, 0, show_loop},
    Command{"show settings", 0, 0, show_settings},
    Command{"show local-addresses", 0, 0, show_local_addresses},
    Command{"show mark-rules", 0, 0, show_mark_rules},
    Command{"set service", 0, kAny, set_service},
    Command{"set", 2, 2, set},
    Command{"add local-address", 0, kAny, add_local_address},
    Command{"delete local-address", 0, kAny, delete_local_address},
    Command{"add mark-rule", 0, kAny, add_mark_rule},
    Command{"delete mark-rule", 1, 1, delete_mark_rule},
};

int usage(const std::string& problem) {
  std::cerr << problem << ": there are";
  for (const Command& command : kCommands) std::cerr << " `" << command.name << "`,";
  std::cerr << " `ipvsadm`; weirctl --help explains them.\n";
  return kUsage;
}

int run_weirctl(weir::ApiClient& weir, std::span<const std::string> arguments) {
  if (arguments.empty()) return usage("No command given");
  for (const Command& command : kCommands) {
    const bool two_words = command.name.find(' ') != std::string_view::npos;
    const std::size_t words = two_words ? 2 : 1;
    if (arguments.size() < words) continue;
    const std::string name = two_words ? arguments[0] + " " + arguments[1] : arguments[0];
    if (name != command.name) continue;
    const std::size_t given = arguments.size() - words;
    if (given < command.least || given > command.most)
      return usage("`" + name + "` takes " + std::to_string(command.least) + " arguments");
    return command.run(weir, arguments.subspan(words));
  }
  std::string given;
  for (const std::string& argument : arguments) given += (given.empty() ? "" : " ") + argument;
  return usage("weirctl has no command `" + given + "`");
}

// Takes `--socket PATH` or `--socket=PATH` out of the arguments, wherever it stands.
struct SocketOption {
  std::optional<std::string> path;
  bool lacks_path = false;
};
SocketOption take_socket_option(std::vector<std::string>& arguments) {
  constexpr std::string_view kName = "--socket";
  constexpr std::string_view kWithPath = "--socket=";
  const auto at = std::ranges::find_if(arguments, [&](const std::string& argument) {
    return argument == kName || argument.starts_with(kWithPath);
  });
  if (at == arguments.end()) return {};
  if (at->starts_with(kWithPath)) {
    SocketOption option{.path = at->substr(kWithPath.size())};
    arguments.erase(at);
    return option;
  }
  if (at + 1 == arguments.end()) return {.lacks_path = true};
  SocketOption option{.path = *(at + 1)};
  arguments.erase(at, at + 2);
  return option;
}

// ipvsadm and its two scripts, by the name of the program or the first argument.
struct Face {
  std::string_view name;
  int (*run)(std::span<const std::string> arguments, weir::ApiClient& weir, weir::NameLookup& names,
             const weir::CommandStreams& streams);
};
constexpr std::array kFaces = {
    Face{"ipvsadm", weir::run_ipvsadm},
    Face{"ipvsadm-save", weir::run_ipvsadm_save},
    Face{"ipvsadm-restore", weir::run_ipvsadm_restore},
};

const Face* face_named(std::string_view program) {
  const std::size_t slash = program.rfind('/');
  const std::string_view name = program.substr(slash == std::string_view::npos ? 0 : slash + 1);
  const auto* const face = std::ranges::find(kFaces, name, &Face::name);
  return face == kFaces.end() ? nullptr : face;
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  const std::string program = argc > 0 ? argv[0] : "weirctl";
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  const SocketOption socket = take_socket_option(arguments);
  if (socket.lacks_path) {
    std::cerr << "--socket needs the path of weir's socket after it.\n";
    return kUsage;
  }
  const Face* face = face_named(program);
  if (face == nullptr && !arguments.empty()) {
    face = face_named(arguments[0]);
    if (face != nullptr) arguments.erase(arguments.begin());
  }
  weir::ApiClient weir(weir::socket_path(socket.path));
  if (face != nullptr) {
    weir::SystemNameLookup names;
    return face->run(arguments, weir, names, {.in = std::cin, .out = std::cout, .err = std::cerr});
  }
  if (!arguments.empty() && (arguments[0] == "--help" || arguments[0] == "-h")) {
    std::cout << kHelp;
    return 0;
  }
  return run_weirctl(weir, arguments);
}
