/** `weft agent`: reads its settings, and runs what assemble.ts puts together. */
import { parseArgs } from 'node:util';
import { loadAgentConfig } from '../lib/config.ts';
import { makeLog } from '../lib/log.ts';
import { startAgent } from './assemble.ts';

/** `weft agent [--config FILE] [--underlay CIDR|INTERFACE|ADDRESS] [--shape-underlay RATE]`: runs until SIGTERM or SIGINT. */
export async function main(argv: readonly string[]): Promise<void> {
  const text = { type: 'string' } as const;
  const options = { config: text, underlay: text, 'shape-underlay': text };
  const { values } = parseArgs({ args: [...argv], options });
  const flags = { underlay: values.underlay, shape: values['shape-underlay'] };
  const config = await loadAgentConfig(values.config, flags);
  const log = makeLog('agent', {
    level: config.log.level,
    ...(config.log.file === null ? {} : { file: config.log.file }),
  });
  const scope = await startAgent(config, log);
  const stop = (signal: NodeJS.Signals): void => {
    log.info({ signal }, 'agent stops');
    void scope.close().then(() => process.exit(0));
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

if (import.meta.main) await main(process.argv.slice(2));
