// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Services on hosts whose Open vSwitch is in the kernel, where a container's link is itself a port. tc comes before Open vSwitch takes a
 * frame, and after it has sent one: there virtual addresses are translated, and all else is left as it is. Without loops by callback, so
 * that kernels without a JIT take them.
 */
#include "frame.h"
#include "maps.h"
#include "neighbour.h"
#include "service.h"

static __always_inline struct port *served(struct __sk_buff *skb) {
  __u32 ifindex = skb->ifindex;
  struct port *p = bpf_map_lookup_elem(&ports, &ifindex);
  return p && (p->flags & SERVED) ? p : NULL;
}

/* Ingress: what a container sends. Open vSwitch judges the source of all of it, translated or not. */
SEC("tc") int service_out(struct __sk_buff *skb) {
  struct port *p = served(skb);
  struct frame f = {};
  if (!p) return GO_ON;
  if (read_frame(skb, &f) == GOOD) return own(p, &f) ? ask(skb, p, &f) : GO_ON;
  return f.family == 6 && f.protocol == IPPROTO_ICMPV6 && !skb->vlan_present ? answer_neighbour(skb, p, &f) : GO_ON;
}

/* Egress: what Open vSwitch sends to a container, and what comes back to one that is its own backend. */
SEC("tc") int service_in(struct __sk_buff *skb) {
  struct port *p = served(skb);
  struct frame f = {};
  if (!p || read_frame(skb, &f) != GOOD || answer(skb, p->index, &f)) return GO_ON;
  return count(FAILED, TC_ACT_SHOT);
}

char _license[] SEC("license") = "GPL";
