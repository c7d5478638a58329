/** Direct files through the public API, and the memory they want. */
import { constants } from 'node:fs';

import test from 'ava';

import { allocAligned, memoryAddress, onMemory } from '../src/aligned-memory.js';
import { Engine } from '../src/engine.js';
import { gather, memoryBits, readTarget, scatter, type Segment } from '../src/iov.js';
import { ProbeFlag } from '../src/native/boundary.js';
import { Volume } from '../src/volume.js';
import { FakeNative } from './fake-native.js';

async function setup(direct = true): Promise<{ native: FakeNative; volume: Volume }> {
  const native = new FakeNative();
  const volume = await Volume.openOn(new Engine(native), '/image', { direct });
  native.addFile('/file', Buffer.alloc(8192));
  native.calls.length = 0;
  return { native, volume };
}

test('allocAligned: zeroed, page-aligned, apart from each other, judged by its own address', (t) => {
  const first = allocAligned(100);
  const second = allocAligned(4096);
  t.is(first.length, 100);
  t.true(first.every((byte) => byte === 0));
  for (const buffer of [first, second, allocAligned(8 * 1024 * 1024)]) t.is(buffer.byteOffset % 4096, 0);
  t.not(first.byteOffset, second.byteOffset);
  t.is(memoryAddress(second, 2) % 4096, 2);
  t.is(memoryAddress(Buffer.alloc(10).subarray(1), 2), 0);
  t.throws(() => allocAligned(-1), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => allocAligned('1' as unknown as number), { code: 'ERR_INVALID_ARG_TYPE' });
});

test('allocAligned: the memory cannot be detached, and the native layer hears of every one', (t) => {
  const buffer = allocAligned(4096);
  buffer[0] = 7;
  try {
    structuredClone(buffer.buffer, { transfer: [buffer.buffer] });
  } catch {
    // Newer Node throws, 20 copies.
  }
  t.is(buffer.length, 4096);
  t.is(buffer[0], 7);
  const heard: Uint8Array[] = [];
  onMemory({ registerMemory: (memory) => void heard.push(memory), memoryInUse: () => false });
  t.true(heard.some((memory) => memory.buffer === buffer.buffer));
});

const place = (buffer: Buffer) => [buffer.buffer, buffer.byteOffset];

test('allocAligned: what is released is used again, zeroed, and not while somebody uses it', (t) => {
  let busy: ArrayBufferLike | undefined;
  onMemory({ registerMemory: () => undefined, memoryInUse: (memory) => memory.buffer === busy });
  const first = allocAligned(12_288).fill(7);
  const was = place(first);
  first.release();
  first.release();
  const second = allocAligned(12_000);
  t.deepEqual(place(second), was);
  t.true(second.every((byte) => byte === 0));
  t.notDeepEqual(place(allocAligned(12_288)), was, 'released once is free once');
  busy = second.buffer;
  second[Symbol.dispose]();
  t.notDeepEqual(place(allocAligned(12_288)), was);
  busy = undefined;
  t.deepEqual(place(allocAligned(12_288)), was);
  t.true(Buffer.isBuffer(second));
  t.is(typeof (second.subarray(1) as { release?: unknown }).release, 'undefined');
});

test('O_DIRECT in the flags, or the whole volume: an overwrite is one native write', async (t) => {
  const { native, volume } = await setup(false);
  const file = await volume.open('/file', constants.O_RDWR | constants.O_DIRECT);
  native.calls.length = 0;
  await file.write(allocAligned(4096), 0, 4096, 4096);
  t.deepEqual(native.calls, ['directWrite shared flags=0 4096@4096']);
  await file.close();
});

