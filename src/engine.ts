/**
 * Drives the policy. The policy is written once, as generators that yield only tokens: a native operation's
 * completion or a lock's grant. Two drivers run it: `run` resumes it from completion batches, `runSync` pumps.
 */
import type { Native, NativeFailure, Token } from './native/boundary.js';
import { Turns } from './turns.js';

/** A piece of policy. It yields the token that it waits for, and is resumed with that token's result. */
export type Task<T> = Generator<Token, T, number>;

/** What a task is told beside numbers: why its last failed native operation failed. */
export interface Operation {
  failure: NativeFailure | undefined;
}

/** Receives one token's result. It must not run user code: locks may be held. */
export interface Waiter {
  resume(result: number): void;
}

/** Pairs per batch; the native layer keeps what does not fit for the next one. */
const BATCH_PAIRS = 4096;

/** How long one pump waits before it looks again. Only a safety net: completions end it at once. */
const PUMP_TIMEOUT_MS = 1000;

class SyncWaiter implements Waiter {
  done = false;
  result = 0;

  resume(result: number): void {
    this.result = result;
    this.done = true;
  }
}

class PromiseRun<T> implements Waiter {
  readonly #engine: Engine;
  readonly #task: Task<T>;
  readonly #operation: Operation;
  readonly #resolve: (value: T) => void;
  readonly #reject: (reason: unknown) => void;
  #token: Token = -1;

  constructor(
    engine: Engine,
    task: Task<T>,
    operation: Operation,
    resolve: (value: T) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#engine = engine;
    this.#task = task;
    this.#operation = operation;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  resume(result: number): void {
    if (result < 0 && this.#token >= 0) this.#operation.failure = this.#engine.failureOf(this.#token);
    this.step(result);
  }

  /** Begins; what ends without waiting counts against this turn of the loop. */
  begin(): void {
    this.#goOn(0, true);
  }

  step(result: number): void {
    this.#goOn(result, false);
  }

  #goOn(result: number, atOnce: boolean): void {
    try {
      const next = this.#task.next(result);
      if (next.done === true) {
        this.#settle(this.#resolve, next.value, atOnce);
        return;
      }
      this.#token = next.value;
      this.#engine.wait(next.value, this);
    } catch (error) {
      this.#settle(this.#reject, error, atOnce);
    }
  }

  #settle<V>(settle: (value: V) => void, value: V, atOnce: boolean): void {
    const { turns } = this.#engine;
    if (atOnce ? turns.mayGoOn() : turns.isFree()) settle(value);
    else turns.hold(settle, value);
  }
}

/** The token table, the completion batches and the two drivers of one JavaScript environment. */
export class Engine {
  readonly native: Native;
  readonly #slots = new Float64Array(2 * BATCH_PAIRS);
  /** Indexed by token: who waits for it. */
  readonly #waiters: (Waiter | undefined)[] = [];
  /** Indexed by token: the result of a token that completed before anybody waited. */
  readonly #early: (number | undefined)[] = [];
  readonly #free: Token[] = [];
  /** Tokens that completed while another task was being resumed: they wait their turn, the stack stays flat. */
  #ready: { token: Token; result: number }[] = [];
  #resuming = false;
  #doorbellQueued = false;
  /** How much is settled in one turn of the event loop. */
  readonly turns: Turns;
  readonly #ringDoorbell = (): void => {
    this.#doorbellQueued = false;
    this.native.submit();
  };

  constructor(native: Native, turns = new Turns()) {
    this.native = native;
    this.turns = turns;
    native.start(this.#slots, (count) => this.#dispatch(count));
  }

  /** A token for a new native call or lock request. */
  token(): Token {
    const reused = this.#free.pop();
    if (reused !== undefined) return reused;
    const fresh = this.#waiters.length;
    this.#waiters.push(undefined);
    this.#early.push(undefined);
    return fresh;
  }

  /** Gives a token back whose native call threw instead of starting. */
  release(token: Token): void {
    this.#waiters[token] = undefined;
    this.#early[token] = undefined;
    this.#free.push(token);
  }

  /** Resumes `waiter` when the token completes; at once when it already has. */
  wait(token: Token, waiter: Waiter): void {
    const early = this.#early[token];
    if (early === undefined) {
      if (this.#waiters[token] !== undefined) throw new Error('two waiters for one token');
      this.#waiters[token] = waiter;
      return;
    }
    this.#early[token] = undefined;
    this.#free.push(token);
    waiter.resume(early);
  }

  /** Reports a token's result: from a completion batch, or a lock that grants. */
  complete(token: Token, result: number): void {
    if (this.#waiters[token] === undefined) {
      this.#early[token] = result;
      return;
    }
    if (this.#resuming) {
      this.#ready.push({ token, result });
      return;
    }
    this.#resuming = true;
    try {
      this.#resume(token, result);
      while (this.#ready.length > 0) {
        const ready = this.#ready;
        this.#ready = [];
        for (const next of ready) this.#resume(next.token, next.result);
      }
    } finally {
      this.#resuming = false;
    }
  }

  #resume(token: Token, result: number): void {
    const waiter = this.#waiters[token] as Waiter;
    this.#waiters[token] = undefined;
    this.#free.push(token);
    waiter.resume(result);
  }

  /** Why the operation that just completed failed. Only valid until its token is used again. */
  failureOf(token: Token): NativeFailure | undefined {
    const detail = this.native.takeResult(token);
    return typeof detail === 'object' && detail !== null && 'message' in detail
      ? (detail as NativeFailure)
      : undefined;
  }

  /** One doorbell per tick for everything that was queued in it. */
  doorbell(): void {
    if (this.#doorbellQueued) return;
    this.#doorbellQueued = true;
    queueMicrotask(this.#ringDoorbell);
  }

  /** The promise driver: an asynchronous kiocb. */
  run<T>(task: Task<T>, operation: Operation): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      new PromiseRun(this, task, operation, resolve, reject).begin();
      this.doorbell();
    });
  }

  /** The promise of a value that is there already: settled, unless this turn of the loop has had its share. */
  settled<T>(value: T): Promise<T> {
    return this.turns.settled(value);
  }

  /** The sync driver: a synchronous kiocb. Dispatches everybody's completions until its own task is done. */
  runSync<T>(task: Task<T>, operation: Operation): T {
    let next = task.next(0);
    while (next.done !== true) {
      const token = next.value;
      const result = this.waitSync(token);
      if (result < 0) operation.failure = this.failureOf(token);
      next = task.next(result);
    }
    return next.value;
  }

  /** Pumps until the token completes, and returns its result. */
  waitSync(token: Token): number {
    const waiter = new SyncWaiter();
    this.wait(token, waiter);
    while (!waiter.done) this.#dispatch(this.native.pump(PUMP_TIMEOUT_MS));
    return waiter.result;
  }

  #dispatch(count: number): void {
    const slots = this.#slots;
    this.turns.batch(count, () => {
      for (let pair = 0; pair < count; pair += 1) {
        this.complete(slots[2 * pair] as number, slots[2 * pair + 1] as number);
      }
    });
  }
}

/** Starts one native call; a throw gives the token back. */
export function begin(engine: Engine, start: (native: Native, token: Token) => void): Token {
  const token = engine.token();
  try {
    start(engine.native, token);
  } catch (error) {
    engine.release(token);
    throw error;
  }
  engine.doorbell();
  return token;
}
