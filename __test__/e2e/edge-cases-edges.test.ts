/** Rows of E about edges: of the file, of blocks, of memory, of space. Contents are a model's, and e2fsck agrees. */
import { execFileSync } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { allocAligned, constants, Volume, type FileHandle } from '../../src/index.js';
import { assertClean, e2e, hasTool, makeFolder, MiB, pattern, withVolume } from './support.js';

const { O_APPEND, O_CREAT, O_DIRECT, O_RDWR } = constants;
const BLOCK = 4096;
const SECTOR = 512;
const FLAGS = O_RDWR | O_CREAT | O_DIRECT;
const GEOMETRY = { blockSize: BLOCK };

function filled(bytes: number, fill: number): Buffer {
  return allocAligned(bytes).fill(fill);
}

async function contents(volume: Volume, path: string): Promise<Buffer> {
  return volume.readFile(path);
}

/** Takes every free block of the volume. */
async function fillVolume(volume: Volume): Promise<void> {
  const filler = await volume.open('/filler', FLAGS);
  let end = 0;
  for (const length of [MiB, 64 * 1024, BLOCK]) {
    for (;;) {
      try {
        await filler.write(allocAligned(length), 0, length, end);
        end += length;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        break;
      }
    }
  }
  await filler.close();
}

e2e('E18: reads at and after the end of the file, in its last block', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    await volume.writeFile('/file', pattern(BLOCK + 700), { flush: true });
    const file = await volume.open('/file', FLAGS);
    const back = allocAligned(2 * BLOCK);
    const read = async (length: number, position: number): Promise<number> =>
      (await file.read(back, 0, length, position)).bytesRead;
    t.is(await read(BLOCK, BLOCK), 700);
    t.true(back.subarray(0, 700).equals(pattern(BLOCK + 700).subarray(BLOCK)));
    t.is(await read(2 * BLOCK, 0), BLOCK + 700);
    t.is(await read(SECTOR, BLOCK + SECTOR), 700 - SECTOR);
    t.is(await read(SECTOR, BLOCK + 2 * SECTOR), 0);
    t.is(await read(BLOCK, 2 * BLOCK), 0);
    // B3: at the end nothing is asked, not even alignment.
    t.is(await read(7, BLOCK + 701), 0);
    await t.throwsAsync(read(7, BLOCK), { code: 'EINVAL' });
    await file.close();
  }),
);

e2e('E19: writes of one device block, smaller than a block', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    const expected = Buffer.alloc(4 * BLOCK);
    const order = Array.from({ length: 32 }, (_, index) => (index * 11) % 32);
    let end = 0;
    for (const sector of order) {
      t.is((await file.write(filled(SECTOR, sector + 1), 0, SECTOR, sector * SECTOR)).bytesWritten, SECTOR);
      expected.fill(sector + 1, sector * SECTOR, (sector + 1) * SECTOR);
      end = Math.max(end, (sector + 1) * SECTOR);
      t.true((await contents(volume, '/file')).equals(expected.subarray(0, end)));
    }
    await file.close();
  }),
);

e2e('E20, B2: a misaligned write to a hole is EINVAL, and the hole reads as zeros', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    await file.truncate(4 * BLOCK);
    for (const [length, position] of [
      [100, BLOCK],
      [BLOCK, BLOCK + 1],
      [SECTOR, 100],
      [SECTOR, 4 * BLOCK + 1],
    ] as const)
      await t.throwsAsync(file.write(filled(BLOCK, 9), 0, length, position), { code: 'EINVAL' });
    t.true((await contents(volume, '/file')).equals(Buffer.alloc(4 * BLOCK)));
    await file.close();
  }),
);

