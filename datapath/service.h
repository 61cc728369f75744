/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Services: what a container sends to a virtual address goes to one of those that answer for it, and what they answer comes from the
 * virtual address. Both are done on the client's own link: whoever carries the frames, and the backend, see a connection between two
 * endpoints. docs/datapath.md has the rules.
 */
#pragma once
#include "count.h"
#include "entry.h"
#include "error.h"
#include "flow.h"
#include "rewrite.h"

/* The decision is somebody else's. */
#define GO_ON TC_ACT_UNSPEC
#define SYN 0x02
#define ACK 0x10
/* Backends that are looked at before one is taken that does not suit. */
#define DRAWS 3

/* 02:57:65:66:74:01, by which virtual addresses are known (agent/gateway/addresses.ts). */
#define ANYCAST 0x025765667401ULL

static __always_inline bool is_anycast(const __u8 *mac) {
  return *(__u32 *)mac == bpf_htonl(ANYCAST >> 16) && *(__u16 *)(mac + 4) == bpf_htons(ANYCAST & 0xffff);
}

static __always_inline __u32 seconds(void) { return bpf_ktime_get_coarse_ns() / 1000000000; }

static __always_inline bool same_end(const __u32 *a, __u16 a_port, const __u32 *b, __u16 b_port) {
  return a_port == b_port && same_address(a, b);
}

/* @returns its MAC, NULL when it is to have no new connections. */
static __always_inline struct live *live_of(__u32 id, const struct backend *b) {
  struct live_key key = { .id = id, .port = b->port };
  __builtin_memcpy(key.address, b->address, sizeof(key.address));
  return bpf_map_lookup_elem(&live, &key);
}

/* Port security: of what comes from other addresses, nothing is decided here. */
static __always_inline bool own(const struct port *p, const struct frame *f) {
  if (!same_mac(p->mac, f->src)) return false;
  if (f->family == 4) return p->ip4 && p->ip4 == f->source[0];
  if (!(f->source[0] | f->source[1] | f->source[2] | f->source[3])) return false;
  return same_address(p->ip6, f->source) || same_address(p->link_local, f->source);
}

static __always_inline bool is_own(const struct port *p, __u8 family, const __u32 *address) {
  return family == 4 ? p->ip4 == address[0] : same_address(p->ip6, address);
}

/* How answers come. A container that is its own backend answers to the virtual address, by which it was asked. */
static __always_inline void answers_of(const struct flow *k, const struct backend *b, bool itself, struct flow *r) {
  __builtin_memset(r, 0, sizeof(*r));
  r->index = k->index;
  __builtin_memcpy(r->from, b->address, sizeof(r->from));
  r->from_port = b->port;
  __builtin_memcpy(r->to, itself ? k->to : k->from, sizeof(r->to));
  r->to_port = k->from_port;
  r->protocol = k->protocol;
  r->family = k->family;
}

/* Answers of that backend to the client's port are known as another virtual address's: they could not be told apart. */
static __always_inline bool is_taken(struct work *w, const struct backend *b) {
  answers_of(&w->flow, b, false, &w->answers);
  struct face *other = bpf_map_lookup_elem(&faces, &w->answers);
  return other && !same_end(other->address, other->port, w->flow.to, w->flow.to_port);
}

static __always_inline __u32 below(__u32 count) { return ((__u64)bpf_get_prandom_u32() * count) >> 32; }

/* @param slot in: where to look; out: where it was. @returns NULL: the list is empty. */
static __always_inline struct backend *backend_at(__u32 id, __u32 *slot) {
  struct backend_key at = { .id = id, .slot = *slot };
  struct backend *b = bpf_map_lookup_elem(&backends, &at);
  if (b) return b;
  at.slot = *slot = 0; /* it has just become shorter */
  return bpf_map_lookup_elem(&backends, &at);
}

/* Evenly by chance; not the client itself, or one that is taken, where another is found. @returns false: there is none. */
static __noinline bool draw(const struct port *p, struct work *w, const struct service *s, struct backend *to) {
  __u32 count = s->count, slot;
  bool suits = false;
  if (!count) return false;
  slot = below(count);
  for (int i = 0; i < DRAWS && !suits; i++) {
    struct backend *b = backend_at(s->id, &slot);
    if (!b) return false;
    bool itself = is_own(p, w->flow.family, b->address);
    suits = count == 1 || (!itself && !is_taken(w, b));
    if (!itself || !i) *to = *b;
    if (!suits) slot = (slot + 1 + below(count - 1)) % count;
  }
  return true;
}

