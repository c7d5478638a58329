/** Files and names on a real volume, beyond what node:fs's shapes cover. */
import { Readable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';

import { constants, Volume } from '../../src/index.js';
import { assertClean, e2e, makeImage, MiB, pattern, withVolume } from './support.js';

/** Streams close their files by themselves, a little later. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await sleep(5);
}

e2e('append: writers of one file never overwrite each other', (t) =>
  withVolume(t, {}, async (volume) => {
    const files = await Promise.all([1, 2, 3, 4].map(() => volume.open('/log', 'a')));
    const writes = [];
    for (let round = 0; round < 25; round += 1)
      for (const [index, file] of files.entries())
        writes.push(file.write(Buffer.alloc(100 + index, 65 + index)));
    await Promise.all(writes);
    await Promise.all(files.map((file) => file.close()));
    const text = await volume.readFile('/log', 'latin1');
    t.is(text.length, 25 * (100 + 101 + 102 + 103));
    const records = text.match(/(.)\1*/g)?.join('').length;
    t.is(records, text.length);
    for (const [index, letter] of ['A', 'B', 'C', 'D'].entries())
      t.is(text.split(letter).length - 1, 25 * (100 + index));
  }),
);

e2e('concurrent writers of one region: every write is whole', (t) =>
  withVolume(t, { direct: true }, async (volume) => {
    const file = await volume.open('/file', 'w+');
    await Promise.all(
      Array.from({ length: 64 }, (_, index) =>
        file.write(Buffer.alloc(8192, index + 1), 0, 8192, (index % 16) * 4096),
      ),
    );
    await file.close();
    const data = await volume.readFile('/file');
    t.is(data.length, 17 * 4096);
    for (let block = 0; block < 17; block += 1) {
      const part = data.subarray(block * 4096, (block + 1) * 4096);
      t.true(
        part.every((byte) => byte === part[0] && byte !== 0),
        `block ${block}`,
      );
    }
  }),
);

e2e('truncate: shorter, longer, to the middle of a block; what is added reads as zeros', (t) =>
  withVolume(t, {}, async (volume) => {
    const file = await volume.open('/file', 'w+');
    const data = pattern(MiB);
    await file.write(data, 0, data.length, 0);
    await file.truncate(5000);
    await file.truncate(20_000);
    t.is((await file.stat()).size, 20_000);
    const expected = Buffer.alloc(20_000);
    data.copy(expected, 0, 0, 5000);
    t.true((await volume.readFile('/file')).equals(expected));
    await file.truncate();
    t.is((await file.stat()).size, 0);
    await file.sync();
    t.is((await file.stat()).blocks, 0);
    await file.close();
  }),
);

e2e('unlink while open: the file lives until its last handle goes, then its blocks are free', (t) =>
  withVolume(t, {}, async (volume) => {
    await volume.sync();
    const before = volume.info();
    const file = await volume.open('/file', 'w+');
    await file.write(pattern(4 * MiB), 0, 4 * MiB, 0);
    await file.sync();
    await volume.unlink('/file');
    await t.throwsAsync(volume.stat('/file'), { code: 'ENOENT' });
    t.is((await file.stat()).nlink, 0);
    await file.write(Buffer.from('still here'), 0, 10, 0);
    const { buffer } = await file.read(Buffer.alloc(10), 0, 10, 0);
    t.is(buffer.toString(), 'still here');
    await volume.writeFile('/file', 'another');
    t.is(await volume.readFile('/file', 'utf8'), 'another');
    await volume.unlink('/file');
    await file.close();
    await volume.sync();
    const after = volume.info();
    t.is(after.freeBlocks, before.freeBlocks);
    t.is(after.freeInodes, before.freeInodes);
  }),
);

e2e('an unlinked file that is open when the volume closes goes with it', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  const file = await volume.open('/file', 'w');
  await file.write(pattern(MiB));
  await volume.unlink('/file');
  await volume.close();
  await t.throwsAsync(file.stat(), { code: 'EBADF' });
  await assertClean(t, image);
  const again = await Volume.open(image, { readOnly: true });
  t.deepEqual(await again.readdir('/'), ['lost+found']);
  await again.close();
});

