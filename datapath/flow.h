/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* A frame of TCP or UDP as a key of the tables of services. */
#pragma once
#include "frame.h"
#include "maps.h"

/* One frame at a time on a CPU: nothing comes between, and what is in it is nothing to the next. */
static __always_inline struct work *begin_work(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&works, &zero);
}

/* The other direction. */
static __always_inline void reverse(const struct flow *k, struct flow *r) {
  __builtin_memset(r, 0, sizeof(*r));
  r->index = k->index;
  __builtin_memcpy(r->from, k->to, sizeof(r->from));
  __builtin_memcpy(r->to, k->from, sizeof(r->to));
  r->from_port = k->to_port;
  r->to_port = k->from_port;
  r->protocol = k->protocol;
  r->family = k->family;
}

/* But for the ports. */
static __always_inline void flow_of(struct flow *k, __u32 index, const struct frame *f) {
  __builtin_memset(k, 0, sizeof(*k));
  k->index = index;
  __builtin_memcpy(k->from, f->source, sizeof(k->from));
  __builtin_memcpy(k->to, f->destination, sizeof(k->to));
  k->fragment = f->fragment;
  k->protocol = f->protocol;
  k->family = f->family;
}

/* The first four bytes of TCP as of UDP. */
static __always_inline bool read_ports(struct __sk_buff *skb, const struct frame *f, struct flow *k) {
  __u16 ports[2];
  if (bpf_skb_load_bytes(skb, f->payload, ports, sizeof(ports))) return false;
  k->from_port = ports[0];
  k->to_port = ports[1];
  return true;
}
