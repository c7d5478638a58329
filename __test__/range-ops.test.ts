/** Range operations over the fake native layer: which checks in which order, under which lock (C25's last sentence). */
import test from 'ava';

import { Engine, type Operation } from '../src/engine.js';
import { OpenInode } from '../src/open-inode.js';
import { fallocateBits, rangeOf } from '../src/range-arguments.js';
import {
  checkFallocate,
  extentsOfInode,
  fallocateInode,
  seekInode,
  truncateInode,
  type FileExtent,
} from '../src/range-ops.js';
import { FakeNative } from './fake-native.js';

const EBADF = 9;
const EINVAL = 22;
const ENXIO = 6;
const EOPNOTSUPP = 95;

function setup(): { native: FakeNative; engine: Engine; inode: OpenInode; file: number } {
  const native = new FakeNative();
  const engine = new Engine(native);
  const fake = native.addFile('/file', new Uint8Array(8192).fill(7));
  const limits = {
    blockBytes: 4096,
    offsetAlignBytes: 512,
    memoryAlignBytes: 4,
    maxFileBytes: 65536,
    atomicMinBytes: 0,
    atomicMaxBytes: 0,
    atomicJournalled: false,
  };
  return { native, engine, inode: new OpenInode(fake.ino, engine, limits), file: native.openInode(fake) };
}

const operation = (): Operation => ({ failure: undefined });

test("vfs_fallocate's order: an empty range, then the mode, then the open mode", (t) => {
  for (let bits = 0; bits < 256; bits += 1) {
    for (const [posBytes, lenBytes] of [
      [0, 1],
      [-1, 1],
      [0, 0],
      [0, -1],
    ] as const) {
      for (const writable of [true, false]) {
        const valid = posBytes >= 0 && lenBytes > 0;
        const supported = [0, 1, 3, 8, 0x10, 0x11, 0x20].includes(bits);
        let expected = writable ? 0 : -EBADF;
        if (!supported) expected = -EOPNOTSUPP;
        if (!valid) expected = -EINVAL;
        t.is(checkFallocate({ bits, posBytes, lenBytes, writable }), expected);
      }
    }
  }
});

test('names of modes and keepSize, as bits', (t) => {
  t.is(fallocateBits({}), 0);
  t.is(fallocateBits({ keepSize: true }), 1);
  t.is(fallocateBits({ mode: 'punch-hole' }), 3);
  t.is(fallocateBits({ mode: 'punch-hole', keepSize: false }), 2);
  t.is(fallocateBits({ mode: 'zero-range', keepSize: true }), 0x11);
  t.is(fallocateBits({ mode: 'collapse-range' }), 8);
  t.is(fallocateBits({ mode: 'insert-range' }), 0x20);
  t.is(fallocateBits({ mode: 0x40, keepSize: true }), 0x41);
  t.throws(() => fallocateBits({ mode: 'dig' as never }), { code: 'ERR_INVALID_ARG_VALUE' });
  t.throws(() => fallocateBits({ mode: 0.5 }), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => fallocateBits({ keepSize: 1 as never }), { code: 'ERR_INVALID_ARG_TYPE' });
  t.deepEqual(rangeOf({ position: 5 }), { posBytes: 5, lenBytes: Number.MAX_SAFE_INTEGER - 5 });
  t.throws(() => rangeOf({ position: -1 }), { code: 'ERR_OUT_OF_RANGE' });
});

const changes = {
  fallocate: (target: ReturnType<typeof setup>) =>
    fallocateInode(target, { bits: 3, posBytes: 0, lenBytes: 4096, sync: false }),
  truncate: (target: ReturnType<typeof setup>) => truncateInode(target, 4096),
};

