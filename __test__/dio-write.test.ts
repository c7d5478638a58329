/** C25 from end to end over the fake native layer: which calls, in which order, under which lock. */
import test from 'ava';

import type { Kiocb } from '../src/kiocb.js';
import { ProbeFlag } from '../src/native/boundary.js';
import { OpenInode } from '../src/open-inode.js';
import { readIter } from '../src/read-iter/read-iter.js';
import { writeIter } from '../src/write-iter/write-iter.js';
import { Turns } from '../src/turns.js';
import { isFree, setup } from './policy-setup.js';

test('C25.1–7: an aligned overwrite is shared, one submission and nothing else', async (t) => {
  const { native, inode, write } = setup();
  t.is(await write(), 4096);
  t.deepEqual(native.calls, ['directWrite shared flags=0 4096@0']);
  t.true(isFree(inode));
});

test('C9: an aligned overwrite of unwritten blocks is shared', async (t) => {
  const { native, write } = setup();
  native.probe = ProbeFlag.OVERWRITE | ProbeFlag.UNWRITTEN;
  await write();
  t.deepEqual(native.calls, ['directWrite shared flags=0 4096@0']);
});

test('C10: an unaligned overwrite of written blocks is shared', async (t) => {
  const { native, write } = setup();
  await write({ posBytes: 512, countBytes: 512 });
  t.deepEqual(native.calls, ['directWrite shared flags=0 512@512']);
});

test('C25.4: an unaligned write of unwritten blocks starts again exclusive', async (t) => {
  const { native, write } = setup();
  native.probe = ProbeFlag.OVERWRITE | ProbeFlag.UNWRITTEN;
  await write({ posBytes: 512, countBytes: 512 });
  t.deepEqual(native.calls, ['directWrite exclusive flags=0 512@512']);
});

test('C25.4: a hole inside i_size is exclusive', async (t) => {
  const { native, write } = setup();
  native.probe = 0;
  await write();
  t.deepEqual(native.calls, ['directWrite exclusive flags=0 4096@0']);
});

test('C25.3: an unknown mapping is looked up, and stays shared when it is an overwrite', async (t) => {
  const { native, write } = setup();
  native.probe = ProbeFlag.UNKNOWN;
  await write();
  t.deepEqual(native.calls, ['lookupWrite', 'directWrite shared flags=0 4096@0']);
});

test('C25.3: a failing lookup is the result, and the lock is free', async (t) => {
  const { native, inode, write } = setup();
  native.probe = ProbeFlag.UNKNOWN;
  native.script.set('lookupWrite', [-117]);
  t.is(await write(), -117);
  t.true(isFree(inode));
});

test('C25.4, C25.6: privileges are stripped under the exclusive lock', async (t) => {
  const { native, fake, write } = setup();
  fake.flags = ProbeFlag.MAY_STRIP | ProbeFlag.NEEDS_MODIFIED;
  await write();
  t.deepEqual(native.calls, ['fileModified', 'directWrite exclusive flags=0 4096@0']);
});

test('C25.6: times that are due are set in place, after every check, and the fast path goes on', async (t) => {
  const { native, fake, write } = setup();
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  native.tryModified = 0;
  t.is(await write(), 4096);
  t.deepEqual(native.calls, ['tryFileModified', 'directWrite shared flags=0 4096@0']);
});

test('C25.6: a misaligned write sets the times too, and writes nothing', async (t) => {
  const { native, fake, write } = setup();
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  native.tryModified = 0;
  t.is(await write({ posBytes: 100 }), -22);
  t.deepEqual(native.calls, ['tryFileModified']);
});

test('C25.6: times alone are updated under the shared lock', async (t) => {
  const { native, fake, write } = setup();
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  await write();
  t.deepEqual(native.calls, ['fileModified', 'directWrite shared flags=0 4096@0']);
});

test('A4.9: an error of file_modified is returned', async (t) => {
  const { native, fake, inode, write } = setup();
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  native.script.set('fileModified', [-5]);
  t.is(await write(), -5);
  t.deepEqual(native.calls, ['fileModified']);
  t.true(isFree(inode));
});

test('C25.6: a misaligned write is EINVAL after file_modified, and writes nothing', async (t) => {
  const { native, fake, write } = setup();
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  t.is(await write({ posBytes: 1 }), -22);
  t.is(await write({ memoryBits: 2 }), -22);
  t.is(await write({ posBytes: 8192, countBytes: 100 }), -22);
  t.deepEqual(native.calls, ['fileModified', 'fileModified', 'fileModified']);
});

