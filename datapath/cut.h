/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * OVS's userspace datapath writes into a GSO frame the segment size that the MTU of its own port allows, whatever it was before. The
 * network's MTU is smaller: segments would be too large for the tunnel, which drops them.
 */
#pragma once
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stddef.h>
#include "frame.h"
#include "maps.h"

/*
 * Makes the segments of an untagged GSO frame of TCP fit. Room made shrinks them, room taken back leaves them so. Segments of UDP are
 * datagrams, which nobody may cut; others are not known here, and stay.
 * @returns false: it cannot be done.
 */
static __always_inline bool cut(struct __sk_buff *skb, __u32 mtu) {
  struct tcphdr tcp;
  __u8 first, proto;
  __u32 header = sizeof(struct ipv6hdr);
  if (!skb->gso_size || !mtu) return true;
  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    if (bpf_skb_load_bytes(skb, ETH_HLEN, &first, 1)) return false;
    if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, protocol), &proto, 1)) return false;
    header = (first & 0xf) * 4;
  } else if (skb->protocol != bpf_htons(ETH_P_IPV6)) return true;
  else if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &proto, 1)) return false;
  if (proto == IPPROTO_UDP) return header + sizeof(struct udphdr) + skb->gso_size <= mtu;
  if (proto != IPPROTO_TCP) return true;
  if (bpf_skb_load_bytes(skb, ETH_HLEN + header, &tcp, sizeof(tcp))) return false;
  header += tcp.doff * 4;
  if (header >= mtu) return false;
  __s32 excess = skb->gso_size - (mtu - header);
  if (excess <= 0) return true;
  return bpf_skb_adjust_room(skb, excess, BPF_ADJ_ROOM_MAC, 0) == 0 &&
         bpf_skb_adjust_room(skb, -excess, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) == 0;
}
