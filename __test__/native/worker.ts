/** Keeps a volume busy until it is terminated, or does some work and ends. */
import { constants } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';

import { Volume, allocAligned } from '../../src/index.js';

const { path, endless } = workerData as { path: string; endless: boolean };
const { O_CREAT, O_DIRECT, O_RDWR } = constants;

const volume = await Volume.open(path);
const file = await volume.open('/busy', O_CREAT | O_RDWR | O_DIRECT);
const buffer = allocAligned(65536);
const plain = Buffer.alloc(65536);
await file.write(buffer, 0, 65536, 0);

const rounds = endless ? Infinity : 8;

async function work(slot: number): Promise<void> {
  for (let round = 0; round < rounds; round += 1) {
    await file.write(round % 2 === 0 ? buffer : plain, 0, 4096, slot * 4096);
    await file.read(round % 2 === 0 ? plain : buffer, slot * 4096, 4096, slot * 4096);
    if (slot === 0) await file.datasync();
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a worker's port has no origin
parentPort?.postMessage('busy');
await Promise.all(Array.from({ length: 16 }, (_, slot) => work(slot)));
await volume.close();
