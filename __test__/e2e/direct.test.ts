/** Direct I/O on a real volume. */
import { setTimeout as delay } from 'node:timers/promises';

import { allocAligned, constants, Volume } from '../../src/index.js';
import { e2e, MiB, pattern, withVolume } from './support.js';

const { O_APPEND, O_CREAT, O_DIRECT, O_DSYNC, O_RDONLY, O_RDWR, O_SYNC } = constants;
const BLOCK = 4096;

for (const engine of ['io_uring', 'threads'] as const) {
  e2e(`${engine}: aligned writes and reads, extending and in place`, (t) =>
    withVolume(t, {}, async (first, image) => {
      await first.close();
      const volume = await Volume.open(image, { engine }).catch((error: Error) => error);
      if (volume instanceof Error) {
        t.log(`${engine} is refused here: ${volume.message}`);
        t.pass();
        return;
      }
      t.is(volume.info().backend, engine);
      const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
      const data = allocAligned(16 * BLOCK);
      pattern(data.length).copy(data);
      t.is((await file.write(data, 0, data.length, 0)).bytesWritten, data.length);
      const before = volume.stats().writes;
      t.deepEqual([before.shared, before.exclusiveBecause.extending], [0, 1]);
      const block = allocAligned(BLOCK);
      block.fill(0xee);
      t.is((await file.write(block, 0, BLOCK, 3 * BLOCK)).bytesWritten, BLOCK);
      t.is(volume.stats().writes.shared, 1);
      const back = allocAligned(16 * BLOCK);
      t.is((await file.read(back, 0, back.length, 0)).bytesRead, back.length);
      block.copy(data, 3 * BLOCK);
      t.true(back.equals(data));
      await volume.close();
    }),
  );
}

e2e('misaligned direct I/O is EINVAL, and writes nothing', (t) =>
  withVolume(t, {}, async (volume) => {
    const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
    const data = allocAligned(4 * BLOCK);
    await file.write(data, 0, 2 * BLOCK, 0);
    const invalid = { code: 'EINVAL', message: 'EINVAL: invalid argument, write' };
    await t.throwsAsync(file.write(data, 0, BLOCK, 1), invalid);
    await t.throwsAsync(file.write(data, 0, 100, 0), invalid);
    await t.throwsAsync(file.write(data, 1, BLOCK, 0), invalid);
    await t.throwsAsync(file.write(data, 0, 100, 2 * BLOCK), invalid);
    t.throws(() => file.writeSync(data, 0, 100, 0), invalid);
    await t.throwsAsync(file.read(data, 0, 100, 0), {
      code: 'EINVAL',
      message: 'EINVAL: invalid argument, read',
    });
    await t.throwsAsync(file.read(data, 0, BLOCK, 1), { code: 'EINVAL' });
    await t.throwsAsync(file.read(data, 1, BLOCK, 0), { code: 'EINVAL' });
    t.is((await file.stat()).size, 2 * BLOCK);
    // Memory elsewhere is copied, and so well placed.
    const odd = Buffer.alloc(BLOCK + 1).subarray(1);
    t.is((await file.write(odd, 0, BLOCK, 0)).bytesWritten, BLOCK);
    await file.close();
  }),
);

e2e('direct: true opens every file so; writeFile and readFile do the tail buffered', (t) =>
  withVolume(t, { direct: true }, async (volume) => {
    for (const size of [0, 1, 511, 512, 4095, 4096, 4097, 100_001, MiB, MiB + 77]) {
      const data = pattern(size, size);
      await volume.writeFile(`/file-${size}`, data);
      t.true((await volume.readFile(`/file-${size}`)).equals(data), `${size} bytes`);
    }
    const file = await volume.open('/file-4096', 'r+');
    await t.throwsAsync(file.write(Buffer.alloc(10), 0, 10, 0), { code: 'EINVAL' });
    await file.close();
    const { writes } = volume.stats();
    t.true(writes.exclusive > 0 && writes.fellBackBecause.unsupported === 0);
  }),
);

e2e('direct reads: up to the end of the file, zeros in holes', (t) =>
  withVolume(t, {}, async (volume) => {
    await volume.writeFile('/file', pattern(BLOCK + 100));
    const writer = await volume.open('/file', 'r+');
    await writer.truncate(3 * BLOCK + 10);
    await writer.close();
    const file = await volume.open('/file', O_RDONLY | O_DIRECT);
    const data = allocAligned(8 * BLOCK);
    data.fill(9);
    t.is((await file.read(data, 0, data.length, 0)).bytesRead, 3 * BLOCK + 10);
    t.true(data.subarray(0, BLOCK + 100).equals(pattern(BLOCK + 100)));
    t.true(data.subarray(BLOCK + 100, 3 * BLOCK + 10).every((byte) => byte === 0));
    t.is((await file.read(data, 0, BLOCK, 16 * BLOCK)).bytesRead, 0);
    await file.close();
  }),
);

