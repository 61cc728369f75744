/** Frames from one container to another, marked. */
import { arpPacket, ethernet, ipv4 } from './frames.ts';
import type { Box } from './wire.ts';

/** Fills a short frame. */
export const pad = (mark: string): string => mark + '00'.repeat(24);
export const ip = (from: Box, to: Box, mark: string, more: Parameters<typeof ipv4>[2] = {}): string =>
  ipv4(from.ip, to.ip, { size: 64, mark, ...more });
export const sent = (dst: string, src: string, payload: string): string => ethernet(dst, src, 0x0800, payload);
export const arped = (dst: string, src: string, mark: string, packet: Parameters<typeof arpPacket>[0]): string =>
  ethernet(dst, src, 0x0806, arpPacket(packet) + pad(mark));
