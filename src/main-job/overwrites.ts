/** 4 KiB random overwrites of a written file at queue depth 32. */
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';

import { allocAligned, constants, type FileHandle, type Volume } from '../index.js';
import { fillPattern, patternSha256, PATTERN_BYTES } from './pattern.js';
import type { Progress } from './progress.js';

const QUEUE_DEPTH = 32;
const BATCH_BLOCKS = 256;
const { O_CREAT, O_DIRECT, O_RDWR, O_TRUNC } = constants;

/** What a load did. */
export interface LoadReport {
  readonly operations: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Nanoseconds. */
  readonly latency: RecordableHistogram;
  /** Of the file it leaves. */
  readonly sha256: string;
}

/** The load's file, and what each of its blocks holds. */
class LoadFile {
  readonly #file: FileHandle;
  readonly #generations: Uint32Array;
  /** Blocks with a write in flight: two at once would leave the content open. */
  readonly #busy: Uint8Array;
  readonly #latency = createHistogram();
  operations = 0;

  constructor(file: FileHandle, blocks: number) {
    this.#file = file;
    this.#generations = new Uint32Array(blocks);
    this.#busy = new Uint8Array(blocks);
  }

  /** Writes every block once, in large requests. */
  async fill(signal: AbortSignal): Promise<void> {
    const buffer = allocAligned(BATCH_BLOCKS * PATTERN_BYTES);
    for (let start = 0; start < this.#generations.length; start += BATCH_BLOCKS) {
      signal.throwIfAborted();
      const blocks = Math.min(BATCH_BLOCKS, this.#generations.length - start);
      for (let index = 0; index < blocks; index += 1)
        fillPattern(buffer.subarray(index * PATTERN_BYTES), start + index, 0);
      const bytes = blocks * PATTERN_BYTES;
      await this.#write(buffer, bytes, start * PATTERN_BYTES);
    }
  }

  /** One of {@link QUEUE_DEPTH}: overwrites random blocks until `isOver`. */
  async overwrite(buffer: Buffer, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      const block = this.#pick();
      const generation = (this.#generations[block] as number) + 1;
      fillPattern(buffer, block, generation);
      const start = performance.now();
      await this.#write(buffer, PATTERN_BYTES, block * PATTERN_BYTES);
      this.#latency.record(Math.max(1, Math.round((performance.now() - start) * 1e6)));
      this.#generations[block] = generation;
      this.#busy[block] = 0;
      this.operations += 1;
    }
  }

  report(seconds: number): LoadReport {
    const { operations } = this;
    const sha256 = patternSha256(this.#generations);
    return { operations, bytes: operations * PATTERN_BYTES, seconds, latency: this.#latency, sha256 };
  }

  async #write(buffer: Buffer, bytes: number, position: number): Promise<void> {
    const { bytesWritten } = await this.#file.write(buffer, 0, bytes, position);
    if (bytesWritten !== bytes)
      throw new Error(`short write: ${bytesWritten} of ${bytes} bytes at ${position}`);
  }

  #pick(): number {
    for (;;) {
      const block = Math.floor(Math.random() * this.#busy.length);
      if (this.#busy[block] === 1) continue;
      this.#busy[block] = 1;
      return block;
    }
  }
}

/** Makes a file of `sizeBytes` and overwrites it for `forSeconds`. */
export async function overwrites(
  at: {
    readonly volume: Volume;
    readonly path: string;
    readonly sizeBytes: number;
    readonly forSeconds: number;
  },
  progress: Progress,
  signal: AbortSignal,
): Promise<LoadReport> {
  const file = await at.volume.open(at.path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT, 0o644);
  const load = new LoadFile(file, at.sizeBytes / PATTERN_BYTES);
  try {
    await load.fill(signal);
    const start = performance.now();
    const end = start + at.forSeconds * 1000;
    const ticks = setInterval(() => progress.add(0.25), 250);
    const isOver = (): boolean => signal.aborted || performance.now() >= end;
    const buffers = Array.from({ length: QUEUE_DEPTH }, () => allocAligned(PATTERN_BYTES));
    try {
      await Promise.all(buffers.map((buffer) => load.overwrite(buffer, isOver)));
    } finally {
      clearInterval(ticks);
    }
    signal.throwIfAborted();
    return load.report((performance.now() - start) / 1000);
  } finally {
    await file.close();
  }
}
