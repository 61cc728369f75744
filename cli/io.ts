/** What a command may touch of the outside, so that tests can run commands in their own process. */
export interface Io {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** All of what is piped in. */
  readonly stdin: () => Promise<string>;
  /** Aborts on SIGINT and SIGTERM, which are caught from the first call on: daemons do so themselves. */
  readonly signal: () => AbortSignal;
  /** Exit status of a command that did its work: `wait` and `audit` have something to say by it. */
  readonly setExit: (code: number) => void;
}

export const contextPath = (io: Io): string => `${io.home}/.config/weft/context.json`;
