/** The main job, as `npm start` runs it once everything is built. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { questionsOf } from '../../src/main-job/judges.js';
import { assertClean, e2e, makeFolder, MiB, pattern, ROOT, runProcess } from './support.js';

const JOB = join(ROOT, 'dist', 'main-job', 'main.js');

async function makeTree(folder: string): Promise<string> {
  const root = join(folder, 'from');
  await mkdir(join(root, 'deep', 'deeper'), { recursive: true });
  for (const size of [0, 1, 511, 512, 4096, 4097, 2 * MiB + 5])
    await writeFile(join(root, 'deep', `file-${size}`), pattern(size));
  await symlink('deep/file-1', join(root, 'link'));
  return root;
}

e2e('makes, fills, compares and judges a volume, and leaves nothing behind', async (t) => {
  const folder = await makeFolder(t);
  const from = await makeTree(folder);
  const fifo = await runProcess('mkfifo', [join(from, 'fifo')]);
  const env = { ...process.env, TMPDIR: folder };
  const { status, out, err } = await runProcess(
    process.execPath,
    [JOB, '--from', from, '--size', '64MiB', '--seconds', '0.3'],
    { env },
  );
  t.is(status, 0, out + err);
  t.regex(out, /^copied +7 files, 3 directories, 1 symbolic links/m);
  if (fifo.status === 0) t.regex(out, /^skipped +fifo: /m);
  t.regex(out, /^overwrites .* IOPS, p50 \d+ µs, p99 \d+ µs$/m);
  t.regex(out, /^writes +\d+ shared, \d+ exclusive, \d+ buffered$/m);
  t.regex(out, /^backend +(io_uring|threads) \(.+\)$/m);
  t.regex(out, /^mount again +passed/m);
  t.regex(out, /^e2fsck +(passed|skipped)/m);
  t.regex(out, /^kernel +(passed|skipped)/m);
  t.regex(out, /^All held\.$/m);
  t.deepEqual(await readdir(folder), ['from']);
});

e2e('--image keeps the container, and overwrites only a volume', async (t) => {
  const folder = await makeFolder(t);
  const from = await makeTree(folder);
  const image = join(folder, 'image');
  const args = [JOB, '--from', from, '--image', image, '--size', '32MiB', '--seconds', '0.1'];
  for (const _ of [1, 2]) t.is((await runProcess(process.execPath, args)).status, 0);
  await assertClean(t, image);
  await writeFile(image, 'precious');
  const { status, err } = await runProcess(process.execPath, args);
  t.is(status, 1);
  t.regex(err, /is there and no ext4 volume; remove it first/);
});

e2e('wrong usage, a tree that is none, and one that does not fit', async (t) => {
  const folder = await makeFolder(t);
  const from = await makeTree(folder);
  for (const [args, expected, message] of [
    [['--nope'], 2, /nope/],
    [['--size', 'big'], 2, /--size: not a size: big/],
    [['--from', join(folder, 'missing')], 1, /^--from: ENOENT/],
    [['--from', join(from, 'deep', 'file-1')], 1, /is no directory/],
    [['--from', from, '--size', '2MiB'], 1, /give a larger --size/],
  ] as const) {
    const { status, err } = await runProcess(process.execPath, [JOB, ...args], {
      env: { ...process.env, TMPDIR: folder },
    });
    t.is(status, expected, args.join(' '));
    t.regex(err, message);
  }
  t.deepEqual(await readdir(folder), ['from']);
});

e2e('SIGINT cleans up', async (t) => {
  const folder = await makeFolder(t);
  const from = await makeTree(folder);
  const child = spawn(process.execPath, [JOB, '--from', from, '--size', '64MiB', '--seconds', '60'], {
    env: { ...process.env, TMPDIR: folder },
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  let out = '';
  for await (const data of child.stdout) {
    out += String(data);
    if (/overwrites …/.test(out)) break;
  }
  child.kill('SIGINT');
  if (child.exitCode === null) await once(child, 'exit');
  t.is(child.exitCode, 130);
  t.deepEqual(await readdir(folder), ['from']);
  await t.notThrowsAsync(access(from));
});

e2e("e2fsck's hint about extent trees is no question", (t) => {
  t.deepEqual(questionsOf('Inode 12 extent tree (at level 1) could be shorter.  Optimize? no\n'), []);
  t.deepEqual(questionsOf('Pass 1\nInode 12 is a zombie.  Clear? no\n'), [
    'Inode 12 is a zombie.  Clear? no',
  ]);
});
