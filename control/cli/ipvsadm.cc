// SPDX-License-Identifier: Apache-2.0
#include "control/cli/ipvsadm.h"

#include <array>
#include <istream>
#include <optional>
#include <ostream>
#include <sstream>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "control/cli/ipvsadm_arguments.h"
#include "control/cli/ipvsadm_output.h"

namespace weir {
namespace {

constexpr int kSuccess = 0;
constexpr int kListFailed = 1;
constexpr int kFailed = 255;
constexpr std::size_t kLinesAtOnce = 500;  // of `-R`, in one request

// IPVS's error numbers mean different things to different commands.
struct ErrorText {
  IpvsadmCommand command;
  absl::StatusCode code;
  std::string_view text;
};

constexpr std::string_view kNoSuchService = "No such service";
constexpr std::string_view kNotDefined = "Service not defined";
constexpr std::string_view kNoScheduler = "Scheduler or persistence engine not found";
constexpr std::string_view kNoDestination = "No such destination";

using C = IpvsadmCommand;
using Code = absl::StatusCode;
constexpr std::array kErrorTexts = {
    ErrorText{C::add_service, Code::kAlreadyExists, "Service already exists"},
    ErrorText{C::add_service, Code::kNotFound, kNoScheduler},
    ErrorText{C::edit_service, Code::kFailedPrecondition, kNoSuchService},
    ErrorText{C::edit_service, Code::kNotFound, kNoScheduler},
    ErrorText{C::delete_service, Code::kFailedPrecondition, kNoSuchService},
    ErrorText{C::zero, Code::kFailedPrecondition, kNoSuchService},
    ErrorText{C::list, Code::kFailedPrecondition, kNoSuchService},
    ErrorText{C::add_server, Code::kAlreadyExists, "Destination already exists"},
    ErrorText{C::add_server, Code::kFailedPrecondition, kNotDefined},
    ErrorText{C::edit_server, Code::kFailedPrecondition, kNotDefined},
    ErrorText{C::edit_server, Code::kNotFound, kNoDestination},
    ErrorText{C::delete_server, Code::kFailedPrecondition, kNotDefined},
    ErrorText{C::delete_server, Code::kNotFound, kNoDestination},
    ErrorText{C::start_daemon, Code::kAlreadyExists, "Daemon has already run"},
    ErrorText{C::stop_daemon, Code::kFailedPrecondition, "No daemon is running"},
};

std::string error_text(IpvsadmCommand command, const absl::Status& status) {
  for (const ErrorText& entry : kErrorTexts)
    if (entry.command == command && entry.code == status.code()) return std::string(entry.text);
  if (status.code() == Code::kInvalidArgument)
    return "Invalid operation.  Possibly wrong module version, address not unicast, ...";
  if (status.code() == Code::kOutOfRange) return "Numerical result out of range";
  return std::string(status.message());
}

// What the request changes of the configuration, if it does.
std::optional<Change> change_of(const IpvsadmRequest& request) {
  const ServiceSpec service = request.service.value_or(ServiceSpec{});
  switch (request.command) {
    case C::add_service:
      return AddService{service};
    case C::edit_service:
      return EditService{service};
    case C::delete_service:
      return DeleteService{service.key};
    case C::clear:
      return DeleteAllServices{};
    case C::add_server:
      return AddServer{service.key, request.server};
    case C::edit_server:
      return EditServer{service.key, request.server};
    case C::delete_server:
      return DeleteServer{service.key, request.server.address, request.server.port};
    case C::set_timeouts:
      return SetTimeouts{request.timeouts};
    default:
      return std::nullopt;
  }
}

enum class InRestore { no, yes };

class IpvsadmRun {
 public:
  IpvsadmRun(ApiClient& weir, NameLookup& names, const CommandStreams& streams)
      : weir_(weir), names_(names), streams_(streams) {}

  // A command line of its own, or a line of `-R`.
  int run(std::span<const std::string> arguments, InRestore in_restore);
  // After a usage error, and where weir does not answer, `-R` reads no further line.
  bool ends_restore() const { return ends_restore_; }

