/** The package over the real native module: every operation once, both engines, judged by e2fsck. */
import { constants } from 'node:fs';

import test from 'ava';

import { Volume, allocAligned } from '../../src/index.js';
import { MIB, assertClean, freshVolume } from './volumes.js';

const { O_CREAT, O_DIRECT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR, O_WRONLY } = constants;

function pattern(bytes: number, seed: number): Buffer {
  const data = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; at += 1) data[at] = (at * 31 + (at >> 8) + seed) & 255;
  return data;
}

for (const engine of ['auto', 'threads'] as const) {
  test(`every operation on names and attributes (${engine})`, async (t) => {
    const path = await freshVolume(t, { sizeBytes: 64 * MIB, label: 'names' });
    const volume = await Volume.open(path, { engine });
    t.is(volume.info().label, 'names');
    if (engine === 'threads') t.is(volume.info().backend, 'threads');
    t.false(volume.info().readOnly);
    t.is(await volume.mkdir('/a/b', { recursive: true }), '/a');
    await volume.writeFile('/a/b/file', 'hello world');
    await volume.writeFile('/a/b/file', '!', { flag: 'a' });
    t.is(await volume.readFile('/a/b/file', 'utf8'), 'hello world!');
    await volume.chmod('/a/b/file', 0o640);
    await volume.utimes('/a/b/file', 1000.5, 2000.25);
    const stat = await volume.stat('/a/b/file');
    t.like(stat, { size: 12, nlink: 1, atimeMs: 1000500, mtimeMs: 2000250, rdev: 0 });
    t.is(stat.mode & 0o7777, 0o640);
    await volume.symlink('b/file', '/a/link');
    await volume.symlink('x'.repeat(200), '/a/long');
    t.is(await volume.readlink('/a/link'), 'b/file');
    t.is(await volume.readlink('/a/long'), 'x'.repeat(200));
    t.true((await volume.lstat('/a/link')).isSymbolicLink());
    t.is((await volume.stat('/a/link')).size, 12);
    t.deepEqual((await volume.readdir('/a')).sort(), ['b', 'link', 'long']);
    const types = await volume.readdir('/a', { withFileTypes: true });
    t.true(types.find(({ name }) => name === 'b')?.isDirectory());
    await t.throwsAsync(volume.rmdir('/a'), { code: 'ENOTEMPTY' });
    await t.throwsAsync(volume.stat('/none'), { code: 'ENOENT' });
    await t.throwsAsync(volume.mkdir('/a'), { code: 'EEXIST' });
    await t.throwsAsync(volume.open('/a', O_RDWR), { code: 'EISDIR' });
    await t.throwsAsync(volume.open('/a/link', O_RDONLY | O_NOFOLLOW), { code: 'ELOOP' });
    await t.throwsAsync(volume.open('/a/link', O_RDWR | O_CREAT | O_NOFOLLOW), { code: 'ELOOP' });
    await t.throwsAsync(volume.open('/a/b/file', O_RDONLY | O_DIRECTORY), { code: 'ENOTDIR' });
    await t.throwsAsync(volume.open('/a/b/file', O_WRONLY | O_CREAT | O_EXCL), { code: 'EEXIST' });
    for (const name of ['/a/b/file', '/a/link', '/a/long']) await volume.unlink(name);
    await volume.rmdir('/a/b');
    await volume.sync();
    await volume.close();
    assertClean(t, path);
  });

  test(`direct and buffered data (${engine})`, async (t) => {
    const path = await freshVolume(t);
    const volume = await Volume.open(path, { engine });
    const file = await volume.open('/direct', O_CREAT | O_RDWR | O_DIRECT);
    const data = pattern(MIB, 1);
    t.is((await file.write(data, 0, data.length, 0)).bytesWritten, MIB);
    const slab = allocAligned(16384);
    slab.set(pattern(16384, 2));
    await Promise.all(Array.from({ length: 64 }, (_, index) => file.write(slab, 4096, 4096, index * 16384)));
    for (let index = 0; index < 64; index += 1) slab.copy(data, index * 16384, 4096, 8192);
    const copied = Buffer.alloc(MIB);
    t.is((await file.read(copied, 0, MIB, 0)).bytesRead, MIB);
    t.deepEqual(copied, data);
    const inPlace = allocAligned(MIB);
    t.is((await file.read(inPlace, 0, MIB, 0)).bytesRead, MIB);
    t.true(inPlace.equals(data));
    t.is((await file.read(inPlace, 0, 4096, MIB)).bytesRead, 0);
    await t.throwsAsync(file.write(slab, 1, 4096, 0), { code: 'EINVAL' });

    // Both ways to the same bytes.
    const buffered = await volume.open('/direct', 'r+');
    const some = Buffer.alloc(1000);
    await buffered.read(some, 0, 1000, 3000);
    t.deepEqual(some, data.subarray(3000, 4000));
    await buffered.write('cached', 100);
    t.is((await file.read(inPlace, 0, 4096, 0)).bytesRead, 4096);
    t.is(inPlace.toString('latin1', 100, 106), 'cached');
    slab.fill(7);
    await file.write(slab, 0, 4096, 0);
    await buffered.read(some, 0, 1000, 0);
    t.true(some.every((byte) => byte === 7));
    await buffered.truncate(5000);
    t.is((await file.stat()).size, 5000);
    await buffered.datasync();
    await buffered.sync();
    await file.chmod(0o600);
    await file.utimes(1, 2);
    await file.close();
    await buffered.close();
    await volume.close();
    assertClean(t, path);
  });

  test(`synchronous calls while asynchronous ones are in flight (${engine})`, async (t) => {
    const path = await freshVolume(t);
    const volume = await Volume.open(path, { engine });
    const file = await volume.open('/f', O_CREAT | O_RDWR | O_DIRECT);
    const slab = allocAligned(65536);
    slab.fill(3);
    await file.write(slab, 0, 65536, 0);
    const writes = Array.from({ length: 16 }, (_, index) => file.write(slab, 0, 4096, index * 4096));
    for (let index = 0; index < 16; index += 1) t.is(file.writeSync(slab, 0, 4096, index * 4096), 4096);
    const back = Buffer.alloc(65536);
    t.is(file.readSync(back, 0, 65536, 0), 65536);
    t.true(back.every((byte) => byte === 3));
    for (const { bytesWritten } of await Promise.all(writes)) t.is(bytesWritten, 4096);
    await volume.close();
    assertClean(t, path);
  });
}

