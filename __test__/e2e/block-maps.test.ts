/** Volumes of mke2fs without extents (E31): direct, buffered and mixed, as the kernel does it. */
import { execFileSync } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { allocAligned, constants, Volume } from '../../src/index.js';
import { assertClean, e2e, hasTool, makeFolder, MiB, pattern } from './support.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const BLOCK = 1024;

/** A mounted volume of mke2fs; e2fsck judges it afterwards. */
async function withMapVolume(
  t: ExecutionContext,
  options: readonly string[],
  work: (volume: Volume) => Promise<void>,
): Promise<void> {
  if (!(await hasTool('mke2fs', '-V'))) {
    t.log('skipped: needs mke2fs');
    t.pass();
    return;
  }
  const image = join(await makeFolder(t), 'volume.img');
  writeFileSync(image, '');
  truncateSync(image, 32 * MiB);
  execFileSync('mke2fs', ['-q', '-F', '-b', String(BLOCK), ...options, image]);
  const volume = await Volume.open(image);
  try {
    await work(volume);
  } finally {
    await volume.close();
  }
  await assertClean(t, image);
}

for (const type of ['ext2', 'ext3']) {
  e2e(
    `${type}: E31 an overwrite is direct, a hole buffered, an extension direct, the largest size EFBIG`,
    (t) =>
      withMapVolume(t, ['-t', type], async (volume) => {
        const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
        const data = allocAligned(32 * BLOCK);
        pattern(data.length).copy(data);
        const model = Buffer.alloc(64 * BLOCK);
        const write = async (pos: number, bytes: number): Promise<void> => {
          t.is((await file.write(data, 0, bytes, pos)).bytesWritten, bytes);
          data.copy(model, pos, 0, bytes);
        };
        await write(0, 32 * BLOCK);
        const extended = volume.stats().writes;
        t.deepEqual([extended.exclusiveBecause.extending, extended.fellBack], [1, 0]);
        await write(2 * BLOCK, 4 * BLOCK);
        t.is(volume.stats().writes.shared, 1);
        await file.truncate(64 * BLOCK);
        await write(40 * BLOCK, 4 * BLOCK);
        t.is(volume.stats().writes.fellBackBecause.hole, 1);
        // Up to the hole direct, the rest buffered (B10).
        await write(30 * BLOCK, 6 * BLOCK);
        t.is(volume.stats().writes.fellBackBecause.short, 1);
        const whole = allocAligned(64 * BLOCK);
        t.is((await file.read(whole, 0, whole.length, 0)).bytesRead, whole.length);
        t.true(whole.equals(model));
        const largest = (12 + 256 + 256 ** 2 + 256 ** 3) * BLOCK;
        await t.throwsAsync(file.write(data, 0, BLOCK, largest), { code: 'EFBIG' });
        await t.throwsAsync(file.truncate(largest + 1), { code: 'EFBIG' });
        t.is((await file.write(data, 0, 4 * BLOCK, largest - BLOCK)).bytesWritten, BLOCK, 'clipped (A4)');
        await file.truncate(64 * BLOCK);
        await file.close();
      }),
  );
}

e2e('E20: a misaligned write fills a hole of a block map, and is EINVAL elsewhere', (t) =>
  withMapVolume(t, ['-t', 'ext3'], async (volume) => {
    const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
    const data = allocAligned(8 * BLOCK);
    pattern(data.length).copy(data);
    await file.write(data, 0, BLOCK, 0);
    await file.truncate(8 * BLOCK);
    t.is((await file.write(data, 1, 700, 4 * BLOCK + 5)).bytesWritten, 700);
    await t.throwsAsync(file.write(data, 0, 700, 0), { code: 'EINVAL' });
    t.is(
      (await file.write(data, 0, 3 * BLOCK + 1, 0)).bytesWritten,
      3 * BLOCK + 1,
      'the mapped part is aligned',
    );
    await t.throwsAsync(file.write(data, 0, 700, 9 * BLOCK), { code: 'EINVAL' });
    t.is((await file.stat()).size, 8 * BLOCK);
    const back = allocAligned(BLOCK);
    await file.read(back, 0, BLOCK, 4 * BLOCK);
    t.true(back.subarray(5, 705).equals(data.subarray(1, 701)));
    t.true(back.subarray(705).every((byte) => byte === 0));
    await file.close();
  }),
);

e2e('files, directories and links without extents', (t) =>
  withMapVolume(t, ['-t', 'ext2', '-I', '128'], async (volume) => {
    await volume.mkdir('/dir');
    const names = Array.from({ length: 100 }, (_, index) => `a name of some length ${index}`);
    for (const name of names) await volume.writeFile(`/dir/${name}`, pattern(20_000));
    await volume.symlink('x/'.repeat(200), '/link');
    t.is((await volume.readlink('/link')).length, 400);
    t.deepEqual((await volume.readdir('/dir')).toSorted(), names.toSorted());
    for (const name of names.slice(50)) await volume.unlink(`/dir/${name}`);
    t.true((await volume.readFile(`/dir/${names[7]}`)).equals(pattern(20_000)));
  }),
);