e2e('sync calls run while promises are in flight', (t) =>
  withVolume(t, { direct: true }, async (volume) => {
    const file = await volume.open('/file', 'w+');
    const buffered = await volume.open('/other', constants.O_RDWR | constants.O_CREAT);
    await volume.writeFile('/file', Buffer.alloc(64 * 4096));
    const inFlight = Array.from({ length: 32 }, (_, index) =>
      file.write(Buffer.alloc(4096, index + 1), 0, 4096, index * 4096),
    );
    for (let index = 32; index < 64; index += 1)
      t.is(file.writeSync(Buffer.alloc(4096, index + 1), 0, 4096, index * 4096), 4096);
    const block = Buffer.alloc(4096);
    for (let index = 32; index < 64; index += 1) {
      t.is(file.readSync(block, 0, 4096, index * 4096), 4096);
      t.true(block.every((byte) => byte === index + 1));
    }
    const mixed = [file.sync(), volume.mkdir('/dir'), ...inFlight];
    t.is(file.readSync(block, 0, 4096, 0), 4096);
    await Promise.all(mixed);
    const data = await volume.readFile('/file');
    for (let index = 0; index < 64; index += 1) t.is(data[index * 4096], index + 1);
    await buffered.close();
    await file.close();
    t.throws(() => file.readSync(block), { code: 'EBADF', message: 'file closed' });
  }),
);

e2e('names: long, UTF-8, bytes that are none, many in one directory', (t) =>
  withVolume(t, {}, async (volume) => {
    const long = 'n'.repeat(255);
    await volume.writeFile(`/${long}`, 'x');
    await t.throwsAsync(volume.writeFile(`/${long}n`, 'x'), { code: 'ENAMETOOLONG' });
    await volume.writeFile('/żółw 🐢', 'x');
    const raw = Buffer.from([0x2f, 0xff, 0xfe]);
    await volume.writeFile(raw, 'x');
    t.true((await volume.readdir('/', 'buffer')).some((name) => name.equals(raw.subarray(1))));
    t.true((await volume.readdir('/')).includes('żółw 🐢'));
    await volume.mkdir('/many');
    for (let index = 0; index < 3000; index += 1) await volume.writeFile(`/many/name-${index}`, '');
    t.is((await volume.readdir('/many')).length, 3000);
    for (let index = 0; index < 3000; index += 2) await volume.unlink(`/many/name-${index}`);
    t.is((await volume.readdir('/many')).length, 1500);
    await t.throwsAsync(volume.rmdir('/many'), { code: 'ENOTEMPTY' });
    await t.throwsAsync(volume.stat('/many/name-0'), { code: 'ENOENT' });
    t.is((await volume.stat('/many/name-1')).size, 0);
  }),
);

e2e('symbolic links: fast, in a block, through directories, in circles', (t) =>
  withVolume(t, {}, async (volume) => {
    await volume.mkdir('/dir');
    await volume.writeFile('/dir/file', 'found');
    await volume.symlink('/dir', '/link');
    t.is(await volume.readFile('/link/file', 'utf8'), 'found');
    const long = `/dir/${'./'.repeat(100)}file`;
    await volume.symlink(long, '/long');
    t.is(await volume.readlink('/long'), long);
    t.is((await volume.lstat('/long')).size, long.length);
    t.is(await volume.readFile('/long', 'utf8'), 'found');
    await volume.symlink('/b', '/a');
    await volume.symlink('/a', '/b');
    await t.throwsAsync(volume.stat('/a'), { code: 'ELOOP' });
    await volume.symlink('nowhere', '/dangling');
    await t.throwsAsync(volume.readFile('/dangling'), { code: 'ENOENT' });
    await volume.writeFile('/dangling', 'made');
    t.is(await volume.readFile('/nowhere', 'utf8'), 'made');
  }),
);

