/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a tunnel device (ipip, ip6tnl, sit, gre, fou) does on a real server of a tun service, for
 * hosts whose kernel has none: takes the outer headers off IPIP, GRE (RFC 2784) and GUE
 * (draft-ietf-intarea-gue), inside and outside of either family. A wrong checksum is dropped; by
 * the program of section "checked" so is a packet that has none where GRE or GUE can have one.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define GUE_PORT 6080
#define GRE_CHECKSUM_PRESENT 0x8000
#define GRE_CHECKSUM_BYTES 4
#define CHECKSUM_RIGHT 0xffff

struct gre_header {
  __be16 flags_and_version;
  __be16 protocol;
};

struct gue_header {
  __u8 version_and_length;
  __u8 protocol;
  __be16 flags;
};

/* The outer IP header; offsets in the frame. */
struct outer {
  __u32 addresses; /* both, one after the other */
  __u32 addresses_length;
  __u32 payload;
  __u32 payload_length;
  __u8 protocol;
};

static __always_inline void* header_at(struct xdp_md* ctx, __u32 offset, __u32 length) {
  void* header = (void*)(long)ctx->data + offset;
  return header + length > (void*)(long)ctx->data_end ? NULL : header;
}

struct summed {
  struct xdp_md* ctx;
  __u32 offset;
  __u32 length;
  __u32 sum;
};

static long add_word(__u32 index, struct summed* bytes) {
  __u32 at = 2 * index;
  __be16 word = 0;
  if (bpf_xdp_load_bytes(bytes->ctx, bytes->offset + at, &word, bytes->length - at == 1 ? 1 : 2)) {
    return 1;
  }
  bytes->sum += bpf_ntohs(word);
  return 0;
}

/* Goes on with the sum of an Internet checksum. */
static __always_inline __u32 add_bytes(struct xdp_md* ctx, __u32 offset, __u32 length, __u32 sum) {
  struct summed bytes = {ctx, offset, length, sum};
  bpf_loop((length + 1) / 2, add_word, &bytes, 0);
  sum = (bytes.sum & 0xffff) + (bytes.sum >> 16);
  return (sum & 0xffff) + (sum >> 16);
}

/* Takes off all between the Ethernet header and `inner`, where a packet of this type begins. */
static __always_inline int take_off(struct xdp_md* ctx, __u32 inner, __be16 type) {
  struct ethhdr* ethernet = header_at(ctx, 0, sizeof(*ethernet));
  if (!ethernet || !type) return XDP_DROP;
  struct ethhdr header = *ethernet;
  header.h_proto = type;
  if (bpf_xdp_adjust_head(ctx, inner - sizeof(*ethernet))) return XDP_DROP;
  ethernet = header_at(ctx, 0, sizeof(*ethernet));
  if (!ethernet) return XDP_DROP;
  *ethernet = header;
  return XDP_PASS;
}

/* The Ethernet type of what an IP header with this protocol number holds; 0: no IP packet. */
static __always_inline __be16 inner_type(__u8 protocol) {
  switch (protocol) {
    case IPPROTO_IPIP:
      return bpf_htons(ETH_P_IP);
    case IPPROTO_IPV6:
      return bpf_htons(ETH_P_IPV6);
    default:
      return 0;
  }
}

static __always_inline int decapsulate_gre(struct xdp_md* ctx, const struct outer* outer,
                                           bool checked) {
  struct gre_header* gre = header_at(ctx, outer->payload, sizeof(*gre));
  if (!gre) return XDP_DROP;
  __be16 type = gre->protocol;
  if (type != bpf_htons(ETH_P_IP) && type != bpf_htons(ETH_P_IPV6)) return XDP_DROP;
  __u32 inner = outer->payload + sizeof(*gre);
  if (!gre->flags_and_version) return checked ? XDP_DROP : take_off(ctx, inner, type);
  if (gre->flags_and_version != bpf_htons(GRE_CHECKSUM_PRESENT)) return XDP_DROP;
  __u32 sum = add_bytes(ctx, outer->payload, outer->payload_length, 0);
  if (sum != CHECKSUM_RIGHT) return XDP_DROP;
  return take_off(ctx, inner + GRE_CHECKSUM_BYTES, type);
}

/* Without GUE's options: a remote checksum is one, but no director sends what its NIC has not
 * left to compute. */
static __always_inline int decapsulate_gue(struct xdp_md* ctx, const struct outer* outer,
                                           bool checked) {
  struct udphdr* udp = header_at(ctx, outer->payload, sizeof(*udp) + sizeof(struct gue_header));
  if (!udp || udp->dest != bpf_htons(GUE_PORT)) return XDP_PASS;
  struct gue_header* gue = (void*)(udp + 1);
  __be16 type = inner_type(gue->protocol);
  if (gue->version_and_length || gue->flags) return XDP_DROP;
  if (bpf_ntohs(udp->len) != outer->payload_length) return XDP_DROP;
  if (udp->check) {
    __u32 sum = add_bytes(ctx, outer->addresses, outer->addresses_length,
                          IPPROTO_UDP + outer->payload_length);
    sum = add_bytes(ctx, outer->payload, outer->payload_length, sum);
    if (sum != CHECKSUM_RIGHT) return XDP_DROP;
  } else if (checked) {
    return XDP_DROP;
  }
  return take_off(ctx, outer->payload + sizeof(*udp) + sizeof(*gue), type);
}

/* False: no packet that this program is for. */
static __always_inline bool read_outer(struct xdp_md* ctx, struct outer* outer) {
  const __u32 ip = sizeof(struct ethhdr);
  struct ethhdr* ethernet = header_at(ctx, 0, sizeof(*ethernet));
  if (!ethernet) return false;
  if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
    struct iphdr* ip4 = header_at(ctx, ip, sizeof(*ip4));
    /* Fragments are for decapsulate_whole.py. */
    if (!ip4 || ip4->ihl != 5 || ip4->frag_off & bpf_htons(0x3fff)) return false;
    *outer =
        (struct outer){ip + offsetof(struct iphdr, saddr), 2 * sizeof(ip4->saddr),
                       ip + sizeof(*ip4), bpf_ntohs(ip4->tot_len) - sizeof(*ip4), ip4->protocol};
    return true;
  }
  struct ipv6hdr* ip6 = header_at(ctx, ip, sizeof(*ip6));
  if (!ip6 || ethernet->h_proto != bpf_htons(ETH_P_IPV6)) return false;
  *outer = (struct outer){ip + offsetof(struct ipv6hdr, saddr), 2 * sizeof(ip6->saddr),
                          ip + sizeof(*ip6), bpf_ntohs(ip6->payload_len), ip6->nexthdr};
  return true;
}

static __always_inline int decapsulate(struct xdp_md* ctx, bool checked) {
  struct outer outer;
  if (!read_outer(ctx, &outer)) return XDP_PASS;
  switch (outer.protocol) {
    case IPPROTO_IPIP:
    case IPPROTO_IPV6:
      return take_off(ctx, outer.payload, inner_type(outer.protocol));
    case IPPROTO_GRE:
      return decapsulate_gre(ctx, &outer, checked);
    case IPPROTO_UDP:
      return decapsulate_gue(ctx, &outer, checked);
    default:
      return XDP_PASS;
  }
}

SEC("xdp")
int decapsulate_any(struct xdp_md* ctx) { return decapsulate(ctx, false); }

SEC("checked")
int decapsulate_checked(struct xdp_md* ctx) { return decapsulate(ctx, true); }

char license_of_program[] SEC("license") = "Dual BSD/GPL";
