/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The priority of an endpoint, as the class of what it sends (DSCP, RFC 2474); what says that queues are full (ECN) stays. */
#pragma once
#include <stddef.h>
#include "frame.h"

/*
 * @param f of it, GOOD, is kept up
 * @param mark DSCP in the upper six bits, as in the field
 * @returns false: it is spoiled.
 */
static __always_inline bool put_class(struct __sk_buff *skb, struct frame *f, __u8 mark) {
  __u8 now = (mark & DSCP) | (f->tos & ~DSCP);
  if (now == f->tos) return true;
  if (f->family == 4) {
    if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), bpf_htons(f->tos), bpf_htons(now), 2)) return false;
    if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, tos), &now, 1, 0)) return false;
  } else {
    __u8 head[2]; /* version, class, the upper bits of the flow label (RFC 8200 §3) */
    if (bpf_skb_load_bytes(skb, ETH_HLEN, head, 2)) return false;
    head[0] = (head[0] & 0xf0) | now >> 4;
    head[1] = (__u8)(now << 4) | (head[1] & 0x0f);
    if (bpf_skb_store_bytes(skb, ETH_HLEN, head, 2, BPF_F_RECOMPUTE_CSUM)) return false;
  }
  f->tos = now;
  return true;
}
