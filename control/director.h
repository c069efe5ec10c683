// SPDX-License-Identifier: Apache-2.0
// One running weir: ports, workers, network, services and faces, wired together. Control thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <absl/status/status.h>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "control/api/api_server.h"
#include "control/host/network.h"
#include "control/host/reserved_ports.h"
#include "control/host/steering.h"
#include "control/live/services.h"
#include "control/loop/event_loop.h"
#include "control/loop/processes.h"
#include "control/loop/task.h"
#include "control/loop/timers.h"
#include "control/options.h"
#include "dataplane/io/dpdk_datagrams.h"
#include "dataplane/io/dpdk_startup.h"
#include "dataplane/io/exception_path.h"
#include "dataplane/io/port.h"
#include "dataplane/io/port_filter.h"
#include "dataplane/io/publisher.h"
#include "dataplane/io/worker.h"
#include "dataplane/table/table_memory.h"

namespace weir {

class Director {
 public:
  // `helper` starts programs for it.
  Director(Options options, ProcessHelper helper);
  ~Director();
  Director(const Director&) = delete;
  Director& operator=(const Director&) = delete;

  // Takes the ports and starts the workers; on an error nothing is left behind. Aborted: huge pages
  // that were free have gone meanwhile, so that only another process can start, with normal pages.
  absl::Status start();
  // Serves until a signal ends it.
  void run();

 private:
  // One port of the command line on its way to being served.
  struct PortRecord {
    PortKind kind = PortKind::vdev;
    std::string device;  // DPDK's name
    PortSide side = PortSide::both;
    std::unique_ptr<Steering> steering;  // kernel interfaces only
    std::unique_ptr<PortFilter> filter;  // all others
    Network::LinkState last_state = Network::LinkState::up;
    std::string told_error;  // of steering, so that each is said once
  };
  // A worker's state, in the order in which its parts need each other.
  struct WorkerRecord {
    std::unique_ptr<TableMemory> memory;
    std::unique_ptr<WorkerStatistics> statistics;
    std::unique_ptr<WorkerState> state;
    std::unique_ptr<Worker> worker;
    unsigned lcore = 0;
  };

  absl::Status claim_ports();
  absl::Status start_dpdk();
  EalPlan plan_dpdk(unsigned buffers, std::uint16_t mtu) const;
  absl::Status make_buffers(const EalPlan& plan, unsigned buffers, std::uint16_t mtu);
  absl::Status open_ports();
  absl::Status open_port(PortRecord& record);
  absl::Status open_exception_interfaces();
  absl::StatusOr<std::unique_ptr<ExceptionInterface>> open_exception_interface(
      std::uint16_t port, ExceptionInterface::Use use);
  std::unique_ptr<OwnerMap> make_owners() const;
  std::uint32_t unfinished_checksum_ports() const;
  absl::Status make_workers();
  absl::StatusOr<std::unique_ptr<TableMemory>> map_tables(std::size_t bytes);
  void launch_workers();
  absl::Status give_up_privileges();
  absl::Status open_control();
  absl::Status apply_settings();
  void on_network_change(const Network::Change& change);
  void schedule_work();
  Task<> do_work();
  void await_workers();
  absl::Status check_steering_room(const SteeringSizes& sizes) const;
  void steer(std::span<const SteeringChange> changes, const SteeringConfig& config);
  void retry_steering();
  static void say_once(PortRecord& record, const absl::Status& status);
  void reserve_local_ports();
  void watch_links();
  std::vector<std::uint16_t> vlans_of(std::uint16_t port) const;
  void report_complaints();
  void watch_local_ports();
  void add_complaints_about(std::uint16_t port, std::vector<std::string>& complaints) const;
  std::optional<std::string> complaint_about_mtu(std::uint16_t port) const;
  Services::Counted counted_by_ports() const;
  void await_misses();
  void look_for_misses();
  void drain_misses();
  void mark_used_next_hops();
  void repeat(LoopClock::duration interval, void (Director::*job)());
  void catch_signals(int first, int last);
  Task<> take_signals();
  bool has_services() const;
  Task<> lift_guards();
  void end_silence_or_keep_it();
  void keep_house();
  void estimate_rates();
  void stop();

  Options options_;
  EventLoop loop_;
  boost::asio::signal_set signals_{loop_.io()};
  Processes processes_;
  bool told_to_end_ = false;  // by a signal
  bool dpdk_started_ = false;
  bool workers_running_ = false;
  rte_mempool* pool_ = nullptr;
  std::uint16_t largest_packet_ = 0;  // that a buffer holds
  std::unique_ptr<DatagramPool> datagrams_;
  std::vector<PortRecord> port_records_;
  std::vector<Port> ports_;
  std::vector<std::unique_ptr<ExceptionInterface>> exception_interfaces_;
  std::vector<std::string> exception_names_;
  std::vector<ExceptionInterface::Use> exception_uses_;  // by port
  std::unique_ptr<OwnerMap> owners_;
  std::vector<WorkerStatistics*> statistics_;
  std::vector<WorkerState*> states_;
  std::unique_ptr<Publisher> publisher_;
  std::unique_ptr<Rings> rings_;
  std::unique_ptr<boost::asio::posix::stream_descriptor> missed_;
  std::vector<WorkerRecord> workers_;
  std::unique_ptr<Services> services_;
  std::unique_ptr<Network> network_;
  class HostView;
  std::unique_ptr<HostNetwork> host_;
  bool work_scheduled_ = false;
  bool awaiting_workers_ = false;
  boost::asio::steady_timer adoption_timer_{loop_.io()};
  std::unique_ptr<ExceptionPath> exception_path_;
  std::unique_ptr<ApiServer> api_;
  std::unique_ptr<ReservedPorts> reserved_ports_;
  KernelSources kernel_sources_;
  bool reserves_ports_ = false;
  std::uint64_t told_without_port_ = 0;  // packets
  std::string told_reservation_error_;
  std::vector<std::string> told_complaints_;
  Tasks tasks_;
};

}  // namespace weir
