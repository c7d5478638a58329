/** volume.freeze, thaw, remount and shutdown, and the options of Volume.open that are the journal's. */
import { copyFile, readFile, truncate, writeFile } from 'node:fs/promises';
import { constants } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { ExecutionContext } from 'ava';

import { run } from '../../src/cli/run.js';
import { Volume, allocAligned, type FileHandle } from '../../src/index.js';
import { assertClean, e2e, hasTool, makeFolder, makeImage, MiB, pattern, runProcess } from './support.js';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const PAGE = 4096;

const code = (expected: string) => ({ code: expected });

async function settled(promise: Promise<unknown>): Promise<boolean> {
  return Promise.race([promise.then(() => true), sleep(20, false)]);
}

async function directFile(volume: Volume, path: string): Promise<FileHandle> {
  const file = await volume.open(path, O_RDWR | O_CREAT | O_DIRECT);
  await file.write(allocAligned(16 * PAGE), 0, 16 * PAGE, 0);
  return file;
}

e2e('freeze: the container is a clean volume; changes wait for the thaw, reads go on', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  const file = await directFile(volume, '/direct');
  await volume.writeFile('/buffered', pattern(10_000));
  const buffered = await volume.open('/buffered', 'r+');
  await volume.freeze();
  await t.throwsAsync(volume.freeze(), code('EBUSY'));

  const copy = `${image}.copy`;
  await copyFile(image, copy);
  await assertClean(t, copy);
  const before = await readFile(image);

  const page = allocAligned(PAGE).fill(7);
  const changes = [
    file.write(page, 0, PAGE, PAGE),
    file.write(page, 0, PAGE, 16 * PAGE),
    buffered.write('x', 0),
    buffered.truncate(5000),
    file.fallocate(0, PAGE, { mode: 'zero-range' }),
    buffered.chmod(0o600),
    volume.mkdir('/dir'),
    volume.writeFile('/new', 'new'),
    volume.rename('/buffered', '/renamed'),
    volume.setxattr('/direct', 'user.a', 'b'),
  ];
  for (const change of changes) t.false(await settled(change));
  t.throws(() => file.writeSync(page, 0, PAGE, 0), code('EBUSY'));
  const nowait = { offset: 0, length: PAGE, position: 0, nowait: true };
  await t.throwsAsync(file.write(page, nowait), code('EAGAIN'));
  t.deepEqual(await volume.readFile('/buffered'), pattern(10_000));
  t.is((await volume.stat('/direct')).size, 16 * PAGE);
  await volume.sync();
  t.true(before.equals(await readFile(image)), 'nothing is written while it is frozen');

  await volume.thaw();
  await Promise.all(changes);
  await t.throwsAsync(volume.thaw(), code('EINVAL'));
  t.is((await volume.stat('/direct')).size, 17 * PAGE);
  t.is((await volume.stat('/renamed')).size, 5000);
  t.is(await volume.readFile('/new', 'utf8'), 'new');
  await file.close();
  await buffered.close();
  await volume.close();
  await assertClean(t, image);
});

e2e('a frozen volume can be closed, and who waits for the thaw is let in first', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  await volume.freeze();
  const made = volume.mkdir('/made');
  await volume.close();
  await made;
  await assertClean(t, image);
  const again = await Volume.open(image, { readOnly: true });
  t.deepEqual((await again.readdir('/')).sort(), ['lost+found', 'made']);
  await again.close();
});

e2e('remount: read-only with nobody writing, and back', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  const writer = await directFile(volume, '/file');
  await t.throwsAsync(volume.remount({ readOnly: true }), code('EBUSY'));
  await writer.close();
  const reader = await volume.open('/file', 'r');
  await volume.remount({ readOnly: true });
  await volume.remount({ readOnly: true });
  t.true(volume.info().readOnly);
  await t.throwsAsync(volume.mkdir('/dir'), code('EROFS'));
  await t.throwsAsync(volume.open('/file', 'r+'), code('EROFS'));
  t.is((await reader.read(Buffer.alloc(100), 0, 100, 0)).bytesRead, 100);
  const copy = `${image}.copy`;
  await copyFile(image, copy);
  await assertClean(t, copy);
  await volume.remount({ readOnly: false });
  t.false(volume.info().readOnly);
  await volume.mkdir('/dir');
  await reader.close();
  await volume.close();
  await assertClean(t, image);
  const readOnly = await Volume.open(image, { readOnly: true });
  await t.throwsAsync(readOnly.freeze(), code('EROFS'));
  await readOnly.close();
  await t.throwsAsync(volume.remount({ readOnly: true }), code('EBADF'));
});

