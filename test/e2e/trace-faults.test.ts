/** Faults made by other people's tools on a host that does not heal: weft trace ends at the very flow, entry, program or rule. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configure, settled } from '../harness/drift.ts';
import { bpf, ofctl } from '../harness/drift-cases.ts';
import { onOk, until, weft, weftJson } from '../harness/lab.ts';
import { HOSTS, setUp, tearDown, trace } from '../harness/trace-lab.ts';

beforeAll(() => setUp(21));
afterAll(tearDown);

describe('a fault made by hand, with heal: false', () => {
  beforeAll(async () => {
    await configure('h1', { heal: false });
    await settled(HOSTS);
  });
  afterAll(async () => {
    await configure('h1', { heal: true });
    await settled(HOSTS);
    await until('healed', async () => (await weft('audit', '--json', '--no-heal')).code === 0, 60_000);
  });

  it('a flow fewer: the trace ends in its table', async () => {
    await ofctl('del-flows', 'br-weft', 'table=28,ip,dl_dst=02:58:0a:16:00:02');
    await ofctl('del-flows', 'br-weft', 'table=28,dl_dst=02:58:0a:16:00:02');
    const t = await trace('db-1', 'app-1', '80/tcp');
    expect(t).toMatchObject({ verdict: 'dropped', host: 'h1' });
    expect(t.hops.at(-1)).toMatchObject({ host: 'h1', engine: 'openvswitch', stage: 'l2' });
  });

  it('a flow more, of somebody else: it is named', async () => {
    await ofctl('add-flow', 'br-weft', 'table=4,priority=7777,ip,actions=drop');
    const t = await trace('app-1', 'db-1', '9042/tcp');
    expect(t).toMatchObject({ verdict: 'dropped', host: 'h1' });
    expect(t.hops.at(-1)?.what).toContain('a flow that is not Weft’s');
    await ofctl('--strict', 'del-flows', 'br-weft', 'table=4,priority=7777,ip');
  });

  it('a wrong entry in a map: somebody else gets it', async () => {
    const fdb = new Map((await bpf('dump fdb')) as [string, string][]);
    const entry = (mac: string): [string, string] =>
      [...fdb].find(([key]) => key.includes(mac.replaceAll(':', ''))) ?? ['', ''];
    const [web2, right] = entry('02:58:0a:15:00:03');
    const [, web1] = entry('02:58:0a:15:00:02');
    await bpf('batch 1', `u fdb ${web2} ${web1}`);
    const t = await trace('web-3', 'web-2', '80/tcp');
    expect(t).toMatchObject({ verdict: 'misdelivered', host: 'h1', code: 1 });
    expect(t.reason).toBe('web-1 on h1 gets it, which is not h1/web-2');
    expect(t.hops.at(-1)).toMatchObject({ host: 'h1', engine: 'express', stage: 'fdb' });
    await bpf('batch 1', `d fdb ${web2}`);
    expect(
      (await trace('web-3', 'web-2', '80/tcp')).hops.some((h) => h.host === 'h1' && h.engine === 'openvswitch'),
    ).toBe(true);
    await bpf('batch 1', `u fdb ${web2} ${right}`);
    expect(await trace('web-3', 'web-2', '80/tcp')).toMatchObject({ verdict: 'delivered' });
  });

  it('no program on a link', async () => {
    const [e] = await weftJson<{ id: string; name: string }[]>('endpoint', 'ls', '--host', 'h1', '--network', 'inside');
    const link = `wft${e!.id.slice(0, 12)}`;
    await onOk('h1', 'tc', 'filter', 'del', 'dev', link, 'ingress');
    const t = await trace('in-1', '10.24.0.9', '80/tcp');
    expect(t.verdict).toBe('dropped');
    expect((await trace('in-1', '169.254.100.53', '53/udp')).hops.at(-1)?.what).toContain(
      `no program of Weft’s is on its link ${link}`,
    );
  });

  it('a rule of the packet filter', async () => {
    await onOk('h1', 'nft', 'insert', 'rule', 'inet', 'weft', 'forward', 'tcp', 'dport', '443', 'drop');
    const t = await trace('web-1', '198.51.100.7', '443/tcp');
    expect(t).toMatchObject({ verdict: 'dropped', host: 'h1' });
    expect(t.hops.at(-1)).toMatchObject({ engine: 'nft', stage: 'forward' });
    expect(t.reason).toContain('tcp dport 443 drop');
  });
});
