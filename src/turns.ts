/**
 * Fairness to the event loop. Promises that settle without waiting let their callers go on at once, and a thousand callers
 * that go on at once leave no turn to timers and sockets. So what an environment settles in one turn has a budget of time,
 * whatever the number of callers; what goes beyond it waits for the next turn, first come, first served.
 */

/** Milliseconds of one turn that callers who need not wait may go on, about. */
export const BUDGET_MS = 2;

/** So many promises that wait for their turn are settled in one. Few enough that their callers' buffers stay cached. */
export const AT_ONCE = 32;

/** The completions of a larger batch wait for their turns: reactions to all of them at once would be a long one. */
export const FEW = 64;

/** What this needs of Node's loop. */
export interface Loop {
  /** Milliseconds since any moment. */
  now(): number;
  /** Runs in this turn's or the next one's check phase. */
  immediate(work: () => void): void;
}

const NODE: Loop = {
  now: () => performance.now(),
  immediate: (work) => void setImmediate(work),
};

/** The turns of one environment's loop. */
export class Turns {
  readonly #loop: Loop;
  /** What is to be settled, from `#next` on: what settles, and with what, by turns. */
  #held: unknown[] = [];
  #next = 0;
  /** A batch of many completions is being dispatched. */
  #many = false;
  /** When this turn was first looked at. */
  #began: number | undefined;

  constructor(loop: Loop = NODE) {
    this.#loop = loop;
  }

  /** The promise of a value that is there already. */
  settled<T>(value: T): Promise<T> {
    if (this.mayGoOn()) return Promise.resolve(value);
    return new Promise((resolve) => {
      this.hold(resolve, value);
    });
  }

  /** Whether what settles without having waited may do so in this turn: until its budget is spent. */
  mayGoOn(): boolean {
    const now = this.#loop.now();
    if (this.#began === undefined) {
      this.#began = now;
      this.#loop.immediate(this.#endTurn);
    }
    return now - this.#began < BUDGET_MS;
  }

  /** Whether what has waited, for a device or a thread, may be settled at once. */
  isFree(): boolean {
    return this.#held.length === 0 && !this.#many;
  }

  /** Settles something when its turn comes. */
  hold<T>(settle: (value: T) => void, value: T): void {
    if (this.#held.push(settle, value) === 2) this.#loop.immediate(this.#drain);
  }

  /** Dispatches a batch of so many completions. */
  batch(count: number, dispatch: () => void): void {
    const before = this.#many;
    this.#many = count > FEW;
    try {
      dispatch();
    } finally {
      this.#many = before;
    }
  }

  readonly #endTurn = (): void => {
    this.#began = undefined;
  };

  readonly #drain = (): void => {
    const held = this.#held;
    const end = Math.min(this.#next + 2 * AT_ONCE, held.length);
    for (let at = this.#next; at < end; at += 2) (held[at] as (value: unknown) => void)(held[at + 1]);
    if (end === held.length) {
      this.#held = [];
      this.#next = 0;
      return;
    }
    // What is over goes, now and then: under a steady load there always is something to be settled.
    const isLong = end > held.length / 2;
    if (isLong) held.splice(0, end);
    this.#next = isLong ? 0 : end;
    this.#loop.immediate(this.#drain);
  };
}