e2e('remount: what was opened read-only is opened anew, its journal replayed', async (t) => {
  const image = await makeImage(t);
  const crashed = await Volume.open(image);
  await crashed.mkdir('/dir');
  await crashed.writeFile('/dir/file', 'content', { flush: true });
  await crashed.shutdown('nologflush');
  await crashed.close();
  const volume = await Volume.open(image, { readOnly: true, noload: true, direct: true });
  t.deepEqual(await volume.readdir('/'), ['lost+found']);
  t.is(volume.info().atomicWriteUnitMin, 0);
  await volume.access('/');
  await t.throwsAsync(volume.access('/', constants.W_OK), code('EROFS'));
  const reader = await volume.open('/', 'r');
  await t.throwsAsync(volume.remount({ readOnly: false }), { code: 'EBUSY', message: /, remount$/ });
  await reader.close();

  const other = await Volume.open(image, { readOnly: true });
  await t.throwsAsync(volume.remount({ readOnly: false }), { code: 'EBUSY', message: /, mount '/ });
  t.true(volume.info().readOnly);
  await t.throwsAsync(volume.mkdir('/no'), code('EROFS'));
  await other.close();

  // What is called meanwhile waits for it.
  const remounted = volume.remount({ readOnly: false });
  t.throws(() => volume.info(), code('EBUSY'));
  const calls = Promise.all([
    volume.readFile('/dir/file', 'utf8'),
    volume.mkdir('/dir/new'),
    volume.remount({ readOnly: false }),
  ]);
  await remounted;
  t.is((await calls)[0], 'content');
  t.like(volume.info(), { readOnly: false });
  t.true((volume.info().atomicWriteUnitMin ?? 0) > 0);
  const file = await volume.open('/dir/direct', 'w');
  await t.throwsAsync(file.write('no block'), code('EINVAL'));
  await file.close();
  await volume.remount({ readOnly: true });
  await t.throwsAsync(volume.mkdir('/no'), code('EROFS'));
  await volume.remount({ readOnly: false });
  await volume.mkdir('/yes');
  await volume.close();
  await assertClean(t, image);

  const closing = await Volume.open(image, { readOnly: true });
  await Promise.all([closing.remount({ readOnly: false }), closing.close()]);
  await assertClean(t, image);
});

for (const mode of ['default', 'logflush', 'nologflush'] as const) {
  e2e(`shutdown: ${mode}`, async (t) => {
    const image = await makeImage(t);
    const volume = await Volume.open(image);
    const file = await directFile(volume, '/file');
    await volume.mkdir('/durable');
    await volume.sync();
    await volume.mkdir('/late');
    await volume.shutdown(mode);
    await t.throwsAsync(volume.mkdir('/dir'), code('EIO'));
    await t.throwsAsync(volume.readdir('/'), code('EIO'));
    await t.throwsAsync(file.write(allocAligned(PAGE), 0, PAGE, 0), code('EIO'));
    await file.close();
    await volume.close();
    const report = await Volume.recover(image);
    t.is(report.needed, mode !== 'default');
    await assertClean(t, image);
    const again = await Volume.open(image);
    const names = await again.readdir('/');
    t.true(names.includes('durable'));
    t.is(names.includes('late'), mode !== 'nologflush');
    await again.close();
  });
}

e2e('a frozen volume that is shut down: who waits for the thaw gets EIO', async (t) => {
  const volume = await Volume.open(await makeImage(t));
  await volume.freeze();
  const made = volume.mkdir('/made');
  await volume.shutdown();
  await t.throwsAsync(made, code('EIO'));
  await volume.close();
});

e2e('noload and readOnly: what the last checkpoint left; barrier, errors, commitIntervalMs', async (t) => {
  const image = await makeImage(t);
  const options = { barrier: false, errors: 'continue', commitIntervalMs: 5 } as const;
  const volume = await Volume.open(image, options);
  await volume.mkdir('/dir');
  const commits = async (): Promise<boolean> => {
    for (let tries = 0; tries < 200; tries += 1) {
      const copy = `${image}.copy`;
      await copyFile(image, copy);
      const other = await Volume.open(copy, { readOnly: true });
      const names = await other.readdir('/');
      await other.close();
      if (names.includes('dir')) return true;
      await sleep(10);
    }
    return false;
  };
  t.true(await commits(), 'without a sync');
  await volume.shutdown('nologflush');
  await volume.close();
  const stale = await Volume.open(image, { readOnly: true, noload: true });
  t.deepEqual(await stale.readdir('/'), ['lost+found']);
  await stale.close();
  await t.throwsAsync(Volume.open(image, { noload: true }), code('EINVAL'));
  for (const bad of [
    { errors: 'x' },
    { commitIntervalMs: 0 },
    { barrier: 1 },
    { noload: 'yes' },
    { journal: 5 },
  ])
    await t.throwsAsync(Volume.open(image, bad as never), { message: /options\./ });
});

/** A volume whose journal is in a file of its own, or undefined where e2fsprogs is missing. */
async function makeExternal(t: ExecutionContext): Promise<[image: string, journal: string] | undefined> {
  if (!(await hasTool('mke2fs', '-V'))) {
    t.log('skipped: needs mke2fs');
    t.pass();
    return undefined;
  }
  const folder = await makeFolder(t);
  const [image, journal] = [join(folder, 'image'), join(folder, 'journal')];
  for (const [path, size] of [
    [image, 32 * MiB],
    [journal, 8 * MiB],
  ] as const) {
    await writeFile(path, '');
    await truncate(path, size);
  }
  for (const argv of [
    ['-q', '-F', '-t', 'ext4', '-b', '4096', '-O', '^has_journal,^metadata_csum', image],
    ['-q', '-F', '-b', '4096', '-O', 'journal_dev', journal],
  ]) {
    const made = await runProcess('mke2fs', argv);
    t.is(made.status, 0, made.err);
  }
  // What `tune2fs -J device=` does, which wants block devices.
  const volumeBytes = await readFile(image);
  const journalBytes = await readFile(journal);
  const superblock = volumeBytes.subarray(1024, 2048);
  superblock.writeUInt32LE(superblock.readUInt32LE(0x5c) | 4, 0x5c);
  journalBytes.copy(superblock, 0xd0, 1024 + 0x68, 1024 + 0x78);
  superblock.writeUInt32LE(0x700, 0xe4);
  journalBytes.writeUInt32BE(1, 4096 + 0x40);
  superblock.copy(journalBytes, 4096 + 0x100, 0x68, 0x78);
  await writeFile(image, volumeBytes);
  await writeFile(journal, journalBytes);
  return [image, journal];
}

e2e('an external journal: open, recover and the command', async (t) => {
  const made = await makeExternal(t);
  if (made === undefined) return;
  const [image, journal] = made;
  await t.throwsAsync(Volume.open(image), code('EINVAL'));
  const volume = await Volume.open(image, { journal });
  await t.throwsAsync(Volume.open(`${image}.copy`, { journal }), code('ENOENT'));
  await volume.mkdir('/dir');
  await volume.shutdown('logflush');
  await volume.close();
  const out: string[] = [];
  const command = async (...argv: string[]): Promise<number> =>
    run(
      {
        out: async (data) => void out.push(String(data)),
        err: (line) => out.push(line),
        open: (path, options) => Volume.open(path, options),
        format: (path, options) => Volume.format(path, options),
        recover: (path, options) => Volume.recover(path, options),
      },
      argv,
      () => '',
    );
  t.is(await command('recover', image, '--dry-run', '--journal', journal), 3);
  t.is(await command('ls', image, '--journal', journal), 0);
  t.true(out.join('').includes('dir'));
  t.is(await command('recover', image, '--journal', journal), 0, out.join(''));
  t.is(await command('put', image, '/etc/hostname', '/put', '--journal', journal), 0, out.join(''));
  t.is(await command('ls', image), 1);
  const again = await Volume.open(image, { journal });
  t.deepEqual((await again.readdir('/')).sort(), ['dir', 'lost+found', 'put']);
  await again.close();
});
