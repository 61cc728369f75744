/** The rules of the repository's shape (docs/architecture.md): who may import whom, what is pure, how long a file may be. */
import { expect, test } from 'vitest';
import { type Source, sources, withoutComments } from '../harness/sources.ts';

const ALL = sources('lib', 'coordinator', 'agent', 'cli', 'scripts', 'test');
const PRODUCT = ALL.filter((file) => /^(lib|coordinator|agent|cli)\//.test(file.path));
const BY_PATH = new Map(ALL.map((file) => [file.path, file]));

/** Output depends on the arguments and nothing else. */
const PURE =
  /^(agent\/(plan|flows)\/|agent\/bpf\/(model|encode|describe)\.ts$|coordinator\/alloc\/|coordinator\/view\.ts$|lib\/(delta|ip|mac|errors|model|der|policy-order|policy-port|policy-verdict)\.ts$)/;
const isMain = (path: string): boolean => path.endsWith('/main.ts');

const violations = (files: readonly Source[], find: (file: Source) => readonly string[]): string[] =>
  files.flatMap((file) => find(file).map((what) => `${file.path}: ${what}`));

test('the rules see the code', () => {
  expect(PRODUCT.length).toBeGreaterThan(50);
  expect(PRODUCT.filter((file) => PURE.test(file.path)).length).toBeGreaterThan(5);
  expect(BY_PATH.get('cli/command.ts')?.imports).toContainEqual({
    target: 'cli/context.ts',
    own: true,
    typeOnly: false,
  });
  expect(BY_PATH.get('cli/command.ts')?.imports).toContainEqual({
    target: 'cli/client.ts',
    own: true,
    typeOnly: false,
  });
  expect(BY_PATH.get('lib/tls.ts')?.imports).toContainEqual({ target: 'node:crypto', own: false, typeOnly: false });
});

test('lib imports nothing of ours; coordinator, agent and cli import lib and gen, never each other', () => {
  const allowed = (from: string): RegExp => {
    const [folder = ''] = from.split('/');
    return folder === 'lib' ? /^(lib|gen)\// : new RegExp(`^(lib|gen|${folder})/|^package\\.json$`);
  };
  expect(
    violations(PRODUCT, (file) =>
      file.imports.filter((i) => i.own && !allowed(file.path).test(i.target)).map((i) => `imports ${i.target}`),
    ),
  ).toEqual([]);
});

test('only coordinator/store knows etcd', () => {
  const others = PRODUCT.filter((file) => !file.path.startsWith('coordinator/store/'));
  expect(
    violations(others, (file) => file.imports.filter((i) => i.target === 'etcd3').map(() => 'imports etcd3')),
  ).toEqual([]);
});

test('pure modules reach no node:*, no clock, no log, at any depth', () => {
  const impure = (target: string, own: boolean): boolean =>
    own ? /(^|\/)(clock|log|metrics|scope|config|rpc|tls|workqueue)\.ts$/.test(target) : target.startsWith('node:');
  const reach = (file: Source, trail: readonly string[], seen: Set<string>): string[] =>
    file.imports
      .filter((i) => !i.typeOnly)
      .flatMap((i) => {
        if (impure(i.target, i.own)) return [[...trail, i.target].join(' → ')];
        const next = i.own ? BY_PATH.get(i.target) : undefined;
        if (next === undefined || seen.has(next.path)) return [];
        seen.add(next.path);
        return reach(next, [...trail, next.path], seen);
      });
  const pure = PRODUCT.filter((file) => PURE.test(file.path));
  expect(violations(pure, (file) => reach(file, [], new Set()))).toEqual([]);
  const touches = /\b(Date\.now|new Date\(\)|performance\.|Math\.random|setTimeout|setInterval|console\.|process\.)/g;
  expect(
    violations(pure, (file) => [...withoutComments(file.text).matchAll(touches)].map((match) => match[0])),
  ).toEqual([]);
});

test('no module-level mutable state', () => {
  const state =
    /^(?:export )?(?:(?:let|var) \w+|const \w+(?::[^=]+)? = new (?:Map|Set|WeakMap|WeakSet)(?:<[^(]*>)?\(\))/gm;
  const files = PRODUCT.filter((file) => !isMain(file.path));
  expect(violations(files, (file) => [...file.text.matchAll(state)].map((match) => match[0]))).toEqual([]);
});

test('no shell: child processes get argument arrays', () => {
  const shell = /\bshell:\s*true\b|import\s*\{[^}]*\bexec(?:Sync)?\b[^}]*\}\s*from 'node:child_process'/g;
  const own = ALL.filter((file) => file.path !== 'test/unit/imports.test.ts');
  expect(violations(own, (file) => [...file.text.matchAll(shell)].map((match) => match[0]))).toEqual([]);
});

test('no file is longer than 400 lines', () => {
  const long = ALL.filter((file) => file.text.split('\n').length > 401);
  expect(long.map((file) => `${file.path}: ${file.text.split('\n').length - 1} lines`)).toEqual([]);
});

test('nothing is linked from the product that only tests have', () => {
  const tests = /^(vitest|fast-check|typescript|esbuild)$/;
  expect(
    violations(PRODUCT, (file) => file.imports.filter((i) => tests.test(i.target)).map((i) => `imports ${i.target}`)),
  ).toEqual([]);
});
