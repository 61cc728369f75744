import pino from 'pino';

/** Structured logs: one event, one line. Field names are the same everywhere: host, network, endpoint, revision, err. */
export type Log = pino.Logger;

/** @param component agent, coordinator, lab … goes into every line. Lines are JSON on stderr (journald keeps them). */
export function makeLog(component: string, options: { level?: string; file?: string } = {}): Log {
  const target =
    options.file === undefined
      ? pino.destination({ dest: 2, sync: false })
      : pino.destination({ dest: options.file, sync: false, mkdir: true });
  return pino(
    {
      level: options.level ?? 'info',
      base: { component, pid: process.pid },
      messageKey: 'event',
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.err },
    },
    target,
  );
}

export const silentLog = (): Log => pino({ enabled: false });