/* The backend that the client had last, for as long as it is to stay. */
static __noinline bool stay(const struct flow *k, const struct service *s, __u32 now, struct backend *to) {
  struct affinity_key key = { .id = s->id };
  __builtin_memcpy(key.client, k->from, sizeof(key.client));
  struct affinity *a = bpf_map_lookup_elem(&affinities, &key);
  if (!a || now - a->seen >= s->affinity) return false;
  struct live *here = live_of(s->id, &a->backend);
  if (!here) return false;
  *to = a->backend;
  __builtin_memcpy(to->mac, here->mac, ETH_ALEN);
  return true;
}

static __always_inline void put_face(struct work *w) {
  struct face face = { .port = w->flow.to_port };
  __builtin_memcpy(face.address, w->flow.to, sizeof(face.address));
  bpf_map_update_elem(&faces, &w->answers, &face, BPF_ANY);
}

static __noinline void remember(struct work *w, const struct service *s, const struct connection *c, bool itself) {
  const struct flow *k = &w->flow;
  answers_of(k, &c->backend, itself, &w->answers);
  put_face(w);
  if (!s->affinity) return;
  struct affinity_key key = { .id = s->id };
  struct affinity a = { .seen = c->seen, .backend = c->backend };
  __builtin_memcpy(key.client, k->from, sizeof(key.client));
  bpf_map_update_elem(&affinities, &key, &a, BPF_ANY);
}

/* A connection that goes on is remembered anew, once in a second: both directions stay, whichever of the two has the traffic. */
static __noinline void refresh(struct work *w, const struct service *s, struct connection *c, bool itself) {
  struct affinity_key key = { .id = s->id };
  const struct flow *k = &w->flow;
  answers_of(k, &c->backend, itself, &w->answers);
  if (!bpf_map_lookup_elem(&faces, &w->answers)) put_face(w);
  if (!s->affinity) return;
  __builtin_memcpy(key.client, k->from, sizeof(key.client));
  struct affinity *a = bpf_map_lookup_elem(&affinities, &key);
  if (a && same_end(a->backend.address, a->backend.port, c->backend.address, c->backend.port)) a->seen = c->seen;
}

static __always_inline void count_connection(const struct service_key *at) {
  __u64 none = 0, *n = bpf_map_lookup_elem(&chosen, at);
  if (!n) {
    bpf_map_update_elem(&chosen, at, &none, BPF_NOEXIST);
    n = bpf_map_lookup_elem(&chosen, at);
  }
  if (n) ++*n;
}

/* Who answers this client. @returns false: nobody. */
static __always_inline bool connect(const struct port *p, struct work *w, const struct service_key *at, const struct service *s,
                                    bool opening) {
  const struct flow *k = &w->flow;
  struct change *to = &w->change;
  __u32 now = seconds();
  struct connection c = { .id = s->id, .seen = now };
  struct connection *known = bpf_map_lookup_elem(&connections, k);
  struct live *here = known && known->id == s->id && opening ? live_of(s->id, &known->backend) : NULL;
  bool itself;
  if (known && known->id == s->id && (here || !opening)) {
    /* Another container may have the address by now, with a MAC of its own. */
    if (here) __builtin_memcpy(known->backend.mac, here->mac, ETH_ALEN);
    c.backend = known->backend;
    itself = is_own(p, k->family, c.backend.address);
    if (known->seen != now) {
      known->seen = now;
      refresh(w, s, known, itself);
    }
  } else {
    if (!(s->affinity && stay(k, s, now, &c.backend)) && !draw(p, w, s, &c.backend)) return false;
    itself = is_own(p, k->family, c.backend.address);
    bpf_map_update_elem(&connections, k, &c, BPF_ANY);
    remember(w, s, &c, itself);
    count_connection(at);
  }
  to->what = CHANGE_TO;
  __builtin_memcpy(to->to, c.backend.address, sizeof(to->to));
  __builtin_memcpy(to->mac, c.backend.mac, ETH_ALEN);
  to->to_port = c.backend.port;
  if (itself) { /* nobody takes a packet from his own address */
    to->what |= CHANGE_FROM;
    __builtin_memcpy(to->from, k->to, sizeof(to->from));
    to->from_port = k->from_port;
    __builtin_memcpy(to->mac, p->mac, ETH_ALEN);
  }
  return true;
}

