/** What one run is asked for, and what it found. */

/** Bytes of every request. */
export const REQUEST_BYTES = 4096;

export type Op = 'write' | 'read';

/** One run: random requests of 4 KiB, `queueDepth` in flight, for some seconds. */
export interface Job {
  readonly op: Op;
  readonly queueDepth: number;
  readonly seconds: number;
  /** Seed of the random positions. */
  readonly seed: number;
  readonly fileBytes: number;
}

/** What a run found. */
export interface Sample {
  readonly ops: number;
  readonly seconds: number;
  readonly iops: number;
  /** User and system time of the process that did the I/O, per request; kernel threads are not in it. */
  readonly cpuMicrosPerOp: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
}

/** One way to do the I/O. */
export interface Contestant {
  readonly name: string;
  /** The queue depths that it can do; undefined: every one. */
  readonly depths?: readonly number[];
  run(job: Job): Promise<Sample>;
  close(): Promise<void>;
}

/** xorshift32; the same seed gives the same positions to everybody who asks here. */
export class Positions {
  #state: number;
  readonly #blocks: number;

  constructor(job: Pick<Job, 'seed' | 'fileBytes'>) {
    this.#state = job.seed | 1;
    this.#blocks = Math.floor(job.fileBytes / REQUEST_BYTES);
  }

  /** The byte position of the next request. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return ((x >>> 0) % this.#blocks) * REQUEST_BYTES;
  }
}
