import { expect, test } from 'vitest';
import { Counter, MetricsServer, makeRegistry } from '../../../lib/metrics.ts';

test('serves metrics, health and readiness', async () => {
  const registry = makeRegistry('agent', '1.2.3');
  const drift = new Counter({ name: 'weft_drift_total', help: 'Drift.', labelNames: ['kind'], registers: [registry] });
  drift.inc({ kind: 'flow' });
  let ready: string | null = 'no session';
  await using server = new MetricsServer({ listen: '127.0.0.1:0', registry, ready: () => ready });
  const port = await server.start();
  const get = async (path: string): Promise<{ status: number; text: string }> => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, text: await response.text() };
  };
  expect((await get('/metrics')).text).toContain('weft_drift_total{kind="flow",component="agent"} 1');
  expect((await get('/metrics')).text).toContain('weft_build_info{version="1.2.3",component="agent"} 1');
  expect(await get('/healthz')).toEqual({ status: 200, text: 'ok\n' });
  expect(await get('/readyz')).toEqual({ status: 503, text: 'no session\n' });
  ready = null;
  expect((await get('/readyz?x')).status).toBe(200);
  expect((await get('/')).status).toBe(404);
  const second = new MetricsServer({ listen: `127.0.0.1:${port}`, registry, ready: () => null });
  await expect(second.start()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await second.close();
});
