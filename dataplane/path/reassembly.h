// SPDX-License-Identifier: Apache-2.0
// Fragments of IPv4 and IPv6 datagrams (RFC 791, RFC 8200 section 4.5) collected into one buffer
// each, as Linux does (net/ipv4/ip_fragment.c, net/ipv6/reassembly.c, inet_fragment.c).
//
// The buffer of a datagram:
// | headroom | Ethernet and IP headers of the first fragment as they came | payload at its offset |
//                                                           kPayloadPlace ^
// The headers end where the payload begins, whatever their length, so that fragments are copied to
// their place in any order, and the first one lies there as it came. Of the whole only an IPv6
// fragment header is taken out.
//
// Bounds: kDatagrams under way, unless told otherwise, kMaxFragments each, kTimeout4 or kTimeout6
// from the first one to arrive. A full table gives up the oldest. About 290 kB, and a buffer for
// each datagram under way.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "dataplane/net/addresses.h"
#include "dataplane/path/packet.h"
#include "dataplane/table/connection.h"

namespace weir {

// Where datagrams are collected, and what gives back buffers of either kind. Worker thread.
class DatagramBuffers {
 public:
  // Of a datagram with all that is in front of it.
  static constexpr std::size_t kBytes = 65984;

  struct Buffer {
    std::uint8_t* bytes = nullptr;  // kBytes of them; null: none is left
    void* handle = nullptr;         // Packet::buffer of the datagram
  };

  virtual Buffer get() noexcept = 0;
  // A handle of get(), or the Packet::buffer that a fragment came in.
  virtual void put(void* handle) noexcept = 0;

 protected:
  ~DatagramBuffers() = default;
};

// Written and read by: the owning worker.
class Reassembly {
 public:
  static constexpr std::size_t kDatagrams = 256;
  static constexpr std::uint16_t kMaxFragments = 256;
  static constexpr std::uint32_t kTimeout4 = 30 * kTicksPerSecond;  // net.ipv4.ipfrag_time
  static constexpr std::uint32_t kTimeout6 = 60 * kTicksPerSecond;  // RFC 8200 section 4.5
  static constexpr std::size_t kHeadroom = 256;
  static constexpr std::size_t kMaxHeaders = 192;  // Ethernet to IPv6's fragment header
  static constexpr std::size_t kPayloadPlace = kHeadroom + kMaxHeaders;
  static constexpr std::size_t kMaxPayload = 0xffff;
  static_assert(kPayloadPlace + kMaxPayload <= DatagramBuffers::kBytes);

  // `buffers` outlives it. `seed`, secret, places datagrams in the hash table. `datagrams`, at
  // least 1, is how many can be under way.
  Reassembly(DatagramBuffers& buffers, std::uint64_t seed, std::size_t datagrams = kDatagrams);
  ~Reassembly();
  Reassembly(const Reassembly&) = delete;
  Reassembly& operator=(const Reassembly&) = delete;

  struct Result {
    // undecided: `packet` is the whole datagram now, in a buffer of its own, its frame to be parsed
    // anew; the fragment's buffer has been given back. Else the caller keeps the fragment's buffer:
    // fragment_kept or a drop_fragment_*.
    Outcome outcome = Outcome::fragment_kept;
    bool gave_up_oldest = false;  // another datagram, to make room
  };
  // `packet` is a fragment as parse_frame leaves it (Outcome::fragment). `now` in ticks.
  Result add(Packet& packet, std::uint32_t now) noexcept;

  // Gives up datagrams whose time is over, at most as many as `expired` has new packets; how many.
  // Each becomes a packet in the datagram's buffer, which is the caller's then: the first fragment
  // as it came, to be parsed anew, or a frame of no bytes where that one did not come.
  std::size_t expire(std::uint32_t now, std::span<Packet> expired) noexcept;

  std::size_t under_way() const noexcept { return under_way_; }

 private:
  using Index = std::uint16_t;
  static constexpr Index kNone = 0xffff;
  static constexpr std::size_t kHeads = 512;
  static constexpr std::size_t kUnit = 8;  // bytes; offsets count in these
  static constexpr std::size_t kWords = (kMaxPayload + 64 * kUnit - 1) / (64 * kUnit);

  // RFC 791: source, destination, protocol, id. RFC 8200: no protocol, and an id of 32 bits.
  struct Key {
    IpAddress source;
    IpAddress destination;
    std::uint32_t id = 0;
    Protocol protocol = Protocol::ip;
    friend bool operator==(const Key&, const Key&) noexcept = default;
  };

  struct Datagram {
    Key key;
    DatagramBuffers::Buffer buffer;
    std::uint32_t started = 0;     // ticks
    std::uint32_t end = 0;         // of the payload: the last byte's, or the furthest so far
    std::uint32_t units = 0;       // received
    std::uint16_t fragments = 0;   // received
    std::uint16_t headers = 0;     // bytes in front of the payload, 0: first one not here yet
    std::uint16_t ip = 0;          // of these, the Ethernet header
    std::uint16_t first = 0;       // bytes of the first fragment's frame
    std::uint16_t port = 0;        // on which the first fragment came
    std::uint16_t largest = 0;     // IP packet of a fragment, bytes
    std::uint16_t largest_df = 0;  // with DF
    std::uint8_t ecn = 0;          // bit 1 << codepoint for each seen
    bool last_seen = false;
    // By age within the family; free ones by `next`. By hash.
    Index previous = kNone;
    Index next = kNone;
    Index chain = kNone;
    std::array<std::uint64_t, kWords> received;  // a bit for each unit
  };

  struct Ages {
    Index oldest = kNone;
    Index youngest = kNone;
  };

  static Key key_of(const Packet& packet) noexcept;
  std::size_t head_of(const Key& key) const noexcept;
  Index find(const Key& key) const noexcept;
  Index start(const Key& key, std::uint32_t now, bool& gave_up_oldest) noexcept;
  void release(Index index) noexcept;
  void give_up(Index index) noexcept;
  Index oldest() const noexcept;
  static Outcome place(Datagram& datagram, const Packet& packet) noexcept;
  static Outcome check_end(Datagram& datagram, std::uint32_t end, bool more) noexcept;
  static void keep_headers(Datagram& datagram, const Packet& packet) noexcept;
  static void become_first(const Datagram& datagram, Packet& packet) noexcept;
  Outcome finish(Datagram& datagram, Packet& packet) noexcept;

  DatagramBuffers& buffers_;
  std::uint64_t seed_;
  std::size_t under_way_ = 0;
  Index free_ = 0;
  std::array<Ages, 2> ages_;  // by Family: the timeouts differ
  std::array<Index, kHeads> heads_;
  std::vector<Datagram> datagrams_;
};

}  // namespace weir
