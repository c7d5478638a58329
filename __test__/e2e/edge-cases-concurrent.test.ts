/** Rows of E where several requests meet: whatever their order, the contents are a model's and e2fsck agrees. */
import type { ExecutionContext } from 'ava';

import { allocAligned, constants, type FileHandle, type Volume } from '../../src/index.js';
import { e2e, pattern, withVolume } from './support.js';

const { O_APPEND, O_CREAT, O_DIRECT, O_RDWR } = constants;
const BLOCK = 4096;
const SECTOR = 512;
const FLAGS = O_RDWR | O_CREAT | O_DIRECT;
const ROUNDS = 8;
/** Until chance brings what a test is about; it took some hundreds at most. */
const MOST_ROUNDS = 5000;

/** `bytes` of `fill`, well placed. */
function filled(bytes: number, fill: number): Buffer {
  return allocAligned(bytes).fill(fill);
}

async function contents(file: FileHandle): Promise<Buffer> {
  const { size } = await file.stat();
  const buffer = allocAligned(Math.ceil(size / BLOCK) * BLOCK);
  const { bytesRead } = await file.read(buffer, 0, buffer.length, 0);
  return buffer.subarray(0, bytesRead);
}

/** Several rounds on a new file each, because one order proves little. */
async function rounds(
  t: ExecutionContext,
  work: (file: FileHandle, volume: Volume) => Promise<void>,
): Promise<void> {
  await withVolume(t, {}, async (volume) => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const file = await volume.open(`/file-${round}`, FLAGS);
      await work(file, volume);
      await file.close();
    }
  });
}

/** Sub-block writes at once into one block; all of them survive. */
async function subBlocks(t: ExecutionContext, file: FileHandle, start: number, count: number): Promise<void> {
  const before = Buffer.from(await contents(file));
  await Promise.all(
    Array.from({ length: count }, (_, index) =>
      file.write(filled(SECTOR, index + 1), 0, SECTOR, start + index * SECTOR),
    ),
  );
  const expected = Buffer.alloc(Math.max(before.length, start + count * SECTOR));
  before.copy(expected);
  for (let index = 0; index < count; index += 1)
    expected.fill(index + 1, start + index * SECTOR, start + (index + 1) * SECTOR);
  t.true((await contents(file)).equals(expected));
}

e2e('E1: sub-block writes into one unwritten block', (t) =>
  rounds(t, async (file) => {
    await file.fallocate(0, 4 * BLOCK);
    await subBlocks(t, file, BLOCK, 2);
    await subBlocks(t, file, 2 * BLOCK, BLOCK / SECTOR);
  }),
);

e2e('E2: two sub-block writes, the second past the end of a file that ends inside a block', (t) =>
  rounds(t, async (file) => {
    await file.fallocate(0, BLOCK + 2 * SECTOR);
    await subBlocks(t, file, BLOCK, 4);
  }),
);

e2e('E3: an unaligned write, then an aligned one over it: one order, no stray zeros', (t) =>
  rounds(t, async (file) => {
    await file.truncate(4 * BLOCK);
    await Promise.all([
      file.write(filled(SECTOR, 1), 0, SECTOR, BLOCK + SECTOR),
      file.write(filled(2 * BLOCK, 2), 0, 2 * BLOCK, BLOCK),
    ]);
    const found = await contents(file);
    const expected = Buffer.alloc(4 * BLOCK).fill(2, BLOCK, 3 * BLOCK);
    const other = Buffer.from(expected).fill(1, BLOCK + SECTOR, BLOCK + 2 * SECTOR);
    t.true(found.equals(expected) || found.equals(other));
  }),
);

e2e('E4: four sub-block writes past the end of the file', (t) =>
  rounds(t, async (file) => {
    await subBlocks(t, file, 0, 4);
    await subBlocks(t, file, 16 * BLOCK + SECTOR, 4);
  }),
);

e2e('E5: writes into holes: each says its own length, the data is where it belongs', (t) =>
  rounds(t, async (file) => {
    await file.truncate(64 * BLOCK);
    const expected = Buffer.alloc(64 * BLOCK);
    const lengths = Array.from({ length: 8 }, (_, index) => (index + 1) * SECTOR);
    const written = await Promise.all(
      lengths.map(async (length, index) => {
        expected.fill(index + 1, 8 * index * BLOCK, 8 * index * BLOCK + length);
        return (await file.write(filled(length, index + 1), 0, length, 8 * index * BLOCK)).bytesWritten;
      }),
    );
    t.deepEqual(written, lengths);
    t.true((await contents(file)).equals(expected));
  }),
);

e2e('E6: a read right after a hole was filled', (t) =>
  rounds(t, async (file) => {
    await file.truncate(8 * BLOCK);
    for (let block = 0; block < 8; block += 1) {
      await file.write(filled(BLOCK, block + 1), 0, BLOCK, block * BLOCK);
      const back = allocAligned(BLOCK);
      await file.read(back, 0, BLOCK, block * BLOCK);
      t.true(back.equals(filled(BLOCK, block + 1)));
    }
  }),
);

