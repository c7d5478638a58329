/** Appends, each made durable by fsync: records of any length through the page cache, whole blocks direct. */
import { createHash } from 'node:crypto';
import { createHistogram } from 'node:perf_hooks';

import { allocAligned, constants, type Volume } from '../index.js';
import type { LoadReport } from './overwrites.js';
import { fillPattern, PATTERN_BYTES } from './pattern.js';
import type { Progress } from './progress.js';

const { O_APPEND, O_CREAT, O_DIRECT, O_RDWR, O_TRUNC } = constants;
const FLAGS = O_RDWR | O_CREAT | O_TRUNC | O_APPEND;

/** How a record is appended. */
export type AppendKind = 'buffered' | 'direct';

/** Appends `count` records to a new file and syncs after each. */
export async function appends(
  at: { readonly volume: Volume; readonly path: string; readonly kind: AppendKind; readonly count: number },
  progress: Progress,
  signal: AbortSignal,
): Promise<LoadReport> {
  const direct = at.kind === 'direct';
  const file = await at.volume.open(at.path, direct ? FLAGS | O_DIRECT : FLAGS, 0o644);
  const hash = createHash('sha256');
  const latency = createHistogram();
  const buffer = allocAligned(PATTERN_BYTES);
  const begin = performance.now();
  let bytes = 0;
  try {
    for (let record = 0; record < at.count; record += 1) {
      signal.throwIfAborted();
      fillPattern(buffer, record, 0);
      const length = direct ? PATTERN_BYTES : 1 + ((record * 977) % PATTERN_BYTES);
      const start = performance.now();
      const { bytesWritten } = await file.write(buffer, 0, length);
      await file.sync();
      latency.record(Math.max(1, Math.round((performance.now() - start) * 1e6)));
      if (bytesWritten !== length) throw new Error(`short append: ${bytesWritten} of ${length} bytes`);
      hash.update(buffer.subarray(0, length));
      bytes += length;
      progress.add(1);
    }
  } finally {
    await file.close();
  }
  const seconds = (performance.now() - begin) / 1000;
  return { operations: at.count, bytes, seconds, latency, sha256: hash.digest('hex') };
}