test('C25.7–8: an extending write is exclusive, with the orphan first', async (t) => {
  const { native, fake, inode, write } = setup();
  t.is(await write({ posBytes: 8192 }), 4096);
  t.deepEqual(native.calls, ['orphanAdd', 'directWrite exclusive flags=2 4096@8192']);
  t.is(fake.size, 12288);
  t.true(isFree(inode));
});

test('C25.5: an extending write keeps the lock until it has ended', async (t) => {
  const { native, inode, write } = setup();
  const done = write({ posBytes: 8192 });
  native.hold = true;
  await new Promise((resolve) => setImmediate(resolve));
  native.release();
  t.is(native.calls.at(-1), 'directWrite exclusive flags=2 4096@8192');
  t.true(inode.lock.writing);
  native.release();
  await done;
  t.true(isFree(inode));
});

test('C25.5: an exclusive aligned write into a hole releases the lock at submission', async (t) => {
  const { native, inode, write } = setup();
  native.probe = 0;
  native.hold = true;
  const done = write();
  t.false(inode.lock.writing);
  t.is(inode.lock.inFlight, 1);
  native.release();
  await done;
  t.is(inode.lock.inFlight, 0);
});

test('C25.5, S4: an unaligned write into a hole drains what is in flight first', async (t) => {
  const { native, write } = setup();
  native.hold = true;
  const aligned = write();
  native.probe = 0;
  const unaligned = write({ posBytes: 4096 + 512, countBytes: 512 });
  t.deepEqual(native.calls, ['directWrite shared flags=0 4096@0']);
  native.release();
  t.deepEqual(native.calls.slice(1), ['directWrite exclusive flags=0 512@4608']);
  native.release();
  await Promise.all([aligned, unaligned]);
});

test('A10: an orphan that cannot be added stops the write', async (t) => {
  const { native, inode, write } = setup();
  native.script.set('orphanAdd', [-28]);
  t.is(await write({ posBytes: 8192 }), -28);
  t.deepEqual(native.calls, ['orphanAdd']);
  t.true(isFree(inode));
});

test('C25.9, E37: a failed extending write truncates what it allocated, still locked', async (t) => {
  const { native, inode, write, io, engine } = setup();
  native.script.set('directWrite', [-28]);
  const one = io({ posBytes: 8192 });
  t.is(await engine.run(writeIter(one), one), -28);
  t.deepEqual(native.calls.slice(-1), ['truncateToSize']);
  t.deepEqual(one.failure, { message: 'scripted', place: 'directWrite in a test' });
  t.true(isFree(inode));
  native.script.set('directWrite', [-28]);
  native.script.set('truncateToSize', [-5]);
  t.is(await write({ posBytes: 8192 }), -28);
});

test('C25.9, C25.10: a short extending write truncates, unlocks and goes on buffered', async (t) => {
  const { native, write } = setup();
  native.script.set('directWrite', [1024]);
  t.is(await write({ posBytes: 8192 }), 4096);
  t.deepEqual(native.calls.slice(2), [
    'truncateToSize',
    'bufferedWrite 3072@9216',
    'writeAndWait 3072@9216',
    'invalidate 3072@9216',
  ]);
});

test('E35: a full write inside i_size but past i_disksize drops the orphan itself', async (t) => {
  const { native, fake, write } = setup();
  fake.diskSize = 4096;
  native.script.set('directWrite', [-11]);
  await write({ posBytes: 4096 });
  t.deepEqual(native.calls, [
    'directWrite shared flags=0 4096@4096',
    'orphanAdd',
    'directWrite exclusive flags=2 4096@4096',
    'orphanDelete',
  ]);
});

test('EAGAIN under the shared lock starts again exclusive, once', async (t) => {
  const { native, inode, write } = setup();
  native.script.set('directWrite', [-11, -11]);
  t.is(await write(), -11);
  t.deepEqual(native.calls, ['directWrite shared flags=0 4096@0', 'directWrite exclusive flags=0 4096@0']);
  t.true(isFree(inode));
});

test('C25.7, C6: ENOTBLK becomes 0 and the whole write goes buffered', async (t) => {
  const { native, io, engine } = setup();
  native.script.set('directWrite', [-15]);
  const one = io();
  t.is(await engine.run(writeIter(one), one), 4096);
  t.is(one.posBytes, 4096);
  t.deepEqual(native.calls.slice(1), ['bufferedWrite 4096@0', 'writeAndWait 4096@0', 'invalidate 4096@0']);
});

