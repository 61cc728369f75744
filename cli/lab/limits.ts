import { readFileSync, writeFileSync } from 'node:fs';

/**
 * Neighbour entries (arp(7), gc_thresh1…3) that the kernel keeps: one table for all its namespaces. Three hosts with ten containers
 * each that all talk to one another have 900, of 1024 by default; beyond that the kernel drops packets. Real hosts share with nobody.
 */
const NEIGHBOURS = { gc_thresh1: 8192, gc_thresh2: 32_768, gc_thresh3: 65_536 } as const;

/**
 * Bytes that a packet socket holds until Open vSwitch's userspace datapath reads them (packet(7), socket(7)): bursts of whole segments
 * are lost with the kernel's 208 KiB.
 */
const SOCKET_BUFFER = 8 * 1024 * 1024;

/** Raises what would be too low for many machines on one kernel. It stays so when the lab has gone: other labs may need it. */
export function raiseLimits(): void {
  // The largest first: the kernel takes them in any order, and others may be starting containers right now.
  for (const [name, least] of Object.entries(NEIGHBOURS).toReversed()) {
    const file = `/proc/sys/net/ipv4/neigh/default/${name}`;
    raise(file, least);
  }
  raise('/proc/sys/net/core/rmem_max', SOCKET_BUFFER);
  raise('/proc/sys/net/core/rmem_default', SOCKET_BUFFER);
}

function raise(file: string, least: number): void {
  if (Number(readFileSync(file, 'utf8')) < least) writeFileSync(file, String(least));
}
