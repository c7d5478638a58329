import test from 'ava';

import { Engine, type Task } from '../src/engine.js';
import { InodeLock } from '../src/inode-lock.js';
import { FakeNative } from './fake-native.js';

function setup(): {
  engine: Engine;
  lock: InodeLock;
  log: string[];
  go: (name: string, task: Task<void>) => void;
} {
  const engine = new Engine(new FakeNative());
  const log: string[] = [];
  const go = (name: string, task: Task<void>): void => {
    function* logged(): Task<void> {
      yield* task;
      log.push(name);
    }
    void engine.run(logged(), { failure: undefined });
  };
  return { engine, lock: new InodeLock(engine), log, go };
}

test('readers share, a writer excludes', (t) => {
  const { lock } = setup();
  t.true(lock.tryRead());
  t.true(lock.tryRead());
  t.false(lock.tryWrite());
  lock.unlockRead();
  lock.unlockRead();
  t.true(lock.tryWrite());
  t.false(lock.tryRead());
  t.false(lock.tryWrite());
});

test('first come, first served: a reader does not overtake a waiting writer', (t) => {
  const { lock, log, go } = setup();
  t.true(lock.tryRead());
  go('W1', lock.write());
  go('R1', lock.read());
  go('R2', lock.read());
  go('W2', lock.write());
  t.false(lock.tryRead());
  t.deepEqual(log, []);
  lock.unlockRead();
  t.deepEqual(log, ['W1']);
  lock.unlockWrite();
  t.deepEqual(log, ['W1', 'R1', 'R2']);
  t.is(lock.readers, 2);
  lock.unlockRead();
  t.deepEqual(log, ['W1', 'R1', 'R2']);
  lock.unlockRead();
  t.deepEqual(log, ['W1', 'R1', 'R2', 'W2']);
  t.true(lock.writing);
});

test('drain waits for direct I/O in flight and needs the lock exclusive', (t) => {
  const { lock, log, go } = setup();
  t.throws(() => lock.beginDio());
  t.true(lock.tryRead());
  lock.beginDio();
  lock.beginDio();
  lock.unlockRead();
  t.throws(() => lock.drain().next(0), { message: /exclusive/ });
  t.true(lock.tryWrite());
  go('drained', lock.drain());
  lock.endDio();
  t.deepEqual(log, []);
  lock.endDio();
  t.deepEqual(log, ['drained']);
  t.is(lock.inFlight, 0);
  t.throws(() => lock.endDio());
});

test('unlocking what is not held is our own bug', (t) => {
  const { lock } = setup();
  t.throws(() => lock.unlockRead());
  t.throws(() => lock.unlockWrite());
});

test('a thousand waiters that release at once leave the stack flat and the lock free', (t) => {
  const { engine, lock } = setup();
  let active = 0;
  let done = 0;
  function* once(exclusive: boolean): Task<void> {
    yield* exclusive ? lock.write() : lock.read();
    active += 1;
    t.true(!exclusive || active === 1);
    active -= 1;
    done += 1;
    if (exclusive) lock.unlockWrite();
    else lock.unlockRead();
  }
  t.true(lock.tryWrite());
  for (let index = 0; index < 20_000; index += 1)
    void engine.run(once(index % 3 === 0), { failure: undefined });
  lock.unlockWrite();
  t.is(done, 20_000);
  t.true(lock.tryWrite());
});