e2e('what sync made durable and what close wrote is there after a new mount', async (t) => {
  const image = await makeImage(t, { label: 'kept', uuid: '01234567-89ab-4def-8123-456789abcdef' });
  const volume = await Volume.open(image);
  await volume.mkdir('/a/b', { recursive: true });
  await volume.writeFile('/a/b/file', pattern(300_000), { mode: 0o640 });
  await volume.utimes('/a/b/file', 1_000_000_000.5, 2_000_000_000.25);
  await volume.sync();
  await volume.writeFile('/late', 'written back at close');
  await volume.close();
  await assertClean(t, image);
  const again = await Volume.open(image, { readOnly: true });
  t.like(again.info(), { label: 'kept', uuid: '01234567-89ab-4def-8123-456789abcdef', readOnly: true });
  t.true((await again.readFile('/a/b/file')).equals(pattern(300_000)));
  const { mode, atimeMs, mtimeMs } = await again.stat('/a/b/file');
  t.deepEqual([mode & 0o777, atimeMs, mtimeMs], [0o640, 1_000_000_000_500, 2_000_000_000_250]);
  t.is(await again.readFile('/late', 'utf8'), 'written back at close');
  for (const refused of [
    () => again.writeFile('/new', 'x'),
    () => again.mkdir('/new'),
    () => again.unlink('/late'),
    () => again.chmod('/late', 0o600),
    () => again.open('/late', 'r+'),
  ])
    await t.throwsAsync(refused(), { code: 'EROFS' });
  await again.close();
});

e2e('Symbol.asyncDispose closes files and volumes', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  const file = await volume.open('/file', 'w');
  await file[Symbol.asyncDispose]();
  t.throws(() => file.writeSync('x'), { code: 'EBADF' });
  await volume[Symbol.asyncDispose]();
  await t.throwsAsync(volume.readdir('/'), { code: 'EBADF' });
  await assertClean(t, image);
});

e2e(
  'new files and directories get the bits that the umask leaves, and the owner of the process',
  async (t) => {
    await withVolume(t, {}, async (volume) => {
      const umask = process.umask();
      await volume.writeFile('/file', '');
      await volume.writeFile('/private', '', { mode: 0o600 });
      await volume.mkdir('/dir');
      await volume.symlink('file', '/link');
      const modeOf = async (path: string): Promise<number> => (await volume.lstat(path)).mode & 0o7777;
      t.is(await modeOf('/file'), 0o666 & ~umask);
      t.is(await modeOf('/private'), 0o600 & ~umask);
      t.is(await modeOf('/dir'), 0o777 & ~umask);
      t.is(await modeOf('/link'), 0o777);
      const { uid, gid } = await volume.stat('/file');
      t.deepEqual([uid, gid], [process.geteuid?.(), process.getegid?.()]);
      await volume.chmod('/file', 0o666);
      t.is(await modeOf('/file'), 0o666);
    });
  },
);

e2e('chown: ids beyond 16 bits, of links, and what goes with it', async (t) => {
  await withVolume(t, {}, async (volume) => {
    await volume.writeFile('/file', '');
    await volume.mkdir('/dir', { mode: 0o755 });
    await volume.chmod('/dir', 0o7755);
    await volume.symlink('file', '/link');
    await volume.chmod('/file', 0o6711);
    await volume.setxattr('/file', 'security.capability', 'x');
    const file = await volume.open('/file', 'r');
    await volume.utimes('/file', 1, 1);
    await volume.chown('/link', 70_000, -1);
    const owners = async (path: string): Promise<number[]> => {
      const { uid, gid, mode } = await volume.lstat(path);
      return [uid, gid, mode & 0o7777];
    };
    const gid = process.getegid?.() ?? 0;
    t.deepEqual(await owners('/file'), [70_000, gid, 0o711]);
    t.deepEqual(await volume.listxattr('/file'), []);
    t.is((await volume.stat('/file')).mtimeMs, 1000);
    await volume.lchown('/link', 5, 2 ** 32 - 2);
    t.deepEqual(await owners('/link'), [5, 2 ** 32 - 2, 0o777]);
    await file.chown(-1, 7);
    t.deepEqual(await owners('/file'), [70_000, 7, 0o711]);
    await file.close();
    await volume.chown('/dir', 3, 4);
    t.deepEqual(await owners('/dir'), [3, 4, 0o7755]);
    await t.throwsAsync(volume.chown('/none', 1, 1), { code: 'ENOENT', message: /, chown '\/none'$/ });
  });
});

