/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a tunnel device (tunl0, ip6tnl0, sit0) does on a real server of a tun service, for hosts
 * whose kernel has none: takes the outer header off IPIP in all four forms (4in4, 6in4, 4in6,
 * 6in6).
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Takes off `outer` bytes after the Ethernet header; what is left is of type `inner`. */
static __always_inline int take_off(struct xdp_md* ctx, struct ethhdr header, int outer,
                                    __u16 inner) {
  header.h_proto = bpf_htons(inner);
  if (bpf_xdp_adjust_head(ctx, outer)) return XDP_DROP;
  struct ethhdr* front = (void*)(long)ctx->data;
  if ((void*)(front + 1) > (void*)(long)ctx->data_end) return XDP_DROP;
  *front = header;
  return XDP_PASS;
}

/* The Ethernet type of what an IP header with this protocol number holds; 0: no IP packet. */
static __always_inline __u16 inner_type(__u8 protocol) {
  switch (protocol) {
    case IPPROTO_IPIP:
      return ETH_P_IP;
    case IPPROTO_IPV6:
      return ETH_P_IPV6;
    default:
      return 0;
  }
}

SEC("xdp")
int decapsulate(struct xdp_md* ctx) {
  void* data = (void*)(long)ctx->data;
  void* end = (void*)(long)ctx->data_end;
  struct ethhdr* ethernet = data;
  struct iphdr* ip4 = (void*)(ethernet + 1);
  struct ipv6hdr* ip6 = (void*)(ethernet + 1);

  if ((void*)(ethernet + 1) > end) return XDP_PASS;
  if (ethernet->h_proto == bpf_htons(ETH_P_IP) && (void*)(ip4 + 1) <= end && ip4->ihl == 5) {
    /* Fragments are for decapsulate_whole.py. */
    if (ip4->frag_off & bpf_htons(0x3fff)) return XDP_PASS;
    __u16 type = inner_type(ip4->protocol);
    if (type) return take_off(ctx, *ethernet, sizeof(*ip4), type);
  }
  if (ethernet->h_proto == bpf_htons(ETH_P_IPV6) && (void*)(ip6 + 1) <= end) {
    __u16 type = inner_type(ip6->nexthdr);
    if (type) return take_off(ctx, *ethernet, sizeof(*ip6), type);
  }
  return XDP_PASS;
}

char license_of_program[] SEC("license") = "Dual BSD/GPL";
