/** The built command on real images, as a shell runs it. */
import {
  mkdir,
  readFile,
  readdir,
  readlink,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { Volume, type FileExtent } from '../../src/index.js';
import { compare } from '../../src/main-job/verify.js';
import { hostReader } from '../../src/main-job/readers.js';
import { filesOf, readTree } from '../../src/main-job/tree.js';
import {
  assertClean,
  e2e,
  makeFolder,
  makeImage,
  MiB,
  pattern,
  ROOT,
  runProcess,
  type Ended,
} from './support.js';

function uext4(...args: string[]): Promise<Ended> {
  return runProcess(process.execPath, [join(ROOT, 'dist', 'cli', 'main.js'), ...args]);
}

/** A tree with all that the command copies. */
async function makeTree(folder: string): Promise<string> {
  const root = join(folder, 'tree');
  await mkdir(join(root, 'sub', 'empty'), { recursive: true });
  await writeFile(join(root, 'small'), 'small\n', { mode: 0o600 });
  await writeFile(join(root, 'empty'), '');
  await writeFile(join(root, 'sub', 'large'), pattern(3 * MiB + 123), { mode: 0o755 });
  await symlink('sub/large', join(root, 'link'));
  await symlink('/nowhere', join(root, 'dangling'));
  for (const [index, path] of ['small', 'empty', 'sub/large', 'sub/empty', 'sub'].entries())
    await utimes(join(root, path), 1_500_000_000 + index, 1_600_000_000 + index);
  return root;
}

/** What differs between two directories on the host. */
async function differences(from: string, to: string): Promise<string[]> {
  const { createHash } = await import('node:crypto');
  const tree = await readTree(from);
  for (const file of filesOf(tree))
    file.sha256 = createHash('sha256')
      .update(await readFile(join(from, file.path)))
      .digest('hex');
  const progress = { add: () => {}, end: () => {} };
  return compare(tree, hostReader(to), progress, new AbortController().signal);
}

async function fails(t: ExecutionContext, args: string[], status: number, message: RegExp): Promise<void> {
  const ended = await uext4(...args);
  t.is(ended.status, status, args.join(' '));
  t.regex(ended.err, message);
  t.is(ended.out, '');
  t.false(/\n\s+at /.test(ended.err), 'no stack');
}

e2e('mkfs, put, ls, cat, info, get: a tree comes back the same', async (t) => {
  const folder = await makeFolder(t);
  const root = await makeTree(folder);
  const image = join(folder, 'image');
  const made = await uext4('mkfs', image, '--size', '64M', '--label', 'tree', '--block-size', '4K', '--json');
  t.is(made.status, 0, made.err);
  t.like(JSON.parse(made.out), { blockSize: 4096, blockCount: 16384 });
  t.like(await uext4('put', image, root, '/'), { status: 0, out: '', err: '' });
  await assertClean(t, image);
  t.is((await uext4('ls', image)).out, 'lost+found\ntree\n');
  t.is(
    (await uext4('ls', '-R', image, '/tree')).out,
    'dangling\nempty\nlink\nsmall\nsub\nsub/empty\nsub/large\n',
  );
  const long = (await uext4('ls', '-l', image, '/tree')).out;
  t.regex(long, /^-rw------- 1 \d+ \d+ +6 2020-09-13 12:26:40 small$/m);
  t.regex(long, /^lrwxrwxrwx 1 .* link -> sub\/large$/m);
  const listed = JSON.parse((await uext4('ls', '--json', image, '/tree/sub/large')).out) as object[];
  t.like(listed[0], { path: '/tree/sub/large', type: 'file', size: 3 * MiB + 123, mode: 0o755 });
  t.is((await uext4('cat', image, '/tree/small')).out, 'small\n');
  t.like(JSON.parse((await uext4('info', image, '--json')).out), { label: 'tree', blockSize: 4096 });
  t.regex((await uext4('info', image)).out, /^label: tree$/m);
  const back = join(folder, 'back');
  t.like(await uext4('get', image, '/tree', back), { status: 0, err: '' });
  t.deepEqual(await differences(root, back), []);
  t.is(await readlink(join(back, 'dangling')), '/nowhere');
  // A second put of a single file replaces it.
  await writeFile(join(folder, 'small'), 'changed\n');
  t.like(await uext4('put', image, join(folder, 'small'), '/tree'), { status: 0 });
  t.is((await uext4('cat', image, '/tree/small')).out, 'changed\n');
  t.like(await uext4('get', image, '/tree/small', folder), { status: 0 });
  t.is((await stat(join(folder, 'small'))).size, 8);
  t.true((await readdir(back)).length === 5);
  await assertClean(t, image);
});

e2e('failures are exit status 1 with one line', async (t) => {
  const folder = await makeFolder(t);
  const image = await makeImage(t);
  const noise = join(folder, 'noise');
  await writeFile(noise, pattern(MiB));
  await fails(t, ['info', noise], 1, /^uext4: EINVAL: .*mount '.*noise' \(.*not an ext4 volume/);
  await fails(t, ['ls', join(folder, 'missing')], 1, /^uext4: ENOENT: /);
  await fails(
    t,
    ['cat', image, '/missing'],
    1,
    /^uext4: ENOENT: no such file or directory, open '\/missing'/,
  );
  await fails(t, ['cat', image, '/lost+found'], 1, /^uext4: EISDIR/);
  await fails(t, ['ls', image, '/missing'], 1, /^uext4: ENOENT/);
  await fails(t, ['get', image, '/missing', folder], 1, /^uext4: ENOENT/);
  await fails(t, ['put', image, join(folder, 'missing'), '/'], 1, /^uext4: ENOENT/);
  await fails(t, ['put', image, noise, '/missing/noise'], 1, /^uext4: ENOENT/);
  await assertClean(t, image);
  await truncate(image, 20 * MiB);
  await fails(t, ['ls', image], 1, /^uext4: EUCLEAN: .*truncated/);
});

e2e('an image in use is EBUSY, for every command', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  for (const args of [
    ['info', image],
    ['ls', image],
    ['cat', image, '/x'],
    ['put', image, '/dev/null', '/x'],
    ['mkfs', image, '--size', '64M'],
  ])
    await fails(t, args, 1, /^uext4: EBUSY: resource busy or locked, (mount|mkfs) '/);
  await volume.close();
  t.is((await uext4('ls', image)).status, 0);
});

e2e('a tree that does not fit is ENOSPC, and the volume stays clean', async (t) => {
  const folder = await makeFolder(t);
  const image = await makeImage(t, { sizeBytes: 8 * MiB });
  await writeFile(join(folder, 'large'), pattern(16 * MiB));
  await fails(t, ['put', image, join(folder, 'large'), '/large'], 1, /^uext4: ENOSPC/);
  await assertClean(t, image);
});

e2e('wrong usage is exit status 2', async (t) => {
  for (const args of [[], ['nope'], ['mkfs', 'x'], ['ls', 'x', '--nope'], ['cat', 'x'], ['info', 'a', 'b']])
    await fails(t, args, 2, /uext4 --help/);
  const help = await uext4('--help');
  t.is(help.status, 0);
  t.regex(help.out, /Usage:/);
});

e2e('the reader of a pipe may leave early', async (t) => {
  const image = await makeImage(t);
  const volume = await Volume.open(image);
  await volume.writeFile('/large', pattern(8 * MiB));
  await volume.close();
  const command = `"${process.execPath}" "${join(ROOT, 'dist', 'cli', 'main.js')}" cat "${image}" /large | head -c 10`;
  const { status, out, err } = await runProcess('sh', ['-c', command]);
  t.is(status, 0);
  t.is(err, '');
  t.is(Buffer.byteLength(out) > 0, true);
  await assertClean(t, image);
});

e2e('extents; get leaves holes', async (t) => {
  const image = await makeImage(t, { blockSize: 4096 });
  const volume = await Volume.open(image);
  const file = await volume.open('/sparse', 'w');
  await file.write(pattern(10_000), 0, 10_000, 8 * MiB);
  await file.fallocate(MiB, MiB);
  await file.truncate(32 * MiB + 5);
  await file.close();
  await volume.close();
  const extents = JSON.parse((await uext4('extents', image, '/sparse', '--json')).out) as FileExtent[];
  const bytes = (unwritten: boolean): number =>
    extents.filter((extent) => extent.unwritten === unwritten).reduce((sum, { length }) => sum + length, 0);
  t.deepEqual([bytes(true), bytes(false)], [MiB, 12_288]);
  t.deepEqual([extents[0]?.logical, extents.at(-1)?.last], [MiB, true]);
  const lines = (await uext4('extents', image, '/sparse')).out.split('\n');
  t.is(lines.length, extents.length + 1);
  t.regex(lines[0] as string, /^ +1048576 +\d+ +\d+ unwritten$/);
  const to = join(await makeFolder(t), 'copy');
  t.like(await uext4('get', image, '/sparse', to), { status: 0, err: '' });
  const { size, blocks } = await stat(to);
  t.is(size, 32 * MiB + 5);
  t.true(blocks * 512 < MiB, `${blocks} blocks`);
  const copy = await readFile(to);
  t.true(copy.subarray(8 * MiB, 8 * MiB + 10_000).equals(pattern(10_000)));
  t.true(
    [copy.subarray(0, 8 * MiB), copy.subarray(8 * MiB + 10_000)].every((part) =>
      part.every((byte) => byte === 0),
    ),
  );
});

e2e('mkfs takes the size of what is there', async (t) => {
  const image = join(await makeFolder(t), 'image');
  t.like(await uext4('mkfs', image), { status: 2 });
  await writeFile(image, '');
  await truncate(image, 16 * MiB);
  t.like(await uext4('mkfs', image), { status: 0, err: '' });
  t.is((await stat(image)).size, 16 * MiB);
  await assertClean(t, image);
});