 private:
  int end_with(int exit_code) {
    ends_restore_ = true;
    return exit_code;
  }
  int usage(const IpvsadmUsageError& error);
  int perform(const IpvsadmRequest& request);
  int restore();
  int perform_batch();
  int list(const IpvsadmRequest& request);
  absl::Status change(const IpvsadmRequest& request);
  absl::Status print_services(const IpvsadmRequest& request);
  absl::Status print_connections(const IpvsadmRequest& request);
  absl::Status print_timeouts();
  absl::Status print_daemons();
  absl::Status print_rules(const IpvsadmRequest& request);
  int report(IpvsadmCommand command, const absl::Status& status, int exit_code);
  NameLookup* names_for(const IpvsadmRequest& request) {
    return request.names == NameStyle::names ? &names_ : nullptr;
  }

  ApiClient& weir_;
  NameLookup& names_;
  const CommandStreams& streams_;
  bool ends_restore_ = false;
  std::vector<IpvsadmRequest> batch_;  // lines of `-R` that change something
};

int IpvsadmRun::run(std::span<const std::string> arguments, InRestore in_restore) {
  static const std::vector<std::string> kListAll = {"-L"};
  const auto parsed = parse_ipvsadm_arguments(arguments.empty() ? kListAll : arguments, names_);
  if (const auto* error = std::get_if<IpvsadmUsageError>(&parsed)) return usage(*error);
  const auto& request = std::get<IpvsadmRequest>(parsed);
  switch (request.command) {
    case C::help:
      streams_.out << ipvsadm_version() << ipvsadm_help();
      return end_with(kSuccess);
    case C::version:
      streams_.out << ipvsadm_version();
      return end_with(kSuccess);
    case C::restore:
      if (in_restore == InRestore::no) return restore();
      return usage(ipvsadm_try_help());
    default:
      break;
  }
  if (in_restore == InRestore::yes && change_of(request)) {
    batch_.push_back(request);
    return kSuccess;
  }
  const int before = perform_batch();
  if (ends_restore_) return before;
  const int result = perform(request);
  return result == kSuccess ? before : result;
}

int IpvsadmRun::usage(const IpvsadmUsageError& error) {
  perform_batch();
  streams_.err << error.message << '\n';
  if (error.severity == IpvsadmUsageError::Severity::ends_restore) ends_restore_ = true;
  return error.exit_code;
}

int IpvsadmRun::restore() {
  int result = kSuccess;
  std::string line;
  while (std::getline(streams_.in, line)) {
    std::istringstream words(line);
    std::vector<std::string> arguments;
    for (std::string word; words >> word;) {
      if (!arguments.empty() || word != "ipvsadm") arguments.push_back(word);
    }
    if (arguments.empty()) continue;
    const int line_result = run(arguments, InRestore::yes);
    if (ends_restore_) return line_result;
    if (line_result != kSuccess) result = line_result;
    // Whoever types, or waits for each line, is answered at once.
    const bool pause = batch_.size() >= kLinesAtOnce || streams_.in.rdbuf()->in_avail() <= 0;
    const int batch_result = pause ? perform_batch() : kSuccess;
    if (ends_restore_) return batch_result;
    if (batch_result != kSuccess) result = batch_result;
  }
  const int batch_result = perform_batch();
  return batch_result == kSuccess ? result : batch_result;
}

// Changes that were read one after the other, in one request; each stands alone.
int IpvsadmRun::perform_batch() {
  if (batch_.empty()) return kSuccess;
  Plan plan;
  for (const IpvsadmRequest& request : batch_) plan.push_back(*change_of(request));
  const std::vector<IpvsadmRequest> batch = std::exchange(batch_, {});
  const auto failures = weir_.commit_each(std::move(plan));
  if (!failures.ok()) return report(batch.front().command, failures.status(), kFailed);
  int result = kSuccess;
  for (const ChangeFailure& failure : *failures) {
    if (failure.change >= batch.size()) continue;
    result = report(batch[failure.change].command, failure.status, kFailed);
  }
  return result;
}

int IpvsadmRun::report(IpvsadmCommand command, const absl::Status& status, int exit_code) {
  if (status.ok()) return kSuccess;
  streams_.err << error_text(command, status) << '\n';
  if (status.code() == Code::kUnavailable || status.code() == Code::kPermissionDenied)
    return end_with(kFailed);
  return exit_code;
}

int IpvsadmRun::perform(const IpvsadmRequest& request) {
  if (request.command == C::list) return list(request);
  const absl::Status status = request.command == C::save ? print_rules(request) : change(request);
  return report(request.command, status, kFailed);
}

int IpvsadmRun::list(const IpvsadmRequest& request) {
  absl::Status status;
  switch (request.list) {
    case IpvsadmList::services:
      status = print_services(request);
      break;
    case IpvsadmList::connections:
      status = print_connections(request);
      break;
    case IpvsadmList::timeouts:
      status = print_timeouts();
      break;
    case IpvsadmList::daemons:
      status = print_daemons();
      break;
  }
  const int result = report(C::list, status, kListFailed);
  return result == kSuccess ? kSuccess : end_with(result);
}

absl::Status IpvsadmRun::change(const IpvsadmRequest& request) {
  if (const auto change = change_of(request)) return weir_.commit(*change);
  switch (request.command) {
    case C::zero:
      if (request.service) return weir_.zero(request.service->key);
      return weir_.zero(std::nullopt);
    case C::start_daemon:
      return weir_.start_sync_daemon(request.daemon);
    case C::stop_daemon:
      return weir_.stop_sync_daemon(request.daemon.role);
    default:
      return absl::InternalError("This command changes nothing.");
  }
}

absl::Status IpvsadmRun::print_services(const IpvsadmRequest& request) {
  std::vector<ServiceListing> services;
  if (request.service) {
    auto service = weir_.find(request.service->key);
    if (!service.ok()) return service.status();
    services.push_back(*std::move(service));
  } else {
    auto all = weir_.list();
    if (!all.ok()) return all.status();
    services = *std::move(all);
    streams_.out << version_line();
  }
  if (request.order == ListOrder::sorted) sort_services(services);
  const ListingStyle style{
      .columns = request.columns, .numbers = request.numbers, .names = names_for(request)};
  streams_.out << column_titles(style);
  for (const ServiceListing& service : services) streams_.out << service_lines(service, style);
  return absl::OkStatus();
}

absl::Status IpvsadmRun::print_connections(const IpvsadmRequest& request) {
  NameLookup* names = names_for(request);
  bool titles_printed = false;
  const auto print_titles = [&] {
    if (!std::exchange(titles_printed, true)) streams_.out << connection_titles(request.columns);
  };
  const absl::Status status = weir_.for_each_connection([&](const ConnectionListing& connection) {
    print_titles();
    streams_.out << connection_line(connection, names);
  });
  if (status.ok()) print_titles();
  return status;
}

absl::Status IpvsadmRun::print_timeouts() {
  const auto timeouts = weir_.timeouts();
  if (timeouts.ok()) streams_.out << timeouts_line(*timeouts);
  return timeouts.status();
}

absl::Status IpvsadmRun::print_daemons() {
  const auto daemons = weir_.sync_daemons();
  if (!daemons.ok()) return daemons.status();
  for (const SyncDaemonSpec& daemon : *daemons) streams_.out << daemon_line(daemon);
  return absl::OkStatus();
}

absl::Status IpvsadmRun::print_rules(const IpvsadmRequest& request) {
  auto services = weir_.list();
  if (!services.ok()) return services.status();
  sort_services(*services);
  for (const ServiceListing& service : *services)
    streams_.out << saved_lines(service, names_for(request));
  return absl::OkStatus();
}

}  // namespace

int run_ipvsadm(std::span<const std::string> arguments, ApiClient& weir, NameLookup& names,
                const CommandStreams& streams) {
  return IpvsadmRun(weir, names, streams).run(arguments, InRestore::no);
}

int run_ipvsadm_save(std::span<const std::string> arguments, ApiClient& weir, NameLookup& names,
                     const CommandStreams& streams) {
  std::vector<std::string> save = {"-S"};
  for (const std::string& argument : arguments) {
    if (argument == "-n") {
      save.emplace_back("-n");
    } else if (argument.starts_with('-')) {
      streams.err << "ipvsadm-save: Script to save the IPVS table to stdout.\n"
                     "   With the -n option, prints out the table in numeric format.\n";
      return 1;
    }
  }
  return run_ipvsadm(save, weir, names, streams);
}

int run_ipvsadm_restore(std::span<const std::string>, ApiClient& weir, NameLookup& names,
                        const CommandStreams& streams) {
  std::string rules;
  for (std::string line; std::getline(streams.in, line);) {
    if (!line.starts_with('#')) rules += line + '\n';
  }
  const std::array<std::string, 1> clear = {"-C"};
  const std::array<std::string, 1> restore = {"-R"};
  if (const int failed = run_ipvsadm(clear, weir, names, streams); failed != 0) return failed;
  std::istringstream in(rules);
  return run_ipvsadm(restore, weir, names, {.in = in, .out = streams.out, .err = streams.err});
}

}  // namespace weir