e2e('sub-block direct writes into holes and unwritten blocks leave zeros around them', (t) =>
  withVolume(t, { blockSize: 4096 }, async (volume) => {
    const align = volume.info().dioOffsetAlign;
    if (align >= BLOCK) {
      t.log(`the device wants ${align} bytes: nothing below a block is direct`);
      t.pass();
      return;
    }
    const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
    await file.truncate(64 * BLOCK);
    const part = allocAligned(align);
    part.fill(0x77);
    for (const position of [align, 5 * BLOCK, 9 * BLOCK - align, 20 * BLOCK + 3 * align])
      t.is((await file.write(part, 0, align, position)).bytesWritten, align);
    const expected = Buffer.alloc(64 * BLOCK);
    for (const position of [align, 5 * BLOCK, 9 * BLOCK - align, 20 * BLOCK + 3 * align])
      expected.fill(0x77, position, position + align);
    await file.close();
    t.true((await volume.readFile('/file')).equals(expected));
  }),
);

e2e('O_APPEND, O_DSYNC and O_SYNC go with O_DIRECT', (t) =>
  withVolume(t, {}, async (volume, image) => {
    for (const [name, flag] of [
      ['dsync', O_DSYNC],
      ['sync', O_SYNC],
      ['append', O_APPEND],
    ] as const) {
      const file = await volume.open(`/${name}`, O_RDWR | O_CREAT | O_DIRECT | flag);
      const data = allocAligned(BLOCK);
      for (let block = 0; block < 8; block += 1) {
        data.fill(block + 1);
        await file.write(data, 0, BLOCK, flag === O_APPEND ? 0 : block * BLOCK);
      }
      await file.close();
    }
    await volume.close();
    const again = await Volume.open(image, { readOnly: true });
    for (const name of ['dsync', 'sync', 'append']) {
      const data = await again.readFile(`/${name}`);
      t.deepEqual(
        Array.from({ length: 8 }, (_, block) => data[block * BLOCK + 7]),
        [1, 2, 3, 4, 5, 6, 7, 8],
        name,
      );
      t.is(data.length, 8 * BLOCK);
    }
    await again.close();
  }),
);

e2e('buffered and direct I/O on one file see each other', (t) =>
  withVolume(t, {}, async (volume) => {
    const buffered = await volume.open('/file', 'w+');
    const direct = await volume.open('/file', O_RDWR | O_DIRECT);
    await buffered.write(pattern(4 * BLOCK), 0, 4 * BLOCK, 0);
    const block = allocAligned(BLOCK);
    t.is((await direct.read(block, 0, BLOCK, BLOCK)).bytesRead, BLOCK);
    t.true(block.equals(pattern(4 * BLOCK).subarray(BLOCK, 2 * BLOCK)));
    block.fill(0xaa);
    await direct.write(block, 0, BLOCK, 2 * BLOCK);
    const { buffer } = await buffered.read(Buffer.alloc(BLOCK), 0, BLOCK, 2 * BLOCK);
    t.true(buffer.equals(block));
    await direct.close();
    await buffered.close();
  }),
);

e2e('A19: the time of access is relative: moved by the first read after a change, and once a day', (t) =>
  withVolume(t, {}, async (volume) => {
    await volume.writeFile('/file', pattern(BLOCK));
    const atimeOf = async (): Promise<number> => (await volume.stat('/file')).atimeMs;
    const file = await volume.open('/file', O_RDONLY | O_DIRECT);
    const buffered = await volume.open('/file');
    const read = async (from: typeof file): Promise<void> => {
      await from.read(allocAligned(BLOCK), 0, BLOCK, 0);
    };
    const now = Date.now() / 1000;
    for (const from of [file, buffered]) {
      // Younger than a day, and than every change: left alone. Changing the times is a change, so that comes first.
      await volume.utimes('/file', now - 3600, now - 7200);
      // The clock's steps are 4 ms long: what is equal to a change does not count as younger.
      await delay(10);
      await read(from);
      t.true((await atimeOf()) > (now - 60) * 1000, 'older than the inode change');
      const first = await atimeOf();
      await read(from);
      t.is(await atimeOf(), first);
      await volume.utimes('/file', now - 2 * 86400, now - 3 * 86400);
      await from.read(allocAligned(BLOCK), 0, 0, 0);
      t.is(await atimeOf(), (now - 2 * 86400) * 1000, 'an empty read leaves it alone');
      await read(from);
      t.true((await atimeOf()) > (now - 60) * 1000);
    }
    await file.close();
    await buffered.close();
  }),
);
