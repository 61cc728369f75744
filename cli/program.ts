/** The command line as a whole: only the noun that is asked for is loaded. */
import { Command, CommanderError } from 'commander';
import { connectionFlags, jsonFlag, onceEach } from './command.ts';
import type { Io } from './io.ts';
import { showError } from './output.ts';
import { UsageError } from './usage.ts';

type Register = (program: Command, io: Io) => void;

interface Noun {
  readonly summary: string;
  readonly load: () => Promise<Register>;
}

/** In the order of help. */
export const NOUNS: Readonly<Record<string, Noun>> = {
  network: { summary: 'networks that exist on every host', load: async () => (await import('./network.ts')).register },
  host: { summary: 'machines of the mesh', load: async () => (await import('./host.ts')).register },
  endpoint: {
    summary: 'attachments to networks: of containers, VMs and processes',
    load: async () => (await import('./endpoint.ts')).register,
  },
  port: {
    summary: 'ports of its host that lead to a container',
    load: async () => (await import('./port.ts')).register,
  },
  attach: {
    summary: "attach a network namespace or a VM's tap of this host",
    load: async () => (await import('./attach.ts')).registerAttach,
  },
  detach: {
    summary: 'detach what weft attach has attached',
    load: async () => (await import('./attach.ts')).registerDetach,
  },
  peer: {
    summary: 'tunnel ends that are not hosts of the mesh',
    load: async () => (await import('./peer.ts')).register,
  },
  reservation: {
    summary: 'addresses and MACs that belong to a name, on every host',
    load: async () => (await import('./reservation.ts')).register,
  },
  service: {
    summary: 'names with addresses of their own, in front of containers',
    load: async () => (await import('./service.ts')).register,
  },
  policy: {
    summary: 'rules for what endpoints may send and receive',
    load: async () => (await import('./policy.ts')).register,
  },
  trace: {
    summary: 'what becomes of one packet, and who decides',
    load: async () => (await import('./trace.ts')).register,
  },
  router: {
    summary: 'ways between networks',
    load: async () => (await import('./router.ts')).register,
  },
  apply: {
    summary: 'make the mesh as files say',
    load: async () => (await import('./apply/command.ts')).registerApply,
  },
  diff: {
    summary: 'show what weft apply would do',
    load: async () => (await import('./apply/command.ts')).registerDiff,
  },
  export: {
    summary: 'print the mesh as a file that weft apply takes',
    load: async () => (await import('./apply/command.ts')).registerExport,
  },
  wait: {
    summary: 'wait until every connected host has applied a revision',
    load: async () => (await import('./wait.ts')).register,
  },
  audit: {
    summary: 'compare what is installed on the hosts with what should be',
    load: async () => (await import('./audit.ts')).register,
  },
  doctor: {
    summary: 'find what is wrong with the network below',
    load: async () => (await import('./doctor.ts')).register,
  },
  status: {
    summary: 'show coordinators, hosts and conflicts',
    load: async () => (await import('./status.ts')).register,
  },
  events: { summary: 'show what happened', load: async () => (await import('./events.ts')).register },
  ca: { summary: 'certificates of the mesh', load: async () => (await import('./ca.ts')).register },
  lab: {
    summary: 'simulated hosts on this machine',
    load: async () => (await import('./lab/command.ts')).registerLab,
  },
  agent: { summary: 'run the agent of this host', load: async () => (await import('./daemon.ts')).registerAgent },
  coordinator: { summary: 'run a coordinator', load: async () => (await import('./daemon.ts')).registerCoordinator },
  completion: {
    summary: 'print a completion script for a shell',
    load: async () => (await import('./completion.ts')).register,
  },
  version: { summary: 'show the version', load: async () => (await import('./version.ts')).register },
};

const VALUE_FLAGS = new Set(['--coordinator', '--ca', '--cert', '--key']);

/** The first word that is neither a flag nor a flag's value. */
function nounOf(argv: readonly string[]): string | null {
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    if (!word.startsWith('-')) return word;
    if (VALUE_FLAGS.has(word)) i++;
  }
  return null;
}

/** The program with one noun (or none) loaded in full and the others by name. */
export async function buildProgram(noun: string | null, io: Io, onError: (text: string) => void): Promise<Command> {
  const program = new Command('weft')
    .description('A mesh for Docker hosts')
    .exitOverride()
    .enablePositionalOptions()
    .showSuggestionAfterError(true)
    .configureOutput({ writeOut: io.out, writeErr: onError })
    .helpCommand(true);
  program.usage('[options] COMMAND').option('-V, --version', 'show the version');
  connectionFlags(jsonFlag(program));
  for (const [name, entry] of Object.entries(NOUNS)) {
    if (name === noun) (await entry.load())(program, io);
    else program.command(name).description(entry.summary).allowUnknownOption();
  }
  return program;
}

/**
 * Runs one command line.
 * @param argv without node and script
 * @returns exit status: 0 done, 1 refused or failed, 2 usage; `wait` and `audit` have their own.
 */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  let exit = 0;
  const setExit = (code: number): void => {
    exit = Math.max(exit, code);
  };
  const own: Io = { ...io, setExit };
  // What follows the host of `lab exec` belongs to the command that runs there.
  const ours = argv[0] === 'lab' && argv[1] === 'exec' ? argv.slice(0, 2) : argv;
  const json = ours.includes('--json');
  let complaint = '';
  try {
    if (argv[0] === '__complete') {
      const { complete } = await import('./complete.ts');
      await complete(argv.slice(argv[1] === '--' ? 2 : 1), own);
      return 0;
    }
    const words = argv[0] === '--version' || argv[0] === '-V' ? ['version', ...argv.slice(1)] : argv;
    const asked = nounOf(words);
    const noun = asked === 'help' ? nounOf(words.slice(words.indexOf('help') + 1)) : asked;
    const program = await buildProgram(noun, own, (text) => {
      complaint += text;
    });
    onceEach(program);
    await program.parseAsync([...words], { from: 'user' });
    return exit;
  } catch (error) {
    if (!(error instanceof CommanderError)) return Math.max(exit, showError(io, error, json));
    if (error.exitCode === 0) return exit;
    if (error.code === 'commander.help' && !json) {
      io.err(complaint);
      return 2;
    }
    return showError(io, usageError(error, complaint, argv), json);
  }
}

/** Commander's words, without its "error: ". A noun alone prints its help, which is then the message. */
function usageError(error: CommanderError, complaint: string, argv: readonly string[]): UsageError {
  if (error.code === 'commander.help')
    return new UsageError('A command is missing.', `see weft ${argv.join(' ')} --help`.replace(/ {2,}/, ' '));
  const [message = '', suggestion] = complaint.trim().split('\n');
  return new UsageError(message.replace(/^error: /, ''), suggestion?.replace(/^\(|\)$/g, ''));
}
