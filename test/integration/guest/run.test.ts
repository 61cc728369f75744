/** A guest passes on what its command says and how it ends, and nothing of it stays. Needs the package of npm run test:kernel. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { which } from '../../../cli/lab/packages.ts';
import { runInGuest } from '../../../scripts/guest/run.ts';

const shares = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith(`weft-guest-${process.pid}-`));

describe.skipIf(which('linux.uml') === null)('a guest', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'weft-test-'));
  });
  afterEach(() => {
    expect(shares()).toEqual([]);
    rmSync(folder, { recursive: true });
  });

  it('runs a command on a kernel with openvswitch, writing only where it may', async () => {
    const aside = `${folder}-aside`;
    const script = [
      'cat /proc/sys/kernel/osrelease',
      'ls -d /sys/module/openvswitch',
      'ls /sys/class/net',
      `echo kept >${folder}/kept && echo lost >${aside} && cat ${aside}`,
      'echo "$GREETING" >&2',
      'exit 7',
    ];
    const r = await runInGuest(['sh', '-c', script.join('\n')], { writable: [folder], env: { GREETING: 'grüß dich' } });
    expect(r.status).toBe(7);
    expect(r.stderr).toBe('grüß dich\n');
    const [release, ...rest] = r.stdout.trim().split('\n');
    expect(release).not.toBe(readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim());
    expect(rest.filter((line) => !/^(gre|gretap|erspan|sit|tunl|teql|dummy)\d$/.test(line))).toEqual([
      '/sys/module/openvswitch',
      'lo',
      'lost',
    ]);
    expect(readFileSync(join(folder, 'kept'), 'utf8')).toBe('kept\n');
    expect(existsSync(aside)).toBe(false);
  });

  it('says what a shell would of a program that is not there', async () => {
    const r = await runInGuest(['no-such-program']);
    expect(r.status).toBe(127);
    expect(r.stderr).toContain('guest: no-such-program: No such file or directory');
  });

  it('is ended when its time is over', async () => {
    await expect(runInGuest(['sleep', '1000'], { timeoutMs: 2000 })).rejects.toMatchObject({
      code: 'DEADLINE_EXCEEDED',
    });
  });
});
