/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Other addresses and ports for a frame of TCP or UDP. Checksums stay right, also those that are still to be made, and those of segments. */
#pragma once
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stddef.h>
#include "frame.h"
#include "maps.h"

static __always_inline __u32 checksum_at(const struct frame *f) {
  return f->payload + (f->protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check) : offsetof(struct udphdr, check));
}

/* UDP over IPv4 may have none: zero stays zero (RFC 768). */
static __always_inline __u64 checksum_flags(const struct frame *f) { return f->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0; }

static __always_inline bool put_address(struct __sk_buff *skb, struct frame *f, bool to, const __u32 *now) {
  __u32 *was = to ? f->destination : f->source;
  __u64 flags = checksum_flags(f) | BPF_F_PSEUDO_HDR;
  if (f->family == 4) {
    __u32 at = ETH_HLEN + (to ? offsetof(struct iphdr, daddr) : offsetof(struct iphdr, saddr));
    if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), *was, *now, 4)) return false;
    if (f->part != LATER && bpf_l4_csum_replace(skb, checksum_at(f), *was, *now, flags | 4)) return false;
    if (bpf_skb_store_bytes(skb, at, now, 4, 0)) return false;
  } else {
    __u32 at = ETH_HLEN + (to ? offsetof(struct ipv6hdr, daddr) : offsetof(struct ipv6hdr, saddr));
    __s64 difference = bpf_csum_diff((__be32 *)was, 16, (__be32 *)now, 16, 0);
    if (difference < 0) return false;
    if (f->part != LATER && bpf_l4_csum_replace(skb, checksum_at(f), 0, difference, flags)) return false;
    /* The kernel takes this for IPv4, whose header's checksum outweighs the address. Only where a network card has summed the frame. */
    bpf_csum_update(skb, difference);
    if (bpf_skb_store_bytes(skb, at, now, 16, 0)) return false;
  }
  __builtin_memcpy(was, now, 16);
  return true;
}

static __always_inline bool put_port(struct __sk_buff *skb, const struct frame *f, bool to, __u16 was, __u16 now) {
  if (f->part == LATER || was == now) return true;
  return bpf_l4_csum_replace(skb, checksum_at(f), was, now, checksum_flags(f) | 2) == 0 &&
         bpf_skb_store_bytes(skb, f->payload + (to ? 2 : 0), &now, 2, 0) == 0;
}

/*
 * @param f of it, is kept up
 * @param k its ports as they are
 * @returns false: it is spoiled.
 */
static __noinline bool rewrite(struct __sk_buff *skb, struct frame *f, const struct change *c, const struct flow *k) {
  __u8 old[ETH_ALEN];
  __builtin_memcpy(old, f->dst, ETH_ALEN);
  if (c->what & CHANGE_TO) {
    if (!put_address(skb, f, true, c->to) || !put_port(skb, f, true, k->to_port, c->to_port)) return false;
  }
  if (c->what & (CHANGE_TO | CHANGE_MAC)) {
    if (bpf_skb_store_bytes(skb, 0, c->mac, ETH_ALEN, 0)) return false;
    __builtin_memcpy(f->dst, c->mac, ETH_ALEN);
  }
  if (c->what & CHANGE_FROM) {
    if (!put_address(skb, f, false, c->from) || !put_port(skb, f, false, k->from_port, c->from_port)) return false;
  }
  /* Back to where it came from. */
  return c->what != (CHANGE_FROM | CHANGE_TO) || bpf_skb_store_bytes(skb, ETH_ALEN, old, ETH_ALEN, 0) == 0;
}
