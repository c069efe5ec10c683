// SPDX-License-Identifier: Apache-2.0
#include "control/options.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <regex>

namespace weir {
namespace {

namespace po = boost::program_options;

constexpr unsigned kMaxWorkers = 64;
constexpr std::size_t kMaxPortOptions = 32;

constexpr char kIntroduction[] =
    "weir: a layer-4 load balancer, what IPVS and keepalived do, on DPDK.\n"
    "\n"
    "  weir --port eth1                       forward on a kernel interface (AF_XDP)\n"
    "  weir --port 0000:3b:00.0 --workers 4   forward on a NIC that DPDK owns (vfio-pci)\n"
    "  weir --port vdev:net_tap0              any other DPDK device\n"
    "\n"
    "It runs in the foreground. Services are made with `ipvsadm` (weir's own, in the build\n"
    "folder), the rest with `weirctl`; both find weir by --socket or by the environment variable\n"
    "WEIR_SOCKET.\n"
    "\n";

constexpr char kAfterwords[] =
    "\n"
    "A settings file has the same names, a line each: workers = 2, port = eth1 (repeated as\n"
    "needed). What the command line says comes first. Its section [settings] has what `weirctl\n"
    "set` changes, by the same names: sloppy_tcp = 1.\n"
    "\n"
    "CPUs: each worker has one of its own; control floats over the others, or over all. More\n"
    "workers than CPUs need --lcores, in EAL's form: lcore 0 is control, the others are workers,\n"
    "for example --workers 4 --lcores '0@0,1@0,2@1,3@0,4@1'.\n";

void set_on_exit(const std::string& text, OnExit& on_exit) {
  if (text != "silent" && text != "release") {
    throw po::error("--on-exit takes silent or release, not '" + text + "'");
  }
  on_exit = text == "release" ? OnExit::release : OnExit::silent;
}

po::options_description settings_description(Options& options) {
  po::options_description description("Options, also in a settings file");
  description.add_options()(
      "port", po::value(&options.ports)->value_name("PORT"),
      "interface name, PCI address or vdev:NAME[,ARGUMENTS]; repeat it for more")(
      "client-side", po::value(&options.client_side)->value_name("PORT"),
      "a port that only clients are behind: where its NIC can hash by the source alone, packets "
      "arrive at the worker that owns them")(
      "server-side", po::value(&options.server_side)->value_name("PORT"),
      "a port that only real servers are behind: likewise, by the destination")(
      "workers", po::value(&options.workers)->value_name("N")->default_value(1),
      "polling workers, each on its own CPU")(
      "lcores", po::value(&options.lcores)->value_name("LIST"),
      "which CPUs to use, as EAL's --lcores; workers + 1 lcores")(
      "connections-per-worker",
      po::value(&options.connections_per_worker)->value_name("N")->default_value(1'000'000),
      "connections that a worker can hold; fixed at start")(
      "ipv6-connections-per-worker",
      po::value(&options.ipv6_connections_per_worker)->value_name("N"),
      "the same for IPv6, which has a table of its own; default: a quarter of the former")(
      "mtu", po::value(&options.mtu)->value_name("BYTES")->default_value(options.mtu),
      "largest IP packet of ports that are DPDK's own; fixed at start")(
      "busy-poll", po::bool_switch(&options.busy_poll),
      "idle workers never sleep: lowest latency, whole CPUs")(
      "on-exit",
      po::value<std::string>()
          ->value_name("silent|release")
          ->notifier([&options](const std::string& text) { set_on_exit(text, options.on_exit); }),
      "what clients of kernel interfaces see once weir has stopped: silence, so that their "
      "connections outlive a restart (the default), or the kernel's answers")(
      "normal-pages", po::bool_switch(&options.normal_pages),
      "packet buffers use normal pages, slower, even where huge pages are free")(
      "socket", po::value(&options.socket)->value_name("PATH")->default_value(options.socket),
      "UNIX socket for ipvsadm and weirctl")(
      "eal", po::value(&options.eal)->value_name("ARGUMENTS"),
      "more arguments for DPDK's EAL, separated by spaces; repeat it for more");
  return description;
}

absl::Status read_settings(const std::string& path, const po::options_description& description,
                           po::variables_map& values, Options& options) {
  std::ifstream file(path);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("cannot read the settings file ", path, ": check its name and permissions"));
  }
  constexpr absl::string_view kSection = "settings.";
  constexpr bool kOthersToo = true;
  try {
    po::basic_parsed_options<char> parsed = po::parse_config_file(file, description, kOthersToo);
    for (const po::option& option : parsed.options) {
      if (!option.unregistered) continue;
      absl::string_view name = option.string_key;
      if (!absl::ConsumePrefix(&name, kSection) || option.value.size() != 1) {
        throw po::unknown_option(option.string_key);
      }
      options.changed_settings.emplace_back(name, option.value.front());
    }
    po::store(parsed, values);
  } catch (const po::error& error) {
    return absl::InvalidArgumentError(absl::StrCat("the settings file ", path, ": ", error.what(),
                                                   "; the names are those of weir --help, and in "
                                                   "the section [settings] of `weirctl show "
                                                   "settings`"));
  }
  return absl::OkStatus();
}

bool contains(const std::vector<std::string>& ports, const std::string& port) {
  return std::find(ports.begin(), ports.end(), port) != ports.end();
}