/* @returns GO_ON with the frame as it is from now on, or where it has gone. */
static __always_inline int changed(struct __sk_buff *skb, struct frame *f, const struct change *c, struct flow *k) {
  if (!rewrite(skb, f, c, k)) return count(FAILED, TC_ACT_SHOT);
  if (f->part == FIRST) {
    k->fragment = f->fragment;
    bpf_map_update_elem(&fragments, k, c, BPF_ANY);
  }
  if (c->what == CHANGE_MAC) return count(SERVICE_ENTRY, GO_ON);
  if (c->what != (CHANGE_FROM | CHANGE_TO)) return count(SERVICE, GO_ON);
  return count(SERVICE, bpf_redirect(skb->ifindex, 0));
}

/* Not to a port of a service. */
static __noinline bool unserved(const struct port *p, const struct frame *f, struct work *w, bool opening) {
  const struct flow *k = &w->flow;
  struct change *to = &w->change;
  if (is_anycast(f->dst)) {
    struct face *itself = bpf_map_lookup_elem(&faces, k);
    if (!itself) return by_entry(k, to);
    to->what = CHANGE_FROM | CHANGE_TO;
    __builtin_memcpy(to->from, itself->address, sizeof(to->from));
    to->from_port = itself->port;
    __builtin_memcpy(to->to, k->from, sizeof(to->to));
    to->to_port = k->to_port;
    __builtin_memcpy(to->mac, p->mac, ETH_ALEN);
    return true;
  }
  if (!opening) return false;
  /* By its own address now, from a port that has been used for a virtual one. */
  reverse(k, &w->answers);
  if (bpf_map_lookup_elem(&faces, &w->answers)) bpf_map_delete_elem(&faces, &w->answers);
  return false;
}

/*
 * What a container sends, its source looked at already.
 * @returns GO_ON: to be decided as any other frame, by what `f` says now.
 */
static __noinline int ask(struct __sk_buff *skb, const struct port *p, struct frame *f) {
  struct work *w = begin_work();
  __u8 flags = SYN;
  if (!w) return GO_ON;
  struct flow *k = &w->flow;
  if (is_icmp(f)) {
    __builtin_memset(&w->change, 0, sizeof(w->change));
    if (!is_anycast(f->dst) || !read_quoted(skb, p->index, f, k)) return GO_ON;
    return by_entry(k, &w->change) ? changed(skb, f, &w->change, k) : GO_ON;
  }
  if (f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP) return GO_ON;
  flow_of(k, p->index, f);
  struct service_key at = { .index = p->index, .family = f->family };
  __builtin_memcpy(at.address, f->destination, sizeof(at.address));
  if (f->part == LATER) {
    struct change *first = bpf_map_lookup_elem(&fragments, k);
    if (first) return changed(skb, f, first, k);
    return bpf_map_lookup_elem(&services, &at) ? count(SERVICE_FRAGMENT, TC_ACT_SHOT) : GO_ON;
  }
  if (!read_ports(skb, f, k)) return GO_ON;
  if (f->protocol == IPPROTO_TCP && bpf_skb_load_bytes(skb, f->payload + 13, &flags, 1)) return GO_ON;
  bool opening = (flags & (SYN | ACK)) == SYN;
  at.port = k->to_port;
  at.protocol = f->protocol;
  __builtin_memset(&w->change, 0, sizeof(w->change));
  struct service *s = bpf_map_lookup_elem(&services, &at);
  if (!s) return unserved(p, f, w, opening) ? changed(skb, f, &w->change, k) : GO_ON;
  if (!connect(p, w, &at, s, opening)) return count(NO_BACKEND, TC_ACT_SHOT);
  return changed(skb, f, &w->change, k);
}

