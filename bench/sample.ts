/** What one run is asked for, and what it found. */

/** Bytes of a request, but for those that are to be unaligned. */
export const REQUEST_BYTES = 4096;

/** One run: so many requests in flight for some seconds. */
export interface Job {
  /** Name of the workload. */
  readonly workload: string;
  readonly queueDepth: number;
  readonly seconds: number;
  /** Seed of the random positions. */
  readonly seed: number;
  /** Size of the file that is written before. */
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
  /** Writes and flushes that reached the volume's device, per request; where they can be counted. */
  readonly deviceWritesPerOp?: number;
  readonly deviceFlushesPerOp?: number;
}

/** One way to do the I/O. */
export interface Contestant {
  readonly name: string;
  /** Whether it takes part in a workload at this depth. */
  canRun(workload: string, queueDepth: number): boolean;
  run(job: Job): Promise<Sample>;
  close(): Promise<void>;
}

/** xorshift32; the same seed gives the same positions to everybody who asks here. */
export class Positions {
  #state: number;
  readonly #requests: number;
  readonly #requestBytes: number;

  constructor(job: Pick<Job, 'seed' | 'fileBytes'>, requestBytes = REQUEST_BYTES) {
    this.#state = job.seed | 1;
    this.#requestBytes = requestBytes;
    this.#requests = Math.floor(job.fileBytes / requestBytes);
  }

  /** The byte position of the next request. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return ((x >>> 0) % this.#requests) * this.#requestBytes;
  }
}
