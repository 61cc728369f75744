/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Routing between networks: what a container sends to its gateway goes on in the network that the packet is for, where both ends may take
 * the express path. All else that has to do with routes (errors, static routes, several hops) is Open vSwitch's.
 */
#pragma once
#include <stddef.h>
#include "express-maps.h"
#include "frame.h"

/* First two bytes of default MACs, before IPv4 addresses and the last 32 bits of IPv6 ones (lib/mac.ts). */
#define MAC_PREFIX bpf_htons(0x0258)
#define MAC_PREFIX_6 bpf_htons(0x0259)
/* Headers of a segment that do not count as its data; without options of IP. */
#define SEGMENT_HEADERS 40

/* A segment's own length, where the frame is many. */
static __always_inline bool fits(struct __sk_buff *skb, __u32 mtu) {
  return skb->gso_size ? skb->gso_size + SEGMENT_HEADERS <= mtu : skb->len - ETH_HLEN <= mtu;
}

/*
 * Whose frame it is to be: its destination MAC, in `f` alone.
 * @returns the network that it goes on in; 0: Open vSwitch decides.
 */
static __noinline __u32 next_network(struct __sk_buff *skb, __u32 index, struct frame *f) {
  struct route_key key = { .bits = 192, .to = { .index = index, .family = f->family } };
  __builtin_memcpy(key.to.address, f->destination, sizeof(key.to.address));
  if (f->ttl <= 1 || f->protocol == IPPROTO_IGMP) return 0;
  /* RFC 4291 §2.5.6 */
  if (f->family == 6 && (f->source[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000)) return 0;
  struct route *route = bpf_map_lookup_elem(&routes, &key);
  if (!route || !route->index || !fits(skb, route->mtu)) return 0;
  key.to.index = route->index;
  struct neighbour *known = bpf_map_lookup_elem(&neighbours, &key.to);
  if (known) {
    __builtin_memcpy(f->dst, known->mac, ETH_ALEN);
    return route->index;
  }
  *(__u16 *)f->dst = f->family == 4 ? MAC_PREFIX : MAC_PREFIX_6;
  __builtin_memcpy(f->dst + 2, &f->destination[f->family == 4 ? 0 : 3], sizeof(__u32));
  return route->index;
}

/* Writes what routing changes: MACs, and one less of its time. @returns false: it is spoiled. */
static __noinline bool route_frame(struct __sk_buff *skb, struct frame *f, const __u8 *router) {
  __u8 macs[2 * ETH_ALEN] __attribute__((aligned(4)));
  __u8 ttl = f->ttl - 1;
  __builtin_memcpy(macs, f->dst, ETH_ALEN);
  __builtin_memcpy(macs + ETH_ALEN, router, ETH_ALEN);
  __builtin_memcpy(f->src, router, ETH_ALEN);
  if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0)) return false;
  if (f->family == 4) {
    /* It is the upper half of a word. */
    __u32 check = ETH_HLEN + offsetof(struct iphdr, check);
    if (bpf_l3_csum_replace(skb, check, bpf_htons(f->ttl << 8), bpf_htons(ttl << 8), 2)) return false;
    if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &ttl, 1, 0)) return false;
  } else if (bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, hop_limit), &ttl, 1, BPF_F_RECOMPUTE_CSUM)) return false;
  f->ttl = ttl;
  return true;
}
