/** What others do to a container, and what is found in one. */
import { truncateSync } from 'node:fs';

import { allocAligned, Volume } from '../../src/index.js';
import { e2e, makeImage, MiB } from './support.js';

/*
 * A container that was cut while it was open gave EIO once. Then a write behind its new end made it longer again: what had
 * been lost read as zeros, and sync called that durable. The first sight of a cut now stops the volume.
 */
for (const engine of ['io_uring', 'threads'] as const) {
  for (const direct of [true, false]) {
    e2e(`a container cut short stops its volume: ${engine}, ${direct ? 'direct' : 'buffered'}`, async (t) => {
      const image = await makeImage(t);
      const first = await Volume.open(image);
      await first.writeFile('/f', Buffer.alloc(32 * MiB, 7), { flush: true });
      await first.close();
      const volume = await Volume.open(image, { engine, direct });
      const file = await volume.open('/f', 'r+');
      const page = allocAligned(4096).fill(1);
      const [{ physical = 0 } = {}] = await file.extents();
      truncateSync(image, physical + MiB);
      const eio = { code: 'EIO' };
      // Found by a flush, or by a read that is short.
      if (direct) await t.throwsAsync(file.read(page, 0, 4096, 16 * MiB), eio);
      else await file.write(page, 0, 4096, 16 * MiB).then(() => t.throwsAsync(file.sync(), eio));
      await t.throwsAsync(file.write(page, 0, 4096, 16 * MiB), eio);
      await t.throwsAsync(file.read(page, 0, 4096, 8 * MiB), eio);
      await t.throwsAsync(file.sync(), eio);
      await t.throwsAsync(volume.mkdir('/d'), eio);
      await file.close().catch(() => {});
      await t.throwsAsync(volume.close(), eio);
    });
  }
}