absl::Status check_sides(const Options& options) {
  for (const auto* side : {&options.client_side, &options.server_side}) {
    for (const std::string& port : *side) {
      if (contains(options.ports, port)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("--client-side and --server-side say more about a port, so ", port,
                       " needs its --port, too, written alike"));
    }
  }
  for (const std::string& port : options.client_side) {
    if (!contains(options.server_side, port)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("a port with clients and real servers behind it is neither --client-side nor "
                     "--server-side: leave out both for ",
                     port));
  }
  return absl::OkStatus();
}

absl::Status check(const Options& options) {
  if (options.ports.empty()) {
    return absl::InvalidArgumentError(
        "no port: give at least one, for example --port eth1 (a kernel interface), --port "
        "0000:3b:00.0 (a NIC bound to vfio-pci) or --port vdev:net_tap0; weir --help says more");
  }
  if (options.ports.size() > kMaxPortOptions) {
    return absl::InvalidArgumentError(
        absl::StrCat("weir serves at most ", kMaxPortOptions, " ports"));
  }
  for (auto port = options.ports.begin(); port != options.ports.end(); ++port) {
    if (std::find(options.ports.begin(), port, *port) == port) continue;
    return absl::InvalidArgumentError(absl::StrCat("--port ", *port, " is there twice"));
  }
  if (const absl::Status status = check_sides(options); !status.ok()) return status;
  if (options.workers == 0 || options.workers > kMaxWorkers) {
    return absl::InvalidArgumentError(
        absl::StrCat("--workers takes a number from 1 to ", kMaxWorkers));
  }
  constexpr std::uint32_t kMost = 1U << 30;
  if (options.connections_per_worker == 0 || options.connections_per_worker > kMost) {
    return absl::InvalidArgumentError(
        absl::StrCat("--connections-per-worker takes a number from 1 to ", kMost));
  }
  if (options.ipv6_connections_per_worker > kMost) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ipv6-connections-per-worker takes a number from 1 to ", kMost));
  }
  constexpr std::uint16_t kLeastMtu = 1280;  // of a link with IPv6
  constexpr std::uint16_t kMostMtu = 9702;
  if (options.mtu < kLeastMtu || options.mtu > kMostMtu) {
    return absl::InvalidArgumentError(
        absl::StrCat("--mtu takes a number from ", kLeastMtu, " to ", kMostMtu));
  }
  constexpr std::uint16_t kMostBesideKernelPorts = 3438;  // all ports share their buffers
  for (const std::string& port : options.ports) {
    if (options.mtu <= kMostBesideKernelPorts || port_kind(port) != PortKind::kernel_interface) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat("--mtu takes at most ", kMostBesideKernelPorts,
                                                   " beside a kernel interface such as ", port,
                                                   ": give all ports to DPDK, or ask for less"));
  }
  return absl::OkStatus();
}

// Few clients come by IPv6 where nobody has asked for more, and a place there takes twice the room.
std::uint32_t default_ipv6_connections(std::uint32_t connections) {
  constexpr std::uint32_t kAtLeast = 1U << 16;
  return std::max(connections / 4, std::min(connections, kAtLeast));
}

void split_eal(Options& options) {
  std::vector<std::string> words;
  for (const std::string& text : options.eal) {
    for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
      words.emplace_back(word);
    }
  }
  options.eal = std::move(words);
}

}  // namespace

PortSide Options::side_of(const std::string& port) const {
  if (contains(client_side, port)) return PortSide::clients;
  return contains(server_side, port) ? PortSide::servers : PortSide::both;
}

PortKind port_kind(const std::string& port) {
  static const std::regex pci("([0-9a-fA-F]{4}:)?[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\\.[0-7]");
  if (port.rfind("vdev:", 0) == 0) return PortKind::vdev;
  return std::regex_match(port, pci) ? PortKind::pci_address : PortKind::kernel_interface;
}

absl::StatusOr<std::optional<Options>> parse_options(int argc, const char* const* argv) {
  Options options;
  const po::options_description in_file = settings_description(options);
  std::string settings;
  po::options_description on_line("Options of the command line only");
  on_line.add_options()("settings", po::value(&settings)->value_name("FILE"),
                        "read options from an INI file")("help,h", "this text")("version,v",
                                                                                "weir's version");
  po::options_description all;
  all.add(on_line).add(in_file);
  po::variables_map values;
  try {
    // No guessing of abbreviated names: a new option must not change what an old script means.
    constexpr int kStyle =
        po::command_line_style::unix_style ^ po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(argc, argv).options(all).positional({}).style(kStyle).run(),
              values);
    if (values.count("help") != 0) {
      std::cout << kIntroduction << on_line << "\n" << in_file << kAfterwords;
      return std::optional<Options>();
    }
    if (values.count("version") != 0) {
      std::cout << "weir " WEIR_VERSION "\n";
      return std::optional<Options>();
    }
    if (values.count("settings") != 0) {
      const auto status =
          read_settings(values["settings"].as<std::string>(), in_file, values, options);
      if (!status.ok()) return status;
    }
    po::notify(values);
  } catch (const po::error& error) {
    return absl::InvalidArgumentError(absl::StrCat(error.what(), "; see weir --help"));
  }
  if (const auto status = check(options); !status.ok()) return status;
  split_eal(options);
  if (options.ipv6_connections_per_worker == 0) {
    options.ipv6_connections_per_worker = default_ipv6_connections(options.connections_per_worker);
  }
  return std::optional<Options>(std::move(options));
}

}  // namespace weir
