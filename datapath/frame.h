/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Reading frames: what the express path needs to know of one. */
#pragma once
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <stdbool.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define DSCP 0xfc
#define ND_FIRST 133 /* router solicitation; RFC 4861 §4 */
#define ND_LAST 137  /* redirect */

enum verdict {
  GOOD,     /* untagged unicast IP that OVS need not see */
  OTHER,    /* anything else */
  TRUNCATED /* shorter than its own headers */
};

enum part { WHOLE, FIRST, LATER };

struct frame {
  __u8 dst[ETH_ALEN] __attribute__((aligned(4)));
  __u8 src[ETH_ALEN] __attribute__((aligned(4)));
  __u32 source[4]; /* IP source, as on the wire; IPv4 in the first */
  __u32 destination[4];
  __u32 fragment; /* its id, as on the wire, where it is one */
  __u16 payload;  /* where that begins; with `protocol` and `part` of GOOD ones only */
  __u8 protocol;
  __u8 part;
  __u8 family; /* 0, 4, 6 */
  __u8 tos;
  __u8 ttl;
};

/* Makes the first `n` bytes readable. GSO frames may have little in their linear part. */
static __always_inline bool reach(struct __sk_buff *skb, __u32 n) {
  if ((void *)(long)skb->data + n <= (void *)(long)skb->data_end) return true;
  return skb->len >= n && bpf_skb_pull_data(skb, n) == 0;
}

/* MAC addresses only. */
static __always_inline bool read_macs(struct __sk_buff *skb, struct frame *f) {
  if (!reach(skb, ETH_HLEN)) return false;
  struct ethhdr *eth = (void *)(long)skb->data;
  if ((void *)(eth + 1) > (void *)(long)skb->data_end) return false;
  __builtin_memcpy(f->dst, eth->h_dest, ETH_ALEN);
  __builtin_memcpy(f->src, eth->h_source, ETH_ALEN);
  return true;
}

static __always_inline enum verdict read_ip4(struct __sk_buff *skb, struct frame *f) {
  const __u32 size = ETH_HLEN + sizeof(struct iphdr);
  if (!reach(skb, size)) return TRUNCATED;
  struct iphdr *ip = (void *)(long)skb->data + ETH_HLEN;
  if ((void *)(ip + 1) > (void *)(long)skb->data_end) return TRUNCATED;
  if (ip->version != 4 || ip->ihl < 5) return TRUNCATED;
  f->family = 4;
  f->source[0] = ip->saddr;
  f->destination[0] = ip->daddr;
  f->fragment = ip->id;
  f->payload = ETH_HLEN + ip->ihl * 4;
  f->protocol = ip->protocol;
  f->part = ip->frag_off & bpf_htons(0x1fff) ? LATER : ip->frag_off & bpf_htons(0x2000) ? FIRST : WHOLE;
  f->tos = ip->tos;
  f->ttl = ip->ttl;
  return GOOD;
}

/* Neighbour discovery is OVS's; what could hide it (extension headers before ICMPv6) goes the same way. */
static __always_inline enum verdict next_header(struct __sk_buff *skb, struct frame *f, __u8 next, __u32 offset) {
  f->protocol = next;
  f->payload = offset;
  switch (next) {
  case IPPROTO_ICMPV6: {
    __u8 *type;
    if (!reach(skb, offset + 4)) return TRUNCATED;
    type = (void *)(long)skb->data + offset;
    if ((void *)(type + 1) > (void *)(long)skb->data_end) return TRUNCATED;
    return *type >= ND_FIRST && *type <= ND_LAST ? OTHER : GOOD;
  }
  case IPPROTO_FRAGMENT: {
    struct { /* RFC 8200 §4.5 */
      __u8 next, reserved;
      __u16 at;
      __u32 id;
    } *header;
    if (!reach(skb, offset + sizeof(*header))) return TRUNCATED;
    header = (void *)(long)skb->data + offset;
    if ((void *)(header + 1) > (void *)(long)skb->data_end) return TRUNCATED;
    f->protocol = header->next;
    f->payload = offset + sizeof(*header);
    f->fragment = header->id;
    f->part = header->at & bpf_htons(0xfff8) ? LATER : header->at & bpf_htons(1) ? FIRST : WHOLE;
    return header->next == IPPROTO_TCP || header->next == IPPROTO_UDP || header->next == IPPROTO_SCTP ? GOOD : OTHER;
  }
  case IPPROTO_HOPOPTS:
  case IPPROTO_ROUTING:
  case IPPROTO_DSTOPTS:
  case IPPROTO_AH: /* the last that OVS looks behind (parse_ipv6_ext_hdrs() in lib/flow.c) */
    return OTHER;
  default:
    return GOOD;
  }
}

static __always_inline enum verdict read_ip6(struct __sk_buff *skb, struct frame *f) {
  const __u32 size = ETH_HLEN + sizeof(struct ipv6hdr);
  if (!reach(skb, size)) return TRUNCATED;
  struct ipv6hdr *ip = (void *)(long)skb->data + ETH_HLEN;
  if ((void *)(ip + 1) > (void *)(long)skb->data_end) return TRUNCATED;
  if (ip->version != 6) return TRUNCATED;
  f->family = 6;
  __builtin_memcpy(f->source, &ip->saddr, sizeof(f->source));
  __builtin_memcpy(f->destination, &ip->daddr, sizeof(f->destination));
  f->tos = (ip->priority << 4) | (ip->flow_lbl[0] >> 4);
  f->ttl = ip->hop_limit;
  return next_header(skb, f, ip->nexthdr, size);
}

/* Reads all of it. The tag, if there is one, is in skb->vlan_tci and not in the frame. */
static __always_inline enum verdict read_frame(struct __sk_buff *skb, struct frame *f) {
  if (!read_macs(skb, f)) return TRUNCATED;
  enum verdict verdict = OTHER;
  if (skb->protocol == bpf_htons(ETH_P_IP)) verdict = read_ip4(skb, f);
  else if (skb->protocol == bpf_htons(ETH_P_IPV6)) verdict = read_ip6(skb, f);
  if (verdict == GOOD && (skb->vlan_present || (f->dst[0] & 1))) return OTHER;
  return verdict;
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b) {
  return *(__u32 *)a == *(__u32 *)b && *(__u16 *)(a + 4) == *(__u16 *)(b + 4);
}

static __always_inline bool same_address(const __u32 *a, const __u32 *b) {
  return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}