for (const [name, change] of Object.entries(changes)) {
  test(`C25: ${name} waits for direct I/O in flight, and keeps it out`, async (t) => {
    const target = setup();
    const { engine, inode, native } = target;
    t.true(inode.lock.tryRead());
    inode.lock.beginDio();
    const done = engine.run(change(target), operation());
    t.deepEqual(native.calls, []);
    inode.lock.unlockRead();
    // The lock is granted; the direct I/O still runs.
    t.true(inode.lock.writing);
    t.deepEqual(native.calls, []);
    inode.lock.endDio();
    t.is(native.calls.length, 1);
    t.false(inode.lock.tryRead());
    t.is(await done, 0);
    t.true(inode.lock.tryWrite());
  });
}

test('a failed change gives the lock back and syncs nothing', async (t) => {
  const target = setup();
  target.native.script.set('fallocate', [-28]);
  const io = { bits: 0, posBytes: 0, lenBytes: 1, sync: true };
  t.is(await target.engine.run(fallocateInode(target, io), operation()), -28);
  t.deepEqual(target.native.calls, ['fallocate 0 1@0']);
  t.true(target.inode.lock.tryWrite());
});

test('A4.6: what would raise the size past maxFileSize is EFBIG, after file_modified, as in inode_newsize_ok', async (t) => {
  const cases = [
    [0, 65536, 1, ['fileModified'], -27],
    [0x10, 65536, 1, ['fileModified'], -27],
    [0, 65535, 1, ['fallocate 0 1@65535'], 0],
    [1, 65536, 1, ['fallocate 1 1@65536'], 0],
    [0, 2 ** 44, 1, [`fallocate 0 1@${2 ** 44}`], -27],
  ] as const;
  for (const [bits, posBytes, lenBytes, calls, expected] of cases) {
    const target = setup();
    target.native.script.set('fallocate', [expected]);
    const io = { bits, posBytes, lenBytes, sync: false };
    t.is(await target.engine.run(fallocateInode(target, io), operation()), expected);
    t.deepEqual(target.native.calls, calls);
  }
  const target = setup();
  t.is(await target.engine.run(truncateInode(target, 65537), operation()), -27);
  t.deepEqual(target.native.calls, []);
});

test('O_SYNC: durable when it reports', async (t) => {
  const target = setup();
  const io = { bits: 0x10, posBytes: 0, lenBytes: 512, sync: true };
  t.is(await target.engine.run(fallocateInode(target, io), operation()), 0);
  t.deepEqual(target.native.calls, ['fallocate 16 512@0', 'sync']);
});

test('looking takes the lock shared', async (t) => {
  const target = setup();
  const { engine, inode, native } = target;
  t.true(inode.lock.tryRead());
  t.is(await engine.run(seekInode(target, 8192, 3), operation()), -ENXIO);
  t.is(await engine.run(seekInode(target, 1, 4), operation()), 8192);
  inode.lock.unlockRead();
  t.true(inode.lock.tryWrite());
  const found: FileExtent[] = [];
  const done = engine.run(extentsOfInode(target, { posBytes: 0, lenBytes: 2 ** 40 }, found), operation());
  t.is(native.calls.filter((call) => call.startsWith('extents')).length, 0);
  inode.lock.unlockWrite();
  t.is(await done, 0);
  t.deepEqual(found, [
    {
      logical: 0,
      physical: 4096,
      length: 8192,
      unwritten: false,
      delalloc: false,
      last: true,
      inline: false,
    },
  ]);
});

test('extents come in as many calls as it takes', async (t) => {
  const target = setup();
  const answers = [
    [0, 4096, 4096, 1],
    [8192, 8192, 4096, 4],
  ];
  const asked: number[] = [];
  target.native.extents = (op, _file, pos) => {
    asked.push(pos);
    const numbers = answers.shift() ?? [];
    target.native.answer(op, numbers.length / 4, numbers);
  };
  const found: FileExtent[] = [];
  t.is(
    await target.engine.run(extentsOfInode(target, { posBytes: 0, lenBytes: 2 ** 40 }, found), operation()),
    0,
  );
  t.deepEqual(asked, [0, 4096]);
  t.deepEqual(
    found.map(({ logical, unwritten, last }) => [logical, unwritten, last]),
    [
      [0, true, false],
      [8192, false, true],
    ],
  );
});
