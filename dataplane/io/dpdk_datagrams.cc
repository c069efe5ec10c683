// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/dpdk_datagrams.h"

#include <rte_errno.h>
#include <rte_mbuf.h>

#include <absl/strings/str_cat.h>

namespace weir {
namespace {

// Complete datagrams on their way: in a burst, on a ring, waiting for a neighbour.
constexpr unsigned kInFlight = 64;

constexpr unsigned buffers(unsigned workers) {
  return workers * (static_cast<unsigned>(Reassembly::kDatagrams) + kInFlight);
}

}  // namespace

absl::StatusOr<std::unique_ptr<DatagramPool>> DatagramPool::make(unsigned workers) {
  // An mbuf can tell of 65,535 bytes; behind these are more, for a datagram's end.
  constexpr std::uint16_t kToldOf = 0xffff;
  static_assert(kBytes > kToldOf);
  constexpr unsigned kNoCache = 0;
  rte_pktmbuf_pool_private about{};
  about.mbuf_data_room_size = kToldOf;
  rte_mempool* pool = rte_mempool_create(
      "weir_datagrams", buffers(workers), sizeof(rte_mbuf) + kBytes, kNoCache, sizeof about,
      rte_pktmbuf_pool_init, &about, rte_pktmbuf_init, nullptr, SOCKET_ID_ANY, 0);
  if (pool == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("there is no memory for ", buffers(workers), " buffers of ", kBytes,
                     " bytes, in which fragments are collected (", rte_strerror(rte_errno),
                     "): reserve more huge pages with scripts/huge-pages"));
  }
  return std::unique_ptr<DatagramPool>(new DatagramPool(pool));
}

unsigned DatagramPool::megabytes(unsigned workers) {
  constexpr std::size_t kBufferBytes = kBytes + 512;  // with what DPDK keeps in front of each
  return static_cast<unsigned>((buffers(workers) * kBufferBytes >> 20U) + 1);
}

DatagramPool::~DatagramPool() { rte_mempool_free(pool_); }

DatagramBuffers::Buffer DatagramPool::get() noexcept {
  rte_mbuf* const buffer = rte_pktmbuf_alloc(pool_);
  if (buffer == nullptr) return {};
  return {static_cast<std::uint8_t*>(buffer->buf_addr), buffer};
}

void DatagramPool::put(void* handle) noexcept { rte_pktmbuf_free(static_cast<rte_mbuf*>(handle)); }

}  // namespace weir
