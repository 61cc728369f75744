// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * The kernel side of Weft's datapath, for hosts without the openvswitch module: tc programs, all at clsact ingress. They carry frames
 * between containers and the kernel's tunnel devices where both ends are flagged for it (the express path), and between those and Open
 * vSwitch, which decides everything else. docs/datapath.md draws it.
 */
#include "count.h"
#include "cut.h"
#include "express-maps.h"
#include "frame.h"
#include "mark.h"
#include "route.h"
#include "service.h"

static __always_inline struct traffic *traffic_of(__u32 ifindex) {
  struct traffic *t = bpf_map_lookup_elem(&traffic, &ifindex);
  if (t) return t;
  struct traffic none = {};
  bpf_map_update_elem(&traffic, &ifindex, &none, BPF_NOEXIST);
  return bpf_map_lookup_elem(&traffic, &ifindex);
}

/* Frames as they are on the wire: a GSO frame is many. */
static __always_inline __u32 segments(struct __sk_buff *skb) { return skb->gso_segs ? skb->gso_segs : 1; }

/* An exact entry, else the block's with the longest prefix. */
static __always_inline struct place *find(__u32 index, const __u8 *mac) {
  struct block_key key = { .bits = 80, .at.index = index };
  __builtin_memcpy(key.at.mac, mac, ETH_ALEN);
  struct place *exact = bpf_map_lookup_elem(&fdb, &key.at);
  return exact ? exact : bpf_map_lookup_elem(&blocks, &key);
}

static __always_inline struct config *configuration(void) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&config, &zero);
}

/* What tunnels of a network and a frame have in common, wherever it goes. */
struct way {
  struct config *config;
  __u64 flags;
  __u32 device;
  __u32 vni;
  __u8 tos;
  __u8 ttl;
};

static __always_inline bool way_of(__u32 index, const struct frame *f, struct way *w) {
  struct config *c = configuration();
  struct net *n = bpf_map_lookup_elem(&nets, &index);
  if (!c || !n) return false;
  w->config = c;
  w->device = n->device;
  w->vni = n->vni;
  w->flags = c->flags & CONFIG_DONT_FRAGMENT ? BPF_F_DONT_FRAGMENT : 0;
  if (!(c->flags & CONFIG_CHECKSUM)) w->flags |= BPF_F_ZERO_CSUM_TX;
  w->ttl = (c->flags & CONFIG_TTL_INHERIT) && f->family ? f->ttl : c->ttl;
  w->tos = (c->flags & CONFIG_DSCP_INHERIT) ? f->tos & DSCP : c->tos;
  return true;
}

/* Gives the frame its tunnel key. @returns the device to send it to, 0 when it cannot be. */
static __always_inline __u32 aim(struct __sk_buff *skb, const struct way *w, const struct place *to) {
  struct bpf_tunnel_key key = { .tunnel_id = to->key ? to->key : w->vni, .tunnel_tos = w->tos, .tunnel_ttl = w->ttl };
  __u64 flags = w->flags;
  if (to->family == 6) {
    flags = (flags & ~(__u64)BPF_F_ZERO_CSUM_TX) | BPF_F_TUNINFO_IPV6;
    __builtin_memcpy(key.remote_ipv6, to->vtep, sizeof(key.remote_ipv6));
    __builtin_memcpy(key.local_ipv6, w->config->source6, sizeof(key.local_ipv6));
  } else {
    key.remote_ipv4 = bpf_ntohl(to->vtep[0]);
    key.local_ipv4 = bpf_ntohl(w->config->source4);
  }
  if (bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags)) return 0;
  return to->device ? to->device : w->device;
}

static __always_inline int send(struct __sk_buff *skb, __u32 index, const struct place *to, const struct frame *f, __u32 reason) {
  struct way way;
  __u32 device = way_of(index, f, &way) ? aim(skb, &way, to) : 0;
  return device ? count(reason, bpf_redirect(device, 0)) : count(FAILED, TC_ACT_SHOT);
}

/* Into a container of this host, past the host's end of its veth unless that has a rate to hold. */
static __always_inline int deliver(struct __sk_buff *skb, __u32 index, struct frame *f, const struct place *to, __u32 reason) {
  __u32 ifindex = to->device;
  if ((to->flags & SERVED) && !answer(skb, index, f)) return count(FAILED, TC_ACT_SHOT);
  struct traffic *t = traffic_of(ifindex);
  if (t) {
    t->rx_packets += segments(skb);
    t->rx_bytes += skb->len;
  }
  if ((to->flags & REWRITE) && bpf_skb_store_bytes(skb, 0, to->mac, ETH_ALEN, 0)) return count(FAILED, TC_ACT_SHOT);
  /* Judged by the MAC of the link it came by; nobody will judge again. */
  bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
  /* A queue that holds the rate is at the host's end. */
  return count(reason, to->flags & PACED ? bpf_redirect(ifindex, 0) : bpf_redirect_peer(ifindex, 0));
}

