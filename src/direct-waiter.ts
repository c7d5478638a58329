import type { Waiter } from './engine.js';
import type { Kiocb } from './kiocb.js';
import type { Token } from './native/boundary.js';

/** Ends a direct read or overwrite: its kiocb, its result, the caller's buffer, and what settles the promise. */
export type Settle = (io: Kiocb, result: number, view: unknown, resolve: (value: unknown) => void) => void;

/** The common direct read's or overwrite's waiter: no generator, no async function. */
export class DirectWaiter implements Waiter {
  readonly #io: Kiocb;
  readonly #token: Token;
  readonly #settle: Settle;
  readonly #view: unknown;
  readonly #resolve: (value: unknown) => void;

  constructor(io: Kiocb, token: Token, settle: Settle, view: unknown, resolve: (value: unknown) => void) {
    this.#io = io;
    this.#token = token;
    this.#settle = settle;
    this.#view = view;
    this.#resolve = resolve;
  }

  resume(result: number): void {
    const io = this.#io;
    if (result < 0) io.failure = io.engine.failureOf(this.#token);
    io.inode.lock.endDio();
    const { turns } = io.engine;
    if (turns.isFree()) this.#settle(io, result, this.#view, this.#resolve);
    else turns.hold((bytes) => this.#settle(io, bytes, this.#view, this.#resolve), result);
  }
}
