/** Single rules of A and C, and defects of the seed (S), that the longer tests do not name. */
import test from 'ava';

import type { Kiocb } from '../src/kiocb.js';
import { ProbeFlag } from '../src/native/boundary.js';
import { readIter } from '../src/read-iter/read-iter.js';
import { writeIter } from '../src/write-iter/write-iter.js';
import { isFree, setup } from './policy-setup.js';

const BOTH = [false, true] as const;

test('A8, C25.3: an overwrite ends inside i_size and is one run; either alone is not one', async (t) => {
  for (const inside of BOTH)
    for (const oneRun of BOTH) {
      const { native, counts, write } = setup();
      native.probe = oneRun ? ProbeFlag.OVERWRITE : 0;
      t.is(await write({ append: !inside }), 4096);
      t.is(counts.shared, inside && oneRun ? 1 : 0);
      t.is(counts.exclusiveBecause.notOverwrite, inside && !oneRun ? 1 : 0);
      t.is(counts.exclusiveBecause.extending, inside ? 0 : 1);
    }
});

test('A11, C12: a sync kiocb waits for any write; a promise alone for nothing', async (t) => {
  const { native, inode, io, engine } = setup();
  native.hold = true;
  const one = io();
  const promised = engine.run(writeIter(one), one);
  t.is(inode.lock.inFlight, 1);
  const other = io({ posBytes: 4096 });
  t.is(engine.runSync(writeIter(other), other), 4096);
  t.is(other.posBytes, 8192);
  await promised;
  t.true(isFree(inode));
});

test('C11, C12: the position advances by what was written, and not at all after an error', async (t) => {
  for (const [scripted, result, posBytes] of [
    [undefined, 4096, 4096],
    [-28, -28, 0],
    [-5, -5, 0],
  ] as const) {
    const { native, io, engine } = setup();
    if (scripted !== undefined) native.script.set('directWrite', [scripted]);
    const one = io();
    t.is(await engine.run(writeIter(one), one), result);
    t.is(one.posBytes, posBytes);
  }
});

test('C2, C3: inside i_size the first lock is shared, whatever the mapping; past it exclusive', (t) => {
  for (const probe of [ProbeFlag.OVERWRITE, ProbeFlag.OVERWRITE | ProbeFlag.UNWRITTEN, 0, ProbeFlag.UNKNOWN])
    for (const posBytes of [0, 8192]) {
      const { native, inode, io, engine } = setup();
      if (posBytes === 0) native.probe = probe;
      native.hold = true;
      const taken: string[] = [];
      for (const name of ['tryRead', 'tryWrite'] as const) {
        const original = inode.lock[name].bind(inode.lock);
        inode.lock[name] = () => {
          taken.push(name);
          return original();
        };
      }
      const one = io({ posBytes });
      void engine.run(writeIter(one), one);
      // The short cut tries the lock shared; it is the long way's first that counts.
      const long = taken.length > 1 ? taken[1] : taken[0];
      t.is(long, posBytes === 0 ? 'tryRead' : 'tryWrite');
    }
});

test('C13: whether direct I/O is supported is asked under the lock that the write goes on with', async (t) => {
  const { native, inode, write } = setup();
  const held: boolean[] = [];
  const probe = native.probeWrite.bind(native);
  native.probeWrite = (file, pos, len) => {
    if (len > 0) held.push(inode.lock.readers > 0 || inode.lock.writing);
    return probe(file, pos, len);
  };
  await write();
  await write({ posBytes: 8192 });
  await write({ direct: false });
  t.true(held.length >= 4);
  t.true(held.every(Boolean));
});

test('S2: orphan entries are added and dropped under the exclusive lock alone', async (t) => {
  const { native, inode, fake, write } = setup();
  const calls: string[] = [];
  for (const name of ['orphanAdd', 'orphanDelete', 'truncateToSize'] as const) {
    const original = native[name].bind(native);
    native[name] = (op: number) => {
      calls.push(`${name} ${inode.lock.writing ? 'exclusive' : 'shared'}`);
      original(op);
    };
  }
  await write({ posBytes: 8192 });
  native.script.set('directWrite', [-28]);
  await write({ append: true });
  // Inside i_size, past i_disksize: A8 alone would have shared it.
  fake.diskSize = 0;
  native.script.set('directWrite', [-11, 4096]);
  await write();
  t.deepEqual(calls, [
    'orphanAdd exclusive',
    'orphanAdd exclusive',
    'truncateToSize exclusive',
    'orphanAdd exclusive',
    'orphanDelete exclusive',
  ]);
});

test('S4: a sync unaligned write drains aligned ones in flight', async (t) => {
  const { native, io, engine } = setup();
  native.probe = ProbeFlag.OVERWRITE | ProbeFlag.UNWRITTEN;
  native.hold = true;
  const aligned = io();
  const running = engine.run(writeIter(aligned), aligned);
  const order: string[] = [];
  const original = native.directWrite.bind(native);
  native.directWrite = (...args) => {
    order.push(`in flight ${aligned.inode.lock.inFlight}`);
    original(...args);
  };
  const unaligned = io({ posBytes: 512, countBytes: 512 });
  t.is(engine.runSync(writeIter(unaligned), unaligned), 512);
  t.deepEqual(order, ['in flight 0']);
  await running;
});

test('A2: writers are not starved: who comes after a waiting writer waits behind it', async (t) => {
  const { native, io, engine, write } = setup();
  native.hold = true;
  const reading = io({ direct: false });
  const reader = engine.run(readIter(reading), reading);
  const extending = write({ append: true });
  const overwrites = [write(), write({ posBytes: 4096 })];
  const late: Kiocb = io({ direct: false });
  const lateReader = engine.run(readIter(late), late);
  t.deepEqual(native.calls, ['bufferedRead 4096@0']);
  native.release();
  t.deepEqual(native.calls.slice(1), ['orphanAdd']);
  native.release();
  native.release();
  t.deepEqual(native.calls.slice(2), [
    'directWrite exclusive flags=2 4096@8192',
    'directWrite shared flags=0 4096@0',
    'directWrite shared flags=0 4096@4096',
    'bufferedRead 4096@0',
  ]);
  native.release();
  await Promise.all([reader, extending, ...overwrites, lateReader]);
});
