/** The synchronous pieces of the hot path, one at a time. */
import { constants } from 'node:fs';

import Benchmark from 'benchmark';

import { defaultEngine } from '../src/default-engine.js';
import { Volume } from '../src/index.js';
import { ProbeFlag, type Native, type NativeFile } from '../src/native/boundary.js';
import { isMisaligned, isUnaligned } from '../src/write-iter/alignment.js';
import { isExtendingIo } from '../src/write-iter/extension.js';
import { guessExclusive, judgeLock, whyDrain, mustWait } from '../src/write-iter/lock-mode.js';
import { checkWrite, clipCount, writePos } from '../src/write-iter/write-checks.js';
import { REQUEST_BYTES } from './sample.js';
import { hasTool, runProgram } from './tools.js';

/** Time of one call. */
export interface Kernel {
  readonly name: string;
  readonly nanos: number;
  /** Relative margin of error, in percent. */
  readonly marginPercent: number;
}

const FILE_BLOCKS = 256;

/** Every pure decision of one direct write, as C25 takes them. Returns something, so that nothing is left out. */
function decide(posBytes: number, sizeBytes: number, flags: number): number {
  const io = { append: false, posBytes, countBytes: REQUEST_BYTES, sizeBytes };
  const exclusive = guessExclusive(io);
  const at = writePos(io);
  const countBytes = clipCount({ posBytes: at, countBytes: REQUEST_BYTES, maxFileBytes: 2 ** 44 });
  const refused = checkWrite({
    immutable: (flags & ProbeFlag.IMMUTABLE) !== 0,
    posBytes: at,
    countBytes,
    maxFileBytes: 2 ** 44,
  });
  const memoryBits = 0;
  const plan = {
    exclusive,
    nowait: false,
    mayStripPrivileges: (flags & ProbeFlag.MAY_STRIP) !== 0,
    extending: isExtendingIo({ posBytes: at, countBytes, sizeBytes, diskSizeBytes: sizeBytes }),
    overwrite: (flags & ProbeFlag.OVERWRITE) !== 0,
    unwritten: (flags & ProbeFlag.UNWRITTEN) !== 0,
    journalled: false,
    unaligned: isUnaligned({ posBytes: at, countBytes, memoryBits, blockBytes: 4096 }),
  };
  const verdict = judgeLock(plan);
  const misaligned = isMisaligned({
    posBytes: at,
    countBytes,
    memoryBits,
    offsetAlignBytes: 512,
    memoryAlignBytes: 512,
  });
  return (
    refused +
    verdict.length +
    Number(mustWait(plan)) +
    Number(whyDrain(plan) !== undefined) +
    Number(misaligned) +
    countBytes
  );
}

async function completion(start: (native: Native, op: number) => void): Promise<number> {
  const engine = defaultEngine();
  function* task(): Generator<number, number, number> {
    const op = engine.token();
    start(engine.native, op);
    return yield op;
  }
  const result = await engine.run(task(), { failure: undefined });
  if (result < 0) throw new Error(`a native call failed with errno ${-result}`);
  return result;
}

/** Runs `body` with a native handle on a file of written blocks, in a volume of its own. */
async function withNativeFile(
  container: string,
  body: (native: Native, file: NativeFile) => void,
): Promise<void> {
  const path = '/kernels.dat';
  await Volume.format(container, { sizeBytes: 64 << 20, blockSize: 4096, force: true });
  const volume = await Volume.open(container);
  await volume.writeFile(path, Buffer.alloc(FILE_BLOCKS * REQUEST_BYTES, 1));
  await volume.close();
  const { native } = defaultEngine();
  const handle = await completion((_, op) =>
    native.openVolume(op, container, JSON.stringify({ engine: 'auto' })),
  );
  try {
    const file = await completion((_, op) => native.open(op, handle, path, constants.O_RDWR, 0));
    try {
      // The mapping is in memory from here on.
      await completion((_, op) => native.lookupWrite(op, file, 0, FILE_BLOCKS * REQUEST_BYTES));
      body(native, file);
    } finally {
      await completion((_, op) => native.closeFile(op, file));
    }
  } finally {
    await completion((_, op) => native.closeVolume(op, handle));
  }
}

function runSuite(native: Native, file: NativeFile, seconds: number): Kernel[] {
  const options = { maxTime: seconds, minSamples: 10 };
  const fileBytes = FILE_BLOCKS * REQUEST_BYTES;
  const sizes = new Float64Array(2);
  let position = 0;
  let kept = 0;
  const next = (): number => {
    position = (position + 5 * REQUEST_BYTES) % fileBytes;
    return position;
  };
  const kernels: Kernel[] = [];
  new Benchmark.Suite()
    .add('one N-API call (inodeSizes)', () => native.inodeSizes(file, sizes), options)
    .add(
      'overwrite probe (probeWrite)',
      () => (kept ^= native.probeWrite(file, next(), REQUEST_BYTES)),
      options,
    )
    .add('policy decision (C25)', () => (kept ^= decide(next(), fileBytes, ProbeFlag.OVERWRITE)), options)
    .on('cycle', (event: Benchmark.Event) => {
      const { name, stats, error } = event.target as unknown as Benchmark;
      if (error !== undefined) throw error;
      kernels.push({ name: name as string, nanos: stats.mean * 1e9, marginPercent: stats.rme });
    })
    .run();
  if (Number.isNaN(kept)) throw new Error('the probe returned no number');
  return kernels;
}

/** The engine's own kernels: extent lookup and crc32c, by the `kernels` program of ext4-sim. */
async function rustKernels(): Promise<Kernel[]> {
  if (!hasTool('cargo')) {
    console.log('cargo is missing: extent lookup and crc32c are not measured.');
    return [];
  }
  const args = ['run', '--release', '--quiet', '--package', 'ext4-sim', '--bin', 'kernels'];
  return JSON.parse(await runProgram('cargo', args)) as Kernel[];
}

/** Measures every kernel; `seconds` for each of those in JavaScript. */
export async function measureKernels(container: string, seconds: number): Promise<Kernel[]> {
  const kernels: Kernel[] = [];
  await withNativeFile(container, (native, file) => {
    kernels.push(...runSuite(native, file, seconds));
  });
  return [...kernels, ...(await rustKernels())];
}
