/** What others do to a container, and what is found in one. */
import { truncateSync } from 'node:fs';
import { mkdir, open, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { allocAligned, Volume, type OpenOptions } from '../../src/index.js';
import { assertClean, e2e, e2eSerial, hasTool, makeFolder, makeImage, MiB, runProcess } from './support.js';

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
      const physical = (await file.extents())[0]?.physical ?? 0;
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

const busy = { code: 'EBUSY' };

async function openAndClose(path: string, options?: OpenOptions): Promise<void> {
  await (await Volume.open(path, options)).close();
}

/** The output of a tool of the host, which has to succeed. */
async function host(tool: string, ...args: string[]): Promise<string> {
  const { status, out, err } = await runProcess(tool, args);
  if (status !== 0) throw new Error(`${tool}: ${err}`);
  return out.trim();
}

const hasLoops = async (): Promise<boolean> =>
  process.getuid?.() === 0 && (await hasTool('losetup', '--version')) && (await hasTool('losetup', '-f'));

/*
 * The host's kernel knows nothing of our locks: a container that it had mounted was opened and formatted, and so was a loop
 * device over one that was open here. Two writers destroy a volume.
 */
e2eSerial('a container that the kernel has mounted, and a loop device over an open one', async (t) => {
  if (!(await hasLoops())) {
    t.log('skipped: needs root and loop devices');
    t.pass();
    return;
  }
  const image = await makeImage(t);
  const [moved, folder] = [`${image}.moved`, `${image}.mount`];
  await mkdir(folder);
  await host('mount', '-o', 'loop', image, folder);
  try {
    // The name that the loop device tells is wrong from here on.
    await rename(image, moved);
    await writeFile(image, '');
    const error = await t.throwsAsync(openAndClose(moved), busy);
    t.regex(error?.message ?? '', /\/dev\/loop\d+ lies on it/);
    await t.throwsAsync(openAndClose(moved, { readOnly: true }), busy);
    await t.throwsAsync(Volume.format(moved, { sizeBytes: 32 * MiB, force: true }), busy);
    await t.throwsAsync(Volume.recover(moved), busy);
    await openAndClose(moved, { readOnly: true, noload: true, force: true });
    await host('mount', '-o', 'remount,ro', folder);
    await openAndClose(moved, { readOnly: true });
    await t.throwsAsync(openAndClose(moved), busy);
  } finally {
    await host('umount', folder);
  }
  const volume = await Volume.open(moved);
  const device = await host('losetup', '--find', '--show', moved);
  try {
    await t.throwsAsync(openAndClose(device), busy);
    await t.throwsAsync(openAndClose(device, { readOnly: true }), busy);
    await volume.close();
    await openAndClose(device);
    await t.throwsAsync(openAndClose(moved), busy);
    await Promise.all([1, 2, 3].map(() => openAndClose(moved, { readOnly: true })));
    const viaDevice = await Volume.open(device);
    await t.throwsAsync(openAndClose(moved, { readOnly: true }), busy);
    await viaDevice.close();
  } finally {
    await host('losetup', '--detach', device);
  }
  await openAndClose(moved);
  await assertClean(t, moved);
});

/* A slip of the hand formatted what was there without a word. */
e2e('format names what is there and replaces it by force alone', async (t) => {
  const image = await makeImage(t, { label: 'precious' });
  const heard = await t.throwsAsync(Volume.format(image, { sizeBytes: 32 * MiB }), { code: 'EEXIST' });
  t.regex(heard?.message ?? '', /ext4 file system, label "precious", uuid [0-9a-f-]{36}; force/);
  await assertClean(t, image);
  await Volume.format(image, { sizeBytes: 32 * MiB, force: true });
  await assertClean(t, image);
  const other = join(await makeFolder(t), 'disk.img');
  await writeFile(other, Buffer.alloc(16 * MiB));
  const disk = await open(other, 'r+');
  await disk.write('EFI PART', 512);
  await disk.close();
  const table = await t.throwsAsync(Volume.format(other, {}), { code: 'EEXIST' });
  t.regex(table?.message ?? '', /a GPT partition table; force/);
  await Volume.format(other, { force: true });
  await assertClean(t, other);
  const memory = 'memory:format-names-what-is-there';
  await Volume.format(memory, { sizeBytes: 8 * MiB });
  await t.throwsAsync(Volume.format(memory, {}), { code: 'EEXIST' });
  await Volume.format(memory, { force: true });
  await Volume.removeMemory(memory);
});

/*
 * A remount that failed, because its container had been moved, left a volume behind that answered EBADF; and a file that was just
 * being opened for writing was not seen by one that made the volume read-only.
 */
e2e('a remount that fails leaves the volume as it was', async (t) => {
  const image = await makeImage(t);
  const made = await Volume.open(image);
  await made.writeFile('/f', 'content');
  await made.close();
  const volume = await Volume.open(image, { readOnly: true });
  const asBefore = async (): Promise<void> => {
    t.true(volume.info().readOnly);
    t.is(await volume.readFile('/f', 'utf8'), 'content');
    await t.throwsAsync(volume.mkdir('/d'), { code: 'EROFS' });
  };
  await rename(image, `${image}.moved`);
  await t.throwsAsync(volume.remount({ readOnly: false }), { code: 'ENOENT' });
  await asBefore();
  // Another file under its name is not the volume.
  await Volume.format(image, { sizeBytes: 16 * MiB });
  await t.throwsAsync(volume.remount({ readOnly: false }), { code: 'ENOENT' });
  await asBefore();
  await rename(`${image}.moved`, image);
  const other = await Volume.open(image, { readOnly: true });
  await t.throwsAsync(volume.remount({ readOnly: false }), busy);
  await asBefore();
  await other.close();
  await volume.remount({ readOnly: false });
  await volume.mkdir('/d');
  // Opened before the remount looks, or refused after it.
  const outcomes = await Promise.allSettled([volume.open('/f', 'r+'), volume.remount({ readOnly: true })]);
  t.is(outcomes[0].status, 'fulfilled');
  t.like(outcomes[1], { status: 'rejected', reason: { code: 'EBUSY' } });
  if (outcomes[0].status === 'fulfilled') await outcomes[0].value.close();
  const turned = await Promise.allSettled([volume.remount({ readOnly: true }), volume.open('/f', 'r+')]);
  t.is(turned[0].status, 'fulfilled');
  t.like(turned[1], { status: 'rejected', reason: { code: 'EROFS' } });
  await volume.close();
  await assertClean(t, image);
});
