import test from 'ava';

import type { Task } from '../src/engine.js';
import { WriteGate } from '../src/write-gate.js';

/** Tokens that complete when the gate says so. */
class Tokens {
  next = 0;
  readonly done: number[] = [];
  token(): number {
    return this.next++;
  }
  complete(token: number): void {
    this.done.push(token);
  }
}

/** A change that says when it runs. */
function* change(log: string[], name: string): Task<number> {
  log.push(name);
  if (name === 'broken') throw new Error(name);
  return name === 'slow' ? yield 99 : 0;
}

test('changes pass an open gate; a closed one keeps them until it opens', (t) => {
  const tokens = new Tokens();
  const gate = new WriteGate(tokens);
  const log: string[] = [];
  t.true(gate.within(change(log, 'open')).next().done);
  t.true(gate.close().next().done, 'nobody is inside');
  t.false(gate.tryEnter());
  const waiting = gate.within(change(log, 'waited'));
  t.deepEqual(waiting.next(), { value: 0, done: false });
  gate.open();
  t.deepEqual(tokens.done, [0]);
  t.true(waiting.next(0).done);
  t.deepEqual(log, ['open', 'waited']);
});

test('closing waits for the last who is inside; closed again meanwhile, the others wait again', (t) => {
  const tokens = new Tokens();
  const gate = new WriteGate(tokens);
  t.true(gate.tryEnter() && gate.tryEnter());
  const closing = gate.close();
  t.deepEqual(closing.next(), { value: 0, done: false });
  t.throws(() => gate.close().next(), { message: /closed already/ });
  gate.leave();
  t.deepEqual(tokens.done, []);
  gate.leave();
  t.deepEqual(tokens.done, [0]);
  t.true(closing.next(0).done);
  const waiting = gate.within(change([], 'late'));
  t.false(waiting.next().done);
  gate.open();
  t.true(gate.close().next().done);
  t.false(waiting.next(0).done, 'it was too late');
  gate.open();
  t.true(waiting.next(0).done);
  t.throws(() => gate.leave(), { message: /nobody/ });
});

test('a change that fails leaves', (t) => {
  const gate = new WriteGate(new Tokens());
  t.throws(() => gate.within(change([], 'broken')).next(), { message: 'broken' });
  t.true(gate.close().next().done);
});
