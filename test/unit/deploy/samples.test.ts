import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { agentConfig, coordinatorConfig, dockerConfig, reachableResolvers } from '../../../deploy/samples.ts';
import { parseAgentConfig, parseCoordinatorConfig } from '../../../lib/config.ts';

const read = (file: string): string => readFileSync(new URL(`../../../deploy/${file}`, import.meta.url), 'utf8');
const AGENT = read('agent.yaml');
const COORDINATOR = read('coordinator.yaml');

/** The sample with its commented defaults switched on. Prose has a blank after its "#"; a key has none, or two below another. */
const switchedOn = (text: string): string => text.replaceAll(/^#(?=( {2})?\S)/gm, '');

/** Every path of a configuration: "tls.ca". */
const paths = (value: unknown, prefix = ''): string[] =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? Object.entries(value).flatMap(([key, item]) => paths(item, `${prefix}${key}.`))
    : [prefix.slice(0, -1)];

describe('sample configuration', () => {
  it('of the agent parses, and its comments are the defaults', () => {
    const plain = parseAgentConfig(AGENT);
    expect(plain).toMatchObject({ coordinators: ['192.0.2.1:7470'], underlay: { vtep: '192.0.2.11', mtu: null } });
    expect(parseAgentConfig(switchedOn(AGENT))).toEqual({ ...plain, name: 'h1' });
  });

  it('of the agent names every key', () => {
    expect(paths(parse(switchedOn(AGENT))).toSorted()).toEqual(paths(parseAgentConfig(AGENT)).toSorted());
  });

  it('of the coordinator parses, and its comments are the defaults', () => {
    const plain = parseCoordinatorConfig(COORDINATOR);
    expect(plain).toMatchObject({ etcd: 'embedded', advertise: `${hostname()}:7470` });
    expect(parseCoordinatorConfig(switchedOn(COORDINATOR))).toEqual({ ...plain, name: 'c1', advertise: 'c1:7470' });
  });

  it('of the coordinator names every key, and its other form of etcd parses', () => {
    expect(paths(parse(switchedOn(COORDINATOR))).toSorted()).toEqual(
      paths(parseCoordinatorConfig(COORDINATOR)).toSorted(),
    );
    const other = /^# {3}etcd:\n(?:# {3,}.*\n)+/m.exec(COORDINATOR)?.[0].replaceAll(/^# {3}/gm, '') ?? '';
    expect(parseCoordinatorConfig(other).etcd).toMatchObject({ tls: { ca: '/etc/weft/tls/etcd-ca.crt' } });
  });
});

describe('what install writes', () => {
  it('is a configuration with the words of the command line', () => {
    const text = agentConfig(AGENT, ['10.0.0.1', '10.0.0.2:7000'], { vtep: '10.0.0.9' }, 'web-1');
    expect(parseAgentConfig(text)).toMatchObject({
      name: 'web-1',
      coordinators: ['10.0.0.1:7470', '10.0.0.2:7000'],
      underlay: { vtep: '10.0.0.9' },
    });
    const urls = coordinatorConfig(
      COORDINATOR,
      'http://10.0.0.1:2379,http://10.0.0.2:2379',
      undefined,
      '10.0.0.1:7470',
    );
    expect(parseCoordinatorConfig(urls)).toMatchObject({
      advertise: '10.0.0.1:7470',
      etcd: { endpoints: ['http://10.0.0.1:2379', 'http://10.0.0.2:2379'] },
    });
    expect(parseCoordinatorConfig(coordinatorConfig(COORDINATOR, 'embedded')).etcd).toBe('embedded');
  });

  it('adds live-restore and the resolver to daemon.json, and leaves the rest', () => {
    const made = (text: string | null, ...resolvers: string[]) => {
      const { text: json, ...said } = dockerConfig(text, 'f', resolvers);
      return { ...said, json: json === null ? null : (JSON.parse(json) as unknown) };
    };
    expect(made(null).json).toEqual(JSON.parse(read('daemon.json')));
    expect(made(null, '192.0.2.1', '192.0.2.2', '192.0.2.3')).toEqual({
      liveRestore: 'set',
      dns: 'set',
      json: { 'live-restore': true, dns: ['169.254.100.53', '192.0.2.1', '192.0.2.2'] },
    });
    expect(made('{"dns":["192.0.2.53"],"live-restore":false,"debug":true}', '192.0.2.1')).toEqual({
      liveRestore: 'set',
      dns: 'users',
      json: { dns: ['192.0.2.53'], 'live-restore': true, debug: true },
    });
    const whole = '{"live-restore":true,"dns":["169.254.100.53"]}';
    expect(made(whole)).toEqual({ liveRestore: 'there', dns: 'there', json: null });
    for (const text of ['[]', '{', '7'])
      expect(() => dockerConfig(text, 'f', [])).toThrow(
        expect.objectContaining({ message: 'f is not a JSON object.', hint: expect.stringContaining('by hand') }),
      );
  });

  it('takes resolvers that a container can reach', () => {
    const text =
      'search example.com\nnameserver 127.0.0.53\n nameserver 192.0.2.1\nnameserver ::1\nnameserver 2001:db8::1\nnameserver x\n';
    expect(reachableResolvers(text)).toEqual(['192.0.2.1', '2001:db8::1']);
  });
});
