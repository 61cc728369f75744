/** By which transit addresses ports of this host lead to services. */
import { expect, it } from 'vitest';
import { indexServices, NO_SERVICES } from '../../../../agent/services/members.ts';
import { publishedServices } from '../../../../agent/services/published.ts';
import type { Service } from '../../../../lib/model.ts';
import { mine, service, sourcesOf, viewOf } from './support.ts';

const published = (id: string, hostPort: number, createdAt: string): Service =>
  service(id, {
    publish: 'all',
    createdAt,
    ports: [{ name: '', protocol: 'tcp', port: 80, targetPort: 8080, hostPort }],
  });

const leading = (...services: Service[]): Map<string, readonly string[]> => {
  const index = indexServices(sourcesOf(viewOf({ services }), [mine('a', '10.1.0.2')]), NO_SERVICES);
  return new Map(publishedServices(index, ['169.254.70.1']).publications.map((p) => [p.service.id, p.to]));
};

it('a service that comes takes no transit address from one that is there', () => {
  // Both would have the same one if they were alone.
  const old = published('000000000000004e', 8000, '2026-01-01T00:00:00Z');
  const next = published('0000000000000006', 8001, '2026-01-02T00:00:00Z');
  const [alone, other] = [leading(old), leading(next)];
  expect(other.get(next.id)).toEqual(alone.get(old.id));
  const both = leading(next, old);
  expect(both.get(old.id)).toEqual(alone.get(old.id));
  expect(both.get(next.id)).not.toEqual(alone.get(old.id));
});
