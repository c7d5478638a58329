/** Direct files through the public API, and the memory they want. */
import { constants } from 'node:fs';

import test from 'ava';

import { allocAligned, memoryAddress, onMemory } from '../src/aligned-memory.js';
import { Engine } from '../src/engine.js';
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
    structuredClone(buffer.buffer, { transfer: [buffer.buffer as ArrayBuffer] });
  } catch {
    // Newer Node throws, 20 copies.
  }
  t.is(buffer.length, 4096);
  t.is(buffer[0], 7);
  const heard: Uint8Array[] = [];
  onMemory((memory) => heard.push(memory));
  t.true(heard.some((memory) => memory.buffer === buffer.buffer));
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
    ['directWrite shared flags=1 4096@0', 'directWrite shared flags=1 4096@0', 'sync'],
  );
  await file.close();
  await sync.close();
});