/*
 * To the host's own end of the link: answers for who came in by one of its ports, and nothing else, whoever says what he likes to that MAC.
 * The host's packet filter knows them by their source.
 */
static __always_inline int to_host(struct __sk_buff *skb, __u32 index, struct frame *f, const struct place *to) {
  /* 02:57:65:66:74:02, from 02:57:65:66:74:01 (agent/gateway/addresses.ts). As numbers: bytes would be a map of their own. */
  __u64 first = bpf_cpu_to_be64(0x0257656674020257);
  __u32 last = bpf_htonl(0x65667401);
  if (!answer(skb, index | OUTSIDE, f)) return count(FAILED, TC_ACT_SHOT);
  struct work *w = begin_work();
  if (!w || !w->answered) return count(SECURITY, TC_ACT_SHOT);
  if (bpf_skb_store_bytes(skb, 0, &first, 8, 0) || bpf_skb_store_bytes(skb, 8, &last, 4, 0)) return count(FAILED, TC_ACT_SHOT);
  return count(SERVICE_EXIT, bpf_redirect(to->device, 0));
}

/* @param ifindex of wft… */
static __always_inline int sent(struct __sk_buff *skb, __u32 ifindex) {
  struct port *p = bpf_map_lookup_elem(&ports, &ifindex);
  if (!p) return count(UNKNOWN_PORT, TC_ACT_SHOT);
  struct frame f = {};
  if (!(p->flags & (EXPRESS | SERVED)) && !p->mark) return count(SLOW, bpf_redirect(p->slow, 0));
  if (read_frame(skb, &f) != GOOD) return count(SLOW, bpf_redirect(p->slow, 0));
  if (p->mark && !put_class(skb, &f, p->mark)) return count(FAILED, TC_ACT_SHOT);
  if (!(p->flags & (EXPRESS | SERVED))) return count(SLOW, bpf_redirect(p->slow, 0));
  if (!own(p, &f)) return count(p->flags & EXPRESS ? SECURITY : SLOW, bpf_redirect(p->slow, 0));
  if (p->flags & SERVED) {
    int done = ask(skb, p, &f);
    if (done != GO_ON) return done;
  }
  bool entry = is_entry(f.dst); /* Open vSwitch does not know them */
  if (!(p->flags & EXPRESS) && !entry) return count(SLOW, bpf_redirect(p->slow, 0));
  __u32 index = p->index;
  bool routed = is_anycast(f.dst);
  if (routed) index = next_network(skb, index, &f);
  if (!index) return count(SLOW, bpf_redirect(p->slow, 0));
  struct place *to = find(index, f.dst);
  if (to && (to->flags & HOST)) return to_host(skb, index, &f, to);
  if (!to || !(to->flags & EXPRESS) || !(to->family || to->device)) return count(SLOW, bpf_redirect(p->slow, 0));
  if (routed) {
    struct config *c = configuration();
    if (!c || !route_frame(skb, &f, c->router)) return count(FAILED, TC_ACT_SHOT);
    count(ROUTED, 0);
  }
  struct traffic *t = traffic_of(ifindex);
  if (t) {
    t->tx_packets += segments(skb);
    t->tx_bytes += skb->len;
  }
  return to->family ? send(skb, index, to, &f, EXPRESS_REMOTE) : deliver(skb, index, &f, to, EXPRESS_LOCAL);
}

SEC("tc") int from_container(struct __sk_buff *skb) { return sent(skb, skb->ifindex); }

/* Of an endpoint with a rate: first through the queue of its gate, which is where the gate is entered. */
SEC("tc") int to_gate(struct __sk_buff *skb) {
  __u32 ifindex = skb->ifindex;
  __u32 *gate = bpf_map_lookup_elem(&gates, &ifindex);
  return gate ? bpf_redirect(*gate, 0) : count(UNKNOWN_PORT, TC_ACT_SHOT);
}

/* Out of the gate, in time: as if it came from the container now. */
SEC("tc") int from_gate(struct __sk_buff *skb) {
  __u32 ifindex = skb->ifindex;
  __u32 *container = bpf_map_lookup_elem(&gates, &ifindex);
  return container ? sent(skb, *container) : count(UNKNOWN_PORT, TC_ACT_SHOT);
}

