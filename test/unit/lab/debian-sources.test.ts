import { expect, it } from 'vitest';
import { DEFAULT_MIRROR, debianMirror } from '../../../scripts/debian-sources.ts';

const sources = (...lines: string[]) => ({ name: 'debian.sources', text: `${lines.join('\n')}\n` });
const list = (...lines: string[]) => ({ name: 'some.list', text: `${lines.join('\n')}\n` });

it('finds Debian’s archive among the sources of apt', () => {
  expect(
    debianMirror([
      list(
        '# deb http://old.example/debian bookworm main',
        'deb [signed-by=/a b] http://other.example/linux stable main',
      ),
      sources(
        'Types: deb',
        'Enabled: no',
        'URIs: http://off.example/debian',
        '',
        '# a remark',
        'Types: deb-src deb',
        '# another',
        'URIs: http://security.example/debian-security',
        ' http://mirror.example/debian/',
        'Suites: bookworm bookworm-updates',
        '',
        'Types: deb',
        'URIs: http://later.example/debian',
      ),
    ]),
  ).toBe('http://mirror.example/debian');
  expect(debianMirror([list('deb [arch=amd64] https://mirror.example/debian bookworm main')])).toBe(
    'https://mirror.example/debian',
  );
});

it('takes Debian’s own where apt knows none', () => {
  expect(debianMirror([])).toBe(DEFAULT_MIRROR);
  expect(debianMirror([sources('Types: deb', 'URIs: http://archive.ubuntu.com/ubuntu', 'Suites: noble')])).toBe(
    DEFAULT_MIRROR,
  );
  expect(debianMirror([sources('Types: deb-src', 'URIs: http://mirror.example/debian')])).toBe(DEFAULT_MIRROR);
});
