/** `--route CIDR via IP[,IP…]`, as words or as one. Pure. */
import type { Route } from '../gen/weft/v1/types.ts';
import { UsageError } from './usage.ts';
import { list, quote } from './values.ts';

/** @param words of all flags of that name, one after the other. @throws UsageError */
export function routesOf(flag: string, words: readonly string[]): Route[] {
  const all = words.flatMap((word) => word.trim().split(/\s+/)).filter((word) => word !== '');
  const routes: Route[] = [];
  for (let i = 0; i < all.length; i += 3) {
    const [cidr = '', via, hops = ''] = all.slice(i, i + 3);
    if (via !== 'via' || !cidr.includes('/') || hops === '')
      throw new UsageError(
        `${flag} takes CIDR via IP[,IP…], not ${quote(all.slice(i, i + 3).join(' '))}.`,
        `like ${flag} 192.168.0.0/16 via 10.128.0.9; the router’s name goes before it`,
      );
    routes.push({ cidr, via: list(hops) });
  }
  return routes;
}