test('S6, E40: the prefix is reported when the buffered tail fails', async (t) => {
  for (const failing of ['bufferedWrite', 'writeAndWait']) {
    const { native, io, engine } = setup();
    native.script.set('directWrite', [1024]);
    native.script.set(failing, [-28]);
    const one = io();
    t.is(await engine.run(writeIter(one), one), 1024);
    t.is(one.posBytes, 1024);
  }
});

test('A16: invalidation after the tail is best effort', async (t) => {
  const { native, write } = setup();
  native.script.set('directWrite', [0]);
  native.script.set('invalidate', [-16]);
  t.is(await write(), 4096);
});

test('S7, E41: the tail of a short append goes to the end of file by then, and that range is flushed', async (t) => {
  const { native, fake, io, engine } = setup();
  native.script.set('directWrite', [1024]);
  native.hold = true;
  const one = io({ append: true });
  const done = engine.run(writeIter(one), one);
  native.release(); // orphanAdd
  native.release(); // directWrite: short
  fake.size = 20480; // another appender, before the tail has its lock
  native.hold = false;
  native.release(); // truncateToSize
  t.is(await done, 4096);
  t.deepEqual(native.calls.slice(3), [
    'bufferedWrite 3072@20480',
    'writeAndWait 3072@20480',
    'invalidate 3072@20480',
  ]);
  t.is(one.posBytes, 23552);
});

test('C25.2, A3: unsupported direct I/O unlocks and goes buffered', async (t) => {
  const { native, fake, inode, write } = setup();
  fake.flags = ProbeFlag.DIO_UNSUPPORTED;
  t.is(await write({ posBytes: 3, countBytes: 10 }), 10);
  t.deepEqual(native.calls, ['bufferedWrite 10@3']);
  t.true(isFree(inode));
});

test('A1, C23: shutdown is EIO, an emergency EROFS, on every path and before anything else', async (t) => {
  const { native, inode, write } = setup();
  inode.lock.tryWrite();
  for (const path of [
    { direct: true },
    { direct: false },
    { nowait: true },
    { atomic: true, countBytes: 5 },
    { countBytes: 0 },
  ]) {
    native.probe = -5;
    t.is(await write(path), -5);
    native.probe = ProbeFlag.READ_ONLY | ProbeFlag.IMMUTABLE;
    t.is(await write(path), -30);
  }
  t.deepEqual(native.calls, []);
  inode.lock.unlockWrite();
  t.true(isFree(inode));
});

test('A4.1–3: immutable is EPERM even for 0 bytes; 0 bytes touch nothing', async (t) => {
  const { native, fake, write } = setup();
  for (const direct of [true, false]) {
    fake.flags = ProbeFlag.NEEDS_MODIFIED;
    t.is(await write({ direct, countBytes: 0 }), 0);
    fake.flags = ProbeFlag.IMMUTABLE;
    t.is(await write({ direct, countBytes: 0 }), -1);
    t.is(await write({ direct }), -1);
  }
  t.deepEqual(native.calls, []);
});

test('A4.7: a write across the largest size is clipped, one at it EFBIG', async (t) => {
  const { native, write } = setup();
  native.script.set('directWrite', [4096]);
  t.is(await write({ posBytes: 2 ** 40 - 4096, countBytes: 8192 }), 4096);
  t.is(native.calls.at(-1), `directWrite exclusive flags=2 4096@${2 ** 40 - 4096}`);
  t.is(await write({ posBytes: 2 ** 40 }), -27);
});

test('A17: buffered write: exclusive, file_modified, copy, then O_DSYNC or O_SYNC', async (t) => {
  const { native, fake, write } = setup();
  fake.flags = ProbeFlag.NEEDS_MODIFIED;
  await write({ direct: false, dsync: true });
  await write({ direct: false, dsync: true, sync: true });
  t.deepEqual(native.calls, [
    'fileModified',
    'bufferedWrite 4096@0',
    'datasync',
    'fileModified',
    'bufferedWrite 4096@0',
    'sync',
  ]);
  native.script.set('datasync', [-5]);
  t.is(await write({ direct: false, dsync: true }), -5);
});

test('E8: a buffered write waits for the direct I/O in flight, whose block it may be about to read', async (t) => {
  const { native, write } = setup();
  native.hold = true;
  const direct = write({ countBytes: 512 });
  const buffered = write({ direct: false, posBytes: 512, countBytes: 100 });
  t.deepEqual(native.calls, ['directWrite shared flags=0 512@0']);
  native.release();
  t.is(await direct, 512);
  native.release();
  t.is(await buffered, 100);
  t.deepEqual(native.calls.slice(1), ['bufferedWrite 100@512']);
});

