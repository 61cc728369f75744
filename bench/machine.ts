/** Where it was measured, and the lab that it was measured on. */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { runProgram } from '../scripts/steps.ts';
import { run, weft, weftOk } from '../test/harness/lab.ts';
import { tenth } from './figures.ts';

export interface Machine {
  readonly cpus: number;
  readonly kernel: string;
  readonly docker: string;
  readonly openvswitch: string;
  readonly datapath: string;
  /** Load average of the last minute when it began: others may have been at work. */
  readonly loadBefore: number;
}

export async function describeMachine(): Promise<Machine> {
  const hosts = JSON.parse(await weftOk('host', 'ls', '--json')) as {
    datapath: string;
    versions: Readonly<Record<string, string>>;
  }[];
  return {
    cpus: cpus().length,
    kernel: release(),
    docker: hosts[0]?.versions['docker'] ?? '',
    openvswitch: hosts[0]?.versions['ovs'] ?? '',
    datapath: hosts[0]?.datapath ?? '',
    loadBefore: tenth(loadavg()[0] ?? 0),
  };
}

/** Installs and builds what is missing. */
export async function prepare(): Promise<void> {
  for (const script of ['scripts/install.ts', 'scripts/build.ts']) {
    const { status } = await runProgram(process.execPath, [script], { show: true });
    if (status !== 0) throw new Error(`${script} failed`);
  }
}

/** A lab of its own, with a HOME of its own; removed when disposed of, whatever happened. */
export async function ownLab(name: string, flags: readonly string[]): Promise<AsyncDisposable> {
  const home = await mkdtemp(join(tmpdir(), 'weft-bench-'));
  process.env['HOME'] = home;
  process.env['WEFT_LAB'] = name;
  const down = async (): Promise<void> => {
    await weft('lab', 'down', '--name', name);
    await rm(home, { recursive: true, force: true });
  };
  const r = await run('bin/weft', ['lab', 'up', '--name', name, ...flags], { timeoutMs: 280_000 });
  if (r.code !== 0) {
    await down();
    throw new Error(`weft lab up: exit ${r.code}\n${r.stdout}${r.stderr}`);
  }
  return { [Symbol.asyncDispose]: down };
}
