/**
 * The inode's rwsem and its count of direct I/O in flight (A2, A7).
 *
 * Grants are first come, first served: nobody overtakes a waiter, so neither readers nor writers starve. Direct I/O that
 * outlives its lock is counted; whoever holds the lock exclusive may drain it, and no new one can start meanwhile.
 */
import type { Engine, Task } from './engine.js';
import type { Token } from './native/boundary.js';

interface Request {
  readonly token: Token;
  readonly exclusive: boolean;
}

export class InodeLock {
  readonly #engine: Pick<Engine, 'token' | 'complete'>;
  #readers = 0;
  #writer = false;
  #queue: Request[] = [];
  #inFlight = 0;
  #drainers: Token[] = [];

  constructor(engine: Pick<Engine, 'token' | 'complete'>) {
    this.#engine = engine;
  }

  /** How many hold the lock shared. */
  get readers(): number {
    return this.#readers;
  }

  /** Whether somebody holds it exclusive. */
  get writing(): boolean {
    return this.#writer;
  }

  /** Direct I/O that was submitted and has not ended (end_io and invalidation included). */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Takes the lock shared if nobody has to be waited for. */
  tryRead(): boolean {
    if (this.#writer || this.#queue.length > 0) return false;
    this.#readers += 1;
    return true;
  }

  /** Takes the lock exclusive if nobody has to be waited for. */
  tryWrite(): boolean {
    if (this.#writer || this.#readers > 0 || this.#queue.length > 0) return false;
    this.#writer = true;
    return true;
  }

  /** Takes the lock shared; yields only where it must wait. */
  *read(): Task<void> {
    if (!this.tryRead()) yield this.#enqueue(false);
  }

  /** Takes the lock exclusive; yields only where it must wait. */
  *write(): Task<void> {
    if (!this.tryWrite()) yield this.#enqueue(true);
  }

  unlockRead(): void {
    if (this.#readers === 0) throw new Error('inode lock: not held shared');
    this.#readers -= 1;
    if (this.#readers === 0) this.#grant();
  }

  unlockWrite(): void {
    if (!this.#writer) throw new Error('inode lock: not held exclusive');
    this.#writer = false;
    this.#grant();
  }

  /** Counts one direct I/O; the caller holds the lock, shared or exclusive. */
  beginDio(): void {
    if (!this.#writer && this.#readers === 0) throw new Error('inode lock: direct I/O without the lock');
    this.#inFlight += 1;
  }

  /** The direct I/O has ended: end_io and invalidation are done. */
  endDio(): void {
    if (this.#inFlight === 0) throw new Error('inode lock: no direct I/O in flight');
    this.#inFlight -= 1;
    if (this.#inFlight > 0) return;
    const drainers = this.#drainers;
    this.#drainers = [];
    for (const token of drainers) this.#engine.complete(token, 0);
  }

  /** Waits until no direct I/O is in flight. The caller holds the lock exclusive, so that none can start. */
  *drain(): Task<void> {
    if (!this.#writer) throw new Error('inode lock: drain needs it exclusive');
    if (this.#inFlight === 0) return;
    const token = this.#engine.token();
    this.#drainers.push(token);
    yield token;
  }

  #enqueue(exclusive: boolean): Token {
    const token = this.#engine.token();
    this.#queue.push({ token, exclusive });
    return token;
  }

  /** Hands the lock to the head of the queue: one writer, or all readers up to the next writer. */
  #grant(): void {
    const granted: Token[] = [];
    while (this.#queue.length > 0 && !this.#writer) {
      const head = this.#queue[0] as Request;
      if (head.exclusive && this.#readers > 0) break;
      this.#queue.shift();
      if (head.exclusive) this.#writer = true;
      else this.#readers += 1;
      granted.push(head.token);
    }
    // Only now: whoever is resumed sees the lock as it is after every grant.
    for (const token of granted) this.#engine.complete(token, 0);
  }
}