test('C25.4: an overwrite that the native layer refuses under the shared lock goes on exclusive', async (t) => {
  const { native, volume } = await setup();
  const file = await volume.open('/file', 'r+');
  native.calls.length = 0;
  native.script.set('directWrite', [-11]);
  t.is((await file.write(Buffer.alloc(4096), 0, 4096, 0)).bytesWritten, 4096);
  t.deepEqual(native.calls, ['directWrite shared flags=0 4096@0', 'directWrite exclusive flags=0 4096@0']);
  native.script.set('directWrite', [-5]);
  await t.throwsAsync(file.write(Buffer.alloc(4096), 0, 4096, 0), {
    code: 'EIO',
    message: 'EIO: i/o error, write',
  });
  native.script.set('directWrite', [512]);
  t.is((await file.write(Buffer.alloc(4096), 0, 4096, 0)).bytesWritten, 4096);
  t.true(native.calls.includes('bufferedWrite 3584@512'));
  await file.close();
});

test('misaligned direct writes are EINVAL; a buffer elsewhere is copied and so aligned', async (t) => {
  const { volume } = await setup();
  const file = await volume.open('/file', 'r+');
  const aligned = allocAligned(8192);
  const einval = { code: 'EINVAL', message: 'EINVAL: invalid argument, write' };
  await t.throwsAsync(file.write(aligned, 0, 100, 0), einval);
  await t.throwsAsync(file.write(aligned, 0, 4096, 7), einval);
  await t.throwsAsync(file.write(aligned, 2, 4096, 0), einval);
  await t.throwsAsync(file.write(aligned, 0, 4096, -5), einval);
  const odd = Buffer.alloc(8192).subarray(1);
  t.is((await file.write(odd, 2, 4096, 0)).bytesWritten, 4096);
  await file.close();
});

test('writeFile and readFile: the body direct, the tail buffered', async (t) => {
  const { native, volume } = await setup();
  const data = Buffer.from(Array.from({ length: 5000 }, (_, index) => index % 251));
  await volume.writeFile('/new', data);
  t.deepEqual(
    native.calls.filter((call) => /Write|orphan/.test(call)),
    ['orphanAdd', 'directWrite exclusive flags=2 4608@0', 'bufferedWrite 392@4608'],
  );
  native.calls.length = 0;
  t.deepEqual(await volume.readFile('/new'), data);
  t.deepEqual(
    native.calls.filter((call) => call.includes('Read')),
    ['directRead 4608@0', 'bufferedRead 392@4608', 'bufferedRead 1@5000'],
  );
});

test('O_DSYNC and O_SYNC reach the write', async (t) => {
  const { native, volume } = await setup();
  const file = await volume.open('/file', constants.O_RDWR | constants.O_DSYNC);
  await file.write(Buffer.alloc(4096), 0, 4096, 0);
  const sync = await volume.open('/file', constants.O_RDWR | constants.O_SYNC);
  await sync.write(Buffer.alloc(4096), 0, 4096, 0);
  t.deepEqual(
    native.calls.filter((call) => /Write|sync/.test(call)),
    ['directWrite shared flags=1 4096@0', 'directWrite shared flags=0 4096@0', 'sync'],
  );
  await file.close();
  await sync.close();
});

test('A6, B1: of several segments every address and length counts, an empty one not', (t) => {
  const memory = allocAligned(16384);
  const at = (offset: number, length: number): Segment => ({ buffer: memory, offset, length });
  t.is(memoryBits([at(0, 4096), at(8192, 4096)]) % 4096, 0);
  t.is(memoryBits([at(512, 4096)]) % 4096, 512);
  t.is(memoryBits([at(0, 100)]) % 4096, 0);
  t.is(memoryBits([at(0, 512), at(512, 3584)]) % 4096, 512 | 3584);
  t.is(memoryBits([at(0, 4096), at(1, 0)]) % 4096, 0);
  t.is(memoryBits([at(0, 700), at(4096, 324)]) % 512, (700 | 324) % 512);
  const copied = { buffer: Buffer.alloc(100).subarray(1), offset: 1, length: 50 };
  t.is(memoryBits([copied]), 0);
  t.is(memoryBits([copied, copied]), 50);
});