test("B8, B11: O_DSYNC is the submission's business, O_SYNC syncs afterwards", async (t) => {
  const { native, write } = setup();
  await write({ dsync: true });
  await write({ dsync: true, sync: true });
  t.deepEqual(native.calls, [
    'directWrite shared flags=1 4096@0',
    'directWrite shared flags=0 4096@0',
    'sync',
  ]);
});

test('A19: reads are shared and counted in flight; empty ones take no lock', async (t) => {
  const { native, inode, io, engine } = setup();
  native.hold = true;
  const one = io();
  const done = engine.run(readIter(one), one);
  t.is(inode.lock.inFlight, 1);
  t.is(inode.lock.readers, 0);
  native.release();
  t.is(await done, 4096);
  t.is(one.posBytes, 4096);
  const none = io({ countBytes: 0 });
  inode.lock.tryWrite();
  t.is(await engine.run(readIter(none), none), 0);
  const nowait = io({ nowait: true });
  t.is(await engine.run(readIter(nowait), nowait), -11);
  inode.lock.unlockWrite();
  t.deepEqual(native.calls, ['directRead 4096@0']);
});

test('A19: a read moves the time of access where that is due, whatever it comes to', async (t) => {
  const { native, engine, io } = setup();
  native.probe = ProbeFlag.ACCESS_DUE;
  for (const changes of [{}, { direct: false }, { countBytes: 0 }]) {
    const read = io(changes);
    await engine.run(readIter(read), read);
  }
  t.deepEqual(
    native.calls.map((call) => call.split(' ')[0]),
    ['tryFileAccessed', 'directRead', 'tryFileAccessed', 'bufferedRead'],
  );
});

test('A19: buffered reads hold the lock shared; unsupported direct reads go buffered', async (t) => {
  const { native, fake, inode, io, engine } = setup();
  fake.flags = ProbeFlag.DIO_UNSUPPORTED;
  native.hold = true;
  const one = io();
  const done = engine.run(readIter(one), one);
  t.is(inode.lock.readers, 1);
  native.release();
  await done;
  t.deepEqual(native.calls, ['bufferedRead 4096@0']);
  t.true(isFree(inode));
});

test('A17, A19: a hit in the cache needs no worker; the lock decides as ever', async (t) => {
  const { native, inode, io, write, engine } = setup();
  native.cached = true;
  native.tryModified = 0;
  t.is(await write({ direct: false, posBytes: 4096 }), 4096);
  const one = io({ direct: false });
  t.is(await engine.run(readIter(one), one), 4096);
  t.is(one.posBytes, 4096);
  t.is(engine.runSync(readIter(one), one), 4096);
  t.deepEqual(native.calls, [
    'tryBufferedWrite 4096@4096',
    'tryBufferedRead 4096@0',
    'tryBufferedRead 4096@4096',
  ]);
  t.true(isFree(inode));
  inode.lock.tryWrite();
  const waiting = engine.run(readIter(one), one);
  t.is(native.calls.length, 3);
  inode.lock.unlockWrite();
  await waiting;
  t.true(isFree(inode));
});

test('sync driver: a sync write completes while asynchronous ones are in flight, and completes them too', async (t) => {
  const { native, io, engine } = setup();
  native.hold = true;
  const order: string[] = [];
  const pending = [0, 4096].map(async (posBytes) => {
    const one = io({ posBytes });
    await engine.run(writeIter(one), one);
    order.push('async');
  });
  const extending = io({ append: true });
  t.is(engine.runSync(writeIter(extending), extending), 4096);
  order.push('sync');
  await Promise.all(pending);
  // Reactions of what completed meanwhile run after the sync call has returned.
  t.deepEqual(order, ['sync', 'async', 'async']);
});

test('sync driver: it waits for a lock that an asynchronous write holds, without a deadlock', async (t) => {
  const { native, io, engine, fake } = setup();
  native.hold = true;
  const first = io({ append: true });
  const running = engine.run(writeIter(first), first);
  const second = io({ append: true });
  t.is(engine.runSync(writeIter(second), second), 4096);
  t.is(await running, 4096);
  t.is(fake.size, 16384);
  t.is(first.posBytes, 12288);
  t.is(second.posBytes, 16384);
});

test('promise driver: one doorbell per tick', async (t) => {
  const { native, write } = setup();
  await Promise.all(Array.from({ length: 32 }, () => write()));
  t.is(native.submits, 1);
});

