/** weft completion: a script for a shell, which asks `weft __complete` for the words. */
import type { Command } from 'commander';
import { jsonFlag, print } from './command.ts';
import type { Io } from './io.ts';
import { UsageError } from './usage.ts';

const SCRIPTS: Readonly<Record<string, string>> = {
  bash: `_weft() {
  local IFS=$'\\n'
  COMPREPLY=($(weft __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _weft weft
`,
  zsh: `#compdef weft
_weft() {
  local -a found
  found=("\${(@f)$(weft __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  compadd -a found
}
compdef _weft weft
`,
  fish: `complete -c weft -f -a '(weft __complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
`,
};

export function register(program: Command, io: Io): void {
  jsonFlag(program.command('completion <shell>').description('print a completion script: bash, zsh or fish')).action(
    (shell: string, _options: unknown, command: Command) => {
      const script = Object.hasOwn(SCRIPTS, shell) ? SCRIPTS[shell] : undefined;
      if (script === undefined)
        throw new UsageError(`There is no completion for ${JSON.stringify(shell)}.`, 'bash, zsh or fish');
      print(io, command, { shell, script }, () => script);
    },
  );
}
