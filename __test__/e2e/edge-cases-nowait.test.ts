/** NOWAIT on a real volume: never blocks, never allocates, and what it refuses has changed nothing (C5, E29, E30). */
import { constants, allocAligned, type FileHandle, type Volume } from '../../src/index.js';
import { e2e, pattern, withVolume } from './support.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const BLOCK = 4096;
const FLAGS = O_RDWR | O_CREAT | O_DIRECT;
const eagain = { code: 'EAGAIN' };

function block(fill: number): Buffer {
  return allocAligned(BLOCK).fill(fill);
}

async function file(volume: Volume, path: string, blocks: number): Promise<FileHandle> {
  const handle = await volume.open(path, FLAGS);
  const data = allocAligned(blocks * BLOCK);
  pattern(data.length).copy(data);
  await handle.write(data, 0, data.length, 0);
  return handle;
}

e2e('C5, C10: NOWAIT overwrites, aligned and not, sync and not, go through', (t) =>
  withVolume(t, {}, async (volume) => {
    const handle = await file(volume, '/file', 4);
    t.is((await handle.write(block(1), { position: BLOCK, nowait: true })).bytesWritten, BLOCK);
    t.is(handle.writeSync(block(2), { length: 512, position: 512, nowait: true }), 512);
    t.is((await handle.writev([block(3)], { position: 3 * BLOCK, nowait: true })).bytesWritten, BLOCK);
    const back = allocAligned(4 * BLOCK);
    t.is((await handle.read(back, { position: 0, nowait: true })).bytesRead, 4 * BLOCK);
    const expected = pattern(4 * BLOCK)
      .fill(1, BLOCK, 2 * BLOCK)
      .fill(2, 512, 1024)
      .fill(3, 3 * BLOCK);
    t.true(back.equals(expected));
    t.is(volume.stats().writes.nowaitRefused, 0);
    await handle.close();
  }),
);

e2e('E29: NOWAIT on a hole, past the end, and with the lock held is EAGAIN, and nothing changes', (t) =>
  withVolume(t, {}, async (volume) => {
    const handle = await file(volume, '/file', 2);
    await handle.truncate(8 * BLOCK);
    const before = await handle.stat();
    const { freeBlocks } = volume.info();
    await t.throwsAsync(handle.write(block(1), { position: 4 * BLOCK, nowait: true }), eagain);
    await t.throwsAsync(handle.write(block(1), { position: 8 * BLOCK, nowait: true }), eagain);
    await t.throwsAsync(handle.write(block(1), { position: BLOCK * 7.5, nowait: true }), eagain);
    t.throws(() => handle.writeSync(block(1), { position: 4 * BLOCK, nowait: true }), eagain);
    const after = await handle.stat();
    t.deepEqual([after.size, after.blocks, after.mtimeMs], [before.size, before.blocks, before.mtimeMs]);
    t.is(volume.info().freeBlocks, freeBlocks);

    // An extending write holds the lock exclusive until it has ended.
    const extending = handle.write(allocAligned(64 * BLOCK), 0, 64 * BLOCK, 8 * BLOCK);
    await t.throwsAsync(handle.write(block(1), { position: 0, nowait: true }), eagain);
    await t.throwsAsync(handle.read(block(0), { position: 0, nowait: true }), eagain);
    await extending;
    const { nowaitRefusedBecause: because } = volume.stats().writes;
    t.like(because, { notOverwrite: 2, extending: 2, lock: 1 });
    const back = allocAligned(2 * BLOCK);
    await handle.read(back, 0, back.length, 0);
    t.true(back.equals(pattern(2 * BLOCK)));
    await handle.close();
  }),
);

e2e('E29, B4: a cached page makes a NOWAIT write EAGAIN, a dirty one a read; clean ones do not', (t) =>
  withVolume(t, {}, async (volume) => {
    const direct = await file(volume, '/file', 4);
    const buffered = await volume.open('/file', 'r+');
    await buffered.write(Buffer.alloc(100, 9), 0, 100, BLOCK);
    const on = async (number: number): Promise<unknown> =>
      direct.write(block(7), { position: number * BLOCK, nowait: true });
    const from = async (number: number): Promise<unknown> =>
      direct.read(block(0), { position: number * BLOCK, nowait: true });
    await t.throwsAsync(on(1), eagain);
    await t.throwsAsync(from(1), eagain);
    await t.notThrowsAsync(on(3));
    await t.notThrowsAsync(from(3));
    await buffered.datasync();
    await t.throwsAsync(on(1), eagain);
    await t.notThrowsAsync(from(1));
    // One that may wait takes the page with it.
    await direct.write(block(8), 0, BLOCK, BLOCK);
    await t.notThrowsAsync(on(1));
    t.is(volume.stats().writes.nowaitRefusedBecause.pages, 2);
    await buffered.close();
    await direct.close();
  }),
);

e2e(
  'A17, E30: a buffered NOWAIT write is ENOTSUP (EOPNOTSUPP); a buffered NOWAIT read gives what is cached',
  (t) =>
    withVolume(t, {}, async (volume) => {
      await volume.writeFile('/file', pattern(3 * BLOCK), { flush: true });
      const handle = await volume.open('/file', 'r+');
      const nowait = { position: 0, nowait: true };
      await t.throwsAsync(handle.write(Buffer.alloc(10), nowait), { code: 'ENOTSUP' });
      t.is((await handle.write(Buffer.alloc(10), { ...nowait, length: 0 })).bytesWritten, 0);
      const direct = await volume.open('/file', O_RDWR | O_DIRECT);
      // A direct write drops the middle page.
      await direct.write(block(5), 0, BLOCK, BLOCK);
      const back = Buffer.alloc(3 * BLOCK);
      t.is((await handle.read(back, nowait)).bytesRead, BLOCK);
      t.true(back.subarray(0, BLOCK).equals(pattern(3 * BLOCK).subarray(0, BLOCK)));
      await t.throwsAsync(handle.read(back, { position: BLOCK + 1, nowait: true }), eagain);
      t.is((await handle.read(back, { position: 2 * BLOCK, nowait: true })).bytesRead, BLOCK);
      t.is((await handle.read(back, { position: 3 * BLOCK, nowait: true })).bytesRead, 0);
      await handle.read(back, 0, back.length, 0);
      t.is(handle.readSync(back, nowait), 3 * BLOCK);
      t.true(back.subarray(BLOCK, 2 * BLOCK).equals(block(5)));
      // Holes read as zeros without anybody waiting.
      await handle.truncate(5 * BLOCK);
      t.is((await handle.read(back, { position: 3 * BLOCK, nowait: true })).bytesRead, 2 * BLOCK);
      await direct.close();
      await handle.close();
    }),
);

e2e('E25, E29: a setuid file makes a NOWAIT overwrite EAGAIN and keeps its bits', (t) =>
  withVolume(t, {}, async (volume) => {
    const handle = await file(volume, '/file', 1);
    await handle.chmod(0o6777);
    await t.throwsAsync(handle.write(block(1), { position: 0, nowait: true }), eagain);
    t.is((await handle.stat()).mode & 0o7777, 0o6777);
    t.is(volume.stats().writes.nowaitRefusedBecause.privileges, 1);
    await handle.write(block(1), 0, BLOCK, 0);
    t.is((await handle.stat()).mode & 0o7777, 0o777);
    await handle.close();
  }),
);
