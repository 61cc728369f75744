/** A fake agent as a process of its own, so that it can be stopped or killed: ADDRESS CA CERT KEY HOSTID; says "synced". */
import { readFileSync } from 'node:fs';
import { FakeAgent } from './fake-agent.ts';

const [address = '', ca = '', cert = '', key = '', id = ''] = process.argv.slice(2);
const read = (file: string): string => readFileSync(file, 'utf8');
await FakeAgent.connect({
  address,
  tls: { ca: read(ca), cert: read(cert), key: read(key) },
  host: {
    id,
    name: `process-${id.slice(-2)}`,
    vteps: [],
    datapath: 'netdev',
    versions: {},
    draining: false,
    createdAt: '',
    capabilities: [],
    underlayMtu: 1500,
    backend: 'ovs-tunnel',
    express: false,
    probes: [],
  },
});
process.stdout.write('synced\n');
