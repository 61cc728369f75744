/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Maps that all objects of the kernel side have, those of services among them, and how keys and values lie in them; express-maps.h has the
 * others. agent/bpf/encode.ts writes the same bytes: numbers in the host's order, addresses and MACs as on the wire. A test holds the
 * sizes of both together.
 */
#pragma once
#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>

#define EXPRESS 1u  /* may take the express path */
#define REWRITE 2u  /* deliver with the destination MAC that stands in the entry */
#define EXTERNAL 4u /* not a Weft host */
#define LEARN 8u    /* its MACs are learned from what it sends */
#define SERVED 16u  /* an endpoint of this host in a network that has services */
#define PACED 64u   /* an endpoint of this host with a rate: by the queue of its link */
#define HOST 32u    /* the host itself: who came in by one of its ports is on the other side */

/* In a flow's index: the client is outside, and came in by a port of this host. */
#define OUTSIDE 0x80000000u

/* Order and number as REASONS in agent/bpf/model.ts. */
enum reason {
  UNKNOWN_PORT,
  SECURITY,
  SLOW,
  EXPRESS_LOCAL,
  EXPRESS_REMOTE,
  EXPRESS_RX,
  UNKNOWN_VNI,
  FOREIGN_VTEP,
  FOREIGN_SOURCE,
  TUNNEL_TO_OVS,
  TUNNEL_SHORT,
  UNKNOWN_UNICAST,
  OVS_TO_TUNNEL,
  COPIES,
  UNKNOWN_NETWORK,
  OVS_TO_CONTAINER,
  FAILED,
  SERVICE,
  SERVICE_REPLY,
  NO_BACKEND,
  SERVICE_FRAGMENT,
  SERVICE_ENTRY,
  SERVICE_EXIT,
  ROUTED,
  REASONS,
};

struct port {
  __u32 slow; /* ifindex of wfk…; 0 where the link is a port of Open vSwitch's */
  __u32 index;
  __u8 mac[6];
  __u8 flags;
  __u8 mark; /* class of what it sends (DSCP in the upper six bits) and 1; 0 = as it says itself */
  __u32 ip4; /* as on the wire; 0 = none, as the others */
  __u32 ip6[4];
  __u32 link_local[4];
};

/* A port of a virtual address. Protocol and port 0: the address itself; of its value only `net` says something. */
struct service_key {
  __u32 index;     /* 0: a transit address, where ports of the host lead */
  __u32 address[4]; /* as on the wire; IPv4 in the first */
  __u16 port;       /* as on the wire, as all below */
  __u8 protocol;
  __u8 family;
};

struct service {
  __u32 id;
  __u32 count; /* of backends: slots 0 to count - 1 */
  __u32 affinity; /* seconds */
  __u32 net;      /* index of the backends' network */
};

struct backend_key {
  __u32 id;
  __u32 slot;
};

struct backend {
  __u32 address[4];
  __u8 mac[6];
  __u16 port;
};

/* A backend that may have new connections. */
struct live_key {
  __u32 id;
  __u32 address[4];
  __u16 port;
  __u16 pad;
};

struct live {
  __u8 mac[6];
  __u8 pad[2];
};

/* Of one direction, as its frames come. */
struct flow {
  __u32 index;
  __u32 from[4];
  __u32 to[4];
  union {
    struct {
      __u16 from_port;
      __u16 to_port;
    };
    __u32 fragment; /* later fragments have no ports */
  };
  __u8 protocol;
  __u8 family;
  __u8 pad[2];
};

/* From a client to a virtual address: who answers. */
struct connection {
  __u32 id;
  __u32 seen; /* seconds since boot, of the last frame from the client */
  struct backend backend;
};

/* From a backend to a client: whom the client knows it as. */
struct face {
  __u32 address[4];
  __u16 port;
  __u16 pad;
};

/* From a backend to who came in by a published port of another host: that host's MAC. */
struct entry {
  __u8 mac[6];
  __u8 pad[2];
};

struct affinity_key {
  __u32 id;
  __u32 client[4];
};

struct affinity {
  __u32 seen; /* seconds since boot */
  struct backend backend;
};

/* What a translated fragment's later ones get too. */
struct change {
  __u32 from[4];
  __u32 to[4];
  __u16 from_port;
  __u16 to_port;
  __u8 mac[6]; /* of the destination, with CHANGE_TO and CHANGE_MAC */
  __u8 what;
  __u8 pad;
};
#define CHANGE_FROM 1u
#define CHANGE_TO 2u
#define CHANGE_MAC 4u

/* What a program is at work on: the stack has no room for it. */
struct work {
  struct flow flow;
  struct flow answers;
  struct change change;
  bool answered; /* by a virtual address, whom the frame comes from now */
};

#define MAP(name, kind, entries, key_type, value_type, map_options)                                                                \
  struct {                                                                                                                         \
    __uint(type, kind);                                                                                                            \
    __uint(max_entries, entries);                                                                                                  \
    __uint(map_flags, map_options);                                                                                                \
    __type(key, key_type);                                                                                                         \
    __type(value, value_type);                                                                                                     \
  } name SEC(".maps")

/* Memory is taken as entries come: a host may have ten endpoints or ten thousand. */
#define HASH(name, entries, key_type, value_type) MAP(name, BPF_MAP_TYPE_HASH, entries, key_type, value_type, BPF_F_NO_PREALLOC)

HASH(ports, 16384, __u32, struct port);
MAP(reasons, BPF_MAP_TYPE_PERCPU_ARRAY, REASONS, __u32, __u64, 0);
HASH(services, 16384, struct service_key, struct service);
HASH(backends, 131072, struct backend_key, struct backend);
HASH(live, 131072, struct live_key, struct live);
/* Written here, the longest unused one makes room. Memory of this kind is taken beforehand: 47 MiB for all of them. */
MAP(connections, BPF_MAP_TYPE_LRU_HASH, 131072, struct flow, struct connection, 0);
MAP(faces, BPF_MAP_TYPE_LRU_HASH, 131072, struct flow, struct face, 0);
MAP(affinities, BPF_MAP_TYPE_LRU_HASH, 32768, struct affinity_key, struct affinity, 0);
MAP(fragments, BPF_MAP_TYPE_LRU_HASH, 4096, struct flow, struct change, 0);
MAP(entries, BPF_MAP_TYPE_LRU_HASH, 65536, struct flow, struct entry, 0);
MAP(works, BPF_MAP_TYPE_PERCPU_ARRAY, 1, __u32, struct work, 0);
/* New connections of a port, by its key in `services`. */
MAP(chosen, BPF_MAP_TYPE_PERCPU_HASH, 16384, struct service_key, __u64, BPF_F_NO_PREALLOC);
