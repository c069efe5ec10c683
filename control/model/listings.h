// SPDX-License-Identifier: Apache-2.0
// What weir tells of what it does, as plain values. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "control/model/specs.h"

namespace weir {

struct Totals {
  std::uint64_t connections = 0;
  std::uint64_t packets_in = 0;
  std::uint64_t packets_out = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;

  Totals& operator+=(const Totals& other) {
    connections += other.connections;
    packets_in += other.packets_in;
    packets_out += other.packets_out;
    bytes_in += other.bytes_in;
    bytes_out += other.bytes_out;
    return *this;
  }
  friend Totals operator-(Totals a, const Totals& b) {
    a.connections -= b.connections;
    a.packets_in -= b.packets_in;
    a.packets_out -= b.packets_out;
    a.bytes_in -= b.bytes_in;
    a.bytes_out -= b.bytes_out;
    return a;
  }
};

// IPVS's estimator (ip_vs_est.c): every 2 s, average += (rate - average) / 4; per second.
struct Rates {
  std::uint64_t connections = 0;
  std::uint64_t packets_in = 0;
  std::uint64_t packets_out = 0;
  std::uint64_t bytes_in = 0;
  std::uint64_t bytes_out = 0;
};

struct ServerListing {
  ServerSpec spec;
  bool is_local = false;  // the address is this host's own: its packets go through the kernel
  std::uint32_t active = 0;
  std::uint32_t inactive = 0;
  std::uint32_t persistent = 0;
  Totals totals;  // since the last -Z
  Rates rates;
};

struct ServiceListing {
  ServiceSpec spec;
  bool address_is_local = true;        // false: no interface of this host owns the VIP
  std::vector<ServerListing> servers;  // newest first
  std::vector<ServiceOption> options;  // those that are not default
  Totals totals;
  Rates rates;
};

struct ConnectionListing {
  Protocol protocol = Protocol::tcp;
  std::string state;          // "ESTABLISHED", "UDP", ...
  std::uint32_t expires = 0;  // seconds
  IpAddress client;
  std::uint16_t client_port = 0;
  IpAddress virtual_address;
  std::uint16_t virtual_port = 0;
  IpAddress server;
  std::uint16_t server_port = 0;
};

// What one worker has done since it started.
struct WorkerListing {
  std::uint32_t worker = 0;
  // Per cent of its time that went into packets, over the last RateEstimator::kIntervalSeconds.
  std::uint32_t busy = 0;
  std::uint32_t open = 0;  // connections of both families, and persistence templates
  std::uint32_t capacity = 0;
  Totals totals;
  std::uint64_t handed_over = 0;  // packets, to other workers
  std::uint64_t to_kernel = 0;
  std::uint64_t dropped = 0;
};

struct LocalAddressListing {
  std::optional<ServiceKey> service;  // none: for every service that has none of its own
  AddressRange range;
  std::uint32_t count = 0;
  std::uint32_t not_owned = 0;  // of them, those that no interface of this host owns
};

// One of the settings (net.ipv4.vs.* where IPVS has them).
struct SettingListing {
  std::string name;
  std::string value;
  std::string help;
};

struct NamedCounter {
  std::string name;
  std::uint64_t value = 0;
};

// Jobs of the control thread that were shorter than this, and not shorter than the limit before.
struct JobLengths {
  std::uint64_t below_us = 0;  // 0: all others
  std::uint64_t jobs = 0;
};

// How long the jobs of the control thread took since weir started.
struct LoopListing {
  std::uint64_t jobs = 0;
  std::uint64_t longest_us = 0;
  std::uint64_t total_us = 0;
  std::vector<JobLengths> lengths;  // up to the longest job's
};

}  // namespace weir