e2e('E7: the size is never less than what completed writes reached', (t) =>
  rounds(t, async (file) => {
    let reached = 0;
    await Promise.all(
      Array.from({ length: 16 }, async (_, index) => {
        await file.write(filled(BLOCK, 1), 0, BLOCK, index * BLOCK);
        reached = Math.max(reached, (index + 1) * BLOCK);
        const atLeast = reached;
        t.true((await file.stat()).size >= atLeast);
      }),
    );
    t.is((await file.stat()).size, 16 * BLOCK);
  }),
);

e2e('E8: buffered and direct writes mixed: everybody reads back what they wrote', (t) =>
  rounds(t, async (file, volume) => {
    const path = `/mixed-${Math.random()}`;
    const buffered = await volume.open(path, 'w+');
    const direct = await volume.open(path, FLAGS);
    const expected = pattern(8 * BLOCK);
    await buffered.write(expected, 0, expected.length, 0);
    await Promise.all(
      Array.from({ length: 8 }, async (_, block) => {
        const at = block * BLOCK + SECTOR;
        await direct.write(filled(SECTOR, block), 0, SECTOR, at);
        const back = Buffer.alloc(SECTOR);
        await buffered.read(back, 0, SECTOR, at);
        t.true(back.every((byte) => byte === block));
        await buffered.write(Buffer.alloc(100, block + 100), 0, 100, block * BLOCK + 2 * SECTOR + 7);
        await direct.read(back, 0, SECTOR, block * BLOCK + 2 * SECTOR);
        t.true(back.subarray(7, 107).every((byte) => byte === block + 100));
        expected.fill(block, at, at + SECTOR).fill(block + 100, at + SECTOR + 7, at + SECTOR + 107);
      }),
    );
    t.true((await contents(direct)).equals(expected));
    await buffered.close();
    await direct.close();
    await file.truncate(0);
  }),
);

e2e('E9: buffered reads against direct writes: nothing stale, full counts', (t) =>
  rounds(t, async (file, volume) => {
    await file.write(filled(16 * BLOCK, 1), 0, 16 * BLOCK, 0);
    const buffered = await volume.open(`/file-${ROUNDS}`, FLAGS & ~O_DIRECT);
    const direct = await volume.open(`/file-${ROUNDS}`, FLAGS);
    await direct.write(filled(16 * BLOCK, 1), 0, 16 * BLOCK, 0);
    const reading = { done: false };
    const reader = (async () => {
      const back = Buffer.alloc(16 * BLOCK);
      while (!reading.done) await buffered.read(back, 0, back.length, 0);
    })();
    for (let value = 2; value < 12; value += 1) {
      const { bytesWritten } = await direct.write(filled(4 * BLOCK, value), 0, 4 * BLOCK, 4 * BLOCK);
      t.is(bytesWritten, 4 * BLOCK);
      const back = Buffer.alloc(4 * BLOCK);
      await buffered.read(back, 0, back.length, 4 * BLOCK);
      t.true(back.equals(Buffer.alloc(4 * BLOCK, value)));
    }
    reading.done = true;
    await reader;
    await buffered.close();
    await direct.close();
  }),
);

e2e(
  'E10: pages that are being read cannot be dropped: the write goes through the cache, its count is full',
  (t) =>
    withVolume(t, {}, async (volume) => {
      const length = 64 * BLOCK;
      const direct = await volume.open('/file', FLAGS);
      const buffered = await volume.open('/file', O_RDWR);
      await direct.write(filled(length, 255), 0, length, 0);
      const isBusy = (): boolean => volume.stats().writes.fellBackBecause.pagesBusy > 0;
      // The write looks for pages in a thread of its own; whether the read is under way then is chance.
      for (let round = 0; round < MOST_ROUNDS && !isBusy(); round += 1) {
        await buffered.read(Buffer.alloc(BLOCK), 0, BLOCK, 0);
        const value = round % 255;
        const writing = direct.write(filled(length, value), 0, length, 0);
        for (let at = 1; at < 64; at += 1) buffered.readSync(Buffer.alloc(BLOCK), 0, BLOCK, at * BLOCK);
        t.is((await writing).bytesWritten, length);
        t.true((await volume.readFile('/file')).equals(Buffer.alloc(length, value)));
        await direct.write(filled(length, 255), 0, length, 0);
      }
      if (!isBusy()) t.log('skipped: no write met a read under way');
      await buffered.close();
      await direct.close();
    }),
);

e2e('E11: extending writes against reads: no zeros below the size', (t) =>
  rounds(t, async (file) => {
    const writing = { done: false };
    const reader = (async () => {
      while (!writing.done) t.true((await contents(file)).every((byte) => byte === 7));
    })();
    for (let block = 0; block < 16; block += 1) await file.write(filled(BLOCK, 7), 0, BLOCK, block * BLOCK);
    writing.done = true;
    await reader;
    t.is((await file.stat()).size, 16 * BLOCK);
  }),
);

