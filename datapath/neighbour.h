/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Who has a virtual address (RFC 4861 §4.3, §7.2.4): a solicitation becomes the advertisement, and goes back. Open vSwitch's kernel datapath
 * cannot do that with flows, and a virtual address is nobody's who could answer himself.
 */
#pragma once
#include "service.h"

#define ND_SOLICITATION 135
#define ND_ADVERTISEMENT 136
#define ND_HOPS 255
#define ND_SOLICITED 0x40000000
#define ND_OVERRIDE 0x20000000
#define ND_TARGET_ADDRESS 2

/* Of both; the option is the MAC of who sends it. */
struct neighbour {
  __u8 type;
  __u8 code;
  __u16 sum;
  __u32 flags;
  __u32 target[4];
  __u8 option;
  __u8 units;
  __u8 mac[ETH_ALEN];
};
#define WITHOUT_OPTION 24

/* IPv6 header and what is in it. */
struct advertisement {
  __u32 version;
  __u16 length;
  __u8 next;
  __u8 hops;
  __u32 source[4];
  __u32 destination[4];
  struct neighbour about;
};

/* @param a its addresses and message; RFC 4443 §2.3 */
static __always_inline __u16 sum_of(struct advertisement *a) {
  __be32 rest[2] = { bpf_htonl(sizeof(a->about)), bpf_htonl(IPPROTO_ICMPV6) };
  __s64 sum = bpf_csum_diff(NULL, 0, a->source, sizeof(a->source) + sizeof(a->destination) + sizeof(a->about), 0);
  sum = bpf_csum_diff(NULL, 0, rest, sizeof(rest), sum);
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff);
  return ~((sum & 0xffff) + (sum >> 16));
}

/* @param f an ICMPv6 frame. @returns GO_ON: it asks for something else, or is not the endpoint's own */
static __noinline int answer_neighbour(struct __sk_buff *skb, const struct port *p, const struct frame *f) {
  /* Asked by somebody who has no address yet: answered to all. */
  bool probe = !(f->source[0] | f->source[1] | f->source[2] | f->source[3]);
  struct service_key at = { .index = p->index, .family = 6 };
  struct advertisement a = {};
  __u8 to[ETH_ALEN] __attribute__((aligned(4)));
  if (f->ttl != ND_HOPS || !same_mac(p->mac, f->src) || (!probe && !own(p, f))) return GO_ON;
  if (bpf_skb_load_bytes(skb, f->payload, &a.about, WITHOUT_OPTION)) return GO_ON;
  if (a.about.type != ND_SOLICITATION || a.about.code) return GO_ON;
  __builtin_memcpy(at.address, a.about.target, sizeof(at.address));
  if (!bpf_map_lookup_elem(&services, &at)) return GO_ON;
  a.version = bpf_htonl(0x60000000);
  a.length = bpf_htons(sizeof(a.about));
  a.next = IPPROTO_ICMPV6;
  a.hops = ND_HOPS;
  __builtin_memcpy(a.source, at.address, sizeof(a.source));
  __builtin_memcpy(a.destination, f->source, sizeof(a.destination));
  __builtin_memcpy(to, p->mac, ETH_ALEN);
  if (probe) {
    *(__u32 *)to = bpf_htonl(0x33330000);
    *(__u16 *)(to + 4) = bpf_htons(1);
    a.destination[0] = bpf_htonl(0xff020000);
    a.destination[3] = bpf_htonl(1);
  }
  a.about.type = ND_ADVERTISEMENT;
  a.about.sum = 0;
  a.about.flags = bpf_htonl(probe ? ND_OVERRIDE : ND_SOLICITED | ND_OVERRIDE);
  a.about.option = ND_TARGET_ADDRESS;
  a.about.units = 1;
  *(__u16 *)a.about.mac = bpf_htons(ANYCAST >> 32);
  *(__u32 *)(a.about.mac + 2) = bpf_htonl(ANYCAST & 0xffffffff);
  a.about.sum = sum_of(&a);
  if (bpf_skb_change_tail(skb, ETH_HLEN + sizeof(a), 0)) return count(FAILED, TC_ACT_SHOT);
  if (bpf_skb_store_bytes(skb, 0, to, ETH_ALEN, 0)) return count(FAILED, TC_ACT_SHOT);
  if (bpf_skb_store_bytes(skb, ETH_ALEN, a.about.mac, ETH_ALEN, 0)) return count(FAILED, TC_ACT_SHOT);
  if (bpf_skb_store_bytes(skb, ETH_HLEN, &a, sizeof(a), 0)) return count(FAILED, TC_ACT_SHOT);
  return bpf_redirect(skb->ifindex, 0);
}