e2e('E21: a misaligned read of a hole or of unwritten blocks succeeds, of data it is EINVAL', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    await file.write(filled(BLOCK, 1), 0, BLOCK, 0);
    await file.truncate(3 * BLOCK);
    await file.fallocate(2 * BLOCK, BLOCK);
    const back = filled(BLOCK, 9);
    for (const position of [BLOCK + 1, 2 * BLOCK + 100]) {
      t.is((await file.read(back, 0, 333, position)).bytesRead, 333);
      t.true(back.subarray(0, 333).every((byte) => byte === 0));
    }
    await t.throwsAsync(file.read(back, 0, 333, 0), { code: 'EINVAL' });
    await t.throwsAsync(file.read(back, 0, SECTOR, 1), { code: 'EINVAL' });
    await file.close();
  }),
);

e2e('E22, A6, B1: memory off the device alignment is EINVAL; off the block alignment it is unaligned', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    const align = volume.info().dioMemoryAlign;
    const memory = filled(4 * BLOCK, 5);
    await file.fallocate(0, 4 * BLOCK);
    await file.write(memory, align, BLOCK, 0);
    const one = volume.stats().writes;
    t.is(one.exclusiveBecause.unalignedUnwritten, align % BLOCK === 0 ? 0 : 1);
    // The same range once more, now written: shared, whatever the memory (C10).
    await file.write(memory, align, BLOCK, 0);
    t.is(volume.stats().writes.sharedBecause.unaligned, 1);
    if (align > 1) await t.throwsAsync(file.write(memory, align / 2, BLOCK, 0), { code: 'EINVAL' });
    // Each segment counts: its address, and its length.
    const parts = [memory.subarray(0, SECTOR), memory.subarray(BLOCK, 2 * BLOCK - SECTOR)];
    t.is((await file.writev(parts, BLOCK)).bytesWritten, BLOCK);
    t.is(
      volume.stats().writes.exclusiveBecause.unalignedUnwritten,
      one.exclusiveBecause.unalignedUnwritten + 1,
    );
    t.true((await contents(volume, '/file')).subarray(0, 2 * BLOCK).every((byte) => byte === 5));
    await file.close();
  }),
);

e2e('E25: a write strips setuid, and setgid of what the group may execute', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    for (const [mode, after] of [
      [0o4755, 0o755],
      [0o2755, 0o755],
      [0o2644, 0o2644],
      [0o6777, 0o777],
    ] as const) {
      for (const direct of [true, false]) {
        const file = await volume.open('/binary', direct ? FLAGS : FLAGS & ~O_DIRECT);
        await file.write(filled(BLOCK, 1), 0, BLOCK, 0);
        await file.chmod(mode);
        await file.write(filled(BLOCK, 2), 0, BLOCK, 0);
        t.is((await file.stat()).mode & 0o7777, after);
        await file.close();
      }
    }
    t.is(volume.stats().writes.exclusiveBecause.privileges, 3);
  }),
);

e2e('E32: overwrites across written and unwritten blocks, and across a hole: exclusive, and right', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    await file.truncate(8 * BLOCK);
    await file.fallocate(2 * BLOCK, 2 * BLOCK);
    await file.write(filled(2 * BLOCK, 1), 0, 2 * BLOCK, 0);
    const expected = Buffer.alloc(8 * BLOCK).fill(1, 0, 2 * BLOCK);
    const before = volume.stats().writes.exclusiveBecause.notOverwrite;
    for (const [value, position, length] of [
      [2, BLOCK + SECTOR, 2 * BLOCK],
      [3, 3 * BLOCK, 2 * BLOCK],
      [4, BLOCK, 6 * BLOCK + SECTOR],
    ] as const) {
      t.is((await file.write(filled(length, value), 0, length, position)).bytesWritten, length);
      expected.fill(value, position, position + length);
      t.true((await contents(volume, '/file')).equals(expected));
    }
    t.is(volume.stats().writes.exclusiveBecause.notOverwrite, before + 3);
    await file.close();
  }),
);