/* What a container is to get; `answered` of the work at hand says whether it is an answer. @returns false: it is spoiled. */
static __noinline bool answer(struct __sk_buff *skb, __u32 index, struct frame *f) {
  struct work *w = begin_work();
  if (!w) return true;
  w->answered = false;
  struct flow *k = &w->flow;
  struct change *change = &w->change;
  if (is_icmp(f)) return answer_error(skb, index, f, w);
  if (f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP) return true;
  flow_of(k, index, f);
  if (f->part == LATER) {
    struct change *first = bpf_map_lookup_elem(&fragments, k);
    w->answered = first != NULL;
    return !first || (rewrite(skb, f, first, k) && count(SERVICE_REPLY, true));
  }
  if (!read_ports(skb, f, k)) return true;
  forget_entry(f, w);
  struct face *face = bpf_map_lookup_elem(&faces, k);
  if (!face) return true;
  w->answered = true;
  __builtin_memset(change, 0, sizeof(*change));
  change->what = CHANGE_FROM;
  change->from_port = face->port;
  __builtin_memcpy(change->from, face->address, sizeof(change->from));
  if (!rewrite(skb, f, change, k)) return false;
  if (f->part == FIRST) {
    k->fragment = f->fragment;
    bpf_map_update_elem(&fragments, k, change, BPF_ANY);
  }
  return count(SERVICE_REPLY, true);
}

/*
 * An ICMP error about what has been answered to who came in by a port of this host goes to who has answered.
 * @param s of the transit address. For the rest see ask_from_outside().
 */
static __noinline int error_from_outside(struct __sk_buff *skb, struct frame *f, struct work *w, const struct service *s, __u32 *net) {
  struct flow *k = &w->flow;
  struct quoted q = { .ports_at = read_quoted(skb, s->net | OUTSIDE, f, k) };
  if (!q.ports_at || !same_address(k->to, f->destination)) return GO_ON;
  struct connection *c = bpf_map_lookup_elem(&connections, k);
  struct service_key at = { .port = k->to_port, .protocol = k->protocol, .family = k->family };
  __builtin_memcpy(at.address, k->to, sizeof(at.address));
  const struct service *of = bpf_map_lookup_elem(&services, &at);
  if (!c || !of || c->id != of->id) return GO_ON;
  *net = s->net;
  q.face.port = c->backend.port;
  __builtin_memcpy(q.face.address, c->backend.address, sizeof(q.face.address));
  __builtin_memcpy(f->dst, c->backend.mac, ETH_ALEN);
  if (!put_error(skb, f, k, &q, true) || bpf_skb_store_bytes(skb, 0, f->dst, ETH_ALEN, 0)) return count(FAILED, TC_ACT_SHOT);
  __builtin_memcpy(f->destination, q.face.address, sizeof(f->destination));
  return count(SERVICE, GO_ON);
}

/*
 * What comes from the host for a transit address that stands for a published service. Who asks is outside, or the host.
 * @param net of the backend, out
 * @returns GO_ON: to be delivered by what `f` says now, or, with *net 0, nothing of this
 */
static __noinline int ask_from_outside(struct __sk_buff *skb, struct frame *f, __u32 *net) {
  struct work *w = begin_work();
  struct port nobody = {};
  __u8 flags = SYN;
  if (!w || (f->protocol != IPPROTO_TCP && f->protocol != IPPROTO_UDP && !is_icmp(f))) return GO_ON;
  struct service_key at = { .family = f->family };
  __builtin_memcpy(at.address, f->destination, sizeof(at.address));
  struct service *s = bpf_map_lookup_elem(&services, &at);
  if (!s) return GO_ON;
  if (is_icmp(f)) return error_from_outside(skb, f, w, s, net);
  struct flow *k = &w->flow;
  *net = s->net;
  flow_of(k, s->net | OUTSIDE, f);
  if (f->part == LATER) {
    struct change *first = bpf_map_lookup_elem(&fragments, k);
    return first ? changed(skb, f, first, k) : count(SERVICE_FRAGMENT, TC_ACT_SHOT);
  }
  if (!read_ports(skb, f, k)) return count(FAILED, TC_ACT_SHOT);
  if (f->protocol == IPPROTO_TCP && bpf_skb_load_bytes(skb, f->payload + 13, &flags, 1)) return count(FAILED, TC_ACT_SHOT);
  at.port = k->to_port;
  at.protocol = f->protocol;
  __builtin_memset(&w->change, 0, sizeof(w->change));
  s = bpf_map_lookup_elem(&services, &at);
  if (!s || !connect(&nobody, w, &at, s, (flags & (SYN | ACK)) == SYN)) return count(NO_BACKEND, TC_ACT_SHOT);
  return changed(skb, f, &w->change, k);
}
