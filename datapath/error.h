/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * ICMP errors about what a client has sent to a virtual address (nobody listens, too big, …). They quote the packet as it was on its way
 * to the backend; the client knows it as it was before.
 */
#pragma once
#include <stddef.h>
#include "count.h"
#include "flow.h"

/* RFC 792, RFC 4443. Both headers are of one length; linux/icmp.h wants the C library's headers. */
#define ERROR_HEADER 8
#define CHECKSUM_AT 2
#define UNREACHABLE 3
#define TIME_EXCEEDED 11
#define PARAMETER_PROBLEM 12
#define FIRST_ERROR6 1
#define LAST_ERROR6 4

/* What is quoted: who was asked, and whom the client knows it as. @param at where the quoted IP header begins */
struct quoted {
  __u32 was[4];
  __u16 was_port;
  __u32 port_at; /* of the destination's port */
  struct face face;
};

static __always_inline bool known_face(struct __sk_buff *skb, struct flow *k, __u32 at, struct quoted *q) {
  __u16 ports[2];
  if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports))) return false;
  k->to_port = ports[0];
  k->from_port = ports[1];
  struct face *face = bpf_map_lookup_elem(&faces, k);
  if (!face) return false;
  q->face = *face;
  q->was_port = ports[1];
  q->port_at = at + 2;
  __builtin_memcpy(q->was, k->from, sizeof(q->was));
  return true;
}

static __always_inline bool read_quoted4(struct __sk_buff *skb, struct flow *k, __u32 at, struct quoted *q) {
  struct iphdr ip;
  if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || (ip.frag_off & bpf_htons(0x1fff))) return false;
  if (ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP) return false;
  k->from[0] = ip.daddr;
  k->to[0] = ip.saddr;
  k->protocol = ip.protocol;
  return known_face(skb, k, at + ip.ihl * 4, q);
}

static __always_inline bool read_quoted6(struct __sk_buff *skb, struct flow *k, __u32 at, struct quoted *q) {
  struct ipv6hdr ip;
  if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip))) return false;
  if (ip.nexthdr != IPPROTO_TCP && ip.nexthdr != IPPROTO_UDP) return false;
  __builtin_memcpy(k->from, &ip.daddr, sizeof(k->from));
  __builtin_memcpy(k->to, &ip.saddr, sizeof(k->to));
  k->protocol = ip.nexthdr;
  return known_face(skb, k, at + sizeof(ip), q);
}

/* The quoted header's own checksum outweighs its address, in ICMP's; the port does not. */
static __always_inline bool put_error4(struct __sk_buff *skb, const struct frame *f, struct quoted *q) {
  __u32 quoted = f->payload + ERROR_HEADER, sum = f->payload + CHECKSUM_AT;
  __u32 now = q->face.address[0];
  if (bpf_l3_csum_replace(skb, quoted + offsetof(struct iphdr, check), q->was[0], now, 4)) return false;
  if (bpf_skb_store_bytes(skb, quoted + offsetof(struct iphdr, daddr), &now, 4, 0)) return false;
  if (bpf_l4_csum_replace(skb, sum, q->was_port, q->face.port, 2)) return false;
  if (bpf_skb_store_bytes(skb, q->port_at, &q->face.port, 2, 0)) return false;
  if (f->source[0] != q->was[0]) return true;
  if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), q->was[0], now, 4)) return false;
  return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), &now, 4, 0) == 0;
}

static __always_inline bool put_error6(struct __sk_buff *skb, const struct frame *f, struct quoted *q) {
  __u32 quoted = f->payload + ERROR_HEADER, sum = f->payload + CHECKSUM_AT;
  __s64 difference = bpf_csum_diff(q->was, 16, q->face.address, 16, 0);
  if (difference < 0 || bpf_l4_csum_replace(skb, sum, 0, difference, 0)) return false;
  if (bpf_skb_store_bytes(skb, quoted + offsetof(struct ipv6hdr, daddr), q->face.address, 16, 0)) return false;
  if (bpf_l4_csum_replace(skb, sum, q->was_port, q->face.port, 2)) return false;
  if (bpf_skb_store_bytes(skb, q->port_at, &q->face.port, 2, 0)) return false;
  if (!same_address(f->source, q->was)) return true;
  if (bpf_l4_csum_replace(skb, sum, 0, difference, BPF_F_PSEUDO_HDR)) return false;
  bpf_csum_update(skb, difference); /* as in rewrite.h */
  return bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), q->face.address, 16, 0) == 0;
}

/* @returns false: it is spoiled. */
static __noinline bool answer_error(struct __sk_buff *skb, __u32 index, const struct frame *f) {
  struct flow k = { .index = index, .family = f->family };
  struct quoted q = {};
  __u8 type;
  if (f->part != WHOLE || bpf_skb_load_bytes(skb, f->payload, &type, 1)) return true;
  if (f->family == 4) {
    if (f->protocol != IPPROTO_ICMP || (type != UNREACHABLE && type != TIME_EXCEEDED && type != PARAMETER_PROBLEM)) return true;
    if (!read_quoted4(skb, &k, f->payload + ERROR_HEADER, &q)) return true;
    return put_error4(skb, f, &q) && count(SERVICE_REPLY, true);
  }
  if (f->protocol != IPPROTO_ICMPV6 || type < FIRST_ERROR6 || type > LAST_ERROR6) return true;
  if (!read_quoted6(skb, &k, f->payload + ERROR_HEADER, &q)) return true;
  return put_error6(skb, f, &q) && count(SERVICE_REPLY, true);
}
