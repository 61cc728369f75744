import { describe, expect, test } from 'vitest';
import { allowedClash } from '../../../coordinator/alloc/allowed.ts';
import { peerClash } from '../../../coordinator/alloc/externals.ts';
import {
  checkReservation,
  holderOf,
  mustAgree,
  reservationClash,
  withMac,
} from '../../../coordinator/alloc/reservations.ts';
import { nameConflict, nameConflicts } from '../../../coordinator/reservation-conflicts.ts';
import { ExternalPeer, Reservation } from '../../../gen/weft/v1/types.ts';
import { FakeState } from '../../harness/fake-state.ts';
import { aHost, aNetworkRecord, anEndpoint } from './samples.ts';

const N = 'n1';
const BOTH = aNetworkRecord(N, {
  subnets: ['10.0.0.0/24', 'fd00::/64'],
  gateways: ['10.0.0.1', 'fd00::1'],
  auxAddresses: { router: '10.0.0.50' },
});
const asked = (fields: Partial<Reservation>): Reservation => Reservation.fromPartial({ name: 'db', ...fields });

describe('what can be a reservation', () => {
  test('is made canonical', () => {
    const labels = { tier: 'db' };
    const ips = ['fd00:0::0a', '10.0.0.7'];
    expect(checkReservation(BOTH, asked({ ips, mac: '02:AA:00:00:00:01', labels }))).toEqual({
      networkId: N,
      name: 'db',
      ips: ['10.0.0.7', 'fd00::a'],
      mac: '02:aa:00:00:00:01',
      labels,
    });
    // The MAC that the address would have anyway.
    expect(checkReservation(BOTH, asked({ ips: ['10.0.0.7'], mac: '02:58:0a:00:00:07' })).mac).toBe(
      '02:58:0a:00:00:07',
    );
  });

  test.each<[Partial<Reservation>, RegExp]>([
    [{ name: '', ips: ['10.0.0.7'] }, /cannot be the name/],
    [{ name: 'a/b', ips: ['10.0.0.7'] }, /cannot be the name/],
    [{ name: '-a', ips: ['10.0.0.7'] }, /cannot be the name/],
    [{ name: 'a'.repeat(64), ips: ['10.0.0.7'] }, /cannot be the name/],
    [{ ips: [] }, /needs an address/],
    [{ ips: ['10.0.0.7', '10.0.0.8'] }, /one address of each family/],
    [{ ips: ['fd00::7', 'fd00::8'] }, /one address of each family/],
    [{ ips: ['10.0.0.7', 'fd00::8', 'fd00::9'] }, /one address of each family/],
    [{ ips: ['10.0.1.7'] }, /is not in the subnet 10\.0\.0\.0\/24/],
    [{ ips: ['fd01::7'] }, /is not in the subnet fd00::\/64/],
    [{ ips: ['10.0.0.0'] }, /is the network address/],
    [{ ips: ['10.0.0.255'] }, /is the broadcast address/],
    [{ ips: ['fd00::'] }, /is the network address/],
    [{ ips: ['10.0.0.1'] }, /is the gateway's/],
    [{ ips: ['fd00::1'] }, /is the gateway's/],
    [{ ips: ['10.0.0.50'] }, /auxiliary address/],
    [{ ips: ['10.0.0.07'] }, /is not an IPv4 address/],
    [{ ips: ['10.0.0.7/24'] }, /is not an IPv4 address/],
    [{ ips: [''] }, /is not an IPv4 address/],
    [{ ips: ['10.0.0.7'], mac: '01:00:5e:00:00:01' }, /multicast MAC/],
    [{ ips: ['10.0.0.7'], mac: '00:00:00:00:00:00' }, /is zero/],
    [{ ips: ['10.0.0.7'], mac: 'nonsense' }, /is not a MAC/],
    [{ ips: ['10.0.0.7'], mac: '02:58:0a:00:00:08' }, /of the form that the mesh gives/],
    [{ ips: ['fd00::7'], mac: '02:59:00:00:00:07' }, /of the form that the mesh gives/],
  ])('%j cannot', (fields, message) => {
    expect(() => checkReservation(BOTH, asked(fields))).toThrow(message);
    expect(() => checkReservation(BOTH, asked(fields))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

function world(): FakeState {
  const state = new FakeState();
  const reserved = { id: '1', networkId: N, name: 'db', ips: ['10.0.0.9', 'fd00::9'], mac: '02:aa:00:00:00:09' };
  const peer = { id: 'p', name: 'router', networkId: N, vtep: '192.0.2.9' };
  const claim = { networkId: N, hostId: 'h1', grantorHostId: 'h2', reason: '', revision: 1n };
  const allowed = [{ ip: '10.0.0.40', mac: '02:aa:00:00:00:40' }];
  state.commit(
    { network: N, after: BOTH },
    { host: 'h1', after: aHost('h1') },
    { reservation: 'db', of: N, after: Reservation.fromPartial(reserved) },
    { endpoint: 'e1', of: N, after: anEndpoint(N, 'h1', 1, '10.0.0.20', { mac: '02:aa:00:00:00:20', givenMac: true }) },
    {
      external: 'p',
      of: N,
      after: ExternalPeer.fromPartial({ ...peer, macs: [{ mac: '02:00:00:00:00:01', ip: '10.0.0.30' }] }),
    },
    {
      settings: 'e1',
      of: N,
      after: { endpointId: 'e1', networkId: N, allowed, draining: false, updatedAt: '', revision: 1n },
    },
    { address: '10.0.0.60', of: N, after: { ...claim, address: '10.0.0.60', state: 'claimed' } },
    { address: '10.0.0.61', of: N, after: { ...claim, address: '10.0.0.61', state: 'refused' } },
  );
  return state;
}

describe('what a reservation must not take from others', () => {
  const clash = (fields: Partial<Reservation>) =>
    reservationClash(world(), BOTH, checkReservation(BOTH, asked({ name: 'new', ...fields })));

  test.each<[Partial<Reservation>, RegExp]>([
    [{ name: 'db', ips: ['10.0.0.7'] }, /has a reservation named "db"/],
    [{ ips: ['10.0.0.9'] }, /is reserved as "db"/],
    [{ ips: ['10.0.0.7', 'fd00::9'] }, /fd00::9 .* is reserved as "db"/],
    [{ ips: ['10.0.0.20'] }, /in use by container c1 on host h1/],
    [{ ips: ['10.0.0.30'] }, /behind an external peer/],
    [{ ips: ['10.0.0.40'] }, /allowed address/],
    [{ ips: ['10.0.0.60'] }, /being claimed by host h1/],
    [{ ips: ['10.0.0.7'], mac: '02:aa:00:00:00:09' }, /is reserved as "db"/],
    [{ ips: ['10.0.0.7'], mac: '02:aa:00:00:00:20' }, /in use by container c1/],
    [{ ips: ['10.0.0.7'], mac: '02:00:00:00:00:01' }, /behind peer router/],
    [{ ips: ['10.0.0.7'], mac: '02:aa:00:00:00:40' }, /is one that .* may send from/],
  ])('%j', (fields, message) => {
    expect(clash(fields)).toMatchObject({ code: 'ALREADY_EXISTS', message: expect.stringMatching(message) });
  });

  test('the rest is free', () => {
    expect(clash({ ips: ['10.0.0.7', 'fd00::7'], mac: '02:aa:00:00:00:07' })).toBe(null);
    expect(clash({ ips: ['10.0.0.61'] })).toBe(null);
  });

  test('a container of that name keeps the address, and its MAC', () => {
    const state = world();
    const wanted = checkReservation(BOTH, asked({ name: 'c1', ips: ['10.0.0.20'] }));
    expect(reservationClash(state, BOTH, wanted)).toBe(null);
    expect(withMac(state, wanted).mac).toBe('02:aa:00:00:00:20');
    expect(reservationClash(state, BOTH, { ...wanted, mac: '02:aa:00:00:00:20' })).toBe(null);
    expect(reservationClash(state, BOTH, { ...wanted, mac: '02:aa:00:00:00:21' })).toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('keeps it while it runs'),
    });
  });

  test('who must agree: who holds it, else who has the block', () => {
    const held = { networkId: N, address: '10.0.0.5', hostId: 'h3', grantorHostId: '', reason: '', revision: 1n };
    expect(mustAgree(undefined, undefined)).toBe(null);
    expect(mustAgree(undefined, 'h1')).toBe('h1');
    expect(mustAgree({ ...held, state: 'held' }, 'h1')).toBe('h3');
    expect(mustAgree({ ...held, state: 'refused' }, 'h1')).toBe('h1');
  });
});

test('others do not take what is reserved', () => {
  const state = world();
  const endpoint = state.endpoints.get(N)?.get('e1');
  const peer = (macs: { mac: string; ip: string }[]) =>
    ExternalPeer.fromPartial({ id: 'q', name: 'q', networkId: N, vtep: '192.0.2.10', macs });
  expect(peerClash(state, BOTH, peer([{ mac: '02:00:00:00:00:02', ip: '10.0.0.9' }]))?.message).toContain('reserved');
  expect(peerClash(state, BOTH, peer([{ mac: '02:aa:00:00:00:09', ip: '' }]))?.message).toContain('reserved');
  for (const one of [
    { ip: '10.0.0.9', mac: '' },
    { ip: '', mac: '02:aa:00:00:00:09' },
  ])
    expect(allowedClash(state, BOTH, endpoint!, one)?.message).toContain('is reserved as "db"');
});

test('an endpoint of the name and with another address is named', () => {
  const state = world();
  const db = (n: number, ips: string[], name = 'db') =>
    anEndpoint(N, 'h1', n, ips[0] ?? '', { ips, container: { id: `${n}`, name } });
  expect(nameConflict(state, db(2, ['10.0.0.9', 'fd00::9']))).toBe(null);
  expect(nameConflict(state, db(2, ['10.0.0.77'], 'web'))).toBe(null);
  expect(nameConflict(state, { ...db(2, ['10.0.0.77']), container: undefined })).toBe(null);
  expect(nameConflict(state, db(2, ['10.0.0.9', 'fd00::7']))).toBe(
    'container db has 10.0.0.9 and fd00::7, and fd00::9 is reserved for that name: start it with --ip6 fd00::9',
  );
  state.commit({ endpoint: 'e2', of: N, after: db(2, ['10.0.0.77', 'fd00::77']) });
  expect(nameConflicts(state)).toEqual([
    {
      host: 'h1',
      network: 'name-n1',
      message:
        'container db has 10.0.0.77 and fd00::77, and 10.0.0.9 and fd00::9 are reserved for that name: start it with --ip 10.0.0.9 --ip6 fd00::9',
    },
  ]);
  const reservation = state.reservations.get(N)!.get('db')!;
  expect(holderOf(state, reservation)).toBe(undefined);
  state.commit({ endpoint: 'e3', of: N, after: db(3, ['10.0.0.9'], 'other') });
  expect(holderOf(state, reservation)?.id).toBe('e3');
});
