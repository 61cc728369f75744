/** Links: what ip says, and the picture that is kept of them without asking. */
import { afterEach, describe, expect, it } from 'vitest';
import { IpBatch } from '../../../agent/link/ipbatch.ts';
import { isOurLink } from '../../../agent/link/names.ts';
import { LinkPicture } from '../../../agent/link/picture.ts';
import { type Link, type LinkChange, parseNotice } from '../../../agent/link/steps.ts';
import { batchLine, command } from '../../../agent/link/words.ts';

const ID = '0123456789ab';
const [HOST, CONTAINER] = [`wft${ID}`, `wfc${ID}`];
const link = (name: string, more: Partial<Link> = {}): Link => ({ name, mtu: 1450, up: true, ifindex: 7, ...more });
const told = (l: Link): LinkChange => ({ name: l.name, link: l });
const gone = (name: string): LinkChange => ({ name, link: null });
const VETH = { kind: 'addVeth', host: HOST, container: CONTAINER, mtu: 1450, mac: '02:58:0a:00:00:01' } as const;

async function pictureOf(...links: Link[]): Promise<LinkPicture> {
  const picture = new LinkPicture();
  await picture.read(async () => new Map(links.map((l) => [l.name, l])));
  return picture;
}

describe('a line of ip -o monitor link', () => {
  it.each([
    [
      `3: ${HOST}@${CONTAINER}: <NO-CARRIER,BROADCAST,UP,M-DOWN> mtu 1450 qdisc noqueue state UP`,
      told(link(HOST, { ifindex: 3 })),
    ],
    [
      `12: ${HOST}@if11: <BROADCAST,MULTICAST> mtu 9000 qdisc noop`,
      told(link(HOST, { up: false, mtu: 9000, ifindex: 12 })),
    ],
    [`Deleted 2: ${CONTAINER}@NONE: <BROADCAST> mtu 1500 qdisc noop new-netnsid 0`, gone(CONTAINER)],
    ['2: eth0@if6: <BROADCAST,UP> mtu 1500 qdisc noqueue', null],
    [`4: user@tap: <UP> mtu 1450 qdisc x`, told(link('user@tap', { ifindex: 4 }))],
    [`4: user@tap@eth0: <UP> mtu 1450 qdisc x`, told(link('user@tap', { ifindex: 4 }))],
    ['    link/ether 02:58:0a:80:00:02', null],
  ])('%s', (line, expected) =>
    expect(parseNotice(line, (name) => isOurLink(name) || name === 'user@tap')).toEqual(expected),
  );
});

describe('a line of ip -batch', () => {
  it('keeps what is filled in whole', () => {
    expect(command`link set dev ${'a b'} mtu ${1450} up`).toEqual(['link', 'set', 'dev', 'a b', 'mtu', '1450', 'up']);
  });

  it.each([
    ['eth0', 'eth0'],
    ['/run/netns/a b', "'/run/netns/a b'"],
    ["it's", `"it's"`],
    ['back\\', "'back\\'"],
    ['', "''"],
    ['foo#bar', null],
    ['a\nb', null],
    [`'"`, null],
  ])('has %j as %j', (word, text) => expect(batchLine([word])).toBe(text));
});

describe('the picture of the links', () => {
  it('fits what our own steps make the kernel say', async () => {
    const picture = await pictureOf();
    picture.note(VETH);
    expect(picture.fits([told(link(HOST)), told(link(CONTAINER, { up: false }))])).toBe(true);
    expect(picture.links?.get(HOST)).toEqual(link(HOST));
    expect(picture.fits([gone(CONTAINER)])).toBe(true);
    picture.deleting([{ kind: 'delLink', name: HOST }]);
    expect(picture.fits([told(link(HOST, { up: false })), gone(CONTAINER)])).toBe(true);
    picture.deleted([{ kind: 'delLink', name: HOST }]);
    expect(picture.fits([gone(HOST), gone(CONTAINER)])).toBe(true);
    expect(picture.links?.size).toBe(0);
  });

  it.each([
    ['a link that went', gone(HOST)],
    ['another MTU', told(link(HOST, { mtu: 1400 }))],
    ['a link that was taken down', told(link(HOST, { up: false }))],
    ['a link that was made again', told(link(HOST, { ifindex: 8 }))],
    ['a link that nobody made', told(link('wftffffffffffff'))],
    ['an end without the other', told(link('wfcffffffffffff'))],
  ])('does not fit %s', async (_, change) => expect((await pictureOf(link(HOST))).fits([change])).toBe(false));

  it('leaves out what is deleted while the links are read', async () => {
    const picture = new LinkPicture();
    picture.deleting([{ kind: 'delLink', name: HOST }]);
    await picture.read(async () => {
      picture.deleted([{ kind: 'delLink', name: HOST }]);
      return new Map([HOST, CONTAINER].map((name) => [name, link(name)]));
    });
    expect(picture.links?.size).toBe(0);
  });

  it('fits nothing before it was read, or after it was forgotten', async () => {
    const picture = await pictureOf(link(HOST));
    picture.forget();
    expect(picture.fits([])).toBe(false);
  });
});

describe('ip -batch', () => {
  const ip = new IpBatch();
  afterEach(() => ip.close());

  it('answers batches in order, each with its own errors; then no more', async () => {
    const [a, b, c] = await Promise.all([
      ip.run([`link set ${HOST} up`, 'nonsense']),
      ip.run([]),
      ip.run(['link set other up']),
    ]);
    expect(a.get(0)).toMatch(/Cannot find device/);
    expect(a.get(1)).toMatch(/"nonsense" is unknown/);
    expect(b.size).toBe(0);
    expect([...c]).toEqual([[0, 'Cannot find device "other"']]);
    const names = ['help', 'dev', 'mtu', 'up', 'type', 'vf', 'link', 'name', '-h'];
    const said = await ip.run(names.map((name) => batchLine(command`link show dev ${name}`) ?? ''));
    expect([...said.keys()]).toEqual(names.map((_, i) => i));
    // A word that it does not know ends ip itself; the next batch has a new one.
    await expect(ip.run(['link nonsense'])).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect((await ip.run([])).size).toBe(0);
    ip.close();
    await expect(ip.run([])).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });
});
