/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Keys and values of the steering program's maps, for the program (C) and for control (C++). No
 * holes: the kernel hashes and compares whole keys. */
#ifndef WEIR_STEER_MAPS_H
#define WEIR_STEER_MAPS_H

#include <linux/types.h>

/* Network byte order; an IPv4 address lies in the first four bytes, the rest is zero. */
struct weir_address {
  __u8 bytes[16];
  __u32 family; /* 4 or 6 */
};

/* Key of the maps `services` and `servers`. */
struct weir_endpoint {
  struct weir_address address;
  __u16 port; /* network byte order; 0: all ports */
  __u16 protocol;
};

/* Key of the map `macs`. */
struct weir_mac {
  __u8 bytes[6];
};

/* Value of the map `addresses`: what an address is, as bits. */
enum weir_address_role {
  WEIR_VIRTUAL = 1,         /* a service's: its fragments are for the workers */
  WEIR_SERVER = 2,          /* a nat real server's: fragments from it are for the workers */
  WEIR_LOCAL = 4,           /* the director's own and no VIP: the kernel keeps what goes there */
  WEIR_POOL = 8,            /* fullnat sends from it: its replies are for the workers */
  WEIR_FULLNAT_SERVER = 16, /* a fullnat real server's: fragments from it to a pool likewise */
  WEIR_TUNNEL_SERVER = 32,  /* a tunnel's real server: errors about its tunnel are the workers' */
};

/* Ports of a pool's addresses that fullnat uses: from the first to the last. */
#define WEIR_FIRST_POOL_PORT 1024
#define WEIR_LAST_POOL_PORT 63487

/* Value of the map `services`, as bits. */
enum weir_service_kind {
  WEIR_SERVICE = 1,
  WEIR_FTP = 2, /* data connections come to other ports */
};

/* Value of the map `servers`: where replies go that are for the workers, as bits. */
enum weir_server_kind {
  WEIR_TO_CLIENTS = 1, /* nat */
  WEIR_TO_POOL = 2,    /* fullnat */
};

/* What there is of what costs another look-up, as bits. */
enum weir_extra {
  WEIR_ALL_PORTS = 1, /* a service for all ports */
  WEIR_FTP_DATA = 2,
  WEIR_ALL_SERVER_PORTS = 4, /* a real server with all of its ports */
};

/* The one value of the map `config`. */
struct weir_config {
  __u32 extras;
  __u32 rules; /* the first one in `rules`, in the upper half, and how many, in the lower one */
};

/* Rules for marks, in order: the first that matches a packet says whether it is for the workers.
 * Twice so many in the map, so that new ones are complete before they are used. */
#define WEIR_MAX_RULES 64

/* Families, as bits of weir_rule. */
enum weir_families { WEIR_IPV4 = 1, WEIR_IPV6 = 2 };

/* Value of the map `rules`. Addresses as words of a packet's bytes; ports in host order. */
struct weir_rule {
  __u64 source[2];
  __u64 source_mask[2];
  __u64 destination[2];
  __u64 destination_mask[2];
  __u16 first_source_port;
  __u16 last_source_port;
  __u16 first_port;
  __u16 last_port;
  __u16 protocol; /* 0: any */
  __u16 families; /* that it is about */
  __u16 steered;  /* of these, those whose packets are for the workers */
  __u16 reserved;
};

/* Value of the map `macs`, which only says "is in it". */
typedef __u8 weir_present;

#endif
