// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Steering: decides for every received frame whether it goes to the workers (through the AF_XDP
// socket of its receive queue) or takes the kernel's ordinary way.
//
// Workers get, if the frame is addressed to one of the port's own MAC addresses:
//   - packets to a service, also one for all ports, and to the data ports of FTP;
//   - packets from a nat real server, unless they go to an address of the director that is no VIP
//     (the director's own connections to a real server);
//   - packets from a fullnat real server to an address and a port that fullnat sends from;
//   - packets that get the mark of a fwmark service, wherever they go;
//   - ICMP errors that quote a packet of any such kind;
//   - fragments between such addresses: most have no ports to look at.
// The kernel gets all else: ARP, ND, SSH, VRRP, echo requests to a VIP, and whatever is malformed.
//
// While nobody listens on the AF_XDP socket, what is for the workers is dropped: clients see
// silence and send again, where the kernel would answer with a RST.
#include "dataplane/xdp/steer_maps.h"

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET_MASK 0x1fff
#define IPV6_MORE_FRAGMENTS 0x0001
#define IPV6_OFFSET_MASK 0xfff8
#define MAX_EXTENSION_HEADERS 8
#define MAX_OFFSET 0xfff
#define FTP_PORT 21
#define FTP_DATA_PORT 20
#define FIRST_UNPRIVILEGED_PORT 1024

// RFC 792 and RFC 4443: the errors. (<linux/icmp.h> needs the C library.)
enum {
  ICMP_UNREACHABLE = 3,
  ICMP_SOURCE_QUENCH = 4,
  ICMP_TIME_EXCEEDED = 11,
  ICMP_PARAMETER_PROBLEM = 12,
  ICMPV6_UNREACHABLE = 1,
  ICMPV6_PARAMETER_PROBLEM = 4,  // 2: packet too big, 3: time exceeded
};

// Filled by the AF_XDP driver, which looks it up by this name.
struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, 1024);
  __type(key, __u32);
  __type(value, __u32);
} xsks_map SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct weir_endpoint);
  __type(value, __u8);
} services SEC(".maps");

// Real servers whose replies pass.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 262144);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct weir_endpoint);
  __type(value, __u8);
} servers SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 393216);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct weir_address);
  __type(value, __u32);
} addresses SEC(".maps");

// The port's own MAC address and the virtual ones that it holds.
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1024);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, struct weir_mac);
  __type(value, weir_present);
} macs SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct weir_config);
} config SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 2 * WEIR_MAX_RULES);
  __type(key, __u32);
  __type(value, struct weir_rule);
} rules SEC(".maps");

enum kind {
  OTHER,           // not for us to judge
  WHOLE,           // TCP, UDP or SCTP with ports
  FIRST_FRAGMENT,  // the same, with ports if they are in it
  LATER_FRAGMENT,
  ICMP,  // ICMP or ICMPv6, its header is next
};

struct packet {
  void* data;
  void* end;
  __u64 next;      // offset of the first byte that has not been read
  __u32 protocol;  // TCP, UDP or SCTP, where it is known
  struct weir_endpoint source;
  struct weir_endpoint destination;
};

// RFC 8200, section 4: hop-by-hop options, routing, destination options.
struct option_header {
  __u8 next_header;
  __u8 length;  // in 8 bytes, less one; AH (RFC 4302): in 4 bytes, less two
};

struct fragment_header {
  __u8 next_header;
  __u8 reserved;
  __be16 offset_and_more;
  __be32 id;
};

struct icmp_header {
  __u8 type;
  __u8 code;
  __be16 checksum;
  __be32 rest;
};

struct ports {
  __be16 source;
  __be16 destination;
};

struct vlan_tag {
  __be16 control;
  __be16 ether_type;
};

// Always 0, which the verifier cannot know. Added to an offset, it makes all offsets alike: else
// the verifier follows every combination of extension headers by itself, and gives up.
static volatile __u64 unknown_zero;

// The next `length` bytes, or NULL where the frame has no more.
static __always_inline const void* peek(const struct packet* packet, __u32 length) {
  if (packet->next > MAX_OFFSET) return NULL;
  const void* header = packet->data + packet->next;
  return header + length > packet->end ? NULL : header;
}

