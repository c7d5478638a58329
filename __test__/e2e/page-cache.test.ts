/** Buffered I/O as its options have it: where data goes, when, and who hears that there is no space. */
import { copyFile } from 'node:fs/promises';

import { constants, Volume, type DataMode, type OpenOptions } from '../../src/index.js';
import { assertClean, e2e, makeImage, MiB, pattern } from './support.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;

for (const [data, dioreadNolock] of [
  ['ordered', true],
  ['ordered', false],
  ['writeback', true],
  ['journal', true],
] satisfies [DataMode, boolean][]) {
  e2e(`data=${data}, dioread_nolock ${dioreadNolock}: what was synced is there after a crash`, async (t) => {
    const image = await makeImage(t, { sizeBytes: 64 * MiB });
    const volume = await Volume.open(image, { data, dioreadNolock });
    const file = await volume.open('/file', O_RDWR | O_CREAT);
    const direct = await volume.open('/file', O_RDWR | O_DIRECT);
    const bytes = pattern(3 * MiB);
    await file.write(bytes, 0, 2 * MiB, 0);
    // Of 4096 bytes and at a multiple of them: direct, unless the data belongs into the journal (A3).
    await direct.write(bytes, 2 * MiB, MiB, 2 * MiB);
    const { fellBackBecause } = volume.stats().writes;
    t.is(fellBackBecause.unsupported, data === 'journal' ? 1 : 0);
    await file.truncate(3 * MiB - 1000);
    bytes.copy(bytes, 100, 5000, 9000);
    file.writeSync(bytes, 100, 4000, 100);
    await file.datasync();
    const crashed = `${image}.crashed`;
    await copyFile(image, crashed);
    await file.close();
    await direct.close();
    await volume.close();
    for (const path of [image, crashed]) {
      const again = await Volume.open(path);
      t.true((await again.readFile('/file')).equals(bytes.subarray(0, 3 * MiB - 1000)));
      await again.close();
      await assertClean(t, path);
    }
  });
}

e2e('dirty data is written back by age, without a sync', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image, { writeBackAgeMs: 1, commitIntervalMs: 1 });
  const file = await volume.open('/file', 'w+');
  await file.write(pattern(MiB));
  const deadline = Date.now() + 30_000;
  // Reserved space counts as used from the start; blocks are there once they are written back.
  while (volume.stats().deviceBytesWritten < MiB && Date.now() < deadline)
    await new Promise((resolve) => {
      setTimeout(resolve, 20);
    });
  t.true(volume.stats().deviceBytesWritten >= MiB);
  await file.close();
  await volume.close();
  await assertClean(t, image);
});

e2e('a full volume: the write is told, and what it took is kept', async (t) => {
  const image = await makeImage(t, { sizeBytes: 16 * MiB });
  const volume = await Volume.open(image, { pageCacheBytes: 2 * MiB });
  const file = await volume.open('/file', 'w+');
  const part = pattern(100_000);
  let written = 0;
  const error = await t.throwsAsync(async () => {
    for (;;) written += (await file.write(part, 0, part.length, written)).bytesWritten;
  });
  t.is((error as NodeJS.ErrnoException).code, 'ENOSPC');
  t.is((await file.stat()).size, written);
  await file.sync();
  await file.close();
  await volume.close();
  const again = await Volume.open(image);
  const found = await again.readFile('/file');
  t.is(found.length, written);
  for (let at = 0; at < written; at += part.length)
    t.true(found.subarray(at, at + part.length).equals(part.subarray(0, found.length - at)));
  await again.close();
  await assertClean(t, image);
});

e2e('options that are none', async (t) => {
  const image = await makeImage(t);
  for (const [bad, code] of [
    [{ data: 'x' }, 'ERR_INVALID_ARG_VALUE'],
    [{ dioreadNolock: 1 }, 'ERR_INVALID_ARG_TYPE'],
    [{ dirtyRatio: 101 }, 'ERR_OUT_OF_RANGE'],
    [{ pageCacheBytes: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ writeBackAgeMs: 0.5 }, 'ERR_OUT_OF_RANGE'],
  ] as const)
    await t.throwsAsync(Volume.open(image, bad as OpenOptions), { code });
});
