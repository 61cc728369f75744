/** What `weft policy explain` says of random meshes is what the reference evaluator says. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Service } from '../../gen/weft/v1/types.ts';
import { familyOfText } from '../../lib/addr.ts';
import { type End, judge, type PolicyWorld, verdictOf } from '../../lib/policy-verdict.ts';
import { type Mesh, type MeshEndpoint, mesh, packet } from '../harness/policy-mesh.ts';
import { judged, passes, stagedOf } from '../reference/policy.ts';

function worldOf(m: Mesh, id: string): PolicyWorld {
  const { shut, subnets } = m.networks.get(id)!;
  const services = [...m.services]
    .filter(([key]) => key.startsWith(`${id}/`))
    .map(([key, selector]) => Service.fromPartial({ name: key.slice(id.length + 1), selector }));
  const networks = new Map([...m.networks].map(([of, network]) => [of, { subnets: [...network.subnets] }]));
  return {
    policies: m.policies,
    services,
    network: { id, subnets: [...subnets], policyDefault: shut ? 'drop' : '' },
    networks,
  };
}

const endOf = (e: MeshEndpoint, ip: string): End => ({ ip, endpoint: { networkId: e.network, labels: e.labels } });

test('every pair of endpoints of a network, in each family', () => {
  let [allowed, all, staged] = [0, 0, 0];
  fc.assert(
    fc.property(mesh, fc.array(packet, { minLength: 3, maxLength: 3 }), (m, packets) => {
      for (const source of m.endpoints)
        for (const destination of m.endpoints) {
          if (source === destination || source.network !== destination.network) continue;
          const world = worldOf(m, source.network);
          for (const from of source.ips)
            for (const to of destination.ips.filter((ip) => familyOfText(ip) === familyOfText(from)))
              for (const { protocol, port, type, code } of packets) {
                const first = { protocol, port, icmpType: type, icmpCode: code };
                const [a, b] = [endOf(source, from), endOf(destination, to)];
                const [egress, ingress] = [judge(world, 'egress', a, b, first), judge(world, 'ingress', b, a, first)];
                const verdict = verdictOf(egress, ingress);
                const sides = [
                  [egress, 'egress', source, to],
                  [ingress, 'ingress', destination, from],
                ] as const;
                for (const [said, direction, self, other] of sides) {
                  const p = { protocol, port, type, code };
                  expect(said.action).toBe(judged(m, direction, self, other, p));
                  const would = stagedOf(m, direction, self, other, p);
                  expect(said.staged?.action).toBe(would?.action);
                  if (would === null) continue;
                  expect(would.rules).toContain(`${said.staged?.policy?.name} ${said.staged?.rule}`);
                  staged++;
                }
                const wanted = passes(m, [source, from], [destination, to], { protocol, port, type, code });
                expect(verdict === 'allow').toBe(wanted);
                all++;
                if (wanted) allowed++;
              }
        }
    }),
    { numRuns: 120 },
  );
  // Neither all nor nothing.
  expect(all).toBeGreaterThan(1000);
  expect(allowed / all).toBeGreaterThan(0.1);
  expect(allowed / all).toBeLessThan(0.9);
  expect(staged / all).toBeGreaterThan(0.02);
}, 120_000);
