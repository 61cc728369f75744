/** Ports of a host that lead to services. */
import { describe, expect, it } from 'vitest';
import { portKey, servicePorts } from '../../../../agent/gateway/service-ports.ts';
import { indexServices, NO_SERVICES, type ServiceSources } from '../../../../agent/services/members.ts';
import { NOTHING_PUBLISHED, publishedServices } from '../../../../agent/services/published.ts';
import type { Service } from '../../../../lib/model.ts';
import { mine, N, service, sourcesOf, theirs, viewOf } from './support.ts';

const port = (hostPort: number) => ({ name: '', protocol: 'tcp', port: 80, targetPort: 8080, hostPort });
const published = (services: readonly Service[], transits: readonly string[] = []) => {
  const view = viewOf({ services, theirs: [theirs('b', '10.1.0.20')] });
  return publishedServices(indexServices(sourcesOf(view, [mine('a', '10.1.0.2')]), NO_SERVICES), transits);
};

describe('a published service', () => {
  it('is led to whoever is behind it, by a transit address of its own', () => {
    const { publications, models } = published([service('s', { publish: 'all', ports: [port(8200)] }), service('t')]);
    expect(publications).toMatchObject([{ networkId: N, protocol: 'tcp', hostPort: 8200, port: 80 }]);
    const [model] = models.get(N) ?? [];
    expect(model?.backends.map((b) => b.port)).toEqual([8080, 8080]);
    expect(publications[0]?.to).toHaveLength(1);
    expect(published([service('t')])).toBe(NOTHING_PUBLISHED);
  });

  it('is led to by hosts with a container of it only, if it says so', () => {
    const local = (more: Partial<Service>) =>
      published([service('s', { publish: 'local', ports: [port(80)], ...more })]);
    expect(local({}).models.get(N)?.[0]?.backends).toHaveLength(1);
    expect(local({ selector: { role: 'db' } }).publications).toEqual([]);
  });

  it('is led to by hosts without a container of its network', () => {
    const services = [
      service('s', { publish: 'all', ports: [port(8200)] }),
      service('t', { publish: 'local', ports: [port(8300)] }),
      service('u'),
    ];
    const of = (published: boolean, more: Partial<ServiceSources> = {}) => {
      const view = viewOf({ services, theirs: [theirs('b', '10.1.0.20')], published });
      return indexServices({ ...sourcesOf(view, []), ...more }, NO_SERVICES);
    };
    const index = of(true);
    // Nobody here has to do with the others.
    expect([...(index.get(N)?.resolved.keys() ?? [])].map((s) => s.id)).toEqual(['s']);
    const { publications, models } = publishedServices(index, []);
    expect(publications).toMatchObject([{ networkId: N, hostPort: 8200, port: 80 }]);
    expect(models.get(N)?.[0]?.backends).toHaveLength(1);
    for (const other of [of(false), of(true, { leads: () => false }), of(true, { networks: new Map() })])
      expect(other).toBe(NO_SERVICES);
  });

  it('has its transit address whatever else is there', () => {
    const s = service('s', { publish: 'all', ports: [port(8200)] });
    const t = service('t', { publish: 'all', ports: [port(8300)] });
    const toOf = (services: Service[], taken: readonly string[] = []) =>
      published(services, taken).publications.find((p) => p.service.id === 's')?.to;
    const alone = toOf([s]);
    expect(toOf([t, s], ['169.254.70.1'])).toEqual(alone);
    expect(toOf([s], alone)).not.toEqual(alone);
  });

  it('takes no transit address from one that is there', () => {
    // Both would have the same one if they were alone.
    const make = (id: string, hostPort: number, createdAt: string) =>
      service(id, { publish: 'all', ports: [port(hostPort)], createdAt });
    const old = make('000000000000004e', 8200, '2026-01-01T00:00:00Z');
    const next = make('0000000000000006', 8300, '2026-01-02T00:00:00Z');
    const leads = (...services: Service[]) =>
      new Map(published(services).publications.map((p) => [p.service.id, p.to]));
    const alone = leads(old).get(old.id);
    expect(leads(next).get(next.id)).toEqual(alone);
    const both = leads(next, old);
    expect(both.get(old.id)).toEqual(alone);
    expect(both.get(next.id)).not.toEqual(alone);
  });

  it('comes after those that were there before it', () => {
    const early = service('z', { publish: 'all', ports: [port(8200)], createdAt: '2026-01-01T00:00:00Z' });
    const late = service('a', { publish: 'all', ports: [port(8200)], createdAt: '2026-01-02T00:00:00Z' });
    expect(published([late, early]).publications.map((p) => p.service.id)).toEqual(['z', 'a']);
  });
});

describe('a port of the host', () => {
  const wanted = (name: string, hostPort: number) =>
    ({
      networkId: N,
      service: { id: name, name },
      protocol: 'tcp',
      hostPort,
      port: 80,
      to: ['169.254.120.9', 'fd57::9'],
    }) as const;
  const nobody = { containers: [], free: () => true, held: new Set<string>() };

  it('leads to the service in each family', () => {
    expect(servicePorts([wanted('s', 8200)], nobody)).toEqual({
      publications: [
        { protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8200, to: '169.254.120.9', port: 80, service: 's' },
        { protocol: 'tcp', hostIp: '::', hostPort: 8200, to: 'fd57::9', port: 80, service: 's' },
      ],
      problems: [],
    });
  });

  it.each([
    ['a container', { ...nobody, containers: [{ protocol: 'tcp', hostIp: '192.0.2.1', hostPort: 8200, port: 80 }] }],
    ['a process', { ...nobody, free: () => false }],
  ])('stays with %s that has it', (who, host) => {
    const { publications, problems } = servicePorts([wanted('s', 8200)], host);
    expect(publications).toEqual([]);
    expect(problems).toEqual([`port 8200/tcp of this host does not lead to service s: ${who} has it`]);
  });

  it('stays with the service that has it when a process listens there later, and with the first of two', () => {
    const [first] = servicePorts([wanted('s', 8200)], nobody).publications;
    const held = new Set([portKey(first!), 'tcp :: 8200']);
    expect(servicePorts([wanted('s', 8200)], { ...nobody, free: () => false, held }).problems).toEqual([]);
    const { publications, problems } = servicePorts([wanted('s', 8200), wanted('t', 8200)], nobody);
    expect(publications).toHaveLength(2);
    expect(problems).toEqual(['port 8200/tcp of this host does not lead to service t: another service has it']);
  });
});
