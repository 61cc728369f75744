/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Maps of what forwards frames beside Open vSwitch; as in maps.h. */
#pragma once
#include "maps.h"

#define CONFIG_CHECKSUM 1u
#define CONFIG_TTL_INHERIT 2u
#define CONFIG_DSCP_INHERIT 4u
#define CONFIG_DONT_FRAGMENT 8u

#define MAX_COPIES 1024

struct net {
  __u32 device;
  __u32 vni;
  __u32 mtu; /* 0 = not said */
};

struct tunnel {
  __u32 device;
  __u32 key;
};

struct mac_key {
  __u32 index;
  __u8 mac[6];
  __u8 pad[2];
};

struct block_key {
  __u32 bits; /* 32 + fixed bits of the MAC */
  struct mac_key at;
};

/* Where a MAC is. Family 0: here, `device` = ifindex of wft… (0 = nobody). 4 or 6: behind `vtep`; device, key 0 = the network's. */
struct place {
  __u32 vtep[4]; /* as on the wire; IPv4 in the first */
  __u32 device;
  __u32 key;
  __u8 mac[6];
  __u8 family;
  __u8 flags;
};

struct source_key {
  __u32 vtep[4];
  __u32 device;
  __u32 key;
  __u32 family;
};

struct source {
  __u32 index;
  __u32 flags;
};

struct list_key {
  __u32 list;
  __u32 slot;
};

struct config {
  __u32 tunnel_port; /* ifindex of weft-tk */
  __u32 flags;
  __u8 ttl;
  __u8 tos;
  __u8 pad[2];
  __u32 source4; /* as on the wire; 0 = the kernel's choice */
  __u32 source6[4];
  __u8 entry[6]; /* this host's MAC in the mesh, of frames from outside */
  __u8 pad2[2];
  __u8 router[6]; /* this host's MAC of what it has routed */
  __u8 pad3[2];
};

/* An address in a network. */
struct ip_key {
  __u32 index;
  __u32 family;
  __u32 address[4]; /* as on the wire; IPv4 in the first */
};

struct route_key {
  __u32 bits; /* 64 + fixed bits of the address */
  struct ip_key to;
};

struct route {
  __u32 index; /* of the network that packets go on in; 0: Open vSwitch knows */
  __u32 mtu;
};

struct neighbour {
  __u8 mac[6];
  __u8 pad[2];
};

struct traffic {
  __u64 tx_packets, tx_bytes, rx_packets, rx_bytes;
};

HASH(slow, 16384, __u32, __u32);
HASH(gates, 32768, __u32, __u32); /* ifindex of wft… → of wfg…; of wfh… → of wft… */
HASH(nets, 4096, __u32, struct net);
HASH(vnis, 8192, struct tunnel, __u32);
HASH(fdb, 131072, struct mac_key, struct place);
MAP(blocks, BPF_MAP_TYPE_LPM_TRIE, 131072, struct block_key, struct place, BPF_F_NO_PREALLOC);
MAP(routes, BPF_MAP_TYPE_LPM_TRIE, 65536, struct route_key, struct route, BPF_F_NO_PREALLOC);
HASH(neighbours, 65536, struct ip_key, struct neighbour);
HASH(vteps, 65536, struct source_key, struct source);
HASH(lists, 65536, struct list_key, struct place);
HASH(groups, 16384, struct mac_key, __u32);
MAP(config, BPF_MAP_TYPE_ARRAY, 1, __u32, struct config, 0);
/* Written here: MACs behind external peers, the longest unused one makes room. */
MAP(learned, BPF_MAP_TYPE_LRU_HASH, 4096, struct mac_key, struct place, 0);
MAP(traffic, BPF_MAP_TYPE_PERCPU_HASH, 16384, __u32, struct traffic, BPF_F_NO_PREALLOC);