test('an unlinked file lives until its last handle is closed', async (t) => {
  const path = await freshVolume(t);
  const volume = await Volume.open(path);
  const file = await volume.open('/gone', 'w+');
  await file.write('still here');
  await volume.unlink('/gone');
  const data = Buffer.alloc(10);
  await file.read(data, 0, 10, 0);
  t.is(data.toString(), 'still here');
  const { freeInodes } = volume.info();
  await file.close();
  t.is(volume.info().freeInodes, freeInodes + 1);
  await volume.close();
  assertClean(t, path);
});

test('two volumes at once, and each only once', async (t) => {
  const [one, two] = [await freshVolume(t), await freshVolume(t)];
  const [first, second] = await Promise.all([Volume.open(one), Volume.open(two)]);
  await t.throwsAsync(Volume.open(one), { code: 'EBUSY' });
  await t.throwsAsync(Volume.format(one, { sizeBytes: MIB }), { code: 'EBUSY' });
  await Promise.all([first.writeFile('/f', 'one'), second.writeFile('/f', 'two')]);
  t.is(await first.readFile('/f', 'utf8'), 'one');
  t.is(await second.readFile('/f', 'utf8'), 'two');
  await first.close();
  t.is(await second.readFile('/f', 'utf8'), 'two');
  await second.close();
  assertClean(t, one);
  assertClean(t, two);
  const again = await Volume.open(one, { readOnly: true });
  t.true(again.info().readOnly);
  t.is(await again.readFile('/f', 'utf8'), 'one');
  await t.throwsAsync(again.writeFile('/f', 'x'), { code: 'EROFS' });
  await t.throwsAsync(again.mkdir('/d'), { code: 'EROFS' });
  await again.close();
});

test('what cannot be opened says why', async (t) => {
  const path = await freshVolume(t);
  await t.throwsAsync(Volume.open(`${path}.none`), { code: 'ENOENT' });
  await t.throwsAsync(Volume.format(`${path}.none`, {}), { code: 'ENOENT' });
  await t.throwsAsync(Volume.format(`${path}.none`, { sizeBytes: 10 }), { code: 'ENOSPC' });
  await t.throwsAsync(Volume.open(`${path}.none`), { code: 'ENOENT' });
});
