/**
 * Fairness to the event loop. One promise in 64 took a turn, per caller's promise and not per time: with a thousand callers
 * of cache hits no timer ran for seconds.
 */
import test from 'ava';

import { AT_ONCE, BUDGET_MS, FEW, Turns, type Loop } from '../src/turns.js';

/** A loop that turns by hand, and a clock that a test moves. */
class FakeLoop implements Loop {
  time = 0;
  turns = 0;
  #due: (() => void)[] = [];

  now(): number {
    return this.time;
  }

  immediate(work: () => void): void {
    this.#due.push(work);
  }

  get isIdle(): boolean {
    return this.#due.length === 0;
  }

  /** One turn: what was due runs, and then the reactions. */
  async turn(): Promise<void> {
    this.turns += 1;
    for (const work of this.#due.splice(0)) work();
    await settle();
  }
}

/** Lets reactions run, as many as there are. */
async function settle(): Promise<void> {
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
}

test('a turn gives so much time to callers that need not wait, however many they are', async (t) => {
  for (const callers of [1, 64, 1000]) {
    const loop = new FakeLoop();
    const turns = new Turns(loop);
    const calls = Array<number>(callers).fill(0);
    const until = { stop: false };
    const all = Promise.all(
      calls.map(async (_, index) => {
        while (!until.stop) {
          loop.time += 0.01;
          calls[index] = (calls[index] as number) + 1;
          await turns.settled(index);
        }
      }),
    );
    await settle();
    for (let turn = 0; turn < 200; turn += 1) {
      const before = loop.time;
      await loop.turn();
      // The budget, the one step that spends it, and those who are let in while it is spent.
      t.true(loop.time - before <= BUDGET_MS + 0.01 * (AT_ONCE + 1) + 1e-6, `${loop.time - before} ms`);
    }
    t.true(
      calls.every((count) => count > 1),
      'nobody is left behind',
    );
    until.stop = true;
    while (!loop.isIdle) await loop.turn();
    await all;
  }
});

test('who waits is served first come, first served, a few a turn', async (t) => {
  const loop = new FakeLoop();
  const turns = new Turns(loop);
  const order: number[] = [];
  turns.batch(FEW + 1, () => {
    for (let n = 0; n <= FEW; n += 1) {
      t.false(turns.isFree());
      turns.hold((value: number) => order.push(value), n);
    }
  });
  t.deepEqual(order, [], 'a large batch is not settled in one go');
  for (let turn = 1; !loop.isIdle; turn += 1) {
    await loop.turn();
    t.is(order.length, Math.min(turn * AT_ONCE, FEW + 1));
  }
  t.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
  t.true(turns.isFree());
});

test('a small batch is settled at once', (t) => {
  const turns = new Turns(new FakeLoop());
  turns.batch(FEW, () => {
    t.true(turns.isFree());
  });
});
