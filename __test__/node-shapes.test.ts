/** The same calls on node:fs and on a volume over a native layer without a disk. */
import test from 'ava';

import { Engine } from '../src/engine.js';
import { Volume } from '../src/volume.js';
import { FakeNative } from './fake-native.js';
import { NODE_CASES, same } from './node-cases.js';

async function makeVolume(): Promise<{ native: FakeNative; volume: Volume }> {
  const native = new FakeNative();
  return { native, volume: await Volume.openOn(new Engine(native), '/image') };
}

for (const [name, work] of NODE_CASES) {
  test(name, async (t) => same(t, (await makeVolume()).volume, '/root', work));
}

test('EUCLEAN and EBADMSG have a name and the place', async (t) => {
  const { native, volume } = await makeVolume();
  native.script.set('stat', [-117, -74]);
  const damaged = await t.throwsAsync(volume.stat('/x'), { code: 'EUCLEAN' });
  t.is(damaged?.message, "EUCLEAN: structure needs cleaning, stat '/x' (scripted, stat in a test)");
  t.like(damaged, { errno: -117, syscall: 'stat', path: '/x', place: 'stat in a test' });
  await t.throwsAsync(volume.stat('/x'), { code: 'EBADMSG', message: /bad message/ });
});

test('errors carry the stack of whoever awaits', async (t) => {
  const { volume } = await makeVolume();
  async function caller(): Promise<void> {
    await volume.stat('/missing');
  }
  const error = await t.throwsAsync(caller());
  t.regex(error?.stack ?? '', /caller/);
});

test('close waits for operations in flight, and a volume closes its files', async (t) => {
  const { native, volume } = await makeVolume();
  native.addFile('/file', Buffer.from('content'));
  const file = await volume.open('/file', 'r+');
  await volume.open('/file');
  const order: string[] = [];
  const write = file.write('x').then(() => order.push('write'));
  const close = volume.close().then(() => order.push('close'));
  await Promise.all([write, close]);
  t.deepEqual(order, ['write', 'close']);
  t.is(native.openFiles, 0);
  t.is(native.calls.at(-1), 'closeVolume');
  await volume.close();
  await t.throwsAsync(volume.stat('/'), { code: 'EBADF', message: 'volume closed' });
  t.throws(() => volume.info(), { code: 'EBADF' });
});

test('O_TRUNC takes the lock and drains; the file is closed when it fails', async (t) => {
  const { native, volume } = await makeVolume();
  native.addFile('/file', Buffer.from('content'));
  native.script.set('truncate', [-30]);
  await t.throwsAsync(volume.open('/file', 'w'), { code: 'EROFS' });
  t.is(native.openFiles, 0);
  const file = await volume.open('/file', 'w');
  t.is((await file.stat()).size, 0);
  await file.close();
});

test('sync and asynchronous calls on one handle keep the position', async (t) => {
  const { native, volume } = await makeVolume();
  native.addFile('/file', Buffer.alloc(0));
  const file = await volume.open('/file', 'r+');
  native.hold = true;
  const first = file.write('aa');
  t.is(file.writeSync('bb'), 2);
  await first;
  const buffer = Buffer.alloc(8);
  t.is(file.readSync(buffer, 0, 8, 0), 4);
  t.is(buffer.toString('latin1', 0, 4), 'aabb');
  t.throws(() => file.readSync(buffer, 9, 1, 0), { code: 'ERR_OUT_OF_RANGE' });
  native.hold = false;
  await file.close();
  t.throws(() => file.writeSync('x'), { code: 'EBADF', message: 'file closed' });
});
