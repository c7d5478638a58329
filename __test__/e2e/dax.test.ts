/** Volumes in memory: `memory:NAME`, and containers on tmpfs with the option `dax` (A18). */
import { mkdtemp, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { allocAligned, constants, Volume } from '../../src/index.js';
import { assertClean, e2e, makeImage, MiB, pattern } from './support.js';

const { O_CREAT, O_DIRECT, O_DSYNC, O_RDWR } = constants;
const TMPFS_MAGIC = 0x01021994;

/** A folder on tmpfs; undefined, and said so, where there is none. */
async function memoryFolder(t: ExecutionContext): Promise<string | undefined> {
  const shm = await statfs('/dev/shm').catch(() => undefined);
  if (shm?.type !== TMPFS_MAGIC) {
    t.log('skipped: /dev/shm is no tmpfs');
    t.pass();
    return undefined;
  }
  const folder = await mkdtemp('/dev/shm/uext4-test-');
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function useFiles(t: ExecutionContext, volume: Volume): Promise<void> {
  const file = await volume.open('/file', O_RDWR | O_CREAT | O_DIRECT);
  const data = allocAligned(MiB);
  pattern(data.length).copy(data);
  t.is((await file.write(data, 0, 100_001, 7)).bytesWritten, 100_001, 'no alignment is asked for');
  t.is(file.writeSync(data, 5, 3, 0), 3);
  t.is((await file.write(data, 0, 10, 500_000)).bytesWritten, 10);
  const model = Buffer.alloc(500_010);
  data.copy(model, 7, 0, 100_001);
  data.copy(model, 0, 5, 8);
  data.copy(model, 500_000, 0, 10);
  const back = Buffer.alloc(600_000);
  t.is((await file.read(back, 0, back.length, 0)).bytesRead, model.length);
  t.true(back.subarray(0, model.length).equals(model));
  t.is(file.readSync(back, 0, 10, 100_008), 10);
  t.true(back.subarray(0, 10).equals(Buffer.alloc(10)), 'a hole');
  await file.truncate(50_000);
  await file.close();
  await volume.writeFile('/whole', pattern(300_000));
  t.true((await volume.readFile('/whole')).equals(pattern(300_000)));
  t.true((await volume.readFile('/file')).equals(model.subarray(0, 50_000)));
  const { dax, buffered, shared, exclusive } = volume.stats().writes;
  t.true(dax > 0);
  t.deepEqual([buffered, shared, exclusive], [0, 0, 0]);
}

e2e('memory:NAME is a container in memory: format, open, reopen, remove', async (t) => {
  const path = 'memory:format, open, reopen';
  await t.throwsAsync(Volume.open(path), { code: 'ENOENT' });
  await Volume.format(path, { sizeBytes: 32 * MiB, label: 'in memory' });
  const volume = await Volume.open(path);
  t.deepEqual([volume.info().backend, volume.info().dax, volume.info().label], ['memory', true, 'in memory']);
  await t.throwsAsync(Volume.open(path), { code: 'EBUSY' });
  await t.throwsAsync(Volume.removeMemory(path), { code: 'EBUSY' });
  await useFiles(t, volume);
  await volume.close();
  const readers = await Promise.all([1, 2].map(() => Volume.open(path, { readOnly: true })));
  for (const reader of readers) {
    t.false(reader.info().dax, 'through an overlay there is none');
    t.true((await reader.readFile('/whole')).equals(pattern(300_000)));
    await reader.close();
  }
  await Volume.removeMemory(path);
  await t.throwsAsync(Volume.removeMemory(path), { code: 'ENOENT' });
  await t.throwsAsync(Volume.removeMemory('/no/memory'), { code: 'ENOENT' });
});

e2e('A18: a container on tmpfs with dax; e2fsck judges the file', async (t) => {
  const folder = await memoryFolder(t);
  if (folder === undefined) return;
  const image = join(folder, 'volume.img');
  await Volume.format(image, { sizeBytes: 32 * MiB });
  const volume = await Volume.open(image, { dax: true });
  t.deepEqual([volume.info().backend, volume.info().dax], ['dax', true]);
  await useFiles(t, volume);
  const durable = await volume.open('/durable', O_RDWR | O_CREAT | O_DSYNC);
  await durable.write(pattern(10_000), 0, 10_000, 0);
  await durable.write(pattern(10, 3), 0, 10, 5000);
  await durable.close();
  await volume.close();
  await assertClean(t, image);
  const again = await Volume.open(image);
  t.false(again.info().dax, 'only by name');
  t.true((await again.readFile('/whole')).equals(pattern(300_000)));
  t.true((await again.readFile('/durable')).subarray(5000, 5010).equals(pattern(10, 3)));
  await again.close();
});

e2e('A18: dax on a file that is not in memory is refused', async (t) => {
  const image = await makeImage(t);
  const type = (await statfs(image)).type;
  if (type === TMPFS_MAGIC) {
    t.log('skipped: temporary files are in memory');
    t.pass();
    return;
  }
  await t.throwsAsync(Volume.open(image, { dax: true }), { code: 'ENOTSUP' });
  const readOnly = await Volume.open(image, { dax: true, readOnly: true });
  t.false(readOnly.info().dax);
  await readOnly.close();
  const empty = `${image}.empty`;
  await writeFile(empty, '');
  await t.throwsAsync(Volume.open(empty, { dax: true }), { code: 'EINVAL' });
});

e2e('E37: a full volume in memory says so, and keeps what it took', async (t) => {
  const path = 'memory:full';
  await Volume.format(path, { sizeBytes: 8 * MiB });
  const volume = await Volume.open(path);
  const file = await volume.open('/file', 'w+');
  const { bytesWritten } = await file.write(pattern(16 * MiB), 0, 16 * MiB, 0);
  t.true(bytesWritten > 0 && bytesWritten < 16 * MiB);
  await t.throwsAsync(file.write(pattern(MiB), 0, MiB, bytesWritten), { code: 'ENOSPC' });
  t.is((await file.stat()).size, bytesWritten);
  t.true((await volume.readFile('/file')).equals(pattern(16 * MiB).subarray(0, bytesWritten)));
  await file.close();
  await volume.close();
  await Volume.removeMemory(path);
});