e2e('E34: a write inside i_size, past what is on disk, raises that', (t) =>
  withVolume(t, GEOMETRY, async (volume, image) => {
    t.true(image.length > 0);
    const buffered = await volume.open('/file', 'w+');
    await buffered.write(pattern(4 * BLOCK), 0, 4 * BLOCK, 0);
    const direct = await volume.open('/file', FLAGS);
    await direct.write(filled(BLOCK, 1), 0, BLOCK, 3 * BLOCK);
    t.is(volume.stats().writes.exclusive, 1);
    await direct.datasync();
    const expected = pattern(4 * BLOCK).fill(1, 3 * BLOCK);
    t.true((await contents(volume, '/file')).equals(expected));
    await direct.close();
    await buffered.close();
  }),
);

e2e(
  'E35: write-back raises the size on disk under a direct write: no orphan is left, in either place',
  async (t) => {
    if (!(await hasTool('mke2fs', '-V'))) {
      t.log('skipped: needs mke2fs');
      return;
    }
    for (const features of ['orphan_file', '^orphan_file']) {
      const image = join(await makeFolder(t), 'image');
      execFileSync('mke2fs', ['-q', '-t', 'ext4', '-b', `${BLOCK}`, '-O', features, image, '16M']);
      const volume = await Volume.open(image);
      const buffered = await volume.open('/file', 'w+');
      await buffered.write(pattern(4 * BLOCK), 0, 4 * BLOCK, 0);
      // An orphan from here on; its range is written back before it is written to.
      const direct = await volume.open('/file', FLAGS);
      await direct.write(filled(2 * BLOCK, 1), 0, 2 * BLOCK, BLOCK);
      t.is(volume.stats().writes.exclusive, 1);
      const expected = pattern(4 * BLOCK).fill(1, BLOCK, 3 * BLOCK);
      t.true((await contents(volume, '/file')).equals(expected));
      await volume.close();
      await assertClean(t, image);
      const again = await Volume.open(image);
      t.true((await contents(again, '/file')).equals(expected));
      await again.close();
    }
  },
);

/** E37, E42: on a full volume. */
async function onFullVolume(volume: Volume, file: FileHandle, work: () => Promise<void>): Promise<void> {
  await file.write(filled(BLOCK, 1), 0, BLOCK, 0);
  await fillVolume(volume);
  await work();
  await file.close();
}

e2e('E37, E42: a write that runs out of space past the end is ENOSPC: size unchanged, blocks freed', (t) =>
  withVolume(t, { ...GEOMETRY, sizeBytes: 8 * MiB }, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    await onFullVolume(volume, file, async () => {
      const { blocks } = await file.stat();
      for (const [length, position] of [
        [BLOCK, BLOCK],
        [16 * BLOCK, BLOCK],
        [BLOCK, 100 * BLOCK],
        [SECTOR, 100 * BLOCK + SECTOR],
      ] as const)
        await t.throwsAsync(file.write(filled(length, 2), 0, length, position), { code: 'ENOSPC' });
      const after = await file.stat();
      t.deepEqual([after.size, after.blocks], [BLOCK, blocks]);
      t.true((await contents(volume, '/file')).equals(filled(BLOCK, 1)));
    });
  }),
);

e2e('E38, C25.9: a failed extension takes the preallocation past the end with it', (t) =>
  withVolume(t, { ...GEOMETRY, sizeBytes: 8 * MiB }, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    await file.fallocate(0, 8 * BLOCK, { keepSize: true });
    await onFullVolume(volume, file, async () => {
      const length = 64 * BLOCK;
      await t.throwsAsync(file.write(filled(length, 2), 0, length, BLOCK), { code: 'ENOSPC' });
      const after = await file.stat();
      t.deepEqual([after.size, after.blocks * SECTOR], [BLOCK, BLOCK]);
      // And what it gave back can be written to.
      t.is((await file.write(filled(4 * BLOCK, 3), 0, 4 * BLOCK, BLOCK)).bytesWritten, 4 * BLOCK);
    });
  }),
);

