/** Ports of the host: what Docker asks for, what is free, and the table that leads them to containers. */
import { describe, expect, it } from 'vitest';
import type { LocalEndpoint, LocalNetwork } from '../../../agent/contract.ts';
import { egressOf, joinGateway } from '../../../agent/gateway/egress.ts';
import { planForward, planForwardRemoval } from '../../../agent/gateway/forward.ts';
import { egressProblems, nftModel, renderNft } from '../../../agent/gateway/nft.ts';
import { allocatePorts, clash, type PortState, parsePortMap } from '../../../agent/gateway/ports.ts';
import { isFree, parseListening } from '../../../agent/gateway/sockets.ts';
import { Network } from '../../../gen/weft/v1/types.ts';

const binding = (more: object = {}) => ({
  Proto: 6,
  IP: '',
  Port: 80,
  HostIP: '',
  HostPort: 8080,
  HostPortEnd: 8080,
  ...more,
});
const state = (more: Partial<PortState> = {}): PortState => ({
  taken: [],
  free: () => true,
  hostIps: new Set(['192.0.2.1', '2001:db8::1']),
  families: [4],
  ephemeral: [32_768, 32_770],
  ...more,
});
const wishes = (...bindings: object[]) => parsePortMap(bindings.map(binding));

describe('what Docker asks for', () => {
  it('is read as it sends it', () => {
    expect(parsePortMap(undefined)).toEqual([]);
    expect(parsePortMap(null)).toEqual([]);
    expect(parsePortMap([binding({ Proto: 17, HostIP: '2001:DB8:0::1', HostPortEnd: 8090 })])).toEqual([
      { protocol: 'udp', port: 80, hostIp: '2001:db8::1', first: 8080, last: 8090 },
    ]);
    expect(parsePortMap([binding({ HostPort: 0, HostPortEnd: 0 })])[0]).toMatchObject({ first: 0, last: 0 });
  });

  it.each([
    ['no list', { Proto: 6 }],
    ['another protocol', [binding({ Proto: 1 })]],
    ['no port', [binding({ Port: 0 })]],
    ['too large a port', [binding({ Port: 70_000 })]],
    ['half a port', [binding({ Port: 1.5 })]],
    ['a port as text', [binding({ HostPort: '80' })]],
    ['a range backwards', [binding({ HostPortEnd: 80 })]],
    ['no address', [binding({ HostIP: 'eth0' })]],
    ['nothing', [null]],
  ])('is refused with a sentence: %s', (_, portMap) => {
    expect(() => parsePortMap(portMap)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

describe('which ports are given', () => {
  it('those asked for, in every family that the container has', () => {
    const both = state({ families: [4, 6] });
    expect(allocatePorts(wishes({}), both)).toEqual([
      { protocol: 'tcp', port: 80, hostIp: '0.0.0.0', hostPort: 8080 },
      { protocol: 'tcp', port: 80, hostIp: '::', hostPort: 8080 },
    ]);
    expect(allocatePorts(wishes({ HostIP: '192.0.2.1' }), both)).toEqual([
      { protocol: 'tcp', port: 80, hostIp: '192.0.2.1', hostPort: 8080 },
    ]);
  });

  it('the first that is free of a range, or of those that the kernel gives to whoever asks for none', () => {
    const taken = [{ protocol: 'tcp', port: 1, hostIp: '192.0.2.1', hostPort: 8080 }];
    const free: PortState['free'] = ({ hostPort }) => hostPort !== 8081;
    expect(allocatePorts(wishes({ HostPortEnd: 8083 }), state({ taken, free }))[0]).toMatchObject({ hostPort: 8082 });
    const open = { HostPort: 0, HostPortEnd: 0 };
    expect(allocatePorts(wishes(open, open, { ...open, Proto: 17 }), state()).map((p) => p.hostPort)).toEqual([
      32_768, 32_769, 32_768,
    ]);
    expect(() => allocatePorts(wishes(open, open, open, open), state())).toThrow(/32768-32770\/tcp are taken/);
  });

  it('none at all where one is taken, by an endpoint, a process or another wish', () => {
    const taken = [{ protocol: 'tcp', port: 1, hostIp: '0.0.0.0', hostPort: 8080 }];
    const refused = expect.objectContaining({ code: 'ALREADY_EXISTS', message: 'port 8080/tcp is taken on this host' });
    expect(() => allocatePorts(wishes({ HostPort: 90, HostPortEnd: 90 }, {}), state({ taken }))).toThrow(refused);
    expect(() => allocatePorts(wishes({}), state({ free: () => false }))).toThrow(refused);
    expect(() => allocatePorts(wishes({}, { Port: 81 }), state())).toThrow(refused);
    expect(allocatePorts(wishes({ Proto: 17 }), state({ taken }))).toHaveLength(1);
  });

  it('what a port leads to is said: a service by its name', () => {
    const taken = [
      { protocol: 'udp', hostIp: '0.0.0.0', hostPort: 8080, service: 'dns' },
      { protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080, service: 'shop' },
    ];
    expect(() => allocatePorts(wishes({}), state({ taken }))).toThrow(
      expect.objectContaining({
        message: 'port 8080/tcp is taken on this host: it leads to service shop',
        hint: expect.stringContaining('weft service ls'),
      }),
    );
    const range = wishes({ HostPortEnd: 8081 }, { HostPortEnd: 8081 });
    expect(() => allocatePorts(range, state({ taken }))).toThrow(
      expect.objectContaining({
        message: 'ports 8080-8081/tcp are taken on this host',
        hint: expect.stringMatching(/weft port.*weft service ls.*ss/),
      }),
    );
  });

  it('addresses that are not there are refused', () => {
    const wrong = (HostIP: string) => () => allocatePorts(wishes({ HostIP }), state());
    expect(wrong('192.0.2.9')).toThrow('this host has no address 192.0.2.9');
    expect(wrong('2001:db8::1')).toThrow('the container has no IPv6 address');
    expect(wrong('127.0.0.1')).not.toThrow();
    expect(wrong('0.0.0.0')).not.toThrow();
  });

  it('an address of the host and all of them are the same port', () => {
    const at = (hostIp: string, protocol = 'tcp') => ({ protocol, hostIp, hostPort: 80 });
    expect(clash(at('192.0.2.1'), at('0.0.0.0'))).toBe(true);
    expect(clash(at('192.0.2.1'), at('192.0.2.2'))).toBe(false);
    expect(clash(at('::'), at('0.0.0.0'))).toBe(false);
    expect(clash(at('0.0.0.0', 'udp'), at('0.0.0.0'))).toBe(false);
  });
});

describe('who listens', () => {
  const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n';
  const tcp = `${head}   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 1\n   1: 0100007F:0017 0100007F:9999 01 0:0 0:0 0 0 0 1\nbroken\n`;
  const tcp6 = `${head}   0: ${'0'.repeat(32)}:1F90 ${'0'.repeat(32)}:0000 0A 0:0 0:0 0 0 0 1\n`;
  const udp = `${head}   0: 00000000:0035 00000000:0000 07 0:0 0:0 0 0 0 1\n`;

  it('is read from the kernel’s tables', () => {
    expect(parseListening('tcp', tcp)).toEqual([{ protocol: 'tcp', any: false, family: 4, port: 22 }]);
    expect(parseListening('tcp6', tcp6)).toEqual([{ protocol: 'tcp', any: true, family: 6, port: 8080 }]);
    expect(parseListening('udp', udp)).toEqual([{ protocol: 'udp', any: true, family: 4, port: 53 }]);
  });

  it('who has every IPv6 address has IPv4 too', () => {
    const listening = [...parseListening('tcp', tcp), ...parseListening('tcp6', tcp6)];
    const free = (hostIp: string, hostPort: number) => isFree({ protocol: 'tcp', hostIp, hostPort }, listening);
    expect([free('0.0.0.0', 22), free('0.0.0.0', 8080), free('::', 8080)]).toEqual([false, false, false]);
    expect([free('::', 22), free('0.0.0.0', 80)]).toEqual([true, true]);
  });
});

describe('Docker’s chain', () => {
  const listing =
    '-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -s 192.0.2.0/24 -j DROP\n';
  const rule = (way: string) => [way, 'weft-gw', '-m', 'comment', '--comment', 'weft', '-j', 'ACCEPT'];

  it('lets pass what our own table has let pass, after what its user drops', () => {
    expect(planForward(`${listing}-A DOCKER-USER -j RETURN\n`).map((s) => s.args)).toEqual([
      ['-I', 'DOCKER-USER', '2', ...rule('-i')],
      ['-I', 'DOCKER-USER', '3', ...rule('-o')],
    ]);
    expect(planForward(listing).map((s) => s.args)).toEqual([
      ['-A', 'DOCKER-USER', ...rule('-i')],
      ['-A', 'DOCKER-USER', ...rule('-o')],
    ]);
  });

  it('is left alone where all is there, or nothing is dropped', () => {
    const there = ['-i', '-o'].map((way) => `-A DOCKER-USER ${rule(way).join(' ')}\n`).join('');
    expect(planForward(listing + there)).toEqual([]);
    expect(planForward('-P FORWARD ACCEPT\n')).toEqual([]);
    expect(planForwardRemoval(listing + there).map((s) => s.args.slice(0, 4))).toEqual([
      ['-D', 'DOCKER-USER', '-i', 'weft-gw'],
      ['-D', 'DOCKER-USER', '-o', 'weft-gw'],
    ]);
  });

  it('without it the FORWARD chain itself is told, if it drops', () => {
    expect(planForward('-P FORWARD DROP\n')[0]?.args).toEqual(['-A', 'FORWARD', ...rule('-i')]);
  });
});

describe('networks that lead out', () => {
  const network = (more: object = {}) =>
    Network.fromPartial({
      encap: 'vxlan',
      subnets: ['10.0.0.0/24', 'fd00::/64'],
      gateways: ['10.0.0.1', 'fd00::1'],
      ...more,
    });
  const ips = { ip: '10.0.0.2', ip6: 'fd00::2' };

  it('are those of the mesh that are not internal', () => {
    expect(egressOf(network())).toMatchObject({ ip: 0x0a000001, ip6: (0xfd00n << 112n) | 1n });
    expect(egressOf(network({ gateways: [] }))).toBeNull();
    for (const more of [{ internal: true }, { encap: 'vlan' }, { publishBy: 'docker' }])
      expect(egressOf(network(more))).toBeNull();
  });

  it('tell Docker their gateway, of the families that the container has', () => {
    expect(joinGateway(network(), ips)).toEqual({ gateway: '10.0.0.1', gateway6: 'fd00::1', disableDockers: true });
    expect(joinGateway(network(), { ...ips, ip6: '' })).toMatchObject({ gateway: '10.0.0.1', gateway6: '' });
    const none = { gateway: '', gateway6: '' };
    expect(joinGateway(network({ internal: true }), ips)).toEqual({ ...none, disableDockers: true });
    expect(joinGateway(network({ publishBy: 'docker' }), ips)).toEqual({ ...none, disableDockers: false });
    expect(joinGateway(network({ encap: 'vlan' }), ips)).toMatchObject({ gateway: '10.0.0.1' });
  });
});

describe('the table', () => {
  const endpoint = {
    transit: '169.254.65.2',
    external: {
      ports: [
        { protocol: 'tcp', port: 80, hostIp: '0.0.0.0', hostPort: 8080 },
        { protocol: 'tcp', port: 80, hostIp: '::', hostPort: 8080 },
        { protocol: 'udp', port: 53, hostIp: '192.0.2.1', hostPort: 53 },
      ],
    },
  } as unknown as LocalEndpoint;

  const model = (endpoints: LocalEndpoint[], egressIps: string[] = []) => {
    const network = { name: 'web', egressIps, subnets: ['10.1.0.0/24', 'fd00::/64'] };
    return nftModel(
      endpoints,
      new Map([['n1', { network } as unknown as LocalNetwork]]),
      new Set(['192.0.2.7', '2001:db8::7']),
      ['2001:db8::9', '192.0.2.9'],
    );
  };

  describe('of a network with egress addresses', () => {
    const inside = { ...endpoint, networkId: 'n1', ip: '10.1.0.2', ip6: 'fd00::2' };

    it('sends from the one that the host has, in each family', () => {
      const text = renderNft(model([inside], ['192.0.2.6', '192.0.2.7', '2001:db8::7']));
      expect(text).toContain('elements = { 169.254.65.2 : 192.0.2.7 }');
      expect(text).toContain('elements = { fd57:6566:7400::a9fe:4102 : 2001:db8::7 }');
    });

    it('is not entered with addresses of its own', () => {
      const text = renderNft(model([inside]));
      expect(text).toContain('elements = { 169.254.65.2 . 10.1.0.0/24 }');
      expect(text).toContain('elements = { fd57:6566:7400::a9fe:4102 . fd00::/64 }');
    });

    it('takes nothing for a VTEP of another host that is no address', () => {
      const said = ['192.0.2.9', '192.0.2.9', '192.0.2.8 }; flush ruleset; {', '', 'eth0', '2001:DB8::9'];
      const { vteps } = nftModel([], new Map(), new Set(), said);
      expect(vteps).toEqual(['192.0.2.9', '2001:db8::9']);
    });

    it('sends nothing where the host has none, and says so', () => {
      const { sources } = model([inside], ['192.0.2.6']);
      expect(sources).toEqual([{ of: '169.254.65.2', as: null }]);
      expect(renderNft(model([inside], ['192.0.2.6']))).toMatch(
        /set kept4 \{\n +type ipv4_addr\n +elements = \{ 169\.254\.65\.2 \}/,
      );
      const networks = new Map([
        ['n1', { network: { name: 'web', egressIps: ['192.0.2.6'] } } as unknown as LocalNetwork],
      ]);
      expect(egressProblems([inside, inside], networks, new Set(['192.0.2.7']))).toEqual([
        'containers of network web do not leave the mesh from here: the host has none of its egress addresses 192.0.2.6',
      ]);
    });
  });

  it('leads ports to transit addresses of their family', () => {
    const text = renderNft(model([endpoint, {} as LocalEndpoint]));
    expect(text).toContain('elements = { tcp . 8080 : 169.254.65.2 . 80 }');
    expect(text).toContain('elements = { tcp . 8080 : fd57:6566:7400::a9fe:4102 . 80 }');
    expect(text).toContain('elements = { 192.0.2.1 . udp . 53 : 169.254.65.2 . 53 }');
  });

  it('is the same whatever order they come in', () => {
    const other = {
      ...endpoint,
      transit: '169.254.65.3',
      external: { ports: [{ ...endpoint.external!.ports[0]!, hostPort: 9 }] },
    };
    expect(renderNft(model([endpoint, other]))).toBe(renderNft(model([other, endpoint])));
  });

  it('names no device that nft would take for something else', () => {
    const tap = (link: string) => ({ ...endpoint, attached: { kind: 'tap', link } }) as unknown as LocalEndpoint;
    expect(model([tap('tap0'), tap('t"; drop'), tap('tap*')]).devices).toEqual(['tap0']);
  });

  it('as a whole', () => {
    expect(
      renderNft({ publications: [], sources: [], inside: [], vteps: ['192.0.2.9'], devices: ['tap0'] }),
    ).toMatchSnapshot();
  });
});
