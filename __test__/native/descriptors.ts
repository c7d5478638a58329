/** A process of its own, whose descriptors nobody else opens: counts them before and after it repeats a job. */
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

import { Volume } from '../../src/index.js';

const WARM_UP = 4;
const [, , job, path = ''] = process.argv;

async function terminate(round: number): Promise<void> {
  const worker = new Worker(new URL('worker.js', import.meta.url), { workerData: { path, endless: true } });
  await once(worker, 'message');
  await sleep(round % 5);
  await worker.terminate();
}

async function reopen(round: number): Promise<void> {
  const volume = await Volume.open(path);
  await volume.writeFile(`/f${round}`, 'x');
  await volume.close();
}

let before = 0;
for (let round = 0; round < 24; round += 1) {
  if (round === WARM_UP) before = readdirSync('/proc/self/fd').length;
  await (job === 'terminate' ? terminate(round) : reopen(round));
}
console.log(JSON.stringify({ before, after: readdirSync('/proc/self/fd').length }));
