// SPDX-License-Identifier: Apache-2.0
#include "dataplane/io/receive_hash.h"

#include <rte_ethdev.h>

#include <algorithm>

namespace weir {
namespace {

// Addresses alone of what has no ports, fragments among it: as OwnerMap::owner_of_address.
constexpr std::uint64_t kAddresses = RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_FRAG_IPV4 |
                                     RTE_ETH_RSS_NONFRAG_IPV4_OTHER | RTE_ETH_RSS_IPV6 |
                                     RTE_ETH_RSS_FRAG_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER;
constexpr std::uint64_t kPorts = RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP |
                                 RTE_ETH_RSS_NONFRAG_IPV4_SCTP | RTE_ETH_RSS_NONFRAG_IPV6_TCP |
                                 RTE_ETH_RSS_NONFRAG_IPV6_UDP | RTE_ETH_RSS_NONFRAG_IPV6_SCTP;

// The client is the source of what clients send, and the destination of what real servers send.
std::uint64_t one_end(PortSide side) noexcept {
  switch (side) {
    case PortSide::clients:
      return RTE_ETH_RSS_L3_SRC_ONLY | RTE_ETH_RSS_L4_SRC_ONLY;
    case PortSide::servers:
      return RTE_ETH_RSS_L3_DST_ONLY | RTE_ETH_RSS_L4_DST_ONLY;
    default:
      return 0;
  }
}

}  // namespace

ReceiveHash::ReceiveHash(const rte_eth_dev_info& info, PortSide side, const OwnerMap& owners,
                         std::uint16_t queues)
    : owners_(owners), queues_(queues), table_size_(info.reta_size) {
  if (queues == 1) return;
  functions_ = info.flow_type_rss_offloads & (kAddresses | kPorts);
  if (functions_ == 0) return;
  // Nothing that OwnerMap hashes is as long as its key: what a device wants beyond it is not used.
  key_.resize(std::max<std::size_t>(info.hash_key_size, owners.key().size()));
  std::copy(owners.key().begin(), owners.key().end(), key_.begin());
  const std::uint64_t end = one_end(side);
  const bool offered = end != 0 && (info.flow_type_rss_offloads & end) == end;
  const bool mapped = table_size_ != 0 && table_size_ % owners.period() == 0;
  finds_owner_ = offered && mapped;
  if (finds_owner_) functions_ |= end;
}

rte_eth_rss_conf ReceiveHash::wish() noexcept {
  rte_eth_rss_conf wish{};
  wish.rss_key = key_.data();
  wish.rss_key_len = static_cast<std::uint8_t>(key_.size());
  wish.rss_hf = functions_;
  return wish;
}

void ReceiveHash::ask_for(rte_eth_conf& conf) noexcept {
  if (functions_ == 0) return;
  conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
  conf.rx_adv_conf.rss_conf = wish();
}

void ReceiveHash::apply(std::uint16_t port) {
  if (functions_ == 0 || table_size_ % owners_.period() != 0) return;
  // Some drivers take no heed of it when they are configured.
  rte_eth_rss_conf conf = wish();
  std::vector<rte_eth_rss_reta_entry64> table(table_size_ / RTE_ETH_RETA_GROUP_SIZE);
  for (std::size_t i = 0; i < table_size_; ++i) {
    auto& part = table[i / RTE_ETH_RETA_GROUP_SIZE];
    part.mask = ~std::uint64_t{0};
    part.reta[i % RTE_ETH_RETA_GROUP_SIZE] =
        static_cast<std::uint16_t>(owners_.worker_of_group(i % OwnerMap::kGroups) % queues_);
  }
  const bool done = rte_eth_dev_rss_hash_update(port, &conf) == 0 &&
                    rte_eth_dev_rss_reta_update(port, table.data(), table_size_) == 0;
  finds_owner_ = finds_owner_ && done;
}

}  // namespace weir