test('promise driver: a loop of calls that end at once does not starve the event loop', async (t) => {
  // Each look at the clock costs 10 µs: the budget of a turn is spent after some 200 calls.
  let time = 0;
  const now = (): number => (time += 0.01);
  const { io, engine, fake } = setup(8192, new Turns({ now, immediate: (work) => void setImmediate(work) }));
  fake.size = 0;
  const turned = new Set<number>();
  setImmediate(() => turned.add(1));
  let calls = 0;
  while (turned.size === 0 && calls < 1000) {
    const empty = io({ countBytes: 0 });
    await engine.run(readIter(empty), empty);
    calls += 1;
  }
  t.true(calls > 10 && calls < 1000);
});

test('a native call that throws gives the lock and the token back', async (t) => {
  const { native, inode, write } = setup();
  const original = native.directWrite.bind(native);
  native.directWrite = () => {
    throw new TypeError('boundary');
  };
  await t.throwsAsync(write(), { message: 'boundary' });
  await t.throwsAsync(write({ posBytes: 8192 }), { message: 'boundary' });
  native.directWrite = original;
  t.true(isFree(inode));
  t.is(await write(), 4096);
});

test('A12, E31: a hole of a bitmap-format file is ENOTBLK: buffered, and counted as such', async (t) => {
  const { native, engine, counts, io } = setup();
  native.probe = 0;
  native.script.set('directWrite', [-15]);
  const plain = io();
  const inode = new OpenInode(77, engine, plain.limits, true);
  const one = io({ inode });
  t.is(await engine.run(writeIter(one), one), 4096);
  t.deepEqual(native.calls, [
    'directWrite exclusive flags=0 4096@0',
    'bufferedWrite 4096@0',
    'writeAndWait 4096@0',
    'invalidate 4096@0',
  ]);
  t.deepEqual([counts.fellBackBecause.hole, counts.fellBackBecause.pagesBusy], [1, 0]);
});

test('S8, E42: ENOTBLK past i_size and a failing tail leave the size as it was', async (t) => {
  const { native, fake, write } = setup();
  native.script.set('directWrite', [-15]);
  native.script.set('bufferedWrite', [-28]);
  t.is(await write({ posBytes: 16384 }), -28);
  t.is(fake.size, 8192);
  t.deepEqual(native.calls, [
    'orphanAdd',
    'directWrite exclusive flags=2 4096@16384',
    'truncateToSize',
    'bufferedWrite 4096@16384',
  ]);
});

test('A4.6: maxFileSize clips and refuses also what lies inside i_size', async (t) => {
  const { native, io, engine } = setup();
  const limits = { ...io().limits, maxFileBytes: 4096 + 512 };
  const write = async (changes: Partial<Kiocb>): Promise<number> => {
    const one = io({ limits, ...changes });
    return engine.run(writeIter(one), one);
  };
  for (const direct of [true, false]) {
    native.calls.length = 0;
    t.is(await write({ direct, posBytes: 4096 }), 512);
    t.is(await write({ direct, posBytes: 4096 + 512 }), -27);
    t.is(await write({ direct, posBytes: 4096 + 512, countBytes: 0 }), 0);
    t.is(await write({ direct, append: true }), -27);
    t.is(native.calls.length, 1);
  }
  // The clipped count is what is judged: it ends inside a device block.
  t.is(await write({ limits: { ...limits, maxFileBytes: 4096 + 100 }, posBytes: 4096 }), -22);
});

test('every write is counted once, with the reason where it is exclusive or falls back', async (t) => {
  const { native, fake, counts, write } = setup();
  await write();
  t.is(counts.shared, 1);
  await write({ posBytes: 8192 });
  t.is(counts.exclusiveBecause.extending, 1);
  native.script.set('directWrite', [-11]);
  await write();
  t.deepEqual([counts.shared, counts.exclusive, counts.upgraded], [1, 2, 1]);
  t.is(counts.upgradedBecause.refused, 1);
  t.deepEqual(counts.sharedBecause, { written: 1, unaligned: 0, unwritten: 0 });
  t.is(counts.exclusiveBecause.guessed, 1);
  native.script.set('directWrite', [-15]);
  await write();
  t.is(counts.fellBackBecause.pagesBusy, 1);
  native.script.set('directWrite', [512]);
  await write();
  t.is(counts.fellBackBecause.short, 1);
  await write({ direct: false });
  t.is(counts.buffered, 1);
  fake.flags = ProbeFlag.DIO_UNSUPPORTED;
  await write();
  t.is(counts.fellBackBecause.unsupported, 1);
  const reasons = Object.values(counts.exclusiveBecause).reduce((sum, count) => sum + count, 0);
  t.is(reasons, counts.exclusive);
});
