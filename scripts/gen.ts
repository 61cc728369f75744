import { execFileSync } from 'node:child_process';

/** Generates gen/ from proto/ (buf with ts-proto, both from node_modules: works offline). */
execFileSync('node_modules/.bin/buf', ['generate'], { cwd: new URL('..', import.meta.url).pathname, stdio: 'inherit' });
