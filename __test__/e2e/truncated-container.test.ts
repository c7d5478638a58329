/**
 * A container that somebody cuts while it is open. The first read of the lost part was EIO, but after a later write it read
 * as zeros, and sync said that all was well.
 */
import { truncate } from 'node:fs/promises';

import { Volume, allocAligned, type OpenOptions } from '../../src/index.js';
import { e2e, makeImage, MiB, pattern } from './support.js';

const PAGE = 4096;
const SIZE = 32 * MiB;
const eio = { code: 'EIO' };

for (const engine of ['io_uring', 'threads'] as const) {
  for (const direct of [true, false]) {
    e2e(
      `${engine}, ${direct ? 'direct' : 'through the page cache of the host'}: a cut container is EIO for good`,
      async (t) => {
        const image = await makeImage(t);
        const options: OpenOptions = { engine, direct };
        const before = await Volume.open(image, options);
        await before.writeFile('/f', pattern(SIZE), { flush: true });
        await before.close();

        const volume = await Volume.open(image, options);
        const file = await volume.open('/f', 'r+');
        const other = await volume.open('/other', 'w');
        await truncate(image, 24 * MiB);
        const page = allocAligned(PAGE);
        await t.throwsAsync(file.read(page, 0, PAGE, SIZE - PAGE), eio);
        // Nothing more is taken, so nothing makes the container long again.
        await t.throwsAsync(file.write(page, 0, PAGE, SIZE - PAGE), eio);
        await t.throwsAsync(other.write(pattern(PAGE)), eio);
        await t.throwsAsync(file.read(page, 0, PAGE, SIZE - 2 * PAGE), eio);
        await t.throwsAsync(file.sync(), eio);
        await t.throwsAsync(volume.mkdir('/d'), eio);
        await t.throwsAsync(volume.sync(), eio);
        for (const handle of [file, other]) await handle.close().catch(() => undefined);
        await volume.close().catch(() => undefined);
      },
    );
  }

  e2e(`${engine}: a sync after the cut is not acknowledged`, async (t) => {
    const image = await makeImage(t);
    const volume = await Volume.open(image, { engine });
    await volume.writeFile('/f', pattern(PAGE), { flush: true });
    const file = await volume.open('/f', 'r+');
    await truncate(image, 24 * MiB);
    await file.write(pattern(PAGE, 7), 0, PAGE, 0);
    await t.throwsAsync(file.sync(), eio);
    await file.close().catch(() => undefined);
    await volume.close().catch(() => undefined);
  });
}
