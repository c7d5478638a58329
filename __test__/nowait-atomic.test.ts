/** NOWAIT (C5, E29, E30) and atomic writes (C24) over the fake native layer. */
import test from 'ava';

import { ProbeFlag } from '../src/native/boundary.js';
import { readIter } from '../src/read-iter/read-iter.js';
import { writeIter } from '../src/write-iter/write-iter.js';
import { isFree, setup } from './policy-setup.js';

test('C5, C25.6: NOWAIT sets the times where that needs no waiting, a misaligned one too; else EAGAIN', async (t) => {
  const { native, fake, counts, write } = setup();
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  native.tryModified = 0;
  t.is(await write({ nowait: true }), 4096);
  t.is(await write({ nowait: true, posBytes: 1 }), -22);
  t.deepEqual(native.calls, ['tryFileModified', 'directWrite shared flags=4 4096@0', 'tryFileModified']);
  native.tryModified = -11;
  t.is(await write({ nowait: true }), -11);
  t.is(counts.nowaitRefusedBecause.times, 1);
});

test('A2, C5, E29, S1: NOWAIT is EAGAIN for a held lock, a hole, an extension, an unknown mapping, privileges', async (t) => {
  const { native, fake, inode, counts, write } = setup();
  inode.lock.tryWrite();
  t.is(await write({ nowait: true }), -11);
  inode.lock.unlockWrite();
  t.is(await write({ nowait: true, posBytes: 8192 }), -11);
  t.is(await write({ nowait: true, append: true }), -11);
  const unaligned = { posBytes: 512, countBytes: 512 };
  for (const [probe, changes] of [
    [0, {}],
    [ProbeFlag.UNKNOWN, {}],
    [ProbeFlag.OVERWRITE | ProbeFlag.MAY_STRIP, {}],
    [ProbeFlag.OVERWRITE | ProbeFlag.UNWRITTEN, unaligned],
  ] as const) {
    native.probe = probe;
    t.is(await write({ nowait: true, ...changes }), -11);
  }
  native.probe = undefined;
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  t.is(await write({ nowait: true }), -11);
  t.deepEqual(native.calls, []);
  t.is(await write({ nowait: true, direct: false }), -95);
  t.is(counts.nowaitRefused, 9);
  t.like(counts.nowaitRefusedBecause, {
    lock: 1,
    extending: 2,
    notOverwrite: 1,
    mapping: 1,
    privileges: 1,
    unalignedUnwritten: 1,
    times: 1,
    buffered: 1,
  });
  t.true(isFree(inode));
});

test('B4, C5: NOWAIT where the range has cached pages is the EAGAIN of the engine, and never starts again', async (t) => {
  const { native, inode, counts, write } = setup();
  native.script.set('directWrite', [-11]);
  t.is(await write({ nowait: true }), -11);
  t.deepEqual(native.calls, ['directWrite shared flags=4 4096@0']);
  t.deepEqual([counts.nowaitRefusedBecause.pages, counts.shared, counts.upgraded], [1, 0, 0]);
  t.true(isFree(inode));
});

test('C5: a NOWAIT write that needs nothing goes through; unaligned over written blocks too (C10)', async (t) => {
  const { native, counts, write } = setup();
  t.is(await write({ nowait: true }), 4096);
  t.is(await write({ nowait: true, posBytes: 512, countBytes: 512 }), 512);
  t.deepEqual(native.calls, ['directWrite shared flags=4 4096@0', 'directWrite shared flags=4 512@512']);
  t.deepEqual([counts.shared, counts.nowaitRefused], [2, 0]);
});

test('E30: NOWAIT where direct I/O is unsupported is EOPNOTSUPP', async (t) => {
  const { fake, write } = setup();
  fake.flags = ProbeFlag.DIO_UNSUPPORTED;
  t.is(await write({ nowait: true }), -95);
});

test('C5: NOWAIT goes with every read, direct and buffered', async (t) => {
  const { native, inode, io, engine } = setup();
  for (const direct of [true, false]) {
    const one = io({ nowait: true, direct });
    t.is(await engine.run(readIter(one), one), 4096);
  }
  t.deepEqual(native.calls, ['directRead flags=4 4096@0', 'bufferedRead flags=4 4096@0']);
  t.true(isFree(inode));
});

test('C24: an atomic write is checked before any lock, shares it like any other, and says so to the engine', async (t) => {
  const { native, inode, write } = setup();
  inode.lock.tryWrite();
  t.is(await write({ atomic: true, countBytes: 512 }), -22);
  t.is(await write({ atomic: true, posBytes: 512 }), -22);
  t.is(await write({ atomic: true, direct: false }), -95);
  inode.lock.unlockWrite();
  t.is(await write({ atomic: true }), 4096);
  t.deepEqual(native.calls, ['directWrite shared flags=8 4096@0']);
});

test('C24: through the journal it is exclusive, drains, and keeps the lock to its end', async (t) => {
  const { native, inode, counts, io, engine } = setup();
  native.hold = true;
  const plain = io();
  const first = engine.run(writeIter(plain), plain);
  const one = io({ atomic: true, limits: { ...plain.limits, atomicJournalled: true } });
  const done = engine.run(writeIter(one), one);
  t.deepEqual(native.calls, ['directWrite shared flags=0 4096@0']);
  t.is(inode.lock.inFlight, 1);
  native.release();
  t.is(native.calls.at(-1), 'directWrite exclusive flags=8 4096@0');
  t.true(inode.lock.writing);
  native.release();
  t.deepEqual(await Promise.all([first, done]), [4096, 4096]);
  t.like(counts, { exclusive: 1, upgraded: 1, drained: 1 });
  t.deepEqual([counts.exclusiveBecause.atomic, counts.drainedBecause.atomic], [1, 1]);
  t.true(isFree(inode));
});

test('C24, B4: an atomic write never falls back to the page cache', async (t) => {
  const { native, fake, counts, write } = setup();
  for (const [scripted, result] of [
    [-15, -11],
    [1024, -5],
    [-28, -28],
  ] as const) {
    native.script.set('directWrite', [scripted]);
    t.is(await write({ atomic: true }), result);
  }
  fake.flags = ProbeFlag.DIO_UNSUPPORTED;
  t.is(await write({ atomic: true }), -95);
  t.false(native.calls.some((call) => call.startsWith('buffered')));
  t.is(counts.fellBack, 0);
});
