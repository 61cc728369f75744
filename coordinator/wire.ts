/** Encode once: a message object that goes to many sessions is encoded for the first and its bytes are shared by the rest. */
import { CoordinatorMessage, SessionService } from '../gen/weft/v1/session.ts';

/** What a message is, for counters: complete catalogues and networks are told apart from increments. */
export type MessageKind =
  | 'welcome'
  | 'catalogue'
  | 'catalogueComplete'
  | 'network'
  | 'networkComplete'
  | 'sync'
  | 'query'
  | 'settings'
  | 'progress';

export function kindOf(message: CoordinatorMessage): MessageKind {
  const body = message.body;
  if (body === undefined) return 'progress';
  if (body.$case === 'network') return body.value.complete ? 'networkComplete' : 'network';
  if (body.$case === 'catalogue') return body.value.complete ? 'catalogueComplete' : 'catalogue';
  return body.$case;
}

export class Wire {
  readonly #buffers = new WeakMap<CoordinatorMessage, Buffer>();
  readonly #encoded: (kind: MessageKind) => void;

  /** @param encoded called each time a message is really encoded. */
  constructor(encoded: (kind: MessageKind) => void = () => {}) {
    this.#encoded = encoded;
  }

  /** The message's bytes; the object must not change afterwards. */
  encode(message: CoordinatorMessage): Buffer {
    const known = this.#buffers.get(message);
    if (known !== undefined) return known;
    const buffer = Buffer.from(CoordinatorMessage.encode(message).finish());
    this.#buffers.set(message, buffer);
    this.#encoded(kindOf(message));
    return buffer;
  }

  /** The Session service with this encoder in place of the generated one. */
  get service(): SessionService {
    const connect = { ...SessionService.connect, responseSerialize: (value: CoordinatorMessage) => this.encode(value) };
    return { ...SessionService, connect };
  }
}
