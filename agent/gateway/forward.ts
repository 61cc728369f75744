/**
 * Docker lets nothing be forwarded that it does not know: its FORWARD chain drops, and no table of ours can undo that. It leaves a chain
 * for such rules, DOCKER-USER, and never empties it (docs.docker.com, "Packet filtering and firewalls"). Pure.
 */
import { GATEWAY } from '../link/names.ts';

const USERS = 'DOCKER-USER';
const FORWARD = 'FORWARD';
const COMMENT = 'weft';
/** Our own table has judged them before. */
const RULES: readonly (readonly string[])[] = ['-i', '-o'].map((direction) => [
  direction,
  GATEWAY,
  '-m',
  'comment',
  '--comment',
  COMMENT,
  '-j',
  'ACCEPT',
]);

export interface ForwardStep {
  readonly args: readonly string[];
}

/**
 * @param listing `iptables -S`
 * @returns what iptables is to be told, in order; nothing where Docker drops nothing
 */
export function planForward(listing: string): ForwardStep[] {
  const lines = listing.split('\n').map((line) => line.trim());
  const there = (chain: string, rule: readonly string[]): boolean =>
    lines.some((line) => line.replaceAll('"', '') === ['-A', chain, ...rule].join(' '));
  const chain = lines.includes(`-N ${USERS}`) ? USERS : lines.includes(`-P ${FORWARD} DROP`) ? FORWARD : null;
  if (chain === null) return [];
  const rules = lines.filter((line) => line.startsWith(`-A ${chain} `));
  // A user's own rules come before: what they drop stays dropped.
  const end = rules.indexOf(`-A ${chain} -j RETURN`);
  const missing = RULES.filter((rule) => !there(chain, rule));
  return missing.map((rule, i) =>
    end === -1 ? { args: ['-A', chain, ...rule] } : { args: ['-I', chain, String(end + 1 + i), ...rule] },
  );
}

/** What takes our rules away again, from whatever chain. @param listing `iptables -S` */
export function planForwardRemoval(listing: string): ForwardStep[] {
  return listing.split('\n').flatMap((line) => {
    const words = line.trim().replaceAll('"', '').split(' ');
    return words[0] === '-A' && RULES.some((rule) => rule.join(' ') === words.slice(2).join(' '))
      ? [{ args: ['-D', ...words.slice(1)] }]
      : [];
  });
}