test('writev and readv are one request each, at the position, without one, and sync', async (t) => {
  const { native, volume } = await setup();
  const file = await volume.open('/file', 'r+');
  native.calls.length = 0;
  const parts = [Buffer.alloc(512, 1), Buffer.alloc(0), Buffer.alloc(1536, 2)];
  const written = await file.writev(parts, 4096);
  t.is(written.buffers, parts);
  t.is(written.bytesWritten, 2048);
  t.is(file.writevSync(parts), 2048);
  const into = [Buffer.alloc(1024), new Uint16Array(512)];
  t.deepEqual((await file.readv(into, { position: 4096 })).bytesRead, 2048);
  t.deepEqual(into[0], Buffer.concat([Buffer.alloc(512, 1), Buffer.alloc(512, 2)]));
  t.deepEqual(new Uint8Array((into[1] as Uint16Array).buffer), new Uint8Array(1024).fill(2));
  t.is(file.readvSync([Buffer.alloc(100), Buffer.alloc(412)], 0), 512);
  t.deepEqual(native.calls, [
    'directWrite shared flags=0 2048@4096',
    'directWrite shared flags=0 2048@0',
    'directRead 2048@4096',
    'directRead 512@0',
  ]);
  await t.throwsAsync(file.writev([Buffer.alloc(100), Buffer.alloc(414)], 0), { code: 'EINVAL' });
  await file.close();
});

test('segments that lie side by side go as the one piece of memory that they are, others are gathered', (t) => {
  const memory = allocAligned(16384);
  const at = (from: number, to: number): Segment => {
    const buffer = memory.subarray(from, to);
    return { buffer, offset: 0, length: buffer.length };
  };
  const side = [at(4096, 8192), at(8192, 8192), at(8192, 12288)];
  for (const whole of [gather(side), readTarget(side)]) {
    t.is(whole.buffer.buffer, memory.buffer);
    t.deepEqual([whole.buffer.byteOffset, whole.length], [memory.byteOffset + 4096, 8192]);
    t.true(scatter(whole.buffer, side, 8192));
  }
  memory.fill(1, 0, 4096).fill(2, 8192, 12288);
  for (const apart of [
    [at(0, 4096), at(8192, 12288)],
    [at(4096, 8192), at(0, 4096)],
    [at(0, 4096), { buffer: Buffer.alloc(4096), offset: 0, length: 4096 }],
  ]) {
    const whole = gather(apart);
    t.not(whole.buffer.buffer, memory.buffer);
    t.deepEqual(
      Buffer.from(whole.buffer),
      Buffer.concat(apart.map((part) => part.buffer.subarray(part.offset, part.offset + part.length))),
    );
  }
  const into = [at(0, 100), at(8192, 8292)];
  const target = readTarget(into);
  target.buffer.fill(9);
  t.true(scatter(target.buffer, into, 150));
  t.deepEqual([memory[99], memory[100], memory[8192 + 49], memory[8192 + 50]], [9, 1, 9, 2]);
});

test('A6: a segment that is not a multiple of the block makes a request unaligned', async (t) => {
  const { native, volume } = await setup();
  const file = await volume.open('/file', 'r+');
  native.calls.length = 0;
  native.probe = ProbeFlag.OVERWRITE | ProbeFlag.UNWRITTEN;
  await file.writev([Buffer.alloc(4096), Buffer.alloc(4096)], 0);
  await file.writev([Buffer.alloc(512), Buffer.alloc(7680)], 0);
  await file.writev([Buffer.alloc(8192)], 0);
  t.deepEqual(
    native.calls.map((call) => call.split(' ')[1]),
    ['shared', 'exclusive', 'shared'],
  );
  await file.close();
});

