// SPDX-License-Identifier: Apache-2.0
// Which packets are weir's, as the sum of what services, real servers and pools claim. From the
// same claims come the workers' ServiceIndex and the maps of the steering program, both as
// differences: a claim costs the segment of the index that it is in.
// Thread: the control thread only.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "dataplane/table/paged_array.h"
#include "dataplane/table/service_index.h"
#include "dataplane/xdp/steered.h"

namespace weir {

class ClaimBook {
 public:
  using ReplyTo = ServiceIndex::ReplyTo;

  ClaimBook();

  // Each claim that was made is taken back once. Port 0: all ports.
  void claim_service(const IpAddress& address, std::uint16_t port, Protocol protocol,
                     ServiceSlot slot);
  void release_service(const IpAddress& address, std::uint16_t port, Protocol protocol);
  void claim_mark(std::uint32_t mark, Family family, ServiceSlot slot);
  void release_mark(std::uint32_t mark, Family family);
  // Where data connections of FTP go, beside the service for its port.
  void claim_ftp_data(const IpAddress& address) { change(ftp_data(address), +1); }
  void release_ftp_data(const IpAddress& address) { change(ftp_data(address), -1); }
  void claim_replies(const IpAddress& address, std::uint16_t port, Protocol protocol, ReplyTo to);
  void release_replies(const IpAddress& address, std::uint16_t port, Protocol protocol, ReplyTo to);
  // A source of replies that answers without connections, beside its claim_replies().
  void claim_one_packet(const IpAddress& address, std::uint16_t port, ServerSlot slot);
  void release_one_packet(const IpAddress& address, std::uint16_t port, ServerSlot slot);
  // Of fullnat; of real servers behind tunnels; of this host.
  void claim_local_address(const IpAddress& address) { change(local_address(address), +1); }
  void release_local_address(const IpAddress& address) { change(local_address(address), -1); }
  void claim_tunnel_server(const IpAddress& address) { change(tunnel_server(address), +1); }
  void release_tunnel_server(const IpAddress& address) { change(tunnel_server(address), -1); }
  void claim_host_address(const IpAddress& address) { change(host_address(address), +1); }
  void release_host_address(const IpAddress& address) { change(host_address(address), -1); }

  // Makes segments of the next index, at most so many. False: all are made.
  bool make_segments(std::size_t at_most);
  // The index of all claims so far. The same object where they are the same.
  std::shared_ptr<const ServiceIndex> publish();

  // What has changed of the steering program's maps, at most `at_most` of it, and no more then. A
  // key may come twice.
  std::vector<SteeringChange> take_steering_changes(std::size_t at_most);
  bool has_steering_changes() const { return !untold_.empty(); }
  void drop_steering_changes();
  std::uint32_t steering_extras() const;
  SteeringSizes steering_sizes() const { return sizes_; }

 private:
  // Of steering alone, beside the index's own roles.
  enum class Extra : std::uint8_t { none, ftp_data, tunnel_server, host_address };
  struct Key {
    ServiceIndex::Key key;
    Extra extra = Extra::none;
    friend bool operator==(const Key&, const Key&) = default;
    template <class H>
    friend H AbslHashValue(H hash, const Key& k) {
      return H::combine(std::move(hash), k.key.address.bytes(), k.key.address.is_ipv4(),
                        k.key.port.raw(), k.key.protocol, k.key.role, k.extra);
    }
  };
  struct Claims {
    std::uint32_t plain = 0;
    std::uint32_t to_client = 0;
    std::uint32_t to_local_address = 0;
    std::uint32_t slot = 0;
    std::vector<ServerSlot> one_packet;
    bool none() const {
      return plain == 0 && to_client == 0 && to_local_address == 0 && one_packet.empty();
    }
  };
  struct Segment {
    absl::flat_hash_map<Key, Claims> claims;
    std::shared_ptr<const void> memory;
    bool is_stale = false;
    std::vector<Key> untold;  // of which the steering program has to be told
  };
  struct SegmentName {
    Family family;
    std::size_t index;
  };
  struct Version {
    ServiceIndex index;
    std::shared_ptr<Losses> losses;
  };

  static Key of(const IpAddress& address, std::uint16_t port, Protocol protocol,
                ServiceIndex::Role role, Extra extra = Extra::none);
  static Key of_address(const IpAddress& address, ServiceIndex::Role role,
                        Extra extra = Extra::none);
  static Key ftp_data(const IpAddress& address);
  static Key local_address(const IpAddress& address);
  static Key tunnel_server(const IpAddress& address);
  static Key host_address(const IpAddress& address);

  Segment& segment_at(const SegmentName& name);
  Segment& segment_of(const Key& key, SegmentName& name);
  Claims* find(const Key& key);
  // Calls edit(claims) for the key's, which go where nothing is left of them.
  template <class Edit>
  void edit(const Key& key, Edit&& edit);
  void change(const Key& key, int by);
  void change_replies(const Key& key, ReplyTo to, int by);
  void make_segment(const SegmentName& name);
  SteeringChange steering_of_address(const IpAddress& address);
  SteeringChange steering_of(const Key& key);
  void count_sizes(const Key& key, int by);

  std::array<std::vector<Segment>, 2> segments_;  // by family
  std::vector<SegmentName> stale_;
  ServiceIndex draft_;
  RetiredParts replaced_;
  std::shared_ptr<Losses> losses_ = std::make_shared<Losses>();
  std::shared_ptr<const Version> published_;
  std::vector<SegmentName> untold_;  // segments that have such
  SteeringSizes sizes_;
  // Claims of all ports, of FTP's data, of replies from all ports, of one-packet servers.
  std::uint32_t services_for_all_ports_ = 0;
  std::uint32_t ftp_services_ = 0;
  std::uint32_t ftp_data_ = 0;
  std::uint32_t sources_of_all_ports_ = 0;
  std::uint32_t one_packet_servers_ = 0;
  bool is_changed_ = true;
};

}  // namespace weir
