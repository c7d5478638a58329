/** Worker threads: an environment of its own for each, which may end at any time. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

import test, { type ExecutionContext } from 'ava';

import { Volume } from '../../src/index.js';
import { assertClean, freshVolume } from './volumes.js';

const WORKER = new URL('worker.js', import.meta.url);
const PROCESS = fileURLToPath(new URL('descriptors.js', import.meta.url));

test.serial('workers that end by themselves', async (t) => {
  const path = await freshVolume(t);
  for (let round = 0; round < 3; round += 1) {
    const worker = new Worker(WORKER, { workerData: { path, endless: false } });
    const [status] = (await once(worker, 'exit')) as [number];
    t.is(status, 0);
  }
  assertClean(t, path);
});

function descriptorsOf(t: ExecutionContext, job: string, path: string): void {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [PROCESS, job, path], {
    encoding: 'utf8',
  });
  t.is(signal, null, stderr);
  t.is(status, 0, stderr);
  const { before, after } = JSON.parse(stdout) as { before: number; after: number };
  t.true(after <= before, stdout);
}

test.serial('workers that are terminated with I/O in flight leave no descriptor behind', async (t) => {
  const path = await freshVolume(t);
  descriptorsOf(t, 'terminate', path);
  // To the volume each of them was a crash: the journal puts it right.
  const volume = await Volume.open(path);
  // (The file may have gone with it: nobody may have lived to sync.)
  t.true((await volume.readdir('/')).includes('lost+found'));
  await volume.close();
  assertClean(t, path);
});

test.serial('opening and closing leaves no descriptor behind', async (t) => {
  const path = await freshVolume(t);
  descriptorsOf(t, 'reopen', path);
  assertClean(t, path);
});

test.serial('two workers and the main thread, a volume each', async (t) => {
  const paths = [await freshVolume(t), await freshVolume(t), await freshVolume(t)];
  const workers = paths.slice(1).map((path) => new Worker(WORKER, { workerData: { path, endless: false } }));
  const volume = await Volume.open(paths[0] as string);
  await volume.writeFile('/main', 'thread');
  const ends = await Promise.all(workers.map((worker) => once(worker, 'exit')));
  for (const [status] of ends as [number][]) t.is(status, 0);
  t.is(await volume.readFile('/main', 'utf8'), 'thread');
  await volume.close();
  for (const path of paths) assertClean(t, path);
});
