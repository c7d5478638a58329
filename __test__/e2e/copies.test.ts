/**
 * put and get keep what `cp -a` keeps. As root a setuid file of somebody became setuid root, hard links became files, one
 * name that is not UTF-8 ended a copy midway, and a link that an earlier copy had left was written through.
 */
import {
  chmod,
  chown,
  link,
  lstat,
  lutimes,
  mkdir,
  readFile,
  readdir,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';

import type { ExecutionContext } from 'ava';

import { Volume } from '../../src/index.js';
import { assertClean, e2e, makeFolder, makeImage, ROOT, runProcess } from './support.js';

const BAD_NAME = Buffer.from([0x61, 0xff, 0xfe, 0x1b, 0x62]);

const cli = (...args: string[]) => runProcess(process.execPath, [join(ROOT, 'dist/cli/main.js'), ...args]);

const at = (folder: string, name: Buffer) => Buffer.concat([Buffer.from(`${folder}/`), name]);

/** A tree with what gets lost easily. */
async function plant(folder: string, isRoot: boolean): Promise<void> {
  await mkdir(folder);
  await writeFile(join(folder, 'setuid'), 'x');
  if (isRoot) await chown(join(folder, 'setuid'), 1000, 1001);
  await chmod(join(folder, 'setuid'), 0o6755);
  await link(join(folder, 'setuid'), join(folder, 'again'));
  await writeFile(at(folder, BAD_NAME), 'odd');
  await symlink('setuid', join(folder, 'link'));
  await lutimes(join(folder, 'link'), 1_000_000.5, 1_000_001.25);
  await writeFile(join(folder, 'sparse'), 'start');
  await truncate(join(folder, 'sparse'), 8 << 20);
}

async function compare(t: ExecutionContext, folder: string, back: string): Promise<void> {
  const names = await readdir(folder, 'buffer');
  t.deepEqual(await readdir(back, 'buffer'), names);
  for (const name of names) {
    const [before, after] = [await lstat(at(folder, name)), await lstat(at(back, name))];
    for (const field of ['mode', 'uid', 'gid', 'nlink', 'size'] as const)
      t.is(after[field], before[field], `${name.toString()} ${field}`);
    // Node sets times in microseconds.
    t.true(Math.abs(after.mtimeMs - before.mtimeMs) < 0.002, name.toString());
  }
  t.is((await lstat(join(back, 'again'))).ino, (await lstat(join(back, 'setuid'))).ino);
  t.is(await readFile(at(back, BAD_NAME), 'utf8'), 'odd');
  t.true((await lstat(join(back, 'sparse'))).blocks * 512 < 1 << 20);
}

e2e('a tree goes into a volume and comes out the same', async (t) => {
  const [folder, image] = [await makeFolder(t), await makeImage(t)];
  await plant(join(folder, 'src'), process.getuid?.() === 0);
  t.like(await cli('put', image, join(folder, 'src'), '/t'), { status: 0, err: '' });
  const volume = await Volume.open(image);
  t.true((await volume.stat('/t/sparse')).blocks * 512 < 1 << 20, 'holes stay holes');
  await volume.close();
  // Over what is there, and again.
  t.like(await cli('put', image, join(folder, 'src'), '/'), { status: 0, err: '' });
  t.like(await cli('put', image, join(folder, 'src'), '/'), { status: 0, err: '' });
  t.like(await cli('get', image, '/t', join(folder, 'back')), { status: 0, err: '' });
  await compare(t, join(folder, 'src'), join(folder, 'back'));
  const listed = await cli('ls', image, '/t');
  t.regex(listed.out, /^a\\377\\376\\033b$/m);
  const json = JSON.parse((await cli('ls', image, '/t', '--json')).out) as { nameHex?: string }[];
  t.true(json.some((entry) => entry.nameHex === BAD_NAME.toString('hex')));
  await assertClean(t, image);
});

e2e('get writes through no link, and says what it cannot keep', async (t) => {
  const [folder, image] = [await makeFolder(t), await makeImage(t)];
  const volume = await Volume.open(image);
  await volume.mkdir('/t');
  await volume.symlink(join(folder, 'outside'), '/t/name');
  await volume.setxattr('/t', 'user.note', 'x');
  await volume.close();
  await writeFile(join(folder, 'outside'), 'mine');
  const first = await cli('get', image, '/t', join(folder, 'out'));
  t.is(first.status, 1);
  t.regex(first.err, /attributes are not kept \(user\.note\)/);
  const again = await Volume.open(image);
  await again.unlink('/t/name');
  await again.removexattr('/t', 'user.note');
  await again.writeFile('/t/name', 'theirs');
  await again.close();
  // The target has the link that the first copy left.
  t.like(await cli('get', image, '/t/name', join(folder, 'out')), { status: 0, err: '' });
  t.is(await readFile(join(folder, 'outside'), 'utf8'), 'mine');
  t.is(await readFile(join(folder, 'out', 'name'), 'utf8'), 'theirs');
});

e2e('what cannot be copied costs nothing that is there', async (t) => {
  const [folder, image] = [await makeFolder(t), await makeImage(t)];
  const [source, out] = [join(folder, 'src'), join(folder, 'out')];
  await mkdir(source);
  const made = await runProcess('mkfifo', [join(source, 'x')]);
  if (made.status !== 0) {
    t.log('skipped: mkfifo is missing');
    t.pass();
    return;
  }
  await link(join(source, 'x'), join(source, 'y'));
  await writeFile(join(source, 'z'), 'z');
  const put = await cli('put', image, source, '/t');
  t.is(put.status, 1);
  t.is(put.err.match(/not copied/g)?.length, 2, 'each name is said, and the rest is copied');
  const volume = await Volume.open(image);
  t.deepEqual(await volume.readdir('/t'), ['z']);
  await volume.close();
  // A link to a directory that the user names is followed, as cp does.
  await mkdir(out);
  await symlink(out, join(folder, 'tolink'));
  t.like(await cli('get', image, '/t/z', join(folder, 'tolink')), { status: 0, err: '' });
  t.is(await readFile(join(out, 'z'), 'utf8'), 'z');
  // The old copy of what cannot be read stays.
  t.is((await cli('get', image, '/t/missing', join(out, 'z'))).status, 1);
  t.is(await readFile(join(out, 'z'), 'utf8'), 'z');
});
