/** Rates where the kernel's Open vSwitch forwards: what an endpoint sends waits on an ifb beside its link. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { audit } from '../harness/drift.ts';
import { HOSTS } from '../harness/kernel-box.ts';
import { addressOf, clean, on, onOk, sleeper, until, weftJson, weftOk } from '../harness/lab.ts';
import { achieved, listen } from '../harness/rates.ts';

const NET = 'kt-rates';
const FROM = { host: 'h1', container: 'kt-paced' };
const BITS = 20e6;
let server = '';
let id = '';

beforeAll(async () => {
  await weftOk('network', 'create', NET);
  await weftOk('wait');
  await Promise.all([sleeper('h1', 'kt-paced', NET), sleeper('h2', 'kt-other', NET, '--label', 'role=kt-other')]);
  server = await addressOf('h2', 'kt-other', NET);
  await listen({ host: 'h2', container: 'kt-other' });
  await until('both are known', async () =>
    (await weftJson<{ state: string }[]>('endpoint', 'ls')).every((e) => e.state === 'known'),
  );
  ({ id } = await weftJson<{ id: string }>('endpoint', 'inspect', 'kt-paced'));
});
afterAll(() => clean(HOSTS));

/** Of packet filters a guest may have its own. */
const drifted = async (): Promise<unknown[]> =>
  (await audit('--no-heal')).hosts
    .flatMap((h) => h.drift)
    .filter((d) => ['link', 'queue', 'flow', 'port'].includes(d.kind));
const filters = (): Promise<string> => onOk('h1', 'tc', 'filter', 'show', 'dev', `wft${id.slice(0, 12)}`, 'ingress');

it.each(['sent', 'received'] as const)('holds what is %s', async (way) => {
  await weftOk('endpoint', 'set', 'kt-paced', '--rate', '20mbit');
  expect(await filters()).toContain(`Redirect to device wfi${id.slice(0, 12)}`);
  const ratio = (await achieved(FROM, server, { protocol: 'tcp', way, seconds: 4, offered: 0 })) / BITS;
  expect(ratio).toBeGreaterThan(0.8);
  expect(ratio).toBeLessThan(1.08);
});

it('a container with a rate reaches virtual addresses; the program that translates stays when the rate goes', async () => {
  const programs = (): Promise<string> =>
    onOk('h1', 'tc', 'filter', 'show', 'dev', `wft${id.slice(0, 12)}`, 'ingress', 'pref', '1');
  await weftOk('endpoint', 'set', 'kt-paced', '--rate', '20mbit');
  const service = ['--network', NET, '--port', '80:5201/tcp', '--selector', 'role=kt-other', '--health', 'none'];
  await weftOk('service', 'create', 'kt-vip', ...service);
  await weftOk('wait');
  const { ips } = await weftJson<{ ips: string[] }>('service', 'inspect', 'kt-vip', '--network', NET);
  const connects = async (): Promise<boolean> =>
    (await on('h1', 'docker', 'exec', 'kt-paced', 'nc', '-z', '-w', '3', ips[0] ?? '', '80')).code === 0;
  await until('it is reached', connects, 60_000);
  expect(await programs()).toContain('service_out');
  expect(await filters()).toContain(`Redirect to device wfi${id.slice(0, 12)}`);
  expect(await drifted()).toEqual([]);
  await weftOk('endpoint', 'set', 'kt-paced', '--rate', 'none');
  expect(await filters()).not.toContain('Redirect');
  expect(await programs()).toContain('service_out');
  expect(await connects()).toBe(true);
  await weftOk('endpoint', 'set', 'kt-paced', '--rate', '20mbit');
  expect(await connects()).toBe(true);
  expect(await drifted()).toEqual([]);
  await weftOk('service', 'rm', 'kt-vip', '--network', NET);
  await weftOk('wait');
  expect(await programs()).not.toContain('service_out');
});

it('what is taken away by hand is drift, and healed; without a rate nothing is left', async () => {
  await onOk('h1', 'tc', 'qdisc', 'del', 'dev', `wft${id.slice(0, 12)}`, 'clsact');
  await until('it leads there again', async () => (await filters()).includes('Redirect to device wfi'));
  await onOk('h1', 'ip', 'link', 'del', `wfi${id.slice(0, 12)}`);
  await until('it is there again', async () => (await filters()).includes(`Redirect to device wfi${id.slice(0, 12)}`));
  expect(await drifted()).toEqual([]);
  await weftOk('endpoint', 'set', 'kt-paced', '--rate', 'none');
  expect(await filters()).toBe('');
  expect(await onOk('h1', 'ip', '-br', 'link')).not.toContain('wfi');
  expect(await onOk('h1', 'tc', 'qdisc', 'show')).not.toContain('57ef:');
  expect(await drifted()).toEqual([]);
});