/* By the link and not past it: works also for links without a peer elsewhere (taps, a veth not yet moved), and for any MAC. */
SEC("tc") int from_ovs(struct __sk_buff *skb) {
  __u32 ifindex = skb->ifindex;
  __u32 *container = bpf_map_lookup_elem(&slow, &ifindex);
  if (!container) return count(UNKNOWN_PORT, TC_ACT_SHOT);
  struct port *p = bpf_map_lookup_elem(&ports, container);
  if (p && (p->flags & SERVED)) {
    struct frame f = {};
    if (read_frame(skb, &f) == GOOD && !answer(skb, p->index, &f)) return count(FAILED, TC_ACT_SHOT);
  }
  return count(OVS_TO_CONTAINER, bpf_redirect(*container, 0));
}

/* Reads from where a frame came. */
static __always_inline bool came_from(struct __sk_buff *skb, struct source_key *from) {
  struct bpf_tunnel_key key = {};
  from->device = skb->ifindex;
  if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) == 0) {
    from->family = 4;
    from->vtep[0] = bpf_htonl(key.remote_ipv4);
  } else if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6) == 0) {
    from->family = 6;
    __builtin_memcpy(from->vtep, key.remote_ipv6, sizeof(from->vtep));
  } else return false;
  from->key = key.tunnel_id;
  return true;
}

static __always_inline bool is_behind(const struct place *p, const struct source_key *from) {
  return p->family == from->family && same_address(p->vtep, from->vtep);
}

/* Remembers that a MAC is behind an external peer, unless it is known so. */
static __always_inline void learn(__u32 index, const __u8 *mac, const struct source_key *from) {
  struct mac_key key = { .index = index };
  __builtin_memcpy(key.mac, mac, ETH_ALEN);
  struct place *known = bpf_map_lookup_elem(&learned, &key);
  if (known && is_behind(known, from) && known->key == from->key && known->device == from->device) return;
  struct place now = { .device = from->device, .key = from->key, .family = from->family, .flags = EXTERNAL };
  __builtin_memcpy(now.vtep, from->vtep, sizeof(now.vtep));
  bpf_map_update_elem(&learned, &key, &now, BPF_ANY);
}

static __always_inline int to_ovs(struct __sk_buff *skb, __u32 index) {
  struct config *c = configuration();
  if (!c || bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021AD), index)) return count(FAILED, TC_ACT_SHOT);
  return count(TUNNEL_TO_OVS, bpf_redirect(c->tunnel_port, 0));
}

SEC("tc") int from_tunnel(struct __sk_buff *skb) {
  struct source_key from = {};
  if (!came_from(skb, &from)) return count(FAILED, TC_ACT_SHOT);
  struct source *peer = bpf_map_lookup_elem(&vteps, &from);
  if (!peer) {
    struct tunnel t = { .device = from.device, .key = from.key };
    return count(bpf_map_lookup_elem(&vnis, &t) ? FOREIGN_VTEP : UNKNOWN_VNI, TC_ACT_SHOT);
  }
  struct frame f = {};
  enum verdict verdict = read_frame(skb, &f);
  if (verdict == TRUNCATED) return count(TUNNEL_SHORT, TC_ACT_SHOT);
  struct place *sender = find(peer->index, f.src);
  if (sender ? !is_behind(sender, &from) : !(peer->flags & EXTERNAL) || (f.src[0] & 1)) return count(FOREIGN_SOURCE, TC_ACT_SHOT);
  if (!sender && (peer->flags & LEARN)) learn(peer->index, f.src, &from);
  if (verdict == GOOD && sender && (sender->flags & EXPRESS) && is_entry(f.src)) note_entry(skb, peer->index, &f);
  if (verdict == GOOD && sender && ((sender->flags & EXPRESS) || is_entry(f.dst))) {
    struct place *to = find(peer->index, f.dst);
    if (to && (to->flags & HOST)) return to_host(skb, peer->index, &f, to);
    if (to && (to->flags & EXPRESS) && !to->family && to->device) return deliver(skb, peer->index, &f, to, EXPRESS_RX);
  }
  return to_ovs(skb, peer->index);
}

/* Priorities in the tag of a frame to be copied (agent/flows/backend.ts). */
#define PRUNED 1
#define ASKED 2

struct flood {
  struct __sk_buff *skb;
  __u32 list;
  __u32 made;
  struct way way;
};

