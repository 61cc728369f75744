/** Thrown for a command line that cannot be meant: exit status 2. */
export class UsageError extends Error {
  readonly hint: string;

  constructor(message: string, hint = 'see weft --help') {
    super(message);
    this.name = 'UsageError';
    this.hint = hint;
  }
}
