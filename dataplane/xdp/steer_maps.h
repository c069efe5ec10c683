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
  __u16 port; /* network byte order */
  __u16 protocol;
};

/* Key of the map `macs`. */
struct weir_mac {
  __u8 bytes[6];
};

/* Value of the map `addresses`: what an address is, as bits. */
enum weir_address_role {
  WEIR_VIRTUAL = 1, /* a service's: its fragments are for the workers */
  WEIR_SERVER = 2,  /* a nat real server's: fragments from it are for the workers */
  WEIR_LOCAL = 4,   /* the director's own and no VIP: the kernel keeps what goes there */
};

/* Value of the maps that only say "is in it". */
typedef __u8 weir_present;

#endif
