/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Published services: who comes in by a host has to get his answers by that one, which knows the connection. Its frames say which: their
 * source is the host's own MAC in the mesh.
 */
#pragma once
#include "flow.h"

#define ENTRY_PREFIX bpf_htons(0x025b)
#define HOST_PREFIX bpf_htonl(0x02576566) /* of this host's own, agent/gateway/addresses.ts */

static __always_inline bool is_entry(const __u8 *mac) { return *(__u16 *)mac == ENTRY_PREFIX; }

/* Of a frame that has come in by the host whose MAC is its source: by its tunnel, or by this one's own port. Nobody else is believed. */
static __noinline void note_entry(struct __sk_buff *skb, __u32 index, const struct frame *f) {
  struct work *w = begin_work();
  if (!w || f->part == LATER || (f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP)) return;
  flow_of(&w->flow, index, f);
  if (!read_ports(skb, f, &w->flow)) return;
  reverse(&w->flow, &w->answers);
  struct entry *known = bpf_map_lookup_elem(&entries, &w->answers);
  if (known && same_mac(known->mac, f->src)) return;
  struct entry now = {};
  __builtin_memcpy(now.mac, f->src, ETH_ALEN);
  bpf_map_update_elem(&entries, &w->answers, &now, BPF_ANY);
}

/* Of a frame that a container is to get: who comes by this host itself is answered by it. */
static __always_inline void forget_entry(const struct frame *f, struct work *w) {
  if (*(__u32 *)f->src != HOST_PREFIX) return;
  reverse(&w->flow, &w->answers);
  if (bpf_map_lookup_elem(&entries, &w->answers)) bpf_map_delete_elem(&entries, &w->answers);
}

/* @param k of a frame for the gateway. @returns false: the way out is this host's own. */
static __always_inline bool by_entry(const struct flow *k, struct change *to) {
  struct entry *e = bpf_map_lookup_elem(&entries, k);
  if (!e) return false;
  to->what = CHANGE_MAC;
  __builtin_memcpy(to->mac, e->mac, ETH_ALEN);
  return true;
}