static long copy_to(__u32 slot, void *context) {
  struct flood *flood = context;
  struct list_key key = { .list = flood->list, .slot = slot };
  struct place *to = bpf_map_lookup_elem(&lists, &key);
  if (!to) return 1;
  __u32 device = aim(flood->skb, &flood->way, to);
  if (device && bpf_clone_redirect(flood->skb, device, 0) == 0) flood->made++;
  return 0;
}

/*
 * A copy for each VTEP of the network; of a frame that OVS has marked (priority 1 in its tag), for those of the group's list, or, for a
 * group that nobody is known to want, of the list under the MAC zero; of a question that nobody here can answer (priority 2), for those of
 * the list under the broadcast MAC. bpf_loop() wants a kernel with a JIT, which all that matter have;
 * a loop that the verifier follows turn by turn takes it half a second.
 */
static __always_inline int copies(struct __sk_buff *skb, __u32 index, const struct frame *f, __u32 mark) {
  struct mac_key group = { .index = index }, rest = { .index = index };
  __u32 *list = NULL;
  if (mark == ASKED) __builtin_memset(group.mac, 0xff, ETH_ALEN);
  else __builtin_memcpy(group.mac, f->dst, ETH_ALEN);
  if (mark) list = bpf_map_lookup_elem(&groups, &group);
  if (mark == PRUNED && !list) list = bpf_map_lookup_elem(&groups, &rest);
  struct flood flood = { .skb = skb, .list = list ? *list : index };
  if (!way_of(index, f, &flood.way)) return count(FAILED, TC_ACT_SHOT);
  bpf_loop(MAX_COPIES, copy_to, &flood, 0);
  return count_by(COPIES, flood.made, TC_ACT_SHOT);
}

SEC("tc") int to_tunnel(struct __sk_buff *skb) {
  if (!skb->vlan_present || skb->vlan_proto != bpf_htons(ETH_P_8021AD)) return count(UNKNOWN_NETWORK, TC_ACT_SHOT);
  __u32 index = skb->vlan_tci & 0xfff;
  __u32 mark = skb->vlan_tci >> 13;
  struct net *n = bpf_map_lookup_elem(&nets, &index);
  if (!n) return count(UNKNOWN_NETWORK, TC_ACT_SHOT);
  if (bpf_skb_vlan_pop(skb) || !cut(skb, n->mtu)) return count(FAILED, TC_ACT_SHOT);
  struct frame f = {};
  read_frame(skb, &f);
  if (!read_macs(skb, &f)) return count(TUNNEL_SHORT, TC_ACT_SHOT);
  if (f.dst[0] & 1) return copies(skb, index, &f, mark);
  struct place *to = find(index, f.dst);
  if (!to) {
    struct mac_key key = { .index = index };
    __builtin_memcpy(key.mac, f.dst, ETH_ALEN);
    /* Several endpoints may have it: all of them get it. */
    if (mark == PRUNED && bpf_map_lookup_elem(&groups, &key)) return copies(skb, index, &f, mark);
    to = bpf_map_lookup_elem(&learned, &key);
  }
  if (!to || !to->family) return count(UNKNOWN_UNICAST, TC_ACT_SHOT);
  return send(skb, index, to, &f, OVS_TO_TUNNEL);
}

/*
 * What the host sends to its endpoints, by the other end of its link. Open vSwitch has its copy; it knows nothing of the transit addresses
 * that are meant here.
 */
SEC("tc") int from_host(struct __sk_buff *skb) {
  struct frame f = {};
  __u32 net = 0;
  if (read_frame(skb, &f) != GOOD) return GO_ON;
  int done = ask_from_outside(skb, &f, &net);
  if (done != GO_ON || !net) return done;
  struct config *c = configuration();
  struct place *to = find(net, f.dst);
  if (!c || !to || !(to->family || to->device)) return count(FAILED, TC_ACT_SHOT);
  if (bpf_skb_store_bytes(skb, ETH_ALEN, c->entry, ETH_ALEN, 0)) return count(FAILED, TC_ACT_SHOT);
  __builtin_memcpy(f.src, c->entry, ETH_ALEN);
  if (to->family) return send(skb, net, to, &f, EXPRESS_REMOTE);
  note_entry(skb, net, &f);
  /* Open vSwitch has more to say of this one than "forward". */
  return to->flags & EXPRESS ? deliver(skb, net, &f, to, EXPRESS_LOCAL) : to_ovs(skb, net);
}

/* OVS has its copy (packet sockets come before tc); the host's own network stack is not to see tenants' frames. */
SEC("tc") int sink(struct __sk_buff *skb) { return TC_ACT_SHOT; }

char _license[] SEC("license") = "GPL";
