/** A18: files whose device is memory, over a fake native layer. */
import test from 'ava';

import { readIter } from '../src/read-iter/read-iter.js';
import { OpenInode } from '../src/open-inode.js';
import { isFree, setup, type Setup } from './policy-setup.js';

/** As `setup`, of a file on memory. */
function daxSetup(sizeBytes?: number): Setup {
  const plain = setup(sizeBytes);
  const inode = new OpenInode(plain.fake.ino, plain.engine, plain.inode.limits, false, true);
  const io: Setup['io'] = (changes) => plain.io({ inode, direct: false, ...changes });
  return { ...plain, inode, io, write: (changes) => plain.write({ inode, direct: false, ...changes }) };
}

test('A18: an overwrite is stored in place, aligned or not, under the exclusive lock', async (t) => {
  const { native, write, inode, counts, fake } = daxSetup();
  native.cached = true;
  t.is(await write({ posBytes: 5, countBytes: 77 }), 77);
  t.deepEqual(native.calls, ['tryDaxWrite 77@5']);
  t.true(fake.data.subarray(5, 82).every((byte) => byte === 7));
  t.deepEqual([counts.dax, counts.buffered, counts.shared, counts.exclusive], [1, 0, 0, 0]);
  t.true(isFree(inode));
});

test('A18: what allocates takes the long way; it does not drain, for nothing is in flight', async (t) => {
  const { native, write, inode } = daxSetup();
  inode.lock.tryRead();
  inode.lock.beginDio();
  inode.lock.unlockRead();
  t.is(await write({ posBytes: 0, countBytes: 4096 }), 4096);
  t.deepEqual(native.calls, ['daxWrite 4096@0']);
  inode.lock.endDio();
});

test('A10, A15: an extension has its orphan before; a short or failed one is cut off', async (t) => {
  const { native, write, fake } = daxSetup();
  t.is(await write({ posBytes: 8192, countBytes: 4096 }), 4096);
  t.deepEqual(native.calls.splice(0), ['orphanAdd', 'daxWrite 4096@8192']);
  fake.diskSize = fake.size;
  native.script.set('daxWrite', [1000, -28]);
  t.is(await write({ posBytes: fake.size, countBytes: 4096 }), 1000);
  t.is(native.calls.splice(0).at(-1), 'truncateToSize');
  t.is(await write({ posBytes: fake.size + 5000, countBytes: 4096 }), -28);
  t.is(native.calls.splice(0).at(-1), 'truncateToSize');
});

test('A4: append, limits, flags and times as everywhere', async (t) => {
  const { native, write, fake, io } = daxSetup();
  const { maxFileBytes } = io().limits;
  t.is(await write({ posBytes: maxFileBytes }), -27);
  t.is(await write({ countBytes: 0 }), 0);
  fake.flags = 32;
  t.is(await write(), -1);
  fake.flags = 8;
  native.calls.length = 0;
  t.is(await write({ append: true, countBytes: 10 }), 10);
  t.deepEqual(native.calls.slice(-3), ['fileModified', 'orphanAdd', 'daxWrite 10@8192']);
});

test('A18: O_DSYNC syncs after the lock is free; O_SYNC the attributes too', async (t) => {
  const { native, write } = daxSetup();
  native.cached = true;
  await write({ dsync: true });
  await write({ dsync: true, sync: true });
  t.deepEqual(
    native.calls.filter((call) => call.endsWith('sync')),
    ['datasync', 'sync'],
  );
});

test('C5: NOWAIT is EAGAIN for a held lock, an extension, an allocation, and never goes the long way', async (t) => {
  const { native, write, inode, counts } = daxSetup();
  t.is(await write({ nowait: true }), -11);
  t.is(await write({ nowait: true, posBytes: 8192 }), -11);
  inode.lock.tryRead();
  t.is(await write({ nowait: true }), -11);
  inode.lock.unlockRead();
  t.deepEqual(native.calls, []);
  const { notOverwrite, extending, lock } = counts.nowaitRefusedBecause;
  t.deepEqual([notOverwrite, extending, lock], [1, 1, 1]);
  native.cached = true;
  t.is(await write({ nowait: true }), 4096);
});

test('C24: an atomic write of memory is EOPNOTSUPP', async (t) => {
  const { write } = daxSetup();
  t.is(await write({ atomic: true }), -95);
});

test('A18, A19: reads load in place, else by a job; NOWAIT does not', async (t) => {
  const { native, engine, io, inode } = daxSetup();
  const read = (changes: Parameters<Setup['io']>[0]): Promise<number> => {
    const one = io(changes);
    return engine.run(readIter(one), one);
  };
  t.is(await read({ countBytes: 100, posBytes: 3 }), 100);
  t.is(await read({ countBytes: 100, nowait: true }), -11);
  native.cached = true;
  t.is(await read({ countBytes: 100, nowait: true }), 100);
  t.is(await read({ countBytes: 100, posBytes: 9000 }), 0);
  t.deepEqual(native.calls, ['daxRead 100@3', 'tryDaxRead 100@0', 'tryDaxRead 100@9000']);
  t.true(isFree(inode));
});