test('nowait and atomic in the options objects of every form', async (t) => {
  const { native } = await setup();
  native.info = { ...native.info, atomicWriteUnitMin: 4096, atomicWriteUnitMax: 65536 };
  const more = await Volume.openOn(new Engine(native), '/image', { direct: true });
  const file = await more.open('/file', 'r+');
  native.calls.length = 0;
  const block = allocAligned(4096);
  await file.write(block, { position: 0, nowait: true });
  await file.write(block, { position: 0, atomic: true });
  await file.writev([block], { position: 0, nowait: true });
  file.writeSync(block, { position: 0, nowait: true });
  file.writevSync([block], { position: 4096, atomic: true });
  await file.read(block, { position: 0, nowait: true });
  await file.read({ buffer: block, position: 0, nowait: true });
  await file.readv([block], { position: 0, nowait: true });
  file.readSync(block, { position: 0, nowait: true });
  file.readvSync([block], { position: 0, nowait: true });
  const reads = Array.from({ length: 5 }, () => 'directRead flags=4 4096@0');
  t.deepEqual(native.calls, [
    'directWrite shared flags=4 4096@0',
    'directWrite shared flags=8 4096@0',
    'directWrite shared flags=4 4096@0',
    'directWrite shared flags=4 4096@0',
    'directWrite shared flags=8 4096@4096',
    ...reads,
  ]);
  const type = { code: 'ERR_INVALID_ARG_TYPE' };
  await t.throwsAsync(file.write(block, { nowait: 1 as unknown as boolean }), type);
  await t.throwsAsync(file.writev([block], { atomic: 'yes' as unknown as boolean }), type);
  await t.throwsAsync(file.read(block, { nowait: 1 as unknown as boolean }), type);
  await t.throwsAsync(file.write(block, { position: 512, atomic: true }), { code: 'EINVAL' });
  await file.close();
  await more.close();
});

test('C5: without a position NOWAIT does not wait for the position lock either', async (t) => {
  const { native, volume } = await setup();
  const file = await volume.open('/file', 'r+');
  native.hold = true;
  const first = file.write(allocAligned(4096));
  await t.throwsAsync(file.write(allocAligned(4096), { nowait: true }), { code: 'EAGAIN' });
  native.hold = false;
  native.release();
  await first;
  t.is((await file.write(allocAligned(4096), { nowait: true })).bytesWritten, 4096);
  await file.close();
});

test('A4.6, A5: maxFileSize and the limit of the inode map: writes clip, truncate refuses only to grow', async (t) => {
  const native = new FakeNative();
  const volume = await Volume.openOn(new Engine(native), '/image', { direct: true, maxFileSize: 4096 });
  native.addFile('/file', Buffer.alloc(8192));
  native.addFile('/small', Buffer.alloc(0)).maxSize = 1024;
  const file = await volume.open('/file', 'r+');
  t.is((await file.write(allocAligned(8192), 0, 8192, 0)).bytesWritten, 4096);
  await t.throwsAsync(file.write(allocAligned(512), 0, 512, 4096), { code: 'EFBIG' });
  await t.throwsAsync(file.truncate(8193), { code: 'EFBIG' });
  await file.truncate(6000);
  await file.truncate(100);
  await t.throwsAsync(file.truncate(4097), { code: 'EFBIG' });
  await file.truncate(4096);
  await file.close();
  const small = await volume.open('/small', 'r+');
  t.is((await small.write(allocAligned(4096), 0, 4096, 0)).bytesWritten, 1024);
  await t.throwsAsync(small.truncate(1025), { code: 'EFBIG' });
  await small.close();
  await t.throwsAsync(Volume.openOn(new Engine(new FakeNative()), '/image', { maxFileSize: -1 }), {
    code: 'ERR_OUT_OF_RANGE',
  });
});

test('a loop of cache hits does not starve the event loop', async (t) => {
  const { native, volume } = await setup(false);
  const file = await volume.open('/file', 'r+');
  native.tryBufferedRead = () => 16;
  native.tryBufferedWrite = () => 16;
  const block = Buffer.alloc(16);
  for (const hit of [() => file.read(block, 0, 16, 0), () => file.write(block, 0, 16, 0)]) {
    const turned = new Set<number>();
    setImmediate(() => turned.add(1));
    let hits = 0;
    while (turned.size === 0 && hits < 1000) {
      await hit();
      hits += 1;
    }
    t.true(hits > 10 && hits < 1000);
  }
  await file.close();
});
