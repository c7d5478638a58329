/**
 * What the kernel calls sb_writers: every change of a volume enters before it takes a lock, and leaves at its end. A
 * freeze closes the gate and waits until nobody is inside (T26); whoever comes then waits for the thaw.
 */
import type { Engine, Task } from './engine.js';
import type { Token } from './native/boundary.js';

export class WriteGate {
  readonly #engine: Pick<Engine, 'token' | 'complete'>;
  #closed = false;
  #inside = 0;
  #waiting: Token[] = [];
  #drainer: Token | undefined;

  constructor(engine: Pick<Engine, 'token' | 'complete'>) {
    this.#engine = engine;
  }

  get closed(): boolean {
    return this.#closed;
  }

  tryEnter(): boolean {
    if (this.#closed) return false;
    this.#inside += 1;
    return true;
  }

  leave(): void {
    if (this.#inside === 0) throw new Error('write gate: nobody is inside');
    this.#inside -= 1;
    if (this.#inside > 0 || this.#drainer === undefined) return;
    const drainer = this.#drainer;
    this.#drainer = undefined;
    this.#engine.complete(drainer, 0);
  }

  /** Runs a change between entering and leaving. */
  *within<T>(change: Task<T>): Task<T> {
    while (!this.tryEnter()) {
      const token = this.#engine.token();
      this.#waiting.push(token);
      yield token;
    }
    try {
      return yield* change;
    } finally {
      this.leave();
    }
  }

  /** Nobody enters from here on; waits until everybody has left. Only where the gate is open. */
  *close(): Task<void> {
    if (this.#closed) throw new Error('write gate: closed already');
    this.#closed = true;
    if (this.#inside === 0) return;
    this.#drainer = this.#engine.token();
    yield this.#drainer;
  }

  /** Lets everybody in who waits. */
  open(): void {
    this.#closed = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const token of waiting) this.#engine.complete(token, 0);
  }
}