e2e('E11: a read past the end that first writes dirty pages back, against an extending write', (t) =>
  withVolume(t, {}, async (volume) => {
    const direct = await volume.open('/file', FLAGS);
    const buffered = await volume.open('/file', O_RDWR);
    for (let round = 0; round < 300; round += 1) {
      await direct.truncate(0);
      await buffered.write(Buffer.alloc(BLOCK, 7), 0, BLOCK, 0);
      const back = filled(8 * BLOCK, 0);
      const [{ bytesRead }] = await Promise.all([
        direct.read(back, 0, back.length, 0),
        direct.write(filled(BLOCK, 7), 0, BLOCK, BLOCK),
      ]);
      t.true(bytesRead === BLOCK || bytesRead === 2 * BLOCK);
      t.true(back.subarray(0, bytesRead).equals(Buffer.alloc(bytesRead, 7)));
    }
    await buffered.close();
    await direct.close();
  }),
);

e2e('E12: an append against fallocate: the larger size stays, and the data', (t) =>
  rounds(t, async (file) => {
    await file.write(filled(BLOCK, 1), 0, BLOCK, 0);
    await Promise.all([file.write(filled(BLOCK, 2), 0, BLOCK, BLOCK), file.fallocate(0, 4 * BLOCK)]);
    const expected = Buffer.alloc(4 * BLOCK)
      .fill(1, 0, BLOCK)
      .fill(2, BLOCK, 2 * BLOCK);
    t.true((await contents(file)).equals(expected));
  }),
);

e2e('E13: an extending write against truncation of the last block: the data stays where it is later', (t) =>
  rounds(t, async (file) => {
    await file.write(filled(2 * BLOCK, 1), 0, 2 * BLOCK, 0);
    await Promise.all([file.truncate(BLOCK + 100), file.write(filled(BLOCK, 2), 0, BLOCK, 2 * BLOCK)]);
    const found = await contents(file);
    const cutLast = filled(BLOCK + 100, 1);
    const writtenLast = Buffer.alloc(3 * BLOCK)
      .fill(1, 0, BLOCK + 100)
      .fill(2, 2 * BLOCK);
    t.true(found.equals(cutLast) || found.equals(writtenLast));
  }),
);

e2e('E14: overwrites against truncate and punch: old, new or zero, block by block', (t) =>
  rounds(t, async (file) => {
    await file.write(filled(32 * BLOCK, 1), 0, 32 * BLOCK, 0);
    await Promise.all([
      ...Array.from({ length: 24 }, (_, index) => file.write(filled(BLOCK, 2), 0, BLOCK, index * BLOCK)),
      file.fallocate(4 * BLOCK, 8 * BLOCK, { mode: 'punch-hole', keepSize: true }),
      file.truncate(20 * BLOCK),
      ...Array.from({ length: 8 }, (_, index) => file.write(filled(SECTOR, 3), 0, SECTOR, index * BLOCK)),
    ]);
    const found = await contents(file);
    t.true(found.length >= 20 * BLOCK && found.length <= 24 * BLOCK);
    for (let at = 0; at < found.length; at += SECTOR) {
      const sector = found.subarray(at, at + SECTOR);
      t.true(
        sector.every((byte) => byte === sector[0] && byte <= 3),
        `at ${at}`,
      );
    }
  }),
);

e2e('E33: 24 readers and overwriters at once share the lock', (t) =>
  withVolume(t, {}, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    await file.write(filled(64 * BLOCK, 255), 0, 64 * BLOCK, 0);
    const task = async (id: number): Promise<void> => {
      for (let step = 0; step < 20; step += 1) {
        const block = (id * 7 + step * 13) % 64;
        if (id % 2 === 0) {
          await file.write(filled(BLOCK, id), 0, BLOCK, block * BLOCK);
          continue;
        }
        const back = allocAligned(BLOCK);
        await file.read(back, 0, BLOCK, block * BLOCK);
        t.true(
          back.every((byte) => byte === back[0]),
          'a block is one write',
        );
      }
    };
    await Promise.all(Array.from({ length: 24 }, (_, id) => task(id)));
    const { shared, exclusive, upgraded } = volume.stats().writes;
    t.deepEqual([shared, exclusive, upgraded], [240, 1, 0]);
    await file.close();
  }),
);

e2e('E41: appenders with a position of their own lose nothing', (t) =>
  withVolume(t, {}, async (volume) => {
    const files = await Promise.all(
      Array.from({ length: 4 }, async (_, index) =>
        volume.open('/log', index % 2 === 0 ? FLAGS | O_APPEND : 'a+'),
      ),
    );
    await Promise.all(
      files.map(async (file, index) => {
        for (let step = 0; step < 10; step += 1) {
          const data = filled(SECTOR, index + 1);
          t.is((await file.write(data, 0, SECTOR, 0)).bytesWritten, SECTOR);
        }
      }),
    );
    const all = await volume.readFile('/log');
    t.is(all.length, 40 * SECTOR);
    const counts = [0, 0, 0, 0, 0];
    for (let at = 0; at < all.length; at += SECTOR) {
      const sector = all.subarray(at, at + SECTOR);
      t.true(sector.every((byte) => byte === sector[0]));
      counts[sector[0] as number] = (counts[sector[0] as number] ?? 0) + 1;
    }
    t.deepEqual(counts, [0, 10, 10, 10, 10]);
    for (const file of files) await file.close();
  }),
);
