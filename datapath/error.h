/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * ICMP errors (nobody listens, too big, …) about what a client has sent to a virtual address, and about what has been answered to him. They
 * quote the packet as it was where it failed; who has sent it knows it otherwise.
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

/* One end of a quoted packet, and whom he who has sent it knows it as. */
struct quoted {
  struct face face;
  __u32 ports_at;
  bool to; /* whom it was for: the error may come from there. Else its sender, for whom the error is. */
};

static __always_inline bool is_icmp(const struct frame *f) {
  return f->protocol == (f->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline bool is_error(struct __sk_buff *skb, const struct frame *f) {
  __u8 type;
  if (!is_icmp(f) || f->part != WHOLE || bpf_skb_load_bytes(skb, f->payload, &type, 1)) return false;
  if (f->family == 6) return type >= FIRST_ERROR6 && type <= LAST_ERROR6;
  return type == UNREACHABLE || type == TIME_EXCEEDED || type == PARAMETER_PROBLEM;
}

/*
 * @param k out: the other direction of the quoted packet
 * @returns where its ports are; 0: this is no error, or none about TCP or UDP
 */
static __noinline __u32 read_quoted(struct __sk_buff *skb, __u32 index, const struct frame *f, struct flow *k) {
  __u32 at = f->payload + ERROR_HEADER;
  __u16 ports[2];
  __builtin_memset(k, 0, sizeof(*k));
  k->index = index;
  k->family = f->family;
  if (!is_error(skb, f)) return 0;
  if (f->family == 4) {
    struct iphdr ip;
    if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || (ip.frag_off & bpf_htons(0x1fff))) return 0;
    k->from[0] = ip.daddr;
    k->to[0] = ip.saddr;
    k->protocol = ip.protocol;
    at += ip.ihl * 4;
  } else {
    struct ipv6hdr ip;
    if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip))) return 0;
    __builtin_memcpy(k->from, &ip.daddr, sizeof(k->from));
    __builtin_memcpy(k->to, &ip.saddr, sizeof(k->to));
    k->protocol = ip.nexthdr;
    at += sizeof(ip);
  }
  if (k->protocol != IPPROTO_TCP && k->protocol != IPPROTO_UDP) return 0;
  if (bpf_skb_load_bytes(skb, at, ports, sizeof(ports))) return 0;
  k->to_port = ports[0];
  k->from_port = ports[1];
  return at;
}

/* The quoted header's own checksum outweighs its address, in ICMP's; the port does not. */
static __always_inline bool put_error4(struct __sk_buff *skb, const struct frame *f, const struct quoted *q, __u32 was, bool outer) {
  __u32 quoted = f->payload + ERROR_HEADER, now = q->face.address[0];
  __u32 at = q->to ? offsetof(struct iphdr, daddr) : offsetof(struct iphdr, saddr);
  if (bpf_l3_csum_replace(skb, quoted + offsetof(struct iphdr, check), was, now, 4)) return false;
  if (bpf_skb_store_bytes(skb, quoted + at, &now, 4, 0)) return false;
  if (!outer) return true;
  at = ETH_HLEN + (q->to ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
  if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), was, now, 4)) return false;
  return bpf_skb_store_bytes(skb, at, &now, 4, 0) == 0;
}

static __always_inline bool put_error6(struct __sk_buff *skb, const struct frame *f, const struct quoted *q, const __u32 *was, bool outer) {
  __u32 quoted = f->payload + ERROR_HEADER, sum = f->payload + CHECKSUM_AT;
  __u32 at = q->to ? offsetof(struct ipv6hdr, daddr) : offsetof(struct ipv6hdr, saddr);
  __s64 difference = bpf_csum_diff((__be32 *)was, 16, (__be32 *)q->face.address, 16, 0);
  if (difference < 0 || bpf_l4_csum_replace(skb, sum, 0, difference, 0)) return false;
  if (bpf_skb_store_bytes(skb, quoted + at, q->face.address, 16, 0)) return false;
  if (!outer) return true;
  at = ETH_HLEN + (q->to ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
  if (bpf_l4_csum_replace(skb, sum, 0, difference, BPF_F_PSEUDO_HDR)) return false;
  bpf_csum_update(skb, difference); /* as in rewrite.h */
  return bpf_skb_store_bytes(skb, at, q->face.address, 16, 0) == 0;
}

/*
 * @param k of what is quoted, as read
 * @param outer the error itself comes from that end, or is for it
 * @returns false: it is spoiled.
 */
static __noinline bool put_error(struct __sk_buff *skb, const struct frame *f, const struct flow *k, const struct quoted *q, bool outer) {
  const __u32 *was = q->to ? k->from : k->to;
  __u16 was_port = q->to ? k->from_port : k->to_port;
  if (bpf_l4_csum_replace(skb, f->payload + CHECKSUM_AT, was_port, q->face.port, 2)) return false;
  if (bpf_skb_store_bytes(skb, q->ports_at + (q->to ? 2 : 0), &q->face.port, 2, 0)) return false;
  return f->family == 4 ? put_error4(skb, f, q, *was, outer) : put_error6(skb, f, q, was, outer);
}

/* About what a client, a container or who came in by this host, has sent. @returns false: it is spoiled. */
static __noinline bool answer_error(struct __sk_buff *skb, __u32 index, const struct frame *f, struct work *w) {
  struct flow *k = &w->flow;
  struct quoted q = { .ports_at = read_quoted(skb, index, f, k), .to = true };
  if (!q.ports_at) return true;
  struct face *face = bpf_map_lookup_elem(&faces, k);
  if (!face) return true;
  q.face = *face;
  w->answered = same_address(f->source, k->from);
  return put_error(skb, f, k, &q, w->answered) && count(SERVICE_REPLY, true);
}
