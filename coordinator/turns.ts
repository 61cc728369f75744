/** Runs calls one after the other. */
export class Turns {
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;

  get busy(): boolean {
    return this.#waiting > 0;
  }

  run<T>(call: () => Promise<T>): Promise<T> {
    this.#waiting++;
    const run = this.#last.then(call).finally(() => {
      this.#waiting--;
    });
    this.#last = run.catch(() => {});
    return run;
  }
}