for (const direct of [false, true]) {
  e2e(
    `streams of a large file${direct ? ', direct' : ''}: copied by a pipeline, failing, aborted`,
    async (t) => {
      await withVolume(t, { direct }, async (volume) => {
        const data = pattern(3_000_001);
        await volume.writeFile('/from', data);
        const from = (await volume.open('/from', 'r')).createReadStream({ start: 0 });
        const to = (await volume.open('/to', 'w')).createWriteStream({ start: 0, flush: true });
        await pipeline(from, to);
        t.true((await volume.readFile('/to')).equals(data));
        await until(() => volume.stats().openFiles === 0);
        const reader = await volume.open('/from', 'r');
        await t.throwsAsync(pipeline(Readable.from(['x']), reader.createWriteStream()), { code: 'EBADF' });
        const again = await volume.open('/from', 'r');
        const aborted = again.createReadStream({ signal: AbortSignal.abort() });
        await t.throwsAsync(finished(aborted), { code: 'ABORT_ERR' });
        await until(() => volume.stats().openFiles === 0);
      });
    },
  );
}

e2e('writeFile of a buffer that was transferred meanwhile fails', async (t) => {
  await withVolume(t, {}, async (volume) => {
    const data = new Uint8Array(100_000);
    const written = volume.writeFile('/file', data);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    await t.throwsAsync(written, { code: 'EINVAL', message: /, write$/ });
  });
});

e2e('readFile of more than memory holds is the error of Node', async (t) => {
  await withVolume(t, { blockSize: 4096 }, async (volume) => {
    const file = await volume.open('/sparse', 'w');
    await file.truncate(2 ** 40);
    await file.close();
    await t.throwsAsync(volume.readFile('/sparse'), { code: 'ERR_FS_FILE_TOO_LARGE' });
  });
});

e2e('flags and lengths that make no sense are errors of Node', async (t) => {
  await withVolume(t, {}, async (volume) => {
    const file = await volume.open('/file', 'w+');
    await t.throwsAsync(file.read(Buffer.alloc(4), 0, Number.NaN, 0), { code: 'ERR_OUT_OF_RANGE' });
    // O_CREAT and O_DIRECTORY are among them.
    await t.throwsAsync(volume.open('/file', -1), { code: 'EINVAL' });
    await file.close();
  });
});

e2e('rm and readdir of a tree with names that are not UTF-8', async (t) => {
  await withVolume(t, { direct: true }, async (volume) => {
    const odd = Buffer.from([0x2f, 0x74, 0x2f, 0xff]);
    await volume.mkdir('/t');
    await volume.mkdir(odd);
    await volume.writeFile(Buffer.concat([odd, Buffer.from('/x')]), '1');
    const names = await volume.readdir('/', { recursive: true, encoding: 'buffer' });
    t.true(names.some((name) => name.equals(Buffer.from([0x74, 0x2f, 0xff, 0x2f, 0x78]))));
    await volume.rm('/t', { recursive: true });
    t.deepEqual(await volume.readdir('/'), ['lost+found']);
    // Several at once, each forgiving what the others removed.
    await volume.mkdir('/t/a/b', { recursive: true });
    await Promise.all(Array.from({ length: 50 }, (_, index) => volume.writeFile(`/t/a/b/${index}`, '')));
    await Promise.all([1, 2, 3].map(() => volume.rm('/t', { recursive: true, force: true })));
    t.deepEqual(await volume.readdir('/'), ['lost+found']);
    // Pieces of no whole block on a file that is direct.
    await volume.writeFile('/pieces', ['a'.repeat(5000), 'b'.repeat(5000)]);
    await volume.appendFile('/pieces', 'c');
    t.is(await volume.readFile('/pieces', 'latin1'), 'a'.repeat(5000) + 'b'.repeat(5000) + 'c');
  });
});