static __always_inline bool has_ports(__u8 protocol) {
  return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

static __always_inline void read_ports(struct packet* packet, __u8 protocol) {
  const struct ports* ports = peek(packet, sizeof *ports);
  if (!ports) return;
  packet->source.port = ports->source;
  packet->destination.port = ports->destination;
  packet->source.protocol = protocol;
  packet->destination.protocol = protocol;
}

static __always_inline enum kind read_ipv4(struct packet* packet) {
  const struct iphdr* ip = peek(packet, sizeof *ip);
  if (!ip || ip->version != 4 || ip->ihl < 5) return OTHER;
  packet->next += ip->ihl * 4;
  __builtin_memcpy(packet->source.address.bytes, &ip->saddr, 4);
  __builtin_memcpy(packet->destination.address.bytes, &ip->daddr, 4);
  packet->source.address.family = 4;
  packet->destination.address.family = 4;

  const __u16 fragment = bpf_ntohs(ip->frag_off);
  if (!has_ports(ip->protocol)) {
    const bool whole = (fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) == 0;
    return ip->protocol == IPPROTO_ICMP && whole ? ICMP : OTHER;
  }
  packet->protocol = ip->protocol;
  if (fragment & IPV4_OFFSET_MASK) return LATER_FRAGMENT;
  read_ports(packet, ip->protocol);
  return fragment & IPV4_MORE_FRAGMENTS ? FIRST_FRAGMENT : WHOLE;
}

static __always_inline enum kind read_ipv6(struct packet* packet) {
  const struct ipv6hdr* ip = peek(packet, sizeof *ip);
  if (!ip || ip->version != 6) return OTHER;
  packet->next += sizeof *ip;
  __builtin_memcpy(packet->source.address.bytes, &ip->saddr, 16);
  __builtin_memcpy(packet->destination.address.bytes, &ip->daddr, 16);
  packet->source.address.family = 6;
  packet->destination.address.family = 6;

  enum kind kind = WHOLE;
  __u8 protocol = ip->nexthdr;
  for (int walked = 0; walked <= MAX_EXTENSION_HEADERS; ++walked) {
    if (has_ports(protocol)) {
      packet->protocol = protocol;
      read_ports(packet, protocol);
      return kind;
    }
    if (protocol == IPPROTO_ICMPV6) return kind == WHOLE ? ICMP : OTHER;
    if (protocol == IPPROTO_FRAGMENT) {
      const struct fragment_header* header = peek(packet, sizeof *header);
      if (!header) return OTHER;
      const __u16 offset = bpf_ntohs(header->offset_and_more);
      protocol = header->next_header;
      if (offset & IPV6_OFFSET_MASK && has_ports(protocol)) packet->protocol = protocol;
      if (offset & IPV6_OFFSET_MASK)
        return has_ports(protocol) || protocol == IPPROTO_DSTOPTS ? LATER_FRAGMENT : OTHER;
      // Neither offset nor more to come: an "atomic" fragment, a whole packet (RFC 6946).
      if (offset & IPV6_MORE_FRAGMENTS) kind = FIRST_FRAGMENT;
      packet->next += sizeof *header + unknown_zero;
      continue;
    }
    const struct option_header* header = peek(packet, sizeof *header);
    if (!header) return OTHER;
    if (protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS)
      packet->next += (header->length + 1) * 8 + unknown_zero;
    else if (protocol == IPPROTO_AH)
      packet->next += (header->length + 2) * 4 + unknown_zero;
    else
      return OTHER;
    protocol = header->next_header;
  }
  return OTHER;
}

static __always_inline __u32 roles_of(const struct weir_endpoint* endpoint) {
  const __u32* roles = bpf_map_lookup_elem(&addresses, &endpoint->address);
  return roles ? *roles : 0;
}

static __always_inline bool is_service(const struct weir_endpoint* endpoint, __u32 extras) {
  if (bpf_map_lookup_elem(&services, endpoint)) return true;
  if (!endpoint->protocol || !(extras & (WEIR_FTP_DATA | WEIR_ALL_PORTS))) return false;
  struct weir_endpoint other = *endpoint;
  const __u16 port = bpf_ntohs(endpoint->port);
  if (extras & WEIR_FTP_DATA && endpoint->protocol == IPPROTO_TCP &&
      (port == FTP_DATA_PORT || port >= FIRST_UNPRIVILEGED_PORT)) {
    other.port = bpf_htons(FTP_PORT);
    const __u8* kinds = bpf_map_lookup_elem(&services, &other);
    if (kinds && (*kinds & WEIR_FTP)) return true;
  }
  other.port = 0;
  return extras & WEIR_ALL_PORTS && bpf_map_lookup_elem(&services, &other);
}

static __always_inline bool takes_replies(__u32 kinds, const struct weir_endpoint* to) {
  const __u32 roles = roles_of(to);
  if (kinds & WEIR_TO_CLIENTS && !(roles & WEIR_LOCAL)) return true;
  const __u16 port = bpf_ntohs(to->port);
  return kinds & WEIR_TO_POOL && roles & WEIR_POOL && port >= WEIR_FIRST_POOL_PORT &&
         port <= WEIR_LAST_POOL_PORT;
}

static __always_inline bool is_reply(const struct weir_endpoint* from,
                                     const struct weir_endpoint* to, __u32 extras) {
  const __u8* kinds = bpf_map_lookup_elem(&servers, from);
  if (kinds && takes_replies(*kinds, to)) return true;
  if (!from->protocol || !(extras & WEIR_ALL_SERVER_PORTS)) return false;
  struct weir_endpoint other = *from;
  other.port = 0;
  kinds = bpf_map_lookup_elem(&servers, &other);
  return kinds && takes_replies(*kinds, to);
}

// What the rules for marks look at. Fragments match whatever ports a rule names.
struct flow {
  __u64 source[2];
  __u64 destination[2];
  __u16 source_port;
  __u16 destination_port;
  __u16 protocol;
  __u16 family;  // WEIR_IPV4 or WEIR_IPV6
  __u32 has_ports;
};

static __always_inline bool allows(const struct weir_rule* rule, const struct flow* flow) {
  const __u64 differs =
      ((flow->source[0] ^ rule->source[0]) & rule->source_mask[0]) |
      ((flow->source[1] ^ rule->source[1]) & rule->source_mask[1]) |
      ((flow->destination[0] ^ rule->destination[0]) & rule->destination_mask[0]) |
      ((flow->destination[1] ^ rule->destination[1]) & rule->destination_mask[1]);
  if (differs || !(rule->families & flow->family)) return false;
  if (rule->protocol && flow->protocol && rule->protocol != flow->protocol) return false;
  if (!flow->has_ports) return true;
  return flow->source_port >= rule->first_source_port &&
         flow->source_port <= rule->last_source_port &&
         flow->destination_port >= rule->first_port && flow->destination_port <= rule->last_port;
}

// A function of its own: what the verifier finds out inside does not multiply outside.
static __noinline bool is_marked(const struct flow* flow, __u32 which) {
  const __u32 first = which >> 16;
  const __u32 count = which & 0xffff;
  for (__u32 i = 0; i < WEIR_MAX_RULES; ++i) {
    if (i >= count) return false;
    const __u32 at = first + i;
    const struct weir_rule* rule = bpf_map_lookup_elem(&rules, &at);
    if (!rule) return false;
    if (!allows(rule, flow)) continue;
    if (rule->steered & flow->family) return true;
    // Of a fragment it is not known whether this rule decides.
    if (flow->has_ports) return false;
  }
  return false;
}

static __always_inline bool has_mark(const struct weir_endpoint* from,
                                     const struct weir_endpoint* to, __u32 protocol, __u32 which) {
  if (!which) return false;
  struct flow flow = {.source_port = bpf_ntohs(from->port),
                      .destination_port = bpf_ntohs(to->port),
                      .protocol = protocol,
                      .family = from->address.family == 6 ? WEIR_IPV6 : WEIR_IPV4,
                      .has_ports = from->protocol};
  __builtin_memcpy(flow.source, from->address.bytes, sizeof flow.source);
  __builtin_memcpy(flow.destination, to->address.bytes, sizeof flow.destination);
  return is_marked(&flow, which);
}

static __always_inline bool by_ports(const struct packet* packet,
                                     const struct weir_config* config) {
  if (is_service(&packet->destination, config->extras)) return true;
  if (is_reply(&packet->source, &packet->destination, config->extras)) return true;
  return packet->source.protocol &&
         has_mark(&packet->source, &packet->destination, packet->protocol, config->rules);
}

static __always_inline bool by_addresses(struct packet* packet, const struct weir_config* config) {
  const __u32 to = roles_of(&packet->destination);
  if (to & WEIR_VIRTUAL) return true;
  const __u32 from = roles_of(&packet->source);
  if (from & WEIR_SERVER && !(to & WEIR_LOCAL)) return true;
  if (from & WEIR_FULLNAT_SERVER && to & WEIR_POOL) return true;
  packet->source.protocol = 0;  // the first fragment's ports are not the others'
  return has_mark(&packet->source, &packet->destination, packet->protocol, config->rules);
}

static __always_inline bool is_error(__u32 family, __u8 type) {
  if (family == 6) return type >= ICMPV6_UNREACHABLE && type <= ICMPV6_PARAMETER_PROBLEM;
  return type == ICMP_UNREACHABLE || type == ICMP_SOURCE_QUENCH || type == ICMP_TIME_EXCEEDED ||
         type == ICMP_PARAMETER_PROBLEM;
}

// IPIP and GRE have no ports, GUE is UDP. What is a host's own after all, comes back to the kernel.
static __always_inline bool quotes_tunnel(const struct packet* quoted) {
  const __u16 protocol = quoted->source.protocol;
  return (protocol == 0 || protocol == IPPROTO_UDP) &&
         roles_of(&quoted->destination) & WEIR_TUNNEL_SERVER;
}

// An ICMP error quotes a packet that its receiver sent: from a service, or from the workers to a
// real server. Seen from there, the quoted packet's destination is who sends.
static __always_inline bool by_quotation(const struct packet* packet,
                                         const struct weir_config* config) {
  const struct icmp_header* icmp = peek(packet, sizeof *icmp);
  if (!icmp) return false;
  const __u32 family = packet->source.address.family;
  if (!is_error(family, icmp->type)) return false;

  struct packet quoted = {
      .data = packet->data, .end = packet->end, .next = packet->next + sizeof *icmp};
  const enum kind kind = family == 6 ? read_ipv6(&quoted) : read_ipv4(&quoted);
  if (quotes_tunnel(&quoted)) return true;
  if (kind != WHOLE && kind != FIRST_FRAGMENT) return false;
  if (is_service(&quoted.source, config->extras)) return true;
  if (is_reply(&quoted.destination, &quoted.source, config->extras)) return true;
  return quoted.source.protocol &&
         has_mark(&quoted.destination, &quoted.source, quoted.protocol, config->rules);
}

static __always_inline bool for_workers(void* data, void* end) {
  const struct ethhdr* ethernet = data;
  if ((void*)(ethernet + 1) > end) return false;
  if (!bpf_map_lookup_elem(&macs, ethernet->h_dest)) return false;
  const __u32 only = 0;
  const struct weir_config* now = bpf_map_lookup_elem(&config, &only);
  if (!now) return false;

  struct packet packet = {.data = data, .end = end, .next = sizeof *ethernet};
  __be16 ether_type = ethernet->h_proto;
  if (ether_type == bpf_htons(ETH_P_8021Q)) {
    const struct vlan_tag* tag = peek(&packet, sizeof *tag);
    if (!tag) return false;
    ether_type = tag->ether_type;
    packet.next += sizeof *tag;
  }

  enum kind kind = OTHER;
  if (ether_type == bpf_htons(ETH_P_IP)) kind = read_ipv4(&packet);
  if (ether_type == bpf_htons(ETH_P_IPV6)) kind = read_ipv6(&packet);
  switch (kind) {
    case WHOLE:
      return by_ports(&packet, now);
    case FIRST_FRAGMENT:
    case LATER_FRAGMENT:
      return by_addresses(&packet, now);
    case ICMP:
      return by_quotation(&packet, now);
    default:
      return false;
  }
}

SEC("xdp")
int weir_steer(struct xdp_md* context) {
  void* data = (void*)(long)context->data;
  void* end = (void*)(long)context->data_end;
  if (!for_workers(data, end)) return XDP_PASS;
  return bpf_redirect_map(&xsks_map, context->rx_queue_index, XDP_DROP);
}

// Keeps the silence while a new weir replaces the program of a killed one: drops behind XDP what
// the old program's maps gave to the workers. Loaded by control alone, hence the "?".
SEC("?tc")
int weir_guard(struct __sk_buff* packet) {
  if (bpf_skb_pull_data(packet, 0)) return TC_ACT_UNSPEC;
  void* data = (void*)(long)packet->data;
  void* end = (void*)(long)packet->data_end;
  return for_workers(data, end) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char license_of_object[] SEC("license") = "Dual BSD/GPL";
