// 4 KiB random overwrites, 32 in flight for two seconds: uext4 in a container, node:fs on the same host file system.
import { constants } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createHistogram } from 'node:perf_hooks';
import { Volume, allocAligned } from 'uext4';

const { O_CREAT, O_DIRECT, O_RDWR } = constants;
const FLAGS = O_RDWR | O_CREAT | O_DIRECT;
const FILE_BYTES = 64 * 1024 * 1024;
const BLOCK_BYTES = 4096;
const MILLISECONDS = 2000;

async function measure(name, file) {
  const whole = allocAligned(FILE_BYTES);
  await file.write(whole, 0, FILE_BYTES, 0);
  const latency = createHistogram();
  const end = performance.now() + MILLISECONDS;
  let writes = 0;
  const worker = async () => {
    const block = allocAligned(BLOCK_BYTES);
    while (performance.now() < end) {
      const position = Math.floor((Math.random() * FILE_BYTES) / BLOCK_BYTES) * BLOCK_BYTES;
      const start = performance.now();
      await file.write(block, 0, BLOCK_BYTES, position);
      latency.record(Math.max(1, Math.round((performance.now() - start) * 1e6)));
      writes += 1;
    }
  };
  await Promise.all(Array.from({ length: 32 }, worker));
  await file.close();
  const [p50, p99] = [50, 99].map((percentile) => Math.round(latency.percentile(percentile) / 1000));
  console.log(`${name}: ${Math.round((writes * 1000) / MILLISECONDS)} IOPS, p50 ${p50} µs, p99 ${p99} µs`);
}

const folder = await mkdtemp(join(tmpdir(), 'bench-'));
const image = join(folder, 'data.ext4');
await Volume.format(image, { sizeBytes: 256 * 1024 * 1024 });
const volume = await Volume.open(image);
try {
  await measure(`uext4 (${volume.info().backend})`, await volume.open('/file', FLAGS));
  await measure('node:fs', await open(join(folder, 'file'), FLAGS));
} finally {
  await volume.close();
  await rm(folder, { recursive: true });
}
