/** What a host's Docker says has happened, from now on. */
import { type ClientRequest, type IncomingMessage, request } from 'node:http';

export interface DockerEvent {
  readonly type: string;
  readonly action: string;
  /** Id of the container that it concerns; empty: none. */
  readonly container: string;
  /** Epoch ms, by Docker's clock. */
  readonly at: number;
}

interface Message {
  readonly Type: string;
  readonly Action: string;
  readonly Actor: { readonly ID: string; readonly Attributes: Readonly<Record<string, string>> };
  readonly timeNano: number;
}

export class DockerEvents implements Disposable {
  readonly seen: DockerEvent[] = [];
  readonly #call: ClientRequest;
  readonly #waiting = new Set<() => void>();

  private constructor(call: ClientRequest, response: IncomingMessage) {
    this.#call = call;
    let rest = '';
    response.on('error', () => undefined);
    response.setEncoding('utf8').on('data', (text: string) => {
      const lines = `${rest}${text}`.split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        if (line === '') continue;
        const { Type: type, Action: action, Actor, timeNano } = JSON.parse(line) as Message;
        const container = type === 'container' ? Actor.ID : (Actor.Attributes['container'] ?? '');
        this.seen.push({ type, action, container, at: Math.floor(timeNano / 1e6) });
      }
      for (const look of this.#waiting) look();
    });
  }

  /** Resolves once Docker listens. @param socketPath of its API, outside the host */
  static open(socketPath: string, filters: Readonly<Record<string, readonly string[]>>): Promise<DockerEvents> {
    const path = `/events?filters=${encodeURIComponent(JSON.stringify(filters))}`;
    return new Promise((resolve, reject) => {
      const call = request({ socketPath, path, agent: false }, (response) => resolve(new DockerEvents(call, response)));
      call.on('error', reject);
      call.end();
    });
  }

  /** The first that matches, seen already or still to come. @throws after 30 s */
  find(wanted: (event: DockerEvent) => boolean, what: string): Promise<DockerEvent> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`Docker did not say within 30 s: ${what}`));
      }, 30_000);
      const look = (): void => {
        const event = this.seen.find(wanted);
        if (event === undefined) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(event);
      };
      this.#waiting.add(look);
      look();
    });
  }

  [Symbol.dispose](): void {
    this.#call.destroy();
  }
}