e2e('E39, S5: an extension that fails across 4 GiB leaves no blocks past the end', (t) =>
  withVolume(t, { ...GEOMETRY, sizeBytes: 8 * MiB }, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    const end = 2 ** 32;
    await file.truncate(end - 4 * BLOCK);
    await onFullVolume(volume, file, async () => {
      await t.throwsAsync(file.write(filled(8 * BLOCK, 2), 0, 8 * BLOCK, end - 4 * BLOCK), {
        code: 'ENOSPC',
      });
      const after = await file.stat();
      t.deepEqual([after.size, after.blocks * SECTOR], [end - 4 * BLOCK, BLOCK]);
      await volume.unlink('/filler');
      await volume.sync();
      t.is((await file.write(filled(8 * BLOCK, 2), 0, 8 * BLOCK, end - 4 * BLOCK)).bytesWritten, 8 * BLOCK);
      t.is((await file.stat()).size, end + 4 * BLOCK);
    });
  }),
);

e2e('E40, S6, B10: a direct prefix before a hole that cannot be filled is reported', async (t) => {
  if (!(await hasTool('mke2fs', '-V'))) {
    t.log('skipped: needs mke2fs');
    t.pass();
    return;
  }
  const image = join(await makeFolder(t), 'volume.img');
  writeFileSync(image, '');
  truncateSync(image, 8 * MiB);
  execFileSync('mke2fs', ['-q', '-F', '-t', 'ext2', '-b', '4096', '-m', '0', image]);
  const volume = await Volume.open(image);
  const file = await volume.open('/file', FLAGS);
  await onFullVolume(volume, file, async () => {
    await file.truncate(4 * BLOCK);
    t.is((await file.write(filled(2 * BLOCK, 2), 0, 2 * BLOCK, 0)).bytesWritten, BLOCK);
    t.is(volume.stats().writes.fellBackBecause.short, 1);
    await t.throwsAsync(file.write(filled(BLOCK, 2), 0, BLOCK, BLOCK), { code: 'ENOSPC' });
    const expected = Buffer.alloc(4 * BLOCK).fill(2, 0, BLOCK);
    t.true((await contents(volume, '/file')).equals(expected));
    // Without a position it moves by the prefix.
    t.is((await file.write(filled(2 * BLOCK, 3), 0, 2 * BLOCK)).bytesWritten, BLOCK);
    t.is((await file.read(filled(BLOCK, 9), 0, BLOCK)).bytesRead, BLOCK);
  });
  await volume.close();
  await assertClean(t, image);
});

e2e('E43: without a position it moves by what was done, and not on errors', (t) =>
  withVolume(t, GEOMETRY, async (volume) => {
    const file = await volume.open('/file', FLAGS);
    await file.write(filled(BLOCK, 1));
    t.is(file.writeSync(filled(SECTOR, 2)), SECTOR);
    await t.throwsAsync(file.write(filled(100, 3)), { code: 'EINVAL' });
    await file.writev([filled(SECTOR, 4), filled(SECTOR, 5)]);
    await file.write(filled(SECTOR, 6), 0, SECTOR, 0);
    await Promise.all([7, 8, 9].map((value) => file.write(filled(SECTOR, value))));
    const sectors = [6, 1, 1, 1, 1, 1, 1, 1, 2, 4, 5, 7, 8, 9];
    const expected = Buffer.concat(sectors.map((value) => filled(SECTOR, value)));
    t.true((await contents(volume, '/file')).equals(expected));
    const reader = await volume.open('/file', O_RDWR | O_DIRECT);
    const back = allocAligned(expected.length);
    t.is((await reader.read(back, 0, BLOCK)).bytesRead, BLOCK);
    t.is(reader.readvSync([back.subarray(BLOCK, BLOCK + SECTOR), back.subarray(BLOCK + SECTOR)]), 6 * SECTOR);
    t.true(back.equals(expected));
    t.is((await reader.read(back, 0, SECTOR)).bytesRead, 0);
    // O_APPEND: the position is where the append ended.
    const append = await volume.open('/file', O_RDWR | O_APPEND | O_DIRECT);
    await append.write(filled(SECTOR, 10));
    t.is((await append.read(back, 0, SECTOR)).bytesRead, 0);
    for (const handle of [file, reader, append]) await handle.close();
  }),
);
